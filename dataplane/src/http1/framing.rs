//! What request and answer heads have in common behind their first line: splitting field
//! lines, and reading the fields that delimit a message or belong to one connection.

use super::class;
use super::fields::Known;
use super::{Field, Span};

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

/// Splits the `count` field lines of `head` from `fields_start` to its end into `fields`. Their
/// line ends were found before, and that no other control byte but HTAB stands in them. `None`
/// when they are malformed, or not so many.
pub(super) fn split_fields(head: &[u8], fields_start: usize, count: usize, fields: &mut Vec<Field>) -> Option<()> {
    fields.clear();
    let mut at = fields_start;
    for _ in 0..count {
        let rest = head.get(at..)?;
        let line = rest.get(..memchr::memchr(b'\r', rest)?)?;
        // RFC 9112 section 5: a token, and the colon right behind it.
        let name_len = line.iter().position(|&byte| !class::is(byte, class::TOKEN))?;
        let (name, rest) = line.split_at_checked(name_len)?;
        let value = rest.strip_prefix(b":")?;
        if name.is_empty() {
            return None;
        }
        let before = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let value_at = at + name_len + 1 + before;
        fields.push(Field {
            known: Known::classify(name),
            is_connection_named: false,
            name: Span::between(at, at + name_len)?,
            value: Span::between(value_at, value_at + class::trim_whitespace(value).len())?,
        });
        at += line.len() + 2;
    }
    (head.get(at..)? == b"\r\n").then_some(())
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
