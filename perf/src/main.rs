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

fn main() -> ExitCode {
    match command::run(command::CommandLine::parse()) {
        Ok(command::Verdict::Clean) => ExitCode::SUCCESS,
        Ok(command::Verdict::Failed) => ExitCode::FAILURE,
        Err(error) => {
            rows::say(&format!("perf: {error}"));
            ExitCode::from(70)
        }
    }
}
