//! A limit that the cluster never exceeds, and no request waits for: every node holds a part of it,
//! admits from that alone, and passes on what it does not need.
//!
//! At node i, the entitlement `E` is at least what it spent in the last window and has reserved,
//! `u`; it gives away only what is free, and debits before it sends; what it gets it credits once.
//! The entitlements sum to the limit at most, hence so does what all nodes spent in any window,
//! whatever the network, the clocks' readings or the processes do.
//!
//! ```text
//! heard → rosters (book) → rows of what was given (ledger) → what is needed (demand) → entitlements
//! ```
//!
//! One [`Escrow::step`] after the other; the next one only when the state of the former is kept.
//! What a step lowers is lowered at once; what it raises or sends takes effect when the state is
//! kept, so that a node which starts again knows all that it ever gave.
//!
//! Absent: loans that come back by themselves from a node that is lost (with [`Policy::Reclaim`]
//! everything does); a store outside of the cluster that decides who mints.

mod account;
mod book;
#[cfg(feature = "broken-on-purpose")]
pub mod broken;
mod decree;
mod demand;
mod heir;
mod lease;
mod ledger;
mod message;
mod neighbours;
mod record;
mod roster;
mod shares;
mod standing;
mod trade;

pub use account::Account;
pub use record::RecordError;
pub use roster::Policy;
pub use shares::LimitKey;
pub use standing::{BookStanding, Holdings, LimitStanding, Obstacle};

pub use crate::gossip::frame::NodeName;
use book::{Book, BookRecord, BookSettings, Outbox};
use demand::Demand;
use ledger::Ledger;
use message::{Item, Letter, ROWS_MAX, author, read, write};
use serde::{Deserialize, Serialize};
use shared::clock::Nanos;
use shared::limit::LimitRing;
use shares::units;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Messages that wait for the next step, and their bytes. What does not fit comes again.
const INBOX_MAX: usize = 4_096;
const INBOX_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What an escrow is opened with.
#[derive(Clone, Debug)]
pub struct EscrowSettings {
    /// This node.
    pub node: NodeName,
    /// How long a lease lasts.
    pub lease: Duration,
    /// Nobody has spent anything before this start.
    pub is_new: bool,
    /// Drawn at random, for accounts that begin with nothing.
    pub seed: u64,
}

/// A limit as the configuration has it now.
#[derive(Clone)]
pub struct LimitTerms {
    /// Which one.
    pub key: LimitKey,
    /// What this node's cores take from.
    pub ring: Arc<LimitRing>,
    /// Units that all nodes may use in a window.
    pub amount: u64,
    /// What becomes of a lost node's part.
    pub policy: Policy,
    /// The longest time from an admission to when the provider counts it for the last time; beyond
    /// the window's own spread.
    pub hold_max: Duration,
    /// Units that an earlier process may have spent beyond what the ring knows; the rest of what it
    /// had at most.
    pub unknown_spend: u64,
    /// What others had handed over when the ring's spend was written; what came later is not in the
    /// ring. `None`: nothing is known of that, and nothing made up for.
    pub handed_before: Option<Handed>,
}

/// Spent units that other nodes handed over to an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// Of the account; another one begins anew.
    pub life: u64,
    /// In all.
    pub units: u128,
}

impl Handed {
    /// What has come since `before`.
    fn since(self, before: Self) -> u64 {
        let known = if self.life == before.life { before.units } else { 0 };
        u64::try_from(self.units.saturating_sub(known)).unwrap_or(u64::MAX)
    }
}

/// Another node, as gossip knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub node: NodeName,
    /// Gossip hears it.
    pub is_healthy: bool,
}

/// What a step asks for. First the state is kept, if it must be; then [`Escrow::kept`].
#[must_use = "a step that is not carried out loses what it gave away"]
pub struct Step {
    /// [`Escrow::state`] has to be on disk before anything of this has an effect.
    pub must_persist: bool,
    messages: Vec<(NodeName, Vec<u8>)>,
    raises: Vec<(Arc<LimitRing>, u64)>,
    /// Which configuration the raises go by, and which one holds.
    configuration: (u64, Arc<AtomicU64>),
}

struct Limit {
    terms: LimitTerms,
    demand: Demand,
    /// Since when it has had this amount.
    since: Nanos,
}

/// The book of one policy, and the ledgers that go by it.
struct Side {
    policy: Policy,
    book: Book,
    ledgers: BTreeMap<LimitKey, Ledger>,
    /// Rows that the receiver has not confirmed, and when they were sent last.
    unconfirmed: BTreeMap<(LimitKey, Account), Option<Nanos>>,
    /// Rows whose credit is to be confirmed.
    to_confirm: BTreeSet<(LimitKey, Account)>,
}

/// See the module.
pub struct Escrow {
    sides: BTreeMap<Policy, Side>,
    limits: BTreeMap<LimitKey, Limit>,
    /// Ledgers of an earlier process that were not taken up yet.
    restored: BTreeSet<(Policy, LimitKey)>,
    /// Counts configurations.
    configuration: Arc<AtomicU64>,
    inbox: Vec<(NodeName, Vec<u8>)>,
    inbox_bytes: usize,
    must_persist: bool,
    is_leaving: bool,
    is_ending: bool,
    /// Turns the order in which peers are asked.
    turn: usize,
    /// How often this node has added to a base, since it was started.
    minted: u64,
}

impl Escrow {
    /// With what an earlier process kept, or with nothing.
    pub fn open(settings: &EscrowSettings, state: Option<&[u8]>, now: Nanos) -> (Self, Result<(), RecordError>) {
        let (record, fault) = match state.map(|bytes| record::read(bytes, settings.node)) {
            None => (BTreeMap::new(), Ok(())),
            Some(Ok(record)) => (record, Ok(())),
            Some(Err(error)) => (BTreeMap::new(), Err(error)),
        };
        let mut record = record;
        let mut sides = BTreeMap::new();
        for (policy, salt) in [(Policy::Keep, 1), (Policy::Reclaim, 2)] {
            let (book, ledgers) = record.remove(&policy).unwrap_or_else(|| {
                let life = book::next_life(settings.seed ^ salt);
                let me = Account { node: settings.node, life };
                (BookRecord { me, roster: None, acceptor: decree::Acceptor::default() }, BTreeMap::new())
            });
            // Who has kept something, or something that is damaged, is not there for the first time.
            let is_new = settings.is_new && state.is_none();
            let opened = BookSettings { policy, lease: settings.lease, is_new, salt: settings.seed };
            // What was given and not confirmed is not known any more: all of it is told again.
            let rows = ledgers.iter().flat_map(|(limit, ledger)| ledger.receivers().map(|to| ((*limit, to), None)));
            let unconfirmed = rows.collect();
            let book = Book::open(&opened, book, now);
            let side = Side { policy, book, ledgers, unconfirmed, to_confirm: BTreeSet::new() };
            sides.insert(policy, side);
        }
        let restored = sides.iter().flat_map(|(policy, side): (&Policy, &Side)| {
            side.ledgers.keys().map(|key| (*policy, *key)).collect::<Vec<_>>()
        });
        let escrow = Self {
            restored: restored.collect(),
            sides,
            limits: BTreeMap::new(),
            configuration: Arc::default(),
            inbox: Vec::new(),
            inbox_bytes: 0,
            must_persist: true,
            is_leaving: false,
            is_ending: false,
            turn: 0,
            minted: 0,
        };
        (escrow, fault)
    }

    /// What has to be kept.
    pub fn state(&self) -> Vec<u8> {
        record::write(self.sides.iter().map(|(policy, side)| (*policy, side.book.record(), &side.ledgers)))
    }

    /// How many nodes there should be, as the rosters say that an earlier process kept; `None`: there
    /// are none.
    pub fn expected_before(&self) -> Option<u16> {
        self.sides.values().filter_map(|side| side.book.roster()).map(|roster| roster.expected).max()
    }

    /// How many nodes there should be; nothing is decided before that is known.
    pub fn expect(&mut self, nodes: u16) {
        for side in self.sides.values_mut() {
            side.book.expect(nodes);
        }
    }

    /// These are the limits from now on. What a node has of the others stays in its books.
    pub fn configure(&mut self, terms: Vec<LimitTerms>, now: Nanos) {
        self.configuration.fetch_add(1, Ordering::Relaxed);
        let mut before = std::mem::take(&mut self.limits);
        for terms in terms {
            let former = before.remove(&terms.key).filter(|former| former.terms.policy == terms.policy);
            let since =
                former.as_ref().filter(|former| former.terms.amount == terms.amount).map_or(now, |one| one.since);
            let demand = former.map_or_else(|| Demand::new(now), |former| former.demand);
            self.limits.insert(terms.key, Limit { terms, demand, since });
        }
        self.charge_what_is_not_known(now);
        let lowered: Vec<_> = self.limits.values().map(|limit| (&limit.terms, self.entitled(&limit.terms))).collect();
        for (terms, entitlement) in lowered {
            if entitlement < terms.ring.granted() {
                terms.ring.set_entitlement(entitlement);
            }
        }
    }

    /// An earlier process may have spent up to the moment it ended, by the amount that it went by.
    fn charge_what_is_not_known(&mut self, now: Nanos) {
        for (key, limit) in &self.limits {
            let terms = &limit.terms;
            if self.restored.remove(&(terms.policy, *key)) {
                let ledger = self.sides.get(&terms.policy).and_then(|side| side.ledgers.get(key));
                let had = ledger.map_or(0, |ledger| units(ledger.balance(), ledger.amount().max(terms.amount)));
                let rest = had.saturating_sub(terms.ring.used());
                let handed = self.handed_over(*key).unwrap_or_default();
                let handed = terms.handed_before.map_or(0, |before| handed.since(before));
                terms.ring.charge(rest.min(terms.unknown_spend.saturating_add(handed)), now);
            }
        }
    }

    /// The state could not be kept, and neither could the former one be removed: the next step has
    /// to try again before anything leaves.
    pub fn not_kept(&mut self) {
        self.must_persist = true;
    }

    /// Units that this node may use of a limit at most, as its ledger says.
    fn entitled(&self, terms: &LimitTerms) -> u64 {
        let ledger = self.sides.get(&terms.policy).and_then(|side| side.ledgers.get(&terms.key));
        ledger.map_or(0, |ledger| units(ledger.balance(), terms.amount))
    }

    /// Whether there is something to be spent of every limit that is large enough to be shared out.
    pub fn is_stocked(&self) -> bool {
        self.limits.values().all(|limit| {
            let roster = self.sides.get(&limit.terms.policy).and_then(|side| side.book.roster());
            let members = roster.map_or(1, |roster| roster.members.len().max(1)) as u64;
            limit.terms.ring.unused() > 0 || demand::rest(limit.terms.amount / members) == 0
        })
    }

    /// What others have handed over of a limit; `None` for one that is not configured.
    pub fn handed_over(&self, key: LimitKey) -> Option<Handed> {
        let side = self.sides.get(&self.limits.get(&key)?.terms.policy)?;
        let units = side.ledgers.get(&key).map_or(0, Ledger::handed);
        Some(Handed { life: side.book.me().life, units })
    }

    /// A message of another node, as it came; looked at in the next step.
    pub fn heard(&mut self, from: NodeName, bytes: Vec<u8>) {
        let inbox_bytes = self.inbox_bytes.saturating_add(bytes.len());
        if self.inbox.len() < INBOX_MAX && inbox_bytes <= INBOX_BYTES_MAX {
            self.inbox_bytes = inbox_bytes;
            self.inbox.push((from, bytes));
        }
    }

    /// From now on this node gives everything away that is free.
    pub fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// No request runs any more: in the next step this node gives away all that it has, also what is
    /// spent, which whoever gets it counts as spent.
    pub fn end(&mut self) {
        self.is_ending = true;
    }

    /// Does everything that is to be done now.
    pub fn step(&mut self, peers: &[Peer], now: Nanos) -> Step {
        let others: Vec<(NodeName, bool)> = peers.iter().map(|peer| (peer.node, peer.is_healthy)).collect();
        let mut out: BTreeMap<Policy, Outbox> = BTreeMap::new();
        self.read_inbox(now, &mut out);
        for (policy, side) in &mut self.sides {
            if self.limits.values().any(|limit| limit.terms.policy == *policy) {
                side.book.step(&others, now, out.entry(*policy).or_default());
            }
            self.must_persist |= side.follow(&self.limits, out.entry(*policy).or_default());
        }
        self.inherit(now);
        self.trade(peers, now, &mut out);
        for (policy, side) in &mut self.sides {
            let out = out.entry(*policy).or_default();
            side.repeat_rows(now, out);
            side.confirm(out);
        }
        self.renew_leases();
        self.keep_amounts(now);
        let raises = self.settle_entitlements();
        Step {
            must_persist: std::mem::take(&mut self.must_persist),
            messages: self.address(out),
            raises,
            configuration: (self.configuration.load(Ordering::Relaxed), Arc::clone(&self.configuration)),
        }
    }

    /// The state of this step is kept, or did not need to be: cores may spend what it raised, and
    /// the messages may leave.
    pub fn kept(step: Step) -> Vec<(NodeName, Vec<u8>)> {
        let (of_step, current) = step.configuration;
        // Another amount may hold by now; the next step raises to that.
        if of_step == current.load(Ordering::Relaxed) {
            for (ring, entitlement) in step.raises {
                ring.set_entitlement(entitlement);
            }
        }
        step.messages
    }

    fn read_inbox(&mut self, now: Nanos, out: &mut BTreeMap<Policy, Outbox>) {
        self.inbox_bytes = 0;
        for (from, bytes) in std::mem::take(&mut self.inbox) {
            for letter in read(&bytes).unwrap_or_default() {
                self.open_letter(from, letter, now, out);
            }
        }
    }

    fn open_letter(&mut self, from: NodeName, letter: Letter, now: Nanos, out: &mut BTreeMap<Policy, Outbox>) {
        let Some(side) = self.sides.get_mut(&letter.policy) else { return };
        let out = out.entry(letter.policy).or_default();
        let sender = author(from, &letter);
        for item in letter.items {
            // For an account that this node is not any more, or is not yet.
            if letter.to != 0 && letter.to != side.book.me().life {
                return;
            }
            if item.is_about_rosters() {
                let ledgers = &side.ledgers;
                let bases = |after| bases_after(ledgers, after);
                side.book.heard((sender, letter.chain, letter.epoch), item, &bases, now, out);
                // What follows is judged by the roster that holds now.
                self.must_persist |= side.follow(&self.limits, out);
            } else if letter.to != 0 && side.book.trades_with(sender, (letter.chain, letter.epoch)) {
                self.must_persist |= side.heard(sender, item, &mut self.limits, now, out);
            }
        }
    }

    /// Adds to the bases what this node has come to.
    fn inherit(&mut self, now: Nanos) {
        for limit in self.limits.values() {
            let terms = &limit.terms;
            let Some(side) = self.sides.get_mut(&terms.policy) else { continue };
            let base = side.ledgers.get(&terms.key).map_or(0, Ledger::base);
            let due = side.book.due(terms.key, base, wait_before_minting(side, terms), now);
            if due > 0 {
                side.ledgers.entry(terms.key).or_default().add(due);
                self.must_persist = true;
                self.minted = self.minted.saturating_add(1);
            }
        }
    }

    /// Cores refuse once a lease has ended, whatever this thread does.
    fn renew_leases(&self) {
        for limit in self.limits.values() {
            let until = match self.sides.get(&limit.terms.policy).and_then(|side| side.book.spends_until()) {
                Some(until) => until,
                None => Nanos(0),
            };
            if limit.terms.ring.valid_until() != until {
                limit.terms.ring.set_valid_until(until);
            }
        }
    }

    /// What is spent by an amount has to be counted by no lesser one, also after a restart: a larger one
    /// is kept before it has an effect, and until nothing counts that was spent by it.
    fn keep_amounts(&mut self, now: Nanos) {
        for limit in self.limits.values() {
            let terms = &limit.terms;
            let side = self.sides.get_mut(&terms.policy);
            let Some(ledger) = side.and_then(|side| side.ledgers.get_mut(&terms.key)) else { continue };
            let counts = Duration::from_nanos(terms.ring.window().counted_ns_max()).saturating_add(terms.hold_max);
            if terms.amount > ledger.amount() {
                ledger.set_amount(terms.amount);
                self.must_persist = true;
            } else if now.since(limit.since) > counts {
                ledger.set_amount(terms.amount);
            }
        }
    }

    /// Lowers at once; what is to be raised waits until the state is kept.
    fn settle_entitlements(&self) -> Vec<(Arc<LimitRing>, u64)> {
        let mut raises = Vec::new();
        for limit in self.limits.values() {
            let (entitlement, ring) = (self.entitled(&limit.terms), &limit.terms.ring);
            match entitlement.cmp(&ring.granted()) {
                std::cmp::Ordering::Less => ring.set_entitlement(entitlement),
                std::cmp::Ordering::Greater => raises.push((Arc::clone(ring), entitlement)),
                std::cmp::Ordering::Equal => {}
            }
        }
        raises
    }

    fn address(&self, out: BTreeMap<Policy, Outbox>) -> Vec<(NodeName, Vec<u8>)> {
        let mut letters: BTreeMap<NodeName, Vec<Letter>> = BTreeMap::new();
        for (policy, outbox) in out {
            let Some(side) = self.sides.get(&policy) else { continue };
            let mut items: BTreeMap<Account, Vec<Item>> = BTreeMap::new();
            for (to, item) in outbox {
                items.entry(to).or_default().push(item);
            }
            let (from, chain, epoch) = (side.book.me().life, side.book.chain(), side.book.epoch());
            for (to, items) in items {
                let letter = Letter { policy, from, to: to.life, chain, epoch, items };
                letters.entry(to.node).or_default().push(letter);
            }
        }
        letters.into_iter().flat_map(|(node, letters)| write(letters).into_iter().map(move |one| (node, one))).collect()
    }
}

/// So long after nobody can spend it any more, a lost part of a limit may still count.
fn wait_before_minting(side: &Side, terms: &LimitTerms) -> Duration {
    let window = Duration::from_nanos(terms.ring.window().counted_ns_max()).min(longest_wait(&terms.ring));
    // Where every node that there should be began with nothing, nothing of the former processes runs.
    let all_are_new = side
        .book
        .roster()
        .is_some_and(|roster| roster.epoch == 1 && roster.members.len() >= usize::from(roster.expected));
    let hold = if all_are_new { Duration::ZERO } else { terms.hold_max };
    window.saturating_add(hold)
}

/// Where nobody remembers what was spent in a long window, it is not waited for: a month would be
/// blocked. Windows up to a minute are.
fn longest_wait(ring: &LimitRing) -> Duration {
    const WAIT_MAX: Duration = Duration::from_secs(60);
    if Duration::from_nanos(ring.window().window_ns()) > WAIT_MAX { WAIT_MAX } else { Duration::MAX }
}

/// The bases that follow, and whether they are the last.
fn bases_after(ledgers: &BTreeMap<LimitKey, Ledger>, after: Option<LimitKey>) -> (Vec<(LimitKey, i128)>, bool) {
    use std::ops::Bound;
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut rows = ledgers
        .range((from, Bound::Unbounded))
        .filter(|(_, ledger)| ledger.base() != 0)
        .map(|(limit, ledger)| (*limit, ledger.base()));
    let page: Vec<_> = rows.by_ref().take(ROWS_MAX).collect();
    (page, rows.next().is_none())
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
