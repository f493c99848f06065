//! The program `deepintshield`: its command line, and the exit codes of `sysexits.h`.
#![forbid(unsafe_code)]

mod admin_client;
mod check;
mod cluster;
mod config;
mod demo;
mod doctor;
mod limits;
mod node;
mod process;
mod provider_sim;
mod schema;

use clap::{Parser, Subcommand};
use controlplane::{ConfigSource, ControlPlane, EncryptionKey, Settings};
use shared::clock::Clock;
use std::env::VarError;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "count-allocations")]
#[global_allocator]
static ALLOCATOR: shared::allocations::Counting = shared::allocations::Counting;

// A thread of its own gives memory back to the system ten seconds after a burst has ended.
#[cfg(not(feature = "count-allocations"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A clustered AI gateway.
#[derive(Parser)]
#[command(version = process::VERSION, about)]
struct CommandLine {
    /// The configuration file.
    #[arg(long, env = "DEEPINTSHIELD_CONFIG", default_value = "/etc/deepintshield/config.json", global = true)]
    config: PathBuf,

    /// The state directory, whatever `server.state_dir` says: without its file, a node knows only this one.
    #[arg(long, env = "DEEPINTSHIELD_STATE_DIR")]
    state_dir: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Reads the configuration, says everything that is wrong with it, and starts nothing.
    Check,
    /// Looks at the configuration of a running cluster, and changes it.
    Config(config::Options),
    /// Prints the JSON Schema of a configuration file.
    Schema,
    /// Shows the cluster as a running node sees it.
    Cluster(cluster::Options),
    /// Shows every limit: what each node has of it, used and refused, and what is in the way.
    Limits(limits::Options),
    /// Finds out what keeps this node out of its cluster, and says what to do about it.
    Doctor(doctor::Options),
    /// Runs three nodes with a simulated provider behind them, says what to try, and shows what happens.
    Demo(demo::Options),
    /// A node of the demo, which is how it starts them.
    #[command(hide = true)]
    DemoNode(demo::NodeOptions),
    /// Runs a simulated provider, for tests and load tests.
    ProviderSim(provider_sim::Options),
}

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help and version are asked for and go to standard output; if nobody reads them, fine.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    match line.command {
        None => serve(line.config, line.state_dir),
        Some(Command::Check) => check::run(&line.config),
        Some(Command::Cluster(options)) => cluster::run(&line.config, &options),
        Some(Command::Config(options)) => config::run(&line.config, &options),
        Some(Command::Schema) => schema::run(),
        Some(Command::Demo(options)) => demo::run(&options),
        Some(Command::DemoNode(options)) => match demo::become_its_node(&options) {
            Ok(()) => serve(line.config, line.state_dir),
            Err(why) => fail(69, &why),
        },
        Some(Command::Doctor(options)) => doctor::run(&line.config, &options),
        Some(Command::Limits(options)) => limits::run(&line.config, &options),
        Some(Command::ProviderSim(options)) => simulate(options),
    }
}

/// Runs a node on a configuration file.
fn serve(config: PathBuf, state_dir: Option<PathBuf>) -> ExitCode {
    process::protect_memory();
    process::prepare_descriptors();
    let clock = Clock::start();
    let encryption_key = match encryption_key() {
        Ok(key) => key,
        Err(error) => return fail(78, &format!("DEEPINTSHIELD_ENCRYPTION_KEY: {error}")),
    };
    let settings = Settings {
        config: ConfigSource::File(config),
        state_dir,
        admin_listen: None,
        encryption_key,
        version: process::VERSION,
        clock,
    };
    let control = match ControlPlane::open(settings) {
        Ok(control) => control,
        Err(error) => return fail(error.exit_code(), &error.to_string()),
    };
    process::start_logging(control.server().log_format, process::LOG_DEFAULT);
    match node::run(control, clock) {
        Ok(finished) => {
            tracing::info!(?finished, "stopped");
            if cfg!(feature = "count-allocations") {
                let (cores, others) = shared::allocations::counted();
                let (core_calls, core_bytes) = (cores.calls, cores.bytes);
                tracing::info!(core_calls, core_bytes, other_calls = others.calls, "allocations");
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(error.exit_code(), &error.to_string()),
    }
}

/// The key that seals secrets on disk: from the environment, or from a file that it names.
fn encryption_key() -> Result<Option<EncryptionKey>, String> {
    let text = match std::env::var("DEEPINTSHIELD_ENCRYPTION_KEY") {
        Ok(text) => text,
        Err(VarError::NotPresent) => return Ok(None),
        Err(VarError::NotUnicode(_)) => return Err("it is not text".to_owned()),
    };
    let text = match text.strip_prefix("file:") {
        Some(path) => std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?,
        None => text,
    };
    EncryptionKey::new(shared::secret::Secret::new(text.trim())).map(Some).map_err(|error| error.to_string())
}

fn simulate(options: provider_sim::Options) -> ExitCode {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let signals =
        nix::sys::signal::SigSet::from_iter([nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGINT]);
    if let Err(error) = signals.thread_block() {
        return fail(71, &format!("signals cannot be waited for: {error}"));
    }
    let watch = move || {
        let _ = signals.wait();
        seen.store(true, Ordering::Relaxed);
    };
    match node::beside("signals", watch, || provider_sim::run(options, &stop)).and_then(|ran| ran) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => fail(69, &error.to_string()),
        Err(error) => fail(71, &error.to_string()),
    }
}

/// Says why on standard error and gives the exit code.
fn fail(code: u8, why: &str) -> ExitCode {
    // Nobody is left to tell if this fails.
    let _ = writeln!(io::stderr(), "deepintshield: {why}");
    ExitCode::from(code)
}
