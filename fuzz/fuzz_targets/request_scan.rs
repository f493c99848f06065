//! Does the scan of request bodies accept JSON objects and nothing else, and are its spans,
//! edits and prefixes true to what it accepted?
#![no_main]

use dataplane::provider::edit::{Edits, Wanted};
use dataplane::provider::late_scan::LateScan;
use dataplane::provider::request_scan::{ScanFault, scan, scan_prefix};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let _ = scan_prefix(data);
    // The first byte says where the rest is cut.
    let Some((&cut, body)) = data.split_first() else { return };
    let (first, second) = body.split_at(usize::from(cut).min(body.len()));

    let mut whole = LateScan::new();
    let watched = whole.push(body).and_then(|()| whole.finish());
    let mut parts = LateScan::new();
    let in_parts = parts.push(first).and_then(|()| parts.push(second)).and_then(|()| parts.finish());
    assert_eq!(watched, in_parts, "watching depends on where the body is cut");

    let value = serde_json::from_slice::<Value>(body);
    let fields = match scan(body) {
        Ok(fields) => fields,
        Err(error) => {
            assert!(error.at as usize <= body.len());
            let is_ours = error.fault.field().is_some() || error.fault == ScanFault::TooDeep;
            assert!(is_ours || !matches!(value, Ok(Value::Object(_))), "{error}: refused a good body");
            return;
        }
    };
    assert_eq!(watched, Ok(()), "watching refused what the scan accepts");
    let beginning = scan_prefix(first).expect("the beginning of a good body");
    assert!(beginning.fields.model.is_none() || beginning.fields.model == fields.model);

    // Numbers and lone surrogates that a tree cannot hold are JSON nevertheless.
    let Ok(mut expected) = value else { return };
    let model = fields.model.map(|model| model.value(body).expect("a readable model"));
    assert_eq!(model.as_deref(), expected["model"].as_str());
    assert_eq!(fields.stream, expected["stream"].as_bool());

    let wanted = Wanted { model: Some("a\"b"), without_fallbacks: true, with_usage: true };
    let edits = Edits::new(&fields, body, &wanted);
    let mut edited = Vec::new();
    edits.apply(body, &mut edited);
    assert_eq!(edits.len_after(body.len() as u64), edited.len() as u64);
    if model.is_some() {
        expected["model"] = "a\"b".into();
    }
    if let Some(members) = expected.as_object_mut() {
        members.remove("fallbacks");
    }
    expected["stream_options"]["include_usage"] = true.into();
    assert_eq!(serde_json::from_slice::<Value>(&edited).expect("an edited body is JSON"), expected);
    assert!(scan(&edited).is_ok(), "an edit made a body ambiguous");
});
