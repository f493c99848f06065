//! Providers quote the key that they complain about. What they say of ours stops here, also where
//! a quotation is spread over several reads.

use crate::buffers::Buffer;

/// How much longer than a credential a text is that is searched place by place.
const SHORT_BYTES: usize = 32;

/// A shorter credential could be an ordinary word of a text.
const CREDENTIAL_BYTES_MIN: usize = 8;

/// Whether a credential is one that can be looked for.
pub(crate) fn is_telling(credential: &[u8]) -> bool {
    credential.len() >= CREDENTIAL_BYTES_MIN
}

/// Whether a text quotes the credential.
pub(crate) fn quotes(text: &[u8], credential: &[u8]) -> bool {
    if !is_telling(credential) || text.len() < credential.len() {
        return false;
    }
    // Most fields are hardly longer than a key: there, getting a searcher ready costs more.
    let is_short = text.len() - credential.len() < SHORT_BYTES;
    let mut places = text.windows(credential.len());
    let is_quoted = |place: &[u8]| place.first() == credential.first() && place == credential;
    if is_short { places.any(is_quoted) } else { memchr::memmem::find(text, credential).is_some() }
}

/// Masks one body, piece by piece. The length of the body stays what it was.
#[derive(Default)]
pub(crate) struct Mask {
    /// So many bytes of the credential ended the last piece, and wait for what follows them.
    held: usize,
}

impl Mask {
    /// Overwrites the credential wherever it stands in the body up to here. What may be its
    /// beginning at the end of `piece` is taken out, and comes with the next piece.
    pub(crate) fn pass(&mut self, piece: &mut Buffer, credential: &[u8], ended: bool) {
        if self.held > 0 {
            let held = credential.get(..self.held).unwrap_or_default();
            let mut whole = Buffer::for_payload(held.len() + piece.len());
            let fits = whole.append(held) && whole.append(piece.payload());
            debug_assert!(fits, "the buffer was made for them");
            *piece = whole;
            self.held = 0;
        }
        overwrite(piece.payload_mut(), credential);
        if !ended {
            self.held = begun(piece.payload(), credential);
            piece.truncate(piece.len() - self.held);
        }
    }
}

fn overwrite(payload: &mut [u8], credential: &[u8]) {
    let mut from = 0;
    while let Some(at) = memchr::memmem::find(payload.get(from..).unwrap_or_default(), credential) {
        let start = from + at;
        from = start + credential.len();
        if let Some(found) = payload.get_mut(start..from) {
            found.fill(b'*');
        }
    }
}

/// How many bytes at the end of `payload` may be the beginning of the credential.
fn begun(payload: &[u8], credential: &[u8]) -> usize {
    let longest = payload.len().min(credential.len().saturating_sub(1));
    (1..=longest).rev().find(|len| payload.ends_with(&credential[..*len])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"sk-sk-1234";

    fn passed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut mask = Mask::default();
        let mut out = Vec::new();
        for (index, bytes) in pieces.iter().enumerate() {
            let mut piece = Buffer::for_payload(bytes.len());
            assert!(piece.append(bytes));
            mask.pass(&mut piece, KEY, index + 1 == pieces.len());
            out.extend_from_slice(piece.payload());
        }
        out
    }

    #[test]
    fn a_quoted_key_is_masked_however_it_is_split() {
        let text = b"a sk- wrong key: sk-sk-sk-1234 and sk-sk-1234sk-sk-12";
        let wanted = b"a sk- wrong key: sk-********** and **********sk-sk-12";
        assert_eq!(passed(&[text]), wanted);
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let split = passed(&[&text[..first], &text[first..second], &text[second..]]);
                assert_eq!(String::from_utf8_lossy(&split), String::from_utf8_lossy(wanted), "{first} {second}");
            }
        }
    }

    #[test]
    fn a_short_credential_is_not_looked_for() {
        assert!(!quotes(b"the key", b"key"));
        assert!(quotes(b"Bearer sk-sk-1234", KEY));
        let far = [&[b'x'; 100][..], KEY].concat();
        assert!(quotes(&far, KEY) && !quotes(&far[..109], KEY));
    }
}
