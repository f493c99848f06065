//! What is stamped on a ring, slot by slot: for the control thread, which estimates demand from
//! it and carries it over a restart. Every look walks over cells; none is for a decision.

use super::{Cell, LAP_MASK, LimitRing, lap};
use crate::clock::Nanos;

impl LimitRing {
    /// Units stamped in the last `span_ns`, in whole slots: up to a slot's worth too many.
    pub fn spent_within(&self, now: Nanos, span_ns: u64) -> u64 {
        let last = self.window().slot_of(now);
        let first = self.window().slot_before(now, span_ns).max(self.window().first_counted_slot(now));
        sum(self.stamped_from(first).take_while(|(slot, _)| *slot <= last))
    }

    /// Units that count at `now` and will not when `span_ns` have passed. Expires slots first.
    pub fn expiring_within(&self, now: Nanos, span_ns: u64) -> u64 {
        self.advance(now);
        let first = self.window().first_counted_slot(now);
        let end = self.window().first_counted_slot(Nanos(now.0.saturating_add(span_ns)));
        sum(self.stamped_from(first).take_while(|(slot, _)| *slot < end))
    }

    /// False when it is certain that `amount` finds no room until `then`: what is stamped already
    /// and counts then leaves none, whatever comes back of what is held. As the entitlement stands.
    pub fn may_have_room_at(&self, amount: u64, then: Nanos) -> bool {
        let stamped = sum(self.stamped_from(self.window().first_counted_slot(then)));
        stamped.saturating_add(amount) <= self.entitlement()
    }

    /// What is stamped and counts at `now`, oldest first: how long ago its slot began,
    /// nanoseconds, and units. At most as many entries as a ring has slots, and one.
    ///
    /// For [`LimitRing::restore`]. What is held is not in it; a request that runs when the
    /// process ends has spent what it holds.
    pub fn stamped(&self, now: Nanos) -> Vec<(u64, u64)> {
        self.stamped_from(self.window().first_counted_slot(now))
            .filter(|(_, amount)| *amount > 0)
            .map(|(slot, amount)| (self.window().age_ns(slot, now), amount))
            .collect()
    }

    /// Counts again what [`LimitRing::stamped`] told, in a new ring of the same window, even
    /// above the entitlement. Ages are as of `now`: whoever knows that time has passed since
    /// adds it. A unit does not expire earlier than it would have there, and less than a slot
    /// later. The entries may be anything: those too old to count are passed over, and
    /// amounts stop at what a slot can hold.
    pub fn restore(&self, now: Nanos, stamped: &[(u64, u64)]) {
        for (age_ns, amount) in stamped {
            if let Some(slot) = self.window().slot_begun(*age_ns, now) {
                self.charge_slot(*amount, slot);
            }
        }
    }

    /// All cells in order of their slots, from slot `first` on, with what is stamped in them.
    /// One place more than there are, for late stamps in the oldest one.
    pub(super) fn stamped_from(&self, first: u64) -> impl Iterator<Item = (u64, u64)> {
        // Stepping lap and place by hand: a division a slot would be most of the walk.
        let slots = self.cells.len() as u64;
        let (mut place, mut lap) = ((first % slots) as usize, lap(first, slots));
        (first..=first.saturating_add(slots)).map(move |slot| {
            let seen = Cell::unpack(self.cells[place].load(super::Ordering::Relaxed));
            let amount = if seen.lap == lap { seen.amount } else { 0 };
            place += 1;
            if place == self.cells.len() {
                (place, lap) = (0, (lap + 1) & LAP_MASK);
            }
            (slot, amount)
        })
    }
}

fn sum(stamped: impl Iterator<Item = (u64, u64)>) -> u64 {
    stamped.map(|(_, amount)| amount).sum()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::super::super::{UNITS_MAX, Window};
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(seconds: u64) -> Nanos {
        Nanos(seconds * SECOND)
    }

    fn ring(seconds: u64, now: Nanos) -> LimitRing {
        LimitRing::new(Window::new(seconds * SECOND).unwrap(), 1_000, now)
    }

    #[test]
    fn a_span_holds_what_was_stamped_in_it() {
        let ring = ring(60, at(100));
        for second in 100..150 {
            ring.charge(2, at(second));
        }
        assert_eq!(ring.spent_within(at(149), 0), 2);
        assert_eq!(ring.spent_within(at(149), 9 * SECOND + SECOND / 2), 20);
        assert_eq!(ring.spent_within(at(149), 10 * SECOND - 1), 22, "a slot is in it or not");
        assert_eq!(ring.spent_within(at(149), u64::MAX), 100);
        assert_eq!(ring.spent_within(at(170), 60 * SECOND), 80, "what has expired is not looked at");
        assert_eq!(ring.spent_within(at(300), u64::MAX), 0);
    }

    #[test]
    fn expiring_units_are_told_before_they_expire() {
        let ring = ring(60, at(100));
        for second in 100..150 {
            ring.charge(2, at(second));
        }
        assert_eq!(ring.expiring_within(at(150), 10 * SECOND), 0);
        assert_eq!(ring.expiring_within(at(155), 10 * SECOND), 10);
        assert_eq!(ring.expiring_within(at(165), 10 * SECOND), 20, "ten units have left already");
        assert_eq!(ring.expiring_within(at(165), u64::MAX), ring.used());
    }

    #[test]
    fn there_is_no_room_before_what_is_stamped_has_expired_whatever_is_held() {
        let ring = ring(60, at(100));
        ring.charge(900, at(110));
        assert!(ring.try_hold(100, at(110)));
        assert!(ring.may_have_room_at(100, at(111)) && !ring.may_have_room_at(101, at(170)));
        assert!(ring.may_have_room_at(1_000, at(171)) && !ring.may_have_room_at(1_001, at(171)));
    }

    #[test]
    fn a_restart_forgets_no_spend() {
        let before = ring(3_600, at(90_000));
        before.charge(400, at(90_000));
        before.charge(600, at(91_000));
        let after = ring(3_600, Nanos(5));
        after.restore(Nanos(5), &before.stamped(at(91_000)));
        assert!(!after.try_hold(1, at(2_599)), "the first began 1,000 s before and counts for 3,600");
        assert!(after.try_hold(400, at(2_630)));
        assert!(!after.try_hold(1, at(3_599)));
        assert!(after.try_hold(600, at(3_630)));
    }

    #[test]
    fn what_is_restored_may_be_anything() {
        let ring = ring(60, at(0));
        let (counted_ns, slot_ns) = (ring.window().counted_ns_max(), ring.window().slot_ns());
        ring.restore(at(0), &[(u64::MAX, 1), (counted_ns + slot_ns, 2), (0, 0)]);
        assert_eq!(ring.used(), 0, "too old, or nothing");
        ring.restore(at(0), &[(0, u64::MAX), (0, u64::MAX), (counted_ns - 1, 3)]);
        assert_eq!(ring.used(), UNITS_MAX + 3);
        ring.advance(at(200));
        assert_eq!(ring.used(), 0);
    }

    proptest! {
        /// Two clocks with nothing in common, and some time between export and restore.
        #[test]
        fn a_restored_unit_expires_no_earlier_and_at_most_a_slot_later(
            window_s in 1..100_000_u64,
            spends in proptest::collection::vec((0..2_000_u64, 1..100_u64), 1..60),
            zero_ns in 0..1_000_000 * SECOND,
            other_zero_ns in 0..1_000_000 * SECOND,
            down_ns in 0..20 * SECOND,
        ) {
            let before = ring(window_s, Nanos(zero_ns));
            let slot_ns = before.window().slot_ns();
            let mut now = Nanos(zero_ns);
            for (passed, amount) in spends {
                now = Nanos(now.0 + passed * slot_ns / 100);
                before.charge(amount, now);
            }
            let mut stamped = before.stamped(now);
            for (age_ns, _) in &mut stamped {
                *age_ns += down_ns;
            }
            let after = ring(window_s, Nanos(other_zero_ns));
            after.restore(Nanos(other_zero_ns), &stamped);
            // Nanoseconds since the restore; at ends of slots of both rings, and just before.
            let ends = stamped.iter().map(|(age_ns, _)| before.window().counted_ns_max().saturating_sub(*age_ns));
            for end in ends.flat_map(|end| [end.saturating_sub(1), end, end + slot_ns / 3, end + slot_ns]) {
                let counted = |for_longer_ns: u64| -> u64 {
                    let ends_ns = before.window().counted_ns_max() + for_longer_ns;
                    stamped.iter().filter(|(age_ns, _)| ends_ns > age_ns + end).map(|(_, amount)| amount).sum()
                };
                let there = counting_at(&after, Nanos(other_zero_ns + end));
                assert!(there >= counted(0));
                assert!(there <= counted(slot_ns));
            }
        }
    }

    /// What counts then, without expiring it: the sum over all that has not ended.
    fn counting_at(ring: &LimitRing, now: Nanos) -> u64 {
        sum(ring.stamped_from(ring.window().first_counted_slot(now)))
    }
}
