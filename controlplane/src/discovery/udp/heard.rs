//! Who was heard lately, and how much of what is heard or said is too much. Pure.

use crate::discovery::PEERS_PER_SOURCE_MAX;
use shared::clock::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Sources of which something was said.
const SAID_MAX: usize = 1_024;

/// Peers by the address of their gossip.
pub(super) struct Heard {
    at: BTreeMap<SocketAddr, Nanos>,
    silence_max: Duration,
}

impl Heard {
    pub(super) fn new(silence_max: Duration) -> Self {
        Self { at: BTreeMap::new(), silence_max }
    }

    /// Whether the list has changed.
    pub(super) fn hear(&mut self, peer: SocketAddr, now: Nanos) -> bool {
        let is_new = !self.at.contains_key(&peer);
        if is_new && self.at.len() >= PEERS_PER_SOURCE_MAX {
            return false;
        }
        self.at.insert(peer, now);
        is_new
    }

    /// Whether the list has changed.
    pub(super) fn forget(&mut self, peer: SocketAddr) -> bool {
        self.at.remove(&peer).is_some()
    }

    /// Forgets who was silent too long. Whether the list has changed.
    pub(super) fn expire(&mut self, now: Nanos) -> bool {
        let before = self.at.len();
        self.at.retain(|_, at| now.since(*at) < self.silence_max);
        self.at.len() != before
    }

    /// When the next one is forgotten, if it stays silent.
    pub(super) fn next_expiry(&self) -> Option<Nanos> {
        self.at.values().min().map(|at| at.after(self.silence_max))
    }

    pub(super) fn list(&self) -> Vec<SocketAddr> {
        self.at.keys().copied().collect()
    }
}

/// So much in a period; what is left is not carried over.
pub(super) struct Allowance {
    period: Duration,
    most: u32,
    left: u32,
    since: Nanos,
}

impl Allowance {
    pub(super) fn new(most: u32, period: Duration) -> Self {
        Self { period, most, left: most, since: Nanos(0) }
    }

    pub(super) fn take(&mut self, now: Nanos) -> bool {
        if now.since(self.since) >= self.period {
            self.left = self.most;
            self.since = now;
        }
        let is_allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_allowed
    }
}

/// What is said of senders: once each, and of ten a minute at most.
pub(super) struct Remarks {
    said: BTreeSet<(IpAddr, &'static str)>,
    allowance: Allowance,
}

impl Remarks {
    pub(super) fn new() -> Self {
        Self { said: BTreeSet::new(), allowance: Allowance::new(10, Duration::from_secs(60)) }
    }

    /// Whether this is to be said of this sender now.
    pub(super) fn is_new(&mut self, sender: IpAddr, what: &'static str, now: Nanos) -> bool {
        let is_new = !self.said.contains(&(sender, what));
        if !is_new || self.said.len() >= SAID_MAX || !self.allowance.take(now) {
            return false;
        }
        self.said.insert((sender, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Nanos {
        Nanos(0).after(Duration::from_secs(seconds))
    }

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, last], 10_101))
    }

    #[test]
    fn a_peer_leaves_the_list_when_it_was_silent_for_three_intervals() {
        let mut heard = Heard::new(Duration::from_secs(30));
        assert!(heard.hear(peer(1), at(0)));
        assert!(heard.hear(peer(2), at(5)));
        assert!(!heard.hear(peer(1), at(10)), "known");
        assert!(!heard.expire(at(34)));
        assert_eq!(heard.next_expiry(), Some(at(35)));
        assert!(heard.expire(at(35)));
        assert_eq!(heard.list(), [peer(1)]);
        assert!(heard.forget(peer(1)) && !heard.forget(peer(1)));
    }

    #[test]
    fn no_more_peers_are_kept_than_a_cluster_can_have() {
        let mut heard = Heard::new(Duration::from_secs(30));
        for port in 1..=2_000 {
            heard.hear(SocketAddr::from(([192, 0, 2, 1], port)), at(0));
        }
        assert_eq!(heard.list().len(), PEERS_PER_SOURCE_MAX);
        assert!(!heard.hear(SocketAddr::from(([192, 0, 2, 1], 1)), at(1)), "a known one stays known");
    }

    #[test]
    fn an_allowance_is_whole_again_after_its_period() {
        let mut allowance = Allowance::new(2, Duration::from_secs(1));
        let taken = [0, 0, 0, 1, 1, 1, 5].map(|second| allowance.take(at(second + 10)));
        assert_eq!(taken, [true, true, false, true, true, false, true]);
    }

    #[test]
    fn a_sender_is_remarked_on_once_and_ten_of_them_a_minute() {
        let mut remarks = Remarks::new();
        let said = (0..20).filter(|last| remarks.is_new(peer(*last).ip(), "a", at(60))).count();
        assert_eq!(said, 10);
        assert!(!remarks.is_new(peer(0).ip(), "a", at(300)));
        assert!(remarks.is_new(peer(0).ip(), "b", at(300)));
    }
}
