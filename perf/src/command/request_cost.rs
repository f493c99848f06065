//! `perf request-cost`.

use std::path::PathBuf;

use clap::Args;

use super::{CommandError, Verdict, doing, node_binary};
use crate::{
    load::{CONNECTIONS_MAX, REQUESTS_MAX},
    peer::Peer,
    request_cost::{self, CountWith, ROUNDS_MAX, RequestCost},
    rig::{Body, RigSettings},
    rows::Rows,
    target::BODY_BYTES_MAX,
};

#[derive(Debug, Args)]
pub(super) struct RequestCostArgs {
    /// The `deepintshield` binary (otherwise the one beside this program)
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// Where `perf/peers.sh` put what comes from no package of the system
    #[arg(long, value_name = "FOLDER", default_value = ".tools")]
    tools: PathBuf,
    /// Use the provider that already runs at this loopback address
    #[arg(long, value_name = "HOST:PORT")]
    provider: Option<String>,
    /// First of five loopback ports that are used
    #[arg(long, default_value_t = 19_100)]
    port: u16,
    /// Who is measured in every round, in this order
    #[arg(long, value_enum, value_delimiter = ',', default_value = "relay,gateway")]
    proxies: Vec<Peer>,
    /// What counts instructions
    #[arg(long, value_enum, default_value = "perf")]
    count_with: CountWith,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Counted requests of one measurement [default: 200000; 10000 with callgrind]
    #[arg(long)]
    requests: Option<u64>,
    /// Requests before the counting begins [default: a tenth of those]
    #[arg(long)]
    warm_up: Option<u64>,
    /// Keep-alive connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Length of the request's body
    #[arg(long, default_value_t = 1024)]
    body_bytes: usize,
    /// The model that the request names
    #[arg(long, default_value = "openai/gpt-4o-mini")]
    model: String,
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

pub(super) fn run(args: &RequestCostArgs) -> Result<Verdict, CommandError> {
    let requests = args.requests.unwrap_or(match args.count_with {
        CountWith::Perf => 200_000,
        CountWith::Callgrind => 10_000,
    });
    let warm_up = args.warm_up.unwrap_or(requests / 10);
    let in_bounds = (1..=ROUNDS_MAX).contains(&args.rounds)
        && (1..=REQUESTS_MAX).contains(&requests)
        && warm_up <= REQUESTS_MAX
        && (1..=CONNECTIONS_MAX).contains(&args.connections)
        && args.body_bytes <= BODY_BYTES_MAX;
    if !in_bounds {
        return Err(CommandError::Usage(format!(
            "at most {ROUNDS_MAX} rounds, {REQUESTS_MAX} requests, {CONNECTIONS_MAX} connections and \
             {BODY_BYTES_MAX} bytes, and at least one of each"
        )));
    }
    let what = RequestCost {
        rig: RigSettings {
            node: node_binary(args.node.as_deref())?,
            tools: args.tools.clone(),
            provider: args.provider.clone(),
            port: args.port,
            is_under_valgrind: args.count_with == CountWith::Callgrind,
            proxy_core: args.proxy_core,
            load_core: args.load_core,
        },
        peers: args.proxies.clone(),
        rounds: args.rounds,
        requests,
        warm_up,
        count_with: args.count_with,
        connections: args.connections,
        body: Body { model: args.model.clone(), bytes: args.body_bytes },
    };
    let mut rows = Rows::new("request-cost");
    let counts = request_cost::run(&what, &mut rows)?;
    rows.finish(args.json.as_deref()).map_err(doing("writing the results"))?;
    Ok(Verdict::clean_if(counts))
}
