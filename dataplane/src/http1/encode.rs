//! Writes canonical heads and chunk framing from typed parts. What is written here is read
//! the same way by every parser; nothing of a peer's head or framing is copied around it.
//!
//! Not here: which fields to write. `Date`, `Server` and the like are the caller's.

use thiserror::Error;

use super::class;
use super::fields::Known;
use crate::digits;

/// A part that cannot stand in a head. Nothing of that part was written; the head is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unwritable {
    /// The method is not a token.
    #[error("method is not a token")]
    Method,
    /// The path does not begin with `/` (and is not `*`), or path or query hold a byte that
    /// has no place there.
    #[error("path or query cannot be written")]
    Target,
    /// Not in 100..=599.
    #[error("status out of range")]
    Status,
    /// The field name is not a token.
    #[error("field name is not a token")]
    Name,
    /// The value holds CR, LF, NUL or another control byte.
    #[error("field value holds a control byte")]
    Value,
    /// `Content-Length`, `Transfer-Encoding` or `Connection` given as text.
    #[error("framing fields are written from typed values only")]
    Framing,
}

/// Answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Ends a chunked body, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// Follows the payload of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";
/// Room to keep before a payload for its chunk size line: eight digits and CRLF.
pub const CHUNK_PREFIX_BYTES: usize = 10;

/// Writes the size line of a chunk of `payload_len` bytes (1..) at the right end of `headroom`,
/// so that it and the payload behind it are contiguous. Returns where in `headroom` it begins.
/// A length of 0 would be the last chunk: that is [`LAST_CHUNK`].
pub fn chunk_prefix(headroom: &mut [u8; CHUNK_PREFIX_BYTES], payload_len: u32) -> usize {
    debug_assert!(payload_len > 0, "an empty chunk ends the body");
    let [digits @ .., cr, lf] = headroom;
    (*cr, *lf) = (b'\r', b'\n');
    let mut left = payload_len;
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        if left == 0 {
            break;
        }
        *digit = b"0123456789abcdef"[(left & 15) as usize];
        left >>= 4;
        start -= 1;
    }
    start
}

/// How the line of a field of ours begins, so that it is copied as one: see [`line_start`].
#[derive(Clone, Copy, Debug)]
pub struct LineStart(&'static str);

impl LineStart {
    /// A name, which is a token in lower case and none of those that the writer has methods for, with
    /// `: ` behind it. Anything else does not compile in a constant, and panics elsewhere.
    pub const fn new(start: &'static str) -> Self {
        let Some((name, b": ")) = start.as_bytes().split_last_chunk() else { panic!("no `: ` at the end") };
        assert!(!name.is_empty(), "no name");
        let mut at = 0;
        while at < name.len() {
            let lower = class::lower_token(name[at]);
            assert!(lower != 0 && lower == name[at], "not a token in lower case");
            at += 1;
        }
        assert!(!matches!(name, b"connection" | b"content-length" | b"transfer-encoding"), "not from a text");
        Self(start)
    }
}

/// The [`LineStart`] of a name.
macro_rules! line_start {
    ($name:literal) => {
        const { $crate::http1::encode::LineStart::new(concat!($name, ": ")) }
    };
}
pub(crate) use line_start;

/// Appends one head to a buffer. Call [`HeadWriter::finish`] for the empty line.
#[derive(Debug)]
#[must_use = "a head without `finish` has no end"]
pub struct HeadWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> HeadWriter<'a> {
    /// Begins a request: `METHOD path?query HTTP/1.1`. `path` and `query` are percent-encoded
    /// already; bytes that RFC 3986 wants encoded but clients leave bare are encoded here.
    pub fn request(out: &'a mut Vec<u8>, method: &[u8], path: &[u8], query: Option<&[u8]>) -> Result<Self, Unwritable> {
        if !class::is_token(method) {
            return Err(Unwritable::Method);
        }
        let path_is_sound =
            path == b"*" && query.is_none() || path.first() == Some(&b'/') && class::all(path, class::PATH);
        if !path_is_sound || query.is_some_and(|query| !class::all(query, class::QUERY)) {
            return Err(Unwritable::Target);
        }
        out.extend_from_slice(method);
        out.push(b' ');
        push_uri(out, path);
        if let Some(query) = query {
            out.push(b'?');
            push_uri(out, query);
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        Ok(Self { out })
    }

    /// Begins an answer: `HTTP/1.1 status reason`, with our reason phrase for the status.
    pub fn response(out: &'a mut Vec<u8>, status: u16) -> Result<Self, Unwritable> {
        if !(100..=599).contains(&status) {
            return Err(Unwritable::Status);
        }
        if status == 200 {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            out.extend_from_slice(b"HTTP/1.1 ");
            digits::append_decimal(out, u64::from(status), b" ");
            out.extend_from_slice(reason(status).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Ok(Self { out })
    }

    /// Goes on with a head that was begun before and is not finished.
    pub fn go_on(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes a field; the name goes out in lower case. `Content-Length`, `Transfer-Encoding`
    /// and `Connection` have methods of their own.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Unwritable> {
        let begins = self.out.len();
        let written = self.name(name).and_then(|()| self.line(": ", value));
        if written.is_err() {
            self.out.truncate(begins);
        }
        written
    }

    /// Writes a field that was read: one of the table under its name there, any other as
    /// [`Self::field`] does.
    pub fn again(&mut self, known: Known, name: &[u8], value: &[u8]) -> Result<(), Unwritable> {
        if known.name().is_some() { self.known(known, value) } else { self.field(name, value) }
    }

    /// Writes a field of the table. Families and [`Known::Other`] have no name of their own
    /// and are refused.
    #[inline]
    pub fn known(&mut self, known: Known, value: &[u8]) -> Result<(), Unwritable> {
        let start = known.line_start().ok_or(Unwritable::Name)?;
        if matches!(known, Known::Connection | Known::ContentLength | Known::TransferEncoding) {
            return Err(Unwritable::Framing);
        }
        self.line(start, value)
    }

    /// Writes a field of ours. Only the value is looked at.
    #[inline]
    pub fn ours(&mut self, start: LineStart, value: &[u8]) -> Result<(), Unwritable> {
        self.line(start.0, value)
    }

    /// Writes a field of ours whose value is a number.
    #[inline]
    pub fn number(&mut self, start: LineStart, value: u64) {
        self.out.extend_from_slice(start.0.as_bytes());
        self.end_with_number(value);
    }

    /// The same with a number of seconds, which says so: `60s`.
    #[inline]
    pub fn seconds(&mut self, start: LineStart, value: u64) {
        self.out.extend_from_slice(start.0.as_bytes());
        digits::append_decimal(self.out, value, b"s\r\n");
    }

    /// `authorization` with a credential, as it is.
    pub fn bearer(&mut self, credential: &[u8]) -> Result<(), Unwritable> {
        if !class::is_field_text(credential) {
            return Err(Unwritable::Value);
        }
        self.push("authorization: Bearer ", credential);
        Ok(())
    }

    /// `content-length`. Call this or [`Self::chunked`], at most once.
    pub fn content_length(&mut self, length: u64) {
        self.out.extend_from_slice(b"content-length: ");
        self.end_with_number(length);
    }

    /// `transfer-encoding: chunked`.
    pub fn chunked(&mut self) {
        self.out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }

    /// `connection: close`.
    pub fn connection_close(&mut self) {
        self.out.extend_from_slice(b"connection: close\r\n");
    }

    /// `connection: keep-alive`, which only an HTTP/1.0 client needs to be told.
    pub fn connection_keep_alive(&mut self) {
        self.out.extend_from_slice(b"connection: keep-alive\r\n");
    }

    /// Ends the head.
    pub fn finish(self) {
        self.out.extend_from_slice(b"\r\n");
    }

    /// The name of a field that came from outside.
    fn name(&mut self, name: &[u8]) -> Result<(), Unwritable> {
        let mut is_token = !name.is_empty();
        self.out.extend(name.iter().map(|&byte| {
            let lower = class::lower_token(byte);
            is_token &= lower != 0;
            lower
        }));
        if !is_token {
            return Err(Unwritable::Name);
        }
        let is_framing = FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name));
        if is_framing { Err(Unwritable::Framing) } else { Ok(()) }
    }

    /// What begins a line, and the value after it.
    #[inline]
    fn line(&mut self, start: &str, value: &[u8]) -> Result<(), Unwritable> {
        if !class::is_field_text(value) {
            return Err(Unwritable::Value);
        }
        self.push(start, class::trim_whitespace(value));
        Ok(())
    }

    #[inline]
    fn push(&mut self, start: &str, value: &[u8]) {
        self.out.extend_from_slice(start.as_bytes());
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Apart from what begins the line, which is copied without a call where it is known.
    #[inline(never)]
    fn end_with_number(&mut self, value: u64) {
        digits::append_decimal(self.out, value, b"\r\n");
    }
}

/// Fields that have methods of their own.
const FRAMING: [&[u8]; 3] = [b"connection", b"content-length", b"transfer-encoding"];

fn push_uri(out: &mut Vec<u8>, piece: &[u8]) {
    if class::all(piece, class::URI_BARE) {
        out.extend_from_slice(piece);
        return;
    }
    for &byte in piece {
        if class::is(byte, class::URI_BARE) {
            out.push(byte);
        } else {
            let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble & 15)];
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
        }
    }
}

/// Reason phrases of the IANA registry; empty for a status that has none there.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        529 => "Overloaded", // not registered; Anthropic's sign of overload
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(out: Vec<u8>) -> String {
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_head_is_canonical() {
        let mut out = b"before|".to_vec();
        let mut head = HeadWriter::request(&mut out, b"POST", b"/v1/x", Some(b"a[]=1")).unwrap();
        head.known(Known::Host, b"api.example").unwrap();
        head.field(b"X-Mixed-Case", b" \tpadded value ").unwrap();
        head.content_length(17);
        head.finish();
        assert_eq!(
            text(out),
            "before|POST /v1/x?a%5B%5D=1 HTTP/1.1\r\nhost: api.example\r\n\
             x-mixed-case: padded value\r\ncontent-length: 17\r\n\r\n"
        );
    }

    #[test]
    fn an_answer_head_has_our_reason() {
        let mut out = Vec::new();
        let mut head = HeadWriter::response(&mut out, 429).unwrap();
        head.number(line_start!("retry-after"), 7);
        head.chunked();
        head.connection_close();
        head.finish();
        assert_eq!(
            text(out),
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
    }

    #[test]
    fn a_line_of_ours_is_its_beginning_and_its_value() {
        let mut out = Vec::new();
        let mut head = HeadWriter::response(&mut out, 200).unwrap();
        head.ours(line_start!("vary"), b" origin\t").unwrap();
        head.number(line_start!("x-number"), u64::MAX);
        head.seconds(line_start!("x-seconds"), 60);
        head.bearer(b"sk-1").unwrap();
        head.again(Known::Server, b"SERVER", b"one").unwrap();
        head.again(Known::Other, b"X-Other", b"").unwrap();
        assert_eq!(head.ours(line_start!("vary"), b"a\r\nb: c"), Err(Unwritable::Value));
        assert_eq!(head.bearer(b"a\nb"), Err(Unwritable::Value));
        head.content_length(0);
        head.finish();
        assert_eq!(
            text(out),
            "HTTP/1.1 200 OK\r\nvary: origin\r\nx-number: 18446744073709551615\r\nx-seconds: 60s\r\n\
             authorization: Bearer sk-1\r\nserver: one\r\nx-other: \r\ncontent-length: 0\r\n\r\n"
        );
    }

    #[test]
    fn bytes_over_127_in_a_target_are_encoded() {
        let mut out = Vec::new();
        HeadWriter::request(&mut out, b"GET", "/\u{e9}%20".as_bytes(), None).unwrap().finish();
        assert_eq!(text(out), "GET /%C3%A9%20 HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn what_cannot_be_written_leaves_the_buffer_as_it_was() {
        let mut out = Vec::new();
        for (method, path, query) in [
            ("", "/", None),
            ("G T", "/", None),
            ("GET", "", None),
            ("GET", "a", None),
            ("GET", "/ ", None),
            ("GET", "/?", None),
            ("GET", "/#", None),
            ("GET", "/\r\n", None),
            ("GET", "/", Some("a b")),
            ("GET", "/", Some("#")),
            ("OPTIONS", "*", Some("a")),
        ] {
            let query = query.map(str::as_bytes);
            let result = HeadWriter::request(&mut out, method.as_bytes(), path.as_bytes(), query);
            assert!(result.is_err(), "{method} {path}");
        }
        assert!(HeadWriter::response(&mut out, 99).is_err());
        assert!(HeadWriter::response(&mut out, 600).is_err());
        assert_eq!(out, b"");

        let mut head = HeadWriter::response(&mut out, 200).unwrap();
        for value in ["a\r\nb: c", "a\nb", "a\rb", "\0", "\x7f"] {
            assert_eq!(head.field(b"a", value.as_bytes()), Err(Unwritable::Value), "{value:?}");
        }
        for name in ["", "a b", "a:", "a\r\n", "\u{e9}"] {
            assert_eq!(head.field(name.as_bytes(), b""), Err(Unwritable::Name), "{name:?}");
        }
        for name in ["Content-Length", "transfer-encoding", "Connection"] {
            assert_eq!(head.field(name.as_bytes(), b"1"), Err(Unwritable::Framing), "{name}");
        }
        assert_eq!(head.known(Known::Other, b""), Err(Unwritable::Name));
        head.finish();
        assert_eq!(text(out), "HTTP/1.1 200 OK\r\n\r\n");
    }

    #[test]
    fn a_chunk_prefix_ends_where_the_payload_begins() {
        for (len, prefix) in [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (u32::MAX, "ffffffff\r\n")] {
            let mut headroom = [b'?'; CHUNK_PREFIX_BYTES];
            let start = chunk_prefix(&mut headroom, len);
            assert_eq!(&headroom[start..], prefix.as_bytes());
        }
    }
}
