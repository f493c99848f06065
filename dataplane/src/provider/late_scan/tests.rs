use proptest::prelude::*;

use super::*;
use crate::provider::request_scan::{scan, tests::json_body};
use crate::provider::sse::tests::parts;

fn watch(body: &[u8], cuts: &[usize]) -> Result<(), ScanError> {
    let mut scan = LateScan::new();
    for part in parts(body, cuts) {
        scan.push(part)?;
    }
    scan.finish()
}

fn fault(body: &str) -> Option<ScanFault> {
    let whole = watch(body.as_bytes(), &[]).err();
    for cut in 0..=body.len() {
        assert_eq!(watch(body.as_bytes(), &[cut]).err(), whole, "cut at {cut}");
    }
    whole.map(|error| error.fault)
}

#[test]
fn a_field_that_comes_again_late_is_found() {
    assert_eq!(fault(r#"{"model":"a","messages":[{"model":"b","t":"\"model\":"}],"max_tokens":1e2}"#), None);
    assert_eq!(fault(r#"{"model":"a","messages":[{}] , "model" :"b"}"#), Some(ScanFault::Duplicate(Field::Model)));
    assert_eq!(fault(r#"{"model":"a","x":"\\","mod\u0065l":"b"}"#), Some(ScanFault::Duplicate(Field::Model)));
    assert_eq!(fault(r#"{"model":"a","MODEL":"b"}"#), Some(ScanFault::CaseVariant(Field::Model)));
}

#[test]
fn nothing_hides_outside_of_strings() {
    assert_eq!(fault(r#"{"model":"a",/*"*/"model":"b"/*"*/}"#), Some(ScanFault::Unexpected));
    assert_eq!(fault(r#"{"a":[}],"model":"b"}"#), Some(ScanFault::Unexpected));
    assert_eq!(fault(r#"{"a":1}{"model":"b"}"#), Some(ScanFault::TrailingBytes));
    assert_eq!(fault(r#"["model"]"#), Some(ScanFault::NotAnObject));
    assert_eq!(fault(r#"{"a":"#), Some(ScanFault::Truncated));
    assert_eq!(fault(&"{\"a\":".repeat(65)), Some(ScanFault::TooDeep));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_scan_accepts_passes_and_no_duplicate_does(
        body in json_body(), cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let late = watch(body.as_bytes(), &cuts);
        prop_assert_eq!(late, watch(body.as_bytes(), &[]));
        match scan(body.as_bytes()).map_err(|error| error.fault) {
            Ok(_) => prop_assert_eq!(late, Ok(())),
            Err(ScanFault::CaseVariant(_) | ScanFault::Duplicate(Field::Model | Field::Stream)) => {
                prop_assert!(late.is_err());
            }
            Err(_) => {}
        }
    }

    #[test]
    fn any_bytes_are_judged_the_same_in_any_parts(
        bytes in prop::collection::vec(prop::sample::select(br#"{}[]",:\ 1e"model""#.to_vec()), 0..60),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        prop_assert_eq!(watch(&bytes, &cuts), watch(&bytes, &[]));
        if scan(&bytes).is_ok() {
            prop_assert_eq!(watch(&bytes, &[]), Ok(()));
        }
    }
}
