//! One client connection: waits, reads a head, has the request served, and again, until one side
//! has had enough. Knows when to wait for how long; does not know what a request means.

use crate::buffers::Buffer;
use crate::core::Core;
use crate::exchange::{self, After};
use crate::hold::{Boxed, InPlace};
use crate::http1::{Framing, HeadFault, Parsed, Repeat, RequestHead, parse_request};
use crate::rejection::{Cause, Rejection};
use crate::request::Request;
use crate::respond;
use crate::same_head::SameHead;
use crate::socket::{Noticed, Socket};
use crate::tls::TlsSession;
use monoio::net::TcpStream;
use shared::bounds::{
    BUFFER_BYTES, BUSY_GAP, CLIENT_IDLE_TIMEOUT, HEAD_TIMEOUT, LINGER, LINGER_BYTES_MAX, REQUEST_HEAD_BYTES_MAX,
    TLS_HANDSHAKE_TIMEOUT,
};
use shared::clock::Nanos;
use std::rc::Rc;
use std::time::Duration;

/// Serves one connection to its end.
pub(crate) async fn serve(core: Rc<Core>, stream: TcpStream) {
    // Without it an answer's last piece could wait 40 ms for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut socket = Socket::new(stream, &core.deadlines);
    if start_tls(&core, &mut socket).await.is_err() {
        return;
    }
    core.now();
    let mut turn = Turn { waited_for: HEAD_TIMEOUT, carried: None, answered_at: None };
    loop {
        let after = if socket.receiver.waits_in_buffer() {
            Box::pin(serve_busy(&core, &mut socket, &mut turn)).await
        } else {
            match next_request(&core, &mut socket, &mut turn, None).await {
                // The request's state lives only as long as the request: an idle connection is small.
                Ok(ref mut request) => Box::pin(exchange::exchange::<Boxed>(&core, &mut socket, request)).await,
                Err(after) => after,
            }
        };
        match after {
            After::Next(rest) => turn.passes(&core, rest),
            After::Linger => {
                linger(&core, &mut socket).await;
                break;
            }
            After::Close => break,
        }
    }
    socket.deadline.set(core.now().after(LINGER));
    let _ = socket.sender.close().await;
}

/// What one request leaves to the next.
struct Turn {
    waited_for: Duration,
    /// Its first bytes, which came behind the request before.
    carried: Option<Buffer>,
    answered_at: Option<Nanos>,
}

impl Turn {
    fn passes(&mut self, core: &Core, carried: Option<Buffer>) {
        *self = Self { waited_for: CLIENT_IDLE_TIMEOUT, carried, answered_at: Some(core.recently()) };
    }
}

/// The head before, and what is known of requests with it.
#[derive(Default)]
struct Repeated {
    head: Repeat,
    known: Rc<SameHead>,
}

/// Serves requests for as long as the connection is one of the few busy ones, which wait with a whole
/// buffer. One future for all of them, with all their state in it: no request allocates.
async fn serve_busy(core: &Rc<Core>, socket: &mut Socket, turn: &mut Turn) -> After {
    let mut repeat = Repeated::default();
    loop {
        let after = match next_request(core, socket, turn, Some(&mut repeat)).await {
            Ok(ref mut request) => exchange::exchange::<InPlace>(core, socket, request).await,
            Err(after) => after,
        };
        match after {
            After::Next(rest) if socket.receiver.waits_in_buffer() => turn.passes(core, rest),
            after => return after,
        }
    }
}

/// Waits for the next request and reads its head; or what becomes of the connection without one.
async fn next_request(
    core: &Core,
    socket: &mut Socket,
    turn: &mut Turn,
    mut repeat: Option<&mut Repeated>,
) -> Result<Request, After> {
    let buffer = match turn.carried.take() {
        Some(buffer) => buffer,
        None => next_bytes(core, socket, turn.waited_for).await.ok_or(After::Close)?,
    };
    match read_head(core, socket, buffer, repeat.as_deref_mut()).await {
        Head::Complete(mut request) => {
            // For a client that never sends a head twice, nothing is noted.
            let repeat = repeat.filter(|repeat| repeat.head.has_repeated());
            request.same_head = repeat.map(|repeat| Rc::clone(&repeat.known));
            request.is_busy = turn.answered_at.is_some_and(|at| request.arrived.since(at) < BUSY_GAP);
            Ok(request)
        }
        Head::Refused(rejection) => {
            Box::pin(respond::refuse_head(core, socket, &rejection)).await;
            Err(After::Linger)
        }
        Head::Left => Err(After::Close),
    }
}

async fn start_tls(core: &Core, socket: &mut Socket) -> Result<(), ()> {
    let Some(serving) = core.serving() else { return Ok(()) };
    let Some(config) = serving.listener_tls.clone() else {
        // Asked for and not to be had: never plain text instead.
        return if serving.published.listener_identity.is_some() { Err(()) } else { Ok(()) };
    };
    drop(serving);
    let session = TlsSession::server(&config).map_err(|error| tracing::error!(%error, "cannot start TLS"))?;
    socket.deadline.set(core.now().after(TLS_HANDSHAKE_TIMEOUT));
    let mut buffer = core.buffers.take();
    // In a box, for connections without TLS would have room for a handshake too.
    let outcome = Box::pin(socket.start_tls(session, &mut buffer)).await;
    core.buffers.give(buffer);
    socket.deadline.clear();
    outcome.map_err(|error| tracing::debug!(%error, "a client's TLS handshake failed"))
}

/// Waits without a buffer until bytes come; `None` when the client left or waited too long.
async fn next_bytes(core: &Core, socket: &mut Socket, wait: Duration) -> Option<Buffer> {
    socket.deadline.set_idle(core.recently().after(wait));
    let noticed = socket.receiver.until_noticed().await;
    if noticed != Noticed::Bytes || socket.deadline.has_passed() {
        return None;
    }
    Some(if socket.receiver.waits_in_buffer() { Buffer::empty() } else { core.buffers.take() })
}

#[expect(
    clippy::large_enum_variant,
    reason = "it is looked at once, where it was made, and a box would be an allocation a request"
)]
enum Head {
    Complete(Request),
    Refused(Rejection),
    Left,
}

impl Head {
    fn refused(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

async fn read_head(core: &Core, socket: &mut Socket, mut buffer: Buffer, mut repeat: Option<&mut Repeated>) -> Head {
    let mut head = core.take_request_head();
    head.clear();
    let mut arrived = core.now();
    socket.deadline.set_reading(arrived.after(HEAD_TIMEOUT));
    let outcome = loop {
        if !buffer.is_empty() {
            match parse(buffer.payload(), &mut head, repeat.as_deref_mut()) {
                Ok(Parsed::Complete { head_len }) => {
                    socket.deadline.clear();
                    let is_all_here = match head.framing() {
                        Framing::None => true,
                        Framing::Length(length) => length <= (buffer.len() - head_len) as u64,
                        Framing::Chunked => false,
                    };
                    if !is_all_here {
                        core.buffers.widen(&mut buffer);
                    }
                    return Head::Complete(Request::new(head, buffer, head_len, arrived));
                }
                Ok(Parsed::Partial) if buffer.len() < REQUEST_HEAD_BYTES_MAX && buffer.room() > 0 => {}
                Ok(Parsed::Partial) => break Head::refused(HeadFault::HeadTooLarge.into()),
                Err(fault) => break Head::refused(fault.into()),
            }
        }
        match socket.receiver.read(&mut buffer).await {
            Ok(0) | Err(_) if socket.deadline.has_passed() => {
                break Head::refused(Rejection::new(Cause::HeadTimeout, "the request's head did not come in time"));
            }
            Ok(0) | Err(_) => break Head::Left,
            Ok(_) => arrived = core.now(),
        }
        if buffer.room() == 0 {
            core.buffers.widen(&mut buffer);
        }
    };
    core.give_request_head(head);
    core.buffers.give(buffer);
    outcome
}

/// Parses a head, or takes it for the one before. What is known of that one goes when another begins.
fn parse(bytes: &[u8], head: &mut RequestHead, repeat: Option<&mut Repeated>) -> Result<Parsed, HeadFault> {
    let Some(repeat) = repeat else { return parse_request(bytes, head) };
    if !head.is_partial() {
        if let Some(head_len) = repeat.head.read(bytes, head) {
            return Ok(Parsed::Complete { head_len });
        }
        repeat.known.forget();
    }
    let parsed = parse_request(bytes, head);
    if let Ok(Parsed::Complete { head_len }) = parsed {
        repeat.head.remember(head, bytes.get(..head_len).unwrap_or_default());
    }
    parsed
}

/// Reads on for a moment before closing: a close with unread bytes would reset the connection
/// and the client would lose the answer that says what was wrong (RFC 9112, 9.6).
async fn linger(core: &Core, socket: &mut Socket) {
    socket.deadline.set(core.now().after(LINGER));
    if socket.sender.close().await.is_err() {
        return;
    }
    let mut buffer = core.buffers.take();
    for _ in 0..LINGER_BYTES_MAX / BUFFER_BYTES {
        buffer.clear();
        match socket.receiver.read(&mut buffer).await {
            Ok(count) if count > 0 => {}
            _ => break,
        }
    }
    core.buffers.give(buffer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_comes_in_parts_is_the_one_before_too() {
        let (one, other) = (b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n", b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n");
        let mut repeated = Repeated::default();
        let mut is_repeat = |parts: &[&[u8]], whole: &[u8]| {
            let is_repeat = repeated.head.read(whole, &mut RequestHead::new()).is_some();
            let mut head = RequestHead::new();
            for part in parts {
                assert_eq!(parse(part, &mut head, Some(&mut repeated)), Ok(Parsed::Partial));
            }
            let parsed = parse(whole, &mut head, Some(&mut repeated));
            assert_eq!(parsed, Ok(Parsed::Complete { head_len: whole.len() }));
            is_repeat
        };
        assert!(!is_repeat(&[], one));
        assert!(is_repeat(&[], one));
        assert!(!is_repeat(&[&other[..9], &other[..20]], other), "another, in parts");
        assert!(!is_repeat(&[], one), "what was noted for the other one is not this one's");
        assert!(is_repeat(&[], one));
    }
}
