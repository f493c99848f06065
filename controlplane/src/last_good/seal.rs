//! Sealing of secrets for the state directory: ChaCha20-Poly1305 under a key of one file.
//!
//! A seal is bound to its place: index, epoch and the very snapshot bytes it was written with.
//! Whoever edits the file, for example to point a provider at another host, gets no secret.

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use shared::secret::Secret;
use zeroize::Zeroizing;

/// Shortest accepted text of an encryption key: what 24 random bytes are in base64.
pub const ENCRYPTION_KEY_BYTES_MIN: usize = 32;

/// The text cannot be an encryption key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the encryption key has fewer than {ENCRYPTION_KEY_BYTES_MIN} characters; make one with `openssl rand -base64 32`"
)]
pub struct EncryptionKeyTooShort;

/// What secrets on disk are sealed with. Given by the environment, never written.
pub struct EncryptionKey(Secret);

impl EncryptionKey {
    /// Takes a random text. It is not stretched, so a short or guessable one is no protection.
    pub fn new(text: Secret) -> Result<Self, EncryptionKeyTooShort> {
        if text.len() < ENCRYPTION_KEY_BYTES_MIN {
            return Err(EncryptionKeyTooShort);
        }
        Ok(Self(text))
    }

    /// A key of its own for one purpose, the same wherever this key is.
    pub(crate) fn derive(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(self.0.expose().as_bytes());
        let mut key = Zeroizing::new([0; 32]);
        derived
            .expand(&[purpose], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(key.as_mut_slice()))
            .expect("32 bytes are one block of HKDF-SHA256");
        key
    }

    /// The key of one file. `salt` is drawn for each file anew, so that a place's number can be
    /// its nonce: no key ever sees one twice.
    pub(crate) fn for_file(&self, salt: &[u8; 32], epoch: u64, snapshot_sum: [u8; 32]) -> FileKey {
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(self.0.expose().as_bytes());
        let mut key = Zeroizing::new([0; 32]);
        derived
            .expand(&[b"deepintshield last good v1"], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(key.as_mut_slice()))
            .expect("32 bytes are one block of HKDF-SHA256");
        let key = UnboundKey::new(&aead::CHACHA20_POLY1305, key.as_slice()).expect("the cipher takes 32 bytes");
        FileKey { key: LessSafeKey::new(key), epoch, snapshot_sum }
    }
}

/// Seals and opens the secrets of one file.
pub(crate) struct FileKey {
    key: LessSafeKey,
    epoch: u64,
    snapshot_sum: [u8; 32],
}

impl FileKey {
    /// Seals the secret at `index`. To be called once for an index.
    pub(crate) fn seal(&self, index: u32, secret: &Secret) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(secret.len() + aead::CHACHA20_POLY1305.tag_len());
        bytes.extend_from_slice(secret.expose().as_bytes());
        self.key
            .seal_in_place_append_tag(nonce(index), self.place(index), &mut bytes)
            .expect("a secret is far below the cipher's 256 GiB");
        bytes
    }

    /// Opens what was sealed at `index`; `None` for anything that was not sealed just there.
    pub(crate) fn open(&self, index: u32, sealed: &[u8]) -> Option<Secret> {
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let text = self.key.open_in_place(nonce(index), self.place(index), &mut bytes).ok()?;
        core::str::from_utf8(text).ok().map(Secret::new)
    }

    fn place(&self, index: u32) -> Aad<[u8; 44]> {
        let mut place = [0; 44];
        place[..4].copy_from_slice(&index.to_le_bytes());
        place[4..12].copy_from_slice(&self.epoch.to_le_bytes());
        place[12..].copy_from_slice(&self.snapshot_sum);
        Aad::from(place)
    }
}

fn nonce(index: u32) -> Nonce {
    let mut nonce = [0; aead::NONCE_LEN];
    nonce[..4].copy_from_slice(&index.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> EncryptionKey {
        EncryptionKey::new(Secret::new(text)).unwrap()
    }

    const TEXT: &str = "a-key-of-at-least-thirty-two-characters";

    #[test]
    fn a_seal_opens_at_its_own_place_only() {
        let salt = [7; 32];
        let file = key(TEXT).for_file(&salt, 5, [1; 32]);
        let sealed = file.seal(3, &Secret::new("sk-planted"));
        assert!(!sealed.windows(10).any(|window| window == b"sk-planted"));
        assert_eq!(file.open(3, &sealed).unwrap().expose(), "sk-planted");

        assert!(file.open(4, &sealed).is_none(), "another index");
        assert!(key(TEXT).for_file(&salt, 6, [1; 32]).open(3, &sealed).is_none(), "another epoch");
        assert!(key(TEXT).for_file(&salt, 5, [2; 32]).open(3, &sealed).is_none(), "another snapshot");
        assert!(key(TEXT).for_file(&[8; 32], 5, [1; 32]).open(3, &sealed).is_none(), "another file");
        let other = key("another-key-of-thirty-two-characters!");
        assert!(other.for_file(&salt, 5, [1; 32]).open(3, &sealed).is_none(), "another key");
    }

    #[test]
    fn cut_and_flipped_seals_stay_shut() {
        let file = key(TEXT).for_file(&[7; 32], 5, [1; 32]);
        let sealed = file.seal(0, &Secret::new("sk-planted"));
        for length in 0..sealed.len() {
            assert!(file.open(0, &sealed[..length]).is_none());
            let mut flipped = sealed.clone();
            flipped[length] ^= 0x10;
            assert!(file.open(0, &flipped).is_none());
        }
    }

    #[test]
    fn a_short_key_is_refused_with_the_remedy() {
        let error = EncryptionKey::new(Secret::new("hunter2")).err().unwrap();
        assert!(error.to_string().contains("openssl rand"));
    }
}
