//! The gossip port of a node, as the rest of the node sees it. chitchat speaks through it, see
//! [`super::transport`]; what it does is in [`super::port`].

use super::frame::{Identity, Kind, NodeName, PAYLOAD_BYTES_MAX, Refusal, VERSION_MAX};
use super::keyring::Keyring;
use super::network::Network;
use super::port::{Shared, lock};
use shared::clock::{Clock, Nanos};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Closing waits this long for what is queued.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// A refusal that is older says nothing about a peer any more.
const REFUSAL_AGE_MAX: Duration = Duration::from_secs(60);

/// What a wire is opened with.
#[derive(Clone, Debug)]
pub struct WireSettings {
    /// This node's id, at most 12 characters.
    pub node_id: String,
    /// Grows with every start of this node. chitchat's own generation may be another one.
    pub generation: u64,
    /// Where datagrams and streams are opened.
    pub bind: SocketAddr,
    /// Where others reach this node. With port 0, the port that was opened.
    pub advertise: SocketAddr,
    /// Of this cluster. Without keys only on loopback, or where `insecure` says so.
    pub keyring: Keyring,
    /// `gossip.insecure`
    pub insecure: bool,
    /// For one connection.
    pub dial_timeout: Duration,
}

/// The gossip port could not be opened. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Others could read and change everything.
    #[error(
        "gossip on {0} has no encryption keys: anybody who reaches it could join and read; make a key with \
         `openssl rand -base64 32` and give it to every node in gossip.encryption_keys or DEEPINTSHIELD_GOSSIP_KEY, \
         or say \"insecure\": true in gossip"
    )]
    NoKeys(SocketAddr),
    /// Frames have room for 12 bytes.
    #[error("node id {0:?} is empty or longer than 12 bytes")]
    NodeId(String),
    /// Another process has the port, or the address is not this machine's.
    #[error("gossip cannot listen on {address}: {error}; is the port taken, or the address another machine's?")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

/// What is known of whoever is at an address, from frames of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerFacts {
    /// Its id, once it was heard.
    pub id: Option<String>,
    /// Its generation, once it was heard.
    pub generation: u64,
    /// Protocol version of its last frame.
    pub version: u8,
    /// Frames that waited there for a connection, where its version tells.
    pub queued: Option<u16>,
    /// Of the last probe that was answered.
    pub round_trip: Option<Duration>,
    /// Its wall clock minus ours.
    pub clock_offset_ms: Option<i64>,
    /// UDP does not get through, TCP does.
    pub is_tcp_only: bool,
    /// Neither does.
    pub is_unreachable: bool,
    /// It said that it takes the key that we send with.
    pub speaks_our_key: bool,
    /// Names of all keys that it takes, in its order.
    pub takes_keys: Vec<String>,
    /// Last frame of its own.
    pub last_heard: Option<Nanos>,
    /// What was wrong with a frame from its host in the last minute, and what to do about it.
    pub refused: Option<String>,
}

/// Another live node of our id. It proved that it is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namesake {
    /// Where it is reached.
    pub address: SocketAddr,
    /// The higher one is the later start.
    pub generation: u64,
    /// When it was heard.
    pub heard_at: Nanos,
}

/// A message from one node to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeMessage {
    /// Id of the sender, which has the key.
    pub from: String,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Which part of a node it is for; from 16 on.
    pub topic: u8,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// The message was not sent. It may be tried again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// Nobody, or another node, was heard there; it is being asked.
    #[error("that node is not known at this address")]
    NotThere,
    /// Longer than a frame.
    #[error("the message is longer than 64 KiB")]
    TooLong,
}

/// An open gossip port. Cheap to clone; closed with the last clone.
#[derive(Clone)]
pub struct Wire {
    handle: Arc<Handle>,
}

/// The tasks of the port hold [`Shared`], so that something else has to end them.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(lock(&self.shared.tasks).take());
    }
}

impl Wire {
    /// Opens UDP and TCP on the same port.
    pub async fn open(network: Arc<dyn Network>, settings: WireSettings, clock: Clock) -> Result<Self, WireError> {
        Self::open_speaking(network, settings, clock, VERSION_MAX).await
    }

    /// The same, speaking no version above `speaks`.
    pub(crate) async fn open_speaking(
        network: Arc<dyn Network>,
        settings: WireSettings,
        clock: Clock,
        speaks: u8,
    ) -> Result<Self, WireError> {
        let WireSettings { node_id, generation, bind, mut advertise, keyring, insecure, dial_timeout } = settings;
        if keyring.is_plain() && !insecure && !bind.ip().is_loopback() {
            return Err(WireError::NoKeys(bind));
        }
        let name = NodeName::new(&node_id).filter(|name| !name.is_empty()).ok_or(WireError::NodeId(node_id))?;
        let fault = |error| WireError::Bind { address: bind, error };
        let (datagrams, listener) = network.bind(bind).await.map_err(fault)?;
        let bound = datagrams.address().map_err(fault)?;
        if advertise.port() == 0 {
            advertise.set_port(bound.port());
        }
        advertise.set_ip(advertise.ip().to_canonical());
        let us = Identity { name, generation };
        let shared =
            Shared::open(us, speaks, advertise, dial_timeout, clock, network, keyring, (datagrams, bound.ip()));
        let shared = Arc::new(shared);
        shared.serve(listener);
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// Where others reach this node.
    pub fn advertise(&self) -> SocketAddr {
        self.shared().advertise
    }

    /// Exchanges the keys, and tells all peers. What is on its way under a key that is gone is lost.
    pub fn rekey(&self, keyring: Keyring) {
        let shared = self.shared();
        let mut state = shared.lock();
        state.keyring = keyring;
        shared.tell_keys(&mut state);
    }

    /// Asks whoever is at `to` for a sign of life; to be called about once a second for each
    /// member, more often does no harm. What comes back appears in [`Wire::peer`].
    pub fn probe(&self, to: SocketAddr) {
        let shared = self.shared();
        shared.probe(&mut shared.lock(), to);
    }

    /// What is known of `address`.
    pub fn peer(&self, address: SocketAddr) -> PeerFacts {
        let shared = self.shared();
        let now = shared.clock.now();
        let state = shared.lock();
        let is_recent =
            |(source, _, at): &(IpAddr, Refusal, Nanos)| *source == address.ip() && now.since(*at) < REFUSAL_AGE_MAX;
        let refused = state.refusals.sources().filter(is_recent).max_by_key(|(_, _, at)| *at);
        let refused = refused.map(|(_, refusal, _)| refusal.to_string());
        let Some(peer) = state.peers.get(address) else {
            return PeerFacts { refused, ..PeerFacts::default() };
        };
        PeerFacts {
            id: peer.identity.map(|identity| identity.name.to_string()),
            generation: peer.identity.map_or(0, |identity| identity.generation),
            version: peer.version,
            queued: peer.queued,
            round_trip: peer.round_trip,
            clock_offset_ms: peer.clock_offset_ms,
            is_tcp_only: peer.is_tcp_only,
            is_unreachable: peer.is_unreachable(),
            speaks_our_key: peer.takes.contains(&state.keyring.sealing().id),
            takes_keys: peer.takes.iter().map(ToString::to_string).collect(),
            last_heard: peer.heard_at,
            refused,
        }
    }

    /// Another live node that goes by our id, as far as one was heard.
    pub fn namesake(&self) -> Option<Namesake> {
        self.shared().lock().namesake
    }

    /// The present generation of this node, as frames carry it.
    pub(crate) fn generation(&self) -> u64 {
        self.shared().us().generation
    }

    /// A generation above ours that others know this node by: they take no frames of a lower one.
    pub(crate) fn later_life(&self) -> Option<u64> {
        self.shared().lock().later_us
    }

    /// From now on frames carry this generation, if it is higher than before.
    pub(crate) fn live_again(&self, generation: u64) {
        self.shared().live_again(generation);
    }

    /// Sends a message to a node at an address where it was heard. Nobody else can read it, nor can
    /// that node after a restart. Whether it arrives is not known.
    pub fn send(&self, to: SocketAddr, id: &str, topic: u8, bytes: &[u8]) -> Result<(), NotSent> {
        let shared = self.shared();
        let mut state = shared.lock();
        let name = state.peers.get(to).and_then(|peer| peer.identity).map(|identity| identity.name);
        if name.is_none() || name != NodeName::new(id) {
            shared.probe(&mut state, to);
            return Err(NotSent::NotThere);
        }
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(NotSent::TooLong);
        }
        shared.send_known(&mut state, to, Kind::Topic(topic), bytes);
        Ok(())
    }

    /// The next message that another node sent with [`Wire::send`].
    pub async fn receive(&self) -> NodeMessage {
        self.shared().letters.pop().await
    }

    /// Counted since the port was opened, for metrics.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let state = self.shared().lock();
        let counts = state.counts;
        let own = [
            ("frames_received_udp", counts.frames_received_udp),
            ("frames_received_tcp", counts.frames_received_tcp),
            ("frames_sent_udp", counts.frames_sent_udp),
            ("frames_sent_tcp", counts.frames_sent_tcp),
            ("bytes_received", counts.bytes_received),
            ("bytes_sent", counts.bytes_sent),
            ("frames_dropped", counts.frames_dropped),
            ("messages_dropped", counts.messages_dropped),
            ("messages_undecodable", counts.messages_undecodable),
            ("connections_refused", counts.connections_refused),
            ("socket_errors", counts.socket_errors),
        ];
        own.into_iter().chain(state.refusals.counts()).collect()
    }

    /// Gives what is queued a moment to leave, and closes the port, whoever else has a clone.
    pub async fn close(self) {
        let shared = self.shared();
        let is_idle = async {
            while !shared.lock().lines.are_idle() {
                tokio::time::sleep(CLOSE_TIMEOUT / 50).await;
            }
        };
        // What could not leave in time is lost, as it would be on the way.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, is_idle).await;
        let tasks = lock(&shared.tasks).take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

#[cfg(test)]
mod tests;
