//! What is known of each address that is talked to: who is there, which way reaches it, which keys
//! and versions it takes. Pure: decides what to ask next, and what to say about it.
//!
//! Only frames whose tag has verified change anything here.

use super::frame::{Identity, Opened, VERSION_MIN};
use super::keyring::KeyId;
use super::probe::{Pong, clock_offset_ms};
use shared::clock::Nanos;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A cluster, by the addresses that nodes name and those that discovery does.
const PEERS_MAX: usize = 2_048;
/// Pings that may still be answered, of all peers.
const PINGS_MAX: usize = 4_096;
/// Between pings to a node that is known.
const PING_SPACING: Duration = Duration::from_millis(500);
/// Between the first pings to an address; doubled with each that is not answered.
const HELLO_SPACING: Duration = Duration::from_millis(200);
const HELLO_SPACING_MAX: Duration = Duration::from_secs(2);
/// Pings by UDP that may be lost before those by TCP go along, and frames after them.
const UDP_LOST_MAX: u32 = 2;
/// Pings by UDP that are lost before a peer is one that only TCP reaches.
const TCP_ONLY_AFTER: u32 = 4;
/// Such a peer is tried by UDP again.
const UDP_RETRY: Duration = Duration::from_secs(10);
/// Rounds of pings without an answer, after which a peer is not reached.
const UNREACHABLE_AFTER: u32 = 3;
/// A node that was silent for so long is asked whether it is still the same one.
const SILENCE: Duration = Duration::from_secs(3);

/// A way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Udp,
    Tcp,
}

/// What to say in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remark {
    /// So many rounds of pings were not answered.
    Timeout(u32),
    /// So many messages were sent since it was not reached any more.
    FailedToBroadcast(u64),
    /// TCP reaches it and UDP does not.
    TcpOnly,
    /// UDP reaches it again.
    UdpAgain,
}

/// Which pings to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) udp: bool,
    pub(crate) tcp: bool,
    /// Rounds that were not answered. Each tries the next key of the ring.
    pub(crate) unanswered: u32,
    pub(crate) remark: Option<Remark>,
}

/// How a message gets to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) to: Identity,
    /// Highest version that it speaks.
    pub(crate) speaks: u8,
    /// Keys that it takes; empty where it did not say so yet.
    pub(crate) takes: Vec<KeyId>,
    pub(crate) prefers_tcp: bool,
}

/// Whoever is at an address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) identity: Option<Identity>,
    pub(crate) version: u8,
    pub(crate) queued: Option<u16>,
    pub(crate) takes: Vec<KeyId>,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) clock_offset_ms: Option<i64>,
    pub(crate) is_tcp_only: bool,
    pub(crate) heard_at: Option<Nanos>,
    speaks: u8,
    used_at: Nanos,
    next_round_at: Nanos,
    /// Of the round that is on its way.
    awaits: (bool, bool),
    is_answered: bool,
    udp_lost: u32,
    tcp_works: bool,
    udp_retry_at: Nanos,
    unanswered: u32,
    undelivered: u64,
    /// The newest message that waits until it is known who is there.
    waiting: Option<Vec<u8>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    by_address: BTreeMap<SocketAddr, Peer>,
    pings: BTreeMap<u64, SentPing>,
}

#[derive(Clone, Copy, Debug)]
struct SentPing {
    to: SocketAddr,
    via: Via,
    at: Nanos,
    wall: Duration,
}

impl Peer {
    /// Neither way reaches it.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.unanswered >= UNREACHABLE_AFTER
    }
}

impl Peers {
    /// What is known of an address.
    pub(crate) fn get(&self, address: SocketAddr) -> Option<&Peer> {
        self.by_address.get(&address)
    }

    /// Whether this node sends to any address of a host.
    pub(crate) fn talks_to(&self, host: IpAddr) -> bool {
        let next = self.by_address.range(SocketAddr::new(host, 0)..).next();
        next.is_some_and(|(address, _)| address.ip() == host)
    }

    /// Addresses behind which somebody was heard.
    pub(crate) fn known(&self) -> Vec<SocketAddr> {
        self.by_address.iter().filter(|(_, peer)| peer.identity.is_some()).map(|(address, _)| *address).collect()
    }

    /// How to send a message to `to`; `None` while it is not known who is there.
    pub(crate) fn route(&mut self, to: SocketAddr, now: Nanos) -> Option<Route> {
        let peer = self.entry(to, now);
        let identity = peer.identity?;
        Some(Route {
            to: identity,
            speaks: peer.speaks.max(VERSION_MIN),
            takes: peer.takes.clone(),
            prefers_tcp: peer.tcp_works && peer.udp_lost >= UDP_LOST_MAX,
        })
    }

    /// Keeps a message until it is known who is there; answers whether it pushed out another.
    pub(crate) fn wait(&mut self, to: SocketAddr, message: Vec<u8>, now: Nanos) -> bool {
        self.entry(to, now).waiting.replace(message).is_some()
    }

    /// The message that waited.
    pub(crate) fn take_waiting(&mut self, address: SocketAddr) -> Option<Vec<u8>> {
        self.by_address.get_mut(&address)?.waiting.take()
    }

    /// Whether nothing says that whoever was there still is.
    pub(crate) fn is_silent(&self, address: SocketAddr, now: Nanos) -> bool {
        let heard_at = self.by_address.get(&address).and_then(|peer| peer.heard_at);
        heard_at.is_none_or(|heard_at| now.since(heard_at) >= SILENCE)
    }

    /// A message goes to a peer; says so where it hardly arrives.
    pub(crate) fn sends(&mut self, to: SocketAddr, now: Nanos) -> Option<Remark> {
        let peer = self.entry(to, now);
        if !peer.is_unreachable() {
            return None;
        }
        peer.undelivered += 1;
        // 1, 8, 64 … so that a node which stays away is a few lines.
        let undelivered = peer.undelivered;
        let is_power_of_eight = undelivered.is_power_of_two() && undelivered.trailing_zeros().is_multiple_of(3);
        is_power_of_eight.then_some(Remark::FailedToBroadcast(undelivered))
    }

    /// The next round of pings to `to`; `None` where it is too early for one.
    pub(crate) fn round(&mut self, to: SocketAddr, now: Nanos) -> Option<Round> {
        let peer = self.entry(to, now);
        if now < peer.next_round_at {
            return None;
        }
        let (awaits_udp, awaits_tcp) = peer.awaits;
        let mut remark = None;
        if awaits_udp {
            peer.udp_lost = peer.udp_lost.saturating_add(1);
        }
        if (awaits_udp || awaits_tcp) && !peer.is_answered {
            peer.unanswered = peer.unanswered.saturating_add(1);
            peer.tcp_works &= peer.unanswered < UNREACHABLE_AFTER;
            let doublings = peer.unanswered / UNREACHABLE_AFTER;
            if peer.unanswered.is_multiple_of(UNREACHABLE_AFTER) && doublings.is_power_of_two() {
                remark = Some(Remark::Timeout(peer.unanswered));
            }
        }
        let udp_lost_max = if peer.identity.is_some() { UDP_LOST_MAX } else { 1 };
        let tcp = peer.is_tcp_only || peer.udp_lost >= udp_lost_max;
        let udp = !peer.is_tcp_only || now >= peer.udp_retry_at;
        if udp {
            peer.udp_retry_at = now.after(UDP_RETRY);
        }
        let spacing = if peer.identity.is_some() && peer.unanswered == 0 {
            PING_SPACING
        } else {
            (HELLO_SPACING * 2_u32.pow(peer.unanswered.min(8))).min(HELLO_SPACING_MAX)
        };
        peer.next_round_at = now.after(spacing);
        peer.awaits = (udp, tcp);
        peer.is_answered = false;
        Some(Round { udp, tcp, unanswered: peer.unanswered, remark })
    }

    /// A ping of this sequence has left.
    pub(crate) fn pinged(&mut self, sequence: u64, to: SocketAddr, via: Via, now: Nanos, wall: Duration) {
        if self.pings.len() >= PINGS_MAX {
            self.pings.pop_first();
        }
        self.pings.insert(sequence, SentPing { to, via, at: now, wall });
    }

    /// A frame of a peer has come. Answers the addresses behind which it is news who is there.
    pub(crate) fn heard(&mut self, frame: &Opened, now: Nanos) -> Vec<SocketAddr> {
        let mut news = Vec::new();
        let is_restarted = self.by_address.get(&frame.address).is_some_and(|peer| peer.identity != Some(frame.from));
        if is_restarted {
            // Also behind the other addresses that it is known by.
            let same = |peer: &Peer| peer.identity.is_some_and(|known| known.name == frame.from.name);
            for (address, peer) in self.by_address.iter_mut().filter(|(_, peer)| same(peer)) {
                peer.meet(frame.from);
                news.push(*address);
            }
        }
        let peer = self.entry(frame.address, now);
        if peer.identity != Some(frame.from) {
            peer.meet(frame.from);
            news.push(frame.address);
        }
        peer.hear(frame, now);
        news
    }

    /// A peer said which keys it takes.
    pub(crate) fn takes(&mut self, address: SocketAddr, keys: Vec<KeyId>) {
        if let Some(peer) = self.by_address.get_mut(&address) {
            peer.takes = keys;
        }
    }

    /// A pong has come: whom it is from, behind which address, and what there is to say. `None`:
    /// nobody asked.
    pub(crate) fn answered(
        &mut self,
        frame: &Opened,
        pong: &Pong,
        now: Nanos,
        wall: Duration,
    ) -> Option<(SocketAddr, bool, Option<Remark>)> {
        let ping = self.pings.remove(&pong.answers)?;
        let peer = self.entry(ping.to, now);
        let is_news = peer.identity != Some(frame.from);
        if is_news {
            peer.meet(frame.from);
        }
        peer.hear(frame, now);
        peer.takes.clone_from(&pong.takes);
        let there = pong.sent.saturating_sub(pong.received);
        peer.round_trip = Some(now.since(ping.at).saturating_sub(there));
        peer.clock_offset_ms = Some(clock_offset_ms(ping.wall, pong, wall));
        (peer.is_answered, peer.unanswered, peer.undelivered) = (true, 0, 0);
        let mut remark = None;
        match ping.via {
            Via::Udp => {
                (peer.udp_lost, peer.awaits.0) = (0, false);
                if std::mem::take(&mut peer.is_tcp_only) {
                    remark = Some(Remark::UdpAgain);
                }
            }
            Via::Tcp => {
                (peer.tcp_works, peer.awaits.1) = (true, false);
                if peer.udp_lost >= TCP_ONLY_AFTER && !peer.is_tcp_only {
                    peer.is_tcp_only = true;
                    remark = Some(Remark::TcpOnly);
                }
            }
        }
        Some((ping.to, is_news, remark))
    }

    fn entry(&mut self, address: SocketAddr, now: Nanos) -> &mut Peer {
        if self.by_address.len() >= PEERS_MAX && !self.by_address.contains_key(&address) {
            let oldest = self.by_address.iter().min_by_key(|(_, peer)| peer.used_at).map(|(address, _)| *address);
            oldest.and_then(|address| self.by_address.remove(&address));
        }
        let peer = self.by_address.entry(address).or_default();
        peer.used_at = now;
        peer
    }
}

impl Peer {
    /// Another node, or another life of it: what was learnt of the former one does not hold.
    fn meet(&mut self, identity: Identity) {
        let former = std::mem::take(self);
        *self = Self {
            identity: Some(identity),
            used_at: former.used_at,
            waiting: former.waiting,
            // The way is the same.
            is_tcp_only: former.is_tcp_only,
            udp_lost: former.udp_lost,
            tcp_works: former.tcp_works,
            udp_retry_at: former.udp_retry_at,
            next_round_at: former.next_round_at,
            awaits: former.awaits,
            is_answered: former.is_answered,
            unanswered: former.unanswered,
            undelivered: former.undelivered,
            ..Self::default()
        };
    }

    fn hear(&mut self, frame: &Opened, now: Nanos) {
        self.heard_at = Some(now);
        self.version = frame.version;
        self.speaks = frame.speaks;
        self.queued = frame.queued;
    }
}

#[cfg(test)]
mod tests;
