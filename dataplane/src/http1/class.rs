//! Which byte may stand where: one table of RFC 9110 and RFC 3986 character classes.

use crate::words;

/// `tchar` of RFC 9110 section 5.6.2: field names, methods, chunk extension names.
pub(crate) const TOKEN: u8 = 1;
/// Path bytes of RFC 3986 (`pchar` and `/`), and bytes over 127, which [`super::encode`]
/// percent-encodes on the way out.
pub(crate) const PATH: u8 = 2;
/// [`PATH`], `?`, and `[` `]`, which browsers leave bare in queries; encoded on the way out.
pub(crate) const QUERY: u8 = 4;
/// `reg-name` of RFC 3986 without `,`: a comma would make one Host look like a list of two.
pub(crate) const REG_NAME: u8 = 8;
/// What RFC 3986 lets stand as it is in a path or a query.
pub(crate) const URI_BARE: u8 = 16;
/// Hexadecimal digits.
pub(crate) const HEX: u8 = 32;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut at = 0usize;
    while at < 256 {
        let byte = at as u8;
        let mut class = 0;
        let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        let sub_delim = matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=');
        let tchar = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        if tchar {
            class |= TOKEN;
        }
        let path = unreserved || sub_delim || matches!(byte, b':' | b'@' | b'/' | b'%');
        if path {
            class |= PATH | QUERY | URI_BARE;
        }
        if byte == b'?' {
            class |= QUERY | URI_BARE;
        }
        if matches!(byte, b'[' | b']') {
            class |= QUERY;
        }
        if byte >= 0x80 {
            class |= PATH | QUERY;
        }
        if (unreserved || sub_delim || byte == b'%') && byte != b',' {
            class |= REG_NAME;
        }
        if byte.is_ascii_hexdigit() {
            class |= HEX;
        }
        table[at] = class;
        at += 1;
    }
    table
}

const LOWER_TOKENS: [u8; 256] = lower_tokens();

const fn lower_tokens() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0usize;
    while at < 256 {
        if CLASSES[at] & TOKEN != 0 {
            table[at] = (at as u8).to_ascii_lowercase();
        }
        at += 1;
    }
    table
}

/// Whether `byte` is in any of `classes`.
pub(crate) fn is(byte: u8, classes: u8) -> bool {
    CLASSES[usize::from(byte)] & classes != 0
}

/// A byte of a token as field names are written: in lower case. Zero for every other byte.
pub(crate) const fn lower_token(byte: u8) -> u8 {
    LOWER_TOKENS[byte as usize]
}

/// Whether every byte is in any of `classes`; true for nothing.
pub(crate) fn all(bytes: &[u8], classes: u8) -> bool {
    bytes.iter().all(|&byte| is(byte, classes))
}

/// RFC 9110 `token`.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Whether each `%` has its two hexadecimal digits.
pub(crate) fn escapes_are_whole(mut bytes: &[u8]) -> bool {
    while let Some(at) = memchr::memchr(b'%', bytes) {
        match bytes.get(at + 1..at + 3) {
            Some(digits) if all(digits, HEX) => bytes = &bytes[at + 3..],
            _ => return false,
        }
    }
    true
}

/// Whether a byte ends or spoils a line: every control but HTAB, and DEL.
/// Bytes over 127 (`obs-text`) do not.
pub(crate) fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

/// Whether `bytes` may stand as a field value or a reason phrase: no control byte but HTAB.
pub(crate) fn is_field_text(bytes: &[u8]) -> bool {
    let (whole, rest) = bytes.as_chunks::<16>();
    if whole.iter().any(has_control) {
        return false;
    }
    // The last ones are looked at together with some before them.
    let is_clean = if rest.is_empty() {
        true
    } else if let Some(last) = bytes.last_chunk() {
        !has_control(last)
    } else if let (Some(first), Some(last)) = (rest.first_chunk(), rest.last_chunk()) {
        controls_and_tabs(*first) | controls_and_tabs(*last) == 0
    } else {
        false
    };
    // A tab is rare, and no control byte.
    is_clean || !rest.iter().any(|&byte| is_control(byte))
}

/// Without a branch for each byte, so that all of them are looked at in one register.
#[inline]
fn has_control(bytes: &[u8; 16]) -> bool {
    bytes.iter().fold(false, |found, &byte| found | is_control(byte))
}

/// Marks the control bytes among eight bytes, HTAB with them; see [`words`].
pub(crate) fn controls_and_tabs(bytes: [u8; 8]) -> u64 {
    let word = words::word(bytes);
    words::below(word, 0x20) | words::equal(word, 0x7f)
}

/// `bytes` without SP and HTAB at both ends (`OWS`).
pub(crate) fn trim_whitespace(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_byte_is_found_wherever_it_stands_and_no_other_is() {
        for len in 1..=50 {
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    for others in [b'a', b'\t', 0xff] {
                        let mut text = vec![others; len];
                        text[at] = byte;
                        assert_eq!(is_field_text(&text), !is_control(byte), "{byte} at {at} of {len}");
                    }
                }
            }
        }
        assert!(is_field_text(b""));
    }

    #[test]
    fn every_byte_of_a_token_has_its_lower_case_and_no_other_has_one() {
        for byte in 0..=u8::MAX {
            let lower = if is(byte, TOKEN) { byte.to_ascii_lowercase() } else { 0 };
            assert_eq!(lower_token(byte), lower, "{byte}");
        }
    }
}
