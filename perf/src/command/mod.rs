//! The command line, and what each command prints. The measuring itself is elsewhere.

mod compare;
mod floor;
mod growth;
mod instructions;
mod load;
mod profile;
mod replay;
mod request_cost;
mod streams;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use thiserror::Error;

use crate::{
    bed::BedError, replay::trace::TraceError, rig::RigError, rows::Rows, simulated::StatsError, target::TargetError,
};

/// Measures a node from outside: load, streams, cost of a request, replay of recorded traffic.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// POST load over keep-alive connections, closed loop or at a fixed rate
    Load(load::LoadArgs),
    /// Raw byte relay: the floor that a proxy is compared with
    Relay(floor::FloorArgs),
    /// The same on epoll, without a runtime
    RelayEpoll(floor::FloorArgs),
    /// Minimal HTTP/1.1 proxy: the other floor, which reads heads and does nothing with them
    MinimalProxy(floor::FloorArgs),
    /// Ends TLS before a provider that knows none
    TlsFront(floor::TlsFrontArgs),
    /// Thousands of concurrent SSE streams, every event checked, with the node's memory
    Streams(streams::StreamsArgs),
    /// CPU and instructions of one proxied request, beside the raw relay, in one run
    RequestCost(request_cost::RequestCostArgs),
    /// Nginx, `HAProxy`, Envoy, raw relays and the node under the same loads, in one run
    Compare(compare::CompareArgs),
    /// The cost of a request against providers, keys, virtual keys, limits, connections and cores
    Growth(growth::GrowthArgs),
    /// User instructions of one request, held against a baseline
    Instructions(instructions::InstructionsArgs),
    /// A folder with flame graph, waits, kernel counters and allocations of a node under load
    Profile(profile::ProfileArgs),
    /// Recorded LLM traffic, with what an exact limiter would have admitted of it
    Replay(replay::ReplayArgs),
}

/// What the exit code tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything came as it should.
    Clean,
    /// At least one failure: the figures of this run stand for nothing.
    Failed,
}

impl Verdict {
    fn clean_if(clean: bool) -> Self {
        if clean { Self::Clean } else { Self::Failed }
    }
}

/// Why a command could not measure.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    /// The target or a header of the command line.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Files, sockets, the ring.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The recorded trace.
    #[error("the trace: {0}")]
    Trace(#[from] TraceError),
    /// The simulated provider's counts.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// Starting or measuring a process.
    #[error(transparent)]
    Rig(#[from] RigError),
    /// Starting a node or sending load.
    #[error(transparent)]
    Bed(#[from] BedError),
    /// Two arguments that do not go together, or a value out of bounds.
    #[error("{0}")]
    Usage(String),
}

/// A number of seconds from the command line: a day at most.
fn seconds(value: f64) -> Result<Duration, CommandError> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|time| time.as_secs() <= 86_400)
        .ok_or_else(|| CommandError::Usage(format!("{value} is no number of seconds up to a day")))
}

/// The `deepintshield` binary that was named, or the one beside this program.
fn node_binary(named: Option<&Path>) -> Result<PathBuf, CommandError> {
    match named {
        Some(node) => Ok(node.to_owned()),
        None => Ok(std::env::current_exe().map_err(doing("finding this program"))?.with_file_name("deepintshield")),
    }
}

/// Names what was tried when an I/O error goes up.
fn doing(what: &'static str) -> impl FnOnce(std::io::Error) -> CommandError {
    move |source| CommandError::Io { what, source }
}

/// What every measuring command takes.
#[derive(Debug, Args)]
struct Output {
    /// Write the values as JSON lines to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Name of what is measured, for the `proxy` column
    #[arg(long, default_value = "gateway")]
    proxy: String,
    /// Pin this program to a core
    #[arg(long, value_name = "CORE")]
    pin: Option<usize>,
}

impl Output {
    fn pin(&self) -> Result<(), CommandError> {
        match self.pin {
            Some(id) if !core_affinity::set_for_current(core_affinity::CoreId { id }) => {
                Err(CommandError::Usage(format!("core {id} cannot be pinned to")))
            }
            _ => Ok(()),
        }
    }

    fn finish(&self, rows: &Rows) -> Result<(), CommandError> {
        rows.finish(self.json.as_deref()).map_err(doing("writing the results"))
    }
}

/// Runs the command to its end.
pub(crate) fn run(line: CommandLine) -> Result<Verdict, CommandError> {
    match line.command {
        Command::Load(args) => load::run(&args),
        Command::Relay(args) => floor::relay(&args),
        Command::RelayEpoll(args) => floor::relay_epoll(&args),
        Command::MinimalProxy(args) => floor::minimal_proxy(&args),
        Command::TlsFront(args) => floor::tls_front(&args),
        Command::Streams(args) => streams::run(&args),
        Command::RequestCost(args) => request_cost::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Growth(args) => growth::run(&args),
        Command::Instructions(args) => instructions::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Replay(args) => replay::run(&args),
    }
}
