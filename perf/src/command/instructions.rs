//! `perf instructions`.

use std::{path::PathBuf, process::Command};

use clap::Args;

use super::{CommandError, Verdict, doing};
use crate::{
    bed::{Bed, beside_this_program},
    instructions::{
        Counting,
        baseline::{Counts, Judgement, median},
    },
    rows::{Rows, say},
};

/// Most counted requests: an hour under valgrind.
const REQUESTS_MAX: u64 = 1_000_000;
/// Most rounds.
const ROUNDS_MAX: u32 = 20;

#[derive(Debug, Args)]
pub(super) struct InstructionsArgs {
    /// The `deepintshield` binary (otherwise the one beside this program)
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// Fail where a request costs more than 3 % above this baseline
    #[arg(long, value_name = "FILE", conflicts_with = "write")]
    check: Option<PathBuf>,
    /// Write the counts as a new baseline
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Counted requests of one life; the second life sends twice as many
    #[arg(long, default_value_t = 2_000)]
    requests: u64,
    /// Rounds; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// First of three loopback ports that are used
    #[arg(long, default_value_t = 19_100)]
    port: u16,
    /// Core of the proxy under test
    #[arg(long, default_value_t = 0)]
    proxy_core: usize,
    /// Core of the load and of the simulated provider
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Write the values as JSON lines to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &InstructionsArgs) -> Result<Verdict, CommandError> {
    if !(1..=REQUESTS_MAX).contains(&args.requests) || !(1..=ROUNDS_MAX).contains(&args.rounds) {
        return Err(CommandError::Usage(format!("1 to {REQUESTS_MAX} requests and 1 to {ROUNDS_MAX} rounds")));
    }
    // Before the minutes that counting takes.
    let baseline = args.check.as_deref().map(Counts::read).transpose().map_err(doing("reading the baseline"))?;
    let node = args.node.clone().map_or_else(|| beside_this_program("deepintshield"), Ok)?;
    let bed = Bed::start(&node, args.port, args.load_core)?;
    let counting = Counting::of(args.requests);
    let cores = [args.proxy_core];
    let mut rows = Rows::new("instructions");
    let (mut gateways, mut minimals) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        rows.set_run(round);
        let minimal = counting.floor(&bed, "minimal-proxy", &cores)?;
        let gateway = counting.node(&bed, &node, crate::bed::shape::Shape::default(), &cores)?;
        rows.add("minimal", "user_instructions_per_request", minimal, "instructions");
        rows.add("gateway", "user_instructions_per_request", gateway, "instructions");
        minimals.push(minimal);
        gateways.push(gateway);
    }
    let counts = Counts { gateway: median(gateways), minimal: median(minimals) };
    rows.finish(args.json.as_deref()).map_err(doing("writing the results"))?;
    if let Some(path) = &args.write {
        let about = [
            ("toolchain", printed("rustc")),
            ("valgrind", printed("valgrind")),
            ("requests", args.requests.to_string()),
        ];
        counts.write(path, &about).map_err(doing("writing the baseline"))?;
        say(&format!("the baseline is now {:.0}, beside {:.0} of the minimal proxy", counts.gateway, counts.minimal));
    }
    Ok(baseline.map_or(Verdict::Clean, |baseline| judge(counts, baseline)))
}

fn judge(counts: Counts, baseline: Counts) -> Verdict {
    let figures = format!(
        "{:.0} user instructions a request where the baseline has {:.0} (minimal proxy: {:.0}, baseline {:.0}): {:+.1} %",
        counts.gateway,
        baseline.gateway,
        counts.minimal,
        baseline.minimal,
        (counts.to(baseline) - 1.0) * 100.0
    );
    let judgement = counts.judge(baseline);
    say(&match judgement {
        Judgement::Holds => figures,
        Judgement::Outgrown => format!("{figures}; it is much less, so write a new baseline (--write)"),
        Judgement::Costlier => format!(
            "{figures}; no more than 3 % is allowed. Make the request cheaper, or write a new baseline (--write) and \
             say in the commit what it pays for"
        ),
    });
    Verdict::clean_if(judgement != Judgement::Costlier)
}

/// The version of a program that is on the path.
fn printed(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    output.map_or_else(|_| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
