//! When units of a shared limit can be had again, whoever has them: what a core tells a client that
//! it has to refuse. Pure.
//!
//! Every node says how much of its part is free, and when one unit, half and all of the rest will
//! be. Between two of these times nothing is taken to be free, so that the answer is never too early
//! but for what others use meanwhile.

use crate::escrow::{Escrow, LimitKey};
use crate::gossip::values::LimitUse;
use crate::member::{Health, View};
use crate::metrics::LimitRow;
use shared::clock::Nanos;
use std::collections::HashMap;
use std::time::Duration;

/// From when units are free at one node until another one may give them out.
const TRAVEL: Duration = Duration::from_millis(300);
/// Of a limit of which this node has at least one part in so many of its entitlement free, nobody
/// is refused soon.
const PLENTY: u64 = 8;

/// When there will be room for a request of the size that was refused last, by limit. Those that
/// have plenty are left out, and those of which it is not known.
pub(crate) fn foretold(
    rows: &[LimitRow],
    escrow: &Escrow,
    view: &View,
    now: Nanos,
) -> HashMap<LimitKey, Nanos, ahash::RandomState> {
    let standings = rows.iter().filter_map(|row| Some((row, escrow.standing(row.key, now)?)));
    let scarce: Vec<_> = standings
        .filter(|(row, standing)| {
            let free = row.ring.entitlement.saturating_sub(row.ring.used);
            !row.is_valid || free < standing.grain.saturating_add(row.ring.entitlement / PLENTY)
        })
        .collect();
    if scarce.is_empty() {
        return HashMap::default();
    }
    let mut told: HashMap<(&str, &str), Vec<&LimitUse>, ahash::RandomState> = HashMap::default();
    let mut live = 0;
    for member in view.members.iter().filter(|member| member.health != Health::Dead) {
        live += 1;
        for used in &member.values.limits {
            told.entry((used.unit.as_str(), used.id.as_str())).or_default().push(used);
        }
    }
    let mut foretold = HashMap::default();
    for (row, standing) in scarce {
        let others = told.get(&(row.unit, row.id.as_str())).map(Vec::as_slice).unwrap_or_default();
        let mut returns = Returns { latest_ms: row.window_ns / 500_000 + 1_000, ..Returns::default() };
        let here = if row.is_valid { row.ring.entitlement } else { 0 };
        returns.add(here, row.ring.used, &row.back_ms);
        let mut parts = 0;
        for used in others {
            let Some(entitlement) = used.entitlement else { continue };
            parts += 1;
            returns.add(entitlement, used.used, &used.back_ms);
        }
        if let Some(at) = standing.mints_at.filter(|_| parts == live) {
            let stranded = row.ring.amount.saturating_sub(returns.entitled);
            returns.steps.push((at.since(now).as_millis(), stranded));
        }
        let at = returns
            .time_of(standing.grain)
            .map(|after| if after.is_zero() { now } else { now.after(after).after(TRAVEL) });
        foretold.extend(at.map(|at| (row.key, at)));
    }
    foretold
}

/// Units that come back, and when.
#[derive(Default)]
struct Returns {
    entitled: u64,
    free: u64,
    /// What nodes say of times beyond is not believed: no window is that long.
    latest_ms: u64,
    /// After so many milliseconds so many units more.
    steps: Vec<(u128, u64)>,
}

impl Returns {
    fn add(&mut self, entitlement: u64, used: u64, back_ms: &[u64]) {
        self.entitled = self.entitled.saturating_add(entitlement);
        self.free = self.free.saturating_add(entitlement.saturating_sub(used));
        let mut before = 0;
        for (after_ms, units) in back_ms.iter().zip([1, used / 2, used]) {
            if *after_ms <= self.latest_ms {
                self.steps.push((u128::from(*after_ms), units.saturating_sub(before)));
            }
            before = units.max(before);
        }
    }

    /// After what time `units` are free together; `None`: not known.
    fn time_of(mut self, units: u64) -> Option<Duration> {
        self.steps.sort_unstable();
        let mut free = self.free;
        if free >= units {
            return Some(Duration::ZERO);
        }
        for (after_ms, more) in self.steps {
            free = free.saturating_add(more);
            if free >= units {
                return Some(Duration::from_millis(u64::try_from(after_ms).unwrap_or(u64::MAX)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn returns(nodes: &[(u64, u64, &[u64])]) -> Returns {
        let mut returns = Returns { latest_ms: 60_000, ..Returns::default() };
        for (entitlement, used, back_ms) in nodes {
            returns.add(*entitlement, *used, back_ms);
        }
        returns
    }

    fn after(nodes: &[(u64, u64, &[u64])], units: u64) -> Option<u128> {
        returns(nodes).time_of(units).map(|after| after.as_millis())
    }

    #[test]
    fn what_any_node_has_free_is_there_now() {
        assert_eq!(after(&[(0, 0, &[]), (5, 4, &[])], 1), Some(0));
        assert_eq!(after(&[(3, 2, &[]), (5, 4, &[])], 2), Some(0), "of two nodes together");
    }

    #[test]
    fn where_all_is_spent_the_first_that_expires_anywhere_counts() {
        let nodes: [(u64, u64, &[u64]); 2] = [(10, 10, &[9_000, 20_000, 30_000]), (4, 4, &[700, 8_000, 9_500])];
        assert_eq!(after(&nodes, 1), Some(700));
        assert_eq!(after(&nodes, 2), Some(8_000), "not before it is sure");
        assert_eq!(after(&nodes, 14), Some(30_000));
        assert_eq!(after(&nodes, 15), None);
    }

    #[test]
    fn numbers_of_others_do_not_overflow() {
        let all: &[u64] = &[u64::MAX; 3];
        assert_eq!(after(&[(u64::MAX, 0, all), (u64::MAX, u64::MAX, all)], u64::MAX), Some(0));
        assert_eq!(after(&[(0, u64::MAX, all), (0, u64::MAX, all)], 9), None, "nor believed");
    }
}
