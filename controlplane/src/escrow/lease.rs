//! The right to spend for a while, from the grants of a quorum. Gray and Cheriton, "Leases", 1989.
//!
//! Times are this node's own: a lease counts from when it was asked for, a grant from when it was
//! given, so that clocks need to agree on the length of a second only.

use super::account::Account;
use super::roster::Roster;
use shared::clock::Nanos;
use std::collections::BTreeMap;
use std::time::Duration;

/// Taken off a lease and put on a grant: what two clocks may differ by over a lease, and how old a
/// core's reading of the time may be when it admits.
const MARGIN: Duration = Duration::from_millis(250);

/// Both sides of the leases of one epoch.
pub(super) struct Leases {
    length: Duration,
    /// When the epoch was entered; as good as a grant to every member.
    entered_at: Nanos,
    given: BTreeMap<Account, Nanos>,
    got: BTreeMap<Account, Nanos>,
    until: Option<Nanos>,
}

impl Leases {
    pub(super) fn new(length: Duration, now: Nanos) -> Self {
        Self { length, entered_at: now, given: BTreeMap::new(), got: BTreeMap::new(), until: None }
    }

    /// Another epoch: earlier grants of others count no more, the lease that they made does.
    pub(super) fn enter(&mut self, now: Nanos) {
        self.entered_at = now;
        self.given.clear();
        self.got.clear();
    }

    /// Another account: what the former one had is gone.
    pub(super) fn forget(&mut self, now: Nanos) {
        *self = Self::new(self.length, now);
    }

    pub(super) fn length(&self) -> Duration {
        self.length
    }

    pub(super) fn entered_at(&self) -> Nanos {
        self.entered_at
    }

    /// `to` may count on us.
    pub(super) fn give(&mut self, to: Account, now: Nanos) {
        self.given.insert(to, now);
    }

    /// Whether everything that `to` could count on has run out.
    pub(super) fn has_run_out(&self, to: Account, now: Nanos) -> bool {
        let last = self.given.get(&to).map_or(self.entered_at, |at| (*at).max(self.entered_at));
        now.since(last) > self.length + MARGIN
    }

    /// When everything that `to` could count on has run out.
    pub(super) fn run_out_at(&self, to: Account) -> Nanos {
        let last = self.given.get(&to).map_or(self.entered_at, |at| (*at).max(self.entered_at));
        last.after(self.length).after(MARGIN)
    }

    /// A grant of `from`, asked for at `asked_at`. What this process cannot have asked for counts for
    /// nothing: a former one may have, on its own clock.
    pub(super) fn got(&mut self, from: Account, asked_at: Nanos, now: Nanos) {
        if asked_at > now {
            return;
        }
        let last = self.got.entry(from).or_insert(asked_at);
        *last = (*last).max(asked_at);
    }

    /// Until when `us` may spend. A lease is never shortened.
    pub(super) fn renew(&mut self, us: Account, roster: &Roster, grants_itself: bool, now: Nanos) {
        if !roster.members.contains(&us) {
            return;
        }
        let others = self.got.iter().filter(|(member, _)| **member != us && roster.members.contains(member));
        let mut asked: Vec<Nanos> = others.map(|(_, at)| *at).collect();
        if grants_itself {
            asked.push(now);
            self.given.insert(us, now);
        }
        asked.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(oldest) = asked.get(roster.quorum() - 1) {
            let until = oldest.after(self.length.saturating_sub(MARGIN));
            self.until = self.until.max(Some(until));
        }
    }

    /// `None`: there never was a lease.
    pub(super) fn until(&self) -> Option<Nanos> {
        self.until
    }

    pub(super) fn is_held(&self, now: Nanos) -> bool {
        self.until.is_some_and(|until| now <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::tests::account;
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Nanos {
        Nanos(0).after(Duration::from_secs(seconds))
    }

    fn roster(ids: &[&str]) -> Roster {
        let members = ids.iter().map(|id| account(id)).collect();
        Roster { chain: 1, epoch: 1, members, heir: account(ids[0]), expected: 0, gone: Vec::new() }
    }

    #[test]
    fn a_lease_counts_from_the_oldest_request_of_a_quorum() {
        let mut leases = Leases::new(LENGTH, at(0));
        let five = roster(&["a", "b", "c", "d", "e"]);
        leases.got(account("b"), at(3), at(9));
        leases.renew(account("a"), &five, true, at(9));
        assert_eq!(leases.until(), None, "two of five are no quorum");
        leases.got(account("c"), at(5), at(9));
        leases.renew(account("a"), &five, true, at(9));
        assert_eq!(leases.until(), Some(at(3).after(LENGTH.saturating_sub(MARGIN))));
        assert!(leases.is_held(at(12)) && !leases.is_held(at(13)));
    }

    #[test]
    fn who_is_no_member_counts_for_nothing() {
        let mut leases = Leases::new(LENGTH, at(0));
        leases.got(account("x"), at(1), at(1));
        leases.renew(account("a"), &roster(&["a", "b"]), true, at(1));
        assert_eq!(leases.until(), None);
        leases.got(account("b"), at(1), at(1));
        leases.renew(account("y"), &roster(&["a", "b"]), true, at(1));
        assert_eq!(leases.until(), None);
    }

    #[test]
    fn what_others_count_on_runs_out_later_than_they_think() {
        let mut leases = Leases::new(LENGTH, at(0));
        leases.give(account("b"), at(5));
        assert!(!leases.has_run_out(account("b"), at(15)));
        assert!(leases.has_run_out(account("b"), at(16)));
        assert!(leases.has_run_out(account("c"), at(11)), "never asked since the epoch began");
        leases.enter(at(16));
        assert!(!leases.has_run_out(account("b"), at(26)), "an epoch begins with a grant to all");
    }

    #[test]
    fn a_request_from_the_future_was_none_of_ours() {
        let mut leases = Leases::new(LENGTH, at(0));
        leases.got(account("b"), at(1_000), at(1));
        leases.renew(account("a"), &roster(&["a", "b"]), true, at(1));
        assert_eq!(leases.until(), None);
    }
}
