//! What one exact limiter would have admitted that sees every request at once: a log of all that was
//! spent in the last window, to the nanosecond. The measure for what a cluster admits.

use super::arrivals::Arrival;
use super::scenario::Terms;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// See the module.
pub(crate) struct Central {
    limits: Vec<Log>,
    /// Requests that run: when they end, what they reserved, and what they will have used.
    running: BinaryHeap<Reverse<(u64, u64, u64)>>,
}

struct Log {
    terms: Terms,
    /// Held and spent.
    used: u64,
    /// When it was spent.
    spent: VecDeque<(u64, u64)>,
}

impl Central {
    /// Of empty logs.
    pub(crate) fn new(limits: &[Terms]) -> Self {
        let limits = limits.iter().map(|terms| Log { terms: *terms, used: 0, spent: VecDeque::new() }).collect();
        Self { limits, running: BinaryHeap::new() }
    }

    /// Limit `place` has another amount from now on.
    pub(crate) fn set_amount(&mut self, place: usize, amount: u64) {
        if let Some(log) = self.limits.get_mut(place) {
            log.terms.amount = amount;
        }
    }

    /// Whether it admits; in the order of time.
    pub(crate) fn admits(&mut self, arrival: &Arrival) -> bool {
        let now_ns = arrival.at_ns;
        while let Some(Reverse((ends_ns, reserved, used))) = self.running.peek().copied()
            && ends_ns <= now_ns
        {
            self.running.pop();
            for log in &mut self.limits {
                log.used = log.used - reserved + used;
                log.spent.push_back((ends_ns, used));
            }
        }
        for log in &mut self.limits {
            log.expire(now_ns);
        }
        if self.limits.iter().any(|log| log.used + arrival.cost > log.terms.amount) {
            return false;
        }
        for log in &mut self.limits {
            log.used += arrival.cost;
            if arrival.settles.is_none() {
                log.spent.push_back((now_ns, arrival.cost));
            }
        }
        if let Some((used, lasts_ns)) = arrival.settles {
            self.running.push(Reverse((now_ns + lasts_ns, arrival.cost, used)));
        }
        true
    }
}

impl Log {
    fn expire(&mut self, now_ns: u64) {
        while let Some((spent_ns, cost)) = self.spent.front().copied()
            && spent_ns + self.terms.window_ns <= now_ns
        {
            self.spent.pop_front();
            self.used -= cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(at_ns: u64, cost: u64, settles: Option<(u64, u64)>) -> Arrival {
        Arrival { at_ns, node: 0, cost, settles }
    }

    #[test]
    fn a_window_of_exactly_its_length_is_free_again() {
        let mut central = Central::new(&[Terms { amount: 10, window_ns: 100 }]);
        assert!(central.admits(&arrival(0, 10, None)));
        assert!(!central.admits(&arrival(99, 1, None)));
        assert!(central.admits(&arrival(100, 10, None)));
    }

    #[test]
    fn a_reservation_counts_until_the_end_and_the_use_for_a_window_from_then() {
        let mut central = Central::new(&[Terms { amount: 10, window_ns: 100 }]);
        assert!(central.admits(&arrival(0, 10, Some((4, 50)))));
        assert!(!central.admits(&arrival(49, 1, None)));
        assert!(central.admits(&arrival(50, 6, None)));
        assert!(!central.admits(&arrival(149, 7, None)));
        assert!(central.admits(&arrival(150, 10, None)));
    }
}
