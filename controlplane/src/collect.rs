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
const INTERVAL: Duration = Duration::from_secs(1);

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
    has_new_rest: bool,
}

impl Collector {
    /// Whether it is time for [`Collector::collect`].
    pub fn is_due(&self, now: Nanos) -> bool {
        self.collected_at.is_none_or(|at| now.since(at) >= INTERVAL)
    }

    /// Reads the machine and adds up the rest. What did not change since the last time has the
    /// same text in gossip.
    pub fn collect(&mut self, own: Own, state: &ClusterState, limits: &[LimitRow], now: Nanos) -> &NodeValues {
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
            unreadable: 0,
        };
        self.collected_at = Some(now);
        self.has_new_rest = false;
        &self.values
    }

    /// A key rests that did not: the other nodes would go on asking it for up to a second.
    pub fn rest_learned(&mut self) {
        self.has_new_rest = true;
    }

    /// Collects the keys that rest, where there are new ones; says whether there were.
    pub fn renew_rests(&mut self, state: &ClusterState, now: Nanos) -> bool {
        let is_due = std::mem::take(&mut self.has_new_rest) && self.collected_at.is_some();
        if is_due {
            self.values.rests = self.rests.update(state.own_rests(), self.values.about.started_ms, now);
        }
        is_due
    }

    /// Says who this node is before it is time for everything.
    pub fn renew(&mut self, about: About) {
        self.values.about = about;
    }

    /// What was collected last.
    pub fn values(&self) -> &NodeValues {
        &self.values
    }
}
