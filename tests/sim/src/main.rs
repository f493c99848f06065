//! Many control planes in one process: the gossip that production runs, over a simulated network in
//! virtual time. A seed chooses the faults; after them, every live node must have the same view.
//!
//! ```text
//! sim seeds --from 1 --count 200     each seed in a process of its own, as many at once as there are cores
//! sim seed 17                        one seed, with what happened
//! sim scale --nodes 100              converged when, bytes per node and second, size of a digest
//!
//! sim limits --from 1 --count 200    clusters that share limits; nothing is ever exceeded
//! sim limit 17                       one of them, with what happened
//! sim limits-table                   how much of a limit is used, as a table
//! sim limits-trace --trace FILE      and how recorded traffic fares under it, as tables
//! sim limits-scale --nodes 1000 --limits 200
//! ```
//!
//! A process runs one simulation only: the randomness and the clocks of a whole process are taken
//! over, so that the same seed gives the same run, to the last message.
#![forbid(unsafe_code)]

mod limits;
mod local;
mod network;
mod node;
mod run;
mod scale;
mod scenario;
mod seeds;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Simulates clusters")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds and names those that fail.
    Seeds {
        /// The first one.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many.
        #[arg(long, default_value_t = 200)]
        count: u64,
    },
    /// Runs one seed.
    Seed {
        /// Which one.
        seed: u64,
    },
    /// Measures a large cluster.
    Scale {
        /// How large.
        #[arg(long, default_value_t = 100)]
        nodes: usize,
        /// Virtual seconds.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// Runs many seeds of clusters with limits and names those that fail.
    Limits {
        /// The first one.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many.
        #[arg(long, default_value_t = 200)]
        count: u64,
    },
    /// Runs one seed of a cluster with limits.
    Limit {
        /// Which one.
        seed: u64,
        /// Without what happened on the way.
        #[arg(long)]
        quiet: bool,
    },
    /// Measures how much of a limit is used.
    LimitsTable,
    /// Plays recorded traffic against a limit on tokens, however it is kept.
    LimitsTrace {
        /// `TIMESTAMP,ContextTokens,GeneratedTokens` a line.
        #[arg(long)]
        trace: PathBuf,
        /// How many nodes; may be said several times.
        #[arg(long, default_values_t = [1, 3, 7])]
        nodes: Vec<usize>,
        /// How many times faster than recorded.
        #[arg(long, default_value_t = 1.0)]
        speed: f64,
    },
    /// Measures limits in a large cluster.
    LimitsScale {
        /// How large.
        #[arg(long, default_value_t = 1_000)]
        nodes: usize,
        /// How many limits.
        #[arg(long, default_value_t = 200)]
        limits: usize,
    },
}

fn main() -> ExitCode {
    let succeeded = match CommandLine::parse().command {
        Command::Seeds { from, count } => seeds::run(&["seed"], from, count),
        Command::Seed { seed } => run::run(seed),
        Command::Scale { nodes, seconds } => scale::run(nodes, seconds),
        Command::Limits { from, count } => seeds::run(&["limit", "--quiet"], from, count),
        Command::Limit { seed, quiet } => limits::run(seed, !quiet),
        Command::LimitsTable => limits::table(),
        Command::LimitsTrace { trace, nodes, speed } => limits::trace(&trace, &nodes, speed),
        Command::LimitsScale { nodes, limits } => limits::scale(nodes, limits),
    };
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
