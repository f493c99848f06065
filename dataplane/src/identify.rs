//! Who calls: the virtual key in one of the places where SDKs put credentials, looked up by its
//! keyed hash. Nothing of a credential leaves this file.

use crate::core::Serving;
use crate::http1::{Known, RequestHead};
use crate::rejection::{Cause, Rejection};
use shared::snapshot::ArchivedVirtualKeyRecord;

/// What virtual keys begin with.
const VIRTUAL_KEY_PREFIX: &[u8] = b"sk-bf-";

/// The caller of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Nobody in particular; allowed where authentication is not enforced.
    Anyone,
    /// A virtual key, by its index.
    VirtualKey(usize),
    /// Somebody with a provider's own key, which goes upstream as it came.
    Direct,
}

impl Caller {
    /// The caller's record.
    pub(crate) fn record(self, serving: &Serving) -> Option<&ArchivedVirtualKeyRecord> {
        match self {
            Self::VirtualKey(index) => serving.records().virtual_keys.get(index),
            Self::Anyone | Self::Direct => None,
        }
    }
}

/// Finds out who calls.
pub(crate) fn caller(serving: &Serving, head: &RequestHead, bytes: &[u8]) -> Result<Caller, Rejection> {
    let settings = &serving.records().settings;
    let Some(value) = virtual_key(head, bytes) else {
        if settings.allow_direct_keys && direct_key(head, bytes).is_some() {
            return Ok(Caller::Direct);
        }
        return if settings.enforce_auth {
            let text =
                "this gateway needs a virtual key: x-bf-vk, or sk-bf-… in authorization, x-api-key or x-goog-api-key";
            Err(Rejection::new(Cause::NoCredentials, text))
        } else {
            Ok(Caller::Anyone)
        };
    };
    let Some(index) = serving.known_callers.find(value, || look_up(serving, value)) else {
        return Err(Rejection::new(Cause::UnknownVirtualKey, "this virtual key is not known here"));
    };
    let index = index as usize;
    match serving.records().virtual_keys.get(index) {
        Some(record) if record.is_active => Ok(Caller::VirtualKey(index)),
        _ => Err(Rejection::new(Cause::BlockedVirtualKey, "this virtual key has been blocked")),
    }
}

/// Searches the snapshot, which has keyed hashes of virtual keys and no key.
#[cold]
pub(crate) fn look_up(serving: &Serving, key: &[u8]) -> Option<u32> {
    let hash = ring::hmac::sign(&serving.lookup, key);
    let index = &serving.records().virtual_key_index;
    // The hash is keyed: how long the search takes says nothing about any key.
    let found = index.binary_search_by(|entry| entry.0.as_slice().cmp(hash.as_ref())).ok()?;
    Some(index.get(found)?.1.to_native())
}

fn virtual_key<'b>(head: &RequestHead, bytes: &'b [u8]) -> Option<&'b [u8]> {
    let mut found = None;
    for field in head.fields() {
        let value = field.value.of(bytes);
        match field.known {
            Known::VirtualKey => return Some(value),
            Known::Authorization => found = found.or(bearer(value).filter(|token| is_virtual(token))),
            Known::XApiKey | Known::XGoogApiKey | Known::ApiKey => {
                found = found.or(Some(value).filter(|v| is_virtual(v)));
            }
            _ => {}
        }
    }
    found.or_else(|| query_key(head.query(bytes)?).filter(|key| is_virtual(key)))
}

/// A provider's own key that a client brought, for callers of [`Caller::Direct`].
pub(crate) fn direct_key<'b>(head: &RequestHead, bytes: &'b [u8]) -> Option<&'b [u8]> {
    head.fields().iter().find_map(|field| match field.known {
        Known::Authorization => bearer(field.value.of(bytes)),
        Known::XApiKey | Known::XGoogApiKey | Known::ApiKey => Some(field.value.of(bytes)),
        _ => None,
    })
}

fn is_virtual(value: &[u8]) -> bool {
    value.starts_with(VIRTUAL_KEY_PREFIX)
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// `?key=…`, where Google's clients put it.
fn query_key(query: &[u8]) -> Option<&[u8]> {
    query.split(|byte| *byte == b'&').find_map(|pair| pair.strip_prefix(b"key="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found_in_any_case_of_its_scheme() {
        assert_eq!(bearer(b"Bearer sk-bf-1"), Some(&b"sk-bf-1"[..]));
        assert_eq!(bearer(b"bearer  sk-bf-1"), Some(&b"sk-bf-1"[..]));
        assert_eq!(bearer(b"Basic c2s="), None);
        assert_eq!(bearer(b"Bearer"), None);
    }

    #[test]
    fn a_key_in_the_query_is_found() {
        assert_eq!(query_key(b"alt=sse&key=sk-bf-9"), Some(&b"sk-bf-9"[..]));
        assert_eq!(query_key(b"monkey=1"), None);
    }
}
