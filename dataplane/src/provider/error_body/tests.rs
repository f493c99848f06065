use serde_json::{Value, json};

use super::*;

const ERROR: ErrorBody<'static> = ErrorBody {
    status: 429,
    kind: "requests",
    code: Some("rate_limited"),
    message: "slow \"down\"\n\u{0}\u{1f} é",
    param: None,
};

fn body(dialect: Dialect) -> Value {
    let mut out = Vec::new();
    write(dialect, &ERROR, &mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn each_dialect_has_its_shape() {
    let message = ERROR.message;
    assert_eq!(
        body(Dialect::OpenAi),
        json!({"error": {"message": message, "type": "requests", "code": "rate_limited", "param": null}})
    );
    assert_eq!(
        body(Dialect::Anthropic),
        json!({"type": "error", "error": {"type": "rate_limit_error", "message": message}})
    );
    assert_eq!(
        body(Dialect::Gemini),
        json!({"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED"}})
    );
    assert_eq!(body(Dialect::Cohere), json!({"message": message}));
}

#[test]
fn anthropic_types_follow_the_status() {
    let types: Vec<_> =
        [400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 529].into_iter().map(anthropic_type).collect();
    assert_eq!(
        types,
        [
            "invalid_request_error",
            "authentication_error",
            "permission_error",
            "not_found_error",
            "request_too_large",
            "invalid_request_error",
            "rate_limit_error",
            "api_error",
            "api_error",
            "overloaded_error",
            "overloaded_error"
        ]
    );
}

#[test]
fn an_event_is_one_event_whatever_the_message() {
    for dialect in [Dialect::OpenAi, Dialect::Anthropic, Dialect::Gemini, Dialect::Cohere] {
        let mut out = Vec::new();
        write_event(dialect, &ERROR, true, &mut out);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.split('\n').collect();
        let data = lines.iter().find_map(|line| line.strip_prefix("data: ")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(data).unwrap(), body(dialect));
        assert_eq!(lines.contains(&"event: error"), dialect == Dialect::Anthropic);
        assert!(text.ends_with("\n\n") && !text.trim_end().contains("\n\n"));
    }
}

#[test]
fn a_fragment_is_closed_first() {
    let mut out = b"data: {\"cho".to_vec();
    write_event(Dialect::OpenAi, &ERROR, false, &mut out);
    assert!(out.starts_with(b"data: {\"cho\n\ndata: {\"error\":"));
}
