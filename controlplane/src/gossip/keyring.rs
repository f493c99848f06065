//! The keys of gossip: all of a ring are accepted, one of them seals. Pure.
//!
//! Each configured key is only ever a source: what seals frames, names the key, names the cluster
//! and signs beacons is derived from it, each on its own, so that none of them tells of another.
//!
//! Without configured keys a ring holds one that everybody knows. Frames under it are checksummed,
//! not protected: damage is noticed, an attacker is not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use ring::{hkdf, hmac};
use shared::secret::Secret;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes of a gossip key.
pub const KEY_BYTES: usize = 32;
/// Keys of one ring.
pub const KEYS_MAX: usize = 16;
/// Bytes of a beacon's tag.
pub const BEACON_TAG_BYTES: usize = 32;
/// What a ring without keys is derived from.
const NO_SECRET: &[u8] = b"deepintshield gossip without keys";

/// A ring could not be made of what is configured. The one in use stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// Not base64, or not of 32 bytes. The number counts from 1.
    #[error(
        "gossip.encryption_keys: key {0} is not base64 of {KEY_BYTES} bytes; make one with `openssl rand -base64 32`"
    )]
    NotAKey(usize),
    /// More than can be wanted in a rotation.
    #[error("gossip.encryption_keys: more than {KEYS_MAX} keys; take out those that no node sends with any more")]
    TooMany,
}

/// What names a key in public; says nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

impl KeyId {
    /// Of the key that everybody knows.
    pub(crate) const NONE: Self = Self([0; 4]);
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What names a cluster to those who have its key, and nobody else.
pub(crate) type ClusterTag = [u8; 8];

/// One key, ready for use. Wiped when it is dropped.
pub(crate) struct GossipKey {
    pub(crate) id: KeyId,
    pub(crate) cipher: XChaCha20Poly1305,
    pub(crate) cluster_tag: ClusterTag,
    beacon: Zeroizing<[u8; KEY_BYTES]>,
}

/// The keys of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Keyring {
    /// The first one seals. Never empty.
    keys: Arc<[GossipKey]>,
    is_plain: bool,
}

impl Keyring {
    /// A ring of configured keys, base64 of 32 bytes each; the first one seals. Without any, the
    /// ring checksums only; see [`Keyring::is_plain`].
    pub fn new(cluster_name: &str, secrets: &[Secret]) -> Result<Self, KeyringError> {
        if secrets.len() > KEYS_MAX {
            return Err(KeyringError::TooMany);
        }
        if secrets.is_empty() {
            let key = GossipKey::derive(NO_SECRET, cluster_name, KeyId::NONE);
            return Ok(Self { keys: Arc::from([key]), is_plain: true });
        }
        let mut keys = Vec::with_capacity(secrets.len());
        for (secret, number) in secrets.iter().zip(1..) {
            let mut bytes = Zeroizing::new([0; KEY_BYTES + 2]);
            let length = STANDARD.decode_slice(secret.expose(), bytes.as_mut_slice());
            let bytes = bytes.get(..length.unwrap_or(0)).filter(|bytes| bytes.len() == KEY_BYTES);
            let bytes = bytes.ok_or(KeyringError::NotAKey(number))?;
            keys.push(GossipKey::derive(bytes, cluster_name, key_id(bytes)));
        }
        Ok(Self { keys: keys.into(), is_plain: false })
    }

    /// Whether there are no configured keys, so that anybody may join.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Names of all keys, the one that seals first.
    pub fn key_ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.iter().map(|key| key.id)
    }

    /// Signs a message of UDP discovery, which is read before any frame.
    pub fn beacon_tag(&self, message: &[u8]) -> [u8; BEACON_TAG_BYTES] {
        let signature = hmac::sign(&self.sealing().beacon_key(), message);
        let mut tag = [0; BEACON_TAG_BYTES];
        tag.iter_mut().zip(signature.as_ref()).for_each(|(to, from)| *to = *from);
        tag
    }

    /// Whether a message of UDP discovery was signed with a key of this ring, by a node of this
    /// cluster. Takes the same time whatever the tag.
    pub fn verify_beacon(&self, message: &[u8], tag: &[u8]) -> bool {
        self.keys.iter().any(|key| hmac::verify(&key.beacon_key(), message, tag).is_ok())
    }

    /// The key that seals.
    pub(crate) fn sealing(&self) -> &GossipKey {
        self.keys.first().expect("a ring is made with a key")
    }

    /// The key of this name.
    pub(crate) fn find(&self, id: KeyId) -> Option<&GossipKey> {
        self.keys.iter().find(|key| key.id == id)
    }

    /// The first key that a peer takes too, as far as it said which; otherwise the one that seals.
    pub(crate) fn sealing_for(&self, taken: &[KeyId]) -> &GossipKey {
        self.keys.iter().find(|key| taken.contains(&key.id)).unwrap_or_else(|| self.sealing())
    }

    /// Any key, in turns: for a peer that answers under none that was tried.
    pub(crate) fn in_turn(&self, turn: usize) -> &GossipKey {
        self.keys.get(turn % self.keys.len()).unwrap_or_else(|| self.sealing())
    }
}

/// Says how many keys there are, and no more.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.keys.len()).field("is_plain", &self.is_plain).finish()
    }
}

impl GossipKey {
    fn derive(secret: &[u8], cluster_name: &str, id: KeyId) -> Self {
        let sealing = derived(secret, &[b"frames"]);
        let cluster = derived(secret, &[b"cluster", cluster_name.as_bytes()]);
        let mut cluster_tag = ClusterTag::default();
        cluster_tag.iter_mut().zip(cluster.iter()).for_each(|(to, from)| *to = *from);
        Self {
            id,
            cipher: XChaCha20Poly1305::new((&*sealing).into()),
            cluster_tag,
            beacon: derived(secret, &[b"beacons", cluster_name.as_bytes()]),
        }
    }

    fn beacon_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.beacon.as_slice())
    }
}

/// Never the id of a ring without keys, so that the two are told apart.
fn key_id(secret: &[u8]) -> KeyId {
    let derived = derived(secret, &[b"key id"]);
    let mut id = [0; 4];
    id.iter_mut().zip(derived.iter()).for_each(|(to, from)| *to = *from);
    if id == [0; 4] { KeyId([1; 4]) } else { KeyId(id) }
}

/// 32 bytes for one purpose, whose parts are told apart by their lengths.
fn derived(secret: &[u8], purpose: &[&[u8]]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut info = Vec::new();
    for part in purpose {
        info.extend_from_slice(&(part.len() as u64).to_le_bytes());
        info.extend_from_slice(part);
    }
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"deepintshield gossip v1")
        .extract(secret)
        .expand(&[&info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(key.as_mut_slice()))
        .expect("32 bytes are one block of HKDF-SHA256");
    key
}

#[cfg(test)]
mod tests;
