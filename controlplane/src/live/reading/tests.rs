use super::super::split::split;
use super::*;
use crate::compile::tests::facts;
use serde_json::json;

fn reading() -> Reading {
    Reading { local: Local::default(), sealer: None, facts: Arc::new(facts()) }
}

fn entities(document: &Value) -> Entities {
    split(&document.to_string()).unwrap().entities
}

fn document() -> Value {
    json!({
        "providers": {"openai": {"keys": [{"name": "a", "value": "sk-a"}, {"name": "b", "id": "id-b", "value": "sk-b"}]}},
        "governance": {
            "rate_limits": [{"id": "r", "request_max_limit": 1, "request_reset_duration": "1m"}],
            "virtual_keys": [
                {"id": "one", "name": "one", "value": "sk-bf-1", "rate_limit_id": "r"},
                {"id": "two", "name": "two", "value": "sk-bf-2",
                 "provider_configs": [{"provider": "openai", "allowed_models": ["*"], "key_ids": ["b"]}]}
            ]
        }
    })
}

/// What changes, as an entity's id and its new value; `Null` removes it.
fn changed(before: &Read, changes: &[(&str, Value)]) -> Arc<Entities> {
    let mut entities = (*before.entities).clone();
    for (id, value) in changes {
        let id: EntityId = id.parse().unwrap();
        match value {
            Value::Null => drop(entities.remove(&id)),
            value => drop(entities.insert(id, Arc::new(value.clone()))),
        }
    }
    Arc::new(entities)
}

fn first() -> Read {
    reading().read(&Arc::new(entities(&document())), None).unwrap_or_else(|faults| panic!("{faults:?}")).0
}

fn pointers(outcome: Outcome) -> Vec<String> {
    let faults = outcome.err().expect("faults");
    faults.iter().map(|fault| format!("{}{}", fault.id.as_ref().unwrap(), fault.pointer)).collect()
}

fn virtual_key(id: &str, name: &str, value: &str) -> Value {
    json!({"id": id, "name": name, "value": value, "rate_limit_id": "r"})
}

/// Changes of every kind, one after the other.
fn steps() -> Vec<Vec<(&'static str, Value)>> {
    vec![
        vec![("virtual_key/three", virtual_key("three", "three", "sk-bf-3"))],
        vec![("virtual_key/one", virtual_key("one", "uno", "sk-bf-1")), ("virtual_key/two", Value::Null)],
        vec![("rate_limit/s", json!({"id": "s", "request_max_limit": 5, "request_reset_duration": "1h"}))],
        vec![("virtual_key/a", virtual_key("a", "a", "sk-bf-a")), ("rate_limit/s", Value::Null)],
        vec![("key/openai/c", json!({"name": "c", "value": "sk-c"}))],
        vec![("key/openai/id-b", json!({"name": "c2", "id": "id-b", "value": "sk-c"}))],
        vec![("version", json!(1))],
        vec![("virtual_key/a", Value::Null), ("virtual_key/one", Value::Null), ("virtual_key/three", Value::Null)],
    ]
}

#[test]
fn a_change_that_is_read_alone_comes_to_the_same_as_everything_read_again() {
    let reading = reading();
    let mut before = first();
    for step in steps() {
        let entities = changed(&before, &step);
        let (alone, compiled, _) = reading.read(&entities, Some(&before)).unwrap_or_else(|faults| panic!("{faults:?}"));
        let (whole, compiled_whole, _) = reading.read(&entities, None).unwrap_or_else(|faults| panic!("{faults:?}"));
        assert!(alone.config == whole.config && compiled.record == compiled_whole.record, "{step:?}");
        before = alone;
    }
}

#[test]
fn what_a_change_leaves_alone_is_not_read_again() {
    let before = first();
    let entities = changed(&before, &[("virtual_key/one", virtual_key("one", "uno", "sk-bf-1"))]);
    let (after, ..) = reading().read(&entities, Some(&before)).unwrap_or_else(|faults| panic!("{faults:?}"));
    let same =
        |at: usize| Arc::ptr_eq(&before.config.governance.virtual_keys[at], &after.config.governance.virtual_keys[at]);
    assert!(!same(0) && same(1));
}

#[test]
fn a_virtual_key_that_is_read_alone_is_told_from_the_others() {
    let before = first();
    for (change, pointer) in [
        (virtual_key("new", "two", "sk-bf-new"), "virtual_key/new/name"),
        (virtual_key("new", "new", "sk-bf-2"), "virtual_key/new/value"),
    ] {
        let entities = changed(&before, &[("virtual_key/new", change)]);
        assert_eq!(pointers(reading().read(&entities, Some(&before))), [pointer]);
    }
}

#[test]
fn what_others_refer_to_cannot_be_taken_away() {
    let before = first();
    for (gone, pointer) in [
        ("rate_limit/r", "virtual_key/one/rate_limit_id"),
        ("key/openai/id-b", "virtual_key/two/provider_configs/0/key_ids/0"),
    ] {
        let entities = changed(&before, &[(gone, Value::Null)]);
        assert_eq!(pointers(reading().read(&entities, Some(&before))), [pointer]);
    }
    let entities = changed(&before, &[("provider/openai", Value::Null)]);
    assert_eq!(pointers(reading().read(&entities, Some(&before))), ["key/openai/a", "key/openai/id-b"]);
}

#[test]
fn an_entity_says_the_name_it_is_stored_under() {
    let before = first();
    let entities = changed(&before, &[("virtual_key/new", virtual_key("other", "new", "sk-bf-new"))]);
    assert_eq!(pointers(reading().read(&entities, Some(&before))), ["virtual_key/new"]);
}

#[test]
fn a_rule_finds_the_virtual_keys_that_it_names_although_they_did_not_change() {
    let rule = |fields: Value| {
        let mut rule = json!({"name": "r", "targets": [{"provider": "openai"}]});
        rule.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        ("routing_rule/r", rule)
    };
    let first = first();
    for fields in [
        json!({"scope": "virtual_key", "scope_id": "one"}),
        json!({"match": {"virtual_keys": ["one"]}}),
        json!({"cel_expression": "virtual_key_id in ['two', 'one'] || virtual_key_name == \"one\""}),
    ] {
        let ruled = changed(&first, &[rule(fields.clone())]);
        let (ruled, _, _) = reading().read(&ruled, Some(&first)).unwrap_or_else(|faults| panic!("{faults:?}"));
        let again = reading().read(&ruled.entities, None).unwrap_or_else(|faults| panic!("{faults:?}")).0;
        assert!(ruled.config == again.config, "{fields}");
        // And it keeps them there.
        let gone = changed(&ruled, &[("virtual_key/one", Value::Null)]);
        let refused = pointers(reading().read(&gone, Some(&ruled)));
        assert!(refused.iter().all(|at| at.starts_with("routing_rule/r/")) && !refused.is_empty(), "{refused:?}");
    }
    let unknown = changed(&first, &[rule(json!({"scope": "virtual_key", "scope_id": "three"}))]);
    assert_eq!(pointers(reading().read(&unknown, Some(&first))), ["routing_rule/r/scope_id"]);
    let mistyped = changed(&first, &[rule(json!({"targets": [{"provider": "openia"}]}))]);
    let faults = reading().read(&mistyped, Some(&first)).err().unwrap();
    assert_eq!((faults[0].pointer.as_str(), faults[0].nearest.as_deref()), ("/targets/0/provider", Some("openai")));
}
