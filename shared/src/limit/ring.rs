//! What a node spent and holds of one limit, shared by its cores. Atomics only; no lock, and
//! no thread ever waits for another.
//!
//! A unit is taken in two steps: [`LimitRing::try_hold`] before it may be spent,
//! [`LimitRing::stamp`] when it was. `used` counts it from the first until the slot of the
//! second has expired.
//!
//! # Why no window holds more than the entitlement
//!
//! Take any interval of length W, and of all units stamped in it the one that was held last.
//! When it was held, every other one was in `used`: each was held before (by choice of the
//! last), and none had expired, for a unit stamped at `t` stays until `t + W + J` at least,
//! which is later than the interval's end, which is not earlier than the last hold. `try_hold`
//! found `used`, itself included, within the entitlement. So the interval's sum is at most
//! the entitlement at that hold. (Only [`LimitRing::charge`], for spend that already happened
//! without a hold, is outside of this.)
//!
//! # Why units do not expire early
//!
//! A cell is one atomic word: which lap of the ring it stands for, and an amount. It changes
//! only as a whole, so expiring, stamping and refunding cannot lose each other's work, and
//! each amount leaves `used` exactly once: with the exchange that takes it out of its cell.
//! A stamp that comes late, to a cell that meanwhile stands for a later lap, is added to that
//! later lap and so counts longer.
//!
//! Readings of the clock may be old when they arrive here, and two cores' readings may
//! disagree. An old reading expires less and holds less; only the time by which the expiring
//! core's clock is *ahead* of the stamping core's reading shortens what counts, and J, 250 ms,
//! is there for that among other things.
//!
//! # Leases
//!
//! An entitlement may be lent for a time: nothing is held after [`LimitRing::valid_until`],
//! whatever is free. Whoever sees a later end also sees every entitlement that was set before
//! it, so a node that comes back sets what it has left first and renews the lease then.

use crossbeam::utils::CachePadded;

use super::Window;
use super::atomic::{AtomicU64, Ordering};
use super::refused::{Refusals, Refused};
use crate::clock::Nanos;

/// The most units that a limit may allow: what a cell can hold, 2^40 − 1 (10^12).
pub const UNITS_MAX: u64 = (1 << AMOUNT_BITS) - 1;

const AMOUNT_BITS: u32 = 40;
const LAP_MASK: u64 = (1 << (64 - AMOUNT_BITS)) - 1;

/// Laps wrap (after 242 days for the shortest window). A cell is taken for a later lap only
/// when it is ahead by no more than this; otherwise it is an old one. To be wrong, a ring
/// would have to rest for nearly a whole wrap, and the control thread advances all rings.
const LAPS_AHEAD_MAX: u64 = 1 << 16;

/// One limit on one node.
pub struct LimitRing {
    window: Window,
    // Read on every decision and hardly ever written: not in a line with `used`.
    allowed: CachePadded<Allowed>,
    /// Everything held, and everything stamped whose cell was not expired yet.
    used: CachePadded<AtomicU64>,
    history: CachePadded<History>,
    refusals: CachePadded<Refusals>,
    /// Slot `s` is in cell `s % len`. Which lap a cell stands for is written in the cell.
    cells: Box<[AtomicU64]>,
}

struct Allowed {
    entitlement: AtomicU64,
    /// Nothing is held later than this, nanoseconds of the node's clock.
    valid_until: AtomicU64,
    /// What all nodes may use together; only told to clients, decides nothing.
    amount: AtomicU64,
    /// See [`LimitRing::elsewhere_at`]; decides nothing either.
    elsewhere_at: AtomicU64,
}

struct History {
    /// Cells of all earlier slots were emptied once. Only saves looking at them again.
    emptied_before: AtomicU64,
    /// The latest slot that was stamped.
    last_stamped: AtomicU64,
}

/// A ring at one moment, for metrics. The fields are read one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingSnapshot {
    /// What all nodes may use in a window.
    pub amount: u64,
    /// What this node may use in a window.
    pub entitlement: u64,
    /// Held and stamped; above the entitlement after that was lowered or overshot.
    pub used: u64,
    /// The part of `used` that is not stamped: running requests and slices of cores.
    pub held: u64,
}

impl LimitRing {
    /// An empty ring of a node that may use all of the limit, for ever. An entitlement above
    /// [`UNITS_MAX`] is cut to it.
    pub fn new(window: Window, entitlement: u64, now: Nanos) -> Self {
        let first = window.first_counted_slot(now);
        let slots = u64::from(window.slots());
        let mut cells = Vec::with_capacity(window.slots() as usize);
        for place in 0..slots {
            // The first slot from `first` on that falls on this place.
            let slot = first + (place + slots - first % slots) % slots;
            cells.push(AtomicU64::new(Cell { lap: lap(slot, slots), amount: 0 }.pack()));
        }
        Self {
            window,
            allowed: CachePadded::new(Allowed {
                entitlement: AtomicU64::new(entitlement.min(UNITS_MAX)),
                valid_until: AtomicU64::new(u64::MAX),
                amount: AtomicU64::new(entitlement.min(UNITS_MAX)),
                elsewhere_at: AtomicU64::new(u64::MAX),
            }),
            used: CachePadded::new(AtomicU64::new(0)),
            history: CachePadded::new(History {
                emptied_before: AtomicU64::new(first),
                last_stamped: AtomicU64::new(0),
            }),
            refusals: CachePadded::default(),
            cells: cells.into_boxed_slice(),
        }
    }

    /// The window that this ring was cut for.
    pub fn window(&self) -> Window {
        self.window
    }

    /// What this node may use in a window.
    pub fn entitlement(&self) -> u64 {
        self.allowed.entitlement.load(Ordering::Acquire)
    }

    /// What all nodes together may use in a window.
    pub fn amount(&self) -> u64 {
        self.allowed.amount.load(Ordering::Relaxed)
    }

    /// Sets what all nodes together may use. The entitlement stays as it is.
    pub fn set_amount(&self, amount: u64) {
        self.allowed.amount.store(amount.min(UNITS_MAX), Ordering::Relaxed);
    }

    /// When units that this node does not have can be here, from what other nodes say of theirs;
    /// `None`: not known. Only for what a refusal says.
    pub fn elsewhere_at(&self) -> Option<Nanos> {
        let at = self.allowed.elsewhere_at.load(Ordering::Relaxed);
        (at < u64::MAX).then_some(Nanos(at))
    }

    /// Sets what [`LimitRing::elsewhere_at`] answers.
    pub fn set_elsewhere_at(&self, at: Option<Nanos>) {
        self.allowed.elsewhere_at.store(at.map_or(u64::MAX, |at| at.0), Ordering::Relaxed);
    }

    /// The last instant at which anything may be held.
    pub fn valid_until(&self) -> Nanos {
        Nanos(self.allowed.valid_until.load(Ordering::Acquire))
    }

    /// Sets the last instant at which anything may be held; `Nanos(u64::MAX)` for no end. What
    /// is held and spent stays so. Meant to move on: a hold that read the former end may still
    /// succeed after this returns. To take units away at once, lower the entitlement.
    pub fn set_valid_until(&self, end: Nanos) {
        self.allowed.valid_until.store(end.0, Ordering::Release);
    }

    /// Whether the entitlement may be used at `now`. Ask before reading the entitlement: then
    /// who sees a renewed lease also sees the entitlement that was set for it.
    #[inline]
    pub fn is_valid_at(&self, now: Nanos) -> bool {
        now <= self.valid_until()
    }

    /// Held and stamped, without expiring anything first.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// What could be held now, without expiring anything first.
    pub fn free(&self) -> u64 {
        self.entitlement().saturating_sub(self.used())
    }

    /// Sets what this node may use; may be below what it uses, then nothing is admitted until
    /// it fits. When this returns, no hold above the new value can succeed any more.
    pub fn set_entitlement(&self, entitlement: u64) {
        self.allowed.entitlement.store(entitlement.min(UNITS_MAX), Ordering::Release);
        self.settle_race_with_holds();
    }

    /// Gives `amount` of the entitlement away if it is not used; false changes nothing.
    pub fn try_lower_entitlement(&self, amount: u64) -> bool {
        let entitlement = &self.allowed.entitlement;
        let lowered = entitlement.fetch_update(Ordering::AcqRel, Ordering::Acquire, |all| all.checked_sub(amount));
        let Ok(before) = lowered else { return false };
        if self.settle_race_with_holds() <= before - amount {
            return true;
        }
        // Only the control thread writes entitlements, so nothing else was set meanwhile.
        entitlement.fetch_add(amount, Ordering::AcqRel);
        false
    }

    /// A read of `used` that is a write too. A hold whose exchange comes later in the order of
    /// `used` reads from it and so sees the entitlement stored before; one that came earlier
    /// is in the value returned. There is no third case.
    fn settle_race_with_holds(&self) -> u64 {
        self.used.fetch_add(0, Ordering::AcqRel)
    }

    /// Takes `amount` out of what is free, if the entitlement is valid at `now`. Expires slots
    /// first where that is needed.
    #[must_use = "a hold that nobody stamps or releases is never free again"]
    pub fn try_hold(&self, amount: u64, now: Nanos) -> bool {
        self.is_valid_at(now) && (self.hold_if_free(amount) || (self.advance(now) && self.hold_if_free(amount)))
    }

    fn hold_if_free(&self, amount: u64) -> bool {
        let entitlement = self.entitlement();
        let held = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
            used.checked_add(amount).filter(|sum| *sum <= entitlement)
        });
        let Ok(before) = held else { return false };
        // The entitlement may have been lowered since it was read; then this hold never was.
        if before + amount > self.entitlement() {
            self.release(amount);
            return false;
        }
        true
    }

    /// Gives back what was held and not used.
    pub fn release(&self, amount: u64) {
        if amount == 0 {
            return;
        }
        let released =
            self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| Some(used.saturating_sub(amount)));
        debug_assert!(released.is_ok_and(|used| used >= amount), "released more than was used");
    }

    /// What was held is now spent, and counts until the slot of `now` has expired.
    pub fn stamp(&self, amount: u64, now: Nanos) {
        self.stamp_slot(amount, self.window.slot_of(now));
    }

    fn stamp_slot(&self, amount: u64, slot: u64) {
        if amount == 0 {
            return;
        }
        let (cell, lap) = self.place(slot);
        let mut seen = cell.load(Ordering::Acquire);
        loop {
            let before = Cell::unpack(seen);
            let outdated = before.is_behind(lap);
            // An older lap's amount has expired: its slot ended W + J before this one began.
            let (base, lap) = if outdated { (0, lap) } else { (before.amount, before.lap) };
            let after = Cell { lap, amount: (base + amount.min(UNITS_MAX)).min(UNITS_MAX) };
            match cell.compare_exchange_weak(seen, after.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let expired = if outdated { before.amount } else { 0 };
                    // More than a cell can hold (10^12 in a slot) would otherwise never leave.
                    let beyond_cell = amount - (after.amount - base);
                    self.release(expired + beyond_cell);
                    break;
                }
                Err(changed) => seen = changed,
            }
        }
        if self.history.last_stamped.load(Ordering::Relaxed) < slot {
            self.history.last_stamped.fetch_max(slot, Ordering::Relaxed);
        }
    }

    /// Counts what was spent without a hold, even above the entitlement: it did happen.
    pub fn charge(&self, amount: u64, now: Nanos) {
        self.charge_slot(amount, self.window.slot_of(now));
    }

    fn charge_slot(&self, amount: u64, slot: u64) {
        let amount = amount.min(UNITS_MAX);
        // Into `used` first: the cell's amount must be in it when another core expires it.
        self.used.fetch_add(amount, Ordering::AcqRel);
        self.stamp_slot(amount, slot);
    }

    /// A request was refused that asked for `amount`. Once for every request and limit that
    /// had no room for it. Not about requests that no entitlement could ever admit: they are
    /// counted, but nobody should gather units for them.
    #[cold]
    pub fn count_refused(&self, amount: u64) {
        self.refusals.count(if amount <= self.amount() { amount } else { 0 });
    }

    /// What was refused since the last call.
    pub fn take_refused(&self) -> Refused {
        self.refusals.take()
    }

    /// Takes back up to `amount` of what was stamped at `stamped_at`, if it still counts as
    /// stamped there; returns how much. For amounts stamped with exactly that time only.
    pub fn refund(&self, amount: u64, stamped_at: Nanos) -> u64 {
        let (cell, lap) = self.place(self.window.slot_of(stamped_at));
        let mut refunded = 0;
        // Expiring moves a cell to its next lap, so this lap's amount is untouched or gone.
        let taken = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, |seen| {
            let before = Cell::unpack(seen);
            refunded = amount.min(before.amount);
            (before.lap == lap && refunded > 0).then(|| Cell { lap, amount: before.amount - refunded }.pack())
        });
        if taken.is_err() {
            return 0;
        }
        self.release(refunded);
        refunded
    }

    /// Expires what is older than W + J; true when there were slots to look at. Any number of
    /// cores may do so at once. Costs a step a slot since the last call, at most a whole lap.
    pub fn advance(&self, now: Nanos) -> bool {
        let target = self.window.first_counted_slot(now);
        let emptied_before = self.history.emptied_before.load(Ordering::Acquire);
        if target <= emptied_before {
            return false;
        }
        let slots = u64::from(self.window.slots());
        let mut expired = 0;
        for slot in emptied_before.max(target.saturating_sub(slots))..target {
            expired += self.empty(slot);
        }
        self.release(expired);
        self.history.emptied_before.fetch_max(target, Ordering::AcqRel);
        true
    }

    /// Moves the cell of an expired slot on to its next lap and returns what was in it. Moving
    /// on, and not only clearing, is what makes a late stamp count longer.
    fn empty(&self, slot: u64) -> u64 {
        let (cell, lap) = self.place(slot);
        let next = (lap + 1) & LAP_MASK;
        let taken = cell.fetch_update(Ordering::AcqRel, Ordering::Acquire, |seen| {
            Cell::unpack(seen).is_behind(next).then(|| Cell { lap: next, amount: 0 }.pack())
        });
        taken.map_or(0, |seen| Cell::unpack(seen).amount)
    }

    /// When `amount` can be held, if no other request takes it first: `now` or later, `None`
    /// when that is not known: it is above the entitlement, or that is not valid any more.
    ///
    /// Units held by running requests have no end yet. Where stamped units do not suffice, the
    /// answer is when the held ones will have expired if they are spent now; they may come
    /// back earlier. Expires slots, then walks over the ring: for refusals, not for decisions.
    pub fn available_at(&self, amount: u64, now: Nanos) -> Option<Nanos> {
        if !self.is_valid_at(now) {
            return None;
        }
        self.advance(now);
        let entitlement = self.entitlement();
        if amount > entitlement {
            return None;
        }
        let mut missing = self.used().saturating_add(amount).saturating_sub(entitlement);
        if missing == 0 {
            return Some(now);
        }
        for (slot, stamped) in self.stamped_from(self.window.first_counted_slot(now)) {
            missing = missing.saturating_sub(stamped);
            if missing == 0 {
                return Some(self.window.expires_at(slot).max(now));
            }
        }
        Some(self.window.expires_at(self.window.slot_of(now)))
    }

    /// When all that is stamped will have expired; `now` or later. Requests that still run
    /// add to it when they end.
    pub fn empty_at(&self, now: Nanos) -> Nanos {
        let last_stamped = self.history.last_stamped.load(Ordering::Relaxed);
        if self.used() == 0 { now } else { self.window.expires_at(last_stamped).max(now) }
    }

    /// The figures for metrics; call [`LimitRing::advance`] before. Walks over the ring.
    pub fn snapshot(&self) -> RingSnapshot {
        let used = self.used();
        let amount = |cell: &AtomicU64| Cell::unpack(cell.load(Ordering::Acquire)).amount;
        let stamped: u64 = self.cells.iter().map(amount).sum();
        RingSnapshot {
            amount: self.amount(),
            entitlement: self.entitlement(),
            used,
            held: used.saturating_sub(stamped),
        }
    }

    fn place(&self, slot: u64) -> (&AtomicU64, u64) {
        let slots = self.cells.len() as u64;
        (&self.cells[(slot % slots) as usize], lap(slot, slots))
    }
}

fn lap(slot: u64, slots: u64) -> u64 {
    (slot / slots) & LAP_MASK
}

/// One word of the ring: 24 bits of lap, 40 of amount.
#[derive(Clone, Copy)]
struct Cell {
    lap: u64,
    amount: u64,
}

impl Cell {
    fn unpack(word: u64) -> Self {
        Self { lap: word >> AMOUNT_BITS, amount: word & UNITS_MAX }
    }

    fn pack(self) -> u64 {
        self.lap << AMOUNT_BITS | self.amount
    }

    fn is_behind(self, lap: u64) -> bool {
        let ahead = self.lap.wrapping_sub(lap) & LAP_MASK;
        ahead > LAPS_AHEAD_MAX
    }
}

mod stamped;

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod interleavings;
