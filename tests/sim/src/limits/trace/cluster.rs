//! What entitles the rings of the nodes: parts that they hold and pass on, or news of each other.

use super::super::broken::Breakage;
use super::super::scenario::{Charge, SECOND_NS, Scenario, Terms};
use super::super::world::World;
use super::news::News;
use super::rules::{Compiled, Rule};
use shared::clock::Nanos;
use shared::limit::LimitRings;

/// The longest that a request may take.
const LONGEST_NS: u64 = 60 * SECOND_NS;

/// See the module.
pub(crate) enum Cluster<'s> {
    Parts(Box<World<'s>>),
    News(Box<News>),
}

/// Nothing happens to these nodes, and what is asked of them is said elsewhere.
pub(crate) fn scenario(seed: u64, nodes: usize, terms: Terms) -> Scenario {
    let calm = Scenario::calm(seed, nodes, terms, 0.0, u64::MAX);
    Scenario { charge: Charge::Settlement { lasts_max_ns: LONGEST_NS }, ..calm }
}

impl<'s> Cluster<'s> {
    pub(crate) fn new(scenario: &'s Scenario, rule: &Rule, compiled: Compiled) -> Self {
        if rule.is_by_news() {
            Self::News(Box::new(News::new(scenario.seed, scenario.nodes, compiled)))
        } else {
            Self::Parts(Box::new(World::new(scenario, Breakage::Nothing, false)))
        }
    }

    pub(crate) fn rings(&self, node: usize) -> LimitRings {
        match self {
            Self::Parts(world) => world.rings(node),
            Self::News(news) => news.rings(node),
        }
    }

    /// A node's reading of the time.
    pub(crate) fn reading(&self, node: usize, at_ns: u64) -> Nanos {
        match self {
            Self::Parts(world) => world.reading(node, at_ns),
            Self::News(news) => news.reading(node, at_ns),
        }
    }

    pub(crate) fn run_until(&mut self, at_ns: u64) {
        match self {
            Self::Parts(world) => world.run_until(at_ns),
            Self::News(news) => news.run_until(at_ns),
        }
    }

    pub(crate) fn fault(&self) -> Option<String> {
        match self {
            Self::Parts(world) => world.progress.wrong.as_ref().map(|(_, what)| what.clone()),
            Self::News(_) => None,
        }
    }
}
