//! How long a spent unit counts. Pure arithmetic on nanoseconds, saturating everywhere.
//!
//! A window of W is cut into slots of q: W/512 up to ten minutes, W/256 above. What was spent in slot
//! `s` counts until the *whole* slot is older than W + J, so the price of slots is counting up to q too
//! long, never too short. In the worst case (everything is spent at once, as often as the limit
//! allows) W / (W + J + q) of an exact limiter's admissions remain: 0.994 for a minute.
//!
//! J covers the spread between our stamp and the instant at which the provider counts; it is
//! an absolute time, so short windows pay more for it (0.80 at one second, above 0.98 from
//! sixteen seconds on), and W/4096, by which the provider's clock may be slower than ours: a quarter of
//! a thousandth. A limit that only we count needs neither: [`Window::with_spread`].
//!
//! Slots are numbered from a whole ring before the clock's zero, so that what was spent before
//! a restart has a slot too.

use crate::clock::Nanos;

/// J: how much more or less than usual the way from our stamp to the provider's count may
/// take, plus what clock readings of two cores may differ. 250 ms.
pub const COUNTING_SPREAD_NS: u64 = 250_000_000;

/// The shortest window, one second: below it J would outweigh the window.
pub const WINDOW_MIN_NS: u64 = 1_000_000_000;

/// The longest window, 366 days.
pub const WINDOW_MAX_NS: u64 = 366 * 86_400 * 1_000_000_000;

/// The window of limits on what runs at the same time. Nothing is ever stamped there, so it
/// means nothing; they have one because a ring has one, and it is the shortest.
pub const CONCURRENT_WINDOW_NS: u64 = WINDOW_MIN_NS;

/// The longest spread. It bounds the slots of a ring, which must reach back W + J.
const SPREAD_MAX_NS: u64 = 1_000_000_000;

/// Parts of a window that providers count in. 128 would still hold the promise of half a second for a
/// minute, at the price of another 0.6 % of the limit; 512 slots are 4 KiB a limit.
const SLOTS_PER_WINDOW: u64 = 512;

/// Parts of a longer one, of which slots and spread together take less anyway.
const SLOTS_PER_LONG_WINDOW: u64 = 256;

/// From here on a window is a long one: ten minutes.
const LONG_WINDOW_NS: u64 = 600_000_000_000;

/// A window is counted longer by this part of it, since clocks drift.
const DRIFT_PARTS: u64 = 4_096;

const _: () = {
    assert!(60_000_000_000 / SLOTS_PER_WINDOW <= 500_000_000, "0.5 s at most up to a minute");
    assert!(SLOTS_PER_LONG_WINDOW >= 128, "and at least 128 slots above");
    assert!(WINDOW_MIN_NS / SLOTS_PER_WINDOW > 0, "a slot has a length");
};

/// A sliding window: its length, the spread added to it, and its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    length_ns: u64,
    spread_ns: u64,
    slot_ns: u64,
    slots: u32,
}

/// Why a window was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Shorter than [`WINDOW_MIN_NS`] or longer than [`WINDOW_MAX_NS`].
    #[error("a window of {0} ns is not between one second and 366 days")]
    Length(u64),
    /// A spread above one second.
    #[error("a counting spread of {0} ns is above one second")]
    Spread(u64),
}

impl Window {
    /// A window of `window_ns` with the usual spread, [`COUNTING_SPREAD_NS`].
    pub fn new(window_ns: u64) -> Result<Self, WindowError> {
        Self::with_spread(window_ns, COUNTING_SPREAD_NS)
    }

    /// A window with a spread of its own; 0 where nobody counts but this node.
    pub fn with_spread(window_ns: u64, spread_ns: u64) -> Result<Self, WindowError> {
        if !(WINDOW_MIN_NS..=WINDOW_MAX_NS).contains(&window_ns) {
            return Err(WindowError::Length(window_ns));
        }
        if spread_ns > SPREAD_MAX_NS {
            return Err(WindowError::Spread(spread_ns));
        }
        let slots = if window_ns > LONG_WINDOW_NS { SLOTS_PER_LONG_WINDOW } else { SLOTS_PER_WINDOW };
        let drift_ns = if spread_ns > 0 { window_ns / DRIFT_PARTS } else { 0 };
        Ok(Self::cut(window_ns, spread_ns + drift_ns, window_ns / slots))
    }

    /// For models that need a handful of slots; production windows have 256 and more.
    #[cfg(all(test, loom))]
    pub(super) fn with_slot(window_ns: u64, spread_ns: u64, slot_ns: u64) -> Self {
        Self::cut(window_ns, spread_ns, slot_ns)
    }

    /// Two slots more than W + J covers: when slot `s` opens, slot `s + 1 - slots`, whose place
    /// in the ring the next one takes, has wholly expired. So the next one may be stamped too:
    /// spend of before a restart is rounded up into it.
    fn cut(length_ns: u64, spread_ns: u64, slot_ns: u64) -> Self {
        let counted_slots = (length_ns + spread_ns).div_ceil(slot_ns);
        Self { length_ns, spread_ns, slot_ns, slots: counted_slots as u32 + 2 }
    }

    /// W, the window of the configuration.
    pub fn window_ns(&self) -> u64 {
        self.length_ns
    }

    /// J and what clocks drift, added to W before anything expires.
    pub fn spread_ns(&self) -> u64 {
        self.spread_ns
    }

    /// q, the length of a slot.
    pub fn slot_ns(&self) -> u64 {
        self.slot_ns
    }

    /// Slots that a ring needs: those that count at one instant, and the next.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// The longest time for which a unit counts after it was spent: W + J + q.
    pub fn counted_ns_max(&self) -> u64 {
        self.counted_ns() + self.slot_ns
    }

    /// The slot of an instant.
    pub fn slot_of(&self, now: Nanos) -> u64 {
        self.slot_before(now, 0)
    }

    /// The slot of the instant that was `span_ns` before `now`, also where that was before the
    /// clock's zero.
    pub fn slot_before(&self, now: Nanos, span_ns: u64) -> u64 {
        now.0.saturating_add(self.before_zero_ns()).saturating_sub(span_ns) / self.slot_ns
    }

    /// The first slot that begins `age_ns` before `now` or later, if it counts at `now`. An
    /// age of a slot's start, measured on another clock, leads to a slot that does not stop
    /// counting before it, and less than a slot after it.
    pub fn slot_begun(&self, age_ns: u64, now: Nanos) -> Option<u64> {
        let begun_ns = now.0.saturating_add(self.before_zero_ns()).checked_sub(age_ns)?;
        let slot = begun_ns.div_ceil(self.slot_ns);
        (slot >= self.first_counted_slot(now)).then_some(slot)
    }

    /// How long before `now` a slot began; zero when it has not begun.
    pub fn age_ns(&self, slot: u64, now: Nanos) -> u64 {
        now.0.saturating_add(self.before_zero_ns()).saturating_sub(slot.saturating_mul(self.slot_ns))
    }

    /// When everything spent in `slot` stops counting.
    pub fn expires_at(&self, slot: u64) -> Nanos {
        let ends_ns = slot.saturating_add(1).saturating_mul(self.slot_ns);
        Nanos(ends_ns.saturating_add(self.counted_ns()).saturating_sub(self.before_zero_ns()))
    }

    /// The oldest slot that counts at `now`; all before it have expired.
    pub fn first_counted_slot(&self, now: Nanos) -> u64 {
        // A ring is longer than what counts, so this never cuts at zero.
        now.0.saturating_add(self.before_zero_ns() - self.counted_ns()) / self.slot_ns
    }

    /// Where slot 0 begins: this long before the clock's zero.
    fn before_zero_ns(&self) -> u64 {
        u64::from(self.slots) * self.slot_ns
    }

    fn counted_ns(&self) -> u64 {
        self.length_ns + self.spread_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn slots_are_short_up_to_a_minute_and_many_above() {
        for seconds in [1, 5, 10, 59, 60] {
            assert!(Window::new(seconds * SECOND).unwrap().slot_ns() <= SECOND / 2);
        }
        for seconds in [61, 300, 3_600, 86_400, 31 * 86_400] {
            assert!(Window::new(seconds * SECOND).unwrap().slots() >= 128);
        }
    }

    #[test]
    fn nothing_outside_the_bounds_is_a_window() {
        for length in [0, 1, SECOND - 1, WINDOW_MAX_NS + 1, u64::MAX] {
            assert_eq!(Window::new(length), Err(WindowError::Length(length)));
        }
        assert_eq!(Window::with_spread(SECOND, u64::MAX), Err(WindowError::Spread(u64::MAX)));
    }

    proptest::proptest! {
        #[test]
        fn a_slot_counts_for_w_and_j_and_at_most_a_slot_more(
            window_ns in WINDOW_MIN_NS..=WINDOW_MAX_NS,
            spread_ns in 0..=SPREAD_MAX_NS,
            now_ns in 0..=u64::MAX / 4,
        ) {
            let window = Window::with_spread(window_ns, spread_ns).unwrap();
            let slot = window.slot_of(Nanos(now_ns));
            let expires_at_ns = window.expires_at(slot).0;
            assert!(window.spread_ns() >= spread_ns);
            assert!(expires_at_ns > now_ns + window_ns + window.spread_ns());
            assert!(expires_at_ns <= now_ns + window.counted_ns_max());
            assert!(window.first_counted_slot(Nanos(expires_at_ns - 1)) <= slot);
            assert_eq!(window.first_counted_slot(Nanos(expires_at_ns)), slot + 1);
        }

        #[test]
        fn a_place_in_the_ring_is_free_before_it_is_needed_again(
            window_ns in WINDOW_MIN_NS..=WINDOW_MAX_NS,
            spread_ns in 0..=SPREAD_MAX_NS,
            slot in 0..=600_u64,
        ) {
            let window = Window::with_spread(window_ns, spread_ns).unwrap();
            // Two rings after the clock's zero, so that no instant is cut at zero.
            let slot = slot + 2 * u64::from(window.slots());
            let before_reuse = slot + u64::from(window.slots()) - 1;
            let opens_ns = before_reuse * window.slot_ns() - window.before_zero_ns();
            assert!(window.expires_at(slot).0 <= opens_ns);
            assert_eq!(window.slot_of(Nanos(opens_ns)), before_reuse);
        }

        #[test]
        fn a_slot_known_by_its_age_lies_at_most_one_further_back_on_another_clock(
            window_ns in WINDOW_MIN_NS..=WINDOW_MAX_NS,
            spread_ns in 0..=SPREAD_MAX_NS,
            now_ns in 0..=u64::MAX / 4,
            other_now_ns in 0..=u64::MAX / 4,
            slots_ago in 0..600_u64,
        ) {
            let window = Window::with_spread(window_ns, spread_ns).unwrap();
            let (now, other) = (Nanos(now_ns), Nanos(other_now_ns));
            let slot = window.slot_of(now) - slots_ago.min(u64::from(window.slots()) - 2);
            let counts_for_ns = window.expires_at(slot).0.saturating_sub(now.0);
            let there = window.slot_begun(window.age_ns(slot, now), other);
            let counts_there_ns = there.map_or(0, |slot| window.expires_at(slot).0.saturating_sub(other.0));
            assert!(counts_there_ns >= counts_for_ns);
            assert!(counts_there_ns < counts_for_ns + window.slot_ns());
            assert!(there.is_none_or(|slot| slot <= window.slot_of(other) + 1));
        }
    }
}
