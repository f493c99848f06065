//! One core's part of one limit: units held in the ring that this core may give out alone.
//!
//! With a slice in hand a decision touches one shared word, the entitlement, which hardly ever
//! changes; without one it is an exchange on the ring's `used`. A slice is at most 0.2 % of
//! the entitlement, so limits below 1,000 are taken one by one and every core can use all of
//! them. It is smaller when little is left, and goes back after 100 ms without use, at the
//! next tick when little is left, and at once when this core is refused: what one core holds
//! idle is what another core refuses.
//!
//! A slice is worth nothing once the node's lease on its entitlement has ended: units in hand
//! are not given out after [`LimitRing::valid_until`], and go back.
//!
//! While a request waits for units of the limit, they are *wanted*: the core takes none for
//! anybody else. That is seen where a slice is found to be cut for another entitlement, so that
//! a decision does not pay for it.
//!
//! What was sent is stamped on the ring in batches, by the tick or when a batch spans a slot.
//! Until then the ring counts it as held, so it is counted longer by that much, never shorter.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use shared::bounds::CORE_TICK;
use shared::clock::Nanos;
use shared::limit::LimitRing;

/// A slice is at most one part in 500 of the entitlement: 0.2 %.
const SLICES_PER_ENTITLEMENT: u64 = 500;

/// A slice is also at most this part of what is free, so that cores do not lock each other
/// out of the last units.
const SLICES_PER_REST: u64 = 16;

/// How long an unused slice stays with its core.
const IDLE: Duration = Duration::from_millis(100);

/// In the place of an entitlement; none is as large.
const CUT_FOR_NONE: u64 = u64::MAX;

/// See the module. Every unit in `free`, `unstamped` and `abandoned` is held in the ring.
pub(super) struct Slice {
    ring: Arc<LimitRing>,
    /// Length of a slot of the ring.
    slot: Duration,
    /// The largest slice, for the entitlement below; 0 or 1 when units go one by one.
    units_max: Cell<u64>,
    sized_for: Cell<u64>,
    free: Cell<u64>,
    taken_at: Cell<Nanos>,
    unstamped: Cell<u64>,
    unstamped_from: Cell<Nanos>,
    unstamped_to: Cell<Nanos>,
    /// Spent by permits that were dropped, where no time was at hand to stamp it with.
    abandoned: Cell<u64>,
    refusal: Cell<Refusal>,
    is_active: Cell<bool>,
    /// Then the slice is empty and cut for no entitlement.
    is_wanted: Cell<bool>,
}

/// The latest refusal, for a flood of equal ones: a walk over the ring costs more than the
/// decision. Good for one tick, while as much is used as then.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Refusal {
    amount: u64,
    used: u64,
    entitlement: u64,
    refused_at: Nanos,
    available_at: Option<Nanos>,
}

impl Slice {
    pub(super) fn new(ring: Arc<LimitRing>) -> Self {
        let slot = Duration::from_nanos(ring.window().slot_ns());
        let slice = Self {
            ring,
            slot,
            units_max: Cell::default(),
            sized_for: Cell::default(),
            free: Cell::default(),
            taken_at: Cell::default(),
            unstamped: Cell::default(),
            unstamped_from: Cell::default(),
            unstamped_to: Cell::default(),
            abandoned: Cell::default(),
            refusal: Cell::default(),
            is_active: Cell::default(),
            is_wanted: Cell::default(),
        };
        slice.resize(slice.ring.entitlement());
        slice
    }

    pub(super) fn ring(&self) -> &Arc<LimitRing> {
        &self.ring
    }

    /// What this core could admit now, without expiring anything first.
    pub(super) fn free(&self) -> u64 {
        self.free.get() + self.ring.free()
    }

    /// What this node has left, as far as this core sees it; some of it may have to be written
    /// down as spent before it can be admitted.
    pub(super) fn left(&self) -> u64 {
        self.free.get() + self.ring.unused()
    }

    /// Takes `amount`, from the slice or from the ring.
    #[inline]
    pub(super) fn take(&self, amount: u64, now: Nanos) -> bool {
        // The lease before the entitlement, as the ring wants it.
        if !self.ring.is_valid_at(now) {
            self.return_free();
            return false;
        }
        let entitlement = self.ring.entitlement();
        if entitlement == self.sized_for.get() {
            if let Some(rest) = self.free.get().checked_sub(amount) {
                self.free.set(rest);
                self.taken_at.set(now);
                return true;
            }
        } else if self.is_wanted.get() {
            return false;
        } else {
            self.resize(entitlement);
        }
        self.take_from_ring(amount, now)
    }

    /// The same for a request whose turn has come before: whoever waits is behind it.
    pub(super) fn take_first(&self, amount: u64, now: Nanos) -> bool {
        if self.is_wanted.get() { self.ring.try_hold(amount, now) } else { self.take(amount, now) }
    }

    fn take_from_ring(&self, amount: u64, now: Nanos) -> bool {
        let free = self.free.get();
        // `resize` may have emptied the slice or left it as it was.
        let missing = amount.saturating_sub(free);
        let slice = self.units_max.get().min(self.ring.free() / SLICES_PER_REST);
        if let Some(spare) = slice.checked_sub(missing).filter(|spare| *spare > 0)
            && self.ring.try_hold(slice, now)
        {
            self.free.set(free.saturating_sub(amount) + spare);
            self.taken_at.set(now);
            return true;
        }
        if self.ring.try_hold(missing, now) {
            self.free.set(free.saturating_sub(amount));
            self.taken_at.set(now);
            return true;
        }
        self.return_free();
        false
    }

    /// A slice was cut for another entitlement; after lowering, it may be what is too much.
    fn resize(&self, entitlement: u64) {
        self.return_free();
        self.units_max.set(entitlement / SLICES_PER_ENTITLEMENT);
        self.sized_for.set(entitlement);
    }

    /// Undoes a `take`, or returns what a request did not need.
    pub(super) fn give_back(&self, amount: u64) {
        let free = self.free.get().saturating_add(amount);
        if free <= self.units_max.get() && self.units_max.get() > 1 {
            self.free.set(free);
        } else {
            self.ring.release(amount);
        }
    }

    /// What was taken is spent at `now`.
    pub(super) fn spend(&self, amount: u64, now: Nanos) {
        if amount == 0 {
            return;
        }
        if self.unstamped.get() > 0 {
            let span = now.since(self.unstamped_from.get());
            if span >= self.slot {
                self.stamp();
            }
        }
        if self.unstamped.get() == 0 {
            self.unstamped_from.set(now);
            self.unstamped_to.set(now);
        }
        self.unstamped.set(self.unstamped.get() + amount);
        self.unstamped_to.set(self.unstamped_to.get().max(now));
    }

    /// What was taken may be spent, and the next tick is the time to say so: later than the
    /// truth, so that it counts longer.
    pub(super) fn abandon(&self, amount: u64) {
        self.abandoned.set(self.abandoned.get().saturating_add(amount));
    }

    /// Whether a request waits for units of this limit.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.get()
    }

    /// Keeps the limit's units for those who wait, or no more. False when it is so already.
    pub(super) fn set_wanted(&self, is_wanted: bool) -> bool {
        if is_wanted {
            self.return_free();
            self.units_max.set(0);
            self.sized_for.set(CUT_FOR_NONE);
        }
        self.is_wanted.replace(is_wanted) != is_wanted
    }

    /// Whether there is no room for `amount`, or others have the first claim to it.
    pub(super) fn lacks(&self, amount: u64, now: Nanos) -> bool {
        if self.is_wanted.get() || !self.ring.is_valid_at(now) {
            return true;
        }
        self.ring.advance(now);
        self.free() < amount
    }

    /// False when it is certain that there will be no room for `amount` until `then`: it is more
    /// than the `whole` limit, or all of that is this node's and still spent then.
    pub(super) fn may_come_by(&self, then: Nanos, amount: u64, whole: u64, now: Nanos) -> bool {
        let is_wholly_ours = self.ring.is_valid_at(now) && self.ring.entitlement() >= whole;
        amount <= whole && (!is_wholly_ours || self.ring.may_have_room_at(amount, then))
    }

    /// When `amount` can be had, for a refusal.
    pub(super) fn available_at(&self, amount: u64, now: Nanos) -> Option<Nanos> {
        if !self.ring.is_valid_at(now) {
            return None;
        }
        let used = self.ring.used();
        let entitlement = self.ring.entitlement();
        let last = self.refusal.get();
        let is_same = last.amount == amount
            && last.used == used
            && last.entitlement == entitlement
            && now.since(last.refused_at) < CORE_TICK
            && last.refused_at <= now;
        if is_same && last.available_at.is_none_or(|at| at > now) {
            return last.available_at;
        }
        let available_at = self.ring.available_at(amount, now);
        let refused_at = now;
        self.refusal.set(Refusal { amount, used, entitlement, refused_at, available_at });
        available_at
    }

    /// True the first time after a tick found nothing to do: the slice wants ticks again.
    pub(super) fn activate(&self) -> bool {
        !self.is_active.replace(true)
    }

    /// Stamps what was sent and returns what is idle or what others need. False when nothing is
    /// left that would need another tick.
    pub(super) fn tick(&self, now: Nanos) -> bool {
        self.stamp();
        self.ring.stamp(self.abandoned.take(), now);
        self.ring.advance(now);
        let is_idle = now.since(self.taken_at.get()) >= IDLE;
        let is_scarce = self.ring.free() < self.units_max.get().saturating_mul(SLICES_PER_REST);
        if is_idle || is_scarce {
            self.return_free();
        }
        let wants_ticks = self.free.get() > 0;
        self.is_active.set(wants_ticks);
        wants_ticks
    }

    /// Returns the slice, for a limit that left the configuration.
    pub(super) fn return_free(&self) {
        self.ring.release(self.free.take());
    }

    fn stamp(&self) {
        self.ring.stamp(self.unstamped.take(), self.unstamped_to.get());
    }
}
