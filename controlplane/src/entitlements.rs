//! What this node may use of every limit, given what the others say they used. Pure.
//!
//! Every node admits while its own use and what it last heard of the others' stay within the
//! limit. What several nodes admit before they hear of each other comes on top. So a limit that is
//! kept by news alone also has a [`Pace`]: in the time D that news takes, no node uses more than
//! c · L · D/W + b of it, however much is offered. When the last unit of a window is admitted, all
//! that its node has not heard of was admitted by the other N − 1 nodes within D; the limit is
//! exceeded by at most (N − 1)(c · L · D/W + b). A node that does not hear everybody who counts
//! keeps to its own part, which needs no news.
//!
//! For `enforcement: gossip` only. Limits that are never exceeded need parts that are handed over, not
//! heard of: see [`crate::escrow`].

use crate::collect;
use crate::control_loop;
use crate::gossip::VIEW_INTERVAL;
use crate::gossip::values::LimitUse;
use crate::member::{Health, View};
use shared::snapshot::Unit;
use std::collections::HashMap;
use std::time::Duration;

/// c: a node alone may use a limit half as fast again as the limit on the average allows, so that
/// after a pause it can catch up.
const PACE_PERCENT: u128 = 150;

/// b: one part in this many of a limit may come at once.
const BURSTS_PER_LIMIT: u64 = 200;

/// And of tokens at least what one large request reserves. A larger one takes all of the pace.
const TOKEN_BURST_MIN: u64 = 8_192;

/// Rounds of gossip until everybody has a value, and the time for frames to travel and for
/// threads to wake up.
const ROUNDS: u32 = 2;
const TRAVEL: Duration = Duration::from_millis(150);

/// D: how old another node's use may be when this node acts upon it.
pub fn staleness(gossip_interval: Duration) -> Duration {
    collect::INTERVAL + gossip_interval * ROUNDS + TRAVEL + VIEW_INTERVAL + control_loop::TICK * 2
}

/// What one node may use of a limit in the time that news takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Units in any window of that length.
    pub units: u64,
    /// D, nanoseconds.
    pub window_ns: u64,
}

impl Pace {
    /// `None` where it would hold nobody back: for small limits, and for windows not much longer
    /// than news is old.
    pub fn of(unit: Unit, amount: u64, window_ns: u64, staleness: Duration) -> Option<Self> {
        let staleness_ns = u64::try_from(staleness.as_nanos()).unwrap_or(u64::MAX);
        let even = u128::from(amount) * u128::from(staleness_ns) / u128::from(window_ns.max(1));
        let even = even.saturating_mul(PACE_PERCENT) / 100;
        let burst_min = if unit == Unit::Tokens { TOKEN_BURST_MIN } else { 1 };
        let burst = (amount / BURSTS_PER_LIMIT).max(burst_min);
        let units = u64::try_from(even).unwrap_or(u64::MAX).saturating_add(burst);
        (units < amount).then_some(Self { units, window_ns: staleness_ns })
    }
}

/// How far `nodes` nodes can exceed a limit that they keep by news alone.
pub fn overshoot_bound(unit: Unit, amount: u64, window_ns: u64, staleness: Duration, nodes: u64) -> u64 {
    let each = Pace::of(unit, amount, window_ns, staleness).map_or(amount, |pace| pace.units);
    each.saturating_mul(nodes.saturating_sub(1))
}

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

    /// Nodes that share the limits, this one included.
    pub fn nodes(&self) -> u64 {
        self.nodes
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
        let limits =
            vec![LimitUse { id: "l".to_owned(), unit: "requests".to_owned(), used, amount: 90, ..LimitUse::default() }];
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

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn news_is_as_old_as_the_intervals_that_it_passes() {
        assert_eq!(staleness(Duration::from_millis(200)), Duration::from_millis(2_650));
        assert!(staleness(Duration::from_secs(1)) > staleness(Duration::from_millis(200)));
    }

    #[test]
    fn a_pace_is_half_as_fast_again_as_the_limit_and_a_burst() {
        let staleness = Duration::from_secs(2);
        let pace = Pace::of(Unit::Requests, 6_000, 60 * SECOND, staleness).unwrap();
        assert_eq!((pace.units, pace.window_ns), (300 + 30, 2 * SECOND));
        assert_eq!(overshoot_bound(Unit::Requests, 6_000, 60 * SECOND, staleness, 7), 6 * 330);
        let tokens = Pace::of(Unit::Tokens, 60_000, 60 * SECOND, staleness).unwrap();
        assert_eq!(tokens.units, 3_000 + TOKEN_BURST_MIN);
    }

    #[test]
    fn a_pace_that_is_no_slower_than_the_limit_is_none() {
        let staleness = Duration::from_secs(2);
        assert_eq!(Pace::of(Unit::Requests, 1, 60 * SECOND, staleness), None);
        assert_eq!(Pace::of(Unit::Requests, 100, SECOND, staleness), None);
        assert_eq!(Pace::of(Unit::Tokens, 8_000, 60 * SECOND, staleness), None);
        assert_eq!(overshoot_bound(Unit::Requests, 100, SECOND, staleness, 3), 200);
    }

    #[test]
    fn a_node_alone_exceeds_nothing_and_no_number_is_too_large() {
        assert_eq!(overshoot_bound(Unit::Requests, 6_000, 60 * SECOND, Duration::from_secs(2), 1), 0);
        assert_eq!(overshoot_bound(Unit::Tokens, u64::MAX, 1, Duration::MAX, u64::MAX), u64::MAX);
        assert_eq!(overshoot_bound(Unit::Tokens, 5, 0, Duration::ZERO, 0), 0);
    }

    /// Nodes that all want much more than there is, and hear of each other as late as can be.
    #[test]
    fn nodes_that_offer_a_hundred_limits_exceed_it_by_less_than_the_bound() {
        use shared::limit::{LimitRing, Window};
        const STEP: u64 = SECOND / 50;
        let (amount, window_ns, staleness) = (600, 20 * SECOND, Duration::from_secs(2));
        let pace = Pace::of(Unit::Requests, amount, window_ns, staleness).unwrap();
        for nodes in [2_usize, 3, 7] {
            let rings: Vec<_> = (0..nodes)
                .map(|_| {
                    let limit = LimitRing::new(Window::new(window_ns).unwrap(), amount, Nanos(0));
                    let window = Window::with_spread(pace.window_ns, 0).unwrap();
                    (limit, LimitRing::new(window, pace.units, Nanos(0)))
                })
                .collect();
            // What each used, and when: the news of an instant arrives everywhere D later.
            let mut news: Vec<Vec<u64>> = Vec::new();
            let mut sent = Vec::new();
            for step in 0..4 * window_ns / STEP {
                let now = Nanos(step * STEP);
                let heard = step.checked_sub(pace.window_ns / STEP).and_then(|at| news.get(at as usize)).cloned();
                for (node, (limit, own_pace)) in rings.iter().enumerate() {
                    if let Some(heard) = &heard {
                        let others = heard.iter().sum::<u64>() - heard[node];
                        limit.set_entitlement(amount.saturating_sub(others));
                    }
                    // All are idle at first, and then come at once.
                    for _ in 0..if now.0 < 3 * SECOND { 0 } else { 60 } {
                        if !limit.try_hold(1, now) {
                            break;
                        }
                        if !own_pace.try_hold(1, now) {
                            limit.release(1);
                            break;
                        }
                        limit.stamp(1, now);
                        own_pace.stamp(1, now);
                        sent.push(now.0);
                    }
                    limit.advance(now);
                }
                news.push(rings.iter().map(|(limit, _)| limit.used()).collect());
            }
            let mut first = 0;
            let fullest = (0..sent.len()).map(|last| {
                while sent[first] + window_ns <= sent[last] {
                    first += 1;
                }
                (last - first + 1) as u64
            });
            let (fullest, bound) =
                (fullest.max().unwrap(), overshoot_bound(Unit::Requests, amount, window_ns, staleness, nodes as u64));
            assert!(fullest > amount, "the bound is about something: {fullest}");
            assert!(fullest <= amount + bound, "{nodes} nodes: {fullest} of {amount}, bound {bound}");
        }
    }
}
