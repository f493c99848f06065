use super::*;
use crate::escrow::{EscrowSettings, LimitKey, LimitTerms, NodeName};
use crate::gossip::values::NodeValues;
use crate::member::Member;
use shared::limit::{LimitRing, RingSnapshot, Window};
use std::sync::Arc;
use std::time::Duration;

const KEY: LimitKey = LimitKey(7);
const NOW: Nanos = Nanos(1_000_000_000);

fn row(used: u64) -> LimitRow {
    LimitRow {
        id: "team/requests".into(),
        unit: "requests",
        key: KEY,
        configured: Some(90),
        window_ns: 60_000_000_000,
        enforcement: "strict",
        ring: RingSnapshot { amount: 90, entitlement: 30, used, held: 1 },
        is_valid: true,
        is_shared: true,
        refused: 2,
        ..LimitRow::default()
    }
}

fn member(id: &str, health: Health, used: LimitUse) -> Member {
    Member {
        id: id.into(),
        generation: 1,
        address: "127.0.0.2:10101".parse().unwrap(),
        health,
        values: NodeValues { limits: vec![used], ..NodeValues::default() },
        heard_at: NOW,
        round_trip: None,
        clock_offset_ms: None,
        is_tcp_only: false,
        speaks_our_key: true,
    }
}

fn told(used: u64, entitlement: Option<u64>) -> LimitUse {
    let (id, unit) = ("team/requests".into(), "requests".into());
    LimitUse { id, unit, used, amount: 90, entitlement, refused: 3, back_ms: Vec::new() }
}

/// Alone so far, of three nodes that there should be.
fn waiting() -> Escrow {
    let node = NodeName::new("a").unwrap();
    let settings = EscrowSettings { node, lease: Duration::from_secs(5), is_new: true, seed: 1 };
    let (mut escrow, fault) = Escrow::open(&settings, None, NOW);
    assert_eq!(fault, Ok(()));
    escrow.expect(3);
    let ring = Arc::new(LimitRing::new(Window::new(60_000_000_000).unwrap(), 90, NOW));
    let (hold_max, unknown_spend) = (Duration::ZERO, 0);
    let terms = LimitTerms { key: KEY, ring, amount: 90, policy: Policy::Reclaim, hold_max, unknown_spend };
    escrow.configure(vec![terms], NOW);
    escrow
}

fn shown(row: &LimitRow, escrow: Option<&Escrow>, members: Vec<Member>) -> Vec<LimitStatus> {
    let view = View { members, ..View::default() };
    limits(&Sight { node: "a", rows: std::slice::from_ref(row), escrow, learned: &[], view: &view, now: NOW })
}

#[test]
fn figures_of_live_nodes_are_summed_up_and_each_has_a_row() {
    let members = vec![
        member("c", Health::Healthy, told(20, Some(25))),
        member("b", Health::Suspect, told(0, Some(5))),
        member("d", Health::Dead, told(9, Some(30))),
    ];
    let limit = shown(&row(10), Some(&waiting()), members).remove(0);
    assert_eq!((limit.used_here, limit.used, limit.refused_here, limit.refused, limit.nodes), (10, 30, 2, 8, 2));
    assert_eq!((limit.entitlement, limit.stranded), (Some(60), Some(30)), "the dead one's part is with nobody");
    assert!((limit.utilisation - 1.0 / 3.0).abs() < 1e-9);
    let nodes: Vec<_> = limit.by_node.iter().map(|node| (node.node.as_str(), node.entitlement)).collect();
    assert_eq!(nodes, [("a", Some(30)), ("b", Some(5)), ("c", Some(25))]);
}

#[test]
fn nothing_is_called_stranded_while_a_node_does_not_say_what_it_has() {
    let limit = shown(&row(10), Some(&waiting()), vec![member("b", Health::Healthy, told(1, None))]).remove(0);
    assert_eq!((limit.entitlement, limit.stranded), (None, None));
    let limit = shown(&row(10), None, Vec::new()).remove(0);
    assert_eq!((limit.on_node_loss, limit.waits_for, limit.stranded), (None, None, None), "a node alone");
}

#[test]
fn a_node_that_may_not_spend_says_why() {
    let limit = shown(&row(0), Some(&waiting()), Vec::new()).remove(0);
    assert_eq!(limit.waits_for.as_deref(), Some("1 of 2 nodes that have to agree have met"));
    assert_eq!(limit.on_node_loss, Some("reclaim"));
    let book = escrow(&waiting(), true, NOW).books.remove(0);
    assert_eq!((book.epoch, book.limits, book.expected_nodes, book.lease_ms), (0, 1, 3, None));
    let unknown = LimitRow { key: LimitKey(8), ..row(0) };
    let limit = shown(&unknown, Some(&waiting()), Vec::new()).remove(0);
    assert!(limit.waits_for.unwrap().contains("expected_nodes"));
}

#[test]
fn limits_that_only_others_have_come_last() {
    let foreign = LimitUse { id: "other".into(), ..told(4, Some(90)) };
    let limits = shown(&row(0), None, vec![member("b", Health::Healthy, foreign)]);
    let last = limits.last().unwrap();
    assert_eq!((last.id.as_str(), last.used, last.used_here, last.enforcement), ("other", 4, 0, ""));
    assert_eq!(limits.len(), 2);
}
