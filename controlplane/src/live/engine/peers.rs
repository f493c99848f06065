//! Nodes with stores of their own: whoever hears of a later head than its own fetches the revisions
//! below it from the node that has them, and takes that chain for the one that holds. Its own
//! revisions on top of where the two part stay in its history, superseded.
//!
//! Fetching pulls: a batch of revisions, in parts that fit a message, a few of them asked for ahead.
//! What is lost on the way is asked for again. A node is believed, for only one with the cluster's
//! keys is heard at all; a batch is checked to be one chain all the same.

use super::{Engine, Others, REVISIONS_AT_ONCE, apply, in_time};
use crate::escrow::NodeName;
use crate::gossip::wire::NodeMessage;
use crate::live::entity::Entities;
use crate::live::revision::{Digest, Head, Revision};
use crate::live::store::StoreError;
use crate::live::wire::{BATCH_BYTES_MAX, Message, PART_BYTES_MAX, read_batch, write_batch};
use shared::clock::Nanos;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Parts that are asked for ahead.
const WINDOW_PARTS: usize = 4;
/// What was asked for and did not come by then is asked for again.
const PART_TIMEOUT: Duration = Duration::from_millis(500);
/// How often in a row, before somebody else is asked.
const TRIES_MAX: u32 = 10;
/// A batch ends behind so much; one revision may be larger.
const BATCH_BYTES: usize = 1024 * 1024;
/// Batches that are kept for who asks for the next part of them.
const SERVED_MAX: usize = 4;
const SERVED_AGE_MAX: Duration = Duration::from_secs(30);
/// Revisions of one chain that are held until it is known to be the later one.
const CHAIN_MAX: usize = 10_000;
/// Nodes whose word is remembered.
const RUMOURS_MAX: usize = 2_048;

/// Another node, and the newest revision it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerHead {
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    /// `None`: it has none, or keeps none.
    pub(crate) head: Option<Head>,
    /// It has said what it has.
    pub(crate) has_told: bool,
}

/// What goes on with other nodes.
#[derive(Default)]
pub(super) struct Peers {
    /// Heads that nodes told directly, which is sooner than by gossip.
    rumours: BTreeMap<String, Head>,
    fetch: Option<Fetch>,
    served: Vec<Served>,
}

struct Fetch {
    from: String,
    address: SocketAddr,
    target: Head,
    after: u64,
    /// How far to go back when the two chains part below `after`.
    step: u64,
    of: Option<[u8; 32]>,
    total: u64,
    bytes: Vec<u8>,
    /// Asked for up to here.
    asked: u64,
    tries: u32,
    again_at: Nanos,
    /// Where the chains part, and theirs from there on.
    fork: Option<Digest>,
    chain: Vec<Revision>,
}

struct Served {
    after: u64,
    of: Digest,
    bytes: Arc<Vec<u8>>,
    at: Nanos,
}

impl Peers {
    pub(super) fn next_at(&self) -> Option<Nanos> {
        let served = self.served.iter().map(|served| served.at.after(SERVED_AGE_MAX));
        served.chain(self.fetch.as_ref().map(|fetch| fetch.again_at)).min()
    }
}

impl Fetch {
    /// Begins with what is above `after`.
    fn restart(&mut self, after: u64) {
        self.after = after;
        self.of = None;
        self.bytes = Vec::new();
        self.asked = 0;
        self.tries = 0;
    }
}

impl Engine {
    /// Tells all others of the newest revision.
    pub(super) async fn ring(&mut self) {
        let bytes = Message::Head((&self.head).into()).write();
        let peers: Vec<_> = self.doors.peers.borrow().iter().map(|peer| (peer.address, peer.id.clone())).collect();
        let messages = peers.into_iter().filter_map(|(at, id)| Some((at, NodeName::new(&id)?, bytes.clone())));
        self.send(messages.collect()).await;
    }

    async fn send(&self, messages: crate::shared_limits::Messages) {
        if !messages.is_empty() {
            // Nobody sends any more when the node is ending.
            let _ = self.doors.told.send(super::Told::Send(messages)).await;
        }
    }

    async fn say(&self, to: &str, at: SocketAddr, message: &Message) {
        if let Some(name) = NodeName::new(to) {
            self.send(vec![(at, name, message.write())]).await;
        }
    }

    /// The node with the latest head, where that is later than ours.
    fn later(&self) -> Option<(String, SocketAddr, Head)> {
        let peers = self.doors.peers.borrow();
        let head = |peer: &PeerHead| self.peers.rumours.get(&peer.id).max(peer.head.as_ref()).cloned();
        let known = peers.iter().filter_map(|peer| Some((head(peer)?, peer)));
        let (head, peer) = known.max_by(|(a, _), (b, _)| a.cmp(b))?;
        (head > self.head).then(|| (peer.id.clone(), peer.address, head))
    }

    pub(super) async fn look_at_peers(&mut self) {
        if self.later().is_some() {
            match self.settings.others {
                Others::Nobody => {}
                Others::ByStore => self.refresh().await,
                Others::ByGossip => self.begin_fetch().await,
            }
        }
        self.catch_up().await;
    }

    async fn begin_fetch(&mut self) {
        if self.peers.fetch.is_some() || !self.is_seen || self.trouble.is_some() {
            return;
        }
        let Some((from, address, target)) = self.later() else { return };
        // Mostly theirs stands on ours; where it cannot, the chains part below.
        let after = self.head.number.min(target.number.saturating_sub(1));
        self.peers.fetch = Some(Fetch {
            from,
            address,
            target,
            after,
            step: 1,
            of: None,
            total: 0,
            bytes: Vec::new(),
            asked: 0,
            tries: 0,
            again_at: Nanos(0),
            fork: None,
            chain: Vec::new(),
        });
        self.ask_on().await;
    }

    /// Asks for what comes next, up to the window.
    async fn ask_on(&mut self) {
        let now = self.settings.clock.now();
        let Some(fetch) = &mut self.peers.fetch else { return };
        fetch.again_at = now.after(PART_TIMEOUT);
        let mut asks = Vec::new();
        if fetch.of.is_none() {
            asks.push(0);
            fetch.asked = PART_BYTES_MAX as u64;
        } else {
            let have = fetch.bytes.len() as u64;
            let window = have.saturating_add((WINDOW_PARTS * PART_BYTES_MAX) as u64).min(fetch.total);
            fetch.asked = fetch.asked.max(have);
            while fetch.asked < window {
                asks.push(fetch.asked);
                fetch.asked = fetch.asked.saturating_add(PART_BYTES_MAX as u64);
            }
        }
        let (from, address, after) = (fetch.from.clone(), fetch.address, fetch.after);
        for offset in asks {
            self.say(&from, address, &Message::Ask { after, from: offset }).await;
        }
    }

    /// What did not come is asked for again; what nobody asks for any more is forgotten.
    pub(super) async fn exchange(&mut self) {
        let now = self.settings.clock.now();
        self.peers.served.retain(|served| now.since(served.at) < SERVED_AGE_MAX);
        let Some(fetch) = &mut self.peers.fetch else { return self.begin_fetch().await };
        if now < fetch.again_at {
            return;
        }
        fetch.tries = fetch.tries.saturating_add(1);
        if fetch.tries > TRIES_MAX {
            tracing::warn!(
                peer = fetch.from,
                revision = fetch.target.number,
                "the peer does not send its configuration"
            );
            self.give_up();
            return;
        }
        fetch.asked = 0;
        self.ask_on().await;
    }

    /// Gossip tells again who has something later.
    fn give_up(&mut self) {
        if let Some(fetch) = self.peers.fetch.take() {
            self.peers.rumours.remove(&fetch.from);
        }
    }

    pub(super) async fn heard(&mut self, message: NodeMessage) {
        let NodeMessage { from, address, bytes, .. } = message;
        match Message::read(&bytes) {
            Some(Message::Head(head)) => {
                if self.peers.rumours.len() < RUMOURS_MAX || self.peers.rumours.contains_key(&from) {
                    self.peers.rumours.insert(from, head.into());
                }
                self.look_at_peers().await;
            }
            Some(Message::Ask { after, from: offset }) if self.settings.others == Others::ByGossip => {
                self.serve(&from, address, after, offset).await;
            }
            Some(Message::Part { after, of, from: offset, total, bytes }) => {
                self.take_part(&from, after, of, (offset, total), &bytes).await;
            }
            Some(Message::Ask { .. }) | None => {}
        }
    }

    async fn serve(&mut self, to: &str, at: SocketAddr, after: u64, offset: u64) {
        let now = self.settings.clock.now();
        let head = self.head.digest;
        let is_it = |served: &Served| served.after == after && (offset > 0 || served.of == head);
        if !self.peers.served.iter().any(is_it) {
            let Ok(revisions) = in_time(self.store.after(after, REVISIONS_AT_ONCE)).await else { return };
            let bytes = if revisions.is_empty() { Vec::new() } else { write_batch(&revisions, BATCH_BYTES) };
            if bytes.len() > BATCH_BYTES_MAX {
                tracing::error!(bytes = bytes.len(), "a revision is too large to be sent to other nodes");
                return;
            }
            self.peers.served.retain(|served| served.after != after);
            if self.peers.served.len() >= SERVED_MAX {
                self.peers.served.remove(0);
            }
            self.peers.served.push(Served { after, of: head, bytes: Arc::new(bytes), at: now });
        }
        let Some(served) = self.peers.served.iter_mut().find(|served| is_it(served)) else { return };
        served.at = now;
        let (of, whole) = (served.of, Arc::clone(&served.bytes));
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
        let end = start.saturating_add(PART_BYTES_MAX).min(whole.len());
        let bytes = whole.get(start..end).unwrap_or_default().to_vec();
        let part = Message::Part { after, of: of.0, from: start as u64, total: whole.len() as u64, bytes };
        self.say(to, at, &part).await;
    }

    async fn take_part(&mut self, from: &str, after: u64, of: [u8; 32], (offset, total): (u64, u64), bytes: &[u8]) {
        let Some(fetch) = self.peers.fetch.as_mut().filter(|fetch| fetch.from == from && fetch.after == after) else {
            return;
        };
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        match fetch.of {
            None if offset == 0 => {
                if total == 0 {
                    // It has nothing there any more.
                    return self.give_up();
                }
                (fetch.of, fetch.total) = (Some(of), total as u64);
                // Bounded where the message was read.
                fetch.bytes = Vec::new();
                fetch.bytes.reserve_exact(total);
            }
            None => return,
            Some(before) if before != of => {
                // It has changed meanwhile.
                let after = fetch.after;
                fetch.restart(after);
                return self.ask_on().await;
            }
            Some(_) if offset != fetch.bytes.len() as u64 => return,
            Some(_) => {}
        }
        if bytes.is_empty() || fetch.bytes.len().saturating_add(bytes.len()) > total {
            return;
        }
        fetch.bytes.extend_from_slice(bytes);
        fetch.tries = 0;
        if fetch.bytes.len() < total {
            return self.ask_on().await;
        }
        let whole = std::mem::take(&mut fetch.bytes);
        if let Some(revisions) = super::blocking(move || read_batch(&whole)).await.flatten() {
            if let Err(error) = self.take_revisions(revisions).await {
                self.give_up();
                self.troubled(error.to_string());
            }
        } else {
            tracing::warn!(peer = from, "what the peer sent as its configuration is none");
            self.give_up();
        }
        self.catch_up().await;
        self.say_standing().await;
    }

    async fn take_revisions(&mut self, revisions: Vec<Revision>) -> Result<(), StoreError> {
        let Some(fetch) = &self.peers.fetch else { return Ok(()) };
        let (Some(first), Some(last)) = (revisions.first(), revisions.last()) else { return Ok(()) };
        let last_number = last.number;
        if fetch.fork.is_none()
            && first.parent == self.head.digest
            && self.head.number.checked_add(1) == Some(first.number)
        {
            return self.follow(revisions).await;
        }
        if let Some(tip) = fetch.chain.last() {
            if first.parent != tip.digest() {
                self.give_up();
                return Ok(());
            }
        } else if !self.stands_on_ours(first).await? {
            return self.step_back().await;
        }
        let Some(fetch) = &mut self.peers.fetch else { return Ok(()) };
        fetch.fork = fetch.fork.or(revisions.first().map(|first| first.parent));
        fetch.chain.extend(revisions);
        let tip = fetch.chain.last().map(Revision::head).unwrap_or_default();
        if tip > self.head {
            return self.switch().await;
        }
        if fetch.chain.len() > CHAIN_MAX {
            tracing::error!(peer = fetch.from, "the peer's configuration parts from this node's too long ago");
            self.give_up();
            return Ok(());
        }
        fetch.restart(last_number);
        self.ask_on().await;
        Ok(())
    }

    /// Whether what `first` stands on holds here.
    async fn stands_on_ours(&self, first: &Revision) -> Result<bool, StoreError> {
        if first.number <= 1 || first.parent == Digest::default() {
            return Ok(first.number == 1 && first.parent == Digest::default());
        }
        let parent = in_time(self.store.revision(first.parent)).await?;
        Ok(parent.is_some_and(|parent| !parent.is_superseded))
    }

    async fn step_back(&mut self) -> Result<(), StoreError> {
        let Some(fetch) = &mut self.peers.fetch else { return Ok(()) };
        if fetch.after == 0 {
            tracing::warn!(peer = fetch.from, "the peer's configuration has no beginning");
            self.give_up();
            return Ok(());
        }
        let after = fetch.after.saturating_sub(fetch.step);
        fetch.step = fetch.step.saturating_mul(2);
        fetch.restart(after);
        self.ask_on().await;
        Ok(())
    }

    /// Theirs stands on ours.
    async fn follow(&mut self, revisions: Vec<Revision>) -> Result<(), StoreError> {
        let mut entities = Entities::clone(&self.entities);
        for revision in &revisions {
            in_time(self.store.append(revision)).await?;
            apply(&mut entities, &revision.changes);
            self.head = revision.head();
        }
        self.entities = Arc::new(entities);
        self.fetched().await;
        Ok(())
    }

    /// Theirs holds instead of what stood on the fork here.
    async fn switch(&mut self) -> Result<(), StoreError> {
        let Some(fetch) = self.peers.fetch.take() else { return Ok(()) };
        let fork = fetch.fork.unwrap_or_default();
        let (ours, theirs) = (self.head.clone(), fetch.chain.last().map(Revision::head).unwrap_or_default());
        in_time(self.store.switch(fork, &fetch.chain)).await?;
        tracing::warn!(
            superseded = %ours.digest,
            revision = theirs.number,
            node = theirs.node,
            "two nodes changed the configuration at the same time: the other one's holds; this node's stays in its history"
        );
        let (head, entities) = in_time(self.store.state()).await?;
        self.head = head;
        self.entities = Arc::new(entities.into_iter().map(|entity| (entity.id, Arc::new(entity.value))).collect());
        self.fetched().await;
        Ok(())
    }

    async fn fetched(&mut self) {
        self.peers.fetch = None;
        self.peers.rumours.retain(|_, head| *head > self.head);
        self.publish().await;
        self.ring().await;
        Box::pin(self.begin_fetch()).await;
    }
}
