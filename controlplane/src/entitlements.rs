//! What this node may use of every limit, given what the others say they used. Pure.
//!
//! Every node admits while its own use and what it last heard of the others' stay within the
//! limit. What several nodes admit before they hear of each other comes on top: with an offered
//! load of ρ limits, N nodes and news that is D old, at most ρ · (1 − 1/N) · D/W of the limit. A
//! node that does not hear everybody who counts keeps to its own part, which needs no news.
//!
//! Absent: limits that are never exceeded; they need entitlements that are handed over, not heard of.

use crate::gossip::values::LimitUse;
use crate::member::{Health, View};
use std::collections::HashMap;

/// What the others used, and how many nodes share a limit.
pub struct Others<'v> {
    used: HashMap<(&'v str, &'v str), u64>,
    /// Nodes that share the limits, this one included.
    nodes: u64,
    /// Everybody who counts was heard in time, and so were we.
    are_all_heard: bool,
}

impl<'v> Others<'v> {
    /// There are none.
    pub fn none() -> Self {
        Self { used: HashMap::new(), nodes: 1, are_all_heard: true }
    }

    /// From what gossip says. `expected_nodes` counts also those that were never heard.
    pub fn of(view: &'v View, expected_nodes: u16) -> Self {
        let mut used: HashMap<_, u64> = HashMap::new();
        let counting = view.members.iter().filter(|member| member.health != Health::Leaving);
        for LimitUse { id, unit, used: amount, .. } in view.members.iter().flat_map(|member| &member.values.limits) {
            let sum = used.entry((id.as_str(), unit.as_str())).or_default();
            *sum = sum.saturating_add(*amount);
        }
        let known = 1 + counting.clone().count() as u64;
        let expected = u64::from(expected_nodes);
        let are_all_heard =
            known >= expected && !view.doubts_itself && counting.clone().all(|member| member.health == Health::Healthy);
        Self { used, nodes: known.max(expected), are_all_heard }
    }

    /// Units of this limit that the node may have in a window; of small ones a node that is cut
    /// off may have none.
    pub fn entitlement(&self, id: &str, unit: &str, amount: u64) -> u64 {
        let others = self.used.get(&(id, unit)).copied().unwrap_or(0);
        let left = amount.saturating_sub(others);
        if self.are_all_heard { left } else { left.min(amount / self.nodes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gossip::values::NodeValues;
    use crate::member::Member;
    use shared::clock::Nanos;

    fn member(id: &str, health: Health, used: u64) -> Member {
        let limits = vec![LimitUse { id: "l".to_owned(), unit: "requests".to_owned(), used, amount: 90 }];
        Member {
            id: id.to_owned(),
            generation: 1,
            address: "127.0.0.2:10101".parse().unwrap(),
            health,
            values: NodeValues { limits, ..NodeValues::default() },
            heard_at: Nanos(0),
            round_trip: None,
            clock_offset_ms: None,
            is_tcp_only: false,
            speaks_our_key: true,
        }
    }

    fn entitled(members: &[(Health, u64)], expected: u16) -> u64 {
        let members = members.iter().zip('a'..).map(|((health, used), id)| member(&id.to_string(), *health, *used));
        let view = View { members: members.collect(), ..View::default() };
        Others::of(&view, expected).entitlement("l", "requests", 90)
    }

    #[test]
    fn a_node_alone_has_all_of_it() {
        assert_eq!(entitled(&[], 1), 90);
    }

    #[test]
    fn what_the_others_used_is_gone() {
        assert_eq!(entitled(&[(Health::Healthy, 20), (Health::Healthy, 30)], 3), 40);
        assert_eq!(entitled(&[(Health::Healthy, 200)], 1), 0);
    }

    #[test]
    fn without_news_of_everybody_each_keeps_to_its_part() {
        assert_eq!(entitled(&[(Health::Suspect, 20), (Health::Healthy, 5)], 1), 30);
        assert_eq!(entitled(&[(Health::Dead, 0)], 2), 45);
        assert_eq!(entitled(&[(Health::Healthy, 80)], 3), 10, "nor more than the others left");
        assert_eq!(entitled(&[], 3), 30);
    }

    #[test]
    fn a_leaving_nodes_use_counts_and_its_silence_does_not() {
        assert_eq!(entitled(&[(Health::Leaving, 20), (Health::Healthy, 5)], 1), 65);
    }

    #[test]
    fn other_limits_do_not_count() {
        let view = View { members: vec![member("a", Health::Healthy, 20)], ..View::default() };
        assert_eq!(Others::of(&view, 1).entitlement("l", "tokens", 90), 90);
    }
}
