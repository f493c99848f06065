//! A credential in memory: provider keys, virtual keys, passwords, gossip keys.
//!
//! The type has no `Debug`, `Display`, `Clone` or serializer, so that a log line, an error or a
//! snapshot cannot carry one by accident; the bytes are wiped when it is dropped. It does not
//! protect against a reader of the process's memory, and it cannot wipe copies which others
//! made before handing the text over.

use core::fmt;

use ring::digest;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A credential's text.
///
/// There is on purpose no way to print one:
///
/// ```compile_fail
/// println!("{:?}", shared::secret::Secret::new("sk-1"));
/// ```
///
/// ```compile_fail
/// println!("{}", shared::secret::Secret::new("sk-1"));
/// ```
///
/// and no way to copy one without saying so:
///
/// ```compile_fail
/// let copied = shared::secret::Secret::new("sk-1").clone();
/// ```
pub struct Secret(Zeroizing<Box<str>>);

impl Secret {
    /// Takes the text over. The caller's own copies stay the caller's to wipe.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(Box::from(text)))
    }

    /// The text itself, for the one place that sends or compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A second copy, which is wiped on its own. Named so that a copy shows in review.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::new(self.expose())
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no text at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Eight bytes of a SHA-256 that tell two secrets apart in logs and in the admin interface.
    ///
    /// Fit for generated credentials only: a guessable password could be guessed from it, so
    /// passwords get no fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(FINGERPRINT_DOMAIN);
        hash.update(self.expose().as_bytes());
        let hash = hash.finish();
        let mut first = [0; FINGERPRINT_BYTES];
        for (to, from) in first.iter_mut().zip(hash.as_ref()) {
            *to = *from;
        }
        Fingerprint(first)
    }
}

/// Compares in a time that depends on the lengths only.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Eq for Secret {}

/// Keeps our fingerprints from matching a list of plain SHA-256 sums of leaked keys.
const FINGERPRINT_DOMAIN: &[u8] = b"deepintshield secret fingerprint v1\0";

const FINGERPRINT_BYTES: usize = 8;

/// What may be said about a [`Secret`] in public. Prints as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; FINGERPRINT_BYTES]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_equal_and_prefixes_are_not() {
        assert!(Secret::new("sk-abc") == Secret::new("sk-abc"));
        assert!(Secret::new("sk-abc") != Secret::new("sk-ab"));
        assert!(Secret::new("sk-abc") != Secret::new("sk-abd"));
        assert!(Secret::new("") == Secret::new(""));
    }

    #[test]
    fn a_fingerprint_is_short_stable_and_tells_secrets_apart() {
        let one = Secret::new("sk-abc").fingerprint();
        assert_eq!(one, Secret::new("sk-abc").duplicate().fingerprint());
        assert_ne!(one, Secret::new("sk-abd").fingerprint());
        assert_eq!(one.to_string().len(), 16);
    }

    #[test]
    fn a_fingerprint_is_not_the_plain_digest() {
        let plain = digest::digest(&digest::SHA256, b"sk-abc");
        let Fingerprint(ours) = Secret::new("sk-abc").fingerprint();
        assert_ne!(plain.as_ref().get(..8), Some(&ours[..]));
    }
}
