//! Who may vote, what is accepted, and what a book wants to be decided next.

use super::super::account::Account;
use super::super::decree::{Attempt, Say};
use super::super::message::Item;
use super::super::roster::{Ballot, Policy, Roster};
use super::{
    BEATS_PER_LEASE, Book, EAGER_BEAT, GATHER, Heard, Outbox, SETTLE, TURN, TURN_PARTS, TURNS_APART, next_life,
};
use shared::clock::Nanos;
use std::collections::BTreeSet;
use std::time::Duration;

impl Book {
    /// Whether this node may take part in a decision. One without a chain may have forgotten what
    /// it granted, and waits until that has run out.
    pub(super) fn may_vote(&self, now: Nanos) -> bool {
        match &self.roster {
            Some(roster) => self.policy == Policy::Reclaim && roster.members.contains(&self.me),
            None => self.expected > 0 && (self.is_new || self.leases.has_run_out(self.me, now)),
        }
    }

    /// Whether this account's word counts in the decision of what follows our epoch.
    pub(super) fn counts(&self, account: Account) -> bool {
        self.roster.as_ref().is_none_or(|roster| roster.members.contains(&account))
    }

    pub(super) fn quorum(&self) -> usize {
        let expected = usize::from(self.expected);
        match (&self.roster, self.policy) {
            (Some(roster), _) => roster.quorum(),
            (None, Policy::Reclaim) => expected / 2 + 1,
            (None, Policy::Keep) => expected,
        }
    }

    /// Accepts, if those that it leaves out can count on us no longer; they get no more grants.
    pub(super) fn accept(&mut self, ballot: Ballot, roster: Roster, now: Nanos) -> bool {
        self.changes.must_persist = true;
        let left_out = self.roster.iter().flat_map(|current| current.left_out_by(&roster)).collect();
        if !self.follows(&roster) || !self.doom(left_out, now) {
            return false;
        }
        self.acceptor.accept(ballot, roster);
        true
    }

    /// Somebody wants to leave these out. Whether none of them can count on us any more.
    pub(super) fn doom(&mut self, left_out: BTreeSet<Account>, now: Nanos) -> bool {
        let have_run_out = left_out.iter().all(|account| self.leases.has_run_out(*account, now));
        self.doomed = (left_out, now);
        have_run_out
    }

    /// Whether it gets no more grants, so that it can be left out: as long as somebody wants that. Who
    /// holds a lease has a quorum that hears it, whatever others may think.
    pub(super) fn is_doomed(&self, account: Account, holds_lease: bool, now: Nanos) -> bool {
        let (doomed, since) = &self.doomed;
        !holds_lease && doomed.contains(&account) && now.since(*since) <= self.leases.length() * 2
    }

    pub(super) fn follows(&self, next: &Roster) -> bool {
        let fits = match &self.roster {
            Some(current) => {
                next.chain == current.chain
                    && next.epoch == current.epoch + 1
                    && next.gone == current.gone_after(&next.members)
            }
            None => next.epoch == 1,
        };
        fits && next.is_sound()
    }

    pub(super) fn was_accepted(&mut self, by: Account, ballot: Ballot, now: Nanos, out: &mut Outbox) {
        let quorum = self.quorum();
        let Some(decided) = self.attempt.as_mut().and_then(|attempt| attempt.accepted(by, ballot, quorum)) else {
            return;
        };
        let mut told = decided.members.clone();
        told.extend(self.electorate(now));
        if self.roster.is_none() {
            self.is_first_of_all = self.heard.values().all(|heard| heard.is_new && heard.chain == 0);
        }
        told.remove(&self.me);
        out.extend(told.into_iter().map(|account| (account, Item::Decided(decided.clone()))));
        self.consider(decided, now);
    }

    /// Proposes what should follow, if it is this node's turn.
    pub(super) fn decide(&mut self, now: Nanos, out: &mut Outbox) {
        if self.attempt.as_ref().is_some_and(|attempt| attempt.is_over(now)) {
            self.attempt = None;
            self.let_others(now);
        }
        if self.attempt.is_none() {
            match self.wanted(now) {
                None => self.wanted_since = None,
                Some((wanted, turn)) => {
                    let since = *self.wanted_since.get_or_insert(now);
                    let is_turn = now.since(since) >= SETTLE + TURN * turn && now >= self.next_attempt_at;
                    if is_turn && self.may_vote(now) {
                        let ballot = Ballot { round: self.acceptor.round() + 1, by: self.me };
                        self.attempt = Some(Attempt::new(ballot, wanted, now));
                    }
                }
            }
        }
        self.pursue(now, out);
    }

    /// Somebody else tries, or everybody at once has. Two that outbid each other again and again
    /// decide nothing, so each waits for a time of its own, and for another one every time.
    pub(super) fn let_others(&mut self, now: Nanos) {
        let drawn = next_life(self.me.life ^ self.acceptor.round()) % u64::from(TURNS_APART);
        let pause = TURN + TURN / TURN_PARTS * u32::try_from(drawn).unwrap_or(0);
        self.next_attempt_at = self.next_attempt_at.max(now.after(pause));
    }

    /// Says what the attempt has to say, also to this node itself.
    pub(super) fn pursue(&mut self, now: Nanos, out: &mut Outbox) {
        let quorum = self.quorum();
        // Where this node alone is a quorum, one step does both halves.
        for _ in 0..2 {
            let me = self.me;
            let Some(attempt) = &mut self.attempt else { return };
            let ballot = attempt.ballot();
            match attempt.say(now) {
                Say::Nothing => return,
                Say::Prepare(wanted) => {
                    if let Ok(accepted) = self.acceptor.prepare(ballot) {
                        self.changes.must_persist = true;
                        attempt.promised(me, ballot, accepted, quorum);
                    }
                    let left_out: Vec<Account> =
                        self.roster.iter().flat_map(|current| current.left_out_by(&wanted)).collect();
                    out.extend(self.electorate(now).map(|account| (account, Item::Prepare(ballot, left_out.clone()))));
                }
                Say::Accept(roster) => {
                    out.extend(self.electorate(now).map(|account| (account, Item::Accept(ballot, roster.clone()))));
                    if self.acceptor.promise(ballot).is_ok() && self.accept(ballot, roster, now) {
                        self.was_accepted(me, ballot, now, out);
                    }
                }
            }
        }
    }

    /// Everybody else who has a vote.
    pub(super) fn electorate(&self, now: Nanos) -> std::vec::IntoIter<Account> {
        let me = self.me;
        let accounts: Vec<Account> = match &self.roster {
            Some(roster) => roster.members.iter().copied().filter(|account| *account != me).collect(),
            None => self.candidates(now).filter(|account| *account != me).collect(),
        };
        accounts.into_iter()
    }

    /// Nodes without a chain that may vote, this one included.
    pub(super) fn candidates(&self, now: Nanos) -> impl Iterator<Item = Account> + '_ {
        let recent = self.recent();
        let others = self
            .heard
            .iter()
            .filter(move |(_, heard)| heard.chain == 0 && heard.may_vote && now.since(heard.at) < recent)
            .map(|(account, _)| *account);
        others.chain([self.me])
    }

    pub(super) fn recent(&self) -> Duration {
        (self.leases.length() / BEATS_PER_LEASE).max(EAGER_BEAT) * 3
    }

    /// The roster that should follow, and how many others are before this node in proposing it.
    pub(super) fn wanted(&self, now: Nanos) -> Option<(Roster, u32)> {
        let Some(current) = &self.roster else { return self.wanted_first(now) };
        if self.policy == Policy::Keep || !current.members.contains(&self.me) {
            return None;
        }
        let recent = self.recent();
        let is_recent = |account: &Account| self.heard.get(account).is_some_and(|heard| now.since(heard.at) < recent);
        let stays = |account: &&Account| **account == self.me || !self.leases.has_run_out(**account, now);
        let mut members: BTreeSet<Account> = current.members.iter().filter(stays).copied().collect();
        let joins = self.heard.iter().filter(|(account, heard)| {
            // A node counts once: its former account has to be left out before, or with it.
            heard.chain == 0
                && !current.gone.contains(account)
                && now.since(heard.at) < recent
                && !members.iter().any(|member| member.node == account.node)
        });
        let joining: Vec<Account> = joins.map(|(account, _)| *account).collect();
        members.extend(joining);
        // One voice for this, or nodes of different configurations would go on for ever.
        let is_heir = current.heir == self.me;
        let expected = if is_heir && self.expected > 0 { self.expected } else { current.expected };
        let before = current.members.iter().filter(|account| **account < self.me && is_recent(account)).count();
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        // It may have been decided, so nothing else comes of an attempt; and who hears of the attempt
        // has to hear whom that leaves out, not whom we would leave out, who grant nothing any more.
        if let Some(accepted) = self.acceptor.accepted() {
            return Some((accepted.clone(), before));
        }
        if members == current.members && expected == current.expected {
            return None;
        }
        let heir = if members.contains(&current.heir) { current.heir } else { self.me };
        let gone = current.gone_after(&members);
        let next = Roster { chain: current.chain, epoch: current.epoch + 1, members, heir, expected, gone };
        next.is_sound().then_some((next, before))
    }

    /// The first roster of a new chain: once a quorum of nodes without one has met, and no other
    /// chain lives.
    pub(super) fn wanted_first(&self, now: Nanos) -> Option<(Roster, u32)> {
        let lives = |heard: &Heard| heard.chain != 0 && (heard.holds_lease || self.policy == Policy::Keep);
        if !self.may_vote(now) || self.heard.values().any(lives) {
            return None;
        }
        let members: BTreeSet<Account> = self.candidates(now).collect();
        let mut nodes: Vec<_> = members.iter().map(|account| account.node).collect();
        nodes.dedup();
        let is_gathering = members.len() < usize::from(self.expected)
            && self.wanted_since.is_none_or(|since| now.since(since) < GATHER);
        if nodes.len() < self.quorum() || nodes.len() < members.len() {
            return None;
        }
        let before = members.iter().filter(|account| **account < self.me).count();
        let turn = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(u32::from(is_gathering));
        let chain = next_life(self.me.life ^ now.0);
        Some((Roster { chain, epoch: 1, members, heir: self.me, expected: self.expected, gone: Vec::new() }, turn))
    }
}
