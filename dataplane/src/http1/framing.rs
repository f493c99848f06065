//! What request and answer heads have in common behind their first line: splitting field
//! lines, and reading the fields that delimit a message or belong to one connection.

use super::class;
use super::fields::Known;
use super::lines::clean_end;
use super::{Field, Span};
use crate::words;

/// Minor version of HTTP/1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the version of that number")]
pub enum Version {
    Http10,
    #[default]
    Http11,
}

/// Elements of all `Connection` fields together; bounds the work of marking fields.
const CONNECTION_OPTIONS_MAX: usize = 32;

/// Fields met so far, one bit for each line of the table.
#[derive(Clone, Copy, Default)]
pub(super) struct SeenFields(u128);

impl SeenFields {
    /// Notes `known`; says whether it was there already.
    pub(super) fn again(&mut self, known: Known) -> bool {
        let was_there = self.has(known);
        self.0 |= 1 << known as u8;
        was_there
    }

    pub(super) fn has(self, known: Known) -> bool {
        self.0 & (1 << known as u8) != 0
    }
}

pub(super) fn value_of<'b>(fields: &[Field], buf: &'b [u8], known: Known) -> Option<&'b [u8]> {
    fields.iter().find(|field| field.known == known).map(|field| field.value.of(buf))
}

/// Splits the field lines of `head` from `at` on into `fields`, up to the empty line that ends them;
/// where the head ends behind it, is returned. `None` when there are more than `most`, or they are
/// not all there, or one is malformed, folded, or spoiled by a control byte.
pub(super) fn split_fields(head: &[u8], mut at: usize, most: usize, fields: &mut Vec<Field>) -> Option<usize> {
    fields.clear();
    loop {
        let rest = head.get(at..)?;
        if let [b'\r', b'\n', ..] = rest {
            return Some(at + 2);
        }
        if fields.len() == most {
            return None;
        }
        // RFC 9112 section 5: a token, and the colon right behind it.
        let name_len = first_colon(rest)?;
        let name = rest.get(..name_len)?;
        let known = Known::classify(name);
        // The names of the table are tokens.
        if known.name().is_none() && !class::is_token(name) {
            return None;
        }
        let name_end = at + name_len;
        let end = clean_end(head, name_end + 1)?;
        fields.push(Field {
            known,
            is_connection_named: false,
            name: Span::between(at, name_end)?,
            value: trimmed(head, name_end + 1, end)?,
        });
        at = end + 2;
    }
}

/// The piece of `head` from `from` to `to` without the whitespace at its ends.
#[inline]
pub(super) fn trimmed(head: &[u8], mut from: usize, mut to: usize) -> Option<Span> {
    while from < to && matches!(head.get(from), Some(b' ' | b'\t')) {
        from += 1;
    }
    while from < to && matches!(head.get(to - 1), Some(b' ' | b'\t')) {
        to -= 1;
    }
    Span::between(from, to)
}

fn first_colon(bytes: &[u8]) -> Option<usize> {
    let (whole, rest) = bytes.as_chunks::<8>();
    for (at, word) in whole.iter().enumerate() {
        let found = words::equal(words::word(*word), b':');
        if found != 0 {
            return Some(at * 8 + words::first(found));
        }
    }
    rest.iter().position(|&byte| byte == b':').map(|found| whole.len() * 8 + found)
}

/// RFC 9110 section 8.6, as one number. At most 19 digits, so below 2^64; at most 2^63 - 1.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = value.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    i64::try_from(length).is_ok().then_some(length)
}

/// What a `Transfer-Encoding` field asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// `chunked` and nothing else.
    Chunked,
    /// Well-formed, `chunked` last, with others before it.
    Others,
    /// Anything else.
    Malformed,
}

/// Reads one `Transfer-Encoding` line. Its whitespace must be spaces: tabs around `chunked`
/// are allowed whitespace, but no sender writes them, and servers were led apart with them.
pub(super) fn transfer_coding(head: &[u8], field: &Field) -> Coding {
    let value = field.value.of(head);
    let line = head.get(field.name.range().end..).unwrap_or_default();
    let line = &line[..memchr::memchr(b'\r', line).unwrap_or(line.len())];
    if line.contains(&b'\t') {
        return Coding::Malformed;
    }
    if value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let mut codings = value.rsplit(|&byte| byte == b',').map(class::trim_whitespace);
    let last_is_chunked = codings.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let others_are_tokens = codings.all(|coding| class::is_token(coding) && !coding.eq_ignore_ascii_case(b"chunked"));
    if last_is_chunked && others_are_tokens { Coding::Others } else { Coding::Malformed }
}

/// Marks the fields that `Connection` names and says whether the connection may stay open.
/// `None` when the option list is malformed or too long.
pub(super) fn apply_connection(fields: &mut [Field], head: &[u8], version: Version) -> Option<bool> {
    let (mut close, mut keep_alive) = (false, version == Version::Http11);
    let mut options = 0;
    for at in 0..fields.len() {
        if fields[at].known != Known::Connection {
            continue;
        }
        let value = fields[at].value.of(head);
        for option in value.split(|&byte| byte == b',').map(class::trim_whitespace) {
            options += 1;
            if options > CONNECTION_OPTIONS_MAX || !class::all(option, class::TOKEN) {
                return None;
            }
            if option.eq_ignore_ascii_case(b"close") {
                close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                keep_alive = true;
            } else if !option.is_empty() {
                for field in fields.iter_mut() {
                    field.is_connection_named |= field.name.of(head).eq_ignore_ascii_case(option);
                }
            }
        }
    }
    Some(keep_alive && !close)
}
