//! What the cluster knows changes what this node does: keys that rest, providers put behind
//! others, weights. Out of what its own cores report and what other nodes publish. Pure: no
//! sockets, no clock.
//!
//! A key that rests is passed over; where all that fit rest after a 401 or 429, the client is told
//! when the first comes back. A provider that fails is asked after the others, and where there is
//! no other it is still asked.

mod demotion;
mod rests;
mod weights;

pub use demotion::ProviderNote;
#[cfg(test)]
pub(crate) use rests::RESTING_KEYS_MAX;

use crate::gossip::values::NodeValues;
use crate::member::View;
use crate::metrics::Totals;
use demotion::Demotions;
use rests::{Learned, Rests};
use shared::clock::Nanos;
use shared::published::{KeyWeight, Live, ProviderShare, RestingKey};
use shared::report::{KeyLabels, Report};
use shared::snapshot::SnapshotRecord;
use std::collections::BTreeSet;
use weights::Weights;

/// See the module.
#[derive(Default)]
pub struct Failover {
    known: BTreeSet<KeyLabels>,
    follows_load: bool,
    rests: Rests,
    demotions: Demotions,
    weights: Weights,
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
        let known = record
            .keys
            .iter()
            .filter_map(|key| Some(KeyLabels { provider: provider(key.provider)?, key: key.name.clone() }));
        self.known = known.collect();
        self.rests.configure(self.known.clone());
        self.follows_load = record.settings.follows_load;
        if !self.follows_load {
            self.weights.clear();
        }
    }

    /// A core reported.
    pub fn report(&mut self, report: &Report, now: Nanos) -> Changed {
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

    /// Once a second, after this node looked at itself: providers and weights.
    pub fn look(&mut self, own: &NodeValues, totals: &Totals, view: &View, now: Nanos) -> Changed {
        let providers = self.demotions.judge(&own.providers, totals, &view.members, now);
        if self.follows_load {
            self.weights.follow(&self.known, &own.providers, &own.traffic, &view.members);
        }
        Changed { providers, ..self.tick(now) }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Nanos) -> Changed {
        let (resting_keys, ramps) = self.rests.now(now);
        let told = self.with_weights(resting_keys, ramps);
        let is_live = told != self.told;
        self.told = told;
        Changed { is_live, ..Changed::default() }
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

    /// Keys that rest because of what this node itself was answered. Some may be over.
    pub fn own_rests(&self) -> impl Iterator<Item = &RestingKey> {
        self.rests.own()
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
pub(crate) mod tests {
    use super::*;
    use crate::compile::tests::{FULL, compiled};
    use crate::gossip::values::{ProviderTraffic, Rest};
    use crate::member::{Health, Member};
    use crate::traffic::Traffic;
    use shared::published::RestReason;
    use shared::report::AttemptLabels;

    /// So many milliseconds after the start.
    pub(crate) fn at(milliseconds: u64) -> Nanos {
        Nanos(milliseconds * 1_000_000)
    }

    /// What a node's cores did, and what it tells of that.
    #[derive(Default)]
    pub(super) struct Cores {
        pub(super) totals: Totals,
        traffic: Traffic,
        is_begun: bool,
    }

    impl Cores {
        pub(super) fn did(&mut self, provider: &str, key: &str, outcome: &'static str, count: u64) {
            if !self.is_begun {
                self.traffic.update(&self.totals, Nanos(0));
                self.is_begun = true;
            }
            let mut report = Report::default();
            report.attempts.insert(AttemptLabels { provider: provider.into(), key: key.into(), outcome }, count);
            self.totals.add(&report);
        }

        pub(super) fn providers(&mut self, now: Nanos) -> Vec<ProviderTraffic> {
            self.traffic.update(&self.totals, now);
            self.traffic.providers()
        }
    }

    pub(crate) fn member(id: &str, health: Health, values: NodeValues) -> Member {
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

    /// Nodes that hear everything at once.
    struct Cluster<const N: usize>([(Failover, Cores); N]);

    impl<const N: usize> Cluster<N> {
        fn new() -> Self {
            Self(std::array::from_fn(|_| {
                let mut failover = Failover::default();
                failover.configure(&compiled(FULL).record);
                (failover, Cores::default())
            }))
        }

        /// Everybody looks at itself, and hears what the others published.
        fn gossip(&mut self, now: Nanos) {
            let told: Vec<NodeValues> = self
                .0
                .iter_mut()
                .map(|(node, cores)| {
                    let own = node.own_rests().filter(|own| own.until > now);
                    let rests = own.zip(1..).map(|(own, number)| Rest {
                        provider: own.provider.clone(),
                        key: own.key.clone(),
                        model: own.model.clone(),
                        reason: own.reason.name().into(),
                        remaining_ms: u64::try_from(own.until.since(now).as_millis()).unwrap(),
                        number,
                    });
                    NodeValues { rests: rests.collect(), providers: cores.providers(now), ..NodeValues::default() }
                })
                .collect();
            for (at, (node, cores)) in self.0.iter_mut().enumerate() {
                let others = told.iter().enumerate().filter(|(other, _)| *other != at);
                let members = others.map(|(id, values)| member(&format!("n{id}"), Health::Healthy, values.clone()));
                let view = View { members: members.collect(), ..View::default() };
                node.hear(&view, now);
                node.look(&told[at], &cores.totals, &view, now);
            }
        }

        fn behind(&self) -> Vec<usize> {
            self.0.iter().map(|(node, _)| node.told.providers.len()).collect()
        }
    }

    #[test]
    fn a_key_that_one_node_saw_refused_rests_on_all() {
        let mut cluster = Cluster::<3>::new();
        let resting = RestingKey {
            provider: "openai".into(),
            key: "first".into(),
            model: None,
            reason: RestReason::Refused,
            until: at(61_000),
        };
        let report = Report { resting_keys: vec![resting], ..Report::default() };
        assert_eq!(cluster.0[0].0.report(&report, at(1_000)).resting.len(), 1);
        cluster.gossip(at(1_200));
        for (node, _) in &cluster.0 {
            assert_eq!(node.told.resting_keys.len(), 1);
            assert_eq!(node.told.key_weights.len(), 1, "it will come back gradually");
        }
        cluster.gossip(at(61_300));
        assert!(cluster.0.iter().all(|(node, _)| node.told.resting_keys.is_empty()), "it is over everywhere");
    }

    #[test]
    fn a_provider_that_fails_for_two_of_three_is_behind_on_the_third_too() {
        for (outcomes, behind) in [(["error", "timeout", "ok"], [1, 1, 1]), (["error", "ok", "ok"], [1, 0, 0])] {
            let mut cluster = Cluster::<3>::new();
            for ((_, cores), outcome) in cluster.0.iter_mut().zip(outcomes) {
                cores.did("openai", "first", outcome, 10);
            }
            cluster.gossip(at(1_000));
            assert_eq!(cluster.behind(), behind, "{outcomes:?}");
        }
    }

    #[test]
    fn what_the_cores_are_told_is_told_once() {
        let Cluster([(mut node, mut cores)]) = Cluster::new();
        cores.did("openai", "first", "error", 10);
        let own = NodeValues { providers: cores.providers(at(100)), ..NodeValues::default() };
        let changed = node.look(&own, &cores.totals, &View::default(), at(100));
        assert!(changed.is_live && changed.providers.len() == 1);
        assert_eq!(node.tick(at(150)), Changed::default());
        assert_eq!(node.look(&own, &cores.totals, &View::default(), at(1_100)), Changed::default());
    }
}
