use super::*;
use shared::limit::RingSnapshot;
use shared::report::{self, AttemptLabels, Report, TrafficLabels};

/// Counts on through virtual time.
#[derive(Default)]
struct Node {
    totals: Totals,
    traffic: Traffic,
}

impl Node {
    fn answered(&mut self, model: &str, status: u16, code: &'static str, requests: u64, first_byte_us: u64) {
        let labels = TrafficLabels { provider: "openai".into(), model: model.into(), endpoint: "chat", status, code };
        let mut row = report::Traffic { requests, ..report::Traffic::default() };
        (0..requests).for_each(|_| row.first_byte.record_us(first_byte_us));
        self.totals.add(&Report { traffic: [(labels, row)].into_iter().collect(), ..Report::default() });
    }

    fn tried(&mut self, key: &str, outcome: &'static str, count: u64) {
        let labels = AttemptLabels { provider: "openai".into(), key: key.into(), outcome };
        self.totals.add(&Report { attempts: [(labels, count)].into_iter().collect(), ..Report::default() });
    }

    fn at(&mut self, second: u64) {
        self.traffic.update(&self.totals, Nanos(second * 1_000_000_000));
    }

    /// Provider's attempts and failures.
    fn shown(&self) -> Option<(u64, u64)> {
        self.traffic.providers().first().map(|row| (row.attempts, row.failures))
    }
}

#[test]
fn a_provider_is_shown_for_ten_seconds_after_it_was_tried() {
    let mut node = Node::default();
    node.at(0);
    node.tried("k", "ok", 3);
    node.tried("k", "timeout", 1);
    node.at(1);
    assert_eq!(node.shown(), Some((4, 1)));
    node.tried("k", "ok", 2);
    node.at(5);
    assert_eq!(node.shown(), Some((6, 1)));
    node.at(11);
    assert_eq!(node.shown(), Some((2, 0)));
    node.at(15);
    assert_eq!(node.shown(), None);
}

#[test]
fn only_what_is_the_providers_own_fault_is_its_failure() {
    let mut node = Node::default();
    node.at(0);
    for outcome in ["ok", "limited", "refused", "error", "unreachable", "timeout"] {
        node.tried("k", outcome, 1);
    }
    node.at(1);
    assert_eq!(node.shown(), Some((6, 3)));
}

#[test]
fn what_was_counted_before_the_first_look_is_in_no_window() {
    let mut node = Node::default();
    node.tried("k", "error", 100);
    node.at(0);
    node.at(10);
    assert_eq!((node.shown(), node.traffic.rows()), (None, &[][..]));
}

#[test]
fn rows_stand_for_a_whole_window_and_then_change() {
    let mut node = Node::default();
    node.at(0);
    node.answered("gpt-4o", 200, "", 8, 90_000);
    node.answered("gpt-4o", 504, "provider_timeout", 1, 0);
    node.tried("main", "ok", 8);
    node.tried("main", "timeout", 1);
    node.tried("", "ok", 5);
    node.at(9);
    assert_eq!(node.traffic.rows(), []);
    node.at(10);
    let mut latency = vec![0; 10];
    latency[0] = 1;
    latency[9] = 8;
    let by_model = TrafficRow {
        provider: "openai".into(),
        model: "gpt-4o".into(),
        requests: 9,
        errors: [0, 0, 0, 0, 1, 0],
        latency,
        ..TrafficRow::default()
    };
    let by_key = TrafficRow {
        provider: "openai".into(),
        key: "main".into(),
        requests: 9,
        errors: [0, 0, 0, 0, 1, 0],
        ..TrafficRow::default()
    };
    assert_eq!(node.traffic.rows(), [by_model, by_key]);
    node.answered("gpt-4o", 200, "", 1, 90_000);
    node.at(19);
    assert_eq!(node.traffic.rows().len(), 2);
    node.at(20);
    assert_eq!(node.traffic.rows().iter().map(|row| row.requests).collect::<Vec<_>>(), [1]);
}

#[test]
fn answers_are_told_apart_by_class() {
    let mut node = Node::default();
    node.at(0);
    for (status, code) in [
        (429, ""),
        (429, "token_limited"),
        (401, ""),
        (403, "model_blocked"),
        (500, ""),
        (502, "provider_unreachable"),
        (503, "provider_unresolved"),
        (502, "provider_closed_connection"),
        (504, "provider_connect_timeout"),
        (404, ""),
    ] {
        node.answered("m", status, code, 1, 0);
    }
    node.at(10);
    assert_eq!(node.traffic.rows()[0].errors, [2, 1, 2, 2, 1, 0]);
    assert_eq!(node.traffic.rows()[0].requests, 10);
}

#[test]
fn updates_that_come_much_too_often_lose_nothing() {
    let mut node = Node::default();
    node.at(0);
    for part in 0..1_000 {
        node.tried("k", "ok", 1);
        node.traffic.update(&node.totals, Nanos(1_000_000_000 + part));
    }
    assert_eq!(node.shown(), Some((1_000, 0)));
    assert_eq!(node.traffic.parts.len(), PARTS_MAX);
}

#[test]
fn a_median_lies_where_half_of_the_values_are_below() {
    let check = |values: &[u64], range: std::ops::RangeInclusive<u64>| {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.record_us(*value);
        }
        assert!(range.contains(&median_us(&histogram)), "{}", median_us(&histogram));
    };
    check(&[], 0..=0);
    check(&[50], 1..=100);
    check(&[300_000, 300_000, 300_000, 9_000_000], 250_001..=500_000);
    check(&[999_000_000, 999_000_000, 1], 120_000_000..=120_000_000);
}

#[test]
fn limits_of_which_nothing_is_used_are_left_out() {
    let row = |id: &str, used| LimitRow {
        id: id.into(),
        unit: "tokens",
        ring: RingSnapshot { amount: 100, entitlement: 100, used, held: 0 },
        ..LimitRow::default()
    };
    let shown = limits(&[row("a", 0), row("b", 7)]);
    assert_eq!(
        shown,
        [LimitUse { id: "b".into(), unit: "tokens".into(), used: 7, amount: 100, ..LimitUse::default() }]
    );
    let shared = LimitRow { is_shared: true, is_valid: true, ..row("c", 0) };
    let lapsed = LimitRow { is_valid: false, ..shared.clone() };
    let entitlements = limits(&[shared, lapsed]).into_iter().map(|limit| limit.entitlement);
    assert_eq!(entitlements.collect::<Vec<_>>(), [Some(100), Some(0)]);
}
