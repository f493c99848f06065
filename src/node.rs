//! One node: N cores, one control thread, and the rings between them. The only file that knows
//! both planes, and the only one that starts threads.

use crate::process;
use controlplane::{ControlPlane, Finished, RunError};
use dataplane::{Driver, Seat};
use shared::clock::Clock;
use shared::config::model;
use shared::phase::{Phase, SharedPhase};
use shared::ring::{core_channel, report_channel};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

/// How often, and how long apart, a taken address is tried again: three seconds in all.
const SHADOW_TRIES: u32 = 30;
const SHADOW_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait to be accepted by one core.
const ACCEPT_BACKLOG: i32 = 4096;

/// Why a node did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// Somebody else has the address.
    #[error("cannot listen on {address}: {source}; stop what runs there, or change server.host and server.port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// `driver: io_uring` was asked for and is not to be had.
    #[error("server.driver is io_uring, but {0}; allow it, or say \"auto\"")]
    Driver(String),
    /// Certificate and private key of the client listener cannot be used together, or at all.
    #[error("the client listener cannot use its certificate: {0}; see server.tls")]
    Identity(String),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
    /// The control thread failed.
    #[error(transparent)]
    Control(#[from] RunError),
    /// A core does not come back. Its thread is left as it is, and ends with the process.
    #[error("core {0} is stuck")]
    Stuck(u32),
    /// Another live node of the cluster has this node's id.
    #[error(
        "another live node has this node's id; give each node a cluster_config.node_id and a state directory of its own"
    )]
    DuplicateNode,
    /// A core failed; the others were stopped.
    #[error("core {core} failed: {source}")]
    Core {
        /// Its number.
        core: u32,
        /// Why.
        source: io::Error,
    },
}

impl NodeError {
    /// The exit code, as `sysexits.h` has them.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. } | Self::Driver(_) => 69, // EX_UNAVAILABLE
            Self::Control(RunError::Compile(_)) | Self::Identity(_) | Self::DuplicateNode => 78, // EX_CONFIG
            Self::Stuck(_) => 70,                        // EX_SOFTWARE
            Self::Thread(_) | Self::Control(RunError::Runtime(_)) | Self::Core { .. } => 71, // EX_OSERR
        }
    }
}

/// Runs a node until it has drained. The control thread is the calling one.
pub(crate) fn run(control: ControlPlane, clock: Clock) -> Result<Finished, NodeError> {
    let server = control.server().clone();
    if let Some(identity) = control.listener_identity() {
        dataplane::check_identity(&identity).map_err(NodeError::Identity)?;
    }
    let driver = choose_driver(server.driver)?;
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let count = server.cores.map_or(cpus.len().max(1), |cores| usize::from(cores.get()));
    let listeners = listen(server.listen, count)?;
    let phase = SharedPhase::new();
    let (report_sender, report_receiver) = report_channel();
    let mut senders = Vec::with_capacity(count);
    let mut cores = Vec::with_capacity(count);
    for (index, listener) in listeners.into_iter().enumerate() {
        let core = u32::try_from(index).unwrap_or(u32::MAX);
        let (sender, receiver) = core_channel();
        senders.push(sender);
        let seat =
            Seat { core, driver, listener, receiver, reports: report_sender.clone(), phase: phase.clone(), clock };
        let cpu = server.pin_cores.then(|| cpus.get(index % cpus.len().max(1)).copied()).flatten();
        let phase = phase.clone();
        let serve = move || {
            shared::allocations::count_as_core();
            if let Some(cpu) = cpu
                && !core_affinity::set_for_current(cpu)
            {
                tracing::warn!(core, cpu = cpu.id, "this core cannot be pinned to its CPU and may wander");
            }
            let outcome = dataplane::run(seat);
            // A node with a dead core would let its share of the connections wait for ever.
            phase.advance_to(Phase::Stopped);
            outcome
        };
        let thread = thread::Builder::new().name(format!("core-{core}")).spawn(serve).map_err(NodeError::Thread)?;
        cores.push(thread);
    }
    let address = server.listen;
    let admin = control.admin_address().map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(%address, admin, cores = count, version = process::VERSION, "listening");
    let finished = control.run(senders, report_receiver, &phase);
    if let Ok(Finished::Stuck { core }) = finished {
        return Err(NodeError::Stuck(core));
    }
    for (index, core) in cores.into_iter().enumerate() {
        let core_number = u32::try_from(index).unwrap_or(u32::MAX);
        let outcome = core.join().unwrap_or_else(|_| Err(io::Error::other("it panicked; the message is above")));
        outcome.map_err(|source| NodeError::Core { core: core_number, source })?;
    }
    match finished? {
        Finished::DuplicateNode => Err(NodeError::DuplicateNode),
        finished => Ok(finished),
    }
}

/// What runs on a thread of its own beside something else until the flag it is given is set. It is
/// unparked then, so that it may wait parked.
pub(crate) struct Companion<'c> {
    /// The thread's name.
    pub(crate) name: &'static str,
    /// What it does. To end early is allowed and ends nothing else.
    pub(crate) run: Box<dyn FnOnce(&AtomicBool) + Send + 'c>,
}

/// Does `work` with companions beside it, which start first and are told to stop once it is done.
/// All of them have ended when this returns.
pub(crate) fn accompanied<T>(companions: Vec<Companion<'_>>, work: impl FnOnce() -> T) -> io::Result<T> {
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        let mut running = Running { stop, threads: Vec::with_capacity(companions.len()) };
        for Companion { name, run } in companions {
            let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, move || run(stop));
            running.threads.push(thread?);
        }
        Ok(work())
    })
}

/// Companions that are told to stop when this is dropped: a panic beside them must not wait for
/// them.
struct Running<'scope> {
    stop: &'scope AtomicBool,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in &self.threads {
            thread.thread().unpark();
        }
    }
}

fn choose_driver(wanted: model::Driver) -> Result<Driver, NodeError> {
    let (found, why) = match wanted {
        model::Driver::Epoll => (Driver::Epoll, "server.driver says so".to_owned()),
        model::Driver::Auto | model::Driver::IoUring => Driver::probe(),
    };
    match (wanted, found) {
        (model::Driver::IoUring, Driver::Epoll) => Err(NodeError::Driver(why)),
        (_, Driver::Epoll) => {
            tracing::warn!("cores wait with epoll, because {why}");
            Ok(found)
        }
        (_, Driver::Uring { .. }) => {
            tracing::info!("cores wait with io_uring ({why})");
            Ok(found)
        }
    }
}

/// One listening socket a core, all on one address.
fn listen(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, NodeError> {
    let listen = || -> io::Result<Vec<TcpListener>> {
        // With SO_REUSEPORT a second process would get in unnoticed and take half of the
        // connections. A socket without it is refused while anybody is there.
        drop(bind(address, false)?);
        (0..count).map(|_| Ok(bind(address, true)?.into())).collect()
    };
    // The kernel gives the rings of a killed process back late, and their sockets with them: a
    // supervisor that restarts us at once would meet our own shadow.
    for _ in 0..SHADOW_TRIES {
        match listen() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(SHADOW_PAUSE),
            outcome => return outcome.map_err(|source| NodeError::Listen { address, source }),
        }
    }
    listen().map_err(|source| NodeError::Listen { address, source })
}

fn bind(address: SocketAddr, is_shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    Ok(socket)
}

/// Runs `watch` on a thread of its own and `work` on this one; for programs that are no node.
pub(crate) fn beside<T>(name: &str, watch: impl FnOnce() + Send + 'static, work: impl FnOnce() -> T) -> io::Result<T> {
    // It ends with the process: a thread that waits for a signal cannot be told to stop.
    let _watching = thread::Builder::new().name(name.to_owned()).spawn(watch)?;
    Ok(work())
}
