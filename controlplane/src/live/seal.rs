//! Secrets of entities, sealed: ChaCha20-Poly1305 under a key that all nodes have.
//!
//! A seal is bound to its place, the entity's id and the pointer in it: whoever copies one to
//! another entity, for example to a key of a provider that is their own, opens nothing. A random
//! nonce for every seal; the same secret sealed twice is two texts.

use super::entity::{EntityId, EntityKind};
use crate::last_good::EncryptionKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::Value;
use shared::config::model::Origin;
use shared::secret::Secret;
use zeroize::{Zeroize as _, Zeroizing};

/// In front of a sealed secret.
const SEALED: &str = "sealed:";
/// What stands in for a secret where nothing can be sealed and nobody may see it.
pub const HIDDEN: &str = "********";

/// Seals and opens the secrets of entities.
pub struct Sealer(LessSafeKey);

/// The operating system has no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no random bytes to seal a secret with")]
pub struct NotSealed;

impl Sealer {
    /// With a key derived from the one of the environment.
    pub fn new(key: &EncryptionKey) -> Self {
        let key = key.derive(b"deepintshield entities v1");
        let key = UnboundKey::new(&aead::CHACHA20_POLY1305, key.as_slice()).expect("the cipher takes 32 bytes");
        Self(LessSafeKey::new(key))
    }

    fn seal(&self, id: &EntityId, pointer: &str, text: &str) -> Result<String, NotSealed> {
        let mut nonce = [0; aead::NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| NotSealed)?;
        let length = aead::NONCE_LEN + text.len() + aead::CHACHA20_POLY1305.tag_len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        bytes.extend_from_slice(text.as_bytes());
        let place = Aad::from(place(id, pointer));
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), place, &mut bytes)
            .map_err(|_| NotSealed)?;
        let whole = [nonce.as_slice(), bytes.as_slice(), tag.as_ref()].concat();
        Ok(format!("{SEALED}{}", BASE64.encode(whole)))
    }

    /// Opens what stands behind `sealed:` in a joined text; `None` for what was not sealed with
    /// this key for that place.
    pub fn open_placed(&self, placed: &str) -> Option<String> {
        let (text, place) = placed.split_once(':')?;
        let mut whole = BASE64.decode(text).ok()?;
        let (nonce, sealed) = whole.split_first_chunk_mut::<{ aead::NONCE_LEN }>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place(nonce, Aad::from(place.as_bytes()), sealed).ok()?;
        let text = core::str::from_utf8(opened).ok().map(str::to_owned);
        whole.zeroize();
        text
    }

    /// Opens a sealed text of an entity.
    pub fn open(&self, id: &EntityId, pointer: &str, text: &str) -> Option<Secret> {
        let placed = with_place(text, id, pointer)?;
        let opened = Zeroizing::new(self.open_placed(placed.strip_prefix(SEALED)?)?);
        Some(Secret::new(&opened))
    }

    /// Seals every secret that is in clear. One that `before`, the same entity as it was, has sealed
    /// already stays as it is there, so that nothing seems to have changed.
    pub fn seal_all(&self, id: &EntityId, value: &mut Value, before: Option<&Value>) -> Result<(), NotSealed> {
        let mut outcome = Ok(());
        at_each_secret(id.kind, value, &mut |pointer, text| {
            if !is_clear(text) {
                return;
            }
            let same = before
                .and_then(|before| before.pointer(pointer))
                .and_then(Value::as_str)
                .filter(|sealed| self.open(id, pointer, sealed).is_some_and(|opened| opened.expose() == text.as_str()));
            match same.map_or_else(|| self.seal(id, pointer, text), |sealed| Ok(sealed.to_owned())) {
                Ok(sealed) => {
                    text.zeroize();
                    *text = sealed;
                }
                Err(error) => outcome = Err(error),
            }
        });
        outcome
    }
}

/// A secret that stands in clear: neither a reference nor sealed.
pub(super) fn is_clear(text: &str) -> bool {
    !text.is_empty() && Origin::of(text) == Origin::Literal
}

/// Texts where secrets stand, with their pointers; empty ones are none.
pub(super) fn secrets_of(kind: EntityKind, value: &Value) -> Vec<(String, &str)> {
    let mut secrets = Vec::new();
    look_at_each_secret(kind, value, &mut |pointer, text| {
        if !text.is_empty() {
            secrets.push((pointer.to_owned(), text));
        }
    });
    secrets
}

/// Where secrets stand in clear in an entity, as pointers.
pub fn in_clear(kind: EntityKind, value: &Value) -> Vec<String> {
    let mut pointers = Vec::new();
    look_at_each_secret(kind, value, &mut |pointer, text| {
        if is_clear(text) {
            pointers.push(pointer.to_owned());
        }
    });
    pointers
}

/// Puts [`HIDDEN`] where secrets stand in clear.
pub fn hide(kind: EntityKind, value: &mut Value) {
    at_each_secret(kind, value, &mut |_, text| {
        if is_clear(text) {
            text.zeroize();
            HIDDEN.clone_into(text);
        }
    });
}

pub(super) fn has_sealed(kind: EntityKind, value: &Value) -> bool {
    let mut is_there = false;
    look_at_each_secret(kind, value, &mut |_, text| is_there |= text.starts_with(SEALED));
    is_there
}

/// A sealed text with the name of its place behind it; `None` for any other.
pub(super) fn with_place(text: &str, id: &EntityId, pointer: &str) -> Option<String> {
    text.starts_with(SEALED).then(|| format!("{text}:{}", place(id, pointer)))
}

fn place(id: &EntityId, pointer: &str) -> String {
    format!("{id}#{pointer}")
}

/// Every text of an entity where a secret may stand, with its pointer.
pub(super) fn at_each_secret(kind: EntityKind, value: &mut Value, act: &mut dyn FnMut(&str, &mut String)) {
    let mut pointers = Vec::new();
    look_at_each_secret(kind, value, &mut |pointer, _| pointers.push(pointer.to_owned()));
    for pointer in pointers {
        if let Some(Value::String(text)) = value.pointer_mut(&pointer) {
            act(&pointer, text);
        }
    }
}

fn look_at_each_secret<'v>(kind: EntityKind, value: &'v Value, look: &mut dyn FnMut(&str, &'v str)) {
    for pattern in kind.secrets() {
        match pattern.strip_suffix("/*") {
            None => {
                if let Some(Value::String(text)) = value.pointer(pattern) {
                    look(pattern, text);
                }
            }
            Some(parent) => {
                let fields = value.pointer(parent).and_then(Value::as_object);
                for (name, text) in fields.into_iter().flatten() {
                    if let Value::String(text) = text {
                        look(&format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1")), text);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const TEXT: &str = "a-key-of-at-least-thirty-two-characters";

    fn sealer(text: &str) -> Sealer {
        Sealer::new(&EncryptionKey::new(Secret::new(text)).unwrap())
    }

    fn key(name: &str) -> EntityId {
        EntityId::new(EntityKind::Key, name)
    }

    #[test]
    fn a_sealed_secret_opens_at_its_place_and_with_its_key_only() {
        let sealer = sealer(TEXT);
        let mut value = json!({"name": "a", "value": "sk-planted"});
        sealer.seal_all(&key("p/a"), &mut value, None).unwrap();
        let sealed = value["value"].as_str().unwrap();
        assert!(sealed.starts_with(SEALED) && !value.to_string().contains("planted"));
        let open = |sealer: &Sealer, id: &EntityId, pointer: &str| {
            sealer.open(id, pointer, sealed).map(|secret| secret.expose().to_owned())
        };
        assert_eq!(open(&sealer, &key("p/a"), "/value").as_deref(), Some("sk-planted"));
        assert_eq!(open(&sealer, &key("q/a"), "/value"), None, "another entity");
        assert_eq!(open(&sealer, &key("p/a"), "/name"), None, "another field");
        let other = self::sealer("another-key-of-thirty-two-characters!");
        assert_eq!(open(&other, &key("p/a"), "/value"), None, "another key");
        for cut in 0..sealed.len() {
            assert!(sealer.open(&key("p/a"), "/value", &sealed[..cut]).is_none(), "{cut}");
        }
    }

    #[test]
    fn references_and_what_is_sealed_stay_and_the_same_secret_is_no_change() {
        let sealer = sealer(TEXT);
        let id = EntityId::new(EntityKind::Provider, "p");
        let headers = |a: &str| json!({"network_config": {"extra_headers": {"a/b": a, "b": "env.B", "c": "file:/c"}}});
        let mut first = headers("one");
        sealer.seal_all(&id, &mut first, None).unwrap();
        assert_eq!(first["network_config"]["extra_headers"]["b"], "env.B");
        let mut again = headers("one");
        sealer.seal_all(&id, &mut again, Some(&first)).unwrap();
        assert!(again == first);
        let mut other = headers("two");
        sealer.seal_all(&id, &mut other, Some(&first)).unwrap();
        assert!(other != first && in_clear(id.kind, &other).is_empty());
        let mut sealed = first.clone();
        sealer.seal_all(&id, &mut sealed, None).unwrap();
        assert!(sealed == first, "twice sealed is once sealed");
    }

    #[test]
    fn what_cannot_be_sealed_can_be_found_and_hidden() {
        let mut value = json!({"id": "v", "value": "sk-bf-planted"});
        assert_eq!(in_clear(EntityKind::VirtualKey, &value), ["/value"]);
        hide(EntityKind::VirtualKey, &mut value);
        assert!(!value.to_string().contains("planted"));
    }
}
