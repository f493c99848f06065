//! Whom a node trades with. In a small cluster with everybody; in a large one with those that are
//! 1, 2, 4, 8 … places away in the order of all members, so that rows and messages stay few, and
//! units get anywhere in a few steps.

use super::account::Account;
use super::shares::LimitKey;
use std::collections::BTreeSet;

/// Up to here everybody is a neighbour.
const ALL_MAX: usize = 17;
/// Asked at once.
pub(super) const ASKED_MAX: usize = 8;
/// Units a node that a limit needs to be split well; below, one node holds what is idle.
const UNITS_PER_NODE_MIN: u64 = 90;

/// Healthy ones that `me`, one of them, trades with; nearest first.
pub(super) fn neighbours(
    partners: &BTreeSet<Account>,
    me: Account,
    is_healthy: impl Fn(&Account) -> bool,
) -> Vec<Account> {
    let members: Vec<Account> = partners.iter().copied().collect();
    let Ok(at) = members.binary_search(&me) else { return Vec::new() };
    let count = members.len();
    let away = |places: usize| members.get((at + places) % count).copied();
    let chosen: Vec<Account> = if count <= ALL_MAX {
        (1..count).filter_map(away).collect()
    } else {
        let powers = (0..usize::BITS).map(|power| 1_usize << power).take_while(|places| *places < count);
        let mut seen = BTreeSet::from([me]);
        powers
            .flat_map(|places| [away(places), away(count - places)])
            .flatten()
            .filter(|one| seen.insert(*one))
            .collect()
    };
    chosen.into_iter().filter(is_healthy).collect()
}

/// Whether a limit is too small to be split over so many nodes.
pub(super) fn is_small(amount: u64, grain: u64, nodes: usize) -> bool {
    nodes > 1 && amount / grain.max(1) < UNITS_PER_NODE_MIN.saturating_mul(nodes as u64)
}

/// Who holds what is idle of a small limit.
pub(super) fn holder(limit: LimitKey, candidates: impl Iterator<Item = Account>) -> Option<Account> {
    candidates.max_by_key(|account| (limit.weight_of(account), *account))
}

#[cfg(test)]
mod tests {
    use super::super::account::tests::account;
    use super::*;

    fn roster(count: usize) -> BTreeSet<Account> {
        (0..count).map(|number| account(&format!("n{number:04}"))).collect()
    }

    #[test]
    fn in_a_small_cluster_everybody_is_a_neighbour() {
        let me = account("n0002");
        let found = neighbours(&roster(5), me, |_| true);
        assert_eq!(found.len(), 4);
        assert!(!found.contains(&me));
        assert_eq!(neighbours(&roster(5), me, |account| *account == self::account("n0004")), [account("n0004")]);
    }

    #[test]
    fn in_a_large_one_few_are_and_everybody_is_reached_in_a_few_steps() {
        let roster = roster(1_000);
        let mut reached = BTreeSet::from([account("n0500")]);
        for _ in 0..10 {
            let next: Vec<_> = reached.iter().flat_map(|one| neighbours(&roster, *one, |_| true)).collect();
            assert!(neighbours(&roster, next[0], |_| true).len() <= 20);
            reached.extend(next);
        }
        assert_eq!(reached.len(), 1_000);
    }

    #[test]
    fn who_is_left_out_has_no_neighbours() {
        assert!(neighbours(&roster(3), account("other"), |_| true).is_empty());
    }

    #[test]
    fn small_is_a_question_of_requests_and_not_of_tokens() {
        assert!(is_small(60, 1, 3) && !is_small(6_000, 1, 7));
        assert!(is_small(100_000, 1_000, 3), "a hundred requests");
        assert!(!is_small(60, 1, 1));
    }

    #[test]
    fn all_agree_on_a_holder_and_holders_differ() {
        let members = roster(5);
        let of = |key| holder(LimitKey(key), members.iter().copied()).unwrap();
        assert_eq!(of(1), holder(LimitKey(1), members.iter().rev().copied()).unwrap());
        assert!((0..20).map(of).collect::<BTreeSet<_>>().len() > 2);
    }
}
