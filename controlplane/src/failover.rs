//! What the cluster knows changes what this node does: keys that rest, providers put behind
//! others, weights. Out of what its own cores report and what other nodes publish. Pure: no
//! sockets, no clock.
//!
//! Nothing here refuses a request. A key that rests is passed over, a provider that fails is
//! asked after the others; whoever has nothing else is still asked.

mod demotion;
mod recent;
mod rests;
mod weights;

pub use demotion::ProviderNote;
#[cfg(test)]
pub(crate) use rests::RESTING_KEYS_MAX;

use crate::gossip::values::NodeValues;
use crate::member::View;
use demotion::Demotions;
use recent::Recent;
use rests::{Learned, Rests};
use shared::clock::Nanos;
use shared::published::{KeyWeight, Live, ProviderShare, RestingKey};
use shared::report::{KeyLabels, Report};
use shared::snapshot::SnapshotRecord;
use std::collections::BTreeSet;
use std::time::Duration;
use weights::Weights;

/// How often providers and weights are looked at.
const JUDGE_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Default)]
pub struct Failover {
    known: BTreeSet<KeyLabels>,
    follows_load: bool,
    recent: Recent,
    rests: Rests,
    demotions: Demotions,
    weights: Weights,
    /// `None`: to be done now.
    judged_at: Option<Nanos>,
    /// What the cores were told.
    told: Told,
}

#[derive(Default, PartialEq)]
struct Told {
    resting_keys: Vec<RestingKey>,
    providers: Vec<ProviderShare>,
    provider_weights: Vec<ProviderShare>,
    key_weights: Vec<KeyWeight>,
}

/// What follows from an event.
#[derive(Debug, Default, PartialEq)]
pub struct Changed {
    /// The cores have to be told.
    pub is_live: bool,
    /// Keys that rest from now on.
    pub resting: Vec<RestingKey>,
    /// Providers that went behind the others or came back.
    pub providers: Vec<ProviderNote>,
}

impl Failover {
    /// Another configuration: what is of keys that it does not have ends.
    pub fn configure(&mut self, record: &SnapshotRecord) {
        let provider = |index: u32| record.providers.get(index as usize).map(|provider| provider.name.clone());
        let known = record.keys.iter().filter_map(|key| {
            Some(KeyLabels { provider: provider(key.provider)?, key: key.name.clone() })
        });
        self.known = known.collect();
        self.rests.configure(self.known.clone());
        self.follows_load = record.settings.follows_load;
        if !self.follows_load {
            self.weights.clear();
        }
    }

    /// A core reported.
    pub fn report(&mut self, report: &Report, now: Nanos) -> Changed {
        self.recent.add(report, now);
        let mut changed = Changed::default();
        let denied: Vec<_> =
            report.denials.iter().filter_map(|denial| self.rests.denied(denial.clone(), now)).collect();
        for resting in report.resting_keys.iter().cloned().chain(denied) {
            match self.rests.rest(resting.clone(), now) {
                Learned::Nothing => continue,
                Learned::Longer => {}
                Learned::News => changed.resting.push(resting),
            }
            changed.is_live = true;
        }
        changed
    }

    /// Gossip has another view of the cluster.
    pub fn hear(&mut self, view: &View, now: Nanos) {
        self.rests.hear(view, now);
    }

    /// Time passed.
    pub fn tick(&mut self, view: &View, now: Nanos) -> Changed {
        let mut changed = Changed::default();
        if self.judged_at.is_none_or(|at| now.since(at) >= JUDGE_INTERVAL) {
            self.judged_at = Some(now);
            self.recent.forget(now);
            changed.providers = self.demotions.judge(&self.recent, &view.members, now);
            if self.follows_load {
                let (providers, rows) = (self.recent.providers(), self.recent.rows());
                self.weights.follow(&self.known, &providers, &rows, &view.members);
            }
        }
        let (resting_keys, ramps) = self.rests.now(now);
        let told = self.with_weights(resting_keys, ramps);
        changed.is_live = told != self.told;
        self.told = told;
        changed
    }

    /// Tells the cores.
    pub fn fill(&self, live: &mut Live, now: Nanos) {
        let told = self.with_weights(self.rests.resting(now), self.rests.weights(now));
        let Told { resting_keys, providers, provider_weights, key_weights } = told;
        live.resting_keys = resting_keys;
        live.providers = providers;
        live.provider_weights = provider_weights;
        live.key_weights = key_weights;
    }

    /// Tells the other nodes.
    pub fn publish(&self, values: &mut NodeValues, now: Nanos) {
        values.rests = self.rests.told(now);
        values.providers = self.recent.providers();
        values.traffic = self.recent.rows();
    }

    fn with_weights(&self, resting_keys: Vec<RestingKey>, ramps: Vec<KeyWeight>) -> Told {
        let mut key_weights = ramps;
        key_weights.extend(self.weights.keys());
        key_weights.sort_by(|a, b| (&a.provider, &a.key, &a.model).cmp(&(&b.provider, &b.key, &b.model)));
        Told {
            resting_keys,
            providers: self.demotions.shares(),
            provider_weights: self.weights.providers(),
            key_weights,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::{FULL, compiled};
    use crate::member::{Health, Member};
    use shared::published::RestReason;
    use shared::report::AttemptLabels;

    /// So many milliseconds after the start.
    pub(super) fn at(milliseconds: u64) -> Nanos {
        Nanos(milliseconds * 1_000_000)
    }

    /// Attempts that one core made.
    pub(super) fn report(provider: &str, key: &str, outcome: &'static str, count: u64) -> Report {
        let mut report = Report::default();
        report.attempts.insert(AttemptLabels { provider: provider.into(), key: key.into(), outcome }, count);
        report
    }

    pub(super) fn member(id: &str, health: Health, values: NodeValues) -> Member {
        Member {
            id: id.into(),
            generation: 1,
            address: "192.0.2.1:10101".parse().unwrap(),
            health,
            values,
            heard_at: Nanos(0),
            round_trip: None,
            clock_offset_ms: None,
            is_tcp_only: false,
            speaks_our_key: true,
        }
    }

    fn nodes<const N: usize>() -> [Failover; N] {
        std::array::from_fn(|_| {
            let mut failover = Failover::default();
            failover.configure(&compiled(FULL).record);
            failover
        })
    }

    /// Every node hears what the others published.
    fn gossip(nodes: &mut [Failover], now: Nanos) -> Vec<View> {
        let told: Vec<NodeValues> = nodes
            .iter()
            .map(|node| {
                let mut values = NodeValues::default();
                node.publish(&mut values, now);
                values
            })
            .collect();
        let mut views = Vec::new();
        for (at, node) in nodes.iter_mut().enumerate() {
            let others = told.iter().enumerate().filter(|(other, _)| *other != at);
            let members = others.map(|(id, values)| member(&format!("n{id}"), Health::Healthy, values.clone()));
            let view = View { members: members.collect(), ..View::default() };
            node.hear(&view, now);
            node.tick(&view, now);
            views.push(view);
        }
        views
    }

    #[test]
    fn a_key_that_one_node_saw_refused_rests_on_all() {
        let mut nodes = nodes::<3>();
        let resting = RestingKey {
            provider: "openai".into(),
            key: "first".into(),
            model: None,
            reason: RestReason::Refused,
            until: at(61_000),
        };
        let report = Report { resting_keys: vec![resting], ..Report::default() };
        assert_eq!(nodes[0].report(&report, at(1_000)).resting.len(), 1);
        gossip(&mut nodes, at(1_200));
        for node in &nodes {
            assert_eq!(node.told.resting_keys.len(), 1);
            assert_eq!(node.told.key_weights.len(), 1, "it will come back gradually");
        }
        gossip(&mut nodes, at(61_300));
        assert!(nodes.iter().all(|node| node.told.resting_keys.is_empty()), "it is over everywhere");
    }

    #[test]
    fn a_provider_that_fails_for_two_of_three_is_behind_on_the_third_too() {
        let mut nodes = nodes::<3>();
        for (node, outcome) in nodes.iter_mut().zip(["error", "timeout", "ok"]) {
            node.report(&report("openai", "first", outcome, 10), at(0));
        }
        gossip(&mut nodes, at(100));
        gossip(&mut nodes, at(1_200));
        assert!(nodes.iter().all(|node| node.told.providers.len() == 1));
        let mut nodes = self::nodes::<3>();
        for (node, outcome) in nodes.iter_mut().zip(["error", "ok", "ok"]) {
            node.report(&report("openai", "first", outcome, 10), at(0));
        }
        gossip(&mut nodes, at(100));
        gossip(&mut nodes, at(1_200));
        let behind: Vec<_> = nodes.iter().map(|node| node.told.providers.len()).collect();
        assert_eq!(behind, [1, 0, 0], "its own problem");
    }

    #[test]
    fn what_the_cores_are_told_is_told_once() {
        let [mut node] = nodes();
        node.report(&report("openai", "first", "error", 10), at(0));
        let changed = node.tick(&View::default(), at(100));
        assert!(changed.is_live && changed.providers.len() == 1);
        assert_eq!(node.tick(&View::default(), at(150)), Changed::default());
        assert_eq!(node.tick(&View::default(), at(1_150)), Changed::default());
    }
}
