//! Collects, once a second, all that this node tells the others and shows to operators of itself.

mod rests;

use crate::gossip::values::{About, ConfigurationMark, NodeValues};
use crate::health::Sampler;
use crate::metrics::LimitRow;
use crate::state::ClusterState;
use crate::traffic::{self, Traffic};
use rests::Rests;
use shared::clock::Nanos;
use std::time::Duration;

/// How often everything is collected.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// What only the control loop knows.
pub struct Own {
    /// Who this node is.
    pub about: About,
    /// What it runs.
    pub configuration: ConfigurationMark,
    /// It sheds load.
    pub is_overloaded: bool,
}

/// See the module.
#[derive(Default)]
pub struct Collector {
    sampler: Sampler,
    traffic: Traffic,
    rests: Rests,
    values: NodeValues,
    collected_at: Option<Nanos>,
}

impl Collector {
    /// Whether it is time for [`Collector::collect`].
    pub fn is_due(&self, now: Nanos) -> bool {
        self.collected_at.is_none_or(|at| now.since(at) >= INTERVAL)
    }

    /// Reads the machine and adds up the rest. What did not change since the last time has the
    /// same text in gossip.
    pub fn collect(&mut self, own: Own, state: &mut ClusterState, limits: &[LimitRow], now: Nanos) -> &NodeValues {
        let Own { about, configuration, is_overloaded } = own;
        self.traffic.update(state.totals(), now);
        let first_number = about.started_ms;
        self.values = NodeValues {
            about,
            load: self.sampler.sample(state.totals(), is_overloaded, now),
            configuration,
            rests: self.rests.update(state.own_rests(), first_number, now),
            providers: self.traffic.providers(),
            traffic: self.traffic.rows().to_vec(),
            limits: traffic::limits(limits),
            told: state.told(first_number, now),
            unreadable: 0,
        };
        self.collected_at = Some(now);
        &self.values
    }

    /// Takes in what the others are to know at once, before it is time for everything: who this
    /// node is, what it runs, which keys rest here. `false`: all of it is as it was.
    pub fn renew(&mut self, own: Own, state: &ClusterState, now: Nanos) -> bool {
        let Own { about, configuration, is_overloaded: _ } = own;
        let rests = self.rests.update(state.own_rests(), about.started_ms, now);
        let values = &mut self.values;
        let is_news = values.about != about || values.configuration != configuration || values.rests != rests;
        (values.about, values.configuration, values.rests) = (about, configuration, rests);
        is_news
    }

    /// What was collected last.
    pub fn values(&self) -> &NodeValues {
        &self.values
    }
}
