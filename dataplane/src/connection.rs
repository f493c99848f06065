//! One client connection: waits, reads a head, has the request served, and again, until one side
//! has had enough. Knows when to wait for how long; does not know what a request means.

use crate::buffers::Buffer;
use crate::core::Core;
use crate::exchange::{self, After};
use crate::http1::{Framing, Parsed, parse_request};
use crate::rejection::{Cause, Rejection};
use crate::request::Request;
use crate::respond;
use crate::socket::{Noticed, Socket};
use crate::tls::TlsSession;
use monoio::net::TcpStream;
use shared::bounds::{
    BUFFER_BYTES, BUSY_GAP, CLIENT_IDLE_TIMEOUT, HEAD_TIMEOUT, LINGER, LINGER_BYTES_MAX, REQUEST_HEAD_BYTES_MAX,
    TLS_HANDSHAKE_TIMEOUT,
};
use std::rc::Rc;

/// Serves one connection to its end.
pub(crate) async fn serve(core: Rc<Core>, stream: TcpStream) {
    // Without it an answer's last piece could wait 40 ms for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let mut socket = Socket::new(stream, &core.deadlines);
    if start_tls(&core, &mut socket).await.is_err() {
        return;
    }
    core.now();
    let mut waited_for = HEAD_TIMEOUT;
    let mut carried = None;
    let mut answered_at = None;
    loop {
        let buffer = match carried.take() {
            Some(buffer) => buffer,
            None => match next_bytes(&core, &mut socket, waited_for).await {
                Some(buffer) => buffer,
                None => break,
            },
        };
        let mut request = match read_head(&core, &mut socket, buffer).await {
            Head::Complete(request) => request,
            Head::Refused(rejection) => {
                respond::refuse_head(&core, &mut socket, &rejection).await;
                linger(&core, &mut socket).await;
                break;
            }
            Head::Left => break,
        };
        request.is_busy = answered_at.is_some_and(|at| request.arrived.since(at) < BUSY_GAP);
        // The request's state lives only as long as the request: an idle connection is small.
        match Box::pin(exchange::exchange(&core, &mut socket, request)).await {
            After::Next(rest) => carried = rest,
            After::Linger => {
                linger(&core, &mut socket).await;
                break;
            }
            After::Close => break,
        }
        waited_for = CLIENT_IDLE_TIMEOUT;
        answered_at = Some(core.recently());
    }
    socket.deadline.set(core.now().after(LINGER));
    let _ = socket.sender.close().await;
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
async fn next_bytes(core: &Core, socket: &mut Socket, wait: std::time::Duration) -> Option<Buffer> {
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

async fn read_head(core: &Core, socket: &mut Socket, mut buffer: Buffer) -> Head {
    let mut head = core.take_request_head();
    head.clear();
    let mut arrived = core.now();
    socket.deadline.set_reading(arrived.after(HEAD_TIMEOUT));
    let outcome = loop {
        if !buffer.is_empty() {
            match parse_request(buffer.payload(), &mut head) {
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
                Ok(Parsed::Partial) => break Head::refused(crate::http1::HeadFault::HeadTooLarge.into()),
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
