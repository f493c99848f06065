//! Error answers in the words of each dialect, so that SDKs raise their own exceptions.
//!
//! Only bodies and events; the status line, `retry-after` and framing are not written here.

use super::Dialect;
use super::json::escape_into;
use crate::digits::append_decimal;

/// What an error answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorBody<'t> {
    /// The HTTP status it goes with.
    pub status: u16,
    /// The `OpenAI` type, such as `invalid_request_error`. The other dialects derive theirs
    /// from the status.
    pub kind: &'t str,
    /// What programs tell cases apart by, such as `rate_limited`. `OpenAI` only.
    pub code: Option<&'t str>,
    /// What people read.
    pub message: &'t str,
    /// The request field that is at fault. `OpenAI` only.
    pub param: Option<&'t str>,
}

/// Appends the JSON body of an error answer.
pub fn write(dialect: Dialect, error: &ErrorBody<'_>, out: &mut Vec<u8>) {
    match dialect {
        Dialect::OpenAi => {
            out.extend_from_slice(br#"{"error":{"message":"#);
            string(error.message, out);
            out.extend_from_slice(br#","type":"#);
            string(error.kind, out);
            out.extend_from_slice(br#","param":"#);
            string_or_null(error.param, out);
            out.extend_from_slice(br#","code":"#);
            string_or_null(error.code, out);
            out.extend_from_slice(b"}}");
        }
        Dialect::Anthropic => {
            out.extend_from_slice(br#"{"type":"error","error":{"type":"#);
            string(anthropic_type(error.status), out);
            out.extend_from_slice(br#","message":"#);
            string(error.message, out);
            out.extend_from_slice(b"}}");
        }
        Dialect::Gemini => {
            out.extend_from_slice(br#"{"error":{"code":"#);
            append_decimal(out, u64::from(error.status), b"");
            out.extend_from_slice(br#","message":"#);
            string(error.message, out);
            out.extend_from_slice(br#","status":"#);
            string(gemini_status(error.status), out);
            out.extend_from_slice(b"}}");
        }
        Dialect::Cohere => {
            out.extend_from_slice(br#"{"message":"#);
            string(error.message, out);
            out.push(b'}');
        }
    }
}

/// Appends the event that tells of a provider which left in the middle of a stream. The
/// transfer is broken off after it.
///
/// `is_between_events`: what was sent ends with a whole event (see
/// [`super::usage::UsageReader::is_between_events`]). If not, the fragment is closed by a blank
/// line first; the client then fails on the fragment, which is an error as well.
pub fn write_event(dialect: Dialect, error: &ErrorBody<'_>, is_between_events: bool, out: &mut Vec<u8>) {
    if !is_between_events {
        out.extend_from_slice(b"\n\n");
    }
    if dialect == Dialect::Anthropic {
        out.extend_from_slice(b"event: error\n");
    }
    out.extend_from_slice(b"data: ");
    write(dialect, error, out);
    out.extend_from_slice(b"\n\n");
}

/// The name that Anthropic's SDKs know an error of this status by.
pub const fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

/// Google's canonical code for an HTTP status.
pub const fn gemini_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        402 | 403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        501 => "UNIMPLEMENTED",
        502 | 503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        400..=498 => "INVALID_ARGUMENT",
        _ => "INTERNAL",
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escape_into(text, out);
    out.push(b'"');
}

fn string_or_null(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => string(text, out),
        None => out.extend_from_slice(b"null"),
    }
}

#[cfg(test)]
mod tests;
