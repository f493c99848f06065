//! Watches a body that is too long to be buffered while it passes: a field that stands twice
//! would be read here from the beginning and by the provider from the end, with another model
//! or price than was admitted.
//!
//! It takes pieces cut anywhere and keeps no more than one key. It checks brackets, strings
//! and which bytes stand outside of strings, so that no lenient parser finds a key where this
//! one sees none; numbers and words are left to the provider. Values are not read: a field
//! that comes late is the provider's alone.

use memchr::memchr2;

use super::request_scan::{DEPTH_MAX, Field, KEY_BYTES_MAX, Key, ScanError, ScanFault, top_key};

/// The state between two pieces of a body.
#[derive(Clone, Debug)]
pub struct LateScan {
    at: u64,
    depth: u32,
    /// One bit an open container, the newest lowest: 1 is an object.
    kinds: u64,
    inside: Inside,
    /// A string that begins now is a key of the body.
    key_is_due: bool,
    key: [u8; KEY_BYTES_MAX],
    /// Saturates above the size of `key`.
    key_len: u8,
    /// One bit for each [`Field`] that was met.
    seen: u16,
    is_over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Nothing,
    String,
    StringEscape,
    Key,
    KeyEscape,
}

impl Default for LateScan {
    fn default() -> Self {
        Self::new()
    }
}

impl LateScan {
    /// At the first byte of a body; the beginning that was scanned already is read again.
    pub fn new() -> Self {
        Self {
            at: 0,
            depth: 0,
            kinds: 0,
            inside: Inside::Nothing,
            key_is_due: false,
            key: [0; KEY_BYTES_MAX],
            key_len: 0,
            seen: 0,
            is_over: false,
        }
    }

    /// Reads on. After an error the body must not be completed upstream. Offsets above 4 GiB
    /// are given as the largest.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ScanError> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.inside {
                Inside::Nothing => {
                    self.outside(byte).map_err(|fault| self.error(fault, at))?;
                    at += 1;
                }
                Inside::String => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let Some(found) = memchr2(b'"', b'\\', rest) else { break };
                    let is_end = rest.get(found) == Some(&b'"');
                    self.inside = if is_end { Inside::Nothing } else { Inside::StringEscape };
                    at += found + 1;
                }
                Inside::StringEscape => {
                    self.inside = Inside::String;
                    at += 1;
                }
                Inside::Key => {
                    match byte {
                        b'"' => {
                            self.end_key().map_err(|fault| self.error(fault, at))?;
                            self.inside = Inside::Nothing;
                        }
                        b'\\' => {
                            self.key_byte(byte);
                            self.inside = Inside::KeyEscape;
                        }
                        _ => self.key_byte(byte),
                    }
                    at += 1;
                }
                Inside::KeyEscape => {
                    self.key_byte(byte);
                    self.inside = Inside::Key;
                    at += 1;
                }
            }
        }
        self.at = self.at.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// The body is over: its object must be as well.
    pub fn finish(&self) -> Result<(), ScanError> {
        if self.is_over { Ok(()) } else { Err(self.error(ScanFault::Truncated, 0)) }
    }

    /// Whether a field stands in what was read.
    pub fn has(&self, field: Field) -> bool {
        self.seen & 1 << field as u8 != 0
    }

    fn error(&self, fault: ScanFault, at: usize) -> ScanError {
        ScanError { fault, at: u32::try_from(self.at.saturating_add(at as u64)).unwrap_or(u32::MAX) }
    }

    fn outside(&mut self, byte: u8) -> Result<(), ScanFault> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        if self.is_over && !is_space {
            return Err(ScanFault::TrailingBytes);
        }
        if self.depth == 0 && !is_space && byte != b'{' {
            return Err(ScanFault::NotAnObject);
        }
        let is_at_top = self.depth == 1;
        match byte {
            b'"' if is_at_top && self.key_is_due => {
                self.key_is_due = false;
                self.key_len = 0;
                self.inside = Inside::Key;
            }
            b'"' => self.inside = Inside::String,
            b'{' | b'[' => {
                if self.depth >= DEPTH_MAX {
                    return Err(ScanFault::TooDeep);
                }
                self.kinds = self.kinds << 1 | u64::from(byte == b'{');
                self.depth += 1;
                self.key_is_due = self.depth == 1;
            }
            b'}' | b']' => {
                if self.kinds & 1 != u64::from(byte == b'}') {
                    return Err(ScanFault::Unexpected);
                }
                self.kinds >>= 1;
                self.depth -= 1;
                self.is_over = self.depth == 0;
            }
            b',' => self.key_is_due = is_at_top,
            // Between tokens, of numbers, and the letters of `true`, `false` and `null`.
            b' '
            | b'\t'
            | b'\n'
            | b'\r'
            | b':'
            | b'0'..=b'9'
            | b'+'
            | b'-'
            | b'.'
            | b'E'
            | b't'
            | b'r'
            | b'u'
            | b'e'
            | b'f'
            | b'a'
            | b'l'
            | b's'
            | b'n' => {}
            _ => return Err(ScanFault::Unexpected),
        }
        Ok(())
    }

    fn key_byte(&mut self, byte: u8) {
        if let Some(place) = self.key.get_mut(usize::from(self.key_len)) {
            *place = byte;
        }
        self.key_len = self.key_len.saturating_add(1);
    }

    fn end_key(&mut self) -> Result<(), ScanFault> {
        let Some(raw) = self.key.get(..usize::from(self.key_len)) else { return Ok(()) };
        let field = match top_key(raw) {
            Key::Unknown => return Ok(()),
            Key::Variant(field) => return Err(ScanFault::CaseVariant(field)),
            Key::Field(field) => field,
        };
        if self.has(field) {
            return Err(ScanFault::Duplicate(field));
        }
        self.seen |= 1 << field as u8;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
