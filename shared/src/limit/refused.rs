//! What a node had to refuse of one limit: what its control thread asks other nodes for.
//!
//! Only refusals write here, so it lies in a cache line of its own, away from those of a
//! decision. Absent: why something was refused, and to whom.

use super::atomic::{AtomicU64, Ordering};

/// Refusals of one limit between two looks at them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Units that were asked for and not had. Who asks again is counted again.
    pub units: u64,
    /// Refused requests; also those that ask for more than the whole limit, whose units are
    /// in neither of the other two.
    pub requests: u64,
    /// The most that one of them asked for.
    pub largest: u64,
}

/// [`Refused`] as the cores add to it. Nothing is decided by it, so nothing is ordered.
#[derive(Default)]
pub(super) struct Refusals {
    units: AtomicU64,
    requests: AtomicU64,
    largest: AtomicU64,
    /// The same for another reader.
    largest_again: AtomicU64,
}

impl Refusals {
    /// One more refused request.
    pub(super) fn count(&self, units: u64) {
        add(&self.units, units);
        add(&self.requests, 1);
        self.largest.fetch_max(units, Ordering::Relaxed);
        self.largest_again.fetch_max(units, Ordering::Relaxed);
    }

    /// All since the last call. A request that is refused meanwhile may be here with one
    /// figure and in the next answer with another; none is lost.
    pub(super) fn take(&self) -> Refused {
        Refused {
            units: self.units.swap(0, Ordering::Relaxed),
            requests: self.requests.swap(0, Ordering::Relaxed),
            largest: self.largest.swap(0, Ordering::Relaxed),
        }
    }

    /// The largest since the last call of this, whatever [`Refusals::take`] took.
    pub(super) fn take_largest(&self) -> u64 {
        self.largest_again.swap(0, Ordering::Relaxed)
    }
}

/// Stays at the end instead of wrapping.
fn add(sum: &AtomicU64, more: u64) {
    // Always answers with a sum, so this cannot fail.
    let _ = sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| Some(before.saturating_add(more)));
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_taken_once() {
        let refusals = Refusals::default();
        refusals.count(3);
        refusals.count(8);
        refusals.count(1);
        assert_eq!(refusals.take(), Refused { units: 12, requests: 3, largest: 8 });
        assert_eq!(refusals.take(), Refused::default());
    }

    #[test]
    fn refusals_do_not_wrap() {
        let refusals = Refusals::default();
        refusals.count(u64::MAX);
        refusals.count(2);
        assert_eq!(refusals.take(), Refused { units: u64::MAX, requests: 2, largest: u64::MAX });
    }
}
