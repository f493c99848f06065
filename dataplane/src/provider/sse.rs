//! Server-sent events in a byte stream that may be cut anywhere (the event stream grammar of
//! the HTML standard: lines end with LF, CRLF or CR, a blank line ends an event).
//!
//! It finds payloads and ends of events and copies nothing. Only `data` lines are looked at;
//! event names, ids and retry times are the client's affair.

use memchr::memchr2;

/// Payload of one event that is interpreted. What is beyond is still passed on.
pub const EVENT_BYTES_MAX: u32 = 1024 * 1024;

/// Something found in a read, in the order of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'r> {
    /// Payload of the current event: a `data` line without its field name, or a part of one.
    Data {
        /// The part of the payload that lies in this read; may be empty.
        bytes: &'r [u8],
        /// The line begins and ends in this read and is the first of its event.
        is_whole_first_line: bool,
    },
    /// Another `data` line follows: the payload has a line feed here.
    NextLine,
    /// A comment line at the beginning of an event has ended at this offset of the read. It
    /// can be passed on without waiting for the event.
    Comment {
        /// One past the end of the comment line.
        end: usize,
    },
    /// A line feed at this read's beginning belongs to the CR that ended the last read, and
    /// with it to what [`Piece::End`] or [`Piece::Comment`] closed there.
    LateLineFeed,
    /// The event has ended, or a blank line stood for nothing.
    End {
        /// One past the blank line, in this read.
        end: usize,
        /// There was a `data` line, so that a client sees an event.
        has_data: bool,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    /// Nothing of the line was read.
    #[default]
    Begin,
    /// So many bytes of the field name `data` were read, and no other.
    Name(u8),
    /// After `data:`; one space is not part of the payload.
    Colon,
    /// In the payload.
    Payload,
    /// In a comment before any field of the event.
    Comment,
    /// In a line that does not concern us.
    Other,
}

/// Where a stream of events stands between two reads.
#[derive(Clone, Debug, Default)]
pub struct SseReader {
    line: Line,
    /// Bytes of a byte order mark that were read at the very beginning; 3 when that is over.
    mark: u8,
    /// The last line ended with CR; a LF that follows belongs to it.
    after_cr: bool,
    /// The current event has a line that is not a comment.
    has_field: bool,
    has_data: bool,
    /// Of the current event.
    payload_bytes: u32,
}

const NAME: &[u8] = b"data";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl SseReader {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was read ends where an event ends, or after a comment between events.
    pub fn is_between_events(&self) -> bool {
        self.line == Line::Begin && !self.has_field
    }

    /// Reads on, and calls `found` for everything that `read` has.
    pub fn read<'r>(&mut self, read: &'r [u8], mut found: impl FnMut(Piece<'r>)) {
        let mut at = self.pass_mark(read);
        while let Some(&byte) = read.get(at) {
            if self.after_cr {
                self.after_cr = false;
                if byte == b'\n' {
                    at += 1;
                    if !self.has_field {
                        found(Piece::LateLineFeed);
                    }
                    continue;
                }
            }
            match self.line {
                Line::Begin => match byte {
                    b'\n' | b'\r' => {
                        at = self.line_end(read, at);
                        found(Piece::End { end: at, has_data: self.has_data });
                        self.has_field = false;
                        self.has_data = false;
                        self.payload_bytes = 0;
                    }
                    b':' if !self.has_field => self.line = Line::Comment,
                    b'd' => {
                        self.has_field = true;
                        // The usual line, at once.
                        if read.get(at..at + 5) == Some(b"data:") {
                            at += 5;
                            self.line = Line::Colon;
                        } else {
                            at += 1;
                            self.line = Line::Name(1);
                        }
                    }
                    _ => {
                        self.has_field = true;
                        self.line = Line::Other;
                    }
                },
                Line::Name(read_before) => match byte {
                    _ if NAME.get(usize::from(read_before)) == Some(&byte) => {
                        self.line = Line::Name(read_before + 1);
                        at += 1;
                    }
                    b':' if usize::from(read_before) == NAME.len() => {
                        self.line = Line::Colon;
                        at += 1;
                    }
                    // `data` alone is a payload line with nothing in it.
                    b'\n' | b'\r' if usize::from(read_before) == NAME.len() => {
                        self.begin_payload(&mut found);
                        self.payload(b"", false, &mut found);
                        at = self.line_end(read, at);
                    }
                    _ => self.line = Line::Other,
                },
                Line::Colon => {
                    let is_first = !self.has_data;
                    self.begin_payload(&mut found);
                    if byte == b' ' {
                        at += 1;
                    }
                    let rest = read.get(at..).unwrap_or_default();
                    let line_len = memchr2(b'\n', b'\r', rest);
                    let line = rest.get(..line_len.unwrap_or(rest.len())).unwrap_or_default();
                    self.payload(line, is_first && line_len.is_some(), &mut found);
                    at += line.len();
                    self.line = Line::Payload;
                    if line_len.is_some() {
                        at = self.line_end(read, at);
                    }
                }
                Line::Payload => {
                    let rest = read.get(at..).unwrap_or_default();
                    let line_len = memchr2(b'\n', b'\r', rest);
                    let line = rest.get(..line_len.unwrap_or(rest.len())).unwrap_or_default();
                    self.payload(line, false, &mut found);
                    at += line.len();
                    if line_len.is_some() {
                        at = self.line_end(read, at);
                    }
                }
                Line::Comment | Line::Other => {
                    let rest = read.get(at..).unwrap_or_default();
                    let Some(line_len) = memchr2(b'\n', b'\r', rest) else { return };
                    let is_comment = self.line == Line::Comment;
                    at = self.line_end(read, at + line_len);
                    if is_comment {
                        found(Piece::Comment { end: at });
                    }
                }
            }
        }
    }

    /// Passes a line's end, which is at `at`, and says where the next line begins.
    fn line_end(&mut self, read: &[u8], at: usize) -> usize {
        self.line = Line::Begin;
        match (read.get(at), read.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) => at + 2,
            (Some(b'\r'), None) => {
                self.after_cr = true;
                at + 1
            }
            _ => at + 1,
        }
    }

    fn begin_payload<'r>(&mut self, found: &mut impl FnMut(Piece<'r>)) {
        if self.has_data {
            found(Piece::NextLine);
        }
        self.has_data = true;
    }

    fn payload<'r>(&mut self, bytes: &'r [u8], is_whole_first_line: bool, found: &mut impl FnMut(Piece<'r>)) {
        let room = EVENT_BYTES_MAX.saturating_sub(self.payload_bytes) as usize;
        let bytes = bytes.get(..room).unwrap_or(bytes);
        self.payload_bytes = self.payload_bytes.saturating_add(bytes.len() as u32);
        found(Piece::Data { bytes, is_whole_first_line });
    }

    /// Passes a byte order mark at the beginning of the stream, and says how many of its
    /// bytes lie in `read`.
    fn pass_mark(&mut self, read: &[u8]) -> usize {
        let mut at = 0;
        while self.mark < 3 {
            let Some(byte) = read.get(at) else { break };
            if BYTE_ORDER_MARK.get(usize::from(self.mark)) != Some(byte) {
                // Half a mark is a field name that nobody knows.
                if self.mark > 0 {
                    self.has_field = true;
                    self.line = Line::Other;
                }
                self.mark = 3;
                break;
            }
            self.mark += 1;
            at += 1;
        }
        at
    }
}

#[cfg(test)]
pub(super) mod tests;
