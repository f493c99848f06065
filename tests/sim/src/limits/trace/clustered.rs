//! A cluster that keeps the limit by a configuration: control planes below, cores on top.

use super::super::scenario::Scenario;
use super::cluster::Cluster;
use super::cores::{BYTES_PER_TOKEN, Core, Running};
use super::course::{Admission, Limiter, Reserved};
use super::recorded::Request;
use super::rules::{Compiled, Rule};
use shared::snapshot::Snapshot;

/// See the module.
pub(crate) struct Clustered<'s> {
    snapshot: Snapshot,
    rule: &'static Rule,
    cluster: Cluster<'s>,
    /// Of each node.
    cores: Vec<Vec<Core>>,
    answer_tokens_max: u64,
}

impl<'s> Clustered<'s> {
    pub(crate) fn new(
        scenario: &'s Scenario,
        rule: &'static Rule,
        compiled: Compiled,
        cores: usize,
        answer_tokens_max: u64,
    ) -> Self {
        let snapshot = Snapshot::from_record(&compiled.record).expect("a compiled record is a snapshot");
        let cluster = Cluster::new(scenario, rule, compiled);
        let cores = (0..scenario.nodes).map(|node| {
            let rings = cluster.rings(node);
            (0..cores).map(|_| Core::new(&rings)).collect()
        });
        Self { snapshot, rule, cores: cores.collect(), cluster, answer_tokens_max }
    }
}

/// What is reserved while too little is known.
fn most(request: &Request, answer_tokens_max: u64) -> u64 {
    request.recorded.prompt_tokens * BYTES_PER_TOKEN / 2 + answer_tokens_max
}

impl Limiter for Clustered<'_> {
    type Running = Running;

    fn admit(&mut self, request: &Request, now_ns: u64) -> Option<Admission<Running>> {
        let now = self.cluster.reading(request.node, now_ns);
        let core = &self.cores[request.node][request.core];
        let (running, tokens) = core.admit(request, &self.snapshot, self.answer_tokens_max, now)?;
        let is_estimate = self.rule.probability.is_some() && tokens < most(request, self.answer_tokens_max);
        let reserved = Reserved { tokens, is_estimate };
        Some(Admission { running, reserved: Some(reserved) })
    }

    fn end(&mut self, request: &Request, running: Running, now_ns: u64) {
        let now = self.cluster.reading(request.node, now_ns);
        self.cores[request.node][request.core].settle(running, request, &self.snapshot, now);
    }

    fn tick(&mut self, now_ns: u64) {
        self.cluster.run_until(now_ns);
        for (node, cores) in self.cores.iter().enumerate() {
            let now = self.cluster.reading(node, now_ns);
            for core in cores {
                core.tick(now);
            }
        }
    }

    fn fault(&self) -> Option<String> {
        self.cluster.fault()
    }
}
