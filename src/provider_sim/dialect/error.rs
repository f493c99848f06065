//! Errors and rate-limit fields, in the shape that each dialect's SDK expects. Pure.

use std::time::Duration;

use crate::provider_sim::{ledger::Verdict, limit::Standing, route::Dialect};

use super::{escaped, put};

/// Header fields, each with its CRLF.
pub(crate) type Fields = Vec<u8>;

/// Appends the body of an error answer.
pub(crate) fn push_error(dialect: Dialect, status: u16, message: &str, code: Option<&str>, out: &mut Vec<u8>) {
    let message = escaped(message);
    let message = &message;
    match dialect {
        Dialect::OpenAi => {
            put!(out; r#"{"error":{"message":""#, message, r#"","type":""#, openai_type(status, code), r#"","param":null,"code":"#);
            match code {
                Some(code) => put!(out; "\"", code, "\"}}"),
                None => put!(out; "null}}"),
            }
        }
        Dialect::Anthropic => {
            put!(out; r#"{"type":"error","error":{"type":""#, anthropic_type(status), r#"","message":""#, message, r#""}}"#);
        }
        Dialect::Gemini => {
            put!(out; r#"{"error":{"code":"#, u32::from(status), r#","message":""#, message, r#"","status":""#,
            gemini_status(status), r#""}}"#);
        }
        Dialect::Cohere => put!(out; r#"{"message":""#, message, r#""}"#),
    }
}

fn openai_type(status: u16, code: Option<&str>) -> &'static str {
    match (status, code) {
        (429, Some("rate_limit_exceeded_tokens")) => "tokens",
        (429, _) => "requests",
        (500.., _) => "server_error",
        _ => "invalid_request_error",
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

fn gemini_status(status: u16) -> &'static str {
    match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "FAILED_PRECONDITION",
    }
}

/// Appends how the limits stand, under the names that the dialect uses (Gemini and Cohere have
/// none: they get those of `OpenAI`), and when to try again after a refusal.
pub(crate) fn push_limit_fields(dialect: Dialect, verdict: &Verdict, wall: Duration, out: &mut Fields) {
    for (quantity, standing) in [("requests", verdict.requests), ("tokens", verdict.tokens)] {
        let Some(Standing { limit, remaining, full_after }) = standing else { continue };
        if dialect == Dialect::Anthropic {
            put!(out; "anthropic-ratelimit-", quantity, "-limit: ", limit, "\r\nanthropic-ratelimit-", quantity, "-remaining: ", remaining,
                "\r\nanthropic-ratelimit-", quantity, "-reset: ", rfc3339(wall + full_after).as_str(), "\r\n");
        } else {
            put!(out; "x-ratelimit-limit-", quantity, ": ", limit, "\r\nx-ratelimit-remaining-", quantity, ": ", remaining,
                "\r\nx-ratelimit-reset-", quantity, ": ", short(full_after).as_str(), "\r\n");
        }
    }
    if let Some(refused) = &verdict.refused {
        put!(out; "retry-after: ", whole_seconds(refused.retry_after), "\r\n");
    }
}

/// Seconds rounded up: who waits that long is admitted. At least one.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// As `OpenAI` writes a duration: `120ms`, `1.5s`, `6m0s`. Rounded up to a millisecond.
fn short(duration: Duration) -> String {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    let (minutes, millis) = (millis / 60_000, millis % 60_000);
    let seconds = || match millis % 1_000 {
        0 => format!("{}s", millis / 1_000),
        thousandths => format!("{}.{thousandths:03}s", millis / 1_000),
    };
    match minutes {
        0 if millis < 1_000 => format!("{millis}ms"),
        0 => seconds(),
        minutes if minutes < 60 => format!("{minutes}m{}", seconds()),
        minutes => format!("{}h{}m{}", minutes / 60, minutes % 60, seconds()),
    }
}

/// A time since 1970 as `2023-11-14T22:13:20Z`, rounded up to a second.
fn rfc3339(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs() + u64::from(since_1970.subsec_nanos() > 0);
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let is_leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let days_in = |year: u64| if is_leap(year) { 366 } else { 365 };
    while days >= days_in(year) {
        days -= days_in(year);
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_openai_writes_them() {
        let written = |millis| short(Duration::from_millis(millis));
        assert_eq!(written(0), "0ms");
        assert_eq!(written(120), "120ms");
        assert_eq!(written(1_500), "1.500s");
        assert_eq!(written(59_000), "59s");
        assert_eq!(written(360_000), "6m0s");
        assert_eq!(written(7_265_000), "2h1m5s");
        assert_eq!(short(Duration::from_nanos(1)), "1ms");
    }

    #[test]
    fn times_read_as_the_calendar_says() {
        let written = |seconds| rfc3339(Duration::from_secs(seconds));
        assert_eq!(written(0), "1970-01-01T00:00:00Z");
        assert_eq!(written(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(written(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(written(1_735_689_599), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn every_dialect_has_errors_that_are_json() {
        for dialect in [Dialect::OpenAi, Dialect::Anthropic, Dialect::Gemini, Dialect::Cohere] {
            let mut out = Vec::new();
            push_error(dialect, 401, "no \"key\"", Some("invalid_api_key"), &mut out);
            let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
            assert!(value.to_string().contains("no"), "{value}");
        }
    }

    #[test]
    fn waiting_is_told_in_whole_seconds_that_suffice() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1_001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
    }
}
