//! One client connection: request after request, until one of the two has enough.
//!
//! No timeouts: a silent client keeps its connection, of which there are no more than descriptors.

use std::{rc::Rc, time::Duration};

use monoio::net::TcpStream;

use super::{
    answer::{self, Answer, Whole},
    client::{self, fill, linger, write_all},
    core::{Core, Counted},
    fault::Fault,
    head::{self, Chunks, Framing, Head, HeadError},
    stream,
};

/// How long a slow answer waits between two writes.
const SLOW_INTERVAL: Duration = Duration::from_millis(10);
/// How long a split answer waits between two writes, so that they arrive apart.
const SPLIT_INTERVAL: Duration = Duration::from_millis(1);

/// Why reading a request ended without one.
enum NoRequest {
    /// The client closed, or its connection broke.
    Gone,
    /// It sent something else.
    Unreadable(HeadError),
}

impl From<HeadError> for NoRequest {
    fn from(error: HeadError) -> Self {
        NoRequest::Unreadable(error)
    }
}

/// Serves `tcp` to its end.
pub(crate) async fn serve(core: Rc<Core>, mut tcp: TcpStream) {
    let _open = Counted::new(&core.gauges().connections);
    // Costs 40 ms a request where it fails, but nothing breaks.
    let _ = tcp.set_nodelay(true);
    let mut input = Vec::new();
    loop {
        let answer = match next_answer(&core, &mut tcp, &mut input).await {
            Ok(answer) => answer,
            Err(NoRequest::Gone) => break,
            Err(NoRequest::Unreadable(error)) => {
                let mut refusal = answer::unreadable(&core, error.status(), &error.to_string());
                if write_all(&mut tcp, &mut refusal.bytes).await.is_ok() {
                    linger(&core, tcp).await;
                }
                return;
            }
        };
        match answer {
            Answer::Reset => {
                client::reset(client::descriptor(&tcp));
                break;
            }
            Answer::Whole(whole) => {
                if !send(&core, &mut tcp, &mut input, whole).await {
                    break;
                }
            }
            Answer::Stream(stream) => match stream::send(&core, tcp, &stream).await {
                Some((back, bytes)) => {
                    tcp = back;
                    input.extend_from_slice(&bytes);
                }
                None => return,
            },
        }
    }
    core.give_buffer(input);
}

/// Reads one request and decides on its answer. What follows the request stays in `input`.
async fn next_answer(core: &Core, tcp: &mut TcpStream, input: &mut Vec<u8>) -> Result<Answer, NoRequest> {
    let head = loop {
        if let Some(head) = head::read(input)? {
            break head;
        }
        more(core, tcp, input).await?;
    };
    let (answer, taken) = match head.framing {
        Framing::Length(length) => {
            let end = head.bytes.saturating_add(length);
            go_on(tcp, &head, input).await?;
            while input.len() < end {
                more(core, tcp, input).await?;
            }
            (answer::decide(core, &head, input, input.get(head.bytes..end).unwrap_or_default()), end)
        }
        Framing::Chunked => {
            go_on(tcp, &head, input).await?;
            let mut chunks = Chunks::default();
            let mut at = head.bytes;
            loop {
                let (taken, done) = chunks.read(input.get(at..).unwrap_or_default())?;
                at += taken;
                if done {
                    break;
                }
                if at == input.len() {
                    // All of it was copied: only the head is still needed.
                    input.truncate(head.bytes);
                    at = head.bytes;
                }
                more(core, tcp, input).await?;
            }
            (answer::decide(core, &head, input, &chunks.body), at)
        }
    };
    if taken >= input.len() {
        core.give_buffer(std::mem::take(input));
    } else {
        input.drain(..taken);
    }
    Ok(answer)
}

async fn more(core: &Core, tcp: &mut TcpStream, input: &mut Vec<u8>) -> Result<(), NoRequest> {
    match fill(core, tcp, input).await {
        Ok(1..) => Ok(()),
        Ok(_) | Err(_) => Err(NoRequest::Gone),
    }
}

/// Tells a client that waits to send its body. One that has begun to send does not wait.
async fn go_on(tcp: &mut TcpStream, head: &Head, input: &[u8]) -> Result<(), NoRequest> {
    if !head.expects_continue || input.len() > head.bytes || head.framing == Framing::Length(0) {
        return Ok(());
    }
    let mut interim = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
    write_all(tcp, &mut interim).await.map_err(|_| NoRequest::Gone)
}

/// Writes a complete answer; `false` if the connection cannot be used any more.
async fn send(core: &Core, tcp: &mut TcpStream, input: &mut Vec<u8>, whole: Whole) -> bool {
    let Whole { mut bytes, head_bytes, wait, fault, closes } = whole;
    let stays = client::stays(core, tcp, input, wait).await;
    let written = stays
        && match fault {
            None => write_all(tcp, &mut bytes).await.is_ok(),
            // Boxed: rare, and its state would make every connection larger.
            Some(fault) => Box::pin(send_wrongly(core, tcp, input, &mut bytes, head_bytes, fault)).await,
        };
    core.give_buffer(bytes);
    if !written {
        let cut_on_purpose = matches!(fault, Some(Fault::ResetMidBody(_) | Fault::CloseMidBody(_)));
        if !stays || !cut_on_purpose {
            core.ledger().cancelled += 1;
        }
        return false;
    }
    !closes
}

async fn send_wrongly(
    core: &Core,
    tcp: &mut TcpStream,
    input: &mut Vec<u8>,
    bytes: &mut Vec<u8>,
    head_bytes: usize,
    fault: Fault,
) -> bool {
    let half = |bytes: &[u8]| head_bytes + bytes.len().saturating_sub(head_bytes) / 2;
    match fault {
        Fault::ResetMidBody(after) | Fault::CloseMidBody(after) => {
            let cut = after.map_or(half(bytes), |after| head_bytes.saturating_add(after as usize));
            bytes.truncate(cut);
            if write_all(tcp, bytes).await.is_ok() && matches!(fault, Fault::ResetMidBody(_)) {
                client::reset(client::descriptor(tcp));
            }
            false
        }
        Fault::Stall(silence) => client::stays(core, tcp, input, silence).await && write_all(tcp, bytes).await.is_ok(),
        Fault::StallMidBody(silence) => {
            let mut rest = bytes.split_off(half(bytes));
            write_all(tcp, bytes).await.is_ok()
                && client::stays(core, tcp, input, silence).await
                && write_all(tcp, &mut rest).await.is_ok()
        }
        Fault::Slow(_) | Fault::Split(_) => {
            let mut left = bytes.as_slice();
            while !left.is_empty() {
                let (size, pause) = piece(core, fault);
                let (now, later) = left.split_at(size.min(left.len()));
                if write_all(tcp, &mut now.to_vec()).await.is_err() {
                    return false;
                }
                left = later;
                if !left.is_empty() && !client::stays(core, tcp, input, pause).await {
                    return false;
                }
            }
            true
        }
        _ => write_all(tcp, bytes).await.is_ok(),
    }
}

/// Size of the next piece of an answer that is written in pieces, and the pause after it.
pub(crate) fn piece(core: &Core, fault: Fault) -> (usize, Duration) {
    match fault {
        Fault::Slow(bytes) => (bytes as usize, SLOW_INTERVAL),
        Fault::Split(Some(bytes)) => (bytes as usize, SPLIT_INTERVAL),
        _ => (1 + (core.throw() % 63) as usize, SPLIT_INTERVAL),
    }
}
