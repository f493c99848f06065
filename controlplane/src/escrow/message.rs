//! What nodes say to each other about limits, and how it is written: postcard, one version byte
//! in front. Bytes of a peer that cannot be read are dropped whole.

use super::account::Account;
use super::ledger::Totals;
use super::roster::{Ballot, Policy, Roster};
use super::shares::LimitKey;
use serde::{Deserialize, Serialize};

/// First byte of every message.
const VERSION: u8 = 3;
/// Rows, wishes or bases in one item.
pub(super) const ROWS_MAX: usize = 1_000;
/// A message stays below a frame's 64 KiB.
const BYTES_MAX: usize = 56 * 1024;

/// Items for one peer about limits of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Letter {
    /// Whose book.
    pub policy: Policy,
    /// The sender's life.
    pub from: u64,
    /// The receiver's life, as far as it is known; 0 otherwise.
    pub to: u64,
    /// The sender's chain; 0 where it has none.
    pub chain: u64,
    /// The sender's epoch.
    pub epoch: u64,
    /// In order.
    pub items: Vec<Item>,
}

/// See [`Letter`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Item {
    /// The sender lives and asks for a grant, or to become a member where it is none.
    Beat {
        /// On the sender's clock; comes back in [`Item::Grant`].
        sent_at: u64,
        /// It could spend now.
        holds_lease: bool,
        /// It may take part in a first decision.
        may_vote: bool,
        /// It cannot have forgotten anything.
        is_new: bool,
    },
    /// The receiver may count on us for a lease from `sent_at` on.
    Grant {
        /// As in the beat.
        sent_at: u64,
    },
    /// This is the roster now.
    Decided(Roster),
    /// Asks for a promise to take no lower ballot, in order to leave these out.
    Prepare(Ballot, Vec<Account>),
    /// Promised, and what was accepted before.
    Promise(Ballot, Option<(Ballot, Roster)>),
    /// Asks to accept.
    Accept(Ballot, Roster),
    /// Accepted, and kept.
    Accepted(Ballot),
    /// A higher ballot was promised.
    Outbid(Ballot),
    /// Asks for everybody's base in this epoch, after this limit.
    AskBases(Option<LimitKey>),
    /// Bases that are not zero, in order; whether these were the last.
    Bases(Option<LimitKey>, Vec<(LimitKey, i128)>, bool),
    /// Asks for units.
    Ask(Vec<Wish>),
    /// What the sender gave the receiver in all.
    Rows(Vec<Row>),
    /// What the sender has credited of the receiver's rows.
    Seen(Vec<Row>),
}

/// A row of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    /// Of which limit.
    pub limit: LimitKey,
    /// In all, shares.
    pub totals: Totals,
}

/// What a node would like to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wish {
    /// Of which limit.
    pub limit: LimitKey,
    /// Units.
    pub units: u64,
    /// Fewer are of no use.
    pub least: u64,
    /// Units that it has left.
    pub free: u64,
    /// It had to refuse.
    pub is_refusing: bool,
}

impl Item {
    /// Belongs to the decisions, not to the transfers.
    pub(super) fn is_about_rosters(&self) -> bool {
        !matches!(self, Self::Ask(_) | Self::Rows(_) | Self::Seen(_))
    }
}

/// As few messages as the items fit into.
pub(super) fn write(letters: Vec<Letter>) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut open: Vec<u8> = Vec::new();
    for letter in letters {
        for letter in split(letter) {
            let Ok(bytes) = postcard::to_allocvec(&letter) else { continue };
            if !open.is_empty() && open.len() + bytes.len() > BYTES_MAX {
                messages.push(std::mem::take(&mut open));
            }
            if open.is_empty() {
                open.push(VERSION);
            }
            open.extend_from_slice(&bytes);
        }
    }
    if !open.is_empty() {
        messages.push(open);
    }
    messages
}

/// One item a letter where several would be too long.
fn split(letter: Letter) -> Vec<Letter> {
    let is_short = letter.items.len() <= 1 || postcard::to_allocvec(&letter).is_ok_and(|bytes| bytes.len() < BYTES_MAX);
    if is_short {
        return vec![letter];
    }
    let Letter { policy, from, to, chain, epoch, items } = letter;
    items.into_iter().map(|item| Letter { policy, from, to, chain, epoch, items: vec![item] }).collect()
}

/// `None`: not a message of this version, or damaged.
pub(super) fn read(bytes: &[u8]) -> Option<Vec<Letter>> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let mut letters = Vec::new();
    while !rest.is_empty() {
        let (letter, after) = postcard::take_from_bytes::<Letter>(rest).ok()?;
        letters.push(letter);
        rest = after;
    }
    Some(letters)
}

/// An account that wrote a letter.
pub(super) fn author(node: crate::gossip::frame::NodeName, letter: &Letter) -> Account {
    Account { node, life: letter.from }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn letter(items: Vec<Item>) -> Letter {
        Letter { policy: Policy::Reclaim, from: 1, to: 2, chain: 3, epoch: 4, items }
    }

    fn rows(count: u64) -> Item {
        let totals = Totals { free: 1 << 100, used: 1 << 90, spent: 1 << 40 };
        Item::Rows((0..count).map(|limit| Row { limit: LimitKey(u64::MAX - limit), totals }).collect())
    }

    #[test]
    fn what_was_written_is_read_again_in_order() {
        let letters = vec![
            letter(vec![Item::Grant { sent_at: 5 }, rows(3)]),
            Letter { policy: Policy::Keep, ..letter(vec![rows(1)]) },
        ];
        let messages = write(letters.clone());
        assert_eq!(messages.len(), 1);
        assert_eq!(read(&messages[0]), Some(letters));
    }

    #[test]
    fn much_is_sent_in_several_messages_that_fit() {
        let messages = write(vec![letter((0..6).map(|_| rows(ROWS_MAX as u64)).collect())]);
        assert!(messages.len() > 1);
        assert!(messages.iter().all(|message| message.len() < 64 * 1024));
        let items: usize =
            messages.iter().flat_map(|bytes| read(bytes).unwrap()).map(|letter| letter.items.len()).sum();
        assert_eq!(items, 6);
    }

    proptest! {
        #[test]
        fn damaged_bytes_are_dropped_or_read_and_nothing_else(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            read(&bytes);
        }
    }
}
