//! A strict walk over JSON text that lies in memory: RFC 8259, nothing more lenient.
//!
//! It builds nothing and allocates nothing; a value is skipped by one loop, not by
//! recursion, and nesting is bounded. It does not read JSON that arrives in pieces (see
//! `usage_finder`), and it accepts a lone surrogate escape in a string that nobody decodes,
//! because Python clients send them when they cut text in half of an emoji.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

use super::request_scan::{ScanError, ScanFault};
use crate::words;

/// Containers open at once. Real requests (tool schemas) stay below 20; the figure is the
/// width of the bit stack in [`Cursor::skip_value`].
pub const DEPTH_MAX: u32 = 64;

/// A part of the body, as offsets that outlive the borrow of it. `from <= to`, both within
/// the body that was scanned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub from: u32,
    /// One past the last byte.
    pub to: u32,
}

impl Span {
    /// The bytes of the span, or nothing when `body` is not the body that was scanned.
    pub fn of(self, body: &[u8]) -> &[u8] {
        body.get(self.range()).unwrap_or_default()
    }

    /// The span as a range of offsets.
    pub fn range(self) -> Range<usize> {
        self.from as usize..self.to as usize
    }

    pub(super) fn between(from: usize, to: usize) -> Self {
        Self { from: from as u32, to: to as u32 }
    }
}

/// A JSON string in the body: what stands between its quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Without the quotes.
    pub span: Span,
    /// The text contains a backslash, so its bytes are not its value.
    pub is_escaped: bool,
}

impl Text {
    /// The value of the string. Only an escaped one is copied.
    ///
    /// `None` when `body` is not the body that was scanned, or an escape is half a surrogate
    /// pair (the scan has already refused that for the fields it reports).
    pub fn value<'a>(&self, body: &'a [u8]) -> Option<Cow<'a, str>> {
        let raw = self.span.of(body);
        if !self.is_escaped {
            return std::str::from_utf8(raw).ok().map(Cow::Borrowed);
        }
        let mut value = String::new();
        unescape(raw, &mut value)?;
        Some(Cow::Owned(value))
    }
}

/// Appends the value of a string's inner bytes to `out`. `None` for a bad escape.
pub(super) fn unescape(raw: &[u8], out: &mut String) -> Option<()> {
    let text = std::str::from_utf8(raw).ok()?;
    let mut rest = text;
    while let Some(backslash) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(rest.get(..backslash)?);
        let escape = *rest.as_bytes().get(backslash + 1)?;
        rest = rest.get(backslash + 2..)?;
        out.push(match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let (unit, after) = utf16_unit(rest)?;
                rest = after;
                if (0xd800..0xdc00).contains(&unit) {
                    let (low, after) = utf16_unit(rest.strip_prefix("\\u")?)?;
                    rest = after;
                    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                    char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + low)?
                } else {
                    char::from_u32(unit)?
                }
            }
            _ => return None,
        });
    }
    out.push_str(rest);
    Some(())
}

fn utf16_unit(rest: &str) -> Option<(u32, &str)> {
    let digits = rest.get(..4)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    Some((u32::from_str_radix(digits, 16).ok()?, rest.get(4..)?))
}

/// Appends `text` as the inside of a JSON string (RFC 8259 section 7), without quotes.
pub(super) fn escape_into(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
        return;
    }
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0') as u8;
                out.extend_from_slice(b"\\u00");
                out.push(digit(byte >> 4));
                out.push(digit(byte & 0xf));
            }
        }
    }
    out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
}

/// How many bytes [`escape_into`] writes for `text`.
pub(super) fn escaped_len(text: &str) -> usize {
    if is_plain(text.as_bytes()) {
        return text.len();
    }
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum()
}

/// Nothing of it has to be escaped: so it is with the names of models.
fn is_plain(bytes: &[u8]) -> bool {
    let (whole, rest) = bytes.as_chunks::<8>();
    let escaped = |word: u64| words::below(word, 0x20) | words::equal(word, b'"') | words::equal(word, b'\\');
    whole.iter().fold(0, |found, word| found | escaped(words::word(*word))) == 0
        && rest.iter().all(|&byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
}

/// What one vectorised pass tells about a text before it is walked.
#[derive(Clone, Copy, Default)]
pub(super) struct Survey {
    /// Bytes of 0x80 and above.
    pub(super) non_ascii: u32,
    /// A byte below 0x20 occurs. Compact JSON has none, and then no string is looked
    /// through for control bytes a second time.
    pub(super) has_control: bool,
}

pub(super) fn survey(bytes: &[u8]) -> Survey {
    let (whole, rest) = bytes.as_chunks::<8>();
    let (mut all, mut controls) = (0, 0);
    for word in whole {
        let word = words::word(*word);
        all |= word;
        controls |= words::below(word, 0x20);
    }
    let is_ascii = all & words::word([0x80; 8]) == 0 && rest.is_ascii();
    let has_control = controls != 0 || rest.iter().any(|&byte| byte < 0x20);
    Survey { non_ascii: if is_ascii { 0 } else { non_ascii(bytes) }, has_control }
}

fn non_ascii(bytes: &[u8]) -> u32 {
    // 128 bytes: an eight-bit counter cannot overflow, and the loop needs no widening. Nor can it
    // wrap; said so because a checked addition does not vectorise.
    let in_chunk = |chunk: &[u8]| chunk.iter().fold(0u8, |count, &byte| count.wrapping_add(byte >> 7));
    bytes.chunks(128).map(|chunk| u32::from(in_chunk(chunk))).sum()
}

/// Where the first quote or backslash is. Keys and most escaped stretches are short, where
/// calling memchr costs more than looking, eight bytes at once; long prose is memchr's.
#[inline]
pub(super) fn quote_or_backslash(bytes: &[u8]) -> Option<usize> {
    let (near, far) = bytes.split_at(bytes.len().min(24));
    let (whole, rest) = near.as_chunks::<8>();
    for (at, word) in whole.iter().enumerate() {
        let word = words::word(*word);
        let found = words::equal(word, b'"') | words::equal(word, b'\\');
        if found != 0 {
            return Some(at * 8 + words::first(found));
        }
    }
    if far.is_empty() {
        let found = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        return found.map(|found| found + whole.len() * 8);
    }
    memchr2(b'"', b'\\', far).map(|found| found + near.len())
}

/// A place in the text, and the steps that move it on.
pub(super) struct Cursor<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) at: usize,
    /// From [`Survey::has_control`]: strings have to be looked through.
    pub(super) check_control: bool,
}

impl Cursor<'_> {
    pub(super) fn fault(&self, fault: ScanFault) -> ScanError {
        ScanError { fault, at: self.at as u32 }
    }

    /// Passes white space and shows the byte that follows, without passing it.
    #[inline]
    pub(super) fn token(&mut self) -> Result<u8, ScanError> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Ok(byte);
            }
            self.at += 1;
        }
        Err(self.fault(ScanFault::Truncated))
    }

    /// Passes a key, which has to follow here, and its colon.
    #[inline]
    pub(super) fn key(&mut self) -> Result<Text, ScanError> {
        if self.token()? != b'"' {
            return Err(self.fault(ScanFault::Unexpected));
        }
        let key = self.string()?;
        if self.token()? != b':' {
            return Err(self.fault(ScanFault::Unexpected));
        }
        self.at += 1;
        Ok(key)
    }

    /// Passes a string; `at` is on its opening quote.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Text, ScanError> {
        self.at += 1;
        let from = self.at;
        let mut is_escaped = false;
        loop {
            let found = self.quote_or_backslash()?;
            self.at = found + 1;
            if self.bytes.get(found) == Some(&b'"') {
                let span = Span::between(from, found);
                if self.check_control {
                    self.refuse_control(span)?;
                }
                return Ok(Text { span, is_escaped });
            }
            is_escaped = true;
            self.escape()?;
        }
    }

    #[inline]
    fn quote_or_backslash(&self) -> Result<usize, ScanError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let found = quote_or_backslash(rest);
        match found {
            Some(found) => Ok(self.at + found),
            None => Err(ScanError { fault: ScanFault::Truncated, at: self.bytes.len() as u32 }),
        }
    }

    /// Passes what follows a backslash.
    fn escape(&mut self) -> Result<(), ScanError> {
        let Some(&escape) = self.bytes.get(self.at) else {
            return Err(self.fault(ScanFault::Truncated));
        };
        match escape {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                self.at += 1;
                for _ in 0..4 {
                    match self.bytes.get(self.at) {
                        Some(digit) if digit.is_ascii_hexdigit() => self.at += 1,
                        Some(_) => return Err(self.fault(ScanFault::BadEscape)),
                        None => return Err(self.fault(ScanFault::Truncated)),
                    }
                }
            }
            _ => return Err(self.fault(ScanFault::BadEscape)),
        }
        Ok(())
    }

    fn refuse_control(&self, span: Span) -> Result<(), ScanError> {
        let inside = span.of(self.bytes);
        // Without an early exit, so that it vectorises; the place is looked for afterwards.
        if inside.iter().fold(0, |found, &byte| found | u8::from(byte < 0x20)) != 0 {
            let at = inside.iter().position(|&byte| byte < 0x20).unwrap_or(0);
            return Err(ScanError { fault: ScanFault::ControlByte, at: span.from + at as u32 });
        }
        Ok(())
    }

    /// Passes a number; `at` is on its first byte.
    pub(super) fn number(&mut self) -> Result<Span, ScanError> {
        let from = self.at;
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        if self.bytes.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        match self.bytes.get(self.at) {
            // Another byte might still belong to it.
            None => Err(self.fault(ScanFault::Truncated)),
            Some(b'0'..=b'9') => Err(self.fault(ScanFault::Unexpected)),
            Some(_) => Ok(Span::between(from, self.at)),
        }
    }

    fn digits(&mut self) -> Result<(), ScanError> {
        let from = self.at;
        while matches!(self.bytes.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > from {
            Ok(())
        } else if self.at == self.bytes.len() {
            Err(self.fault(ScanFault::Truncated))
        } else {
            Err(self.fault(ScanFault::Unexpected))
        }
    }

    /// Passes `word`; `at` is on its first byte.
    pub(super) fn word(&mut self, word: &'static [u8]) -> Result<Span, ScanError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.starts_with(word) {
            let from = self.at;
            self.at += word.len();
            Ok(Span::between(from, self.at))
        } else if word.starts_with(rest) {
            self.at = self.bytes.len();
            Err(self.fault(ScanFault::Truncated))
        } else {
            Err(self.fault(ScanFault::Unexpected))
        }
    }

    /// Passes one value of any kind that stands inside `open` containers. `at` is on its
    /// first byte or on white space before it.
    pub(super) fn skip_value(&mut self, open: u32) -> Result<(), ScanError> {
        // One bit a container, the newest lowest: 1 is an object.
        let mut kinds = 0u64;
        let mut depth = 0u32;
        loop {
            // Here a value is due.
            match self.token()? {
                b'"' => {
                    self.string()?;
                }
                b'{' => {
                    if open + depth >= DEPTH_MAX {
                        return Err(self.fault(ScanFault::TooDeep));
                    }
                    self.at += 1;
                    if self.token()? != b'}' {
                        kinds = kinds << 1 | 1;
                        depth += 1;
                        self.key()?;
                        continue;
                    }
                    self.at += 1;
                }
                b'[' => {
                    if open + depth >= DEPTH_MAX {
                        return Err(self.fault(ScanFault::TooDeep));
                    }
                    self.at += 1;
                    if self.token()? != b']' {
                        kinds <<= 1;
                        depth += 1;
                        continue;
                    }
                    self.at += 1;
                }
                b'-' | b'0'..=b'9' => {
                    self.number()?;
                }
                b't' => {
                    self.word(b"true")?;
                }
                b'f' => {
                    self.word(b"false")?;
                }
                b'n' => {
                    self.word(b"null")?;
                }
                _ => return Err(self.fault(ScanFault::Unexpected)),
            }
            // Here a value has ended: close what closes, until another one is due.
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let in_object = kinds & 1 == 1;
                match self.token()? {
                    b',' => {
                        self.at += 1;
                        if in_object {
                            self.key()?;
                        }
                        break;
                    }
                    b'}' if in_object => {}
                    b']' if !in_object => {}
                    _ => return Err(self.fault(ScanFault::Unexpected)),
                }
                self.at += 1;
                kinds >>= 1;
                depth -= 1;
            }
        }
    }
}
