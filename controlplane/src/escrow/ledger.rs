//! What one node has of one limit: a base, and rows of what it gave to and got from others.
//!
//! A row is a total that only grows, written by the giver alone. Whoever gets it credits what it
//! has grown by since it saw it last, so that loss, repetition and reordering do no harm. (Bounded
//! counters: Balegas et al., "Extending eventually consistent cloud databases for enforcing
//! numeric invariants", 2015.)

use super::account::Account;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// No honest row comes near: the whole limit four thousand million times. Sums over all members are far
/// from an overflow.
const TOTAL_MAX: u128 = 1 << 112;

/// What was given in all, shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Totals {
    /// Free to be spent by whoever gets it.
    pub free: u128,
    /// Of a giver that ends; some of it is spent in the window that runs.
    pub used: u128,
    /// Units that are: whoever gets it counts so many as spent. Not shares, for what these were
    /// worth when they were spent may differ from what they are worth to whoever gets them.
    pub spent: u128,
}

/// What a row has grown by, shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Credit {
    /// May be spent.
    pub free: i128,
    /// May be spent when `spent` is counted.
    pub used: i128,
    /// Units that have to be counted as spent first.
    pub spent: u64,
}

/// See the module. The sum of all nodes' balances, and of what is on its way, is at most
/// [`super::shares::FULL`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Ledger {
    base: i128,
    sent: BTreeMap<Account, Totals>,
    seen: BTreeMap<Account, Totals>,
    /// Units. Grows with every row of spent ones, and with nothing else.
    handed: u128,
    /// The largest amount by which something may have been spent that still counts.
    amount: u64,
}

impl Totals {
    fn sum(self) -> i128 {
        i128::try_from(self.free.saturating_add(self.used)).unwrap_or(i128::MAX)
    }

    fn is_honest(self) -> bool {
        self.free.max(self.used).max(self.spent) <= TOTAL_MAX
    }

    /// Nothing in `other` is beyond this.
    pub(super) fn covers(self, other: Self) -> bool {
        self.free >= other.free && self.used >= other.used && self.spent >= other.spent
    }
}

/// Shares, by account.
type Sums = Vec<(Account, i128)>;

impl Ledger {
    /// Shares that this node has.
    pub(super) fn balance(&self) -> i128 {
        let seen: i128 = self.seen.values().map(|totals| totals.sum()).sum();
        let sent: i128 = self.sent.values().map(|totals| totals.sum()).sum();
        self.base + seen - sent
    }

    /// What it has of its own, and of those that are no members any more.
    pub(super) fn base(&self) -> i128 {
        self.base
    }

    /// Minted, or taken over.
    pub(super) fn add(&mut self, shares: i128) {
        self.base += shares;
    }

    /// Debits; the row that has to be sent, once it is on disk.
    pub(super) fn give(&mut self, to: Account, free: i128) -> Totals {
        let row = self.sent.entry(to).or_default();
        row.free += u128::try_from(free).unwrap_or(0);
        *row
    }

    /// Debits all there is, `spent` units of which are spent; the row that has to be sent.
    pub(super) fn give_all(&mut self, to: Account, spent: u64) -> Totals {
        let balance = u128::try_from(self.balance()).unwrap_or(0);
        let row = self.sent.entry(to).or_default();
        row.used += balance;
        row.spent += u128::from(spent);
        *row
    }

    /// Credits what a row of `from` to us has grown by.
    pub(super) fn credit(&mut self, from: Account, told: Totals) -> Credit {
        if !told.is_honest() {
            return Credit::default();
        }
        let seen = self.seen.entry(from).or_default();
        let grown = |told: u128, seen: u128| i128::try_from(told.saturating_sub(seen)).unwrap_or(0);
        let spent = told.spent.saturating_sub(seen.spent);
        let credit = Credit {
            free: grown(told.free, seen.free),
            used: grown(told.used, seen.used),
            spent: u64::try_from(spent).unwrap_or(u64::MAX),
        };
        self.handed = self.handed.saturating_add(spent);
        seen.free = seen.free.max(told.free);
        seen.used = seen.used.max(told.used);
        seen.spent = seen.spent.max(told.spent);
        credit
    }

    /// The highest row of `from` that was credited.
    pub(super) fn seen(&self, from: Account) -> Totals {
        self.seen.get(&from).copied().unwrap_or_default()
    }

    /// The row to `to`.
    pub(super) fn sent(&self, to: Account) -> Totals {
        self.sent.get(&to).copied().unwrap_or_default()
    }

    /// Everybody who was ever given anything.
    pub(super) fn receivers(&self) -> impl Iterator<Item = Account> {
        self.sent.keys().copied()
    }

    /// Takes the rows of all who are no members any more into the base. The balance stays.
    pub(super) fn fold(&mut self, is_member: impl Fn(&Account) -> bool) {
        let gone = |rows: &mut BTreeMap<Account, Totals>| -> i128 {
            let sum = rows.iter().filter(|(account, _)| !is_member(account)).map(|(_, row)| row.sum()).sum();
            rows.retain(|account, _| is_member(account));
            sum
        };
        self.base += gone(&mut self.seen);
        self.base -= gone(&mut self.sent);
    }

    /// Nothing of it is worth keeping.
    pub(super) fn is_blank(&self) -> bool {
        self.base == 0 && self.sent.is_empty() && self.seen.is_empty() && self.handed == 0
    }

    /// The largest amount by which something may have been spent that still counts.
    pub(super) fn amount(&self) -> u64 {
        self.amount
    }

    /// Sets [`Ledger::amount`].
    pub(super) fn set_amount(&mut self, amount: u64) {
        self.amount = amount;
    }

    /// All spent units that others ever handed over to this account.
    pub(super) fn handed(&self) -> u128 {
        self.handed
    }

    /// Every row: what was given to whom, and what was got from whom.
    pub(super) fn rows(&self) -> (Sums, Sums) {
        let sums = |rows: &BTreeMap<Account, Totals>| rows.iter().map(|(account, row)| (*account, row.sum())).collect();
        (sums(&self.sent), sums(&self.seen))
    }

    /// Shares borrowed from and lent to the others, as far as rows are kept.
    pub(super) fn flows(&self) -> (i128, i128) {
        (self.seen.values().map(|row| row.sum()).sum(), self.sent.values().map(|row| row.sum()).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::tests::account;
    use super::*;

    #[test]
    fn a_row_is_credited_once_whatever_the_network_does() {
        let (a, b) = (account("a"), account("b"));
        let (mut giver, mut taker) = (Ledger::default(), Ledger::default());
        giver.add(100);
        let first = giver.give(b, 10);
        let second = giver.give(b, 5);
        let last = giver.give_all(b, 3);
        for row in [second, first, last, second, last, first] {
            taker.credit(a, row);
        }
        assert_eq!((giver.balance(), taker.balance(), taker.handed()), (0, 100, 3));
    }

    #[test]
    fn what_is_spent_is_told_from_what_is_free() {
        let mut taker = Ledger::default();
        let told = |free| Totals { free, used: 4, spent: 9 };
        assert_eq!(taker.credit(account("a"), told(3)), Credit { free: 3, used: 4, spent: 9 });
        assert_eq!(taker.credit(account("a"), told(5)), Credit { free: 2, used: 0, spent: 0 });
        assert_eq!(taker.handed(), 9);
        taker.fold(|_| false);
        assert_eq!(taker.handed(), 9, "whoever is gone has handed it over all the same");
    }

    #[test]
    fn folding_keeps_the_balance_and_forgets_who_is_gone() {
        let (b, c) = (account("b"), account("c"));
        let mut ledger = Ledger::default();
        ledger.add(10);
        ledger.credit(b, Totals { free: 7, ..Totals::default() });
        ledger.credit(c, Totals { free: 1, ..Totals::default() });
        ledger.give(b, 4);
        ledger.give(c, 2);
        ledger.fold(|account| *account == c);
        assert_eq!((ledger.base(), ledger.balance()), (13, 12));
        assert_eq!(ledger.receivers().collect::<Vec<_>>(), [c]);
    }

    #[test]
    fn a_row_beyond_all_reason_is_not_credited() {
        let mut ledger = Ledger::default();
        let honest = Totals::default();
        for row in [Totals { free: u128::MAX, ..honest }, Totals { spent: u128::MAX, used: 1, ..honest }] {
            assert_eq!(ledger.credit(account("a"), row), Credit::default());
        }
        assert_eq!((ledger.balance(), ledger.handed()), (0, 0));
    }
}
