//! What an heir has to know before it takes over what nobody has: everybody's base in its epoch.

use super::account::Account;
use super::book::Outbox;
use super::message::Item;
use super::roster::Roster;
use super::shares::{FULL, LimitKey};
use shared::clock::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Members that did not answer are asked again this often.
const REPEAT: Duration = Duration::from_secs(1);
/// On top of the window: what clocks may differ by over it, and more.
pub(super) const MARGIN: Duration = Duration::from_secs(1);

/// Of one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Inheritance {
    /// Since when nobody who was left out can spend.
    since: Nanos,
    /// Nobody has spent anything before.
    is_first: bool,
    /// Sums of the others' bases.
    bases: BTreeMap<LimitKey, i128>,
    /// Members whose bases are all in, and the last limit that was told of the others.
    whole: BTreeSet<Account>,
    partly: BTreeMap<Account, LimitKey>,
    asked_at: Option<Nanos>,
}

impl Inheritance {
    pub(super) fn new(since: Nanos, is_first: bool) -> Self {
        let (bases, whole, partly) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { since, is_first, bases, whole, partly, asked_at: None }
    }

    pub(super) fn since(&self) -> Nanos {
        self.since
    }

    /// Bases of `from` after the limit that it was asked for. Those out of turn were told before.
    pub(super) fn told(&mut self, from: Account, after: Option<LimitKey>, rows: Vec<(LimitKey, i128)>, is_last: bool) {
        if self.whole.contains(&from) || self.partly.get(&from).copied() != after {
            return;
        }
        if let Some((last, _)) = rows.last() {
            self.partly.insert(from, *last);
        }
        for (limit, base) in rows {
            let sum = self.bases.entry(limit).or_default();
            *sum = sum.saturating_add(base);
        }
        if is_last {
            self.whole.insert(from);
        }
        // The rest at once.
        self.asked_at = None;
    }

    /// Asks those that are missing.
    pub(super) fn ask(&mut self, roster: &Roster, me: Account, now: Nanos, out: &mut Outbox) {
        if self.asked_at.is_some_and(|at| now.since(at) < REPEAT) {
            return;
        }
        let missing = roster.members.iter().filter(|member| **member != me && !self.whole.contains(member));
        out.extend(missing.map(|member| (*member, Item::AskBases(self.partly.get(member).copied()))));
        self.asked_at = Some(now);
    }

    /// What is missing to the whole; 0 as long as that is not known, or could still be spent.
    pub(super) fn due(
        &self,
        limit: LimitKey,
        base: i128,
        wait: Duration,
        roster: &Roster,
        me: Account,
        now: Nanos,
    ) -> i128 {
        let is_early = !self.is_first && now.since(self.since) <= wait + MARGIN;
        #[cfg(feature = "broken-on-purpose")]
        let is_early = is_early && !super::broken::is_broken(super::broken::Rule::HeirsWait);
        let is_known = roster.members.iter().all(|member| *member == me || self.whole.contains(member));
        if is_early || !is_known {
            return 0;
        }
        let others = self.bases.get(&limit).copied().unwrap_or(0);
        FULL.saturating_sub(base).saturating_sub(others).clamp(0, FULL)
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::tests::account;
    use super::*;

    const LIMIT: LimitKey = LimitKey(7);
    const WAIT: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Nanos {
        Nanos(0).after(Duration::from_secs(seconds))
    }

    fn roster() -> Roster {
        let members = ["a", "b", "c"].map(account).into();
        Roster { chain: 1, epoch: 2, members, heir: account("a"), expected: 3, gone: Vec::new() }
    }

    fn due(inheritance: &Inheritance, base: i128, seconds: u64) -> i128 {
        inheritance.due(LIMIT, base, WAIT, &roster(), account("a"), at(seconds))
    }

    #[test]
    fn what_is_missing_is_due_when_all_have_told_and_the_window_is_over() {
        let mut inheritance = Inheritance::new(at(0), false);
        inheritance.told(account("b"), None, vec![(LIMIT, FULL / 4)], true);
        assert_eq!(due(&inheritance, 5, 100), 0, "c is missing");
        inheritance.told(account("c"), None, vec![], true);
        assert_eq!(due(&inheritance, 5, 60), 0, "the window runs");
        assert_eq!(due(&inheritance, 5, 62), FULL - FULL / 4 - 5);
        assert_eq!(due(&inheritance, FULL - FULL / 4, 62), 0, "once");
    }

    #[test]
    fn bases_come_in_parts_and_each_counts_once() {
        let mut inheritance = Inheritance::new(at(0), true);
        inheritance.told(account("c"), None, vec![], true);
        inheritance.told(account("b"), None, vec![(LimitKey(1), 1), (LIMIT, 2)], false);
        inheritance.told(account("b"), None, vec![(LimitKey(1), 1), (LIMIT, 2)], false);
        assert_eq!(due(&inheritance, 0, 0), 0);
        inheritance.told(account("b"), Some(LIMIT), vec![(LimitKey(9), 3)], true);
        inheritance.told(account("b"), Some(LIMIT), vec![(LimitKey(9), 3)], true);
        assert_eq!(due(&inheritance, 0, 0), FULL - 2);
    }

    #[test]
    fn members_that_have_told_are_not_asked_again() {
        let mut inheritance = Inheritance::new(at(0), true);
        inheritance.told(account("b"), None, vec![], true);
        let mut out = Vec::new();
        inheritance.ask(&roster(), account("a"), at(0), &mut out);
        assert_eq!(out, [(account("c"), Item::AskBases(None))]);
        inheritance.ask(&roster(), account("a"), at(0), &mut out);
        assert_eq!(out.len(), 1, "not before a second");
    }
}
