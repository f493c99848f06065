//! What all live nodes did together, out of what each of them published. Pure. The dead are left
//! out: what they said last is over soon and nobody says so.

use crate::gossip::values::NodeValues;
use crate::member::{Health, Member};
use serde::Serialize;
use std::collections::BTreeMap;

/// Different limits, and providers, that are summed up; peers may name any.
const ROWS_MAX: usize = 5_000;

/// Use of one limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LimitSum {
    /// Limit's id.
    pub id: String,
    /// `requests` or `tokens`.
    pub unit: String,
    /// Units in a window; the largest that a node names, should they disagree.
    pub amount: u64,
    /// Spent and held in the current window by this node.
    pub used_here: u64,
    /// The same by all live nodes.
    pub used: u64,
    /// Nodes that use it.
    pub nodes: u32,
}

/// Attempts at one provider in the last ten seconds, by all live nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderSum {
    /// Attempts.
    pub attempts: u64,
    /// Those that failed for the provider's own reasons.
    pub failures: u64,
    /// Nodes that tried.
    pub nodes: u32,
}

/// Every limit of which something is in use, by unit and id.
pub fn limits(own: &NodeValues, members: &[Member]) -> Vec<LimitSum> {
    let mut sums: BTreeMap<(&str, &str), LimitSum> = BTreeMap::new();
    for (values, is_own) in everybody(own, members) {
        for limit in &values.limits {
            let name = (limit.unit.as_str(), limit.id.as_str());
            if !sums.contains_key(&name) && sums.len() >= ROWS_MAX {
                continue;
            }
            let sum = sums.entry(name).or_default();
            sum.amount = sum.amount.max(limit.amount);
            sum.used = sum.used.saturating_add(limit.used);
            sum.nodes = sum.nodes.saturating_add(1);
            if is_own {
                sum.used_here = limit.used;
            }
        }
    }
    let named = sums.into_iter().map(|((unit, id), sum)| LimitSum { id: id.to_owned(), unit: unit.to_owned(), ..sum });
    named.collect()
}

/// Every provider that anybody tried, by name.
pub fn providers<'a>(own: &'a NodeValues, members: &'a [Member]) -> BTreeMap<&'a str, ProviderSum> {
    let mut sums: BTreeMap<&str, ProviderSum> = BTreeMap::new();
    for (values, _) in everybody(own, members) {
        for row in &values.providers {
            if !sums.contains_key(row.provider.as_str()) && sums.len() >= ROWS_MAX {
                continue;
            }
            let sum = sums.entry(&row.provider).or_default();
            sum.attempts = sum.attempts.saturating_add(row.attempts);
            sum.failures = sum.failures.saturating_add(row.failures);
            sum.nodes = sum.nodes.saturating_add(1);
        }
    }
    sums
}

/// This node first, so that its rows are never those beyond the bound.
fn everybody<'a>(own: &'a NodeValues, members: &'a [Member]) -> impl Iterator<Item = (&'a NodeValues, bool)> {
    let live = members.iter().filter(|member| member.health != Health::Dead);
    std::iter::once((own, true)).chain(live.map(|member| (&member.values, false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::values::{LimitUse, ProviderTraffic};
    use shared::clock::Nanos;

    fn values(used: u64) -> NodeValues {
        NodeValues {
            limits: vec![LimitUse {
                id: "team".into(),
                unit: "tokens".into(),
                used,
                amount: 100,
                ..LimitUse::default()
            }],
            providers: vec![ProviderTraffic { provider: "openai".into(), attempts: used, ..Default::default() }],
            ..NodeValues::default()
        }
    }

    fn member(health: Health, used: u64) -> Member {
        Member {
            id: "b".into(),
            generation: 1,
            address: "10.0.0.2:10101".parse().unwrap(),
            health,
            values: values(used),
            heard_at: Nanos(0),
            round_trip: None,
            clock_offset_ms: None,
            is_tcp_only: false,
            speaks_our_key: true,
        }
    }

    #[test]
    fn live_nodes_are_added_to_our_own_use_and_dead_ones_are_not() {
        let members = [member(Health::Healthy, 20), member(Health::Leaving, 3), member(Health::Dead, 500)];
        let sum = LimitSum { id: "team".into(), unit: "tokens".into(), amount: 100, used_here: 7, used: 30, nodes: 3 };
        assert_eq!(limits(&values(7), &members), [sum]);
        let sum = ProviderSum { attempts: 30, failures: 0, nodes: 3 };
        assert_eq!(providers(&values(7), &members), BTreeMap::from([("openai", sum)]));
    }

    #[test]
    fn a_peer_with_endless_numbers_and_names_stays_within_bounds() {
        let mut peer = member(Health::Healthy, u64::MAX);
        peer.values.limits.extend((0..2 * ROWS_MAX).map(|at| LimitUse { id: at.to_string(), ..LimitUse::default() }));
        let sums = limits(&values(7), &[peer]);
        assert_eq!(sums.len(), ROWS_MAX);
        assert!(sums.iter().any(|sum| sum.id == "team" && sum.used == u64::MAX && sum.used_here == 7));
    }
}
