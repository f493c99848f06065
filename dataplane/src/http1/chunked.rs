//! Reads chunked bodies (RFC 9112 section 7.1), strictly, however the bytes are split.
//!
//! Payload stays where it was read: the decoder says where it lies, or moves it together
//! inside the buffer. Extensions and trailers are checked, bounded and dropped.

use thiserror::Error;

use super::class;
use super::fields::Flags;
use super::framing::split_fields;
use super::lines::{Found, LineScan};
use super::{
    CHUNK_EXTENSION_BYTES_MAX, CHUNK_OVERHEAD_BYTES_FREE, CHUNK_OVERHEAD_PER_PAYLOAD_BYTE_MAX, TRAILER_BYTES_MAX,
    TRAILER_FIELDS_MAX,
};

/// Why a chunked body is refused. The end of the message is lost, so the connection closes;
/// payload yielded before must not be shown as a complete body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChunkFault {
    /// The size is not 1 to 16 hexadecimal digits.
    #[error("malformed chunk size")]
    Size,
    /// The extension is not `;name[=token|="quoted"]`.
    #[error("malformed chunk extension")]
    Extension,
    /// More than [`CHUNK_EXTENSION_BYTES_MAX`] in one chunk.
    #[error("chunk extension too long")]
    ExtensionTooLong,
    /// CR or LF without the other, or payload that goes on behind its size.
    #[error("chunk does not end in CRLF")]
    LineEnd,
    /// Far more framing than payload.
    #[error("too much chunk framing for the payload")]
    Overhead,
    /// A malformed trailer section.
    #[error("malformed trailer")]
    Trailer,
    /// A trailer section longer than [`TRAILER_BYTES_MAX`] or [`TRAILER_FIELDS_MAX`].
    #[error("trailer too large")]
    TrailerTooLarge,
    /// A trailer field that would change how the message is read, such as `Content-Length`.
    #[error("field not allowed in a trailer")]
    TrailerField,
}

impl ChunkFault {
    /// Short name for error bodies, logs and counters.
    pub fn code(self) -> &'static str {
        match self {
            Self::Size => "chunk_size",
            Self::Extension => "chunk_extension",
            Self::ExtensionTooLong => "chunk_extension_too_long",
            Self::LineEnd => "chunk_line_end",
            Self::Overhead => "chunk_overhead",
            Self::Trailer => "trailer",
            Self::TrailerTooLarge => "trailer_too_large",
            Self::TrailerField => "trailer_field",
        }
    }
}

/// What [`ChunkDecoder::step`] found at the start of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of framing before the payload.
    pub framing_len: usize,
    /// Bytes of payload behind the framing; 0 when the input ends in framing or the body is over.
    pub payload_len: usize,
}

/// What [`ChunkDecoder::decode_in_place`] made of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where the payload begins in the buffer. Payload of one chunk is left in place, that of
    /// further chunks is moved up behind it.
    pub payload_start: usize,
    /// Bytes of payload from there on.
    pub payload_len: usize,
    /// Bytes of the buffer that were used: all of them, unless the body ended. What follows
    /// belongs to the next message.
    pub consumed: usize,
    /// Whether the body is over.
    pub done: bool,
}

impl Progress {
    /// The payload in the buffer that was decoded.
    pub fn payload<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        buf.get(self.payload_start..self.payload_start + self.payload_len).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    SizeStart,
    Size {
        digits: u8,
    },
    /// Whitespace behind the size, which is only right before a `;`.
    BeforeExtension,
    ExtensionNameStart,
    ExtensionName,
    /// Whitespace behind a name: `=` or `;` must follow.
    AfterExtensionName,
    ExtensionValueStart,
    ExtensionToken,
    /// Whitespace behind a value: `;` must follow.
    AfterExtensionValue,
    Quoted,
    QuotedPair,
    /// Behind the closing quote.
    QuotedEnd,
    SizeLf,
    Payload,
    PayloadCr,
    PayloadLf,
    TrailerStart,
    FinalLf,
    Trailer,
    Done,
}

/// State of one chunked body. A new one for each message.
#[derive(Clone, Debug, Default)]
pub struct ChunkDecoder {
    state: State,
    /// Size while it is read, then payload still to come in this chunk.
    left: u64,
    extension_len: usize,
    overhead: u64,
    payload: u64,
    /// Empty, and without an allocation, unless the body has trailers.
    trailer: Vec<u8>,
    trailer_scan: LineScan,
    trailer_lines: usize,
}

impl ChunkDecoder {
    /// A decoder for a body that begins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the body ended, trailers included.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Payload bytes so far.
    pub fn payload_total(&self) -> u64 {
        self.payload
    }

    /// Takes `buf`, the bytes that follow what was given before, and moves the payload in it
    /// together. See [`Progress`].
    pub fn decode_in_place(&mut self, buf: &mut [u8]) -> Result<Progress, ChunkFault> {
        let mut progress = Progress { payload_start: 0, payload_len: 0, consumed: 0, done: false };
        while !self.is_done() && progress.consumed < buf.len() {
            let step = self.step(buf.get(progress.consumed..).unwrap_or_default())?;
            let from = progress.consumed + step.framing_len;
            if progress.payload_len == 0 {
                progress.payload_start = from;
            } else if step.payload_len > 0 {
                let to = progress.payload_start + progress.payload_len;
                buf.copy_within(from..from + step.payload_len, to);
            }
            progress.payload_len += step.payload_len;
            progress.consumed = from + step.payload_len;
        }
        progress.done = self.is_done();
        Ok(progress)
    }

    /// Takes framing from the start of `buf` and the payload right behind it. Call it with the
    /// rest until `buf` is used up or [`Self::is_done`]; it touches nothing of `buf`.
    pub fn step(&mut self, buf: &[u8]) -> Result<Step, ChunkFault> {
        let overhead_max =
            CHUNK_OVERHEAD_BYTES_FREE.saturating_add(self.payload.saturating_mul(CHUNK_OVERHEAD_PER_PAYLOAD_BYTE_MAX));
        let mut framing_len = 0;
        while self.state != State::Payload && self.state != State::Done {
            let Some(&byte) = buf.get(framing_len) else {
                break;
            };
            framing_len += 1;
            self.overhead += 1;
            if self.overhead > overhead_max {
                return Err(ChunkFault::Overhead);
            }
            self.state = self.after(byte)?;
        }
        let mut payload_len = 0;
        if self.state == State::Payload {
            let there = buf.len().saturating_sub(framing_len);
            payload_len = usize::try_from(self.left).unwrap_or(usize::MAX).min(there);
            self.left -= payload_len as u64;
            self.payload = self.payload.saturating_add(payload_len as u64);
            if self.left == 0 {
                self.state = State::PayloadCr;
            }
        }
        Ok(Step { framing_len, payload_len })
    }

    /// The state behind one byte of framing.
    fn after(&mut self, byte: u8) -> Result<State, ChunkFault> {
        match self.state {
            State::SizeStart | State::Size { .. } => self.after_size(byte),
            State::BeforeExtension
            | State::ExtensionNameStart
            | State::ExtensionName
            | State::AfterExtensionName
            | State::ExtensionValueStart
            | State::ExtensionToken
            | State::AfterExtensionValue
            | State::Quoted
            | State::QuotedPair
            | State::QuotedEnd => self.after_extension(byte),
            State::SizeLf => match byte {
                b'\n' if self.left == 0 => Ok(State::TrailerStart),
                b'\n' => Ok(State::Payload),
                _ => Err(ChunkFault::LineEnd),
            },
            State::PayloadCr if byte == b'\r' => Ok(State::PayloadLf),
            State::PayloadLf if byte == b'\n' => Ok(State::SizeStart),
            State::TrailerStart if byte == b'\r' => Ok(State::FinalLf),
            State::FinalLf if byte == b'\n' => Ok(State::Done),
            State::PayloadCr | State::PayloadLf | State::FinalLf => Err(ChunkFault::LineEnd),
            State::TrailerStart | State::Trailer => self.after_trailer(byte),
            // `step` takes no framing in these two.
            State::Payload | State::Done => Ok(self.state),
        }
    }

    fn after_size(&mut self, byte: u8) -> Result<State, ChunkFault> {
        let digits = match self.state {
            State::Size { digits } => digits,
            _ => 0,
        };
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if digits == 0 => return Err(ChunkFault::Size),
            b'\r' => return Ok(self.end_of_size()),
            b';' | b' ' | b'\t' => {
                self.extension_len = 0;
                return self.after_extension_byte(byte, State::BeforeExtension);
            }
            _ => return Err(ChunkFault::Size),
        };
        if digits == 0 {
            self.left = 0;
        }
        // Sixteen digits fill a u64; a body that long is cut by its size limit long before.
        if digits == 16 {
            return Err(ChunkFault::Size);
        }
        self.left = self.left << 4 | u64::from(digit);
        Ok(State::Size { digits: digits + 1 })
    }

    fn end_of_size(&mut self) -> State {
        self.extension_len = 0;
        State::SizeLf
    }

    fn after_extension(&mut self, byte: u8) -> Result<State, ChunkFault> {
        if byte == b'\r' {
            return match self.state {
                State::ExtensionName | State::ExtensionToken | State::QuotedEnd => Ok(self.end_of_size()),
                State::BeforeExtension => Err(ChunkFault::Size),
                _ => Err(ChunkFault::Extension),
            };
        }
        self.after_extension_byte(byte, self.state)
    }

    /// RFC 9112 section 7.1.1: `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted ) ] )`.
    fn after_extension_byte(&mut self, byte: u8, state: State) -> Result<State, ChunkFault> {
        self.extension_len += 1;
        if self.extension_len > CHUNK_EXTENSION_BYTES_MAX {
            return Err(ChunkFault::ExtensionTooLong);
        }
        let is_space = matches!(byte, b' ' | b'\t');
        let is_token = class::is(byte, class::TOKEN);
        let next = match state {
            State::BeforeExtension if byte == b';' => State::ExtensionNameStart,
            State::BeforeExtension | State::ExtensionNameStart | State::ExtensionValueStart if is_space => state,
            State::BeforeExtension => return Err(ChunkFault::Size),
            State::ExtensionNameStart | State::ExtensionName if is_token => State::ExtensionName,
            State::ExtensionName | State::AfterExtensionName => match byte {
                b';' => State::ExtensionNameStart,
                b'=' => State::ExtensionValueStart,
                _ if is_space => State::AfterExtensionName,
                _ => return Err(ChunkFault::Extension),
            },
            State::ExtensionValueStart if byte == b'"' => State::Quoted,
            State::ExtensionValueStart | State::ExtensionToken if is_token => State::ExtensionToken,
            State::ExtensionToken | State::QuotedEnd | State::AfterExtensionValue => match byte {
                b';' => State::ExtensionNameStart,
                _ if is_space => State::AfterExtensionValue,
                _ => return Err(ChunkFault::Extension),
            },
            State::Quoted => match byte {
                b'"' => State::QuotedEnd,
                b'\\' => State::QuotedPair,
                _ if class::is_control(byte) => return Err(ChunkFault::Extension),
                _ => State::Quoted,
            },
            State::QuotedPair if !class::is_control(byte) => State::Quoted,
            _ => return Err(ChunkFault::Extension),
        };
        Ok(next)
    }

    fn after_trailer(&mut self, byte: u8) -> Result<State, ChunkFault> {
        if self.trailer.len() >= TRAILER_BYTES_MAX {
            return Err(ChunkFault::TrailerTooLarge);
        }
        self.trailer.push(byte);
        if byte != b'\n' {
            return Ok(State::Trailer);
        }
        loop {
            match self.trailer_scan.next(&self.trailer) {
                Err(_) => return Err(ChunkFault::Trailer),
                Ok(Found::More) => return Ok(State::Trailer),
                Ok(Found::Line { start, end }) if start == end => {
                    self.check_trailer()?;
                    self.trailer = Vec::new();
                    return Ok(State::Done);
                }
                Ok(Found::Line { .. }) => {
                    self.trailer_lines += 1;
                    if self.trailer_lines > TRAILER_FIELDS_MAX {
                        return Err(ChunkFault::TrailerTooLarge);
                    }
                }
            }
        }
    }

    fn check_trailer(&self) -> Result<(), ChunkFault> {
        let mut fields = Vec::with_capacity(self.trailer_lines);
        split_fields(&self.trailer, 0, self.trailer_lines, &mut fields).ok_or(ChunkFault::Trailer)?;
        if fields.iter().any(|field| field.known.flags().has(Flags::NOT_IN_TRAILERS)) {
            return Err(ChunkFault::TrailerField);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
