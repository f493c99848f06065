//! `perf profile`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{CommandError, Verdict, doing};
use crate::{
    bed::{beside_this_program, shape::Answer},
    child::Scratch,
    load::REQUESTS_MAX,
    profile::{self, Profile, Subject, compare, flame},
    rows::{Rows, say},
    target::{Header, Target, chat_body},
};

/// The values of a folder of results.
const VALUES: &str = "profile.jsonl";

#[derive(Debug, Args)]
pub(super) struct ProfileArgs {
    /// The folder of results, made here
    #[arg(long, value_name = "FOLDER", default_value = "results/profile")]
    out: PathBuf,
    /// Compare two folders of results instead of making one
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"])]
    compare: Option<Vec<PathBuf>>,
    /// What clients ask for
    #[arg(long, value_enum, default_value = "chat")]
    scenario: Answer,
    /// Requests of each window
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// Look at this process instead of starting a node
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// Where that process is asked for chats
    #[arg(long)]
    url: Option<String>,
    /// A header for it, `name: value`; may be given again
    #[arg(long)]
    header: Vec<Header>,
    /// The model that it is asked for
    #[arg(long, default_value = "openai/gpt-4o-mini")]
    model: String,
    /// The `deepintshield` binary (otherwise the one beside this program)
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// The same, built with `count-allocations` (otherwise `deepintshield-counting` beside this program)
    #[arg(long, value_name = "FILE")]
    counting_node: Option<PathBuf>,
    /// First of three loopback ports that are used
    #[arg(long, default_value_t = 19_100)]
    port: u16,
    /// Core of the node
    #[arg(long, default_value_t = 0)]
    node_core: usize,
    /// Core of the load and of the simulated provider
    #[arg(long, default_value_t = 1)]
    load_core: usize,
}

pub(super) fn run(args: &ProfileArgs) -> Result<Verdict, CommandError> {
    if !(1..=REQUESTS_MAX).contains(&args.requests) {
        return Err(CommandError::Usage(format!("1 to {REQUESTS_MAX} requests")));
    }
    fs::create_dir_all(&args.out).map_err(doing("making the folder of results"))?;
    if let Some([before, after]) = args.compare.as_deref() {
        return side_by_side(before, after, &args.out);
    }
    let mut rows = Rows::new("profile");
    match (args.pid, &args.url) {
        (Some(pid), Some(url)) => {
            let target = Target::parse(url)?;
            let request = target.post(&args.header, &chat_body(&args.model, 1024));
            let scratch = Scratch::new().map_err(doing("making a folder for samples"))?;
            let subject = Subject { pid, target, requests: &[request], count: args.requests };
            profile::look_at(&subject, &args.out, scratch.path(), &mut rows)?;
        }
        _ => profile::run(&started(args)?, &mut rows)?,
    }
    rows.finish(Some(&args.out.join(VALUES))).map_err(doing("writing the results"))?;
    say(&format!("{}: {VALUES}, on-cpu.svg, off-cpu.svg, and what they were drawn from", args.out.display()));
    Ok(Verdict::Clean)
}

fn started(args: &ProfileArgs) -> Result<Profile, CommandError> {
    let counting_node = match &args.counting_node {
        Some(node) => Some(node.clone()),
        None => Some(beside_this_program("deepintshield-counting")?).filter(|node| node.exists()),
    };
    Ok(Profile {
        node: args.node.clone().map_or_else(|| beside_this_program("deepintshield"), Ok)?,
        counting_node,
        answer: args.scenario,
        requests: args.requests,
        folder: args.out.clone(),
        port: args.port,
        node_core: args.node_core,
        load_core: args.load_core,
    })
}

fn side_by_side(before: &Path, after: &Path, out: &Path) -> Result<Verdict, CommandError> {
    let values = |folder: &Path| fs::read_to_string(folder.join(VALUES)).map_err(doing("reading the results"));
    let table = compare::table(&values(before)?, &values(after)?).join("\n");
    say(&table);
    fs::write(out.join("compared.txt"), table + "\n").map_err(doing("writing the comparison"))?;
    let folded = |folder: &Path| folder.join("on-cpu.folded");
    match flame::draw_difference(&folded(before), &folded(after), &out.join("compared.svg")) {
        Ok(()) => say(&format!("{}: compared.txt, compared.svg", out.display())),
        Err(error) => say(&format!("no flame graph of the difference: {error}")),
    }
    Ok(Verdict::Clean)
}
