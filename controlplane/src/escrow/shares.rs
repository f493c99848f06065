//! Entitlements as shares of a limit, whatever its amount is.
//!
//! A limit's whole is [`FULL`] shares. A node may use `floor(shares / unit)` units, where a unit is
//! `FULL / amount` shares, so the nodes' units never sum to more than the amount. A change of the
//! amount needs no agreement: every node goes by its own idea of it, and while they differ, the
//! sum is at most the larger one. What is spent is never told in shares: they would be fewer units
//! by another amount, and the difference free a second time.

use serde::{Deserialize, Serialize};
use shared::limit::UNITS_MAX;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// The whole of a limit. As long as an amount is at most its square root, what is left over by
/// cutting it into units is less than a unit, and all units are there.
pub(super) const FULL: i128 = 1 << 80;

const _: () = assert!(UNITS_MAX <= 1 << 40, "units are cut exactly");

/// Names a limit on the wire and on disk: first bytes of a hash of what it counts, for whom, and
/// for how long. The same on every node of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitKey(pub u64);

impl LimitKey {
    /// From its id, unit and window.
    pub fn new(id: &str, unit: &str, window_ns: u64) -> Self {
        let text = format!("{id}\0{unit}\0{window_ns}");
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        Self(u64::from_be_bytes(digest.as_ref().first_chunk().copied().unwrap_or_default()))
    }

    /// Orders candidates for this limit, differently for each limit (rendezvous hashing, Thaler and
    /// Ravishankar 1998).
    pub(super) fn weight_of(self, candidate: impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        // Should another release of the language hash differently, nodes built by it differ in whom
        // they prefer, and in nothing else.
        (self.0, candidate).hash(&mut hasher);
        hasher.finish()
    }
}

fn unit(amount: u64) -> i128 {
    FULL / i128::from(amount.clamp(1, UNITS_MAX))
}

/// Whole units in so many shares.
pub(super) fn units(shares: i128, amount: u64) -> u64 {
    let whole = u64::try_from(shares.max(0) / unit(amount)).unwrap_or(u64::MAX);
    whole.min(amount).min(UNITS_MAX)
}

/// Shares of so many units.
pub(super) fn shares(units: u64, amount: u64) -> i128 {
    i128::from(units.min(amount).min(UNITS_MAX)) * unit(amount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_never_sum_to_more_than_the_amount(
            amount in 1_u64..=UNITS_MAX,
            cuts in prop::collection::vec(0_i128..=FULL, 0..8),
        ) {
            let mut cuts = cuts;
            cuts.extend([0, FULL]);
            cuts.sort_unstable();
            let sum: u64 = cuts.windows(2).map(|pair| units(pair[1] - pair[0], amount)).sum();
            prop_assert!(sum <= amount, "{sum} {amount} {cuts:?}");
        }

        #[test]
        fn giving_whole_units_takes_exactly_these(amount in 1_u64..=UNITS_MAX, have in 0..=FULL, part in 0.0..1.0) {
            let before = units(have, amount);
            let given = (before as f64 * part) as u64;
            prop_assert_eq!(units(have - shares(given, amount), amount), before - given);
        }

        #[test]
        fn all_shares_are_the_whole_amount(amount in 1_u64..=UNITS_MAX) {
            prop_assert_eq!(units(FULL, amount), amount);
        }
    }

    #[test]
    fn a_limit_of_nothing_has_no_units() {
        assert_eq!(units(FULL, 0), 0);
        assert_eq!(shares(5, 0), 0);
    }

    #[test]
    fn limits_are_told_apart_by_all_that_they_are() {
        let keys = [("a", "requests", 1), ("a", "tokens", 1), ("a", "requests", 2), ("b", "requests", 1)];
        let mut keys: Vec<_> = keys.into_iter().map(|(id, unit, window)| LimitKey::new(id, unit, window)).collect();
        keys.dedup();
        assert_eq!(keys.len(), 4);
    }
}
