//! Routing rules: what they come to, and what is wrong with them.

use super::{lines, loaded, refused};
use crate::config::model::{Condition, Hop, Pattern, RoutingRule, RuleScope, Sticky, Subject};

/// The rules of a configuration with two providers, a virtual key, a team and a customer.
fn document(rules: &str) -> String {
    format!(
        r#"{{"version": 1,
"providers": {{"openai": {{"keys": [{{"name": "one", "id": "k-1", "value": "env.OPENAI_API_KEY"}}]}}, "ollama": {{}}}},
"governance": {{
"virtual_keys": [{{"id": "v", "name": "App", "value": "sk-bf-v", "team_id": "t"}}],
"teams": [{{"id": "t", "name": "T", "customer_id": "c"}}], "customers": [{{"id": "c", "name": "C"}}],
"routing_rules": [
{rules}]}}}}"#
    )
}

#[track_caller]
fn rules(rules: &str) -> Vec<RoutingRule> {
    loaded(&document(rules)).config.governance.routing_rules
}

/// The one rule here.
#[track_caller]
fn rule(text: &str) -> RoutingRule {
    rules(text).pop().expect("a rule")
}

/// Loads rules, which begin at line 7, with exactly these faults.
#[track_caller]
fn check(rules: &str, expected: &[&str]) {
    let printed = lines(&refused(&document(rules)));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{printed}");
    for (line, start) in lines.iter().zip(expected) {
        assert!(line.starts_with(start), "{printed}");
    }
}

#[test]
fn a_rule_that_says_little_is_for_everybody_and_for_every_model() {
    let rule = rule(r#"{"name": "n", "targets": [{"provider": "ollama"}]}"#);
    assert_eq!((rule.id.as_str(), rule.is_enabled, rule.priority), ("n", true, 0));
    assert_eq!((rule.scope, rule.alternatives), (RuleScope::Global, vec![Vec::new()]));
    assert_eq!((rule.fallbacks.len(), rule.sticky), (0, Sticky::default()));
    assert_eq!(rule.targets[0].hop.provider.as_deref(), Some("ollama"));
    assert!((rule.targets[0].weight - 1.0).abs() < 1e-9);
}

#[test]
fn a_match_and_an_expression_come_to_the_same() {
    let target = r#""targets": [{"model": "m"}]"#;
    let typed = format!(
        r#"{{"name": "n", {target}, "match": {{"models": ["a", "b*"], "virtual_keys": ["v"], "teams": ["t"],
            "customers": ["c"], "endpoints": ["embeddings"], "providers": ["openai"],
            "headers": {{"X-Tier": "gold", "x-any": "*"}}}}}}"#
    );
    let conditions = rule(&typed).alternatives.pop().expect("an alternative");
    let one = |subject: Subject, text: &str| Condition {
        subject,
        is_negated: false,
        patterns: vec![Pattern::Equal(text.to_owned())],
    };
    assert_eq!(
        conditions,
        [
            Condition {
                patterns: vec![Pattern::Equal("a".to_owned()), Pattern::Prefix("b".to_owned())],
                ..one(Subject::Model, "")
            },
            one(Subject::Provider, "openai"),
            one(Subject::VirtualKeyId, "v"),
            one(Subject::TeamId, "t"),
            one(Subject::CustomerId, "c"),
            one(Subject::Endpoint, "embeddings"),
            one(Subject::Header("x-tier".to_owned()), "gold"),
            Condition {
                patterns: vec![Pattern::Contains(String::new())],
                ..one(Subject::Header("x-any".to_owned()), "")
            },
        ]
    );
    let expression = format!(
        r#"{{"name": "n", {target}, "cel_expression": "headers['x-tier'] == 'gold' && virtual_key_id == 'v'"}}"#
    );
    assert_eq!(
        rule(&expression).alternatives,
        [[one(Subject::Header("x-tier".to_owned()), "gold"), one(Subject::VirtualKeyId, "v")]]
    );
}

#[test]
fn a_key_is_found_by_its_name_and_by_its_id() {
    let named = r#"{"name": "n", "targets": [{"provider": "openai", "key_id": "one"}],
        "fallbacks": ["openai/", "ollama/a/b", {"provider": "openai", "provider_key_name": "k-1"}]}"#;
    let rule = rule(named);
    let hop = |provider: &str, model: Option<&str>, key: Option<&str>| Hop {
        provider: Some(provider.to_owned()),
        model: model.map(str::to_owned),
        key: key.map(str::to_owned),
    };
    assert_eq!(rule.targets[0].hop, hop("openai", None, Some("k-1")));
    assert_eq!(
        rule.fallbacks,
        [hop("openai", None, None), hop("ollama", Some("a/b"), None), hop("openai", None, Some("k-1"))]
    );
}

#[test]
fn a_canary_takes_its_part_from_all_targets() {
    let weights = |text: &str| rule(text).targets.iter().map(|target| target.weight).collect::<Vec<_>>();
    let are = |found: Vec<f64>, expected: &[f64]| {
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9)
    };
    let canary = r#""canary": {"model": "new", "percent": 5}"#;
    assert!(are(weights(&format!(r#"{{"name": "n", {canary}}}"#)), &[0.95, 0.05]));
    let two = r#""targets": [{"weight": 0.6}, {"provider": "ollama", "weight": 0.4}]"#;
    assert!(are(weights(&format!(r#"{{"name": "n", {two}, {canary}}}"#)), &[0.57, 0.38, 0.05]));
}

#[test]
fn weights_sum_to_one_as_people_write_it() {
    let with = |weights: &[&str]| {
        let targets: Vec<_> = weights.iter().map(|weight| format!(r#"{{"weight": {weight}}}"#)).collect();
        format!(r#"{{"name": "n", "targets": [{}]}}"#, targets.join(", "))
    };
    for good in [&["1"][..], &["0.7", "0.2", "0.1"], &["0.333", "0.333", "0.333"], &["0", "1"], &["0.95", "5e-2"]] {
        assert_eq!(rule(&with(good)).targets.len(), good.len());
    }
    for (bad, sum) in [(&["0.5"][..], "0.5"), (&["0.7", "0.2"], "0.9"), (&["0.7", "0.7"], "1.4"), (&["0", "0"], "0")] {
        let expected = format!(
            "7:26 governance.routing_rules[0].targets: the weights sum to {sum}, expected weights that sum to 1"
        );
        check(&with(bad), &[&expected]);
    }
    check(
        r#"{"name": "n", "targets": [{"model": "a"}, {"weight": 1}]}"#,
        &["7:26 governance.routing_rules[0].targets: a target has no weight"],
    );
}

#[test]
fn what_does_not_exist_is_named_with_its_place_and_the_nearest_name() {
    check(
        r#"{"name": "a", "scope": "team", "scope_id": "tt", "targets": [{"provider": "opnai"}]},
{"name": "b", "targets": [{"provider": "openai", "key_id": "oen"}], "fallbacks": ["olama/x"]},
{"name": "c", "targets": [{"model": "m"}], "match": {"virtual_keys": ["App"], "providers": ["openia"]}},
{"name": "d", "targets": [{"model": "m"}], "cel_expression": "virtual_key_name == 'Ap' && team_name == 'any'"}"#,
        &[
            "7:44 governance.routing_rules[0].scope_id: there is no team \"tt\", expected one of the 1 declared, did you mean \"t\"?",
            "7:75 governance.routing_rules[0].targets[0].provider: there is no provider \"opnai\", expected one of the 2 declared, did you mean \"openai\"?",
            "8:60 governance.routing_rules[1].targets[0].key_id: there is no key of openai \"oen\", expected one of the 2 declared, did you mean \"one\"?",
            "8:83 governance.routing_rules[1].fallbacks[0]: there is no provider \"olama\", expected one of the 2 declared, did you mean \"ollama\"?",
            "9:71 governance.routing_rules[2].match.virtual_keys[0]: there is no virtual key \"App\"",
            "9:93 governance.routing_rules[2].match.providers[0]: there is no provider \"openia\", expected one of the 2 declared, did you mean \"openai\"?",
            "10:62 governance.routing_rules[3].cel_expression: there is no virtual key name \"Ap\", expected one of the 1 declared, did you mean \"App\"?",
        ],
    );
}

#[test]
fn what_would_lead_elsewhere_than_meant_is_refused() {
    check(
        r#"{"name": "a", "targets": [{"model": "openai/gpt-4o"}]},
{"name": "a", "targets": [{"key_id": "one"}]},
{"targets": [{"model": "m"}]},
{"name": "d", "targets": []},
{"name": "e"},
{"name": "f", "targets": [{"model": "m"}], "scope": "team"},
{"name": "g", "targets": [{"model": "m"}], "scope_id": "t"},
{"name": "h", "targets": [{"model": "m"}], "chain_rule": true},
{"name": "i", "targets": [{"model": "m"}], "match": {}, "cel_expression": "true"},
{"name": "j", "targets": [{"model": "m"}], "match": {"models": []}},
{"name": "k", "targets": [{"model": "m"}], "match": {"headers": {"x y": "z"}}},
{"name": "l", "targets": [{"model": "m"}], "fallbacks": ["gpt-4o", {"model": "m"}]},
{"name": "m", "canary": {"percent": 5}},
{"name": "n", "targets": [{"model": "m"}], "sticky": {}},
{"name": "o", "targets": [{"model": "m"}], "cel_expression": "budget_used > 85"},
{"name": "p", "targets": [{"model": "m"}], "match": {"model": "m"}}"#,
        &[
            "7:37 governance.routing_rules[0].targets[0].model: a model with a / may name a provider or not, expected the model's own name, and \"provider\" beside it",
            "8:10 governance.routing_rules[1].name: a second routing rule \"a\", expected a name of its own",
            "8:38 governance.routing_rules[1].targets[0].key_id: a key of which provider is not said, expected \"provider\"",
            "9:1 governance.routing_rules[2]: \"name\" is missing",
            "10:26 governance.routing_rules[3].targets: there is no target, expected at least one",
            "11:1 governance.routing_rules[4]: \"targets\" is missing",
            "12:1 governance.routing_rules[5]: \"scope_id\" is missing",
            "13:56 governance.routing_rules[6].scope_id: belongs to another scope than global",
            "14:58 governance.routing_rules[7].chain_rule: rules are not chained on this node",
            "15:75 governance.routing_rules[8].cel_expression: there is a \"match\" as well, expected one of them",
            "16:64 governance.routing_rules[9].match.models: an empty list fits nothing",
            "17:66 governance.routing_rules[10].match.headers.\"x y\": not a header name",
            "18:58 governance.routing_rules[11].fallbacks[0]: names no provider, expected \"PROVIDER/MODEL\"",
            "18:68 governance.routing_rules[11].fallbacks[1]: \"provider\" is missing",
            "19:25 governance.routing_rules[12].canary: leads nowhere else",
            "20:54 governance.routing_rules[13].sticky: by nothing",
            "21:62 governance.routing_rules[14].cel_expression: at character 1: `budget_used` is not known here, expected model, provider,",
            "22:54 governance.routing_rules[15].match.model: unknown field, did you mean \"models\"?",
        ],
    );
}

#[test]
fn the_headers_and_alternatives_of_all_rules_have_bounds() {
    let header = |at: usize| {
        format!(r#"{{"name": "r{at}", "targets": [{{"model": "m"}}], "match": {{"headers": {{"x-{at}": "a"}}}}}}"#)
    };
    let many = |count: usize| (0..count).map(header).collect::<Vec<_>>().join(",");
    assert_eq!(rules(&many(32)).len(), 32);
    check(&many(33), &["6:18 governance.routing_rules: look at 33 different headers, expected at most 32"]);
    let or = |at: usize| {
        let expression = vec!["model == 'm'"; 16].join(" || ");
        format!(r#"{{"name": "r{at}", "targets": [{{"model": "m"}}], "cel_expression": "{expression}"}}"#)
    };
    let many = (0..126).map(or).collect::<Vec<_>>().join(",");
    check(&many, &["6:18 governance.routing_rules: come to 2016 alternatives, expected at most 2000"]);
}
