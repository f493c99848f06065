use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::provider::request_scan::{scan, scan_prefix};

fn check(body: &str, wanted: Wanted<'_>, expected: &str) {
    let fields = scan(body.as_bytes()).unwrap();
    let edits = Edits::new(&fields, body.as_bytes(), &wanted);
    let mut out = Vec::new();
    edits.apply(body.as_bytes(), &mut out);
    assert_eq!(String::from_utf8_lossy(&out), expected);
    assert_eq!(edits.len_after(body.len() as u64), expected.len() as u64);
    assert_eq!(edits.is_empty(), body == expected);
}

const MODEL: Wanted<'static> = Wanted { model: Some("b"), without_fallbacks: false, with_usage: false };
const NO_FALLBACKS: Wanted<'static> = Wanted { model: None, without_fallbacks: true, with_usage: false };
const USAGE: Wanted<'static> = Wanted { model: None, without_fallbacks: false, with_usage: true };

#[test]
fn the_model_is_replaced_and_escaped() {
    check(r#"{ "model" : "a/b" ,"x":1}"#, MODEL, r#"{ "model" : "b" ,"x":1}"#);
    check(r#"{"model":"b"}"#, MODEL, r#"{"model":"b"}"#);
    check(r#"{"model":"\u0062"}"#, MODEL, r#"{"model":"b"}"#);
    check(r#"{"x":1}"#, MODEL, r#"{"x":1}"#);
    let odd = Wanted { model: Some("a\"\\\n\u{1}é"), ..MODEL };
    check(r#"{"model":"x"}"#, odd, r#"{"model":"a\"\\\n\u0001é"}"#);
}

#[test]
fn fallbacks_take_one_comma_along_wherever_they_stand() {
    check(r#"{"fallbacks":["x"],"a":1}"#, NO_FALLBACKS, r#"{"a":1}"#);
    check(r#"{"a":1, "fallbacks" : ["x"] , "b":2}"#, NO_FALLBACKS, r#"{"a":1,  "b":2}"#);
    check(r#"{"a":1 ,"fallbacks":[] }"#, NO_FALLBACKS, r#"{"a":1  }"#);
    check(r#"{ "fallbacks":null }"#, NO_FALLBACKS, r"{  }");
}

#[test]
fn usage_is_asked_for_however_the_client_put_it() {
    check(r#"{"a":1}"#, USAGE, r#"{"stream_options":{"include_usage":true},"a":1}"#);
    check(" {}", USAGE, r#" {"stream_options":{"include_usage":true}}"#);
    check(r#"{"stream_options":null}"#, USAGE, r#"{"stream_options":{"include_usage":true}}"#);
    check(r#"{"stream_options":{ }}"#, USAGE, r#"{"stream_options":{"include_usage":true }}"#);
    check(r#"{"stream_options":{"x":1}}"#, USAGE, r#"{"stream_options":{"include_usage":true,"x":1}}"#);
    check(r#"{"stream_options":{"include_usage":false}}"#, USAGE, r#"{"stream_options":{"include_usage":true}}"#);
    check(r#"{"stream_options":{"include_usage": null}}"#, USAGE, r#"{"stream_options":{"include_usage": true}}"#);
    check(r#"{"stream_options":{"include_usage":true}}"#, USAGE, r#"{"stream_options":{"include_usage":true}}"#);
}

#[test]
fn usage_is_hidden_only_from_those_who_did_not_ask() {
    let hides = |body: &str| {
        let fields = scan(body.as_bytes()).unwrap();
        Edits::new(&fields, body.as_bytes(), &USAGE).hides_usage()
    };
    assert!(hides("{}"));
    assert!(hides(r#"{"stream_options":{"include_usage":false}}"#));
    assert!(!hides(r#"{"stream_options":{"include_usage":true}}"#));
}

#[test]
fn changes_at_one_place_keep_their_order() {
    let all = Wanted { model: Some("b"), without_fallbacks: true, with_usage: true };
    check(r#"{"fallbacks":[]}"#, all, r#"{"stream_options":{"include_usage":true}}"#);
    check(r#"{"fallbacks":[],"model":"a"}"#, all, r#"{"stream_options":{"include_usage":true},"model":"b"}"#);
}

#[test]
fn nothing_is_put_into_a_body_that_is_not_all_there() {
    let beginning = br#"{"model":"a/b","messages":"#;
    let fields = scan_prefix(beginning).unwrap().fields;
    let edits = Edits::new(&fields, beginning, &Wanted { model: Some("b"), ..USAGE });
    let mut out = Vec::new();
    edits.apply(beginning, &mut out);
    assert_eq!(out, br#"{"model":"b","messages":"#);
    assert_eq!(edits.len_after(1_000), 998);
    assert!(!edits.hides_usage());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_edited_body_is_the_object_that_was_wanted(
        body in crate::provider::request_scan::tests::json_body(),
        model in prop::option::of("[a-z\"\\\\\n\u{1}/é]{0,8}"),
        without_fallbacks in any::<bool>(),
        with_usage in any::<bool>(),
    ) {
        let Ok(fields) = scan(body.as_bytes()) else { return Ok(()) };
        let wanted = Wanted { model: model.as_deref(), without_fallbacks, with_usage };
        let edits = Edits::new(&fields, body.as_bytes(), &wanted);
        let mut out = Vec::new();
        edits.apply(body.as_bytes(), &mut out);
        prop_assert_eq!(edits.len_after(body.len() as u64), out.len() as u64);
        prop_assert!(!edits.is_empty() || out == body.as_bytes());

        let mut expected: Value = serde_json::from_str(&body).unwrap();
        if let (Some(model), true) = (&model, expected["model"].is_string()) {
            expected["model"] = json!(model);
        }
        if without_fallbacks {
            expected.as_object_mut().unwrap().remove("fallbacks");
        }
        if with_usage {
            expected["stream_options"]["include_usage"] = json!(true);
        }
        // Compared as objects: the order of members is free.
        let edited: Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(edited, expected);
        // A duplicate would have vanished in the comparison above.
        prop_assert!(scan(&out).is_ok());
    }
}
