//! The buffers of one core: taken when bytes are there, given back when they are gone.
//!
//! A buffer keeps room in front of its payload, so that a new head or a chunk's size line can be
//! written right before bytes that have already arrived, and both leave in one write. No buffer
//! is ever shared between cores, and none is cleared: what is read is only what was written.

use shared::bounds::{
    BUFFER_BYTES, BUFFER_HEADROOM_BYTES, BUFFER_TAILROOM_BYTES, BUSY_WAITS_PER_CORE_MAX, LONG_READ_BYTES,
    POOLED_BUFFERS_MAX, POOLED_LONG_READS_MAX, REQUEST_BYTES, STREAM_READ_BYTES,
};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Room in front of a small or a long buffer: a chunk's size line fits.
const SMALL_HEADROOM_BYTES: usize = 32;

/// Bytes with room before and behind them.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    /// First byte of the payload.
    start: usize,
    /// One past the last byte of the payload; at most `bytes.len() - BUFFER_TAILROOM_BYTES`.
    end: usize,
    headroom: usize,
}

impl Buffer {
    fn with_room(headroom: usize, payload: usize) -> Self {
        let bytes = vec![0; headroom + payload + BUFFER_TAILROOM_BYTES].into_boxed_slice();
        Self { bytes, start: headroom, end: headroom, headroom }
    }

    /// No bytes at all: what stands in while the real ones are with the kernel.
    pub(crate) fn empty() -> Self {
        Self { bytes: Box::default(), start: 0, end: 0, headroom: 0 }
    }

    /// Whether there are bytes, filled or not: false for [`Buffer::empty`] only.
    pub(crate) fn is_real(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// A buffer of its own for a body of known size; the allocator gives zeroed pages lazily.
    pub(crate) fn for_payload(payload: usize) -> Self {
        Self::with_room(BUFFER_HEADROOM_BYTES, payload)
    }

    /// The payload.
    #[inline]
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The payload, to be changed in place.
    #[inline]
    pub(crate) fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Bytes of payload.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// No payload.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Room behind the payload for more of it.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        (self.bytes.len() - self.end).saturating_sub(BUFFER_TAILROOM_BYTES)
    }

    /// Drops the first `count` bytes of the payload (at most all of it).
    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Keeps the first `len` bytes of the payload.
    #[inline]
    pub(crate) fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }

    /// Empties the buffer and takes its headroom back.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.start = self.headroom;
        self.end = self.headroom;
    }

    /// Appends bytes; false and nothing done when they do not fit.
    #[must_use]
    pub(crate) fn append(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.room() {
            return false;
        }
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
        true
    }

    /// Writes `front` right before the payload; false and nothing done when there is no room.
    #[must_use]
    pub(crate) fn prepend(&mut self, front: &[u8]) -> bool {
        if front.len() > self.start {
            return false;
        }
        let from = self.start - front.len();
        self.bytes[from..self.start].copy_from_slice(front);
        self.start = from;
        true
    }

    /// Writes up to [`BUFFER_TAILROOM_BYTES`] bytes behind the payload, where `append` never goes.
    #[must_use]
    pub(crate) fn finish(&mut self, tail: &[u8]) -> bool {
        if self.end + tail.len() > self.bytes.len() {
            return false;
        }
        self.bytes[self.end..self.end + tail.len()].copy_from_slice(tail);
        self.end += tail.len();
        true
    }

    /// Moves the payload to the front, so that the room behind it is as large as it can be.
    pub(crate) fn compact(&mut self) {
        if self.start > self.headroom {
            self.bytes.copy_within(self.start..self.end, self.headroom);
            self.end -= self.start - self.headroom;
            self.start = self.headroom;
        }
    }

    /// The raw parts for an io operation: bytes, payload start, payload end.
    pub(crate) fn into_parts(self) -> (Box<[u8]>, BufferShape) {
        (self.bytes, BufferShape { start: self.start, end: self.end, headroom: self.headroom })
    }

    /// Puts the parts together again, `read` bytes longer.
    pub(crate) fn from_parts(bytes: Box<[u8]>, shape: BufferShape, read: usize) -> Self {
        let end = (shape.end + read).min(bytes.len());
        Self { bytes, start: shape.start, end, headroom: shape.headroom }
    }
}

/// Where the payload lies while the bytes are with the kernel.
#[derive(Clone, Copy)]
pub(crate) struct BufferShape {
    pub(crate) start: usize,
    pub(crate) end: usize,
    headroom: usize,
}

/// A connection that waits with a whole buffer; counted until it is dropped.
pub(crate) struct BusyWait(Rc<Cell<u32>>);

impl Drop for BusyWait {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Free buffers of a core.
#[derive(Default)]
pub(crate) struct Buffers {
    busy_waits: Rc<Cell<u32>>,
    normal: RefCell<Vec<Buffer>>,
    /// For requests that wait for their answers.
    waiting: RefCell<Vec<Buffer>>,
    small: RefCell<Vec<Buffer>>,
    long: RefCell<Vec<Buffer>>,
}

impl Buffers {
    /// An empty buffer of [`BUFFER_BYTES`].
    pub(crate) fn take(&self) -> Buffer {
        self.normal.borrow_mut().pop().unwrap_or_else(|| Buffer::with_room(BUFFER_HEADROOM_BYTES, BUFFER_BYTES))
    }

    /// An empty buffer of [`STREAM_READ_BYTES`], for what a quiet stream waits with.
    pub(crate) fn take_small(&self) -> Buffer {
        self.small.borrow_mut().pop().unwrap_or_else(|| Buffer::with_room(SMALL_HEADROOM_BYTES, STREAM_READ_BYTES))
    }

    /// An empty buffer for the next piece of an answer, of which the last one had so many bytes.
    pub(crate) fn take_after(&self, last: usize) -> Buffer {
        match last {
            BUFFER_BYTES.. => {
                self.long.borrow_mut().pop().unwrap_or_else(|| Buffer::with_room(SMALL_HEADROOM_BYTES, LONG_READ_BYTES))
            }
            STREAM_READ_BYTES.. => self.take(),
            _ => self.take_small(),
        }
    }

    /// A place among the connections that wait with a whole buffer, while there is one.
    pub(crate) fn busy_wait(&self) -> Option<BusyWait> {
        let waits = self.busy_waits.get();
        if waits >= BUSY_WAITS_PER_CORE_MAX {
            return None;
        }
        self.busy_waits.set(waits + 1);
        Some(BusyWait(Rc::clone(&self.busy_waits)))
    }

    /// An empty buffer for a request that fits [`REQUEST_BYTES`].
    pub(crate) fn take_for_request(&self) -> Buffer {
        self.waiting.borrow_mut().pop().unwrap_or_else(|| Buffer::with_room(0, REQUEST_BYTES))
    }

    /// `buffer` in one that is as large as others, for a request that goes on.
    pub(crate) fn widen(&self, buffer: &mut Buffer) {
        if buffer.bytes.len() > REQUEST_BYTES + BUFFER_TAILROOM_BYTES {
            return;
        }
        let mut larger = self.take();
        let fits = larger.append(buffer.payload());
        debug_assert!(fits, "it is larger");
        self.give(std::mem::replace(buffer, larger));
    }

    /// `buffer` in a buffer that fits a waiting request, where its payload does.
    pub(crate) fn settle(&self, buffer: &mut Buffer) {
        if buffer.len() > REQUEST_BYTES || buffer.bytes.len() <= REQUEST_BYTES + BUFFER_TAILROOM_BYTES {
            return;
        }
        let mut smaller = self.take_for_request();
        let fits = smaller.append(buffer.payload());
        debug_assert!(fits, "its length was compared");
        self.give(std::mem::replace(buffer, smaller));
    }

    /// Gives a buffer back; one of a size of its own goes to the allocator.
    pub(crate) fn give(&self, mut buffer: Buffer) {
        const NORMAL: usize = BUFFER_BYTES + BUFFER_TAILROOM_BYTES;
        const WAITING: usize = REQUEST_BYTES + BUFFER_TAILROOM_BYTES;
        const SMALL: usize = STREAM_READ_BYTES + BUFFER_TAILROOM_BYTES;
        const LONG: usize = LONG_READ_BYTES + BUFFER_TAILROOM_BYTES;
        let (free, pooled_max) = match (buffer.headroom, buffer.bytes.len() - buffer.headroom) {
            (BUFFER_HEADROOM_BYTES, NORMAL) => (&self.normal, POOLED_BUFFERS_MAX),
            (SMALL_HEADROOM_BYTES, SMALL) => (&self.small, POOLED_BUFFERS_MAX),
            (SMALL_HEADROOM_BYTES, LONG) => (&self.long, POOLED_LONG_READS_MAX),
            (0, WAITING) => (&self.waiting, POOLED_BUFFERS_MAX),
            _ => return,
        };
        let mut free = free.borrow_mut();
        if free.len() < pooled_max {
            buffer.clear();
            free.push(buffer);
        }
    }

    /// Returns to the allocator what a quiet core keeps for nothing: half of the free buffers.
    pub(crate) fn shrink(&self) {
        for free in [&self.normal, &self.waiting, &self.small, &self.long] {
            let mut free = free.borrow_mut();
            let keep = free.len() / 2;
            free.truncate(keep);
            free.shrink_to(keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_payload_become_contiguous() {
        let mut buffer = Buffers::default().take();
        assert!(buffer.append(b"old head|body"));
        buffer.consume(9);
        assert!(buffer.prepend(b"a longer new head|"));
        assert_eq!(buffer.payload(), b"a longer new head|body");
    }

    #[test]
    fn a_full_buffer_still_takes_a_chunk_end() {
        let mut buffer = Buffers::default().take_small();
        assert!(buffer.append(&[b'x'; STREAM_READ_BYTES]));
        assert!(!buffer.append(b"y"));
        assert!(buffer.finish(b"\r\n0\r\n\r\n"));
        assert!(buffer.prepend(b"400\r\n"));
        assert_eq!(buffer.len(), STREAM_READ_BYTES + 12);
    }

    #[test]
    fn a_reused_buffer_shows_nothing_of_its_past() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        assert!(buffer.append(b"secret"));
        buffers.give(buffer);
        assert!(buffers.take().is_empty());
    }

    #[test]
    fn a_request_waits_in_a_smaller_buffer_if_it_fits() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        assert!(buffer.append(b"passed|request"));
        buffer.consume(7);
        buffers.settle(&mut buffer);
        assert_eq!(buffer.payload(), b"request");
        assert_eq!(buffer.room(), REQUEST_BYTES - 7);
        buffers.give(buffer);
        let mut large = buffers.take();
        assert!(large.append(&[b'x'; REQUEST_BYTES + 1]));
        buffers.settle(&mut large);
        assert_eq!(large.room(), BUFFER_BYTES - REQUEST_BYTES - 1);
    }

    #[test]
    fn a_request_that_goes_on_finds_room() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take_for_request();
        assert!(buffer.append(&[b'x'; REQUEST_BYTES]));
        assert_eq!(buffer.room(), 0);
        buffers.widen(&mut buffer);
        assert_eq!((buffer.len(), buffer.room()), (REQUEST_BYTES, BUFFER_BYTES - REQUEST_BYTES));
        buffers.widen(&mut buffer);
        assert_eq!(buffer.len(), REQUEST_BYTES);
    }

    #[test]
    fn only_so_many_connections_wait_with_a_whole_buffer() {
        let buffers = Buffers::default();
        let mut waits: Vec<_> = (0..BUSY_WAITS_PER_CORE_MAX).map_while(|_| buffers.busy_wait()).collect();
        assert_eq!(waits.len() as u32, BUSY_WAITS_PER_CORE_MAX);
        assert!(buffers.busy_wait().is_none());
        waits.pop();
        assert!(buffers.busy_wait().is_some());
    }

    #[test]
    fn what_filled_its_buffer_is_followed_by_a_larger_one() {
        let buffers = Buffers::default();
        let after = |last| buffers.take_after(last).room();
        assert_eq!((after(0), after(STREAM_READ_BYTES - 1)), (STREAM_READ_BYTES, STREAM_READ_BYTES));
        assert_eq!((after(STREAM_READ_BYTES), after(BUFFER_BYTES - 1)), (BUFFER_BYTES, BUFFER_BYTES));
        assert_eq!((after(BUFFER_BYTES), after(LONG_READ_BYTES)), (LONG_READ_BYTES, LONG_READ_BYTES));
        assert_eq!(buffers.take_small().into_parts().0.len(), 1024, "what allocators have a class for");
        (0..=POOLED_LONG_READS_MAX)
            .map(|_| buffers.take_after(BUFFER_BYTES))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|long| buffers.give(long));
        assert_eq!(buffers.long.borrow().len(), POOLED_LONG_READS_MAX);
        buffers.shrink();
        assert_eq!(buffers.long.borrow().len(), POOLED_LONG_READS_MAX / 2);
    }

    #[test]
    fn a_buffer_of_its_own_size_is_not_kept() {
        let buffers = Buffers::default();
        buffers.give(Buffer::for_payload(100_000));
        assert_eq!(buffers.take().room(), BUFFER_BYTES);
    }
}
