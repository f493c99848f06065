//! One view of the cluster on every node: who is there, in what health, and what each of them
//! published. chitchat reconciles; transport, keys, health and identity are ours.
//!
//! A [`Gossip`] is told what to publish and whom to try, and answers with [`Event::Gossiped`].
//! Its task is watched: when it ends, another one starts under a higher generation. Absent: limits
//! that are never exceeded (they go by messages between two nodes), secrets.

pub(crate) mod frame;
pub mod gate;
mod health;
pub mod identity;
pub mod keyring;
mod life;
pub mod network;
mod peers;
mod port;
mod probe;
mod queue;
mod reader;
mod refusals;
mod replay;
pub mod rotation;
mod seeds;
mod sieve;
mod streams;
mod supervisor;
mod transport;
mod twin;
pub mod values;
pub mod wire;

pub(crate) use life::VIEW_INTERVAL;

#[cfg(test)]
mod tests;

use crate::event::Event;
use crate::gossip::health::Thresholds;
use crate::gossip::identity::Generations;
use crate::gossip::keyring::Keyring;
use crate::gossip::life::Rules;
use crate::gossip::network::Network;
use crate::gossip::supervisor::Supervisor;
use crate::gossip::values::{KEYS_MAX, TEXT_BYTES_MAX};
use crate::gossip::wire::{NodeMessage, Wire, WireError, WireSettings};
use crate::state_dir::StateDirError;
use shared::clock::Clock;
use shared::config::model::{Cluster, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Rounds that a node which leaves stays, so that the others hear of it.
const GOODBYE_ROUNDS: u32 = 3;
/// Time that closing may take after that.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// One connection to a peer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);

/// Gossip could not be started. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct GossipError(#[from] WireError);

impl GossipError {
    /// Whether the port could not be opened; otherwise the configuration is not enough.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self.0, WireError::Bind { .. })
    }
}

/// What gossip has to know of its node.
pub struct GossipSettings {
    id: NodeId,
    generations: Generations,
    cluster_name: String,
    bind: SocketAddr,
    advertise: SocketAddr,
    keyring: Keyring,
    insecure: bool,
    interval: Duration,
    thresholds: Thresholds,
}

impl GossipSettings {
    /// As the configuration says. `advertise` is where others reach this node; with port 0 it has
    /// the port that is opened.
    pub fn new(
        cluster: &Cluster,
        id: NodeId,
        generations: Generations,
        keyring: Keyring,
        advertise: SocketAddr,
    ) -> Self {
        Self {
            id,
            generations,
            cluster_name: cluster.cluster_name.clone(),
            bind: SocketAddr::new(cluster.bind_address, cluster.gossip.port),
            advertise,
            keyring,
            insecure: cluster.gossip.insecure,
            interval: cluster.gossip.interval,
            thresholds: Thresholds::new(&cluster.gossip),
        }
    }

    /// With another address to listen on; port 0 takes a free one.
    #[must_use]
    pub fn listening_on(self, bind: SocketAddr) -> Self {
        Self { bind, ..self }
    }
}

/// An opened gossip port; nothing is sent yet.
pub struct GossipPort {
    settings: GossipSettings,
    wire: Wire,
    clock: Clock,
    generation: u64,
    kept: Option<StateDirError>,
}

impl GossipPort {
    /// Opens the port under a new generation.
    pub async fn open(
        mut settings: GossipSettings,
        network: Arc<dyn Network>,
        clock: Clock,
    ) -> Result<Self, GossipError> {
        let (generation, kept) = settings.generations.next(0, clock.wall());
        let wire_settings = WireSettings {
            node_id: settings.id.as_str().to_owned(),
            generation,
            bind: settings.bind,
            advertise: settings.advertise,
            keyring: settings.keyring.clone(),
            insecure: settings.insecure,
            dial_timeout: DIAL_TIMEOUT,
        };
        let wire = Wire::open(network, wire_settings, clock).await?;
        settings.advertise = wire.advertise();
        Ok(Self { settings, wire, clock, generation, kept: kept.err() })
    }

    /// Where others reach this node.
    pub fn advertise(&self) -> SocketAddr {
        self.settings.advertise
    }

    /// Why the generation could not be kept on disk, if it could not.
    pub fn not_kept(&self) -> Option<&StateDirError> {
        self.kept.as_ref()
    }

    /// Begins to gossip. What is learned goes to `events`.
    pub fn start(self, events: mpsc::Sender<Event>) -> Gossip {
        let Self { settings, wire, clock, generation, kept: _ } = self;
        let (desired, wanted) = watch::channel(Desired::default());
        let rules = Arc::new(Rules {
            id: settings.id,
            cluster_name: settings.cluster_name,
            advertise: settings.advertise,
            interval: settings.interval,
            thresholds: settings.thresholds,
        });
        let (advertise, interval) = (rules.advertise, rules.interval);
        let supervisor =
            Supervisor { rules, wire: wire.clone(), clock, generations: settings.generations, wanted, events };
        let task = tokio::spawn(supervisor.run(generation));
        Gossip { desired, wire, task, advertise, interval, generation }
    }
}

/// What a node wants of gossip; the newest counts.
#[derive(Clone, Default)]
struct Desired {
    values: Arc<BTreeMap<String, String>>,
    peers: Arc<BTreeSet<SocketAddr>>,
    is_leaving: bool,
    is_stopping: bool,
}

/// Running gossip.
pub struct Gossip {
    desired: watch::Sender<Desired>,
    wire: Wire,
    task: JoinHandle<()>,
    advertise: SocketAddr,
    interval: Duration,
    generation: u64,
}

impl Gossip {
    /// Opens the port and begins at once.
    pub async fn start(
        settings: GossipSettings,
        network: Arc<dyn Network>,
        clock: Clock,
        events: mpsc::Sender<Event>,
    ) -> Result<Self, GossipError> {
        Ok(GossipPort::open(settings, network, clock).await?.start(events))
    }

    /// Replaces everything that this node tells of itself. What is too large or too much for
    /// gossip is left out, and said so in the log.
    pub fn publish(&self, values: Vec<(String, String)>) {
        let count = values.len();
        let fits = |(key, text): &(String, String)| key.len() + text.len() <= TEXT_BYTES_MAX + KEYS_MAX;
        let values: BTreeMap<_, _> = values.into_iter().filter(fits).take(KEYS_MAX).collect();
        if values.len() < count {
            let left_out = count - values.len();
            tracing::warn!(left_out, "failed to broadcast: values of this node are too large or too many for gossip");
        }
        self.desired.send_if_modified(|desired| {
            let is_other = *desired.values != values;
            if is_other {
                desired.values = Arc::new(values);
            }
            is_other
        });
    }

    /// Tries exactly these addresses, besides the members that are known.
    pub fn follow(&self, peers: BTreeSet<SocketAddr>) {
        self.desired.send_modify(|desired| desired.peers = Arc::new(peers));
    }

    /// Exchanges the keys.
    pub fn rekey(&self, keyring: Keyring) {
        self.wire.rekey(keyring);
    }

    /// Where others reach this node.
    pub fn advertise(&self) -> SocketAddr {
        self.advertise
    }

    /// Generation of the start.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Sends a message to one node. Whether it arrives is not known.
    pub(crate) fn send(&self, to: SocketAddr, id: &str, topic: u8, bytes: &[u8]) {
        // Whoever is not known there yet is asked for, and gets the next one.
        let _ = self.wire.send(to, id, topic, bytes);
    }

    /// The next message of another node to this one.
    pub(crate) async fn receive(&self) -> NodeMessage {
        self.wire.receive().await
    }

    /// Tells the others that this node is finishing, and stays.
    pub fn say_goodbye(&self) {
        self.desired.send_modify(|desired| desired.is_leaving = true);
    }

    /// Says goodbye, stays until the others have heard it, and closes the port.
    pub async fn leave(self) {
        self.say_goodbye();
        tokio::time::sleep(self.interval * GOODBYE_ROUNDS).await;
        self.stop().await;
    }

    /// Ends without a goodbye, as a crash would; the others see this node die.
    pub async fn stop(mut self) {
        self.desired.send_modify(|desired| desired.is_stopping = true);
        let closing = async {
            // A panic of the task was logged by the panic itself.
            let _ = (&mut self.task).await;
            self.wire.close().await;
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::warn!("the gossip port could not be closed in time and ends with the process");
        }
    }
}
