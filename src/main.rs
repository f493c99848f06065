//! The program `deepintshield`: its command line.

mod provider_sim;

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Parser;
use nix::sys::signal::{SigSet, Signal};

#[derive(Parser)]
#[command(version, about)]
enum Command {
    /// Runs a simulated AI provider.
    ProviderSim(provider_sim::Options),
}

fn main() -> ExitCode {
    let Command::ProviderSim(options) = Command::parse();
    match stop_signal().and_then(|stop| provider_sim::run(options, &stop)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(io::stderr(), "deepintshield: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes true on SIGTERM or Ctrl-C.
fn stop_signal() -> io::Result<Arc<AtomicBool>> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let _ = signals.wait();
        seen.store(true, Ordering::Relaxed);
    })?;
    Ok(stop)
}
