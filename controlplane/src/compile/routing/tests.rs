//! Rules as files have them, and the routes that they become.

use super::super::tests::compiled;
use super::*;

fn routing_of(rules: &str) -> RoutingRecord {
    routed(rules).0
}

fn routed(rules: &str) -> (RoutingRecord, Vec<String>) {
    let text = format!(
        r#"{{"version": 1,
        "providers": {{"openai": {{"keys": [{{"name": "on", "value": "env.A"}},
            {{"name": "off", "value": "env.B", "enabled": false}}]}}, "ollama": {{}}}},
        "governance": {{"routing_rules": [{rules}],
            "customers": [{{"id": "c", "name": "C"}}, {{"id": "d", "name": "D"}}],
            "teams": [{{"id": "s", "name": "S"}}, {{"id": "t", "name": "T", "customer_id": "d"}}],
            "virtual_keys": [{{"id": "v", "name": "v", "value": "sk-bf-v", "team_id": "t"}},
                {{"id": "w", "name": "w", "value": "sk-bf-w", "customer_id": "c"}},
                {{"id": "x", "name": "x", "value": "sk-bf-x"}}]}}}}"#
    );
    let compiled = compiled(&text);
    let groups: Vec<_> = compiled.record.virtual_keys.iter().map(|key| (key.team, key.customer)).collect();
    assert_eq!(groups, [(Some(1), Some(1)), (None, Some(0)), (None, None)]);
    (compiled.record.routing, compiled.warnings)
}

#[test]
fn the_narrower_scope_comes_first_and_then_the_lower_priority_and_then_the_lower_id() {
    let record = routing_of(
        r#"{"name": "global", "targets": [{"model": "m"}]},
           {"name": "b", "scope": "team", "scope_id": "t", "priority": 1, "targets": [{"model": "m"}]},
           {"name": "a", "scope": "team", "scope_id": "t", "priority": 1, "targets": [{"model": "m"}]},
           {"name": "z", "scope": "team", "scope_id": "s", "targets": [{"model": "m"}]},
           {"name": "key", "scope": "virtual_key", "scope_id": "v", "priority": 9, "targets": [{"model": "m"}]},
           {"name": "off", "enabled": false, "targets": [{"model": "m"}]},
           {"name": "customer", "scope": "customer", "scope_id": "c", "targets": [{"model": "m"}]}"#,
    );
    let ids: Vec<_> = record.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["key", "z", "a", "b", "customer", "global"]);
    assert_eq!(record.any_model, [0, 1, 2, 3, 4, 5]);
    assert_eq!(record.routes[0].conditions[0].subject, Subject::VirtualKeyId);
    assert!(record.routes[5].conditions.is_empty());
    assert_eq!(record.rules.iter().map(|rule| rule.salt).collect::<std::collections::BTreeSet<_>>().len(), 6);
}

#[test]
fn routes_are_found_by_the_models_that_they_name() {
    let record = routing_of(
        r#"{"name": "a", "targets": [{"model": "m"}], "match": {"models": ["y", "x", "x"]}},
           {"name": "b", "targets": [{"model": "m"}], "match": {"models": ["x", "z*"]}},
           {"name": "c", "targets": [{"model": "m"}], "cel_expression": "model == 'x' || provider == 'openai'"},
           {"name": "d", "targets": [{"model": "m"}], "cel_expression": "model != 'x'"},
           {"name": "e", "targets": [{"model": "m"}], "cel_expression": "false"}"#,
    );
    let by_model: Vec<_> = record.by_model.iter().map(|(model, routes)| (model.as_str(), &routes[..])).collect();
    assert_eq!(by_model, [("x", &[0, 2][..]), ("y", &[0])]);
    assert_eq!(record.any_model, [1, 3, 4]);
    let rules: Vec<_> = record.routes.iter().map(|route| route.rule).collect();
    assert_eq!((rules, record.rules.len()), (vec![0, 1, 2, 2, 3], 5));
}

#[test]
fn targets_lead_by_index_and_a_key_that_is_off_leads_nowhere() {
    let (record, warnings) = routed(
        r#"{"name": "a", "match": {"headers": {"x-b": "1", "x-a": "2"}}, "sticky": {"header": "x-a", "virtual_key": true},
            "targets": [{"provider": "openai", "key_id": "on", "weight": 1}, {"weight": 0}],
            "fallbacks": [{"provider": "openai", "key_id": "off"}, "ollama/l"]}"#,
    );
    let hop = |provider, model: Option<&str>, key| HopRecord { provider, model: model.map(str::to_owned), key };
    let rule = &record.rules[0];
    assert_eq!(rule.targets, [TargetRecord { weight: 1.0, hop: hop(Some(0), None, Some(0)) }]);
    assert_eq!(rule.fallbacks, [hop(Some(0), None, Some(NO_KEY)), hop(Some(1), Some("l"), None)]);
    assert!(rule.sticks_to_virtual_key);
    let sticky = rule.sticky_header.and_then(|at| record.headers.get(at as usize));
    assert_eq!((sticky.map(String::as_str), record.headers.len()), (Some("x-a"), 2));
    assert!(warnings.iter().any(|warning| warning.contains("wants key off of provider openai")), "{warnings:?}");
}
