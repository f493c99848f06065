//! A request to the admin interface, taken apart: who asks, the names in its path and query, the
//! revision that it was made for, its body. Everything is bounded, and nothing is guessed.

use super::accounts::Caller;
use super::answer::Refusal;
use super::strict_json::Strict;
use crate::live::Head;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Path, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::Value;
use shared::config::plain_json;
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// Longest body of one entity, in bytes: certificates are the longest values.
pub(super) const ENTITY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Query parameters in one request.
const QUERY_MAX: usize = 16;

/// See the module.
pub(super) struct Asked {
    pub(super) caller: Caller,
    /// `POST /api/keys`, for people.
    pub(super) what: String,
    parameters: Vec<(String, String)>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    /// A body may be sent to another thread and not be looked at by two: this makes the whole so.
    body: Mutex<Body>,
}

impl Asked {
    /// A name out of the path.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// A query parameter; empty is the same as none.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
    }

    /// Query parameters that are not among `known`, or are there twice: a misspelt `dry_run` must not
    /// come to a change.
    pub(super) fn check_query(&self, known: &[&str]) -> Result<(), Refusal> {
        for (at, (name, _)) in self.query.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(Refusal::malformed(format!("this path takes {} in its query", listed(known))));
            }
            if self.query.iter().skip(at.saturating_add(1)).any(|(other, _)| other == name) {
                return Err(Refusal::malformed(format!("{name} stands twice in the query")));
            }
        }
        Ok(())
    }

    /// `true` or `false`; false where it is left out.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.query(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Refusal::malformed(format!("{name} is true or false"))),
        }
    }

    /// A whole number from `least` to `most`.
    pub(super) fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.query(name) else { return Ok(None) };
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse().ok().filter(|number| is_digits && (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Refusal::malformed(format!("{name} is a whole number from {least} to {most}"))),
        }
    }

    /// What If-Match says about the revision that the request is for; `None` where it says nothing.
    pub(super) fn condition(&self, head: &Head) -> Result<Option<u64>, Refusal> {
        let mut tags = Vec::new();
        for value in self.headers.get_all(header::IF_MATCH) {
            let value = value.to_str().map_err(|_| Refusal::malformed("If-Match is no list of entity tags"))?;
            tags.extend(value.split(',').map(str::trim));
        }
        if tags.is_empty() {
            return Ok(None);
        }
        if tags == ["*"] || tags.contains(&etag(head).as_str()) {
            return Ok(Some(head.number));
        }
        if tags.iter().all(|tag| is_tag(tag)) {
            let number = head.number;
            return Err(Refusal::stale(format!("the configuration has changed meanwhile: it is at revision {number}")));
        }
        Err(Refusal::malformed("If-Match is no list of entity tags: it is a revision's number in quotes, or *"))
    }

    /// The body, which has to be of one of these media types.
    pub(super) async fn bytes(&mut self, types: &[&str], bytes_max: usize) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let given = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let given = given.split(';').next().unwrap_or_default().trim();
        if !types.iter().any(|known| known.eq_ignore_ascii_case(given)) {
            let message = format!("the body has to be {}", types.join(" or "));
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
        }
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner);
        let body = std::mem::replace(body, Body::empty());
        let is_longer = axum::body::HttpBody::size_hint(&body).lower() > bytes_max as u64;
        match to_bytes(body, if is_longer { 0 } else { bytes_max }).await {
            Ok(bytes) if !is_longer => Ok(Zeroizing::new(bytes.into())),
            // Cut off or too long; whoever cut it off reads no answer.
            _ => Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("the body is longer than {bytes_max} bytes"),
            )),
        }
    }

    /// The body as JSON; comments are allowed, as in the configuration file.
    pub(super) async fn json(&mut self, types: &[&str], bytes_max: usize) -> Result<Value, Refusal> {
        let bytes = self.bytes(types, bytes_max).await?;
        let text = str::from_utf8(&bytes).map_err(|_| Refusal::malformed("the body is no UTF-8"))?;
        let plain = Zeroizing::new(plain_json(text));
        // What serde says could hold a part of a secret.
        serde_json::from_str(&plain).map(|Strict(value)| value).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let message = format!("the body is not valid JSON, or has a member twice (line {line}, column {column})");
            Refusal::malformed(message)
        })
    }
}

/// A revision as an entity tag.
pub(super) fn etag(head: &Head) -> String {
    format!("\"{}\"", head.number)
}

fn is_tag(text: &str) -> bool {
    let text = text.strip_prefix("W/").unwrap_or(text);
    text.len() >= 2 && text.starts_with('"') && text.ends_with('"')
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

impl<S: Send + Sync> FromRequest<S> for Asked {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        use axum::extract::FromRequestParts as _;
        let (mut parts, body) = request.into_parts();
        let parameters = Path::<Vec<(String, String)>>::from_request_parts(&mut parts, state).await;
        let Path(parameters) = parameters.map_err(|_| Refusal::malformed("the path is not percent-encoded UTF-8"))?;
        let query = parts.uri.query().unwrap_or_default();
        let query: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .take(QUERY_MAX)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let what = format!("{} {}", parts.method, parts.uri.path());
        // Nobody gets here without having passed the door; where it lets everybody in, nobody has a name.
        let caller = parts.extensions.remove::<Caller>().unwrap_or_else(Caller::nobody);
        Ok(Self { caller, what, parameters, query, headers: parts.headers, body: Mutex::new(body) })
    }
}
