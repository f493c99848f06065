//! Heads of providers' answers, as strict as [`super::head`]: a provider may be hostile,
//! broken, or somebody else.
//!
//! Left to the caller: skipping interim answers, at most
//! [`INTERIM_ANSWERS_MAX`](super::INTERIM_ANSWERS_MAX) of them, and never using a connection
//! again that has bytes left over.

use super::fields::Known;
use super::framing::{
    Coding, SeenFields, Version, apply_connection, content_length, split_fields, transfer_coding, value_of,
};
use super::head::Method;
use super::lines::{self, Found, LineScan};
use super::{Field, Parsed, RESPONSE_FIELDS_MAX, RESPONSE_HEAD_BYTES_MAX};

mod answer_form;

pub use super::fault::ResponseFault;
pub use answer_form::AnswerForm;

/// How the body of an answer is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body: HEAD, 1xx, 204, 304.
    #[default]
    None,
    /// So many bytes; may be 0.
    Length(u64),
    /// Chunks, read with [`super::ChunkDecoder`].
    Chunked,
    /// Until the provider closes. Whether it was cut nobody can tell.
    UntilClose,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    StatusLine,
    Fields,
    Over,
}

/// An answer head as offsets into the buffer it was parsed from. Reusable like
/// [`super::RequestHead`]; what it says is valid after [`Parsed::Complete`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    scan: LineScan,
    phase: Phase,
    lines: usize,
    fields_start: usize,

    status: u16,
    version: Version,
    fields: Vec<Field>,
    framing: BodyFraming,
    declared_length: Option<u64>,
    keep_alive: bool,
    tells_limits: bool,
}

/// Parses the answer head at the start of `buf`; `asked` is the method of the request it
/// answers. Called again after [`Parsed::Partial`] like [`super::parse_request`].
pub fn parse_response(buf: &[u8], asked: Method, out: &mut ResponseHead) -> Result<Parsed, ResponseFault> {
    if out.phase == Phase::Over {
        out.clear();
    }
    let result = out.go_on(buf, asked);
    if !matches!(result, Ok(Parsed::Partial)) {
        // How it was found means nothing any more.
        (out.scan, out.lines, out.fields_start) = (LineScan::default(), 0, 0);
        out.phase = Phase::Over;
    }
    if result.is_err() {
        out.fields.clear();
    }
    result
}

impl ResponseHead {
    /// An empty head, ready to be parsed into.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything but the allocation.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// Status code, 100 to 599 without 101.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether this is a 1xx answer, to be skipped; the real one follows behind its head.
    pub fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// Version of the status line.
    pub fn version(&self) -> Version {
        self.version
    }

    /// All fields in the order received.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Value of the first field that is `known`.
    pub fn value<'b>(&self, buf: &'b [u8], known: Known) -> Option<&'b [u8]> {
        value_of(&self.fields, buf, known)
    }

    /// How the body is delimited.
    pub fn framing(&self) -> BodyFraming {
        self.framing
    }

    /// `Content-Length` as sent, also where there is no body (HEAD, 304).
    pub fn declared_length(&self) -> Option<u64> {
        self.declared_length
    }

    /// Whether the provider lets the connection stay open after this answer.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether it has fields of the family [`Known::RateLimit`].
    pub fn tells_limits(&self) -> bool {
        self.tells_limits
    }

    fn go_on(&mut self, buf: &[u8], asked: Method) -> Result<Parsed, ResponseFault> {
        let head = buf.get(..RESPONSE_HEAD_BYTES_MAX).unwrap_or(buf);
        if self.scan == LineScan::default()
            && let Some(first_line_end) = lines::clean_end(head, 0)
            && let Some(head_len) = split_fields(head, first_line_end + 2, RESPONSE_FIELDS_MAX, &mut self.fields)
        {
            self.read_status_line(head.get(..first_line_end).unwrap_or_default())?;
            self.read_fields(head, asked)?;
            return Ok(Parsed::Complete { head_len });
        }
        self.fields.clear();
        loop {
            let rest = head.get(self.scan.line_start()..).unwrap_or_default();
            if self.phase == Phase::StatusLine {
                let common = rest.len().min(STATUS_LINE_START.len());
                if rest[..common] != STATUS_LINE_START[..common] {
                    return Err(ResponseFault::StatusLine);
                }
            } else if matches!(rest.first(), Some(b' ' | b'\t')) {
                return Err(ResponseFault::FoldedLine);
            }
            let Found::Line { start, end } = self.scan.next(head)? else {
                if buf.len() >= RESPONSE_HEAD_BYTES_MAX {
                    return Err(ResponseFault::HeadTooLarge);
                }
                return Ok(Parsed::Partial);
            };
            if self.phase == Phase::StatusLine {
                self.read_status_line(buf.get(start..end).unwrap_or_default())?;
                self.phase = Phase::Fields;
                self.fields_start = end + 2;
            } else if start == end {
                let head_len = end + 2;
                split_fields(head, self.fields_start, self.lines, &mut self.fields).ok_or(ResponseFault::FieldLine)?;
                self.read_fields(head, asked)?;
                return Ok(Parsed::Complete { head_len });
            } else {
                self.lines += 1;
                if self.lines > RESPONSE_FIELDS_MAX {
                    return Err(ResponseFault::TooManyFields);
                }
            }
        }
    }

    /// RFC 9112 section 4. Many servers leave out the space before an absent reason.
    fn read_status_line(&mut self, line: &[u8]) -> Result<(), ResponseFault> {
        self.version = match line.get(..9) {
            Some(b"HTTP/1.1 ") => Version::Http11,
            Some(b"HTTP/1.0 ") => Version::Http10,
            _ => return Err(ResponseFault::StatusLine),
        };
        let Some(digits) = line.get(9..12).filter(|it| it.iter().all(u8::is_ascii_digit)) else {
            return Err(ResponseFault::StatusLine);
        };
        self.status = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        // The scan saw to it that the reason holds no control byte; it is dropped anyway.
        if !matches!(line.get(12), None | Some(b' ')) || !(100..=599).contains(&self.status) {
            return Err(ResponseFault::StatusLine);
        }
        if self.status == 101 {
            return Err(ResponseFault::SwitchedProtocols);
        }
        Ok(())
    }

    fn read_fields(&mut self, head: &[u8], asked: Method) -> Result<(), ResponseFault> {
        let mut seen = SeenFields::default();
        for field in &self.fields {
            let again = seen.again(field.known);
            match field.known {
                Known::ContentType | Known::Location if again => {
                    return Err(ResponseFault::DuplicateField);
                }
                Known::ContentLength => {
                    if again {
                        return Err(ResponseFault::DuplicateField);
                    }
                    let length = content_length(field.value.of(head));
                    self.declared_length = Some(length.ok_or(ResponseFault::ContentLength)?);
                }
                Known::TransferEncoding => {
                    if again {
                        return Err(ResponseFault::DuplicateField);
                    }
                    if transfer_coding(head, field) != Coding::Chunked {
                        return Err(ResponseFault::TransferEncoding);
                    }
                }
                _ => {}
            }
        }
        self.tells_limits = seen.has(Known::RateLimit);
        let is_chunked = seen.has(Known::TransferEncoding);
        self.framing = self.delimit(is_chunked, asked)?;
        self.keep_alive = apply_connection(&mut self.fields, head, self.version)
            .ok_or(ResponseFault::ConnectionOptions)?
            && self.framing != BodyFraming::UntilClose;
        Ok(())
    }

    /// RFC 9112 section 6.3, with a fault where it says that the sender must not.
    fn delimit(&self, is_chunked: bool, asked: Method) -> Result<BodyFraming, ResponseFault> {
        if is_chunked && self.declared_length.is_some() {
            return Err(ResponseFault::LengthAndCoding);
        }
        if is_chunked && (self.version == Version::Http10 || self.status == 204) {
            return Err(ResponseFault::FramingNotAllowed);
        }
        match (self.status, self.declared_length) {
            (100..=199, _) if is_chunked || self.declared_length.is_some() => Err(ResponseFault::FramingNotAllowed),
            // Some servers say `Content-Length: 0` with 204; there is nothing to mistake in it.
            (204, Some(1..)) => Err(ResponseFault::FramingNotAllowed),
            (100..=199 | 204 | 304, _) => Ok(BodyFraming::None),
            _ if asked == Method::Head => Ok(BodyFraming::None),
            _ if is_chunked => Ok(BodyFraming::Chunked),
            (_, Some(length)) => Ok(BodyFraming::Length(length)),
            (_, None) => Ok(BodyFraming::UntilClose),
        }
    }
}

const STATUS_LINE_START: &[u8] = b"HTTP/1.";

#[cfg(test)]
mod tests;
