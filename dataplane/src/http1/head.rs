//! Request heads, strictly by RFC 9112: what a client may send, and nothing more.
//!
//! Line ends are found and the request line is read here; the field lines go through
//! `httparse`, which alone would take bare LF and cannot say at once that a part is wrong.
//! Left to the caller: which methods are allowed, the size of bodies, dot segments in paths.

use thiserror::Error;

use super::class;
use super::fields::{Flags, Known};
use super::framing::{Coding, SeenFields, apply_connection, content_length, split_fields, transfer_coding, value_of};
use super::lines::{Found, LineFault, LineScan};
use super::target;
use super::{
    Field, METHOD_BYTES_MAX, Parsed, REQUEST_FIELDS_MAX, REQUEST_HEAD_BYTES_MAX, REQUEST_TARGET_BYTES_MAX, Span,
};

pub use super::framing::Version;
pub use super::target::TargetForm;

/// Why a request head is refused. Each of them closes the connection: where the next request
/// begins is not certain. Nothing of the request was acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadFault {
    /// A line ends in LF without CR (RFC 9112 section 2.2 lets a server refuse it).
    #[error("a line ends without CR")]
    BareLf,
    /// CR without LF.
    #[error("CR without LF")]
    BareCr,
    /// A control byte other than HTAB, NUL and DEL included.
    #[error("control byte in the head")]
    ControlByte,
    /// A line begins with whitespace (`obs-fold`), or stands between request line and fields.
    #[error("folded line")]
    FoldedLine,
    /// Not `method SP target SP HTTP-version`, or more empty lines before it than two.
    #[error("malformed request line")]
    RequestLine,
    /// The method is not a token.
    #[error("malformed method")]
    Method,
    /// CONNECT, or a method longer than [`METHOD_BYTES_MAX`].
    #[error("method not implemented")]
    MethodRefused,
    /// The target has a byte that RFC 3986 does not allow, a fragment, a broken escape or a
    /// form that does not go with the method.
    #[error("malformed request target")]
    Target,
    /// The target is longer than [`REQUEST_TARGET_BYTES_MAX`].
    #[error("request target too long")]
    TargetTooLong,
    /// Well-formed, but neither HTTP/1.1 nor HTTP/1.0.
    #[error("HTTP version not supported")]
    Version,
    /// The head is longer than [`REQUEST_HEAD_BYTES_MAX`].
    #[error("head too large")]
    HeadTooLarge,
    /// More fields than [`REQUEST_FIELDS_MAX`].
    #[error("too many fields")]
    TooManyFields,
    /// A field line without a colon, with whitespace before it, or with a name that is no token.
    #[error("malformed field line")]
    FieldLine,
    /// A field that may stand once stands twice, even if both say the same.
    #[error("duplicate field")]
    DuplicateField,
    /// HTTP/1.1 without `Host`.
    #[error("no Host field")]
    HostMissing,
    /// `Host` is not `uri-host [":" port]`, or is empty.
    #[error("malformed Host field")]
    Host,
    /// `Content-Length` is not one decimal number below 2^63.
    #[error("malformed Content-Length")]
    ContentLength,
    /// `Transfer-Encoding` is malformed, or `chunked` is not its last coding, or stands twice.
    #[error("malformed Transfer-Encoding")]
    TransferEncoding,
    /// A coding besides `chunked`, which this node does not undo.
    #[error("transfer coding not implemented")]
    TransferCoding,
    /// `Content-Length` with `Transfer-Encoding`: the classic smuggling request.
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// `Transfer-Encoding` in HTTP/1.0, which does not have it.
    #[error("Transfer-Encoding in HTTP/1.0")]
    CodingInHttp10,
    /// `Expect` is something else than `100-continue`.
    #[error("expectation failed")]
    Expectation,
    /// `Connection` is not a list of tokens, or too long a list.
    #[error("malformed Connection field")]
    ConnectionOptions,
    /// TRACE with a body (RFC 9110 section 9.3.8).
    #[error("TRACE with a body")]
    TraceBody,
}

impl HeadFault {
    /// Status of the answer: 400, 414, 417, 431, 501 or 505.
    pub fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::MethodRefused | Self::TransferCoding => 501,
            Self::Version => 505,
            _ => 400,
        }
    }

    /// Short name for error bodies, logs and counters; never holds a byte of the request.
    pub fn code(self) -> &'static str {
        match self {
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::ControlByte => "control_byte",
            Self::FoldedLine => "folded_line",
            Self::RequestLine => "request_line",
            Self::Method => "method",
            Self::MethodRefused => "method_refused",
            Self::Target => "target",
            Self::TargetTooLong => "target_too_long",
            Self::Version => "version",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::FieldLine => "field_line",
            Self::DuplicateField => "duplicate_field",
            Self::HostMissing => "host_missing",
            Self::Host => "host",
            Self::ContentLength => "content_length",
            Self::TransferEncoding => "transfer_encoding",
            Self::TransferCoding => "transfer_coding",
            Self::LengthAndCoding => "length_and_coding",
            Self::CodingInHttp10 => "coding_in_http10",
            Self::Expectation => "expectation",
            Self::ConnectionOptions => "connection_options",
            Self::TraceBody => "trace_body",
        }
    }
}

impl From<LineFault> for HeadFault {
    fn from(fault: LineFault) -> Self {
        match fault {
            LineFault::BareLf => Self::BareLf,
            LineFault::BareCr => Self::BareCr,
            LineFault::Control => Self::ControlByte,
        }
    }
}

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
        out.phase = Phase::Over;
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
                self.read_fields(head.get(..head_len).unwrap_or(head))?;
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
        split_fields(head, self.fields_start, self.lines - 1, &mut self.fields).ok_or(HeadFault::FieldLine)?;
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
