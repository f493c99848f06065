//! chitchat on our wire: its messages are payloads of our frames.
//!
//! A message is decoded only here, after its frame was authenticated and what it says has passed the
//! [`Sieve`]; a panic of the decoder costs that message only.

use super::frame::PAYLOAD_BYTES_MAX;
use super::port::{Inbox, lock};
use super::sieve::Sieve;
use super::wire::Wire;
use async_trait::async_trait;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

impl Wire {
    /// What chitchat speaks through; one for each time that it is started. The newest gets what
    /// arrives. The port is open already, so that the address it asks for does not matter.
    pub(crate) fn transport(&self, sieve: Arc<Mutex<Sieve>>) -> impl Transport + use<> {
        WireTransport { wire: self.clone(), sieve }
    }
}

struct WireTransport {
    wire: Wire,
    sieve: Arc<Mutex<Sieve>>,
}

#[async_trait]
impl Transport for WireTransport {
    async fn open(&self, _address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let inbox = self.wire.shared().open_inbox();
        Ok(Box::new(WireSocket { wire: self.wire.clone(), sieve: self.sieve.clone(), inbox }))
    }
}

struct WireSocket {
    wire: Wire,
    sieve: Arc<Mutex<Sieve>>,
    inbox: Arc<Inbox>,
}

#[async_trait]
impl Socket for WireSocket {
    /// Returns at once, whatever the peer does.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        let message = message.serialize_to_vec();
        if message.len() > PAYLOAD_BYTES_MAX {
            // An error would end chitchat. It does not make such messages.
            self.wire.shared().lock().counts.frames_dropped += 1;
            return Ok(());
        }
        self.wire.shared().send_gossip(to, message);
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (from, bytes) = self.inbox.pop().await;
            let passed = lock(&self.sieve).pass(&bytes);
            if let Some(message) = passed.and_then(|bytes| decode(&bytes)) {
                return Ok((from, message));
            }
            self.wire.shared().lock().counts.messages_undecodable += 1;
        }
    }
}

/// A message, and nothing behind it.
pub(super) fn decode(bytes: &[u8]) -> Option<ChitchatMessage> {
    let mut rest = bytes;
    let decoded = catch_unwind(AssertUnwindSafe(|| ChitchatMessage::deserialize(&mut rest)));
    decoded.ok()?.ok().filter(|_| rest.is_empty())
}
