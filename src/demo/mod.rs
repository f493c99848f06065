//! `deepintshield demo`: a node on a configuration of its own, a simulated provider behind it, what
//! to try, and what happens then.
//!
//! One process, which leaves nothing behind: its state lies in a folder that goes with it. The node
//! is the one that runs in production; only its configuration and the display are the demo's.

mod ask;
mod config;
mod display;
mod figures;
mod load;
mod sample;
mod scratch;
mod screen;
mod try_lines;

use crate::node::{self, Companion, NodeError};
use crate::{fail, process, provider_sim};
use controlplane::{ConfigSource, ControlPlane, Settings, StartError};
use nix::sys::signal::{SigSet, Signal};
use shared::clock::Clock;
use shared::config::model::LogFormat;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What is logged where `RUST_LOG` says nothing: what is wrong. The control plane's opening remarks
/// are about a configuration that nobody here has written.
const LOG_DEFAULT: &str = "warn,controlplane=error,controlplane::=warn";

/// Where the demo listens, and what it does by itself.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Port for clients, on 127.0.0.1.
    #[arg(long, value_name = "PORT", default_value = "8080", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Port for metrics and administration, on 127.0.0.1.
    #[arg(long, value_name = "PORT", default_value = "8081", value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: u16,
    /// Requests a second to send to itself, so that there is something to see (at most 200).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=200))]
    load: Option<u32>,
}

/// Runs the demo until SIGTERM or SIGINT.
pub(crate) fn run(options: &Options) -> ExitCode {
    process::protect_memory();
    process::raise_descriptor_limit();
    process::start_logging(LogFormat::Auto, LOG_DEFAULT);
    // One that comes before the node listens for it must not end the process with its folder left.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    if let Err(error) = signals.thread_block() {
        return fail(71, &format!("signals cannot be waited for: {error}"));
    }
    match run_node(options, signals) {
        Ok(()) => {
            // Whoever is not there to read it need not be told.
            drop(writeln!(io::stdout(), "stopped; nothing is left behind"));
            ExitCode::SUCCESS
        }
        Err(error) => fail(error.exit_code(), &error.to_string()),
    }
}

/// Why the demo did not run to its end. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    /// A folder for the node's state could not be made.
    #[error("no temporary folder could be made: {0}; TMPDIR names another place for it")]
    Scratch(io::Error),
    /// The simulated provider found no port.
    #[error("the simulated provider cannot listen on 127.0.0.1: {0}")]
    Provider(io::Error),
    /// A port of ours is taken.
    #[error("cannot listen on {address}: {source}; stop what runs there, or choose another port with {option} PORT")]
    Port { address: SocketAddr, source: io::Error, option: &'static str },
    /// The node did not start.
    #[error(transparent)]
    Start(StartError),
    /// The node did not end well.
    #[error(transparent)]
    Node(NodeError),
}

impl DemoError {
    /// As `sysexits.h` has them.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Scratch(_) => 73,                  // EX_CANTCREAT
            Self::Provider(_) | Self::Node(_) => 71, // EX_OSERR
            Self::Port { .. } => 69,                 // EX_UNAVAILABLE
            Self::Start(error) => error.exit_code(),
        }
    }
}

/// Opens everything, runs it, and returns when all of it has ended.
fn run_node(options: &Options, signals: SigSet) -> Result<(), DemoError> {
    let clock = Clock::start();
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (node, admin) = (local(options.port), local(options.admin_port));
    // Before the node's state, which it outlives.
    let scratch = scratch::Scratch::new().map_err(DemoError::Scratch)?;
    let provider = provider_sim::open(provider_options()).map_err(DemoError::Provider)?;
    // A node keeps the text for as long as the process lives.
    let text = config::text(options.port, options.admin_port, provider.address).leak();
    let settings = Settings {
        config: ConfigSource::Embedded(text),
        state_dir: Some(scratch.path().to_owned()),
        admin_listen: None,
        encryption_key: None,
        version: process::VERSION,
        clock,
    };
    let control = ControlPlane::open(settings).map_err(|error| match error {
        StartError::Admin { address, source } => DemoError::Port { address, source, option: "--admin-port" },
        other => DemoError::Start(other),
    })?;

    let owners: &[&str] = if options.load.is_some() { &["sk-bf-demo", "sk-bf-load"] } else { &["sk-bf-demo"] };
    let display = display::Display { node, admin, owners, clock, signals };
    let mut companions = vec![
        companion("provider", move |stop| {
            if let Err(error) = provider.serve(stop) {
                tracing::error!(%error, "the simulated provider has ended; requests are answered with 502 from now on");
            }
        }),
        companion("display", move |stop| display.run(stop)),
    ];
    if let Some(per_second) = options.load {
        companions.push(companion("load", move |stop| load::run(node, per_second, clock, stop)));
    }
    node::run_with(control, clock, companions).map_err(|error| match error {
        NodeError::Listen { address, source } => DemoError::Port { address, source, option: "--port" },
        other => DemoError::Node(other),
    })?;
    Ok(())
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
