//! Conditions, the order of routes, and draws. What follows from a route is tried with real nodes.

use super::*;
use crate::http1::{Parsed, RequestHead, parse_request};
use proptest::prelude::*;
use shared::snapshot::routing::{
    ConditionRecord, Fits, GroupRecord, HopRecord, PatternRecord, RouteRecord, RoutingRecord, RuleRecord, Subject,
    TargetRecord,
};

fn archived(record: &RoutingRecord) -> rkyv::util::AlignedVec {
    rkyv::to_bytes::<rkyv::rancor::Error>(record).unwrap()
}

fn view(bytes: &[u8]) -> &ArchivedRoutingRecord {
    rkyv::access::<ArchivedRoutingRecord, rkyv::rancor::Error>(bytes).unwrap()
}

fn condition(subject: Subject, patterns: &[(Fits, &str)]) -> ConditionRecord {
    let patterns = patterns.iter().map(|(fits, text)| PatternRecord { fits: *fits, text: (*text).to_owned() });
    ConditionRecord { subject, is_negated: false, patterns: patterns.collect() }
}

fn whole(subject: Subject, text: &str) -> ConditionRecord {
    condition(subject, &[(Fits::Whole, text)])
}

fn not(condition: ConditionRecord) -> ConditionRecord {
    ConditionRecord { is_negated: true, ..condition }
}

const NO_HOP: HopRecord = HopRecord { provider: None, model: None, key: None };

fn rule(weights: &[f64]) -> RuleRecord {
    RuleRecord {
        id: "r".to_owned(),
        targets: weights.iter().map(|weight| TargetRecord { weight: *weight, hop: NO_HOP }).collect(),
        fallbacks: Vec::new(),
        sticky_header: None,
        sticks_to_virtual_key: false,
        salt: 7,
    }
}

const HEAD: &str = "POST / HTTP/1.1\r\nhost: a\r\nX-Tier: gold\r\nx-other: 1\r\nx-tier: silver\r\nx-empty:\r\n\r\n";

/// What a request for `whole` (`model` without its provider) with [`HEAD`] looks like to `routing`.
fn with_seen<T>(routing: &ArchivedRoutingRecord, [whole, model]: [&str; 2], ask: impl FnOnce(&Seen<'_>) -> T) -> T {
    let mut head = RequestHead::default();
    assert!(matches!(parse_request(HEAD.as_bytes(), &mut head), Ok(Parsed::Complete { .. })));
    let mut seen = Seen {
        whole,
        model,
        provider: if whole == model { "" } else { "openai" },
        endpoint: "chat",
        virtual_key: None,
        team: routing.teams.first(),
        customer: None,
        fields: head.fields(),
        bytes: HEAD.as_bytes(),
        headers: &routing.headers,
        places: [NOWHERE; ROUTING_HEADERS_MAX],
    };
    seen.find_headers();
    ask(&seen)
}

#[test]
fn a_condition_holds_for_what_it_says() {
    let headers = ["x-tier", "x-absent", "x-empty"].map(str::to_owned).to_vec();
    let [tier, absent, empty] = [Subject::Header(0), Subject::Header(1), Subject::Header(2)];
    let conditions = [
        (whole(Subject::Model, "gpt-4o"), true),
        (whole(Subject::Model, "openai/gpt-4o"), true),
        (whole(Subject::Model, "gpt"), false),
        (not(whole(Subject::Model, "openai/gpt-4o")), false),
        (condition(Subject::Model, &[(Fits::Prefix, "gpt-")]), true),
        (condition(Subject::Model, &[(Fits::Suffix, "4o")]), true),
        (condition(Subject::Model, &[(Fits::Part, "-4")]), true),
        (condition(Subject::Model, &[(Fits::Whole, "a"), (Fits::Whole, "gpt-4o")]), true),
        (whole(Subject::Provider, "openai"), true),
        (whole(Subject::Endpoint, "embeddings"), false),
        (whole(Subject::TeamName, "Team"), true),
        (whole(Subject::CustomerId, ""), true),
        (not(whole(Subject::VirtualKeyId, "v")), true),
        (whole(tier, "gold"), true),
        (whole(tier, "silver"), true),
        (whole(tier, "Gold"), false),
        (not(whole(tier, "silver")), false),
        (not(whole(tier, "iron")), true),
        (condition(tier, &[]), true),
        (not(condition(tier, &[])), false),
        (whole(absent, ""), false),
        (not(whole(absent, "x")), false),
        (condition(absent, &[]), false),
        (not(condition(absent, &[])), true),
        (condition(empty, &[]), true),
        (not(whole(empty, "")), false),
    ];
    let team = GroupRecord { id: "t".to_owned(), name: "Team".to_owned() };
    let routes = conditions.iter().map(|(condition, _)| RouteRecord { rule: 0, conditions: vec![condition.clone()] });
    let bytes =
        archived(&RoutingRecord { routes: routes.collect(), headers, teams: vec![team], ..RoutingRecord::default() });
    let routing = view(&bytes);
    with_seen(routing, ["openai/gpt-4o", "gpt-4o"], |seen| {
        for (route, (condition, holds)) in routing.routes.iter().zip(&conditions) {
            assert_eq!(seen.holds(&route.conditions[0]), *holds, "{condition:?}");
        }
    });
}

#[test]
fn the_first_route_that_holds_decides_wherever_it_is_listed() {
    let never = || vec![whole(Subject::Endpoint, "embeddings")];
    let route = |rule: u32, conditions: Vec<ConditionRecord>| RouteRecord { rule, conditions };
    let bytes = archived(&RoutingRecord {
        routes: vec![
            route(10, never()),
            route(11, vec![whole(Subject::Model, "a")]),
            route(12, vec![whole(Subject::Model, "openai/b")]),
            route(13, vec![not(whole(Subject::Model, "c"))]),
            route(14, vec![whole(Subject::Model, "c")]),
        ],
        by_model: [("a", vec![1]), ("c", vec![4]), ("openai/b", vec![2])].map(|(m, r)| (m.to_owned(), r)).to_vec(),
        any_model: vec![0, 3],
        ..RoutingRecord::default()
    });
    let routing = view(&bytes);
    for (names, expected) in [
        (["a", "a"], 11),
        (["openai/a", "a"], 11),
        (["openai/b", "b"], 12),
        (["b", "b"], 13),
        (["c", "c"], 14),
        (["d", "d"], 13),
    ] {
        let found = with_seen(routing, names, |seen| first_that_holds(routing, seen).map(|rule| rule.to_native()));
        assert_eq!(found, Some(expected), "{names:?}");
    }
    let none =
        archived(&RoutingRecord { routes: vec![route(0, never())], any_model: vec![0], ..RoutingRecord::default() });
    assert!(with_seen(view(&none), ["a", "a"], |seen| first_that_holds(view(&none), seen).is_none()));
}

/// How often each target is drawn by these points.
fn counts(weights: &[f64], points: impl Iterator<Item = f64>, can: impl Fn(usize) -> bool) -> Vec<usize> {
    let bytes = archived(&RoutingRecord { rules: vec![rule(weights)], ..RoutingRecord::default() });
    let rule = &view(&bytes).rules[0];
    let position =
        |hop: &ArchivedHopRecord| rule.targets.iter().position(|target| std::ptr::eq(&raw const target.hop, hop));
    let mut counts = vec![0; weights.len()];
    for point in points {
        let target = drawn(rule, point, |hop| position(hop).is_some_and(&can)).unwrap();
        counts[position(&target.hop).unwrap()] += 1;
    }
    counts
}

#[test]
fn a_target_that_cannot_take_the_request_leaves_its_part_to_the_others() {
    let points = || (0..1_000).map(|at| f64::from(at) / 1_000.0);
    assert_eq!(counts(&[0.5, 0.25, 0.25], points(), |_| true), [500, 250, 250]);
    assert_eq!(counts(&[0.5, 0.25, 0.25], points(), |at| at > 0), [0, 500, 500]);
    assert_eq!(counts(&[0.5, 0.25, 0.25], points(), |_| false), [500, 250, 250], "a refusal says why");
    assert_eq!(counts(&[0.333, 0.333, 0.333], [1.0 - f64::EPSILON].into_iter(), |_| true), [0, 0, 1]);
}

#[test]
fn a_sticky_value_gets_its_target_again_and_a_larger_canary_keeps_those_that_it_has() {
    let on_canary = |weight: f64, salt: u64| -> Vec<usize> {
        let is_drawn = |user: &usize| {
            let point = fraction(mixed(hash_of(format!("user-{user}").as_bytes()) ^ salt));
            counts(&[1.0 - weight, weight], std::iter::once(point), |_| true)[1] == 1
        };
        (0..2_000).filter(is_drawn).collect()
    };
    let (small, large) = (on_canary(0.05, 1), on_canary(0.2, 1));
    assert_eq!(small, on_canary(0.05, 1));
    assert!((60..140).contains(&small.len()) && (320..480).contains(&large.len()), "{} {}", small.len(), large.len());
    assert!(small.iter().all(|user| large.contains(user)));
    let other = on_canary(0.05, 2);
    let both = other.iter().filter(|user| small.contains(user)).count();
    assert!(both < 20, "{both} of {} are in the canaries of two rules", small.len());
}

/// Numbers that look drawn, the same in every run (splitmix64).
fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    (1..).map(move |at: u64| {
        let mut number = seed.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    })
}

proptest! {
    // One seed, so that bounds that chance could exceed are met or missed for good.
    #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn targets_are_drawn_in_the_proportion_of_their_weights(
        parts in proptest::collection::vec(0_u32..100, 1..8), seed: u64,
    ) {
        const DRAWS: usize = 10_000;
        let sum: u32 = parts.iter().sum();
        prop_assume!(sum > 0);
        let weights: Vec<f64> = parts.iter().map(|part| f64::from(*part) / f64::from(sum)).collect();
        let found = counts(&weights, numbers(seed).take(DRAWS).map(fraction), |_| true);
        for (weight, count) in weights.iter().zip(found) {
            let expected = weight * DRAWS as f64;
            let deviation = (expected * (1.0 - weight)).sqrt();
            // Five standard deviations: once in two million draws of a target.
            prop_assert!((count as f64 - expected).abs() <= 5.0 * deviation + 1.0, "{count} of {expected}");
            prop_assert!(*weight > 0.0 || count == 0, "a weight of zero is never drawn");
        }
    }
}
