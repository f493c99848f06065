//! A large cluster without faults: how long until all know all, and what that costs each of them.

use crate::local::{Hub, LocalNetwork};
use crate::node::{Node, ip};
use crate::run::take_over;
use crate::seeds::say;
use controlplane::member::Health;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

const STEP: Duration = Duration::from_millis(5);
/// What the transport calls the bytes that a node has sent.
const BYTES_SENT: &str = "bytes_sent";

/// Runs `nodes` for `seconds` after they have found each other; true where they did.
pub(crate) fn run(nodes: usize, seconds: u64) -> bool {
    let _clocks = take_over(1);
    let mut builder = turmoil::Builder::new();
    builder.rng_seed(1).tick_duration(STEP).simulation_duration(Duration::from_secs(36_000));
    let mut sim = builder.build();
    let all: Vec<_> = (0..nodes).map(Node::new).collect();
    let cluster = all.clone();
    sim.host("cluster", move || run_all(cluster.clone()));
    let knows_all = |node: &Arc<Node>| {
        let seen = node.seen();
        seen.view.members.len() + 1 == nodes && seen.view.members.iter().all(|m| m.health == Health::Healthy)
    };
    // Those before have known all: looking at every pair in every step would take longer than the run.
    let mut know = 0;
    while know < nodes {
        while all.get(know).is_some_and(knows_all) {
            know += 1;
        }
        if let Err(error) = sim.step() {
            say(&format!("a node ended: {error}"));
            return false;
        }
        if sim.elapsed() > Duration::from_secs(seconds.max(60)) {
            let know = all.iter().filter(|node| knows_all(node)).count();
            say(&format!("after {} s only {know} of {nodes} nodes know all", sim.elapsed().as_secs()));
            return false;
        }
    }
    let converged = sim.elapsed();
    let before: Vec<_> = all.iter().map(bytes_sent).collect();
    while sim.elapsed() < converged + Duration::from_secs(seconds) {
        if let Err(error) = sim.step() {
            say(&format!("a node ended: {error}"));
            return false;
        }
    }
    let mut rates: Vec<_> =
        all.iter().zip(before).map(|(node, before)| (bytes_sent(node) - before) / seconds.max(1)).collect();
    rates.sort_unstable();
    let digest = all.iter().map(|node| node.seen().view.digest_bytes).max().unwrap_or(0);
    // The age of news: how far behind the others' last known news are, in steps of half a second.
    let mut ages: Vec<_> = all
        .iter()
        .flat_map(|node| {
            let seen = node.seen();
            let age = |member: &controlplane::member::Member| {
                let number: usize = member.id.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
                let told = if number == node.number { seen.news } else { all[number].seen().news };
                told.saturating_sub(member.values.configuration.epoch)
            };
            seen.view.members.iter().map(age).collect::<Vec<_>>()
        })
        .collect();
    ages.sort_unstable();
    let at = |sorted: &[u64], permille: usize| sorted[(sorted.len() - 1) * permille / 1_000];
    say(&format!(
        "{nodes} nodes: all know all after {:.1} s; bytes a node and second p50 {} max {}; digest {digest} bytes; news \
         behind p50 {} p99 {} (of 500 ms each)",
        converged.as_secs_f64(),
        at(&rates, 500),
        at(&rates, 1_000),
        at(&ages, 500),
        at(&ages, 990)
    ));
    all.iter().all(knows_all)
}

/// All nodes in one host, until the first one ends.
async fn run_all(nodes: Vec<Arc<Node>>) -> turmoil::Result {
    let hub = Arc::new(Hub::default());
    let mut running = JoinSet::new();
    for node in nodes {
        let network = LocalNetwork { hub: Arc::clone(&hub), ip: ip(node.number) };
        running.spawn_local(node.run(Arc::new(network)));
    }
    running.join_next().await.map_or(Ok(()), |ended| ended?)
}

fn bytes_sent(node: &Arc<Node>) -> u64 {
    let seen = node.seen();
    seen.view.counters.iter().filter(|(name, _)| *name == BYTES_SENT).map(|(_, count)| count).sum()
}
