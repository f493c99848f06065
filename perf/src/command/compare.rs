//! `perf compare`.

use std::path::PathBuf;

use clap::Args;

use super::{CommandError, Verdict, node_binary, seconds};
use crate::{
    compare::{self, Compare, ROUNDS_MAX, Scenario},
    peer::Peer,
    rig::RigSettings,
};

/// What is measured where nobody says otherwise.
const PEERS: [Peer; 8] = [
    Peer::RelayEpoll,
    Peer::Relay,
    Peer::Minimal,
    Peer::GatewayAll,
    Peer::GatewayNoLimits,
    Peer::Nginx,
    Peer::Haproxy,
    Peer::Envoy,
];

#[derive(Debug, Args)]
pub(super) struct CompareArgs {
    /// The first scenario alone, three rounds, in two minutes
    #[arg(long, conflicts_with = "scenarios")]
    quick: bool,
    /// Who is measured, in this order [default: all but gateway, litellm and portkey]
    #[arg(long, value_enum, value_delimiter = ',')]
    proxies: Option<Vec<Peer>>,
    /// At what, in this order [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    scenarios: Option<Vec<Scenario>>,
    /// Rounds: each proxy is measured once a scenario in each of them
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Length of one measurement [default: 10; 2 with --quick]
    #[arg(long)]
    seconds: Option<f64>,
    /// After streams, wait so many seconds before the memory is looked at again
    #[arg(long, default_value_t = 15.0)]
    settle: f64,
    /// The `deepintshield` binary (otherwise the one beside this program)
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// Where `perf/peers.sh` put what comes from no package of the system
    #[arg(long, value_name = "FOLDER", default_value = ".tools")]
    tools: PathBuf,
    /// First of five loopback ports that are used
    #[arg(long, default_value_t = 19_100)]
    port: u16,
    /// The model that requests name
    #[arg(long, default_value = "openai/gpt-4o-mini")]
    model: String,
    /// Core of the proxy under test
    #[arg(long, default_value_t = 0)]
    proxy_core: usize,
    /// Core of the load, of the simulated provider and of the gateway's idle peers
    #[arg(long, default_value_t = 1)]
    load_core: usize,
    /// Write the values as JSON lines to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a plot of each scenario (SVG) to this folder
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,
}

pub(super) fn run(args: &CompareArgs) -> Result<Verdict, CommandError> {
    let scenarios = match (&args.scenarios, args.quick) {
        (_, true) => vec![Scenario::Throughput],
        (Some(scenarios), false) => scenarios.clone(),
        (None, false) => Scenario::ALL.to_vec(),
    };
    if !(1..=ROUNDS_MAX).contains(&args.rounds) {
        return Err(CommandError::Usage(format!("1 to {ROUNDS_MAX} rounds")));
    }
    let length = seconds(args.seconds.unwrap_or(if args.quick { 2.0 } else { 10.0 }))?;
    if length.is_zero() {
        return Err(CommandError::Usage("a measurement takes time".to_owned()));
    }
    let what = Compare {
        rig: RigSettings {
            node: node_binary(args.node.as_deref())?,
            tools: args.tools.clone(),
            provider: None,
            port: args.port,
            is_under_valgrind: false,
            proxy_core: args.proxy_core,
            load_core: args.load_core,
        },
        peers: args.proxies.clone().unwrap_or(PEERS.to_vec()),
        scenarios,
        rounds: args.rounds,
        seconds: length,
        settle: seconds(args.settle)?,
        model: args.model.clone(),
        json: args.json.clone(),
        plots: args.plots.clone(),
    };
    Ok(Verdict::clean_if(compare::run(&what)?))
}
