use super::*;
use crate::compile::tests::compiled;
use crate::failover::tests::{at, member};
use crate::gossip::values::{LimitUse, NodeValues};
use crate::member::Health;
use proptest::prelude::*;
use shared::limit::UNITS_MAX;
use shared::told::{ProviderLimits, Told};
use std::time::Duration;

/// One provider, whose only key has 100 requests and 1,000 tokens a minute, and 500 requests an hour.
const LIMITED: &str = r#"{
    "providers": {"one": {"keys": [{"name": "k", "value": "v", "models": ["*"], "weight": 1, "rate_limit_id": "minute"}],
        "network_config": {"base_url": "http://a"}, "custom_provider_config": {"base_provider_type": "openai"}}},
    "governance": {
        "rate_limits": [
            {"id": "minute", "request_max_limit": 100, "request_reset_duration": "1m",
                "token_max_limit": 1000, "token_reset_duration": "1m"},
            {"id": "hour", "request_max_limit": 500, "request_reset_duration": "1h"}],
        "providers": [{"name": "one", "rate_limit_id": "hour"}]}}"#;

const SECOND: Duration = Duration::from_secs(1);

fn configured() -> Learned {
    let mut learned = Learned::default();
    learned.configure(&compiled(LIMITED).record);
    learned
}

fn key() -> KeyLabels {
    KeyLabels { provider: "one".into(), key: "k".into() }
}

/// What an answer said of requests.
fn said(limit: u64, remaining: u64, as_of: Nanos) -> KeyTold {
    let requests = Told { limit: Some(limit), remaining: Some(remaining), reset_after: Some(60 * SECOND) };
    let limits = ProviderLimits { requests, ..ProviderLimits::default() };
    KeyTold { key: key(), model: "m".into(), limits, as_of, refused_for: None }
}

/// A node that ticks: at each step it has used so many requests of the limit of a minute.
struct Node {
    learned: Learned,
    now_ms: u64,
}

impl Node {
    fn new() -> Self {
        Self { learned: configured(), now_ms: 100_000 }
    }

    fn now(&self) -> Nanos {
        at(self.now_ms)
    }

    /// Lets time pass while `used` is what the rings show.
    fn pass(&mut self, milliseconds: u64, used: u64) {
        for _ in 0..milliseconds / 50 {
            self.now_ms += 50;
            self.learned.compare(|_, _| Some(used), at(self.now_ms));
        }
    }

    fn told(&mut self, told: &KeyTold) {
        self.learned.take(told, self.now());
    }

    fn requests(&self) -> u64 {
        self.learned.effective("minute/requests", "requests", 100, self.now())
    }

    fn why(&self) -> Option<(&'static str, Option<u64>)> {
        self.learned.shown(self.now()).first().map(|limit| (limit.why, limit.remaining_ms))
    }

    fn hear(&mut self, members: Vec<crate::member::Member>) {
        let now = self.now();
        self.learned.hear(&View { members, ..View::default() }, now);
    }
}

/// Another node, that has used so many requests.
fn other(used: u64, told: Vec<ToldRow>) -> crate::member::Member {
    let limits = vec![LimitUse {
        id: "minute/requests".into(),
        unit: "requests".into(),
        used,
        amount: 100,
        ..LimitUse::default()
    }];
    member("b", Health::Healthy, NodeValues { limits, told, ..NodeValues::default() })
}

#[test]
fn nothing_said_changes_nothing() {
    let mut node = Node::new();
    node.pass(2_000, 70);
    assert_eq!((node.requests(), node.why()), (100, None));
    assert_eq!(node.learned.compared().count(), 0);
    assert_eq!(node.learned.effective("unknown", "requests", 7, node.now()), 7);
}

#[test]
fn a_providers_lower_limit_stays_until_it_says_otherwise() {
    let mut node = Node::new();
    node.told(&said(80, 80, at(100_000)));
    node.pass(50, 0);
    assert_eq!((node.requests(), node.why()), (80, Some(("provider_limit", None))));
    node.pass(600_000, 0);
    assert_eq!(node.requests(), 80);
    node.told(&said(90, 90, node.now()));
    assert_eq!(node.requests(), 90);
    node.told(&said(1_000, 1_000, at(node.now_ms + 10)));
    assert_eq!((node.requests(), node.why()), (100, None), "never above what is configured");
}

#[test]
fn what_somebody_else_uses_is_taken_off_until_the_provider_has_it_back() {
    let mut node = Node::new();
    node.told(&said(100, 30, node.now()));
    node.pass(50, 10);
    assert_eq!((node.requests(), node.why()), (40, Some(("foreign_use", Some(59_950)))));
    node.pass(59_850, 10);
    assert_eq!(node.requests(), 40);
    node.pass(200, 10);
    assert_eq!((node.requests(), node.why()), (100, None));
}

#[test]
fn what_the_others_used_is_not_foreign() {
    let mut node = Node::new();
    node.told(&said(100, 90, node.now()));
    node.hear(vec![other(20, Vec::new())]);
    node.pass(2_000, 10);
    node.hear(vec![other(40, Vec::new())]);
    node.told(&said(100, 30, node.now()));
    node.pass(500, 10);
    assert_eq!(node.requests(), 100, "as many may be on their way as have just come");
    node.hear(vec![other(60, Vec::new())]);
    node.pass(1_500, 10);
    assert_eq!(node.requests(), 100);
    node.told(&said(100, 0, node.now()));
    node.pass(100, 10);
    assert_eq!(node.requests(), 71, "so many cannot be");
    node.pass(2_000, 10);
    assert_eq!(node.requests(), 71, "one more is noise");
}

#[test]
fn our_own_use_counts_as_it_was_when_the_word_was_true() {
    let mut node = Node::new();
    node.told(&said(100, 90, node.now()));
    node.pass(2_000, 10);
    let asked_at = node.now();
    node.pass(10_000, 50);
    // An answer that took ten seconds: of its time 40 are foreign, of now there are none.
    node.told(&said(100, 50, asked_at));
    node.pass(100, 50);
    assert_eq!(node.requests(), 100, "the first count after it is of later");
    let mut node = Node::new();
    node.told(&said(100, 90, node.now()));
    node.pass(4_000, 10);
    let asked_at = at(node.now_ms - 1_000);
    node.pass(10_000, 50);
    node.told(&said(100, 50, asked_at));
    node.pass(100, 50);
    assert_eq!(node.requests(), 60);
}

#[test]
fn a_few_requests_on_their_way_change_nothing() {
    let mut node = Node::new();
    for remaining in [47, 48, 50, 47] {
        node.told(&said(100, remaining, node.now()));
        node.pass(2_000, 50);
        assert_eq!(node.requests(), 100, "{remaining}");
    }
    let amounts: Vec<u64> = [30, 31, 30, 29, 30, 49]
        .into_iter()
        .map(|remaining| {
            node.told(&said(100, remaining, node.now()));
            node.pass(2_000, 50);
            node.requests()
        })
        .collect();
    assert_eq!(amounts, [80, 80, 80, 80, 80, 100], "nor does the noise around what is foreign");
}

#[test]
fn a_refusal_takes_all_that_was_believed_to_be_left_until_its_time() {
    let mut node = Node::new();
    let refused =
        KeyTold { refused_for: Some(5 * SECOND), limits: ProviderLimits::default(), ..said(1, 0, node.now()) };
    node.told(&refused);
    node.pass(50, 20);
    assert_eq!((node.requests(), node.why()), (20, Some(("refused", Some(4_950)))));
    node.pass(5_000, 20);
    assert_eq!(node.requests(), 100);
}

#[test]
fn a_refusal_for_want_of_tokens_is_none_of_requests() {
    let mut node = Node::new();
    let tokens = Told { limit: Some(1_000), remaining: Some(40), reset_after: Some(9 * SECOND) };
    let limits = ProviderLimits { tokens, ..said(100, 90, node.now()).limits };
    node.told(&KeyTold { refused_for: Some(5 * SECOND), limits, ..said(1, 0, node.now()) });
    node.pass(50, 10);
    assert_eq!(node.requests(), 100);
    assert_eq!(node.learned.effective("minute/tokens", "tokens", 1_000, node.now()), 10);
    node.pass(5_000, 10);
    assert_eq!(
        node.learned.effective("minute/tokens", "tokens", 1_000, node.now()),
        50,
        "what it counts and we do not"
    );
}

#[test]
fn an_answer_after_a_refusal_ends_it() {
    let mut node = Node::new();
    node.told(&KeyTold { refused_for: Some(60 * SECOND), ..said(100, 0, node.now()) });
    node.pass(2_000, 20);
    assert_eq!(node.requests(), 20);
    node.told(&said(100, 79, node.now()));
    node.pass(2_000, 21);
    assert_eq!(node.requests(), 100);
}

#[test]
fn a_minutes_figure_never_touches_the_limit_of_an_hour() {
    let mut node = Node::new();
    node.told(&said(80, 0, node.now()));
    node.pass(2_000, 10);
    assert_eq!(node.learned.effective("hour/requests", "requests", 500, node.now()), 500);
    // 400 a day, of which one was used: full again after a four-hundredth of a day.
    let mut told = said(400, 399, node.now());
    told.limits.requests.reset_after = Some(216 * SECOND);
    node.told(&told);
    assert_eq!(node.learned.effective("hour/requests", "requests", 500, node.now()), 400, "a day's does");
}

#[test]
fn an_amount_that_is_not_configured_is_the_providers() {
    let mut learned = Learned::default();
    learned
        .configure(&compiled(&LIMITED.replace("\"request_max_limit\": 100", "\"request_max_limit\": \"auto\"")).record);
    let mut node = Node { learned, now_ms: 100_000 };
    let requests = |node: &Node| node.learned.effective("minute/requests", "requests", UNITS_MAX, node.now());
    assert_eq!((requests(&node), node.why()), (UNITS_MAX, Some(("not_told", None))));
    // Some tell only what remains.
    let mut told = said(1, 60, node.now());
    told.limits.requests.limit = None;
    node.told(&told);
    node.pass(2_000, 10);
    assert_eq!(requests(&node), 70);
    told.limits.requests.remaining = Some(30);
    told.as_of = node.now();
    node.told(&told);
    node.pass(2_000, 12);
    assert_eq!(requests(&node), 42);
    node.told(&said(80, 66, node.now()));
    node.pass(2_000, 13);
    assert_eq!((requests(&node), node.why()), (80, Some(("provider_limit", None))));
}

#[test]
fn a_keys_limit_has_the_sum_of_its_models() {
    let mut node = Node::new();
    node.told(&said(60, 50, node.now()));
    assert_eq!(node.requests(), 60);
    node.told(&KeyTold { model: "n".into(), ..said(30, 30, node.now()) });
    node.pass(2_000, 10);
    assert_eq!(node.requests(), 90);
    // One model is refused, the other is not.
    node.told(&KeyTold { refused_for: Some(60 * SECOND), ..said(60, 0, node.now()) });
    node.pass(100, 10);
    assert_eq!((node.requests(), node.why().map(|(why, _)| why)), (40, Some("foreign_use")));
    node.told(&KeyTold { model: "n".into(), refused_for: Some(60 * SECOND), ..said(30, 0, node.now()) });
    node.pass(100, 10);
    assert_eq!(node.requests(), 10);
}

#[test]
fn one_nodes_word_serves_all() {
    let (mut told, mut other_node) = (Node::new(), Node::new());
    told.told(&said(100, 20, told.now()));
    told.pass(500, 10);
    let rows = told.learned.published(7_000, told.now());
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].age_ms, rows[0].requests.remaining), (500, Some(20)));
    // Its own use is 10 as well, and gossip has taken a while.
    other_node.pass(600, 10);
    other_node.hear(vec![other(10, rows.clone())]);
    other_node.pass(2_000, 10);
    assert_eq!(other_node.requests(), 40);
    let until = other_node.why();
    other_node.hear(vec![other(10, rows)]);
    other_node.pass(2_000, 10);
    assert_eq!(other_node.why(), until.map(|(why, left)| (why, left.map(|left| left - 2_000))), "heard once");
}

#[test]
fn the_newest_word_stands_whoever_was_told_it() {
    let mut node = Node::new();
    node.told(&said(70, 70, node.now()));
    let row = |number, age_ms, limit| {
        let requests = crate::gossip::values::ToldFigures { limit: Some(limit), ..Default::default() };
        ToldRow {
            provider: "one".into(),
            key: "k".into(),
            model: "m".into(),
            number,
            age_ms,
            requests,
            ..ToldRow::default()
        }
    };
    node.hear(vec![other(0, vec![row(1, 2_000, 50)])]);
    assert_eq!(node.requests(), 70, "it is older");
    node.now_ms += 5_000;
    node.hear(vec![other(0, vec![row(2, 2_000, 50)])]);
    assert_eq!(node.requests(), 50);
    assert!(node.learned.published(1, node.now()).is_empty(), "the other node says it");
    node.hear(vec![other(0, vec![row(3, 0, 0)])]);
    assert_eq!(node.requests(), 50, "no limit is nothing");
}

#[test]
fn of_two_nodes_words_without_an_order_the_one_that_leaves_less_stands() {
    let (mut node, mut other_node) = (Node::new(), Node::new());
    other_node.told(&said(100, 98, other_node.now()));
    let rows = other_node.learned.published(7_000, other_node.now());
    // Said 300 ms later, but gossip takes a second to bring the older one.
    node.now_ms += 300;
    node.told(&said(100, 50, node.now()));
    node.pass(700, 10);
    node.hear(vec![other(0, rows)]);
    assert_eq!(node.learned.published(1, node.now()).len(), 1, "the others still hear of it");
    node.pass(2_000, 10);
    assert_eq!(node.requests(), 60, "40 are foreign");
    // What is later without a doubt stands, although it leaves more.
    other_node.now_ms += 5_000;
    other_node.told(&said(100, 98, other_node.now()));
    node.hear(vec![other(1, other_node.learned.published(7_000, other_node.now()))]);
    assert!(node.learned.published(1, node.now()).is_empty(), "the other node says it");
}

#[test]
fn what_is_published_stays_the_same_text_and_soon_says_less() {
    let mut node = Node::new();
    node.told(&said(80, 20, node.now()));
    let first = node.learned.published(1, node.now());
    node.now_ms += 9_000;
    assert_eq!(node.learned.published(1, node.now()), first);
    node.now_ms += 2_000;
    let later = node.learned.published(1, node.now());
    assert_eq!((later[0].requests.limit, later[0].requests.remaining), (Some(80), None));
    assert_ne!(later[0].number, first[0].number);
    node.now_ms += 900_000;
    assert_eq!(node.learned.published(1, node.now()), later);
}

#[test]
fn another_configuration_keeps_what_was_learned_of_the_same_limit() {
    let mut node = Node::new();
    node.told(&said(80, 80, node.now()));
    node.learned.configure(&compiled(&LIMITED.replace(r#"_limit": 100,"#, r#"_limit": 90,"#)).record);
    assert_eq!(node.learned.effective("minute/requests", "requests", 90, node.now()), 80);
    let elsewhere = LIMITED.replace(r#", "rate_limit_id": "minute""#, "");
    node.learned.configure(&compiled(&elsewhere).record);
    assert_eq!(node.learned.effective("minute/requests", "requests", 90, node.now()), 90);
    node.learned.configure(&compiled(LIMITED).record);
    assert_eq!(node.requests(), 80, "the provider limit of the key is still known");
}

#[test]
fn a_peer_with_endless_rows_stays_within_bounds() {
    let mut node = Node::new();
    let rows = (0..5_000).map(|model| ToldRow {
        provider: "one".into(),
        key: "k".into(),
        model: model.to_string(),
        number: 1,
        ..ToldRow::default()
    });
    let rows: Vec<ToldRow> = rows.collect();
    let members = (0..20).map(|at| {
        let told = rows.iter().skip(at * 200).cloned().collect();
        member(&at.to_string(), Health::Healthy, NodeValues { told, ..NodeValues::default() })
    });
    node.hear(members.collect());
    node.pass(2_000, 10);
    assert_eq!(node.requests(), 100);
    assert!(node.learned.figures.len() <= 1_024);
}

proptest! {
    #[test]
    fn whatever_is_said_no_limit_is_raised(
        words in prop::collection::vec((0_u64..300, 0_u64..300, 0_u64..5_000, prop::option::of(0_u64..20)), 1..40),
        used in 0_u64..200,
    ) {
        let mut node = Node::new();
        for (limit, remaining, age_ms, refused) in words {
            let mut told = said(limit.max(1), remaining, at(node.now_ms - age_ms));
            told.refused_for = refused.map(Duration::from_secs);
            node.told(&told);
            node.pass(400, used);
            assert!(node.requests() <= 100);
        }
        node.pass(120_000, used);
        let base = node.learned.shown(node.now()).iter().all(|limit| limit.why == "provider_limit");
        assert!(base, "all but the provider's own limit is over");
    }
}
