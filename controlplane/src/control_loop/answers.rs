//! What the control loop answers to the admin listener.

use super::ControlLoop;
use crate::admin::Question;
use crate::admin::gossip_keys::{KeyFault, KeyStep, KeysStatus};
use crate::admin::status::{Status, cluster_health, demoted_of, discovery_of, peers_of, resting_of, state_of};
use crate::metrics::process::Process;
use crate::metrics::{ClusterFacts, Facts, render};
use crate::sums;

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

    fn metrics(&self) -> String {
        let facts = Facts {
            build: self.version,
            region: self.state.region().to_owned(),
            epoch: self.epoch,
            readiness: self.state.readiness(),
            started_at: self.started_at,
            process: Process::read(),
        };
        let now = self.clock.now();
        let around = ClusterFacts {
            live: self.state.live(),
            view: self.state.view(),
            own: self.collector.values(),
            learned: self.state.learned().shown(now),
            discovered: self.state.discovered().collect(),
            now,
        };
        render(self.state.totals(), &self.publisher.limits(now), &around, &facts)
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
            load: own.load.clone(),
            limits: sums::limits(own, &view.members),
            learned_limits: self.state.learned().shown(now),
            resting_keys: resting_of(&live, now),
            demoted_providers: demoted_of(&live),
            discovery: discovery_of(self.state.discovered(), now),
            peers: peers_of(view, &own.configuration, now),
        })
    }
}
