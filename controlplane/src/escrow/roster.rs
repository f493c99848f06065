//! Who may spend, decided one epoch after the other.

use super::account::Account;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Accounts that were left out lately, which a roster remembers.
const GONE_MAX: usize = 128;
/// The most members; a roster has to fit into one frame.
pub(super) const MEMBERS_MAX: usize = 2_048;

/// Epochs and rounds stay below; no cluster lives long enough to come near, and one more always fits.
const COUNT_MAX: u64 = 1 << 62;

/// What becomes of a lost node's part of a limit, and with it who may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Policy {
    /// Nobody else may ever spend it.
    Keep,
    /// It is a lease; the others take it over some time after it has lapsed.
    Reclaim,
}

/// The members of one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Roster {
    /// Which line of epochs; drawn by whoever proposed the first.
    pub chain: u64,
    /// From 1 on.
    pub epoch: u64,
    /// Who may hold shares.
    pub members: BTreeSet<Account>,
    /// Who takes over what nobody has.
    pub heir: Account,
    /// How many nodes there should be.
    pub expected: u16,
    /// Left out lately, oldest first. None of them may ever be a member again: what it gave and got is
    /// in the bases of some and in the rows of others.
    pub gone: Vec<Account>,
}

impl Roster {
    /// So many members have to agree: more than half of all that there should be.
    pub(super) fn quorum(&self) -> usize {
        self.members.len().max(usize::from(self.expected)) / 2 + 1
    }

    /// Members that `next` leaves out.
    pub(super) fn left_out_by<'r>(&'r self, next: &'r Self) -> impl Iterator<Item = Account> + 'r {
        self.members.difference(&next.members).copied()
    }

    /// Those gone before, and those that a roster of `members` leaves out now; the newest of them.
    pub(super) fn gone_after(&self, members: &BTreeSet<Account>) -> Vec<Account> {
        let all: Vec<Account> = self.gone.iter().chain(self.members.difference(members)).copied().collect();
        all.get(all.len().saturating_sub(GONE_MAX)..).unwrap_or_default().to_vec()
    }

    /// Whether it can be decided at all, whoever proposes it. One that is smaller than its own quorum
    /// would be the last: nobody could spend by it, and nothing could follow it.
    pub(super) fn is_sound(&self) -> bool {
        self.chain != 0
            && (1..COUNT_MAX).contains(&self.epoch)
            && self.members.contains(&self.heir)
            && (self.quorum()..=MEMBERS_MAX).contains(&self.members.len())
            && self.gone.len() <= GONE_MAX
            && !self.gone.iter().any(|account| self.members.contains(account))
            && self.members.iter().all(|member| member.life != 0)
    }
}

/// Orders the attempts to decide one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Ballot {
    /// Grows with every attempt.
    pub round: u64,
    /// Whose attempt.
    pub by: Account,
}

impl Ballot {
    /// Another one can be above it.
    pub(super) fn is_sound(self) -> bool {
        self.round < COUNT_MAX
    }
}
