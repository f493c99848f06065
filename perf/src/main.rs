//! Measures a whole node: load, streams, the cost of a request beside a raw relay, and
//! the replay of recorded traffic. `README.md` says what each command answers.
//!
//! It knows nothing of the gateway's code: only HTTP, a process id and a configuration
//! file. It sends to loopback addresses only.

#![forbid(unsafe_code)]

mod alarm;
mod answer;
mod bed;
mod clock;
mod command;
mod connection;
mod growth;
mod instructions;
mod load;
#[cfg(test)]
mod loopback_tests;
mod minimal_proxy;
mod node_memory;
mod plot;
mod profile;
mod relay;
mod replay;
mod request_cost;
mod ring;
mod rows;
mod simulated;
mod sse;
mod streams;
mod tally;
mod target;
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
