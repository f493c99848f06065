//! What has to be true after every event, whatever goes wrong: entitlements that may be spent, and
//! shares on their way, never add up to more than there is.

use super::machine::{Machine, key};
use controlplane::escrow::Holdings;

/// Units that may be spent now, of limit `place`, by all nodes together.
pub(crate) fn spendable(machines: &[Machine], place: usize, true_ns: u64) -> u64 {
    let rings = machines.iter().filter_map(|machine| {
        let ring = machine.process.as_ref()?.rings.get(place)?;
        ring.is_valid_at(machine.now(true_ns)).then(|| ring.entitlement())
    });
    rings.sum()
}

/// What a node may spend of limit `place`, and what its books say.
pub(crate) fn described(machine: &Machine, place: usize) -> Option<String> {
    let process = machine.process.as_ref()?;
    let holdings = process.escrow.holdings(key(place))?;
    let ring = process.rings.get(place)?;
    Some(format!("{}: {} of {} at {}", machine.name, ring.entitlement(), holdings.units, machine.amounts[place]))
}

/// Shares of limit `place` that nodes with a lease have, or that are on their way between them.
pub(crate) fn shares(machines: &[Machine], place: usize, true_ns: u64) -> i128 {
    let holdings: Vec<Holdings> = machines
        .iter()
        .filter_map(|machine| {
            let process = machine.process.as_ref()?;
            process.rings.get(place)?.is_valid_at(machine.now(true_ns)).then_some(())?;
            process.escrow.holdings(key(place)).filter(|holdings| holdings.chain != 0)
        })
        .collect();
    let balances: i128 = holdings.iter().map(|one| one.balance).sum();
    let on_their_way: i128 = holdings
        .iter()
        .flat_map(|giver| giver.given.iter().map(move |(to, given)| (giver, to, given)))
        .filter_map(|(giver, to, given)| {
            let taker = holdings.iter().find(|one| one.account == *to && one.chain == giver.chain)?;
            let got = taker.got.iter().find(|(from, _)| *from == giver.account).map_or(0, |(_, got)| *got);
            Some((given - got).max(0))
        })
        .sum();
    balances + on_their_way
}

/// The largest amount that any node goes by.
pub(crate) fn largest_amount(machines: &[Machine], place: usize) -> u64 {
    let amounts = machines.iter().filter(|machine| machine.process.is_some()).map(|machine| machine.amounts[place]);
    amounts.max().unwrap_or(0)
}

/// Bounds for the provider from what nodes went by: an amount holds for `lag_ns` longer.
pub(crate) fn bounds(largest: &[(u64, u64)], lag_ns: u64) -> Vec<(u64, u64)> {
    let mut instants: Vec<u64> = largest.iter().flat_map(|(from_ns, _)| [*from_ns, from_ns + lag_ns]).collect();
    instants.sort_unstable();
    instants.dedup();
    let held = |at_ns: u64| {
        let next = largest.partition_point(|(from_ns, _)| *from_ns <= at_ns);
        let before = largest.partition_point(|(from_ns, _)| from_ns + lag_ns <= at_ns).saturating_sub(1);
        largest[before..next].iter().map(|(_, amount)| *amount).max().unwrap_or(0)
    };
    instants.into_iter().map(|at_ns| (at_ns, held(at_ns))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_amount_holds_longer_and_a_lower_one_later() {
        assert_eq!(
            bounds(&[(0, 10), (50, 4), (60, 7), (200, 9)], 30),
            [(0, 10), (30, 10), (50, 10), (60, 10), (80, 7), (90, 7), (200, 9), (230, 9)]
        );
    }
}
