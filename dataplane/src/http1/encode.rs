//! Writes canonical heads and chunk framing from typed parts. What is written here is read
//! the same way by every parser; nothing of a peer's head or framing is copied around it.
//!
//! Not here: which fields to write. `Date`, `Server` and the like are the caller's.

use thiserror::Error;

use super::class;
use super::fields::Known;

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
        out.extend_from_slice(b"HTTP/1.1 ");
        push_number(out, u64::from(status));
        out.push(b' ');
        out.extend_from_slice(reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        Ok(Self { out })
    }

    /// Goes on with a head that was begun before and is not finished.
    pub fn go_on(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes a field; the name goes out in lower case. `Content-Length`, `Transfer-Encoding`
    /// and `Connection` have methods of their own.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Unwritable> {
        if !class::is_token(name) {
            return Err(Unwritable::Name);
        }
        if FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name)) {
            return Err(Unwritable::Framing);
        }
        if !class::is_field_text(value) {
            return Err(Unwritable::Value);
        }
        let at = self.out.len();
        self.push(name, class::trim_whitespace(value));
        if let Some(written) = self.out.get_mut(at..at + name.len()) {
            written.make_ascii_lowercase();
        }
        Ok(())
    }

    /// Writes a field that was read: one of the table under its name there, any other as
    /// [`Self::field`] does.
    pub fn again(&mut self, known: Known, name: &[u8], value: &[u8]) -> Result<(), Unwritable> {
        if known.name().is_some() { self.known(known, value) } else { self.field(name, value) }
    }

    /// Writes a field of the table. Families and [`Known::Other`] have no name of their own
    /// and are refused.
    pub fn known(&mut self, known: Known, value: &[u8]) -> Result<(), Unwritable> {
        let name = known.name().ok_or(Unwritable::Name)?;
        if matches!(known, Known::Connection | Known::ContentLength | Known::TransferEncoding) {
            return Err(Unwritable::Framing);
        }
        self.ours(name, value)
    }

    /// Writes a field whose name is a literal: a token in lower case, and none of those that have
    /// methods of their own. Only the value is looked at.
    pub fn ours(&mut self, name: &'static str, value: &[u8]) -> Result<(), Unwritable> {
        debug_assert!(is_ours(name), "{name}");
        if !class::is_field_text(value) {
            return Err(Unwritable::Value);
        }
        self.push(name.as_bytes(), class::trim_whitespace(value));
        Ok(())
    }

    /// The same with a value that is put together of pieces, as they are.
    pub fn joined<const N: usize>(&mut self, name: &'static str, value: [&[u8]; N]) -> Result<(), Unwritable> {
        debug_assert!(is_ours(name), "{name}");
        if !value.iter().all(|piece| class::is_field_text(piece)) {
            return Err(Unwritable::Value);
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        for piece in value {
            self.out.extend_from_slice(piece);
        }
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Writes a field whose name is a literal and whose value is a number.
    pub fn number(&mut self, name: &'static str, value: u64) {
        debug_assert!(is_ours(name), "{name}");
        self.push(name.as_bytes(), itoa::Buffer::new().format(value).as_bytes());
    }

    /// `content-length`. Call this or [`Self::chunked`], at most once.
    pub fn content_length(&mut self, length: u64) {
        self.push(b"content-length", itoa::Buffer::new().format(length).as_bytes());
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

    #[inline]
    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
    }
}

/// What [`HeadWriter::ours`] wants of a name.
fn is_ours(name: &str) -> bool {
    let name = name.as_bytes();
    class::is_token(name) && !name.iter().any(u8::is_ascii_uppercase) && !FRAMING.contains(&name)
}

/// Fields that have methods of their own.
const FRAMING: [&[u8]; 3] = [b"connection", b"content-length", b"transfer-encoding"];

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

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
        head.number("retry-after", 7);
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
