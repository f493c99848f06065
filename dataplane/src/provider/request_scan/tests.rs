use std::fmt;

use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::*;

fn model_of(body: &str) -> Option<String> {
    let fields = scan(body.as_bytes()).unwrap();
    fields.model.map(|model| model.value(body.as_bytes()).unwrap().into_owned())
}

fn fault(body: &str) -> ScanFault {
    scan(body.as_bytes()).unwrap_err().fault
}

#[test]
fn the_usual_body() {
    let body = br#"{"messages":[{"role":"user","content":"\"model\": \u00e9 {[\\"}],"model":"openai/gpt-4o", "stream" : true,
        "max_tokens":100,"max_completion_tokens":200,"n":2,"best_of":null,"stream_options":{"x":[],"include_usage":false},
        "fallbacks":["anthropic/claude","b\/c"],"temperature":-1.5e-3}"#;
    let fields = scan(body).unwrap();
    assert_eq!(fields.model.unwrap().value(body).as_deref(), Some("openai/gpt-4o"));
    assert_eq!(fields.stream, Some(true));
    assert_eq!((fields.output_tokens_max(), fields.choices()), (Some(200), 2));
    let names: Vec<_> = fields.fallbacks.names().iter().map(|name| name.value(body).unwrap()).collect();
    assert_eq!(names, ["anthropic/claude", "b/c"]);
    let StreamOptions::Object { span, is_empty: false, include_usage: IncludeUsage::No(word) } = fields.stream_options
    else {
        panic!("{:?}", fields.stream_options)
    };
    assert_eq!(span.of(body), br#"{"x":[],"include_usage":false}"#);
    assert_eq!(word.of(body), b"false");
    assert!(fields.is_complete);
    assert_eq!(fields.bytes as usize, body.len());
}

#[test]
fn gemini_bodies_have_their_own_limit_in_either_spelling() {
    for body in [
        r#"{"contents":[],"generationConfig":{"maxOutputTokens":7,"candidateCount":3,"topK":[1]}}"#,
        r#"{"generation_config":{"max_output_tokens":7,"candidate_count":3}}"#,
    ] {
        let fields = scan(body.as_bytes()).unwrap();
        assert_eq!((fields.output_tokens_max(), fields.choices()), (Some(7), 3));
    }
}

#[test]
fn null_is_absent() {
    let body = br#"{"model":null,"stream":null,"max_tokens":null,"n":null,"fallbacks":null,"generationConfig":null,"stream_options":null}"#;
    let fields = scan(body).unwrap();
    assert_eq!((fields.model, fields.stream, fields.max_tokens, fields.choices()), (None, None, None, 1));
    assert!(fields.fallbacks.names().is_empty() && fields.fallbacks.cut.is_some());
    assert!(matches!(fields.stream_options, StreamOptions::Null(word) if word.of(body) == b"null"));
}

#[test]
fn an_escaped_key_is_the_key_it_spells() {
    assert_eq!(model_of(r#"{"mod\u0065l":"a"}"#).as_deref(), Some("a"));
    assert_eq!(model_of(r#"{"\u006d\u006f\u0064\u0065\u006c":"\ud83d\ude00\t"}"#).as_deref(), Some("\u{1f600}\t"));
    assert_eq!(fault(r#"{"model":"a","mod\u0065l":"b"}"#), ScanFault::Duplicate(Field::Model));
    let body = br#"{"stream_options":{"include\u005fusage":true}}"#;
    let options = scan(body).unwrap().stream_options;
    assert!(matches!(options, StreamOptions::Object { include_usage: IncludeUsage::True, .. }));
}

#[test]
fn what_two_decoders_would_read_differently_is_refused() {
    assert_eq!(fault(r#"{"model":"a","model":"a"}"#), ScanFault::Duplicate(Field::Model));
    assert_eq!(fault(r#"{"model":null,"model":"a"}"#), ScanFault::Duplicate(Field::Model));
    assert_eq!(fault(r#"{"stream":true,"stream":true}"#), ScanFault::Duplicate(Field::Stream));
    assert_eq!(
        fault(r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#),
        ScanFault::Duplicate(Field::IncludeUsage)
    );
    assert_eq!(fault(r#"{"Model":"a"}"#), ScanFault::CaseVariant(Field::Model));
    assert_eq!(fault("{\"\u{17f}tream\":true}"), ScanFault::CaseVariant(Field::Stream));
    assert_eq!(fault(r#"{"max_to\u212aens":1}"#), ScanFault::CaseVariant(Field::MaxTokens));
    assert_eq!(fault(r#"{"GenerationConfig":{}}"#), ScanFault::CaseVariant(Field::GenerationConfig));
    // The same words elsewhere are nobody's business.
    assert_eq!(model_of(r#"{"metadata":{"model":1,"model":2,"MODEL":3},"model":"a"}"#).as_deref(), Some("a"));
}

#[test]
fn fields_of_another_type_are_refused() {
    for (body, field) in [
        (r#"{"model":1}"#, Field::Model),
        (r#"{"model":["a"]}"#, Field::Model),
        (r#"{"stream":"true"}"#, Field::Stream),
        (r#"{"stream":1}"#, Field::Stream),
        (r#"{"max_tokens":-1}"#, Field::MaxTokens),
        (r#"{"max_tokens":1.0}"#, Field::MaxTokens),
        (r#"{"max_tokens":1e3}"#, Field::MaxTokens),
        (r#"{"max_tokens":18446744073709551616}"#, Field::MaxTokens),
        (r#"{"n":"1"}"#, Field::N),
        (r#"{"stream_options":[]}"#, Field::StreamOptions),
        (r#"{"stream_options":{"include_usage":1}}"#, Field::IncludeUsage),
        (r#"{"fallbacks":"a"}"#, Field::Fallbacks),
        (r#"{"fallbacks":["a",null]}"#, Field::Fallbacks),
        (r#"{"generationConfig":1}"#, Field::GenerationConfig),
    ] {
        assert_eq!(fault(body), ScanFault::WrongType(field), "{body}");
    }
    assert_eq!(scan(br#"{"max_tokens":18446744073709551615}"#).unwrap().max_tokens, Some(u64::MAX));
}

#[test]
fn faults_say_where() {
    for (body, expected, at) in [
        ("", ScanFault::Truncated, 0),
        ("[]", ScanFault::NotAnObject, 0),
        (" null", ScanFault::NotAnObject, 1),
        ("{} x", ScanFault::TrailingBytes, 3),
        ("{}{}", ScanFault::TrailingBytes, 2),
        (r#"{"a":tru}"#, ScanFault::Unexpected, 5),
        (r#"{"a":NaN}"#, ScanFault::Unexpected, 5),
        (r#"{"a":01}"#, ScanFault::Unexpected, 6),
        (r#"{"a":1.}"#, ScanFault::Unexpected, 7),
        (r#"{"a":1,}"#, ScanFault::Unexpected, 7),
        (r#"{"a":[1}"#, ScanFault::Unexpected, 7),
        (r#"{"a":[1,]}"#, ScanFault::Unexpected, 8),
        (r#"{"a" 1}"#, ScanFault::Unexpected, 5),
        ("{'a':1}", ScanFault::Unexpected, 1),
        (r#"{"a":"\x"}"#, ScanFault::BadEscape, 7),
        (r#"{"a":"\u12g4"}"#, ScanFault::BadEscape, 10),
        ("{\"a\":\"x\ny\"}", ScanFault::ControlByte, 7),
        (r#"{"model":"\ud800"}"#, ScanFault::BadEscape, 10),
        (r#"{"a":"#, ScanFault::Truncated, 5),
        (r#"{"a":tr"#, ScanFault::Truncated, 7),
    ] {
        assert_eq!(scan(body.as_bytes()), Err(ScanError { fault: expected, at }), "{body}");
    }
    assert_eq!(scan(b"{\"a\":\"\xff\"}"), Err(ScanError { fault: ScanFault::NotUtf8, at: 6 }));
    let nine = r#"{"fallbacks":["1","2","3","4","5","6","7","8","9"]}"#;
    assert_eq!(fault(nine), ScanFault::TooManyFallbacks);
}

#[test]
fn nesting_is_bounded() {
    let nested = |open: usize| format!("{{\"a\":{}{}}}", "[".repeat(open - 1), "]".repeat(open - 1));
    assert!(scan(nested(64).as_bytes()).is_ok());
    assert_eq!(fault(&nested(65)), ScanFault::TooDeep);
    assert_eq!(fault(&"{\"a\":".repeat(100_000)), ScanFault::TooDeep);
}

#[test]
fn a_lone_surrogate_that_nobody_decodes_passes() {
    assert_eq!(model_of(r#"{"messages":"\ud83d","model":"a"}"#).as_deref(), Some("a"));
}

#[test]
fn a_prefix_knows_what_stands_completely_in_it() {
    let body = r#"{"messages":"é","model":"a\nb","stream":true,"fallbacks":["x"],"n":12}"#;
    let whole = scan(body.as_bytes()).unwrap();
    let ends_of = |needle: &str| body.find(needle).unwrap() + needle.len();
    for cut in 0..body.len() {
        let fields = scan_prefix(&body.as_bytes()[..cut]).unwrap().fields;
        assert_eq!(fields.model, whole.model.filter(|_| cut >= ends_of(r#""a\nb""#)), "{cut}");
        assert_eq!(fields.stream, whole.stream.filter(|_| cut >= ends_of("true")), "{cut}");
        assert_eq!(fields.n, None, "{cut}");
        let has_fallbacks = cut >= ends_of(r#"["x"],"#);
        assert_eq!(fields.fallbacks, if has_fallbacks { whole.fallbacks } else { Fallbacks::default() }, "{cut}");
        assert!(!fields.is_complete);
    }
    assert_eq!(scan_prefix(body.as_bytes()).unwrap().fields, whole);
    assert!(scan_prefix(br#"{"a":1 2"#).is_err());
}

/// The body as `serde_json` sees it, duplicates kept.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

fn json_string() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            4 => "[a-z ]{0,20}",
            1 => Just(r#"\""#.to_owned()),
            1 => Just(r"\\".to_owned()),
            1 => Just(r"\n".to_owned()),
            1 => Just(r"\u0065".to_owned()),
            1 => Just(r"\ud83d\ude00".to_owned()),
            1 => Just("é漢".to_owned()),
            1 => Just("{[,:]}".to_owned()),
        ],
        0..6,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()))
}

fn json_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        json_string(),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        any::<u32>().prop_map(|number| number.to_string()),
        any::<f32>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| format!("{number:e}")),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(" ,"))),
            prop::collection::vec((json_string(), inner), 0..5).prop_map(|members| {
                let members: Vec<_> = members.into_iter().map(|(key, value)| format!("{key}:\n{value}")).collect();
                format!("{{{}}}", members.join(", "))
            }),
        ]
    })
}

/// A body with the known fields at any place, often wrong, and anything else around them.
pub(crate) fn json_body() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        r#""model""#,
        r#""mod\u0065l""#,
        r#""Model""#,
        r#""stream""#,
        r#""max_tokens""#,
        r#""max_completion_tokens""#,
        r#""n""#,
        r#""fallbacks""#,
        r#""stream_options""#,
    ]);
    let value = prop_oneof![
        2 => json_value(),
        1 => json_string(),
        1 => Just("true".to_owned()),
        1 => Just("17".to_owned()),
        1 => Just(r#"["a/b", "c"]"#.to_owned()),
        1 => Just(r#"{"include_usage": false}"#.to_owned()),
        1 => Just(r#"{ "x":1,"include_usage":true }"#.to_owned()),
    ];
    let key = prop_oneof![1 => json_string(), 2 => known.prop_map(str::to_owned)];
    prop::collection::vec((key, value, "[ \n\t]{0,2}"), 0..7).prop_map(|members| {
        let members: Vec<_> = members.into_iter().map(|(key, value, gap)| format!("{gap}{key}{gap}:{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn is_about_fields(fault: ScanFault) -> bool {
    fault.field().is_some() || fault == ScanFault::TooDeep
}

/// Whether the scan and `serde_json` agree on what is JSON.
fn agrees_on_structure(body: &[u8]) -> bool {
    let is_object = std::str::from_utf8(body).is_ok()
        && serde_json::from_slice::<IgnoredAny>(body).is_ok()
        && body.trim_ascii_start().first() == Some(&b'{');
    match scan(body) {
        Ok(_) => is_object,
        // A field we read may have half a surrogate pair, which `IgnoredAny` does not see.
        Err(ScanError { fault: ScanFault::BadEscape, .. }) => {
            !is_object || body.to_ascii_lowercase().windows(3).any(|window| window == br"\ud")
        }
        Err(error) => !is_object || is_about_fields(error.fault),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_scan_reads_what_serde_json_reads(body in json_body()) {
        let Members(members) = serde_json::from_str(&body).unwrap();
        let all = |name: &str| -> Vec<&Value> {
            members.iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect()
        };
        let fields = match scan(body.as_bytes()) {
            Ok(fields) => fields,
            Err(ScanError { fault, .. }) => {
                let holds = match fault {
                    ScanFault::Duplicate(Field::IncludeUsage)
                    | ScanFault::WrongType(Field::IncludeUsage)
                    | ScanFault::TooManyFallbacks => true,
                    ScanFault::Duplicate(field) => all(field.name()).len() > 1,
                    ScanFault::CaseVariant(Field::Model) => !all("Model").is_empty(),
                    ScanFault::WrongType(field) => all(field.name()).iter().any(|value| !value.is_null()),
                    _ => false,
                };
                prop_assert!(holds, "{fault:?} in {body}");
                return Ok(());
            }
        };
        prop_assert!(all("Model").is_empty());
        for name in ["model", "stream", "max_tokens", "max_completion_tokens", "n", "fallbacks", "stream_options"] {
            prop_assert!(all(name).len() <= 1);
        }
        let one = |name: &str| all(name).first().copied().cloned().unwrap_or(Value::Null);
        let model = fields.model.map(|model| model.value(body.as_bytes()).unwrap());
        prop_assert_eq!(model.map(Value::from).unwrap_or_default(), one("model"));
        prop_assert_eq!(fields.stream, one("stream").as_bool());
        prop_assert_eq!(fields.max_tokens, one("max_tokens").as_u64());
        prop_assert_eq!(fields.n, one("n").as_u64());
        let names: Vec<Value> = fields.fallbacks.names().iter()
            .map(|name| name.value(body.as_bytes()).unwrap().into()).collect();
        prop_assert_eq!(names, one("fallbacks").as_array().cloned().unwrap_or_default());
        prop_assert_eq!(fields.fallbacks.cut.is_some(), !all("fallbacks").is_empty());
        let wants_usage = matches!(
            fields.stream_options,
            StreamOptions::Object { include_usage: IncludeUsage::True, .. }
        );
        prop_assert_eq!(wants_usage, one("stream_options")["include_usage"] == Value::Bool(true));
        prop_assert_eq!(fields.members as usize, members.len());
        prop_assert_eq!(fields.non_ascii_bytes as usize, body.bytes().filter(|byte| !byte.is_ascii()).count());
    }

    #[test]
    fn the_scan_accepts_json_objects_and_nothing_else(
        body in json_body(), place in any::<prop::sample::Index>(), byte in any::<u8>(), kind in 0..4u8,
    ) {
        let mut body = body.into_bytes();
        prop_assert!(agrees_on_structure(&body));
        let at = place.index(body.len());
        match kind {
            0 => body[at] = byte,
            1 => body.insert(at, byte),
            2 => { body.remove(at); }
            _ => body[at] = b"{}[]\",:\\0-.eE \x01"[usize::from(byte) % 15],
        }
        prop_assert!(agrees_on_structure(&body), "{}", String::from_utf8_lossy(&body));
    }

    #[test]
    fn a_prefix_never_contradicts_the_whole(body in json_body(), place in any::<prop::sample::Index>()) {
        let Ok(whole) = scan(body.as_bytes()) else { return Ok(()) };
        let beginning = &body.as_bytes()[..place.index(body.len())];
        let part = scan_prefix(beginning).unwrap().fields;
        prop_assert!(part.model.is_none() || part.model == whole.model);
        prop_assert!(part.stream.is_none() || part.stream == whole.stream);
        prop_assert!(part.max_tokens.is_none() || part.max_tokens == whole.max_tokens);
        prop_assert!(part.fallbacks.cut.is_none() || part.fallbacks == whole.fallbacks);
        prop_assert!(part.stream_options == StreamOptions::Absent || part.stream_options == whole.stream_options);
    }

    #[test]
    fn no_bytes_make_the_scan_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(agrees_on_structure(&bytes));
        let _ = scan_prefix(&bytes);
    }
}
