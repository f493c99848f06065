//! How much of a limit a cluster uses that nothing happens to, beside one exact central limiter: the
//! table of docs/limits-simulation.md.

use super::broken::Breakage;
use super::scenario::{SECOND_NS, Scenario, Terms};
use super::world::World;
use crate::seeds::say;

const AMOUNTS: [u64; 4] = [60, 300, 600, 6_000];
/// One, for what windows and slots cost without any cluster.
const NODES: [usize; 3] = [1, 3, 7];
const OFFERED: [f64; 3] = [0.9, 1.5, 5.0];
/// Each figure is the mean of these.
const SEEDS: [u64; 3] = [1, 2, 3];
const WINDOW_NS: u64 = 60 * SECOND_NS;
/// From when on it is measured: the cluster has formed, and the first window is over.
const FROM_NS: u64 = 80 * SECOND_NS;
const TO_NS: u64 = FROM_NS + 20 * WINDOW_NS;
const LASTS_NS: u64 = TO_NS - WINDOW_NS - FROM_NS;

/// Prints the table; true where nothing was exceeded.
pub(crate) fn run() -> bool {
    say("| per minute | nodes | 0.9 offered | 1.5 | 5 | overshoot |");
    say("|---|---|---|---|---|---|");
    let mut holds = true;
    for amount in AMOUNTS {
        for nodes in NODES {
            let runs: Vec<(f64, bool)> = OFFERED.iter().map(|offered| measured(amount, nodes, *offered)).collect();
            let cells: Vec<String> = runs.iter().map(|(used, _)| format!("{used:.3}")).collect();
            let is_clean = runs.iter().all(|(_, is_clean)| *is_clean);
            let overshoot = if is_clean { "0" } else { "EXCEEDED" };
            say(&format!("| {amount} | {nodes} | {} | {overshoot} |", cells.join(" | ")));
            holds &= is_clean;
        }
    }
    holds
}

/// The mean utilisation, and whether nothing was exceeded.
fn measured(amount: u64, nodes: usize, offered: f64) -> (f64, bool) {
    let mut sum = 0.0;
    let mut is_clean = true;
    for seed in SEEDS {
        let terms = Terms { amount, window_ns: WINDOW_NS };
        let mut scenario = Scenario::calm(seed, nodes, terms, offered, TO_NS);
        scenario.hot_moves_every_ns = Some((2 + 4 * (seed % 3)) * SECOND_NS);
        let mut world = World::new(&scenario, Breakage::Nothing, false);
        world.run_until(TO_NS);
        let outcome = world.finish();
        is_clean &= outcome.excesses.is_empty() && outcome.progress.wrong.is_none();
        // A limit that is spent in bursts is used in steps: the mean over all phases of a window.
        let phases = (0..WINDOW_NS / SECOND_NS).map(|second| FROM_NS + second * SECOND_NS);
        let used: Vec<f64> = phases.map(|from_ns| outcome.progress.utilisation(from_ns, from_ns + LASTS_NS)).collect();
        sum += used.iter().sum::<f64>() / used.len() as f64;
    }
    (sum / SEEDS.len() as f64, is_clean)
}
