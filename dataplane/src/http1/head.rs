//! Request heads, strictly by RFC 9112: what a client may send, and nothing more.
//!
//! A head that is whole and clean is read at once. Any other is looked at line by line, so that
//! what is wrong with a part is said as soon as it shows.
//! Left to the caller: which methods are allowed, the size of bodies, dot segments in paths.

use super::class;
use super::fields::{Flags, Known};
use super::framing::{Coding, SeenFields, apply_connection, content_length, split_fields, transfer_coding, value_of};
use super::lines::{self, Found, LineScan};
use super::target;
use super::{
    Field, METHOD_BYTES_MAX, Parsed, REQUEST_FIELDS_MAX, REQUEST_HEAD_BYTES_MAX, REQUEST_TARGET_BYTES_MAX, Span,
};

pub use super::fault::HeadFault;
pub use super::framing::Version;
pub use super::target::TargetForm;

/// A request method. Methods are case-sensitive: `get` is [`Method::Other`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the method of that name")]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Patch,
    Options,
    Trace,
    /// Another token; [`RequestHead::method_bytes`] has it.
    Other,
}

impl Method {
    fn of(token: &[u8]) -> Result<Self, HeadFault> {
        Ok(match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"PATCH" => Self::Patch,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"CONNECT" => return Err(HeadFault::MethodRefused),
            _ => Self::Other,
        })
    }
}

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    #[default]
    None,
    /// So many bytes; may be 0.
    Length(u64),
    /// Chunks, read with [`super::ChunkDecoder`].
    Chunked,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    RequestLine,
    Fields,
    /// Complete or refused: the next call starts anew.
    Over,
}

/// A request head as offsets into the buffer it was parsed from, and what they mean.
///
/// Owned and reusable: it may be kept while the buffer's bytes stay in place, and parsing the
/// next request into it allocates nothing. What it says is valid after [`Parsed::Complete`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    scan: LineScan,
    phase: Phase,
    lines: usize,
    fields_start: usize,

    method: Method,
    method_span: Span,
    form: TargetForm,
    target: Span,
    path: Span,
    query: Option<Span>,
    host: Option<Span>,
    version: Version,
    fields: Vec<Field>,
    framing: Framing,
    keep_alive: bool,
    expect_continue: bool,
    upgrade: bool,
}

/// Empty lines that may stand before a request line (RFC 9112 section 2.2 asks for one).
const EMPTY_LINES_MAX: usize = 2;

const REQUEST_LINE_BYTES_MAX: usize = METHOD_BYTES_MAX + 1 + REQUEST_TARGET_BYTES_MAX + 1 + b"HTTP/1.1".len();

/// Parses the request head at the start of `buf` into `out`.
///
/// After [`Parsed::Partial`], call again with the same bytes and more behind them. After
/// [`Parsed::Complete`] or a fault the next call starts anew; to give up a part before that,
/// call [`RequestHead::clear`].
pub fn parse_request(buf: &[u8], out: &mut RequestHead) -> Result<Parsed, HeadFault> {
    if out.phase == Phase::Over {
        out.clear();
    }
    let result = out.go_on(buf);
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

impl RequestHead {
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

    /// Whether bytes of a request were seen, but not all of its head.
    pub fn is_partial(&self) -> bool {
        self.phase != Phase::Over && self.scan != LineScan::default()
    }

    /// The same head with another length of its body; neither this one nor that one is zero.
    pub(super) fn set_length(&mut self, length: u64) {
        self.framing = Framing::Length(length);
    }

    /// Method, as far as it is a known one.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Method token as received.
    pub fn method_bytes<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.method_span.of(buf)
    }

    /// Form of the target.
    pub fn form(&self) -> TargetForm {
        self.form
    }

    /// The whole target as received, with the userinfo that an absolute one may have.
    pub fn target<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.target.of(buf)
    }

    /// Path of the target, still percent-encoded; begins with `/`, or is `*`.
    pub fn path<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        match self.form {
            TargetForm::Asterisk => b"*",
            TargetForm::Absolute if self.path.is_empty() => b"/",
            _ => self.path.of(buf),
        }
    }

    /// Query of the target without the `?`, still percent-encoded. `/a?` has an empty one.
    pub fn query<'b>(&self, buf: &'b [u8]) -> Option<&'b [u8]> {
        self.query.map(|span| span.of(buf))
    }

    /// `host[:port]` of an absolute target, else of `Host` (RFC 9112 section 3.2.2).
    /// HTTP/1.0 may have none.
    pub fn host<'b>(&self, buf: &'b [u8]) -> Option<&'b [u8]> {
        self.host.map(|span| span.of(buf))
    }

    /// Version of the request line.
    pub fn version(&self) -> Version {
        self.version
    }

    /// All fields in the order received.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Value of the first field that is `known`. A singleton has no second.
    pub fn value<'b>(&self, buf: &'b [u8], known: Known) -> Option<&'b [u8]> {
        value_of(&self.fields, buf, known)
    }

    /// How the body is delimited.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client lets the connection stay open after this exchange.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends its body.
    pub fn expect_continue(&self) -> bool {
        self.expect_continue
    }

    /// Whether the client asked to switch protocols. It is not done, and the request is
    /// otherwise as good as any (RFC 9110 section 7.8).
    pub fn upgrade(&self) -> bool {
        self.upgrade
    }

    fn go_on(&mut self, buf: &[u8]) -> Result<Parsed, HeadFault> {
        let head = buf.get(..REQUEST_HEAD_BYTES_MAX).unwrap_or(buf);
        if self.scan == LineScan::default()
            && let Some(first_line_end) = lines::clean_end(head, 0)
            && (1..=REQUEST_LINE_BYTES_MAX).contains(&first_line_end)
            && let Some(head_len) = split_fields(head, first_line_end + 2, REQUEST_FIELDS_MAX, &mut self.fields)
        {
            check_method_start(head)?;
            self.read_request_line(buf, 0, first_line_end)?;
            self.read_fields(head)?;
            return Ok(Parsed::Complete { head_len });
        }
        self.fields.clear();
        loop {
            let line_start = self.scan.line_start();
            let rest = head.get(line_start..).unwrap_or_default();
            // What a line begins with is judged before its end is in sight, so that a client
            // that speaks another protocol is not waited for.
            let window = if self.phase == Phase::RequestLine {
                check_method_start(rest)?;
                let longest = line_start.saturating_add(REQUEST_LINE_BYTES_MAX + 2);
                head.get(..longest).unwrap_or(head)
            } else {
                if matches!(rest.first(), Some(b' ' | b'\t')) {
                    return Err(HeadFault::FoldedLine);
                }
                head
            };
            let Found::Line { start, end } = self.scan.next(window)? else {
                if window.len() < head.len() {
                    return Err(HeadFault::TargetTooLong);
                }
                if buf.len() >= REQUEST_HEAD_BYTES_MAX {
                    return Err(HeadFault::HeadTooLarge);
                }
                return Ok(Parsed::Partial);
            };
            self.lines += 1;
            if self.phase == Phase::RequestLine {
                if start < end {
                    self.read_request_line(buf, start, end)?;
                    self.phase = Phase::Fields;
                    self.fields_start = end + 2;
                    self.lines = 0;
                } else if self.lines > EMPTY_LINES_MAX {
                    return Err(HeadFault::RequestLine);
                }
            } else if start == end {
                let head_len = end + 2;
                split_fields(head, self.fields_start, self.lines - 1, &mut self.fields).ok_or(HeadFault::FieldLine)?;
                self.read_fields(head)?;
                return Ok(Parsed::Complete { head_len });
            } else if self.lines > REQUEST_FIELDS_MAX {
                return Err(HeadFault::TooManyFields);
            }
        }
    }

    /// RFC 9112 section 3: two single spaces, no more.
    fn read_request_line(&mut self, buf: &[u8], start: usize, end: usize) -> Result<(), HeadFault> {
        let line = buf.get(start..end).unwrap_or_default();
        let method_end = memchr::memchr(b' ', line).ok_or(HeadFault::RequestLine)?;
        let target_end = memchr::memrchr(b' ', line).ok_or(HeadFault::RequestLine)?;
        if method_end == 0 || target_end <= method_end + 1 {
            return Err(HeadFault::RequestLine);
        }
        let (method, target) = (&line[..method_end], &line[method_end + 1..target_end]);
        self.version = match &line[target_end + 1..] {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
                return Err(HeadFault::Version);
            }
            _ => return Err(HeadFault::RequestLine),
        };
        self.method = Method::of(method)?;
        if target.len() > REQUEST_TARGET_BYTES_MAX {
            return Err(HeadFault::TargetTooLong);
        }
        let pieces = target::cut(target).ok_or(HeadFault::Target)?;
        self.form = pieces.form;
        match (pieces.form, self.method) {
            (TargetForm::Asterisk, Method::Options) => {}
            (TargetForm::Asterisk, _) => return Err(HeadFault::Target),
            // `OPTIONS http://host` asks about the whole server (RFC 9112 section 3.2.4).
            (TargetForm::Absolute, Method::Options) if pieces.path.0 == pieces.path.1 && pieces.query.is_none() => {
                self.form = TargetForm::Asterisk;
            }
            _ => {}
        }
        let span = |from: usize, to: usize| {
            let base = start + method_end + 1;
            Span::between(base + from, base + to).ok_or(HeadFault::HeadTooLarge)
        };
        self.method_span = Span::between(start, start + method_end).ok_or(HeadFault::HeadTooLarge)?;
        self.target = span(0, target.len())?;
        self.path = span(pieces.path.0, pieces.path.1)?;
        self.query = pieces.query.map(|(from, to)| span(from, to)).transpose()?;
        self.host = pieces.host.map(|(from, to)| span(from, to)).transpose()?;
        Ok(())
    }

    fn read_fields(&mut self, head: &[u8]) -> Result<(), HeadFault> {
        let mut seen = SeenFields::default();
        for field in &self.fields {
            let value = field.value.of(head);
            if seen.again(field.known) && field.known.flags().has(Flags::SINGLETON) {
                return Err(HeadFault::DuplicateField);
            }
            match field.known {
                Known::Host => {
                    if !target::is_host(value) {
                        return Err(HeadFault::Host);
                    }
                    self.host.get_or_insert(field.value);
                }
                Known::ContentLength => {
                    self.framing = Framing::Length(content_length(value).ok_or(HeadFault::ContentLength)?);
                }
                Known::TransferEncoding => match transfer_coding(head, field) {
                    Coding::Chunked => {}
                    Coding::Others => return Err(HeadFault::TransferCoding),
                    Coding::Malformed => return Err(HeadFault::TransferEncoding),
                },
                Known::Expect if !value.eq_ignore_ascii_case(b"100-continue") => {
                    return Err(HeadFault::Expectation);
                }
                _ => {}
            }
        }
        if !seen.has(Known::Host) && self.version == Version::Http11 {
            return Err(HeadFault::HostMissing);
        }
        if seen.has(Known::TransferEncoding) {
            if seen.has(Known::ContentLength) {
                return Err(HeadFault::LengthAndCoding);
            }
            if self.version == Version::Http10 {
                return Err(HeadFault::CodingInHttp10);
            }
            self.framing = Framing::Chunked;
        }
        let has_body = !matches!(self.framing, Framing::None | Framing::Length(0));
        if self.method == Method::Trace && has_body {
            return Err(HeadFault::TraceBody);
        }
        // HTTP/1.0 has no interim answers: there the expectation is ignored, as RFC 9110
        // section 10.1.1 demands.
        self.expect_continue = seen.has(Known::Expect) && has_body && self.version == Version::Http11;
        self.upgrade = seen.has(Known::Upgrade);
        self.keep_alive = apply_connection(&mut self.fields, head, self.version).ok_or(HeadFault::ConnectionOptions)?;
        Ok(())
    }
}

impl Clone for RequestHead {
    fn clone(&self) -> Self {
        Self { fields: self.fields.clone(), ..*self }
    }

    /// Without an allocation where there is room.
    fn clone_from(&mut self, other: &Self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clone_from(&other.fields);
        *self = Self { fields, ..*other };
    }
}

/// Refuses a request line as soon as its first word cannot be a method.
fn check_method_start(rest: &[u8]) -> Result<(), HeadFault> {
    for (at, &byte) in rest.iter().enumerate() {
        match byte {
            b' ' => return Ok(()),
            b'\r' if at == 0 => return Ok(()),
            _ if !class::is(byte, class::TOKEN) => return Err(HeadFault::Method),
            _ if at >= METHOD_BYTES_MAX => return Err(HeadFault::MethodRefused),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
