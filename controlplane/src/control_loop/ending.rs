//! The end of the node: what runs may finish, what others need is written and handed over.

use super::ControlLoop;
use crate::drain::{Drain, Finished};
use crate::event::Event;
use crate::shared_limits::TOPIC;
use shared::phase::Phase;
use std::time::Duration;

/// A slow disk must not keep a node from ending.
const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(2);

impl ControlLoop {
    pub(super) fn begin_drain(&mut self) {
        let cores = self.facts.cores;
        let timeout = self.server.drain_timeout;
        tracing::info!(timeout_seconds = timeout.as_secs(), "draining: no new requests, what runs may finish");
        // What cores said before they could know of the drain must not end it.
        self.take_reports();
        self.drain = Some(Drain::begin(self.clock.now(), timeout, cores, self.state.totals()));
        self.cluster.say_goodbye();
        if let Some(limits) = &mut self.shared_limits {
            limits.leave();
        }
        self.apply(Event::Drain);
        self.carry_out();
        self.phase.advance_to(Phase::Draining);
    }

    pub(super) async fn stop(mut self, finished: Finished) -> Finished {
        self.phase.advance_to(Phase::Stopped);
        self.publisher.close();
        let last_write = async {
            self.keeper.collect(self.clock.now()).await;
            if self.keeper.has_unwritten() && self.state.are_hosts_tried() {
                self.write_last_good(self.clock.now());
                self.keeper.collect(self.clock.now()).await;
            }
        };
        if tokio::time::timeout(LAST_WRITE_TIMEOUT, last_write).await.is_err() {
            tracing::warn!("the last good snapshot was not written at the end; the one before it stays");
        }
        if matches!(finished, Finished::Idle | Finished::TimedOut { .. }) {
            if let Some(limits) = &mut self.shared_limits {
                if let Ok(messages) = tokio::time::timeout(LAST_WRITE_TIMEOUT, limits.end(self.clock.now())).await {
                    self.cluster.send(TOPIC, messages);
                } else {
                    tracing::warn!(
                        "what this node has of the shared limits was not written in time and not handed over; the others \
                         get it when it starts again, or take it over"
                    );
                }
            }
            self.cluster.leave().await;
        }
        let limits = self.shared_limits.as_ref();
        let handed = |key| limits?.escrow().handed_over(key);
        if tokio::time::timeout(LAST_WRITE_TIMEOUT, self.publisher.end(&handed)).await.is_err() {
            tracing::warn!("what was spent of limits was not written at the end; the next start counts more than that");
        }
        match finished {
            Finished::Idle => tracing::info!("drained: nothing was being served any more"),
            Finished::TimedOut { requests_in_flight } => {
                tracing::warn!(requests_in_flight, "the drain timeout passed; requests that still ran were cut");
            }
            Finished::AtOnce | Finished::Stuck { .. } | Finished::DuplicateNode => {}
        }
        finished
    }
}
