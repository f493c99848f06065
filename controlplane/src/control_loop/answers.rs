//! What the control loop answers to the admin listener.

use super::{ControlLoop, SharedLimits};
use crate::admin::Question;
use crate::admin::gossip_keys::{KeyFault, KeyStep, KeysStatus};
use crate::admin::status::{
    Status, StoreStatus, cluster_health, demoted_of, discovery_of, peers_of, resting_of, state_of,
};
use crate::limit_status::{self, EscrowStatus, LimitStatus, Sight};
use crate::live::engine::Standing;
use crate::metrics::LimitRow;
use crate::metrics::process::Process;
use crate::metrics::{ClusterFacts, Facts, RevisionFacts, render};
use shared::clock::Nanos;

impl ControlLoop {
    pub(super) fn answer(&mut self, question: Question) {
        // Whoever asked may be gone by now.
        match question {
            Question::Metrics(answer) => drop(answer.send(self.metrics())),
            Question::Status(answer) => drop(answer.send(self.status())),
            Question::GossipKeys(step, answer) => drop(answer.send(self.rotate(step))),
        }
    }

    /// The others hear of it at once, so that the next step need not wait.
    fn rotate(&mut self, step: KeyStep) -> Result<KeysStatus, KeyFault> {
        let status = self.cluster.rotate(step, self.state.view())?;
        self.tell_others();
        Ok(status)
    }

    /// Every limit as it stands on this node.
    pub(super) fn limit_rows(&self, now: Nanos) -> Vec<LimitRow> {
        let nodes = if self.shared_limits.is_some() { self.cluster.others(self.state.view()).nodes() } else { 1 };
        let mut rows = self.publisher.limits(nodes, now);
        for row in &mut rows {
            row.refused = self.state.totals().refused_by(&row.id);
            row.is_shared = self.shared_limits.as_ref().is_some_and(|limits| limits.escrow().has(row.key));
        }
        rows
    }

    fn limits(&self, rows: &[LimitRow], now: Nanos) -> Vec<LimitStatus> {
        limit_status::limits(&Sight {
            node: &self.facts.node_id,
            rows,
            escrow: self.shared_limits.as_ref().map(SharedLimits::escrow),
            learned: &self.state.learned().shown(now),
            view: self.state.view(),
            now,
        })
    }

    fn escrow(&self, now: Nanos) -> Option<EscrowStatus> {
        let limits = self.shared_limits.as_ref()?;
        Some(limit_status::escrow(limits.escrow(), limits.is_kept(), now))
    }

    fn metrics(&self) -> String {
        let now = self.clock.now();
        let rows = self.limit_rows(now);
        let facts = Facts {
            build: self.version,
            region: self.state.region().to_owned(),
            epoch: self.epoch,
            revisions: RevisionFacts {
                published: self.configuration.epoch,
                adopted: self.adoption.revision(),
                adoption_took: self.adoption.took(),
                standing: self.live.has_store().then(|| self.live.standing.clone()),
            },
            readiness: self.state.readiness(),
            started_at: self.started_at,
            process: Process::read(),
            limits: self.limits(&rows, now),
            escrow: self.escrow(now),
        };
        let around = ClusterFacts {
            live: self.state.live(),
            view: self.state.view(),
            own: self.collector.values(),
            learned: self.state.learned().shown(now),
            discovered: self.state.discovered().collect(),
            now,
        };
        render(self.state.totals(), &rows, &around, &facts)
    }

    fn status(&self) -> Box<Status> {
        let (live, view, own, now) = (self.state.live(), self.state.view(), self.collector.values(), self.clock.now());
        let (state, reason) = state_of(&live.readiness);
        Box::new(Status {
            local_node: self.state.local_node().to_owned(),
            members: live.members,
            healthy_members: live.healthy_members,
            cluster_health: cluster_health(&live),
            state,
            reason,
            region: self.state.region().to_owned(),
            epoch: self.epoch,
            cores: self.state.totals().cores(),
            requests_in_flight: self.state.totals().requests_in_flight(),
            version: self.version,
            generation: self.cluster.generation(),
            protocol: own.about.protocol,
            doubts_itself: view.doubts_itself,
            digest_bytes: view.digest_bytes,
            configuration: own.configuration.clone(),
            adopted_revision: self.adoption.revision(),
            configuration_store: self.live.has_store().then(|| {
                let Standing { store, newest, trouble, unusable } = self.live.standing.clone();
                StoreStatus { store, newest_revision: newest.number, trouble, unusable }
            }),
            load: own.load.clone(),
            limits: self.limits(&self.limit_rows(now), now),
            escrow: self.escrow(now),
            learned_limits: self.state.learned().shown(now),
            resting_keys: resting_of(&live, now),
            demoted_providers: demoted_of(&live),
            discovery: discovery_of(self.state.discovered(), now),
            peers: peers_of(view, &own.configuration, now),
        })
    }
}
