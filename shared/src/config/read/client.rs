//! `client`: what clients may do at the data port.

use super::{read_names, read_switch};
use crate::config::model::Client;
use crate::config::reader::{Fields, Node, Reader};

/// Entries of each list here.
const NAMES_MAX: usize = 64;

/// Largest `max_request_body_size_mb`.
const BODY_MIB_MAX: u64 = 16 * 1_024;

const MIB: u64 = 1_024 * 1_024;

/// Headers that a client must not be able to set upstream: framing, the provider's identity,
/// credentials. In lower case.
pub(super) const NEVER_FROM_CLIENTS: [&str; 17] = [
    "authorization",
    "api-key",
    "connection",
    "content-length",
    "content-encoding",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
    "x-goog-api-key",
    "x-bf-vk",
];

pub(super) fn read(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Client> {
    reader.object(node, |reader, fields| {
        // Two older names of the same switch. Ignoring them would open a closed gateway.
        let enforced = ["enforce_auth_on_inference", "enforce_governance_header", "enforce_scim_auth"]
            .map(|name| read_switch(reader, fields, name));
        let base = Client::default();
        Client {
            enforce_auth_on_inference: enforced.contains(&true),
            max_request_body_bytes: fields
                .read(reader, "max_request_body_size_mb", |r, n| r.integer(n, 1..=BODY_MIB_MAX))
                .map_or(base.max_request_body_bytes, |mib| mib * MIB),
            allowed_origins: fields
                .read(reader, "allowed_origins", |r, n| Some(r.list(n, NAMES_MAX, read_origin)))
                .unwrap_or_default(),
            drop_excess_requests: read_switch(reader, fields, "drop_excess_requests"),
            allow_direct_keys: read_switch(reader, fields, "allow_direct_keys"),
            prometheus_labels: fields
                .read(reader, "prometheus_labels", |r, n| Some(r.list(n, NAMES_MAX, read_label)))
                .unwrap_or_default(),
            extra_header_allowlist: fields
                .read(reader, "header_filter_config", |r, n| r.object(n, read_header_filter))
                .unwrap_or_default(),
        }
    })
}

fn read_origin(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<String> {
    let origin = reader.text(node)?;
    let is_origin = origin == "*"
        || ["http://", "https://"].iter().any(|scheme| {
            origin.strip_prefix(scheme).is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]*".contains(&byte))
            })
        });
    if !is_origin {
        let expected = "\"*\" or an origin such as \"https://app.example.com\"";
        reader.fault(&node.place, "not an origin", expected);
    }
    is_origin.then_some(origin)
}

/// A name that Prometheus takes, except that `-` is turned into `_` by the metrics.
fn read_label(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<String> {
    let label = reader.name(node)?;
    let is_label = label.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if !is_label {
        let expected = "letters, digits, '_' and '-', not beginning with a digit";
        reader.fault(&node.place, "not a label name", expected);
    }
    is_label.then_some(label)
}

fn read_header_filter(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Vec<String> {
    let denied = read_names(reader, fields, "denylist", NAMES_MAX);
    let allowed = fields.read(reader, "allowlist", |reader, node| {
        Some(reader.list(node, NAMES_MAX, |reader, node| {
            let name = read_header_name(reader, node)?;
            if NEVER_FROM_CLIENTS.contains(&name.as_str()) {
                let problem = "this header is never taken from a client";
                reader.fault(&node.place, problem, "a header without framing or credentials");
                return None;
            }
            Some(name)
        }))
    });
    let is_denied = |name: &String| denied.iter().any(|other| other.eq_ignore_ascii_case(name));
    let mut allowed = allowed.unwrap_or_default();
    allowed.retain(|name| !is_denied(name));
    allowed
}

/// A header's name in lower case (RFC 9110, section 5.6.2).
pub(super) fn read_header_name(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<String> {
    let name = reader.name(node)?;
    if is_token(&name) {
        return Some(name.to_ascii_lowercase());
    }
    reader.fault(&node.place, "not a header name", "a token without blanks");
    None
}

pub(super) fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
