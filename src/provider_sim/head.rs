//! Request heads and chunked bodies of HTTP/1.1, on httparse. Pure: bytes in, values out.
//!
//! As strict as a real provider's front: what could be read in two ways is refused. No trailers
//! (read and dropped), no upgrade, no HTTP/2.

use std::ops::Range;

use super::{
    route::{self, Route},
    settings::{SettingError, Settings},
};

/// Largest request head, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Largest request body, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Most header fields.
const FIELDS_MAX: usize = 128;
/// Longest line of chunk framing, or of all trailers together, in bytes.
const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;

/// What a head says. Ranges point into the bytes that it was read from.
#[derive(Debug)]
pub(crate) struct Head {
    /// Bytes of the head with its empty line.
    pub(crate) bytes: usize,
    /// Path and query.
    pub(crate) target: Range<usize>,
    /// The call.
    pub(crate) route: Route,
    /// The model, if the path names one.
    pub(crate) path_model: Range<usize>,
    /// The credential; empty if there is none.
    pub(crate) key: Range<usize>,
    /// How the body is framed.
    pub(crate) framing: Framing,
    /// The client waits for a `100 Continue`.
    pub(crate) expects_continue: bool,
    /// The connection may be used again afterwards.
    pub(crate) keeps_alive: bool,
    /// HTTP/1.1, so an answer may be chunked.
    pub(crate) can_chunk: bool,
    /// HEAD: the answer has no body.
    pub(crate) without_body: bool,
    /// `x-sim-*`, or what is wrong with one.
    pub(crate) settings: Result<Settings, SettingError>,
}

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(usize),
    /// Chunks.
    Chunked,
}

/// The bytes are not a request. The connection cannot be used any more.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// Not HTTP/1.x.
    #[error("not an HTTP/1.1 request")]
    Malformed,
    /// Contradictory or unknown framing (RFC 9112, section 6).
    #[error("the body's length is not clear")]
    Framing,
    /// Head over [`HEAD_BYTES_MAX`].
    #[error("the head is too large")]
    HeadTooLarge,
    /// Body over [`BODY_BYTES_MAX`].
    #[error("the body is too large")]
    BodyTooLarge,
}

impl HeadError {
    /// The status to answer with.
    pub(crate) fn status(&self) -> u16 {
        match self {
            HeadError::Malformed | HeadError::Framing => 400,
            HeadError::HeadTooLarge => 431,
            HeadError::BodyTooLarge => 413,
        }
    }
}

/// Reads the head at the start of `input`; `None` until it is complete.
pub(crate) fn read(input: &[u8]) -> Result<Option<Head>, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let bytes = match request.parse(input) {
        Ok(httparse::Status::Complete(bytes)) if bytes <= HEAD_BYTES_MAX => bytes,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Err(HeadError::HeadTooLarge);
        }
        Ok(httparse::Status::Partial) if input.len() >= HEAD_BYTES_MAX => return Err(HeadError::HeadTooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(HeadError::Malformed),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Malformed);
    };
    let (route, path_model) = route::find(method, target);
    let mut head = Head {
        bytes,
        target: range_of(input, target.as_bytes()),
        route,
        path_model: range_of(input, path_model.as_bytes()),
        key: route::query(target, "key").map_or(0..0, |key| range_of(input, key.as_bytes())),
        framing: Framing::Length(0),
        expects_continue: false,
        keeps_alive: version == 1,
        can_chunk: version == 1,
        without_body: method == "HEAD",
        settings: Ok(Settings::default()),
    };
    let mut length: Option<usize> = None;
    let mut chunked = false;
    for field in request.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        // The usual ones are told apart by their length before their bytes are compared.
        match field.name.len() {
            14 if is("content-length") => {
                let text = std::str::from_utf8(field.value).map_err(|_| HeadError::Framing)?;
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let value = text.parse().ok().filter(|_| digits).ok_or(HeadError::Framing)?;
                if length.replace(value).is_some_and(|earlier| earlier != value) {
                    return Err(HeadError::Framing);
                }
            }
            17 if is("transfer-encoding") => {
                if chunked || version != 1 || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::Framing);
                }
                chunked = true;
            }
            10 if is("connection") => {
                for option in field.value.split(|byte| *byte == b',') {
                    let option = option.trim_ascii();
                    if option.eq_ignore_ascii_case(b"close") {
                        head.keeps_alive = false;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") && version == 0 {
                        head.keeps_alive = true;
                    }
                }
            }
            6 if is("expect") => head.expects_continue = field.value.eq_ignore_ascii_case(b"100-continue"),
            13 if is("authorization") => {
                let bearer =
                    field.value.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
                let key = bearer.map_or(field.value, |(_, key)| key);
                head.key = range_of(input, key.trim_ascii());
            }
            7 | 9 | 14 if is("api-key") || is("x-api-key") || is("x-goog-api-key") => {
                head.key = range_of(input, field.value.trim_ascii());
            }
            7.. => set_from_field(&mut head.settings, field),
            _ => {}
        }
    }
    head.framing = match (chunked, length) {
        (true, Some(_)) => return Err(HeadError::Framing),
        (true, None) => Framing::Chunked,
        (false, Some(length)) if length > BODY_BYTES_MAX => return Err(HeadError::BodyTooLarge),
        (false, length) => Framing::Length(length.unwrap_or(0)),
    };
    Ok(Some(head))
}

fn set_from_field(settings: &mut Result<Settings, SettingError>, field: &httparse::Header<'_>) {
    let Some((prefix, name)) = field.name.split_at_checked(6) else { return };
    if !prefix.eq_ignore_ascii_case("x-sim-") {
        return;
    }
    if let Ok(set) = settings {
        let value = String::from_utf8_lossy(field.value);
        if let Err(error) = set.set(&name.to_ascii_lowercase(), &value) {
            *settings = Err(error);
        }
    }
}

/// Where `part`, a piece of `whole`, stands in it; an empty range for anything else.
fn range_of(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    match start.checked_add(part.len()) {
        Some(end) if end <= whole.len() && !part.is_empty() => start..end,
        _ => 0..0,
    }
}

/// Reads a chunked body, however it is cut into pieces.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: ChunkState,
    /// The body so far.
    pub(crate) body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum ChunkState {
    #[default]
    Size,
    Data(usize),
    DataEnd,
    Trailer,
    Done,
}

impl Chunks {
    /// Takes what it can use of `input`. Returns how many bytes that was, and whether the body is
    /// complete. Bytes that are not taken must be offered again, with more behind them.
    pub(crate) fn read(&mut self, input: &[u8]) -> Result<(usize, bool), HeadError> {
        let mut taken = 0;
        loop {
            let rest = input.get(taken..).unwrap_or_default();
            match self.state {
                ChunkState::Done => return Ok((taken, true)),
                ChunkState::Data(left) => {
                    let piece = &rest[..rest.len().min(left)];
                    self.body.extend_from_slice(piece);
                    taken += piece.len();
                    if piece.len() < left {
                        self.state = ChunkState::Data(left - piece.len());
                        return Ok((taken, false));
                    }
                    self.state = ChunkState::DataEnd;
                }
                ChunkState::Size | ChunkState::DataEnd | ChunkState::Trailer => {
                    let Some(line) = line(rest)? else { return Ok((taken, false)) };
                    taken += line.len() + 2;
                    self.state = self.after_line(line)?;
                }
            }
        }
    }

    fn after_line(&self, line: &[u8]) -> Result<ChunkState, HeadError> {
        match self.state {
            ChunkState::Size => {
                let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
                let text = std::str::from_utf8(digits).map_err(|_| HeadError::Framing)?;
                let hex = !text.is_empty() && text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
                let size = usize::from_str_radix(text, 16).ok().filter(|_| hex).ok_or(HeadError::Framing)?;
                if self.body.len() + size > BODY_BYTES_MAX {
                    return Err(HeadError::BodyTooLarge);
                }
                Ok(if size == 0 { ChunkState::Trailer } else { ChunkState::Data(size) })
            }
            ChunkState::DataEnd if line.is_empty() => Ok(ChunkState::Size),
            ChunkState::Trailer if line.is_empty() => Ok(ChunkState::Done),
            ChunkState::Trailer => Ok(ChunkState::Trailer),
            ChunkState::Data(_) | ChunkState::DataEnd | ChunkState::Done => Err(HeadError::Framing),
        }
    }
}

/// The line at the start of `input`, without its CRLF; `None` until it is complete.
fn line(input: &[u8]) -> Result<Option<&[u8]>, HeadError> {
    match memchr::memchr(b'\n', input) {
        Some(end) => match input.get(..end).and_then(|line| line.strip_suffix(b"\r")) {
            Some(line) if !line.contains(&b'\r') => Ok(Some(line)),
            _ => Err(HeadError::Framing),
        },
        None if input.len() > CHUNK_LINE_BYTES_MAX => Err(HeadError::Framing),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-1\r\nContent-Length: 2\r\nX-Sim-Seed: 5\r\n\r\n{}";

    #[test]
    fn a_head_is_read_once_it_is_complete_and_not_before() {
        let end = POST.len() - 2;
        for cut in 0..end {
            assert!(read(&POST[..cut]).expect("a prefix is no error").is_none(), "{cut}");
        }
        let head = read(POST).expect("strict").expect("complete");
        assert_eq!((head.bytes, head.route, head.framing), (end, Route::Chat, Framing::Length(2)));
        assert_eq!(&POST[head.key.clone()], b"sk-1");
        assert_eq!(head.settings.expect("a known setting").seed, Some(5));
    }

    #[test]
    fn credentials_are_found_where_each_dialect_puts_them() {
        let key = |head: &str| {
            let bytes = format!("{head}\r\n\r\n").into_bytes();
            let head = read(&bytes).expect("strict").expect("complete");
            String::from_utf8(bytes[head.key].to_vec()).expect("ASCII")
        };
        assert_eq!(key("POST /v1/messages HTTP/1.1\r\nx-api-key: sk-ant"), "sk-ant");
        assert_eq!(key("POST /models/m:generateContent HTTP/1.1\r\nX-Goog-Api-Key: g"), "g");
        assert_eq!(key("POST /models/m:generateContent?key=q HTTP/1.1"), "q");
        assert_eq!(key("POST /chat/completions HTTP/1.1\r\napi-key: azure"), "azure");
        assert_eq!(key("GET /v1/models HTTP/1.1"), "");
    }

    #[test]
    fn unclear_framing_is_refused() {
        let error =
            |fields: &str| read(format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n").as_bytes()).expect_err("unclear");
        assert_eq!(error("Content-Length: 1\r\nContent-Length: 2"), HeadError::Framing);
        assert_eq!(error("Content-Length: +1"), HeadError::Framing);
        assert_eq!(error("Content-Length: 1\r\nTransfer-Encoding: chunked"), HeadError::Framing);
        assert_eq!(error("Transfer-Encoding: gzip, chunked"), HeadError::Framing);
        assert_eq!(error("Content-Length: 999999999999"), HeadError::BodyTooLarge);
    }

    #[test]
    fn chunks_cut_at_any_byte_make_the_same_body() {
        let input = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: t\r\n\r\nNEXT";
        for cut in 0..input.len() {
            let mut chunks = Chunks::default();
            let (taken, done) = chunks.read(&input[..cut]).expect("a prefix is no error");
            let taken = if done { taken } else { taken + chunks.read(&input[taken..]).expect("the rest").0 };
            assert_eq!((chunks.body.as_slice(), &input[taken..]), (&b"hello world"[..], &b"NEXT"[..]), "{cut}");
        }
    }

    #[test]
    fn broken_chunks_are_refused() {
        for input in ["\r\n", "g\r\n", "1\r\nab\r\n", "1\nab", "-1\r\n", "fffffffff\r\n", "ffffffff\r\n"] {
            assert!(Chunks::default().read(input.as_bytes()).is_err(), "{input:?}");
        }
    }
}
