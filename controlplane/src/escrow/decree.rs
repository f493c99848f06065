//! How members decide the roster that follows: Paxos for one decision (Lamport, "Paxos Made
//! Simple", 2001). Pure; who is left out, and when that may be accepted, is the book's business.

use super::account::Account;
use super::roster::{Ballot, Roster};
use crate::gossip::frame::NodeName;
use serde::{Deserialize, Serialize};
use shared::clock::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// An attempt that came to nothing is given up after this.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// What was not answered is asked again this often.
const REPEAT: Duration = Duration::from_millis(500);

/// What a member promised and accepted about the epoch after its own. Has to be on disk before
/// anybody is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Acceptor {
    promised: Option<Ballot>,
    accepted: Option<(Ballot, Roster)>,
}

impl Acceptor {
    /// Promises to take nothing lower; the answer is what was accepted before. `Err`: a higher
    /// ballot was promised.
    pub(super) fn prepare(&mut self, ballot: Ballot) -> Result<Option<(Ballot, Roster)>, Ballot> {
        self.promise(ballot)?;
        Ok(self.accepted.clone())
    }

    /// Takes note that `ballot` is being tried.
    pub(super) fn promise(&mut self, ballot: Ballot) -> Result<(), Ballot> {
        match self.promised {
            Some(promised) if promised > ballot => Err(promised),
            _ => {
                self.promised = Some(ballot);
                Ok(())
            }
        }
    }

    /// Accepts; to be called after [`Acceptor::promise`] of the same ballot.
    pub(super) fn accept(&mut self, ballot: Ballot, roster: Roster) {
        self.accepted = Some((ballot, roster));
    }

    /// What was accepted and may be decided.
    pub(super) fn accepted(&self) -> Option<&Roster> {
        self.accepted.as_ref().map(|(_, roster)| roster)
    }

    /// The highest round that was heard of.
    pub(super) fn round(&self) -> u64 {
        self.promised.map_or(0, |ballot| ballot.round)
    }
}

/// One attempt to have a roster decided.
pub(super) struct Attempt {
    ballot: Ballot,
    began_at: Nanos,
    asked_at: Option<Nanos>,
    stage: Stage,
}

enum Stage {
    Preparing { wanted: Roster, promises: BTreeMap<NodeName, Option<(Ballot, Roster)>> },
    Accepting { roster: Roster, accepted: BTreeSet<NodeName> },
}

/// What an attempt wants to be said to all members now.
pub(super) enum Say {
    Nothing,
    /// What is wanted.
    Prepare(Roster),
    Accept(Roster),
}

impl Attempt {
    pub(super) fn new(ballot: Ballot, wanted: Roster, now: Nanos) -> Self {
        let stage = Stage::Preparing { wanted, promises: BTreeMap::new() };
        Self { ballot, began_at: now, asked_at: None, stage }
    }

    pub(super) fn ballot(&self) -> Ballot {
        self.ballot
    }

    pub(super) fn is_over(&self, now: Nanos) -> bool {
        now.since(self.began_at) >= ATTEMPT_TIMEOUT
    }

    /// A member promised. With a quorum the attempt goes on to what was accepted under the highest
    /// ballot before, or to what it wants where nothing was.
    pub(super) fn promised(&mut self, by: Account, ballot: Ballot, accepted: Option<(Ballot, Roster)>, quorum: usize) {
        let Stage::Preparing { wanted, promises } = &mut self.stage else { return };
        if ballot != self.ballot {
            return;
        }
        promises.insert(by.node, accepted);
        if promises.len() < quorum {
            return;
        }
        let earlier = promises.values().flatten().max_by_key(|(ballot, _)| *ballot);
        let roster = earlier.map_or(&*wanted, |(_, roster)| roster).clone();
        self.stage = Stage::Accepting { roster, accepted: BTreeSet::new() };
        self.asked_at = None;
    }

    /// A member accepted. With a quorum: what is decided.
    pub(super) fn accepted(&mut self, by: Account, ballot: Ballot, quorum: usize) -> Option<Roster> {
        let Stage::Accepting { roster, accepted } = &mut self.stage else { return None };
        if ballot != self.ballot {
            return None;
        }
        accepted.insert(by.node);
        (accepted.len() >= quorum).then(|| roster.clone())
    }

    /// To be said now; repeats what was not answered.
    pub(super) fn say(&mut self, now: Nanos) -> Say {
        if self.asked_at.is_some_and(|at| now.since(at) < REPEAT) {
            return Say::Nothing;
        }
        self.asked_at = Some(now);
        match &self.stage {
            Stage::Preparing { wanted, .. } => Say::Prepare(wanted.clone()),
            Stage::Accepting { roster, .. } => Say::Accept(roster.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::tests::account;
    use super::*;

    fn ballot(round: u64, by: &str) -> Ballot {
        Ballot { round, by: account(by) }
    }

    fn roster(chain: u64) -> Roster {
        let members = ["a", "b", "c"].map(account).into();
        Roster { chain, epoch: 2, members, heir: account("a"), expected: 3, gone: Vec::new() }
    }

    #[test]
    fn a_promise_holds_against_lower_ballots() {
        let mut acceptor = Acceptor::default();
        assert_eq!(acceptor.prepare(ballot(2, "b")), Ok(None));
        assert_eq!(acceptor.prepare(ballot(1, "c")), Err(ballot(2, "b")));
        assert_eq!(acceptor.prepare(ballot(2, "b")), Ok(None), "the same one may ask again");
    }

    #[test]
    fn what_may_have_been_decided_is_proposed_again() {
        let mut attempt = Attempt::new(ballot(9, "c"), roster(1), Nanos(0));
        attempt.promised(account("a"), ballot(9, "c"), Some((ballot(3, "a"), roster(2))), 2);
        attempt.promised(account("b"), ballot(9, "c"), Some((ballot(5, "b"), roster(3))), 2);
        assert!(matches!(attempt.say(Nanos(0)), Say::Accept(proposed) if proposed == roster(3)));
    }

    #[test]
    fn a_quorum_of_different_members_decides() {
        let mut attempt = Attempt::new(ballot(1, "a"), roster(1), Nanos(0));
        for _ in 0..2 {
            attempt.promised(account("a"), ballot(1, "a"), None, 2);
        }
        assert!(matches!(attempt.say(Nanos(0)), Say::Prepare(_)), "one member is not two");
        attempt.promised(account("b"), ballot(1, "a"), None, 2);
        assert_eq!(attempt.accepted(account("a"), ballot(1, "a"), 2), None);
        assert_eq!(attempt.accepted(account("b"), ballot(0, "a"), 2), None, "an answer to another attempt");
        assert_eq!(attempt.accepted(account("b"), ballot(1, "a"), 2), Some(roster(1)));
    }

    #[test]
    fn an_attempt_repeats_itself_and_ends() {
        let mut attempt = Attempt::new(ballot(1, "a"), roster(1), Nanos(0));
        assert!(matches!(attempt.say(Nanos(0)), Say::Prepare(_)));
        assert!(matches!(attempt.say(Nanos(1)), Say::Nothing));
        assert!(matches!(attempt.say(Nanos(0).after(REPEAT)), Say::Prepare(_)));
        assert!(!attempt.is_over(Nanos(0).after(REPEAT)) && attempt.is_over(Nanos(0).after(ATTEMPT_TIMEOUT)));
    }
}
