//! The limiter that others are measured against: a log of every admission, so that no
//! window of the given length, wherever it begins, ever holds more than the limit. Pure.
//!
//! It keeps one entry for each admission within a window and would be too costly on a
//! request path; here it only has to be right.

use std::{collections::VecDeque, time::Duration};

/// A sliding log. Arrivals must come in order of time.
#[derive(Debug)]
pub(crate) struct ExactLimiter {
    limit: u64,
    window: Duration,
    /// Admissions within the last window, oldest first.
    log: VecDeque<(Duration, u64)>,
    /// Sum of the log's units; never above `limit`.
    in_window: u64,
}

impl ExactLimiter {
    /// Admits `limit` units in any `window`.
    pub(crate) fn new(limit: u64, window: Duration) -> Self {
        Self { limit, window, log: VecDeque::new(), in_window: 0 }
    }

    /// Admits an arrival that costs `units`, when they fit. What was admitted exactly one
    /// window ago no longer counts.
    pub(crate) fn admit(&mut self, at: Duration, units: u64) -> bool {
        while let Some(&(admitted_at, freed)) = self.log.front()
            && admitted_at + self.window <= at
        {
            self.log.pop_front();
            self.in_window -= freed;
        }
        if units > self.limit - self.in_window {
            return false;
        }
        self.in_window += units;
        self.log.push_back((at, units));
        true
    }
}

/// The units that an exact limiter admits of these arrivals, and how many arrivals that is.
pub(crate) fn admitted_exactly(
    arrivals: impl IntoIterator<Item = (Duration, u64)>,
    limit: u64,
    window: Duration,
) -> Admitted {
    let mut limiter = ExactLimiter::new(limit, window);
    let mut admitted = Admitted::default();
    for (at, units) in arrivals {
        if limiter.admit(at, units) {
            admitted.arrivals += 1;
            admitted.units += units;
        }
    }
    admitted
}

/// What was let through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Requests.
    pub(crate) arrivals: u64,
    /// Requests or tokens, whichever is limited.
    pub(crate) units: u64,
}

/// The most units that any window of this length holds. Admissions in order of time.
pub(crate) fn fullest_window(admissions: &[(Duration, u64)], window: Duration) -> u64 {
    let mut fullest = 0;
    let mut sum = 0_u64;
    let mut oldest = admissions.iter().peekable();
    for &(at, units) in admissions {
        sum = sum.saturating_add(units);
        while let Some(&(before, freed)) = oldest.next_if(|(before, _)| *before + window <= at) {
            debug_assert!(before <= at, "admissions are in order");
            sum -= freed;
        }
        fullest = fullest.max(sum);
    }
    fullest
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_mins(1);

    fn check(limit: u64, arrivals: &[(u64, u64)], expected: &str) {
        let mut limiter = ExactLimiter::new(limit, WINDOW);
        let admitted: String = arrivals
            .iter()
            .map(|&(seconds, units)| if limiter.admit(Duration::from_secs(seconds), units) { '.' } else { 'x' })
            .collect();
        assert_eq!(admitted, expected);
    }

    #[test]
    fn a_unit_comes_back_exactly_one_window_later() {
        check(2, &[(0, 1), (10, 1), (59, 1), (60, 1), (69, 1), (70, 1)], "..x.x.");
    }

    #[test]
    fn what_does_not_fit_leaves_room_for_what_does() {
        check(10, &[(0, 8), (1, 3), (2, 2), (3, 1), (60, 8)], ".x.x.");
    }

    #[test]
    fn what_can_never_fit_is_refused() {
        check(10, &[(0, 11), (1, 10)], "x.");
        check(0, &[(0, 1), (0, 0)], "x.");
    }

    #[test]
    fn the_fullest_window_may_begin_anywhere() {
        let at = |seconds, units| (Duration::from_secs(seconds), units);
        assert_eq!(fullest_window(&[], WINDOW), 0);
        assert_eq!(fullest_window(&[at(0, 5), at(59, 5), at(60, 5), at(119, 5)], WINDOW), 10);
        assert_eq!(fullest_window(&[at(0, 1), at(30, 7), at(45, 7), at(90, 1)], WINDOW), 15);
    }

    #[test]
    fn no_window_of_what_it_admits_is_above_the_limit() {
        // An uneven but fixed arrival pattern, three times denser than the limit.
        let arrivals: Vec<_> =
            (0..4_000_u64).map(|n| (Duration::from_millis(n * 97 + (n * n) % 61), 1 + n % 7)).collect();
        let mut limiter = ExactLimiter::new(700, WINDOW);
        let admitted: Vec<_> = arrivals.iter().copied().filter(|&(at, units)| limiter.admit(at, units)).collect();
        let fullest = fullest_window(&admitted, WINDOW);
        assert!(fullest <= 700, "{fullest}");
        assert!(fullest > 693, "a window is filled up to the last request: {fullest}");
        let summed = admitted_exactly(arrivals, 700, WINDOW);
        assert_eq!(summed.arrivals, admitted.len() as u64);
    }
}
