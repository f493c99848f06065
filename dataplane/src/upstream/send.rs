//! One attempt: a connection, the request on it, and the head of the answer.
//!
//! The answer is read while a large request is still being written, so that a provider that
//! refuses early does not have to swallow everything first. An answer that comes whole before
//! the request has gone out is not relayed at the same time: providers of this kind answer last.

use super::providers::{ProviderState, Upstream};
use crate::buffers::Buffer;
use crate::core::{Core, Serving};
use crate::http1::encode::{CHUNK_END, CHUNK_PREFIX_BYTES, LAST_CHUNK, chunk_prefix};
use crate::http1::{AnswerForm, Method, Parsed, ResponseHead};
use crate::link::Link;
use crate::provider::late_scan::LateScan;
use crate::provider::request_scan::ScanError;
use crate::rejection::{Cause, Rejection};
use crate::request::Request;
use crate::socket::{Receiver, Sender, Socket};
use nix::sys::socket::{Shutdown, shutdown};
use shared::bounds::{BUFFER_BYTES, INTERIM_ANSWERS_MAX, RESPONSE_HEAD_BYTES_MAX};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// A provider that closes a kept connection within this time of our request did so before it saw
/// the request: both were on their way at once. Later it may have begun to work on it.
const CROSSING: Duration = Duration::from_secs(1);

/// The answer's head, and what came with it.
pub(crate) struct Answer {
    pub(crate) upstream: Upstream,
    pub(crate) head: Box<ResponseHead>,
    /// Head and first bytes of the body.
    pub(crate) buffer: Buffer,
    pub(crate) head_len: usize,
    /// All of the request was written; otherwise the connection cannot be used again.
    pub(crate) is_request_sent: bool,
}

/// An attempt that brought no answer.
pub(crate) struct Failure {
    pub(crate) rejection: Rejection,
    /// Nothing of the request reached the provider.
    pub(crate) is_unsent: bool,
}

/// What to send, and how long to wait.
pub(crate) struct Outgoing<'a> {
    pub(crate) serving: &'a Serving,
    pub(crate) provider: usize,
    pub(crate) method: Method,
    /// Head, and the body where it is small or had to be changed.
    pub(crate) bytes: &'a mut Vec<u8>,
    /// The request, whose body follows `bytes`: from the buffer, from the connection, or both.
    pub(crate) request: &'a mut Request,
    pub(crate) follows: Follows,
    /// The client's connection, for a body that is still on it.
    pub(crate) client: Option<&'a mut Socket>,
    /// What was admitted is read from the body: no field of it may come again behind the buffer.
    pub(crate) is_scanned: bool,
    /// A stream is asked for.
    pub(crate) is_stream: bool,
    pub(crate) body_bytes_max: u64,
}

/// What follows the composed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follows {
    /// Nothing.
    Nothing,
    /// The whole body, which lies in the request's buffer.
    Buffered,
    /// The rest of the body from the client's connection; chunked or with a length.
    Streamed { is_chunked: bool },
}

/// Sends a request and waits for the head of its answer. `link` is told the descriptor of each
/// connection that is tried; `sending` is called right before the first byte is written, each time
/// when there is a connection to write to.
pub(crate) async fn send(
    core: &Core,
    state: &Rc<ProviderState>,
    outgoing: &mut Outgoing<'_>,
    link: &Link,
    mut sending: impl FnMut() -> Result<(), Rejection>,
) -> Result<Answer, Failure> {
    let has_sent = Cell::new(false);
    let unsent = |rejection| Failure { rejection, is_unsent: !has_sent.get() };
    let Some(record) = outgoing.serving.records().providers.get(outgoing.provider) else {
        return Err(unsent(Rejection::new(Cause::Internal, "a route leads to no provider")));
    };
    let mut reused = state.reuse(core, record);
    loop {
        let opened = if let Some(upstream) = reused.take() {
            Ok(upstream)
        } else {
            // In a box, for most requests have no need of it.
            let opened = Box::pin(state.open(core, outgoing.serving, outgoing.provider, &|fd| link.began(fd))).await;
            core.now();
            opened
        };
        let mut upstream = opened.map_err(|rejection| {
            link.ended();
            unsent(rejection)
        })?;
        link.began(upstream.socket.fd);
        if link.is_gone() {
            link.ended();
            upstream.discard();
            return Err(unsent(Rejection::client_left()));
        }
        if let Err(rejection) = sending() {
            link.ended();
            upstream.keep(core);
            return Err(unsent(rejection));
        }
        has_sent.set(true);
        let sent_at = core.recently();
        match exchange_heads(core, state, &mut upstream, outgoing, link).await {
            Ok((head, buffer, head_len, is_request_sent)) => {
                return Ok(Answer { upstream, head, buffer, head_len, is_request_sent });
            }
            Err(failed) => {
                let crossed = upstream.is_reused
                    && failed.was_closed_unanswered
                    && outgoing.request.is_whole()
                    && core.now().since(sent_at) < CROSSING;
                link.ended();
                upstream.discard();
                if !crossed {
                    return Err(Failure { rejection: failed.rejection, is_unsent: false });
                }
                core.counters.stale();
            }
        }
    }
}

struct Failed {
    rejection: Rejection,
    /// The connection ended before any byte of an answer.
    was_closed_unanswered: bool,
}

async fn exchange_heads(
    core: &Core,
    state: &ProviderState,
    upstream: &mut Upstream,
    outgoing: &mut Outgoing<'_>,
    link: &Link,
) -> Result<(Box<ResponseHead>, Buffer, usize, bool), Failed> {
    let Some(record) = outgoing.serving.records().providers.get(outgoing.provider) else {
        return Err(Failed { rejection: Rejection::new(Cause::Internal, "no provider"), was_closed_unanswered: false });
    };
    let provider = record.name.as_str();
    let head_timeout = Duration::from_millis(u64::from(record.head_timeout_ms.to_native()));
    let idle_timeout = Duration::from_millis(u64::from(record.idle_timeout_ms.to_native()));
    let method = outgoing.method;
    let Socket { deadline, receiver, sender, fd } = &mut *upstream.socket;
    deadline.set(core.recently().after(head_timeout));
    let progress = || deadline.set(core.now().after(idle_timeout));
    let finished = || deadline.set(core.now().after(head_timeout));
    let is_answered = Cell::new(false);
    let mut read = pin!(read_head(core, receiver, state.answer_form(outgoing.is_stream), method));
    let (written, answer) = {
        let mut write = pin!(write_request(core, sender, outgoing, &progress, &finished, &is_answered));
        until_written(write.as_mut(), read.as_mut(), &is_answered, *fd).await
    };
    let read = match (answer, outgoing.client.as_deref_mut()) {
        (Some(answer), _) => answer,
        // The body is over, and so the client is watched like one whose request was small.
        (None, Some(client)) if written.is_ok() => {
            Box::pin(link.while_client_stays(Some(&mut client.receiver), read)).await
        }
        (None, _) => read.await,
    };
    // It may be kept for later, while others are tried.
    deadline.clear();
    if let Err(WriteFault::Client(rejection)) = written {
        return Err(Failed { rejection, was_closed_unanswered: false });
    }
    match read {
        Ok((head, buffer, head_len)) => Ok((head, buffer, head_len, written.is_ok())),
        Err(ReadFault::Malformed(code)) => {
            let text = format!("provider {provider} sent something that is not an HTTP answer ({code})");
            Err(Failed { rejection: Rejection::new(Cause::ProviderMalformed, text), was_closed_unanswered: false })
        }
        Err(ReadFault::Closed { .. }) if deadline.has_passed() => {
            let text = format!("provider {provider} did not answer in time");
            Err(Failed { rejection: Rejection::new(Cause::HeadTimeoutUpstream, text), was_closed_unanswered: false })
        }
        Err(ReadFault::Closed { is_silent }) => {
            let text = format!("provider {provider} closed the connection before it answered");
            Err(Failed { rejection: Rejection::new(Cause::ProviderReset, text), was_closed_unanswered: is_silent })
        }
    }
}

enum WriteFault {
    Upstream,
    Client(Rejection),
}

async fn write_request(
    core: &Core,
    sender: &mut Sender,
    outgoing: &mut Outgoing<'_>,
    progress: &impl Fn(),
    finished: &impl Fn(),
    is_answered: &Cell<bool>,
) -> Result<(), WriteFault> {
    let bytes = std::mem::take(outgoing.bytes);
    let len = bytes.len();
    let (outcome, bytes) = sender.write_owned(bytes, 0..len).await;
    *outgoing.bytes = bytes;
    outcome.map_err(|_| WriteFault::Upstream)?;
    match outgoing.follows {
        Follows::Nothing => return Ok(()),
        Follows::Buffered => {
            let head_len = outgoing.request.head_len;
            let taken = std::mem::replace(&mut outgoing.request.buffer, Buffer::empty());
            let (bytes, shape) = taken.into_parts();
            let (outcome, bytes) = sender.write_owned(bytes, shape.start + head_len..shape.end).await;
            outgoing.request.buffer = Buffer::from_parts(bytes, shape, 0);
            outcome.map_err(|_| WriteFault::Upstream)?;
        }
        Follows::Streamed { is_chunked } => {
            Box::pin(stream_body(core, sender, outgoing, is_chunked, progress, is_answered)).await?;
        }
    }
    finished();
    Ok(())
}

async fn stream_body(
    core: &Core,
    sender: &mut Sender,
    outgoing: &mut Outgoing<'_>,
    is_chunked: bool,
    progress: &impl Fn(),
    is_answered: &Cell<bool>,
) -> Result<(), WriteFault> {
    let Some(client) = outgoing.client.as_deref_mut() else { return Err(WriteFault::Upstream) };
    let mut late = outgoing.is_scanned.then(LateScan::new);
    if let Some(late) = &mut late {
        late.push(outgoing.request.body_bytes()).map_err(contradicts)?;
    }
    let mut buffer = core.buffers.take();
    let outcome = loop {
        progress();
        let reading = outgoing.request.read_rest(core, client, &mut buffer, outgoing.body_bytes_max);
        let Some(read) = unless(is_answered, reading).await else {
            client.deadline.clear();
            break Err(WriteFault::Upstream);
        };
        let piece = match read {
            Err(rejection) => break Err(WriteFault::Client(rejection)),
            Ok(piece) => piece,
        };
        // Before the piece goes out: one that ends the body cannot be called back.
        if let Some(late) = &mut late {
            let pushed = late.push(if piece.is_some() { buffer.payload() } else { &[] });
            let scanned = if outgoing.request.is_unread() { pushed } else { pushed.and_then(|()| late.finish()) };
            if let Err(error) = scanned {
                break Err(contradicts(error));
            }
        }
        if piece.is_none() {
            break Ok(());
        }
        progress();
        if is_chunked && !frame_chunk(&mut buffer) {
            break Err(WriteFault::Upstream);
        }
        if sender.write_all(&mut buffer).await.is_err() {
            break Err(WriteFault::Upstream);
        }
    };
    if outcome.is_ok() && is_chunked {
        buffer.clear();
        if !buffer.append(LAST_CHUNK) || sender.write_all(&mut buffer).await.is_err() {
            core.buffers.give(buffer);
            return Err(WriteFault::Upstream);
        }
    }
    core.buffers.give(buffer);
    outcome
}

fn contradicts(error: ScanError) -> WriteFault {
    let rejection = Rejection::new(Cause::MalformedBody, format!("the body cannot be read: {error}"));
    WriteFault::Client(match error.fault.field() {
        Some(field) => rejection.about(field.name()),
        None => rejection,
    })
}

/// Makes the payload of `buffer` one chunk.
#[must_use]
pub(crate) fn frame_chunk(buffer: &mut Buffer) -> bool {
    let mut prefix = [0; CHUNK_PREFIX_BYTES];
    let from = chunk_prefix(&mut prefix, u32::try_from(buffer.len()).unwrap_or(u32::MAX));
    buffer.prepend(&prefix[from..]) && buffer.finish(CHUNK_END)
}

enum ReadFault {
    Malformed(&'static str),
    Closed { is_silent: bool },
}

async fn read_head(
    core: &Core,
    receiver: &mut Receiver,
    form: &RefCell<AnswerForm>,
    asked: Method,
) -> Result<(Box<ResponseHead>, Buffer, usize), ReadFault> {
    // Models think for seconds: a request that waits for its answer holds no buffer for it, unless
    // the connection is one of the few busy ones.
    receiver.until_noticed().await;
    let mut head = core.take_response_head();
    let mut buffer = if receiver.waits_in_buffer() { Buffer::empty() } else { core.buffers.take() };
    let mut interim = 0;
    head.clear();
    let fault = loop {
        if !buffer.is_empty() {
            let parsed = form.borrow_mut().parse_response(buffer.payload(), asked, &mut head);
            match parsed {
                Ok(Parsed::Complete { head_len }) if head.is_interim() => {
                    interim += 1;
                    if interim > INTERIM_ANSWERS_MAX {
                        break ReadFault::Malformed("too_many_interim_answers");
                    }
                    buffer.consume(head_len);
                    buffer.compact();
                    head.clear();
                    continue;
                }
                Ok(Parsed::Complete { head_len }) => return Ok((head, buffer, head_len)),
                Ok(Parsed::Partial) => {}
                Err(fault) => break ReadFault::Malformed(fault.code()),
            }
        }
        if buffer.room() == 0 && buffer.is_real() {
            if buffer.len() >= RESPONSE_HEAD_BYTES_MAX {
                break ReadFault::Malformed("head_too_large");
            }
            let mut larger = Buffer::for_payload(RESPONSE_HEAD_BYTES_MAX + BUFFER_BYTES);
            let fits = larger.append(buffer.payload());
            debug_assert!(fits);
            core.buffers.give(std::mem::replace(&mut buffer, larger));
        }
        match receiver.read(&mut buffer).await {
            Ok(0) | Err(_) => break ReadFault::Closed { is_silent: buffer.is_empty() && interim == 0 },
            Ok(_) => {}
        }
    };
    core.give_response_head(head);
    core.buffers.give(buffer);
    Err(fault)
}

/// Writes to the end, and reads meanwhile: the answer, if it came before the request was out. Then
/// the rest of the request is not sent: the provider has made up its mind. Nor is it waited for,
/// since the client may wait for the answer before it goes on.
async fn until_written<W, R>(
    mut write: Pin<&mut W>,
    mut read: Pin<&mut R>,
    is_answered: &Cell<bool>,
    fd: RawFd,
) -> (W::Output, Option<R::Output>)
where
    W: Future<Output = Result<(), WriteFault>>,
    R: Future,
{
    let mut answer = None;
    let written = poll_fn(|cx| {
        if let Poll::Ready(outcome) = write.as_mut().poll(cx) {
            // A client that left or lied will not make a request out of this any more.
            if matches!(outcome, Err(WriteFault::Client(_))) {
                crate::socket::abort(fd);
            }
            return Poll::Ready(outcome);
        }
        if answer.is_none()
            && let Poll::Ready(outcome) = read.as_mut().poll(cx)
        {
            answer = Some(outcome);
            is_answered.set(true);
            let _ = shutdown(fd, Shutdown::Write);
            return write.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await;
    (written, answer)
}

/// What `work` comes to; `None`, and `work` is left, when the answer comes first.
async fn unless<T>(is_answered: &Cell<bool>, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending if is_answered.get() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// When an attempt that failed at `now` may be repeated: exponential, with jitter of a fifth.
pub(crate) fn backoff(attempt: u32, initial_ms: u32, max_ms: u32, random: u64) -> Duration {
    let doubled = u64::from(initial_ms).saturating_mul(1u64 << attempt.min(20)).min(u64::from(max_ms));
    let jitter = 800 + random % 401;
    Duration::from_micros(doubled.saturating_mul(jitter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_wait_longer_each_time_up_to_the_maximum() {
        assert_eq!(backoff(0, 500, 5000, 200), Duration::from_millis(500));
        assert_eq!(backoff(2, 500, 5000, 200), Duration::from_millis(2000));
        assert_eq!(backoff(9, 500, 5000, 200), Duration::from_millis(5000));
        assert!(backoff(0, 500, 5000, 0) >= Duration::from_millis(400));
        assert!(backoff(0, 500, 5000, 400) <= Duration::from_millis(600));
    }

    #[test]
    fn a_chunk_is_framed_around_its_payload() {
        let mut buffer = crate::buffers::Buffers::default().take_small();
        assert!(buffer.append(b"data: x\n\n"));
        assert!(frame_chunk(&mut buffer));
        assert_eq!(buffer.payload(), b"9\r\ndata: x\n\n\r\n");
    }
}
