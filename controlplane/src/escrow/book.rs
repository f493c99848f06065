//! Which accounts count, and until when this one may spend: rosters, leases, heirs.
//!
//! # Who may mint
//!
//! Shares come into being in one way only. Of each roster, one member is the heir; when it knows
//! the base of every member in this epoch, and nobody who was left out can have spent anything in
//! a window that still runs, it adds what is missing to [`FULL`] to its own base. At the first
//! epoch all bases are zero, and the heir gets everything; later it gets what those had who were
//! left out.
//!
//! # Why no share is spent by two
//!
//! A member spends while it has a lease: grants of a quorum of its roster. A roster that leaves it
//! out needs a quorum of the same roster to accept it, and nobody accepts before its own grants to
//! those left out have run out, nor grants anything in an epoch whose successor it has accepted.
//! Two quorums have a member in common; that one's grant had run out when it accepted. So the
//! lease had ended by the decision, and the heir waits the window after it.
//!
//! With [`Policy::Keep`] there are no leases and nobody is ever left out: the first roster is
//! decided by all nodes that there should be, and each of its members mints its even part.

use super::account::Account;
use super::decree::{Acceptor, Attempt};
use super::heir::Inheritance;
use super::lease::Leases;
use super::message::Item;
use super::roster::{Policy, Roster};
use super::shares::{FULL, LimitKey};
use serde::{Deserialize, Serialize};
use shared::clock::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Beats a lease.
const BEATS_PER_LEASE: u32 = 4;
/// While there is no lease yet.
const EAGER_BEAT: Duration = Duration::from_millis(400);
/// A change of the roster has to be wanted this long, so that several become one.
const SETTLE: Duration = Duration::from_millis(800);
/// Those that could also propose it wait this much longer each, in their order.
const TURN: Duration = Duration::from_millis(1_500);
/// After an attempt that came to nothing the next one is a turn later, and up to so many parts of a
/// turn: longer than an attempt takes, so that one of several is alone.
const TURNS_APART: u32 = 16;
const TURN_PARTS: u32 = 4;
/// Nodes that meet for the first time wait so long for the rest of them.
const GATHER: Duration = Duration::from_secs(2);
/// Accounts that are remembered.
const HEARD_MAX: usize = 4_096;

/// What a book is opened with.
#[derive(Clone, Debug)]
pub(super) struct BookSettings {
    pub(super) policy: Policy,
    /// How long a lease lasts.
    pub(super) lease: Duration,
    /// Nobody has spent anything before this start.
    pub(super) is_new: bool,
    /// Another one for every process.
    pub(super) salt: u64,
}

/// What has to be on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BookRecord {
    pub(super) me: Account,
    pub(super) roster: Option<Roster>,
    pub(super) acceptor: Acceptor,
}

/// What changed, for the ledgers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// The record has to be written.
    pub(super) must_persist: bool,
    /// Another roster holds: rows of those left out belong into the base.
    pub(super) has_entered: bool,
    /// This node is another account now and has nothing.
    pub(super) has_lost_all: bool,
}

#[derive(Clone, Copy)]
struct Heard {
    at: Nanos,
    chain: u64,
    holds_lease: bool,
    may_vote: bool,
    is_new: bool,
}

/// See the module.
pub(super) struct Book {
    policy: Policy,
    is_new: bool,
    /// Nobody whom we knew at the first decision can have forgotten an earlier one.
    is_first_of_all: bool,
    /// On every time that is told, so that an answer to a former process is none to this one.
    salt: u64,
    me: Account,
    /// Nodes that there should be; 0 while that is not known.
    expected: u16,
    roster: Option<Roster>,
    acceptor: Acceptor,
    leases: Leases,
    /// Left out by a roster that somebody wants, and when we heard of it.
    doomed: (BTreeSet<Account>, Nanos),
    heard: BTreeMap<Account, Heard>,
    attempt: Option<Attempt>,
    /// Since when something should be decided.
    wanted_since: Option<Nanos>,
    next_attempt_at: Nanos,
    beat_at: Nanos,
    born_at: Nanos,
    inheritance: Option<Inheritance>,
    changes: Changes,
}

/// Items for a node, or for an account of it.
pub(super) type Outbox = Vec<(Account, Item)>;

impl Book {
    pub(super) fn open(settings: &BookSettings, record: BookRecord, now: Nanos) -> Self {
        let BookSettings { policy, lease, is_new, salt } = *settings;
        let BookRecord { me, roster, acceptor } = record;
        let mut book = Self {
            policy,
            is_new,
            is_first_of_all: false,
            salt,
            me,
            expected: roster.as_ref().map_or(0, |roster| roster.expected),
            roster,
            acceptor,
            leases: Leases::new(lease, now),
            doomed: (BTreeSet::new(), now),
            heard: BTreeMap::new(),
            attempt: None,
            wanted_since: None,
            next_attempt_at: now,
            beat_at: now,
            born_at: now,
            inheritance: None,
            changes: Changes::default(),
        };
        #[cfg(feature = "broken-on-purpose")]
        if super::broken::is_broken(super::broken::Rule::VotesAreKept) {
            book.acceptor = Acceptor::default();
            book.leases = Leases::new(lease, Nanos(0));
        }
        book.begin_inheritance(true, now);
        book
    }

    pub(super) fn record(&self) -> BookRecord {
        BookRecord { me: self.me, roster: self.roster.clone(), acceptor: self.acceptor.clone() }
    }

    pub(super) fn me(&self) -> Account {
        self.me
    }

    pub(super) fn roster(&self) -> Option<&Roster> {
        self.roster.as_ref()
    }

    pub(super) fn chain(&self) -> u64 {
        self.roster.as_ref().map_or(0, |roster| roster.chain)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.roster.as_ref().map_or(0, |roster| roster.epoch)
    }

    /// How many nodes there should be; what a roster says goes first.
    pub(super) fn expect(&mut self, nodes: u16) {
        self.expected = nodes;
    }

    /// Whether rows may go to and come from this account, in this chain and epoch. What was sent in an
    /// earlier epoch is in no base; it is sent again.
    pub(super) fn trades_with(&self, account: Account, (chain, epoch): (u64, u64)) -> bool {
        let Some(roster) = self.roster.as_ref().filter(|roster| (roster.chain, roster.epoch) == (chain, epoch)) else {
            return false;
        };
        match self.policy {
            Policy::Keep => true,
            Policy::Reclaim => roster.members.contains(&account) && roster.members.contains(&self.me),
        }
    }

    /// Until when this node may spend; `None`: not at all.
    pub(super) fn spends_until(&self) -> Option<Nanos> {
        self.roster.as_ref()?;
        match self.policy {
            Policy::Keep => Some(Nanos(u64::MAX)),
            Policy::Reclaim => self.leases.until(),
        }
    }

    /// The life that `node` was last heard under.
    pub(super) fn account_of(&self, node: crate::gossip::frame::NodeName) -> Option<Account> {
        let lives = Account { node, life: 0 }..=Account { node, life: u64::MAX };
        self.heard.range(lives).max_by_key(|(_, heard)| heard.at).map(|(account, _)| *account)
    }

    /// What changed since the last call.
    pub(super) fn changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Something that `from` said, which is in `chain` and `epoch`. `base` tells ours.
    pub(super) fn heard(
        &mut self,
        (from, chain, epoch): (Account, u64, u64),
        item: Item,
        bases: &dyn Fn(Option<LimitKey>) -> (Vec<(LimitKey, i128)>, bool),
        now: Nanos,
        out: &mut Outbox,
    ) {
        let is_same_epoch = chain == self.chain() && epoch == self.epoch();
        match item {
            Item::Beat { sent_at, holds_lease, may_vote, is_new } => {
                self.note(from, Heard { at: now, chain, holds_lease, may_vote, is_new });
                self.answer_beat(from, (chain, epoch), (sent_at, holds_lease), now, out);
            }
            Item::Grant { sent_at } if is_same_epoch => {
                self.leases.got(from, Nanos(sent_at.wrapping_sub(self.salt)), now);
            }
            Item::Decided(roster) => self.consider(roster, now),
            Item::AskBases(after) if is_same_epoch => {
                let (rows, is_last) = bases(after);
                out.push((from, Item::Bases(after, rows, is_last)));
            }
            Item::Bases(after, rows, is_last) if is_same_epoch => {
                if let Some(inheritance) = &mut self.inheritance {
                    inheritance.told(from, after, rows, is_last);
                }
            }
            // Only members decide what follows their own epoch; without a chain, everybody.
            Item::Prepare(ballot, left_out) if is_same_epoch && ballot.is_sound() && self.may_vote(now) => {
                // Better no promise than a roster that is accepted by some and never decided: who has
                // accepted one grants nothing any more.
                if !self.doom(left_out.into_iter().collect(), now) {
                    return;
                }
                let answer = match self.acceptor.prepare(ballot) {
                    Ok(accepted) => {
                        self.let_others(now);
                        Item::Promise(ballot, accepted)
                    }
                    Err(promised) => Item::Outbid(promised),
                };
                self.changes.must_persist = true;
                out.push((from, answer));
            }
            Item::Accept(ballot, roster) if is_same_epoch && ballot.is_sound() && self.may_vote(now) => {
                if let Err(promised) = self.acceptor.promise(ballot) {
                    out.push((from, Item::Outbid(promised)));
                } else if self.accept(ballot, roster, now) {
                    out.push((from, Item::Accepted(ballot)));
                }
            }
            Item::Promise(ballot, accepted) if is_same_epoch && self.counts(from) => {
                let quorum = self.quorum();
                if let Some(attempt) = &mut self.attempt {
                    attempt.promised(from, ballot, accepted, quorum);
                }
            }
            Item::Accepted(ballot) if is_same_epoch && self.counts(from) => self.was_accepted(from, ballot, now, out),
            Item::Outbid(ballot)
                if is_same_epoch
                    && ballot.is_sound()
                    && self.attempt.as_ref().is_some_and(|attempt| attempt.ballot() < ballot) =>
            {
                // Known from now on, so that the next attempt goes above it; not at once, or two could
                // outbid each other for ever.
                let _ = self.acceptor.promise(ballot);
                self.changes.must_persist = true;
                self.attempt = None;
                self.let_others(now);
            }
            _ => {}
        }
    }

    /// Everything that time brings. `others` are the nodes that gossip knows, `healthy` or not.
    pub(super) fn step(&mut self, others: &[(crate::gossip::frame::NodeName, bool)], now: Nanos, out: &mut Outbox) {
        let age_max = self.leases.length() * 2;
        self.heard.retain(|_, heard| now.since(heard.at) < age_max);
        if now >= self.beat_at && self.expected > 0 {
            let is_eager = !self.leases.is_held(now) && self.policy == Policy::Reclaim || self.roster.is_none();
            let pause = if is_eager { EAGER_BEAT } else { self.leases.length() / BEATS_PER_LEASE };
            self.beat_at = now.after(pause);
            let beat = Item::Beat {
                sent_at: now.0.wrapping_add(self.salt),
                holds_lease: self.leases.is_held(now),
                may_vote: self.may_vote(now),
                is_new: self.is_new,
            };
            out.extend(others.iter().map(|(node, _)| (Account { node: *node, life: 0 }, beat.clone())));
        }
        if let Some(roster) = &self.roster
            && self.policy == Policy::Reclaim
        {
            let is_doomed = self.is_doomed(self.me, self.leases.is_held(now), now);
            let grants_itself = self.acceptor.accepted().is_none() && !is_doomed;
            self.leases.renew(self.me, roster, grants_itself, now);
        }
        self.give_up_if_stuck(others, now);
        self.decide(now, out);
        if let (Some(inheritance), Some(roster)) = (&mut self.inheritance, &self.roster) {
            inheritance.ask(roster, self.me, now, out);
        }
    }

    /// Shares that this node has to add to its base, which is `base`, of a limit that nobody can
    /// have spent from for `wait` after it was left out.
    pub(super) fn due(&self, limit: LimitKey, base: i128, wait: Duration, now: Nanos) -> i128 {
        let Some(roster) = &self.roster else { return 0 };
        if self.policy == Policy::Keep {
            let is_early = !self.is_new && now.since(self.leases.entered_at()) <= wait;
            let even = FULL / i128::try_from(roster.members.len().max(1)).unwrap_or(1);
            let is_member = roster.members.contains(&self.me);
            return if is_member && base == 0 && !is_early { even } else { 0 };
        }
        self.inheritance.as_ref().map_or(0, |inheritance| inheritance.due(limit, base, wait, roster, self.me, now))
    }

    fn note(&mut self, from: Account, heard: Heard) {
        if self.heard.len() < HEARD_MAX || self.heard.contains_key(&from) {
            self.heard.insert(from, heard);
        }
    }

    /// A grant, or what the sender has not heard yet.
    fn answer_beat(
        &mut self,
        from: Account,
        (chain, epoch): (u64, u64),
        (sent_at, holds_lease): (u64, bool),
        now: Nanos,
        out: &mut Outbox,
    ) {
        let Some(roster) = &self.roster else { return };
        let is_behind = chain == roster.chain && epoch < roster.epoch;
        let concerns_it = roster.members.contains(&from) || roster.gone.contains(&from);
        let is_new_here = chain == 0 && (concerns_it || self.policy == Policy::Keep);
        if is_behind || is_new_here {
            out.push((from, Item::Decided(roster.clone())));
        } else if self.policy == Policy::Reclaim
            && (chain, epoch) == (roster.chain, roster.epoch)
            && roster.members.contains(&from)
            && self.acceptor.accepted().is_none()
            && !self.is_doomed(from, holds_lease, now)
        {
            self.leases.give(from, now);
            out.push((from, Item::Grant { sent_at }));
        }
    }

    /// A roster that was decided.
    fn consider(&mut self, roster: Roster, now: Nanos) {
        if !roster.is_sound() {
            return;
        }
        match &self.roster {
            Some(current) if current.chain != roster.chain || current.epoch >= roster.epoch => {}
            Some(_) => self.enter(roster, now),
            None if self.policy == Policy::Keep || roster.members.contains(&self.me) => self.enter(roster, now),
            // It was decided for accounts that are no more, and all who accepted it would decide it again
            // and again.
            None if self.acceptor.accepted() == Some(&roster) || roster.gone.contains(&self.me) => {
                self.begin_anew(now);
            }
            None => {}
        }
    }

    fn enter(&mut self, roster: Roster, now: Nanos) {
        let is_left_out = self.policy == Policy::Reclaim && !roster.members.contains(&self.me);
        if is_left_out {
            return self.begin_anew(now);
        }
        let has_closed = self.roster.as_ref().is_none_or(|current| {
            // Who missed an epoch does not know whom that one left out.
            current.left_out_by(&roster).next().is_some() || current.gone != roster.gone
        });
        let is_same_heir = self.roster.as_ref().is_some_and(|current| current.heir == roster.heir);
        self.roster = Some(roster);
        self.acceptor = Acceptor::default();
        self.attempt = None;
        self.wanted_since = None;
        self.doomed.0.clear();
        self.leases.enter(now);
        self.beat_at = now;
        self.begin_inheritance(has_closed || !is_same_heir, now);
        self.changes.must_persist = true;
        self.changes.has_entered = true;
    }

    fn begin_inheritance(&mut self, is_fresh: bool, now: Nanos) {
        let former = self.inheritance.take();
        let Some(roster) = self.roster.as_ref().filter(|roster| roster.heir == self.me) else { return };
        if self.policy == Policy::Reclaim {
            let since = former.filter(|_| !is_fresh).map_or(now, |former| former.since());
            let is_first = self.is_new && self.is_first_of_all && roster.epoch == 1;
            self.inheritance = Some(Inheritance::new(since, is_first));
        }
    }

    /// Another account, without a chain and without anything.
    fn begin_anew(&mut self, now: Nanos) {
        // Only has to differ from every life before; a step of splitmix64 does not repeat.
        self.me.life = next_life(self.me.life);
        self.roster = None;
        self.acceptor = Acceptor::default();
        self.attempt = None;
        self.wanted_since = None;
        self.doomed.0.clear();
        self.leases.forget(now);
        self.inheritance = None;
        self.is_new = false;
        self.beat_at = now;
        self.changes.must_persist = true;
        self.changes.has_lost_all = true;
    }

    /// A chain whose quorum is gone for good is left, and so is one without a lease while another
    /// chain lives.
    fn give_up_if_stuck(&mut self, others: &[(crate::gossip::frame::NodeName, bool)], now: Nanos) {
        let Some(roster) = &self.roster else { return };
        if self.policy == Policy::Keep || self.leases.is_held(now) {
            return;
        }
        let patience = self.leases.length() * 2;
        let lapsed_at = self.leases.until().unwrap_or(self.born_at).max(self.leases.entered_at());
        if now.since(lapsed_at) <= patience {
            return;
        }
        let other_lives =
            self.heard.values().any(|heard| heard.holds_lease && heard.chain != 0 && heard.chain != roster.chain);
        let is_awaited = self.heard.values().any(|heard| heard.chain == 0);
        // Members whose node has begun anew never answer again, nor do, while others wait to become
        // members, those that gossip does not know any more: they have left.
        let is_gone = |member: &&Account| {
            let lives = Account { life: 0, ..**member }..=Account { life: u64::MAX, ..**member };
            let is_another = self.heard.range(lives).any(|(account, _)| account != *member);
            let has_left = **member != self.me && !others.iter().any(|(node, _)| *node == member.node);
            (is_another || has_left && is_awaited) && !self.heard.contains_key(*member)
        };
        let left = roster.members.len() - roster.members.iter().filter(is_gone).count();
        // Too few members are here to go on, and enough nodes to begin anew; giving up is always safe.
        let recent = self.recent();
        let here = || self.heard.iter().filter(|(_, heard)| now.since(heard.at) < recent);
        let idle = here().filter(|(_, heard)| !heard.holds_lease).map(|(account, _)| account.node);
        let idle: BTreeSet<_> = idle.chain([self.me.node]).collect();
        let members = here().filter(|(account, _)| roster.members.contains(account)).count() + 1;
        let could_begin = members < roster.quorum() && idle.len() >= roster.quorum();
        if other_lives || left < roster.quorum() || could_begin {
            self.begin_anew(now);
        }
    }
}

/// One step of splitmix64 (Steele, Lea and Flood 2014); never 0.
pub(super) fn next_life(life: u64) -> u64 {
    let mut mixed = life.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)).max(1)
}

mod deciding;
mod standing;

#[cfg(test)]
mod tests;
