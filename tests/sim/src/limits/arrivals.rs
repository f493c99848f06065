//! Who asks for what, and when: a Poisson stream over nodes of which some are asked more than others.
//! Pure; the same random numbers give the same stream.

use super::scenario::{Charge, Costs, Scenario};
use rand::RngExt;
use rand::rngs::StdRng;

/// Requests of a heavy-tailed size are at most so many times as large as they usually are.
const TAIL_MAX: f64 = 40.0;
/// Index of the Pareto distribution that they follow; the mean is finite, the variance is not.
const TAIL_INDEX: f64 = 1.5;

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) at_ns: u64,
    /// Place of its node among those that are up.
    pub(crate) node: usize,
    /// Units that it reserves.
    pub(crate) cost: u64,
    /// Units that the provider will count, and for how long it runs; where it settles at its end.
    pub(crate) settles: Option<(u64, u64)>,
}

/// The stream.
pub(crate) struct Arrivals {
    random: StdRng,
    costs: Costs,
    charge: Charge,
    cost_max: u64,
    per_ns: f64,
    next_at_ns: u64,
    /// Sums of the weights of the nodes, hottest first.
    weights: Vec<f64>,
    skew: f64,
    hot: usize,
    moves_every_ns: Option<u64>,
    moves_at_ns: u64,
}

impl Arrivals {
    /// Of a scenario; `random` is this stream's own.
    pub(crate) fn new(scenario: &Scenario, random: StdRng) -> Self {
        let limit = scenario.limits[0];
        let units_per_ns = scenario.offered * limit.amount as f64 / limit.window_ns as f64;
        let moves_every_ns = scenario.hot_moves_every_ns;
        Self {
            random,
            costs: scenario.costs,
            charge: scenario.charge,
            cost_max: scenario.limits.iter().map(|limit| limit.amount).min().unwrap_or(1),
            per_ns: units_per_ns / scenario.costs.mean(),
            next_at_ns: 0,
            weights: Vec::new(),
            skew: scenario.skew,
            hot: 0,
            moves_every_ns,
            moves_at_ns: moves_every_ns.unwrap_or(u64::MAX),
        }
    }

    /// When the next request comes.
    pub(crate) fn next_at_ns(&self) -> u64 {
        self.next_at_ns
    }

    /// The next request, for one of `nodes`.
    pub(crate) fn take(&mut self, nodes: usize) -> Arrival {
        let at_ns = self.next_at_ns;
        let gap_ns = -(1.0 - self.random.random_range(0.0..1.0_f64)).ln() / self.per_ns;
        self.next_at_ns = at_ns.saturating_add((gap_ns as u64).max(1));
        while at_ns >= self.moves_at_ns {
            self.hot = self.random.random_range(0..nodes.max(1));
            self.moves_at_ns = self.moves_at_ns.saturating_add(self.moves_every_ns.unwrap_or(u64::MAX));
        }
        let node = self.node(nodes.max(1));
        let cost = self.cost().clamp(1, self.cost_max);
        let settles = match self.charge {
            Charge::Admission => None,
            Charge::Settlement { lasts_max_ns } => {
                let used = (cost as f64 * self.random.random_range(0.1..1.0)) as u64;
                Some((used.max(1), self.random.random_range(lasts_max_ns / 20..=lasts_max_ns)))
            }
        };
        Arrival { at_ns, node, cost, settles }
    }

    /// By Zipf's law, beginning at the hot node.
    fn node(&mut self, nodes: usize) -> usize {
        if self.weights.len() != nodes {
            let mut sum = 0.0;
            let weight = |rank: usize| 1.0 / ((rank + 1) as f64).powf(self.skew);
            self.weights = (0..nodes)
                .map(|rank| {
                    sum += weight(rank);
                    sum
                })
                .collect();
        }
        let all = self.weights.last().copied().unwrap_or(1.0);
        let drawn = self.random.random_range(0.0..all);
        let rank = self.weights.partition_point(|sum| *sum <= drawn).min(nodes - 1);
        (self.hot + rank) % nodes
    }

    fn cost(&mut self) -> u64 {
        match self.costs {
            Costs::Same(units) => units,
            Costs::HeavyTailed { least } => {
                let uniform = 1.0 - self.random.random_range(0.0..1.0_f64);
                (least as f64 * uniform.powf(-1.0 / TAIL_INDEX).min(TAIL_MAX)) as u64
            }
        }
    }
}

impl Costs {
    /// Of a request.
    pub(crate) fn mean(self) -> f64 {
        match self {
            Self::Same(units) => units as f64,
            // Of a Pareto distribution that is cut off.
            Self::HeavyTailed { least } => {
                let beyond = TAIL_MAX.powf(1.0 - TAIL_INDEX);
                least as f64 * (TAIL_INDEX - beyond) / (TAIL_INDEX - 1.0)
            }
        }
    }
}
