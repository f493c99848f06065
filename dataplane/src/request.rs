//! One request of a client: its typed head, and its body as far as it has to be in memory.
//!
//! The body is collected up to a bound, because the model stands in it and because only what is
//! in memory can be sent twice. A larger one is left on the connection and streamed.

use crate::buffers::Buffer;
use crate::core::Core;
use crate::http1::encode::CONTINUE;
use crate::http1::{ChunkDecoder, Framing, RequestHead};
use crate::rejection::{Cause, Rejection};
use crate::same_head::SameHead;
use crate::socket::Socket;
use shared::bounds::{BODY_GRACE, BODY_RATE_MIN, BUFFER_BYTES, CLIENT_WRITE_TIMEOUT};
use shared::clock::Nanos;
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// Where the body is.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Nobody has looked yet.
    Unread,
    /// All of it: the bytes of the buffer behind the head.
    Whole {
        /// Bytes of payload.
        len: usize,
    },
    /// Its beginning is in the buffer behind the head; the rest comes from the connection.
    Beginning {
        /// Bytes of payload in the buffer.
        len: usize,
        /// What is still to come.
        rest: Rest,
    },
}

/// What is still on the connection.
#[derive(Clone, Debug)]
pub(crate) enum Rest {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Box<ChunkDecoder>),
}

/// A request.
pub(crate) struct Request {
    pub(crate) head: RequestHead,
    /// Head and body, one behind the other.
    pub(crate) buffer: Buffer,
    pub(crate) head_len: usize,
    pub(crate) body: Body,
    /// What follows the request already: the next one of a pipeline.
    pub(crate) carried: Option<Buffer>,
    /// When its head was complete.
    pub(crate) arrived: Nanos,
    /// It came right after the answer to the one before.
    pub(crate) is_busy: bool,
    /// What is known of requests with this head, on a connection that remembers it.
    pub(crate) same_head: Option<Rc<SameHead>>,
    /// Part of the core's memory for bodies that this request holds.
    claimed: Claim,
    pace: Pace,
}

/// Reading on costs less than another connection up to this size.
const SKIPPED_BODY_BYTES_MAX: u64 = 8 * 1024;

/// Bytes of the core's memory for bodies, given back when this is dropped: also by a panic.
#[derive(Default)]
struct Claim {
    bytes: u64,
    held: Option<Rc<Cell<u64>>>,
}

impl Claim {
    fn grow(&mut self, core: &Core, bytes: u64) {
        let held = self.held.get_or_insert_with(|| Rc::clone(&core.buffered_body_bytes));
        held.set(held.get().saturating_add(bytes.saturating_sub(self.bytes)));
        self.bytes = self.bytes.max(bytes);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            held.set(held.get().saturating_sub(self.bytes));
        }
    }
}

/// How fast a body has come, counting only the time in which we were ready to read.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pace {
    reading: Duration,
    bytes: u64,
}

impl Pace {
    /// How long the next read may take at most, so that the whole stays above the least rate.
    fn allowance(&self) -> Duration {
        let earned = Duration::from_millis(self.bytes.saturating_mul(1000) / BODY_RATE_MIN);
        (BODY_GRACE + earned).saturating_sub(self.reading).min(BODY_GRACE)
    }
}

impl Request {
    pub(crate) fn new(head: RequestHead, buffer: Buffer, head_len: usize, arrived: Nanos) -> Self {
        let (body, carried, claimed, pace) = (Body::Unread, None, Claim::default(), Pace::default());
        Self { head, buffer, head_len, body, carried, arrived, is_busy: false, same_head: None, claimed, pace }
    }

    /// The head's bytes, which every span of the head points into.
    #[inline]
    pub(crate) fn head_bytes(&self) -> &[u8] {
        self.buffer.payload()
    }

    /// The body's bytes in memory.
    pub(crate) fn body_bytes(&self) -> &[u8] {
        let len = match self.body {
            Body::Unread => 0,
            Body::Whole { len } | Body::Beginning { len, .. } => len,
        };
        self.buffer.payload().get(self.body_range(len)).unwrap_or_default()
    }

    fn body_range(&self, len: usize) -> Range<usize> {
        self.head_len..self.head_len + len
    }

    /// Whether all of the body is in memory, so that it can be sent more than once.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.body, Body::Whole { .. })
    }

    /// Whether bytes of this request may still be on the connection.
    pub(crate) fn is_unread(&self) -> bool {
        match self.body {
            Body::Unread => !matches!(self.head.framing(), Framing::None | Framing::Length(0)),
            Body::Whole { .. } | Body::Beginning { rest: Rest::Length(0), .. } => false,
            Body::Beginning { rest: Rest::Length(_), .. } => true,
            Body::Beginning { rest: Rest::Chunked(ref decoder), .. } => !decoder.is_done(),
        }
    }

    /// Reads a small body that nobody looks at, so that the connection can go on after it.
    pub(crate) async fn skip_small(&mut self, core: &Core, socket: &mut Socket) -> Result<(), Rejection> {
        match self.head.framing() {
            Framing::Length(length) if length <= SKIPPED_BODY_BYTES_MAX && !self.head.expect_continue() => {
                self.collect(core, socket, BUFFER_BYTES, u64::MAX, length).await
            }
            _ => Ok(()),
        }
    }

    /// Takes a body that has come with the head, as most have. `false`: it has to be collected.
    pub(crate) fn take_whole(&mut self, core: &Core, body_bytes_max: u64) -> bool {
        let there = self.buffer.len() - self.head_len;
        let len = match self.head.framing() {
            Framing::None => 0,
            Framing::Length(length) if length <= body_bytes_max.min(there as u64) => {
                usize::try_from(length).unwrap_or(there)
            }
            Framing::Length(_) | Framing::Chunked => return false,
        };
        if self.head.expect_continue() && there == 0 {
            return false;
        }
        self.body = Body::Whole { len };
        self.carry_over(core);
        core.buffers.settle(&mut self.buffer);
        true
    }

    /// Reads the body into memory, or its beginning when it is larger than `keep` bytes.
    pub(crate) async fn collect(
        &mut self,
        core: &Core,
        socket: &mut Socket,
        keep: usize,
        keep_all_requests: u64,
        body_bytes_max: u64,
    ) -> Result<(), Rejection> {
        let framing = self.head.framing();
        if let Framing::Length(length) = framing
            && length > body_bytes_max
        {
            return Err(Rejection::new(
                Cause::BodyTooLarge,
                format!("the body has {length} bytes, {body_bytes_max} are allowed"),
            ));
        }
        if self.head.expect_continue() && self.buffer.len() == self.head_len {
            self.say_continue(core, socket).await?;
        }
        match framing {
            Framing::None => self.body = Body::Whole { len: 0 },
            Framing::Length(length) => self.collect_length(core, socket, length, keep, keep_all_requests).await?,
            Framing::Chunked => self.collect_chunks(core, socket, keep, keep_all_requests, body_bytes_max).await?,
        }
        self.carry_over(core);
        if self.is_whole() {
            core.buffers.settle(&mut self.buffer);
        }
        Ok(())
    }

    async fn say_continue(&self, core: &Core, socket: &mut Socket) -> Result<(), Rejection> {
        let mut interim = core.buffers.take_small();
        let fits = interim.append(CONTINUE);
        debug_assert!(fits);
        socket.deadline.set(core.now().after(CLIENT_WRITE_TIMEOUT));
        let outcome = socket.sender.write_all(&mut interim).await;
        socket.deadline.clear();
        core.buffers.give(interim);
        outcome.map_err(|_| Rejection::client_left())
    }

    async fn collect_length(
        &mut self,
        core: &Core,
        socket: &mut Socket,
        length: u64,
        keep: usize,
        keep_all_requests: u64,
    ) -> Result<(), Rejection> {
        let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(keep);
        while self.buffer.len() - self.head_len < wanted {
            if self.buffer.room() == 0 {
                let there = self.buffer.len() - self.head_len;
                self.make_room(core, grown(there).min(wanted), keep_all_requests)?;
            }
            self.read_more(core, socket).await?;
        }
        let there = self.buffer.len() - self.head_len;
        self.body = match usize::try_from(length) {
            Ok(len) if len <= there => Body::Whole { len },
            _ => Body::Beginning { len: there, rest: Rest::Length(length - there as u64) },
        };
        Ok(())
    }

    async fn collect_chunks(
        &mut self,
        core: &Core,
        socket: &mut Socket,
        keep: usize,
        keep_all_requests: u64,
        body_bytes_max: u64,
    ) -> Result<(), Rejection> {
        let mut decoder = Box::new(ChunkDecoder::new());
        let mut len = 0;
        loop {
            // What arrived behind the payload collected so far is still framed.
            let fresh = self.head_len + len;
            let bytes = &mut self.buffer.payload_mut()[fresh..];
            let progress = decoder.decode_in_place(bytes).map_err(|fault| {
                Rejection::new(Cause::MalformedBody, format!("the chunked body is malformed: {fault}"))
            })?;
            let end = progress.consumed;
            if progress.payload_start > 0 {
                bytes.copy_within(progress.payload_start..progress.payload_start + progress.payload_len, 0);
            }
            let gap = end - progress.payload_len;
            if gap > 0 {
                let total = bytes.len();
                bytes.copy_within(end..total, progress.payload_len);
                let shorter = self.buffer.len() - gap;
                self.buffer.truncate(shorter);
            }
            len += progress.payload_len;
            if decoder.payload_total() > body_bytes_max {
                return Err(Rejection::new(
                    Cause::BodyTooLarge,
                    format!("the body has more than {body_bytes_max} bytes"),
                ));
            }
            if progress.done {
                self.body = Body::Whole { len };
                return Ok(());
            }
            // Where nothing may come, its end has still to be seen.
            if len >= keep && len > 0 {
                self.body = Body::Beginning { len, rest: Rest::Chunked(decoder) };
                return Ok(());
            }
            if self.buffer.room() == 0 {
                self.make_room(core, grown(len).min(keep.saturating_add(4096)), keep_all_requests)?;
            }
            self.read_more(core, socket).await?;
        }
    }

    /// Makes the buffer large enough for `body` bytes behind the head.
    fn make_room(&mut self, core: &Core, body: usize, keep_all_requests: u64) -> Result<(), Rejection> {
        let missing = (self.head_len + body).saturating_sub(self.buffer.len());
        if missing <= self.buffer.room() {
            return Ok(());
        }
        let claim = body as u64;
        let held = core.buffered_body_bytes.get();
        if held + claim - self.claimed.bytes.min(claim) > keep_all_requests {
            return Err(Rejection::new(Cause::Overloaded, "this core's memory for request bodies is used up"));
        }
        self.claimed.grow(core, claim);
        let mut larger = Buffer::for_payload(self.head_len + body + 1024);
        let fits = larger.append(self.buffer.payload());
        debug_assert!(fits);
        core.buffers.give(std::mem::replace(&mut self.buffer, larger));
        Ok(())
    }

    async fn read_more(&mut self, core: &Core, socket: &mut Socket) -> Result<(), Rejection> {
        self.pace.read(core, socket, &mut self.buffer).await.map(|_| ())
    }

    /// Bytes behind a complete body are the next request's.
    fn carry_over(&mut self, core: &Core) {
        let Body::Whole { len } = self.body else { return };
        let end = self.head_len + len;
        if self.buffer.len() > end {
            let extra = &self.buffer.payload()[end..];
            let mut carried = core.buffers.take();
            if !carried.append(extra) {
                carried = Buffer::for_payload(extra.len());
                let fits = carried.append(extra);
                debug_assert!(fits);
            }
            self.carried = Some(carried);
            self.buffer.truncate(end);
        }
    }

    /// Reads the next piece of a body that is streamed into `buffer`, decoded; `None` at its end.
    /// The payload of `buffer` is that piece alone.
    pub(crate) async fn read_rest(
        &mut self,
        core: &Core,
        socket: &mut Socket,
        buffer: &mut Buffer,
        body_bytes_max: u64,
    ) -> Result<Option<usize>, Rejection> {
        let Body::Beginning { rest, .. } = &mut self.body else { return Ok(None) };
        loop {
            buffer.clear();
            match rest {
                Rest::Length(0) => return Ok(None),
                Rest::Length(left) => {
                    let count = self.pace.read(core, socket, buffer).await?;
                    let ours = usize::try_from(*left).unwrap_or(usize::MAX).min(count);
                    if ours < count {
                        let mut carried = core.buffers.take();
                        let fits = carried.append(&buffer.payload()[ours..]);
                        debug_assert!(fits);
                        self.carried = Some(carried);
                        buffer.truncate(ours);
                    }
                    *left -= ours as u64;
                    return Ok(Some(ours));
                }
                Rest::Chunked(decoder) => {
                    if decoder.is_done() {
                        return Ok(None);
                    }
                    self.pace.read(core, socket, buffer).await?;
                    let progress = decoder.decode_in_place(buffer.payload_mut()).map_err(|fault| {
                        Rejection::new(Cause::MalformedBody, format!("the chunked body is malformed: {fault}"))
                    })?;
                    if decoder.payload_total() > body_bytes_max {
                        let text = format!("the body has more than {body_bytes_max} bytes");
                        return Err(Rejection::new(Cause::BodyTooLarge, text));
                    }
                    if progress.done && progress.consumed < buffer.len() {
                        let mut carried = core.buffers.take();
                        let fits = carried.append(&buffer.payload()[progress.consumed..]);
                        debug_assert!(fits);
                        self.carried = Some(carried);
                    }
                    buffer.consume(progress.payload_start);
                    buffer.truncate(progress.payload_len);
                    if progress.payload_len > 0 {
                        return Ok(Some(progress.payload_len));
                    }
                }
            }
        }
    }

    /// Gives head and body back to the core. For the time of the answer, which may be an hour of
    /// a stream: nobody asks for them any more. What is left is whether there was more to read.
    pub(crate) fn release(&mut self, core: &Core) {
        self.claimed = Claim::default();
        let buffer = std::mem::replace(&mut self.buffer, Buffer::empty());
        if buffer.is_real() {
            core.buffers.give(buffer);
            core.give_request_head(std::mem::take(&mut self.head));
        }
    }

    /// Gives everything back to the core; what follows the request stays for the connection.
    pub(crate) fn finish(&mut self, core: &Core) -> Option<Buffer> {
        if matches!(self.body, Body::Unread) && !self.is_unread() {
            // Refused by its head alone: what came behind that is the next request.
            self.body = Body::Whole { len: 0 };
            self.carry_over(core);
        }
        self.release(core);
        self.carried.take()
    }
}

/// Room for a body of which `there` bytes have come. What a client announces costs it nothing, so
/// the memory of a core is given out for what came.
fn grown(there: usize) -> usize {
    there.saturating_mul(4).max(4 * BUFFER_BYTES)
}

impl Pace {
    async fn read(&mut self, core: &Core, socket: &mut Socket, buffer: &mut Buffer) -> Result<usize, Rejection> {
        let began = core.now();
        socket.deadline.set_reading(began.after(self.allowance()));
        let outcome = socket.receiver.read(buffer).await;
        socket.deadline.clear();
        self.reading += core.now().since(began);
        match outcome {
            Ok(0) | Err(_) if socket.deadline.has_passed() => {
                Err(Rejection::new(Cause::BodyTimeout, "the body came too slowly"))
            }
            Ok(0) | Err(_) => Err(Rejection::client_left()),
            Ok(count) => {
                self.bytes = self.bytes.saturating_add(count as u64);
                Ok(count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{Parsed, parse_request};
    use shared::clock::Clock;
    use shared::phase::SharedPhase;

    #[test]
    fn a_released_request_holds_no_buffer_and_no_claim() {
        let core = Core::new(0, Clock::start(), SharedPhase::new());
        let (mut head, mut buffer) = (core.take_request_head(), Buffer::for_payload(100_000));
        assert!(buffer.append(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nnot all"));
        let Ok(Parsed::Complete { head_len }) = parse_request(buffer.payload(), &mut head) else { panic!("a head") };
        let mut request = Request::new(head, buffer, head_len, Nanos(0));
        request.make_room(&core, 500_000, 1_000_000).expect("there is room");
        request.body = Body::Beginning { len: 7, rest: Rest::Length(2) };
        assert_eq!(core.buffered_body_bytes.get(), 500_000);
        request.release(&core);
        assert!(!request.buffer.is_real() && request.is_unread());
        assert_eq!(core.buffered_body_bytes.get(), 0);
        assert!(request.finish(&core).is_none());
        assert_eq!(core.buffered_body_bytes.get(), 0);
    }

    #[test]
    fn a_dripping_body_runs_out_of_time() {
        let mut pace = Pace::default();
        let mut total = Duration::ZERO;
        for _ in 0..100 {
            let drip = Duration::from_secs(2);
            if pace.allowance() < drip {
                break;
            }
            pace.reading += drip;
            pace.bytes += 1;
            total += drip;
        }
        assert!(total < Duration::from_secs(10), "{total:?}");
    }

    #[test]
    fn a_slow_but_steady_body_may_take_its_time() {
        let mut pace = Pace::default();
        for _ in 0..10_000 {
            assert!(pace.allowance() >= Duration::from_secs(1));
            pace.reading += Duration::from_secs(1);
            pace.bytes += BODY_RATE_MIN;
        }
    }
}
