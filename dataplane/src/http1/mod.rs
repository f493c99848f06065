//! The strict HTTP/1.1 codec (RFC 9110, RFC 9112). Pure: no sockets, no clock, no tasks.
//!
//! A head is parsed into a typed form that holds offsets, never copies; what is not strict is
//! refused with one [`HeadFault`], after which the connection closes. Heads and chunk framing
//! are always written anew by [`encode`] from the typed form; no byte of a peer's head or
//! framing is passed on. Body bytes are.
//!
//! Not here: HTTP/2, upgrades, CONNECT, transfer codings other than `chunked`, and trailers,
//! which are checked and then dropped.

pub mod chunked;
pub mod encode;
pub mod fields;
pub mod head;
pub mod repeat;
pub mod response_head;

mod class;
mod fault;
mod framing;
mod lines;
mod target;

pub use chunked::{ChunkDecoder, ChunkFault, Progress, Step};
pub use encode::{HeadWriter, Unwritable};
pub use fault::{HeadFault, ResponseFault};
pub use fields::{Flags, Known};
pub use head::{Framing, Method, RequestHead, TargetForm, Version, parse_request};
pub use repeat::Repeat;
pub use response_head::{AnswerForm, BodyFraming, ResponseHead, parse_response};

pub use shared::bounds::{INTERIM_ANSWERS_MAX, REQUEST_FIELDS_MAX, REQUEST_HEAD_BYTES_MAX, RESPONSE_HEAD_BYTES_MAX};

/// Request target alone. More is 414.
pub const REQUEST_TARGET_BYTES_MAX: usize = 8 * 1024;
/// Longest method token; the longest registered one (`UPDATEREDIRECTREF`) has 17 bytes.
pub const METHOD_BYTES_MAX: usize = 32;
/// Fields of an answer.
pub const RESPONSE_FIELDS_MAX: usize = 200;
/// Extension bytes of one chunk. AWS chunk signatures, the longest in use, need 85.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 256;
/// Trailer section, terminator included.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Fields of a trailer section.
pub const TRAILER_FIELDS_MAX: usize = 32;
/// Framing bytes a body may cost before [`CHUNK_OVERHEAD_PER_PAYLOAD_BYTE_MAX`] is looked at.
pub const CHUNK_OVERHEAD_BYTES_FREE: u64 = 64 * 1024;
/// Framing bytes for each payload byte. Chunks of one byte cost five; an extension of
/// 256 bytes on each of them costs 261 and is refused.
pub const CHUNK_OVERHEAD_PER_PAYLOAD_BYTE_MAX: u64 = 16;

const _: () = {
    assert!(REQUEST_TARGET_BYTES_MAX < REQUEST_HEAD_BYTES_MAX);
    assert!(RESPONSE_HEAD_BYTES_MAX <= 1 << 16, "offsets of a span are u16");
    assert!(REQUEST_HEAD_BYTES_MAX <= RESPONSE_HEAD_BYTES_MAX);
};

/// A piece of the buffer that a head was parsed from. Means nothing with another buffer:
/// reading outside of it gives an empty slice, never a panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u16,
    len: u16,
}

impl Span {
    /// `None` when the piece does not lie in the first 64 KiB.
    pub(crate) fn between(start: usize, end: usize) -> Option<Self> {
        Some(Self { start: u16::try_from(start).ok()?, len: u16::try_from(end.checked_sub(start)?).ok()? })
    }

    /// The bytes of this span in `buf`.
    pub fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.range()).unwrap_or_default()
    }

    /// The offsets of this span.
    pub fn range(self) -> std::ops::Range<usize> {
        let start = usize::from(self.start);
        start..start + usize::from(self.len)
    }

    /// The piece so many bytes further on; they wrap, so that it may lie before. It has to lie in the
    /// first 64 KiB.
    #[inline]
    fn moved(self, further: usize) -> Self {
        Self { start: self.start.wrapping_add(further as u16), len: self.len }
    }

    /// Whether no byte is meant; also so for what was absent from the head.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// One field line of a parsed head, in the order received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Which field it is, by the table in [`fields`].
    pub known: Known,
    /// Named by `Connection` (RFC 9110 section 7.6.1): for this hop only.
    pub is_connection_named: bool,
    /// Name as received.
    pub name: Span,
    /// Value without the whitespace around it.
    pub value: Span,
}

impl Field {
    /// The same line so many bytes further on, see [`Span::moved`].
    #[inline]
    fn moved(&self, further: usize) -> Self {
        Self { name: self.name.moved(further), value: self.value.moved(further), ..*self }
    }

    /// Whether the field may go on to a provider. Credentials, gateway-only and hop-by-hop
    /// fields do not, nor what [`HeadWriter`] writes itself (`host`, framing).
    pub fn relays_to_provider(&self) -> bool {
        !self.is_connection_named && self.known.relays_to_provider()
    }

    /// Whether the field may go on to a client.
    pub fn relays_to_client(&self) -> bool {
        !self.is_connection_named && self.known.relays_to_client()
    }
}

/// How far a head is in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// All bytes so far are in order, more are needed. Call again with the same bytes and more
    /// behind them; the scan goes on where it stopped, so a head that arrives byte by byte
    /// costs no more than one that comes whole.
    Partial,
    /// The head is the first `head_len` bytes of the buffer; the body begins there.
    Complete {
        /// Bytes of the head, with the empty line and with empty lines before the request line.
        head_len: usize,
    },
}
