//! Reads one HTTP/1.1 answer, however its bytes were split. Pure: no socket, no clock.
//!
//! It counts and hands on body bytes and keeps none. Trailers are skipped. It is strict
//! where a wrong answer must not count as a good one: length, chunk framing, status line.

use thiserror::Error;

/// Longest head that is accepted, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most headers in one head.
const HEADERS_MAX: usize = 100;
/// Most interim (1xx) answers before the final one.
const INTERIM_ANSWERS_MAX: u8 = 8;
/// Hexadecimal digits of a chunk size: enough for 2^60 bytes, so the sum cannot overflow.
const CHUNK_SIZE_DIGITS_MAX: u8 = 15;
/// Bytes of chunk extensions and of trailers, each.
const CHUNK_LINE_BYTES_MAX: u32 = 8 * 1024;

/// Why the bytes are not an answer. The connection must not be used again.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerError {
    /// The head is not HTTP/1.1, is too long, or contradicts itself about the length.
    #[error("the answer's head is malformed")]
    Head,
    /// Chunk framing is wrong (RFC 9112, section 7.1).
    #[error("the answer's chunk framing is malformed")]
    Chunk,
    /// The connection ended before the answer did.
    #[error("the answer was cut")]
    Truncated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Length(u64),
    ChunkSize { size: u64, digits: u8 },
    ChunkExtension { size: u64, bytes: u32 },
    ChunkSizeLf { size: u64 },
    ChunkData(u64),
    ChunkDataCr,
    ChunkDataLf,
    TrailerStart,
    TrailerLine { bytes: u32 },
    TrailerEndLf,
    UntilClose,
    Done,
}

/// The state of reading one answer.
#[derive(Debug)]
pub(crate) struct AnswerReader {
    stage: Stage,
    /// Bytes of a head that came in parts.
    head: Vec<u8>,
    interim: u8,
    status: u16,
    body_bytes: u64,
    keep_alive: bool,
    trailer_bytes: u32,
}

impl AnswerReader {
    /// Waits for the first byte of a head.
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Head,
            head: Vec::new(),
            interim: 0,
            status: 0,
            body_bytes: 0,
            keep_alive: true,
            trailer_bytes: 0,
        }
    }

    /// 0 until the head is complete.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Body bytes so far, without framing.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Whether the connection may carry another request.
    pub(crate) fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// The answer is complete.
    pub(crate) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Takes bytes that arrived, hands body bytes to `body`, and returns how many belong
    /// to this answer: fewer than given only when it is complete.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut body: impl FnMut(&[u8])) -> Result<usize, AnswerError> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.stage {
                Stage::Done => break,
                Stage::Head => self.take_head(rest)?,
                Stage::Length(left) | Stage::ChunkData(left) => {
                    let taken = usize::try_from(left).map_or(rest.len(), |l| l.min(rest.len()));
                    let (part, _) = rest.split_at(taken);
                    body(part);
                    self.body_bytes += taken as u64;
                    self.stage = match (self.stage, left - taken as u64) {
                        (Stage::Length(_), 0) => Stage::Done,
                        (Stage::Length(_), left) => Stage::Length(left),
                        (_, 0) => Stage::ChunkDataCr,
                        (_, left) => Stage::ChunkData(left),
                    };
                    taken
                }
                Stage::UntilClose => {
                    body(rest);
                    self.body_bytes += rest.len() as u64;
                    rest.len()
                }
                _ => {
                    let (first, _) = rest.split_at(1);
                    self.take_framing(first[0])?;
                    1
                }
            };
        }
        Ok(at)
    }

    /// The peer closed the connection.
    pub(crate) fn end(&mut self) -> Result<(), AnswerError> {
        self.keep_alive = false;
        match self.stage {
            Stage::Done | Stage::UntilClose => {
                self.stage = Stage::Done;
                Ok(())
            }
            _ => Err(AnswerError::Truncated),
        }
    }

    /// Parses the head in place when it came whole, which is nearly always.
    fn take_head(&mut self, rest: &[u8]) -> Result<usize, AnswerError> {
        if self.head.is_empty() {
            if let Some((parsed, length)) = parse_head(rest)? {
                self.enter_body(&parsed)?;
                return Ok(length);
            }
            if rest.len() > HEAD_BYTES_MAX {
                return Err(AnswerError::Head);
            }
            self.head.extend_from_slice(rest);
            return Ok(rest.len());
        }
        let before = self.head.len();
        let room = HEAD_BYTES_MAX.saturating_sub(before).min(rest.len());
        if room == 0 {
            return Err(AnswerError::Head);
        }
        self.head.extend_from_slice(rest.split_at(room).0);
        let head = std::mem::take(&mut self.head);
        if let Some((parsed, length)) = parse_head(&head)? {
            self.enter_body(&parsed)?;
            return Ok(length.saturating_sub(before));
        }
        self.head = head;
        Ok(room)
    }

    fn enter_body(&mut self, head: &ParsedHead) -> Result<(), AnswerError> {
        if (100..200).contains(&head.status) {
            self.interim += 1;
            if self.interim > INTERIM_ANSWERS_MAX || head.status == 101 {
                return Err(AnswerError::Head);
            }
            return Ok(());
        }
        self.status = head.status;
        self.keep_alive = !head.close;
        self.stage = match (head.status, head.chunked, head.length) {
            (204 | 304, _, _) | (_, false, Some(0)) => Stage::Done,
            (_, true, None) => Stage::ChunkSize { size: 0, digits: 0 },
            (_, false, Some(length)) => Stage::Length(length),
            (_, false, None) => Stage::UntilClose,
            (_, true, Some(_)) => return Err(AnswerError::Head),
        };
        Ok(())
    }

    fn take_framing(&mut self, byte: u8) -> Result<(), AnswerError> {
        self.stage = match (self.stage, byte) {
            (Stage::ChunkSize { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F')
                if digits < CHUNK_SIZE_DIGITS_MAX =>
            {
                let digit = char::from(byte).to_digit(16).ok_or(AnswerError::Chunk)?;
                Stage::ChunkSize { size: size * 16 + u64::from(digit), digits: digits + 1 }
            }
            (Stage::ChunkSize { size, digits: 1.. } | Stage::ChunkExtension { size, .. }, b'\r') => {
                Stage::ChunkSizeLf { size }
            }
            (Stage::ChunkSize { size, digits: 1.. }, b';') => Stage::ChunkExtension { size, bytes: 0 },
            (Stage::ChunkExtension { size, bytes }, other) if other != b'\n' && bytes < CHUNK_LINE_BYTES_MAX => {
                Stage::ChunkExtension { size, bytes: bytes + 1 }
            }
            (Stage::ChunkSizeLf { size: 0 }, b'\n') => Stage::TrailerStart,
            (Stage::ChunkSizeLf { size }, b'\n') => Stage::ChunkData(size),
            (Stage::ChunkDataCr, b'\r') => Stage::ChunkDataLf,
            (Stage::ChunkDataLf, b'\n') => Stage::ChunkSize { size: 0, digits: 0 },
            (Stage::TrailerStart, b'\r') => Stage::TrailerEndLf,
            (Stage::TrailerStart, _) if self.trailer_bytes < CHUNK_LINE_BYTES_MAX => {
                Stage::TrailerLine { bytes: self.trailer_bytes + 1 }
            }
            (Stage::TrailerLine { bytes }, b'\n') => {
                self.trailer_bytes = bytes;
                Stage::TrailerStart
            }
            (Stage::TrailerLine { bytes }, _) if bytes < CHUNK_LINE_BYTES_MAX => {
                Stage::TrailerLine { bytes: bytes + 1 }
            }
            (Stage::TrailerEndLf, b'\n') => Stage::Done,
            _ => return Err(AnswerError::Chunk),
        };
        Ok(())
    }
}

struct ParsedHead {
    status: u16,
    length: Option<u64>,
    chunked: bool,
    close: bool,
}

fn parse_head(bytes: &[u8]) -> Result<Option<(ParsedHead, usize)>, AnswerError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(AnswerError::Head),
    };
    let mut parsed = ParsedHead {
        status: response.code.unwrap_or(0),
        length: None,
        chunked: false,
        close: response.version == Some(0),
    };
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let value = std::str::from_utf8(header.value)
                .ok()
                .filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|text| text.parse().ok())
                .ok_or(AnswerError::Head)?;
            if parsed.length.replace(value).is_some() {
                return Err(AnswerError::Head);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if parsed.chunked || !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(AnswerError::Head);
            }
            parsed.chunked = true;
        } else if header.name.eq_ignore_ascii_case("connection") {
            parsed.close |=
                header.value.split(|&b| b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(b"close"));
        }
    }
    Ok(Some((parsed, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `wire` split at every byte, and whole; all must agree.
    fn check(wire: &[u8], closed: bool, expected: Result<(u16, &[u8], usize), AnswerError>) {
        for cut in 0..=wire.len() {
            let mut reader = AnswerReader::new();
            let mut body = Vec::new();
            let read = (|| {
                let mut taken = 0;
                for part in [&wire[..cut], &wire[cut..]] {
                    taken += reader.feed(part, |bytes| body.extend_from_slice(bytes))?;
                }
                if closed {
                    reader.end()?;
                }
                Ok(taken)
            })();
            let read = read.map(|taken| (reader.status(), body.as_slice(), taken));
            assert_eq!(read, expected, "cut at {cut}");
            if expected.is_ok() {
                assert!(reader.is_done(), "cut at {cut}");
                assert_eq!(reader.body_bytes(), body.len() as u64);
            }
        }
    }

    #[test]
    fn a_length_ends_the_body_and_leaves_the_rest() {
        let wire = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloEXTRA";
        check(wire, false, Ok((200, b"hello", wire.len() - 5)));
    }

    #[test]
    fn chunks_with_extensions_and_trailers_are_joined() {
        let wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
            3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nsum: 1\r\n\r\n";
        check(wire, false, Ok((200, b"abc0123456789", wire.len())));
    }

    #[test]
    fn interim_answers_are_skipped() {
        let wire = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Slow\r\ncontent-length: 0\r\n\r\n";
        check(wire, false, Ok((429, b"", wire.len())));
    }

    #[test]
    fn without_length_the_close_is_the_end() {
        let wire = b"HTTP/1.1 200 OK\r\n\r\nall of it";
        check(wire, true, Ok((200, b"all of it", wire.len())));
    }

    #[test]
    fn a_cut_body_is_not_an_answer() {
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello", true, Err(AnswerError::Truncated));
        check(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            true,
            Err(AnswerError::Truncated),
        );
    }

    #[test]
    fn two_lengths_and_bad_chunks_are_refused() {
        check(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", false, Err(AnswerError::Head));
        check(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhelloX", false, Err(AnswerError::Chunk));
    }

    #[test]
    fn close_is_noticed_among_connection_options() {
        let mut reader = AnswerReader::new();
        let wire = b"HTTP/1.1 200 OK\r\nconnection: foo, Close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(reader.feed(wire, |_| ()), Ok(wire.len()));
        assert!(reader.is_done() && !reader.keeps_alive());
    }

    #[test]
    fn trailers_are_bounded_however_short_their_lines() {
        let mut reader = AnswerReader::new();
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
        assert_eq!(reader.feed(head, |_| ()), Ok(head.len()));
        let lines = b"x\n".repeat(2 * CHUNK_LINE_BYTES_MAX as usize);
        assert_eq!(reader.feed(&lines, |_| ()), Err(AnswerError::Chunk));
    }
}
