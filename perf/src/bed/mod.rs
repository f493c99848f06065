//! A node under test and what belongs around it: the simulated provider behind it, a folder for its files,
//! and load in front of it. All of it is started here and ends with this value.

pub(crate) mod shape;

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use thiserror::Error;

use crate::{
    child::{Child, Scratch},
    clock,
    load::{self, CONNECTIONS_MAX, Load, Pace, Until},
    ring,
    target::{Target, TargetError, loopback},
};
use shape::{Shape, Sockets};

/// Requests that load sends over different connections at once, unless a run is about that.
pub(crate) const CONNECTIONS: usize = 64;
/// Different requests of one load: with as many loads each of one or several connections.
const LANES_MAX: usize = 64;
/// Tokens of an answer: with them its JSON is about 1 KiB long.
const ANSWER_TOKENS: &str = "144";
/// Longest silence before a request counts as failed: under valgrind, with thousands at once.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Longest wait for the first answer: under valgrind, with a large configuration.
const READY_MAX: Duration = Duration::from_secs(180);
/// Time between two tries.
const READY_INTERVAL: Duration = Duration::from_millis(100);

/// Why something could not be measured. What was started has been stopped.
#[derive(Debug, Error)]
pub(crate) enum BedError {
    /// Files, sockets, processes.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// An address that is not on loopback.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Requests failed: figures of this measurement would stand for nothing.
    #[error("{0}")]
    Failed(String),
}

/// Names what was tried when an I/O error goes up.
pub(crate) fn doing(what: impl Into<String>) -> impl FnOnce(io::Error) -> BedError {
    move |source| BedError::Io { what: what.into(), source }
}

/// The provider, the folder, the addresses.
#[derive(Debug)]
pub(crate) struct Bed {
    sockets: Sockets,
    load_core: usize,
    // In this order they go.
    _provider: Child,
    scratch: Scratch,
}

impl Bed {
    /// Starts the provider on the core of the load, where this thread stays as well. Three ports are used, from
    /// `port` on.
    pub(crate) fn start(node: &Path, port: u16, load_core: usize) -> Result<Self, BedError> {
        let address = |offset: u16| loopback(&format!("127.0.0.1:{}", port.saturating_add(offset)));
        let sockets = Sockets { provider: address(0)?, listen: address(1)?, admin_port: port.saturating_add(2) };
        let scratch = Scratch::new().map_err(doing("making a folder for configurations"))?;
        run_on(&[load_core])?;
        let mut command = Command::new(node);
        command.args(["provider-sim", "--listen", &sockets.provider.to_string()]);
        command.args(["--completion-tokens", ANSWER_TOKENS]);
        let provider = Child::start("provider", &mut command, scratch.path());
        let mut provider = provider.map_err(doing("the simulated provider"))?;
        provider.wait_for(sockets.provider).map_err(doing("the simulated provider"))?;
        Ok(Self { sockets, load_core, _provider: provider, scratch })
    }

    /// For what is written beside the configuration; it goes with this value.
    pub(crate) fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// Where the provider listens.
    pub(crate) fn provider(&self) -> SocketAddr {
        self.sockets.provider
    }

    /// Where the proxy under test listens.
    pub(crate) fn listen(&self) -> SocketAddr {
        self.sockets.listen
    }

    /// The command of a node of this shape, its configuration written, without anything of a node before it.
    pub(crate) fn node(&self, program: &Path, shape: Shape) -> Result<Command, BedError> {
        let (state, file) = (self.folder().join("state"), self.folder().join("node.json"));
        if state.exists() {
            fs::remove_dir_all(&state).map_err(doing("removing a node's state"))?;
        }
        let config = shape.config(self.sockets, &state).to_string();
        fs::write(&file, config).map_err(doing("writing a configuration"))?;
        let mut command = Command::new(program);
        command.arg("--config").arg(file);
        Ok(command)
    }

    /// A proxy that is a command of this program.
    pub(crate) fn floor(&self, command: &str) -> Result<Command, BedError> {
        let mut floor = Command::new(std::env::current_exe().map_err(doing("finding this program"))?);
        floor.args([command, "--listen", &self.listen().to_string(), "--to", &self.provider().to_string()]);
        Ok(floor)
    }

    /// Starts a proxy on these cores and returns when `request` is answered with 200.
    pub(crate) fn begin(
        &self,
        name: &str,
        mut command: Command,
        cores: &[usize],
        request: &[u8],
    ) -> Result<Child, BedError> {
        run_on(cores)?;
        let child = Child::start(name, &mut command, self.folder());
        run_on(&[self.load_core])?;
        let child = child.map_err(doing(name))?;
        let deadline = clock::now() + READY_MAX;
        let mut said = String::new();
        while clock::now() < deadline {
            match self.send(&[request.to_vec()], 1, 1) {
                Ok(()) => return Ok(child),
                Err(error) => said = error.to_string(),
            }
            if !Path::new(&format!("/proc/{}/exe", child.pid())).exists() {
                break;
            }
            std::thread::sleep(READY_INTERVAL);
        }
        let log = fs::read_to_string(self.folder().join(format!("{name}.log"))).unwrap_or_default();
        let last = log.lines().last().unwrap_or_default();
        Err(BedError::Failed(format!("{name} does not answer ({said}); it said: {last}")))
    }

    /// Connections that had one request each and say nothing more. A node waits 75 s for the next one.
    pub(crate) fn idle_connections(&self, count: usize, request: &[u8]) -> Result<Vec<TcpStream>, BedError> {
        let open = (0..count).map(|_| {
            let mut stream = TcpStream::connect(self.listen())?;
            stream.write_all(request)?;
            // The beginning of the answer is enough: it is there, and so is the connection.
            stream.read_exact(&mut [0; 15])?;
            Ok(stream)
        });
        open.collect::<Result<_, _>>().map_err(doing("opening idle connections"))
    }

    /// Fails where the node has closed connections that were to wait beside the others.
    pub(crate) fn still_wait(idle: &[TcpStream]) -> Result<(), BedError> {
        let is_open = |stream: &TcpStream| {
            let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
            // What is left of the answer, or nothing yet.
            peeked.map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |bytes| bytes > 0)
        };
        let closed = idle.iter().filter(|stream| !is_open(stream)).count();
        if closed == 0 {
            return Ok(());
        }
        Err(BedError::Failed(format!("{closed} of {} idle connections were closed meanwhile", idle.len())))
    }

    /// Sends so many requests in a closed loop, and insists that each is answered with 200.
    pub(crate) fn send(&self, requests: &[Vec<u8>], connections: usize, count: u64) -> Result<(), BedError> {
        send(&Target::parse(&format!("http://{}/", self.listen()))?, requests, connections, count)
    }
}

/// The same, to whoever listens at the target.
pub(crate) fn send(target: &Target, requests: &[Vec<u8>], connections: usize, count: u64) -> Result<(), BedError> {
    let lanes = requests.len().min(connections).clamp(1, LANES_MAX);
    let connections = connections.min(CONNECTIONS_MAX);
    let share = |whole: u64, lane: usize| whole / lanes as u64 + u64::from((lane as u64) < whole % lanes as u64);
    let loads: Vec<Load> = requests
        .iter()
        .take(lanes)
        .enumerate()
        .map(|(lane, request)| Load {
            target: target.clone(),
            request: request.clone(),
            connections: share(connections as u64, lane) as usize,
            pace: Pace::Closed,
            until: Until::Requests(share(count, lane)),
            silence_max: SILENCE_MAX,
            expected_bytes: None,
            tls: None,
            reconnects: false,
        })
        .collect();
    let sent = ring::run(async |_| {
        let tasks: Vec<_> = loads.into_iter().map(|load| monoio::spawn(load::run(load))).collect();
        let mut results = Vec::with_capacity(tasks.len());
        for task in tasks {
            results.push(task.await);
        }
        results
    })
    .map_err(doing("starting the ring"))?;
    for result in sent {
        let tally = result.map_err(doing("sending load"))?.tally;
        if tally.not_ok() > 0 {
            return Err(BedError::Failed(format!("failed requests: {}", tally.describe_not_ok())));
        }
    }
    Ok(())
}

/// Leaves these cores to this thread, and so to what it starts from here on.
fn run_on(cores: &[usize]) -> Result<(), BedError> {
    let mut set = CpuSet::new();
    let chosen = cores.iter().try_for_each(|&core| set.set(core));
    let pinned = chosen.and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    pinned.map_err(|error| doing(format!("running on the cores {cores:?}"))(error.into()))
}

/// The gateway's program, where nothing else is said: the one beside this one.
pub(crate) fn beside_this_program(name: &str) -> Result<PathBuf, BedError> {
    Ok(std::env::current_exe().map_err(doing("finding this program"))?.with_file_name(name))
}
