//! Keeps gossip alive: one life of it after the other, each under a higher generation.

use super::Desired;
use super::identity::Generations;
use super::life::{End, Life, Rules};
use super::wire::Wire;
use crate::event::Event;
use shared::clock::Clock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The pause after a life that ended by itself; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A life of this length forgives those before it.
const LONG_LIFE: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Supervisor {
    pub(super) rules: Arc<Rules>,
    pub(super) wire: Wire,
    pub(super) clock: Clock,
    pub(super) generations: Generations,
    pub(super) wanted: watch::Receiver<Desired>,
    pub(super) events: mpsc::Sender<Event>,
}

impl Supervisor {
    /// Returns when gossip is to stop, or the control loop is gone.
    pub(super) async fn run(mut self, mut generation: u64) {
        let mut restarts: u64 = 0;
        let mut pause = PAUSE_MIN;
        loop {
            let began_at = self.clock.now();
            let life = Life::new(
                Arc::clone(&self.rules),
                generation,
                self.wire.clone(),
                self.clock,
                self.wanted.clone(),
                self.events.clone(),
                restarts,
            );
            let above = match tokio::spawn(life.run()).await {
                Ok(End::Stopped) => return,
                Ok(End::Duplicate { generation, address }) => {
                    let id = self.rules.id.as_str();
                    tracing::error!(
                        id,
                        %address,
                        generation,
                        "another live node has this node's id; this one stops. Give each node a cluster_config.node_id \
                         and a state directory of its own"
                    );
                    // Where the control loop is gone, the node is ending anyway.
                    let _ = self.events.send(Event::DuplicateNode { id: id.to_owned(), address }).await;
                    return;
                }
                Ok(End::Outdated { generation }) => {
                    tracing::warn!(
                        generation,
                        "the others know a later start of this node; gossip starts again above it. Was the clock set back?"
                    );
                    generation
                }
                Ok(End::Failed(reason)) => {
                    tracing::error!(reason, "gossip has ended and is started again");
                    0
                }
                Err(error) => {
                    tracing::error!(%error, "gossip has ended and is started again");
                    0
                }
            };
            restarts = restarts.saturating_add(1);
            if self.clock.now().since(began_at) >= LONG_LIFE {
                pause = PAUSE_MIN;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            let (next, kept) = self.generations.next(above, self.clock.wall());
            if let Err(error) = kept {
                tracing::warn!(%error, "the generation of gossip could not be kept");
            }
            self.wire.live_again(next);
            generation = next;
        }
    }
}
