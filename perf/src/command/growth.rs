//! `perf growth`.

use std::{fs, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{CommandError, Verdict, doing};
use crate::{
    bed::beside_this_program,
    growth::{self, Axis, GrowthRun},
    load::REQUESTS_MAX,
    rows::Rows,
};

#[derive(Debug, Args)]
pub(super) struct GrowthArgs {
    /// What grows [default: all of them]
    #[arg(long, value_enum, value_delimiter = ',')]
    axes: Vec<Axis>,
    /// Leave sizes beyond this out
    #[arg(long, default_value_t = usize::MAX)]
    largest: usize,
    /// The folder of results, made here
    #[arg(long, value_name = "FOLDER", default_value = "results/growth")]
    out: PathBuf,
    /// Requests that are counted under callgrind, for each size
    #[arg(long, default_value_t = 1_000)]
    requests: u64,
    /// Requests that CPU time is taken over, for each size
    #[arg(long, default_value_t = 50_000)]
    cpu_requests: u64,
    /// The `deepintshield` binary (otherwise the one beside this program)
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// First of three loopback ports that are used
    #[arg(long, default_value_t = 19_100)]
    port: u16,
    /// Cores of the node; it takes the first, or as many as it has
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    node_cores: Vec<usize>,
    /// Core of the load and of the simulated provider
    #[arg(long, default_value_t = 1)]
    load_core: usize,
}

pub(super) fn run(args: &GrowthArgs) -> Result<Verdict, CommandError> {
    let counts = [args.requests, args.cpu_requests];
    if counts.iter().any(|count| !(1..=REQUESTS_MAX).contains(count)) {
        return Err(CommandError::Usage(format!("1 to {REQUESTS_MAX} requests")));
    }
    fs::create_dir_all(&args.out).map_err(doing("making the folder of results"))?;
    let what = GrowthRun {
        node: args.node.clone().map_or_else(|| beside_this_program("deepintshield"), Ok)?,
        axes: if args.axes.is_empty() { Axis::value_variants().to_vec() } else { args.axes.clone() },
        largest: args.largest,
        requests: args.requests,
        cpu_requests: args.cpu_requests,
        folder: args.out.clone(),
        port: args.port,
        node_cores: args.node_cores.clone(),
        load_core: args.load_core,
    };
    let mut rows = Rows::new("growth");
    let is_bounded = growth::run(&what, &mut rows)?;
    rows.finish(Some(&args.out.join("growth.jsonl"))).map_err(doing("writing the results"))?;
    Ok(Verdict::clean_if(is_bounded))
}
