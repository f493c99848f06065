//! `deepintshield demo`: three nodes that form a cluster, a simulated provider behind them, what to
//! try, and what happens then.
//!
//! Each node is a process of its own, made of this program: what a visitor kills is then a real
//! node, which loses everything that a process loses, and nothing that belongs to a process (signals,
//! logs, limits, memory protection) is shared. The demo's own process has the provider, the display
//! and no node. Nothing is left behind: configurations, states and logs lie in a folder that goes
//! with the demo, and nodes end when it does, however it ends.

mod ask;
mod config;
mod display;
mod figures;
mod load;
mod nodes;
mod sample;
mod scratch;
mod screen;
mod seen;
mod try_lines;

use crate::node::{self, Companion};
use crate::{fail, process, provider_sim};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use config::{Cluster, NODES, Ports};
use display::{Display, NotStarted};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getppid};
use nodes::Nodes;
use shared::clock::Clock;
use shared::config::model::LogFormat;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::num::{NonZeroU32, NonZeroUsize};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What the demo itself logs where `RUST_LOG` says nothing. Its nodes have logs of their own.
const LOG_DEFAULT: &str = "warn";

/// Bytes of a gossip key.
const GOSSIP_KEY_BYTES: usize = 32;

/// Where the demo listens, and what it does by itself.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Port for clients, on 127.0.0.1, 127.0.0.2 and 127.0.0.3.
    #[arg(long, value_name = "PORT", default_value = "8080", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Port for metrics and administration, on the same addresses.
    #[arg(long, value_name = "PORT", default_value = "8081", value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: u16,
    /// Port on which the nodes gossip, UDP and TCP, on the same addresses.
    #[arg(long, value_name = "PORT", default_value = "10101", value_parser = clap::value_parser!(u16).range(1..))]
    gossip_port: u16,
    /// Requests a second to send to the nodes, so that there is something to see (at most 200).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200))]
    load: Option<u32>,
    /// Kill a node after ten seconds; it is started again after another ten.
    #[arg(long)]
    show: bool,
}

/// Runs the demo until SIGTERM, SIGINT or SIGHUP.
pub(crate) fn run(options: &Options) -> ExitCode {
    process::protect_memory();
    process::prepare_descriptors();
    process::start_logging(LogFormat::Auto, LOG_DEFAULT);
    match run_nodes(options) {
        Ok(0) => {
            // Whoever is not there to read it need not be told.
            drop(writeln!(io::stdout(), "stopped; nothing is left behind"));
            ExitCode::SUCCESS
        }
        Ok(killed) => {
            fail(70, &format!("{killed} nodes did not finish in time and were killed; nothing is left behind"))
        }
        Err(error) => fail(error.exit_code(), &error.to_string()),
    }
}

/// Says whose node this process is.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodeOptions {
    /// The demo's process.
    #[arg(long)]
    parent: i32,
}

/// Ties this process, which is about to run a node, to the demo that started it.
///
/// # Errors
/// The demo is gone, or the kernel does not let us.
pub(crate) fn become_its_node(options: &NodeOptions) -> Result<(), String> {
    // However the demo ends, its nodes are asked to finish.
    nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(|error| format!("prctl: {error}"))?;
    if getppid() != Pid::from_raw(options.parent) {
        return Err("the demo that wanted this node is gone".to_owned());
    }
    // The demo blocks the signals that it waits for, and a process inherits that.
    signals().thread_unblock().map_err(|error| format!("signals cannot be unblocked: {error}"))
}

/// What ends the demo.
fn signals() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])
}

/// Why the demo did not run to its end. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    /// Something that the operating system always gives.
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
    /// A folder for the nodes' state could not be made.
    #[error("no temporary folder could be made: {0}; TMPDIR names another place for it")]
    Scratch(io::Error),
    /// The simulated provider found no port.
    #[error("the simulated provider cannot listen on 127.0.0.1: {0}")]
    Provider(io::Error),
    /// A port of ours is taken.
    #[error("cannot listen on {address}: {source}; stop what runs there, or choose another port with {option} PORT")]
    Port { address: SocketAddr, source: io::Error, option: &'static str },
    /// A node did not start.
    #[error("node {} {}; it said:\n{}", .0.index + 1, .0.how, .0.log_end)]
    Node(NotStarted),
}

impl DemoError {
    /// As `sysexits.h` has them.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Scratch(_) => 73,                        // EX_CANTCREAT
            Self::Provider(_) | Self::System { .. } => 71, // EX_OSERR
            Self::Port { .. } => 69,                       // EX_UNAVAILABLE
            Self::Node(_) => 70,                           // EX_SOFTWARE
        }
    }
}

/// Opens everything, runs it, and returns when all of it has ended: how many nodes had to be
/// killed.
fn run_nodes(options: &Options) -> Result<usize, DemoError> {
    let system = |what| move |source: io::Error| DemoError::System { what, source };
    // Blocked before any thread starts, so that one which comes early waits for the display.
    let wanted = signals();
    let listened = wanted.thread_block().and_then(|()| SignalFd::with_flags(&wanted, SfdFlags::all()));
    let signals =
        &listened.map_err(|error| DemoError::System { what: "signals cannot be waited for", source: error.into() })?;
    let clock = Clock::start();
    let ports = Ports { node: options.port, admin: options.admin_port, gossip: options.gossip_port };
    are_free(ports)?;
    // Before the nodes, which it outlives.
    let scratch = scratch::Scratch::new().map_err(DemoError::Scratch)?;
    let provider = provider_sim::open(provider_options()).map_err(DemoError::Provider)?;
    let key = gossip_key().map_err(system("no random bytes for the gossip key"))?;
    let cluster = Cluster { ports, provider: provider.address, gossip_key: &key };

    let owners: &[&str] = if options.load.is_some() { &["sk-bf-demo", "sk-bf-load"] } else { &["sk-bf-demo"] };
    let display = Display { ports, folder: scratch.path(), owners, kills_one: options.show, clock, signals };
    let mut companions = vec![companion("provider", move |stop| {
        if let Err(error) = provider.serve(stop) {
            tracing::error!(%error, "the simulated provider has ended; requests are answered with 502 from now on");
        }
    })];
    if let Some(per_second) = options.load {
        let addresses: [SocketAddr; NODES] = std::array::from_fn(|index| ports.node_address(index));
        companions.push(companion("load", move |stop| load::run(&addresses, per_second, clock, stop)));
    }
    let ran = node::accompanied(companions, || {
        let mut nodes = Nodes::start(&cluster, scratch.path(), clock).map_err(system("a node could not be started"))?;
        let shown = display.run(&mut nodes);
        let killed = nodes.stop();
        shown.map_err(DemoError::Node).map(|()| killed)
    });
    ran.map_err(system("a thread could not be started"))?
}

/// Looks whether somebody else has one of our addresses, since only here the option that chooses
/// another is known. A node that loses the race says so itself.
fn are_free(ports: Ports) -> Result<(), DemoError> {
    for index in 0..NODES {
        let gossip = ports.gossip_address(index);
        for (address, option) in [
            (ports.node_address(index), "--port"),
            (ports.admin_address(index), "--admin-port"),
            (gossip, "--gossip-port"),
        ] {
            TcpListener::bind(address).map_err(|source| DemoError::Port { address, source, option })?;
        }
        UdpSocket::bind(gossip).map_err(|source| DemoError::Port {
            address: gossip,
            source,
            option: "--gossip-port",
        })?;
    }
    Ok(())
}

/// A key of this demo alone, in base64.
fn gossip_key() -> io::Result<String> {
    let mut key = [0; GOSSIP_KEY_BYTES];
    getrandom::fill(&mut key)?;
    Ok(STANDARD.encode(key))
}

fn companion<'c>(name: &'static str, run: impl FnOnce(&AtomicBool) + Send + 'c) -> Companion<'c> {
    Companion { name, run: Box::new(run) }
}

/// A provider slow enough that a stream is seen to flow.
fn provider_options() -> provider_sim::Options {
    provider_sim::Options {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        threads: NonZeroUsize::MIN,
        api_key: Vec::new(),
        model: Vec::new(),
        completion_tokens: 40,
        tokens_per_event: NonZeroU32::MIN,
        ttft_ms: Duration::from_millis(120),
        token_ms: Duration::from_millis(20),
        limit: Vec::new(),
        fault: Vec::new(),
        seed: 1,
        // Nobody asks this provider for its log.
        log_rows: 1_000,
    }
}
