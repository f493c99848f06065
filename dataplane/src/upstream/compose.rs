//! Writes the request that goes upstream: a new head from typed parts, and the body as it came
//! or with a few bytes spliced. Everything that must not leave the gateway stays out here.

use crate::core::Serving;
use crate::http1::{HeadWriter, Known, Method, Unwritable};
use crate::identify::{self, Caller};
use crate::key_choice::Chosen;
use crate::plan::Step;
use crate::provider::Dialect;
use crate::rejection::{Cause, Rejection};
use crate::request::Request;
use crate::route::{self, Endpoint, Target};
use crate::same_head::HeadStart;
use crate::upstream::dialect_of;
use shared::snapshot::{ArchivedCredentialHeader, ArchivedProviderRecord};

/// The version of Anthropic's API that is meant where the client names none.
const ANTHROPIC_VERSION: &[u8] = b"2023-06-01";

/// How the body goes upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sized {
    /// There is none, and none was announced.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks: nobody knows yet.
    Chunked,
}

/// What the head is made from.
pub(crate) struct Parts<'a> {
    pub(crate) serving: &'a Serving,
    pub(crate) request: &'a Request,
    pub(crate) target: &'a Target,
    pub(crate) caller: Caller,
    pub(crate) step: &'a Step,
    pub(crate) chosen: &'a Chosen,
    pub(crate) request_id: &'a str,
    pub(crate) body: Sized,
}

/// Appends the head to `out`; `path` is room to put the path together in.
pub(crate) fn write_head(parts: &Parts<'_>, path: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), Rejection> {
    let Some(record) = parts.serving.records().providers.get(parts.step.provider) else {
        return Err(Rejection::new(Cause::Internal, "a route leads to no provider"));
    };
    try_write_head(parts, record, path, out).map_err(|fault| match fault {
        Fault::Climbs => Rejection::new(Cause::InvalidRequest, "the path has dot segments or encoded slashes"),
        Fault::Unwritable(what) => Rejection::new(Cause::InvalidRequest, format!("cannot be sent on: {what}")),
    })
}

enum Fault {
    Climbs,
    Unwritable(Unwritable),
}

impl From<Unwritable> for Fault {
    fn from(fault: Unwritable) -> Self {
        Self::Unwritable(fault)
    }
}

fn try_write_head(
    parts: &Parts<'_>,
    record: &ArchivedProviderRecord,
    path: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let Parts { serving, request, target, chosen, .. } = parts;
    let begins = out.len();
    // A model in the path may have another name for each attempt.
    let same_head = request.same_head.as_ref().filter(|_| target.model.is_none());
    let known = same_head.and_then(|same| same.start(serving, parts.step.provider, chosen.key));
    let has_request_id = if let Some(start) = known {
        out.extend_from_slice(&start.bytes);
        start.has_request_id
    } else {
        let has_request_id = write_start(parts, record, path, out)?;
        if let Some(same_head) = same_head {
            same_head.note_start(serving, || HeadStart {
                provider: parts.step.provider,
                key: chosen.key,
                bytes: out.get(begins..).unwrap_or_default().to_vec(),
                has_request_id,
            });
        }
        has_request_id
    };
    let mut writer = HeadWriter::go_on(out);
    if !has_request_id {
        writer.known(Known::RequestId, parts.request_id.as_bytes())?;
    }
    match parts.body {
        Sized::None => {}
        Sized::Length(length) => writer.content_length(length),
        Sized::Chunked => writer.chunked(),
    }
    writer.finish();
    Ok(())
}

/// Writes what is the same for every request with this head, key and configuration; says whether the
/// client's request id is in it.
fn write_start(
    parts: &Parts<'_>,
    record: &ArchivedProviderRecord,
    path: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<bool, Fault> {
    let Parts { serving, request, target, .. } = parts;
    let bytes = request.head_bytes();
    let head = &request.head;
    write_path(parts, record, bytes, path)?;
    let mut query = Vec::new();
    let query = head.query(bytes).map(|full| without_key(full, &mut query));
    let mut writer = HeadWriter::request(out, head.method_bytes(bytes), path, query)?;
    writer.known(Known::Host, record.authority.as_bytes())?;
    let secrets = &serving.published.secrets;
    for extra in record.extra_headers.iter() {
        if let Some(value) = secrets.get(extra.1.to_native() as usize) {
            writer.field(extra.0.as_bytes(), value.expose().as_bytes())?;
        }
    }
    write_credential(parts, record, &mut writer)?;
    let is_relay = target.endpoint == Endpoint::Relay;
    let settings = &serving.records().settings;
    let is_ours = |name: &[u8]| record.extra_headers.iter().any(|extra| extra.0.as_bytes().eq_ignore_ascii_case(name));
    let mut has_request_id = is_ours(b"x-request-id");
    let mut has_version = is_ours(b"anthropic-version");
    for field in head.fields() {
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        if field.known == Known::ExtraField {
            let wanted = name.get(b"x-bf-eh-".len()..).unwrap_or_default();
            let is_listed =
                settings.header_allowlist.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(wanted));
            if is_listed && Known::classify(wanted).relays_to_provider() && !is_ours(wanted) {
                writer.field(wanted, value)?;
            }
            continue;
        }
        if !field.relays_to_provider() || is_ours(name) {
            continue;
        }
        match field.known {
            // Usage is read in every answer, which a coding would hide; and the origin is a
            // browser's word to this gateway, not to the provider.
            Known::AcceptEncoding | Known::Origin if !is_relay => continue,
            Known::RequestId => has_request_id = true,
            Known::AnthropicVersion => has_version = true,
            _ => {}
        }
        writer.again(field.known, name, value)?;
    }
    if !is_relay && !is_ours(b"accept-encoding") {
        writer.known(Known::AcceptEncoding, b"identity")?;
    }
    if !has_version && target.dialect == Dialect::Anthropic && dialect_of(record) == Dialect::Anthropic {
        writer.known(Known::AnthropicVersion, ANTHROPIC_VERSION)?;
    }
    Ok(has_request_id)
}

fn write_path(
    parts: &Parts<'_>,
    record: &ArchivedProviderRecord,
    bytes: &[u8],
    path: &mut Vec<u8>,
) -> Result<(), Fault> {
    let Parts { target, chosen, request, .. } = parts;
    let prefix = record.path_prefix.as_str();
    path.extend_from_slice(prefix.as_bytes());
    if target.endpoint == Endpoint::Relay {
        let whole = request.head.path(bytes);
        if whole == b"*" && prefix.is_empty() {
            path.extend_from_slice(whole);
            return Ok(());
        }
        // Behind a prefix or with a key, a path must not lead elsewhere on that host.
        if (!prefix.is_empty() || !record.is_key_less) && route::climbs(whole) {
            return Err(Fault::Climbs);
        }
        path.extend_from_slice(whole);
        return Ok(());
    }
    let rest = bytes.get(target.rest.clone()).unwrap_or_default();
    if route::climbs(rest) {
        return Err(Fault::Climbs);
    }
    let version = match (target.dialect, dialect_of(record)) {
        // The OpenAI dialect of vendors that have one of their own.
        (Dialect::OpenAi, Dialect::Gemini) => "/v1beta/openai",
        (Dialect::OpenAi, Dialect::Cohere) => "/compatibility/v1",
        _ if record.drops_version => "",
        _ => target.version,
    };
    if !prefix.ends_with(version) {
        path.extend_from_slice(version.as_bytes());
    }
    match &target.model {
        Some(model) => {
            // `rest` is `/models/MODEL:ACTION`; the model may have another name at the provider.
            let action = bytes.get(model.end..target.rest.end).unwrap_or_default();
            path.extend_from_slice(b"/models/");
            path.extend_from_slice(chosen.model(parts.serving, parts.step).as_bytes());
            path.extend_from_slice(action);
            if route::climbs(path) {
                return Err(Fault::Climbs);
            }
        }
        None => path.extend_from_slice(rest),
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Ok(())
}

fn write_credential(
    parts: &Parts<'_>,
    record: &ArchivedProviderRecord,
    writer: &mut HeadWriter<'_>,
) -> Result<(), Fault> {
    let serving = parts.serving;
    let key = match parts.caller {
        Caller::Direct => identify::direct_key(&parts.request.head, parts.request.head_bytes()),
        _ => serving.credential(parts.chosen.key).map(str::as_bytes),
    };
    let Some(key) = key.filter(|key| !key.is_empty()) else { return Ok(()) };
    let is_foreign = parts.target.dialect == Dialect::OpenAi && dialect_of(record) != Dialect::OpenAi;
    let header = if is_foreign { &ArchivedCredentialHeader::Bearer } else { &record.credential_header };
    match header {
        ArchivedCredentialHeader::Bearer => writer.bearer(key)?,
        ArchivedCredentialHeader::XApiKey => writer.known(Known::XApiKey, key)?,
        ArchivedCredentialHeader::XGoogApiKey => writer.known(Known::XGoogApiKey, key)?,
        ArchivedCredentialHeader::ApiKey => writer.known(Known::ApiKey, key)?,
    }
    Ok(())
}

/// A query without `key=…` and its like: clients put credentials there, ours go into a header, and
/// a provider that sees both might take the client's.
fn without_key<'q>(query: &'q [u8], scratch: &'q mut Vec<u8>) -> &'q [u8] {
    if !query.split(|byte| *byte == b'&').any(is_credential) {
        return query;
    }
    for pair in query.split(|byte| *byte == b'&').filter(|pair| !is_credential(pair)) {
        if !scratch.is_empty() {
            scratch.push(b'&');
        }
        scratch.extend_from_slice(pair);
    }
    scratch
}

/// Whether a pair of a query is a credential for some provider; its name may be percent-encoded.
fn is_credential(pair: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] = [b"key", b"$key", b"api_key", b"api-key", b"access_token", b"oauth_token"];
    let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
    let mut decoded = Vec::with_capacity(16);
    let mut rest = name;
    while let Some((&first, others)) = rest.split_first() {
        let digit = |at: usize| others.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let (byte, skipped) = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => ((high << 4 | low) as u8, 2),
            _ => (first, 0),
        };
        decoded.push(byte);
        // Longer than every name of the list.
        if decoded.len() > 16 {
            return false;
        }
        rest = others.get(skipped..).unwrap_or_default();
    }
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(&decoded))
}

/// Methods whose requests announce a length even without a body.
pub(crate) fn announces_length(method: Method) -> bool {
    matches!(method, Method::Post | Method::Put | Method::Patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_query_never_goes_upstream() {
        let mut scratch = Vec::new();
        assert_eq!(without_key(b"alt=sse&key=secret&x=1", &mut scratch), b"alt=sse&x=1");
        let mut scratch = Vec::new();
        assert_eq!(without_key(b"key=secret", &mut scratch), b"");
        let mut scratch = Vec::new();
        assert_eq!(without_key(b"alt=sse", &mut scratch), b"alt=sse");
    }

    #[test]
    fn a_credential_is_known_through_its_encoding() {
        for pair in ["key=1", "KEY=1", "%6bey=1", "k%65%79=1", "%24key=1", "access_token=1", "api%2Dkey=1", "key"] {
            assert!(is_credential(pair.as_bytes()), "{pair}");
        }
        for pair in ["monkey=1", "keys=1", "%6=1", "k%ey=1", "", "=key", "alt=key", "page_token=1"] {
            assert!(!is_credential(pair.as_bytes()), "{pair}");
        }
    }
}
