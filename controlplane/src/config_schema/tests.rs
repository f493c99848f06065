//! The schema says the same as the reader, of every document that the reader's own tests have.

use super::*;
use serde_json::Value;
use shared::config::{Sources, load, plain_json};

/// The shipped file.
const SHIPPED: &str = include_str!("../../../deploy/config.schema.json");

/// The reader's tests, whose documents stand in raw strings.
const TESTS: [&str; 4] = [
    include_str!("../../../shared/src/config/tests/examples.rs"),
    include_str!("../../../shared/src/config/tests/refusals.rs"),
    include_str!("../../../shared/src/config/tests/routing.rs"),
    include_str!("../../../shared/src/config/read/tokens.rs"),
];

const EXAMPLES: [&str; 4] = [
    include_str!("../../../examples/full.json"),
    include_str!("../../../examples/minimal.json"),
    include_str!("../../../examples/cluster.json"),
    include_str!("../../../examples/migrated.json"),
];

/// Sources in which every reference leads somewhere that fits.
fn sources() -> Sources<'static> {
    Sources {
        env: &|_| Some("sk-bf-0123456789abcdef".to_owned()),
        file: &|path| {
            Ok(if path.contains("-ca.") {
                "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".to_owned()
            } else {
                "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n".to_owned()
            })
        },
        ..Sources::none()
    }
}

fn documents() -> Vec<(String, Value)> {
    let in_tests = TESTS.iter().flat_map(|file| file.split("r#\"").skip(1)).filter_map(|rest| rest.split("\"#").next());
    let texts = in_tests.chain(EXAMPLES);
    texts.filter_map(|text| Some((text.to_owned(), serde_json::from_str(&plain_json(text)).ok()?))).collect()
}

/// The first place where a value does not fit, for the words that the schema uses.
fn misfit(schema: &Value, value: &Value, place: &str) -> Option<String> {
    if let Some(ways) = schema["anyOf"].as_array() {
        let misfits: Vec<_> = ways.iter().map(|way| misfit(way, value, place)).collect();
        return if misfits.contains(&None) { None } else { misfits.into_iter().flatten().max_by_key(String::len) };
    }
    if let Some(words) = schema["enum"].as_array() {
        return (!words.contains(value)).then(|| format!("{place}: {value} is none of {words:?}"));
    }
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let is_whole = value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let fits = kinds.iter().any(|kind| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => is_whole,
        other => panic!("{other}"),
    });
    if !fits {
        return Some(format!("{place}: {value} is no {kinds:?}"));
    }
    if let Some(number) = value.as_f64() {
        let least = schema["minimum"].as_f64().unwrap_or(f64::MIN);
        let most = schema["maximum"].as_f64().unwrap_or(f64::MAX);
        return (!(least..=most).contains(&number)).then(|| format!("{place}: {number} is out of range"));
    }
    if let (Some(text), Some(_)) = (value.as_str(), schema["pattern"].as_str()) {
        let fits = text.starts_with("env.") || text.starts_with("file:");
        return (!fits).then(|| format!("{place}: {text} is no reference"));
    }
    if let Some(values) = value.as_array() {
        return values
            .iter()
            .enumerate()
            .find_map(|(at, value)| misfit(&schema["items"], value, &format!("{place}[{at}]")));
    }
    let fields = value.as_object()?;
    let wrong = fields.iter().find_map(|(name, value)| {
        let place = format!("{place}.{name}");
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (None, Value::Bool(false)) => Some(format!("{place}: unknown field")),
            (Some(schema), _) | (None, schema) => misfit(schema, value, &place),
        }
    });
    let mut required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    wrong
        .or_else(|| required.find(|name| !fields.contains_key(*name)).map(|name| format!("{place}: {name} is missing")))
}

#[test]
fn what_the_reader_takes_the_schema_takes_and_both_refuse_unknown_fields() {
    let schema = known().schema();
    let (mut taken, mut refused) = (0, 0);
    for (text, document) in documents() {
        match (load(&text, &sources()), misfit(&schema, &document, "")) {
            (Ok(_), None) => taken += 1,
            (Ok(_), Some(misfit)) => panic!("the reader takes this and the schema does not: {misfit}\n{text}"),
            (Err(faults), None) if faults.iter().any(|fault| fault.problem == "unknown field") => {
                panic!("the schema knows a field that the reader does not: {faults:?}\n{text}")
            }
            (Err(_), _) => refused += 1,
        }
    }
    assert!(taken > 8 && refused > 20, "{taken} {refused}");
}

#[test]
fn the_schema_reaches_the_deepest_places() {
    let schema = known().schema();
    for (document, is_right) in [
        (r#"{"server": {"admin_tls": {"cert_file": "a", "key_file": "b"}}}"#, true),
        (r#"{"server": {"admin_tls": {"cert_file": "a"}}}"#, false),
        (r#"{"server": {"driver": "kqueue"}}"#, false),
        (r#"{"server": {"cores": "env.CORES"}}"#, true),
        (r#"{"providers": {"p": {"keys": [{"name": "a", "aliases": {"x": {"model_id": "y"}}}]}}}"#, true),
        (r#"{"providers": {"p": {"keys": [{"name": "a", "aliases": {"x": {"model": "y"}}}]}}}"#, false),
        (r#"{"providers": {"p": {"custom_provider_config": {"base_provider_type": "openai", "relay": true}}}}"#, false),
        (r#"{"providers": {"p": {"network_config": {"retry_backoff_max": "2s"}}}}"#, true),
        (r#"{"providers": {"p": {"network_config": {"retry_backoff_max": 2000}}}}"#, true),
        (r#"{"providers": {"p": {"network_config": {"retry_backoff_max": true}}}}"#, false),
        (r#"{"governance": {"rate_limits": [{"id": "a", "token_max_limit": "auto"}]}}"#, true),
        (r#"{"governance": {"rate_limits": [{"id": "a", "enforcement": "loose"}]}}"#, false),
        (r#"{"governance": {"virtual_keys": [{"provider_configs": [{"wieght": 1}]}]}}"#, false),
        (r#"{"config_store": {"enabled": true, "type": "postgres", "config": {"ssl_mode": "verify-full"}}}"#, true),
        (r#"{"cluster_config": {"discovery": {"enabled": true, "type": "etcd", "etcd_endpoints": [7]}}}"#, false),
        (r#"{"cluster_config": {"gossip": {"config": {"timeout_seconds": 3}}}}"#, true),
        (r#"{"governance": {"routing_rules": [{"match": {"headers": {"x-a": "b*", "x-c": ["d"]}}}]}}"#, true),
        (r#"{"governance": {"routing_rules": [{"match": {"header": {"x-a": "b*"}}}]}}"#, false),
        (r#"{"governance": {"routing_rules": [{"fallbacks": ["a/b", {"provider": "a"}]}]}}"#, true),
        (r#"{"governance": {"routing_rules": [{"targets": [{"weight": 2}]}]}}"#, false),
        (r#"{"governance": {"routing_rules": [{"cel_expression": 7}]}}"#, false),
    ] {
        let misfit = misfit(&schema, &serde_json::from_str(document).unwrap(), "");
        // What else is missing in these documents is no matter of this test.
        let misfit = misfit.filter(|why| is_right || !why.ends_with("is missing") || document.contains("admin_tls"));
        assert!(
            misfit.is_none() == is_right || misfit.as_ref().is_some_and(|why| why.ends_with("is missing")),
            "{document}: {misfit:?}"
        );
    }
}

#[test]
fn the_shipped_schema_is_this_one() {
    let schema: Value = serde_json::from_str(SHIPPED).unwrap();
    assert!(schema == known().schema(), "`deepintshield schema > deploy/config.schema.json` makes it anew");
}
