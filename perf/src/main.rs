//! Measures a whole node: load, streams, the cost of a request beside a raw relay, the
//! comparison with other proxies, and the replay of recorded traffic. `README.md` says what each command answers.
//!
//! It knows nothing of the gateway's code: only HTTP, a process id and a configuration
//! file. It sends to loopback addresses only.

#![forbid(unsafe_code)]

mod alarm;
mod answer;
mod bed;
mod child;
mod clock;
mod command;
mod compare;
mod connection;
mod counters;
mod epoll_relay;
mod growth;
mod idle;
mod instructions;
mod load;
#[cfg(test)]
mod loopback_tests;
mod minimal_proxy;
mod node_memory;
mod peer;
mod plot;
mod profile;
mod relay;
mod replay;
mod request_cost;
mod rig;
mod ring;
mod rows;
mod simulated;
mod spread;
mod sse;
mod streams;
mod tally;
mod target;
mod tls;
mod watchdog;

use std::process::ExitCode;

use clap::Parser;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit};

/// Descriptors that the kernel's table has places for from the start. It grows in a process with
/// several threads by waiting for all cores, and that pause would be in every figure of a run that opens
/// connections: ours as a load, and the relays' as peers.
const DESCRIPTORS_READY: i32 = 32 * 1024;

fn prepare_descriptors() {
    let allowed = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| i32::try_from(soft).unwrap_or(i32::MAX));
    if let Ok(descriptor) = fcntl(std::io::stderr(), FcntlArg::F_DUPFD_CLOEXEC(DESCRIPTORS_READY.min(allowed) - 1)) {
        let _ = nix::unistd::close(descriptor);
    }
}

fn main() -> ExitCode {
    prepare_descriptors();
    match command::run(command::CommandLine::parse()) {
        Ok(command::Verdict::Clean) => ExitCode::SUCCESS,
        Ok(command::Verdict::Failed) => ExitCode::FAILURE,
        Err(error) => {
            rows::say(&format!("perf: {error}"));
            ExitCode::from(70)
        }
    }
}
