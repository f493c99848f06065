//! How far ahead of what is written a node may spend. Pure.

use shared::clock::Nanos;
use shared::limit::{Unit, Window};
use std::collections::VecDeque;
use std::time::Duration;

/// With nothing going on, one part in so many of a limit: what a crash costs.
const IDLE_PARTS: u64 = 50;
/// At most, one part in so many, and twice the largest request.
const BUSY_PARTS: u64 = 20;
/// Never less than some requests, of some length.
const REQUESTS_MIN: u64 = 4;
const TOKENS_MIN: u64 = 8_192;
/// What was spent in this time may come again before the next look.
const RECENT: Duration = Duration::from_secs(4);
/// The control thread may be late by so much before what expires meanwhile is spent again.
const LATE: Duration = Duration::from_secs(1);

/// Of a limit that nothing is written about: known to every process without a record.
pub(super) fn idle(amount: u64, unit: Unit) -> u64 {
    let least = if unit == Unit::Tokens { TOKENS_MIN } else { REQUESTS_MIN };
    (amount / IDLE_PARTS).max(least).min(amount)
}

/// What goes on with a limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    used: u64,
    /// Fades with [`RECENT`].
    recent: u64,
    largest: u64,
    looked_at: Nanos,
}

impl Pace {
    /// `used` of a ring now, and the most that was asked for and refused.
    pub(super) fn look(&mut self, used: u64, largest: u64, now: Nanos) {
        let recent_ms = RECENT.as_millis();
        let rest_ms = recent_ms.saturating_sub(now.since(self.looked_at).as_millis());
        let faded = u128::from(self.recent) * rest_ms / recent_ms;
        self.recent = u64::try_from(faded).unwrap_or(u64::MAX).saturating_add(used.saturating_sub(self.used));
        self.largest = self.largest.max(largest);
        (self.used, self.looked_at) = (used, now);
    }

    /// How far ahead this limit may be.
    pub(super) fn headroom(&self, amount: u64, unit: Unit) -> u64 {
        let busy = self.recent.min(amount / BUSY_PARTS).max(self.largest.saturating_mul(2));
        idle(amount, unit).max(busy).min(amount)
    }
}

/// What a record lets a node use, for as long as it is the one on disk.
///
/// A process that comes after it counts what is written, as far as it still counts then, and
/// `headroom`. So that the former spends no more than that beyond what is written, it stays below
/// [`Bound::at`] at every instant: what expires of what is written makes no room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bound {
    /// When what is written ends to count, soonest first, and how much it is.
    written: VecDeque<(Nanos, u64)>,
    sum: u64,
    headroom: u64,
}

impl Bound {
    /// Of a record of `cells` (age in nanoseconds at `now`, and amount; oldest first).
    pub(super) fn new(cells: &[(u64, u64)], headroom: u64, window: Window, now: Nanos) -> Self {
        let ends = |age_ns: u64| Nanos(now.0.saturating_add(window.counted_ns_max()).saturating_sub(age_ns));
        let written: VecDeque<_> = cells.iter().map(|(age_ns, amount)| (ends(*age_ns), *amount)).collect();
        let sum = written.iter().fold(0, |sum: u64, (_, amount)| sum.saturating_add(*amount));
        Self { written, sum, headroom }
    }

    /// What may be in use from `now` until the next look.
    pub(super) fn at(&mut self, now: Nanos) -> u64 {
        let until = now.after(LATE);
        while let Some((_, amount)) = self.written.pop_front_if(|(ends, _)| *ends <= until) {
            self.sum = self.sum.saturating_sub(amount);
        }
        self.sum.saturating_add(self.headroom)
    }

    /// What is written and counts, as of the last look.
    pub(super) fn written(&self) -> u64 {
        self.sum
    }

    pub(super) fn headroom(&self) -> u64 {
        self.headroom
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shared::limit::LimitRing;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_limit_at_rest_is_a_fiftieth_ahead_and_a_busy_one_a_twentieth() {
        assert_eq!(idle(10_000, Unit::Requests), 200);
        let mut pace = Pace::default();
        assert_eq!(pace.headroom(10_000, Unit::Requests), 200);
        pace.look(300, 0, Nanos(SECOND));
        assert_eq!(pace.headroom(10_000, Unit::Requests), 300);
        pace.look(5_000, 0, Nanos(SECOND));
        assert_eq!(pace.headroom(10_000, Unit::Requests), 500);
        pace.look(5_000, 0, Nanos(9 * SECOND));
        assert_eq!(pace.headroom(10_000, Unit::Requests), 200);
    }

    #[test]
    fn a_large_request_gets_its_room_as_far_as_the_limit_has_it() {
        let mut pace = Pace::default();
        assert_eq!(pace.headroom(100_000, Unit::Tokens), TOKENS_MIN);
        pace.look(0, 30_000, Nanos(0));
        assert_eq!(pace.headroom(100_000, Unit::Tokens), 60_000);
        assert_eq!(pace.headroom(40_000, Unit::Tokens), 40_000);
        assert_eq!(idle(3, Unit::Requests), 3);
    }

    #[test]
    fn what_expires_of_what_is_written_makes_no_room() {
        let window = Window::new(3_600 * SECOND).unwrap();
        let mut bound = Bound::new(&[(3_000 * SECOND, 50), (0, 7)], 10, window, Nanos(0));
        assert_eq!(bound.at(Nanos(0)), 67);
        assert_eq!(bound.at(Nanos(599 * SECOND)), 67);
        assert_eq!(bound.at(Nanos(700 * SECOND)), 17);
        assert_eq!(bound.at(Nanos(4_000 * SECOND)), 10);
    }

    /// What one process after the other does.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        Spend(u64),
        /// So many slots pass, and a look is taken.
        Pass(u64),
        /// A record is begun.
        Begin,
        /// The one that was begun is there.
        End,
        /// The process is killed, and another one starts after so many slots.
        Crash(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            6 => (1..40_u64).prop_map(Act::Spend),
            4 => (0..30_u64).prop_map(Act::Pass),
            2 => Just(Act::Begin),
            3 => Just(Act::End),
            1 => (0..90_u64).prop_map(Act::Crash),
        ]
    }

    type Cells = Vec<(u64, u64)>;

    /// What is on disk, when it was written there, and what it lets its process use.
    struct Disk {
        cells: Cells,
        headroom: u64,
        at: Nanos,
    }

    proptest! {
        /// Killed at any moment, as often as one likes: no window holds more than the limit.
        #[test]
        fn a_crash_at_any_moment_lets_no_window_exceed(acts in prop::collection::vec(act(), 1..120)) {
            const AMOUNT: u64 = 200;
            let window = Window::new(256 * SECOND).unwrap();
            let mut now = Nanos(1_000_000 * SECOND);
            let mut spent: Vec<(Nanos, u64)> = Vec::new();
            let mut ring = LimitRing::new(window, AMOUNT, now);
            let mut pace = Pace::default();
            let begin = |ring: &LimitRing, pace: &Pace, now: Nanos| {
                let cells = super::super::record::coarse(&ring.stamped(now));
                let headroom = pace.headroom(AMOUNT, Unit::Requests);
                (Bound::new(&cells, headroom, window, now), Disk { cells, headroom, at: now })
            };
            let (mut bound, mut disk) = begin(&ring, &pace, now);
            let mut in_flight: Option<(Bound, Disk)> = None;
            let cap = |ring: &LimitRing, bound: &mut Bound, in_flight: &mut Option<(Bound, Disk)>, now: Nanos| {
                let other = in_flight.as_mut().map_or(u64::MAX, |(bound, _)| bound.at(now));
                ring.set_cap(bound.at(now).min(other));
            };
            cap(&ring, &mut bound, &mut in_flight, now);
            for act in acts {
                match act {
                    Act::Spend(amount) => {
                        if ring.try_hold(amount, now) {
                            ring.stamp(amount, now);
                            spent.push((now, amount));
                        } else {
                            ring.count_refused(amount);
                        }
                    }
                    Act::Pass(slots) => {
                        now = Nanos(now.0 + slots * SECOND);
                        ring.advance(now);
                        pace.look(ring.used(), ring.take_largest_refused(), now);
                    }
                    Act::Begin if in_flight.is_none() => in_flight = Some(begin(&ring, &pace, now)),
                    Act::End => {
                        if let Some((new, written)) = in_flight.take() {
                            (bound, disk) = (new, written);
                        }
                    }
                    Act::Begin => {}
                    Act::Crash(slots) => {
                        // The record that was being written is there, or the one before.
                        if let Some((_, written)) = in_flight.take().filter(|_| slots % 2 == 0) {
                            disk = written;
                        }
                        now = Nanos(now.0 + slots * SECOND);
                        ring = LimitRing::new(window, AMOUNT, now);
                        let passed_ns = now.0 - disk.at.0;
                        let aged: Cells = disk.cells.iter().map(|(age, amount)| (age + passed_ns, *amount)).collect();
                        ring.restore(now, &aged);
                        ring.charge(disk.headroom, now);
                        pace = Pace::default();
                        (bound, disk) = begin(&ring, &pace, now);
                    }
                }
                cap(&ring, &mut bound, &mut in_flight, now);
                let since = now.0 - 256 * SECOND;
                let in_window: u64 = spent.iter().filter(|(at, _)| at.0 > since).map(|(_, amount)| amount).sum();
                prop_assert!(in_window <= AMOUNT, "{in_window}");
            }
        }
    }
}
