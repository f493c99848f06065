//! Writes a stream of server-sent events at its pace, and stops the moment the client leaves.
//!
//! Between two events a stream holds its frame and a small watch buffer, no output buffer.

use std::{future::Future, pin::pin, time::Duration};

use monoio::{
    io::{AsyncWriteRent, Canceller, Splitable},
    net::TcpStream,
};
use shared::clock::Nanos;

use super::{
    answer::{Stream, count_stream_end},
    client::{self, Sign, Watch, watch, write_all},
    connection::piece,
    core::{Core, Counted},
    dialect,
    fault::Fault,
};

/// Events that are due together leave in one write of about this size.
const BATCH_BYTES: usize = 14 * 1024;
/// Between every so many events stands a piece of garbage, if it was asked for.
const GARBAGE_EVERY: u32 = 3;
/// Not an event, not UTF-8, not JSON, and a field that does not exist.
const GARBAGE: &[u8] =
    b"\xff\xfe\x00 garbage\ndata\n\ndata: {\"choices\":[{\"delta\":\n\nevant: x\ndata: not json\n\n: comment\n\n";

/// How a stream ended.
enum End {
    /// With its last event.
    Finished,
    /// The client left.
    Cancelled,
    /// Cut on purpose.
    Reset,
    /// Cut on purpose.
    Closed,
}

/// Writes `stream`. Returns the connection, and what the client sent meanwhile, if the connection
/// can be used again.
pub(crate) async fn send(core: &Core, tcp: TcpStream, stream: &Stream) -> Option<(TcpStream, Vec<u8>)> {
    let _active = Counted::new(&core.gauges().streams);
    let fd = client::descriptor(&tcp);
    let (mut read, mut write) = tcp.into_split();
    let canceller = Canceller::new();
    let mut events = 0;
    let (end, sign) = {
        let waiting = pin!(watch(&mut read, canceller.handle()));
        let mut watch = Watch::new(waiting);
        let end = emit(core, &mut write, &mut watch, stream, &mut events).await;
        if matches!(end, End::Reset) {
            client::reset(fd);
        }
        // The read must be over before the connection goes on: see `watch`.
        canceller.cancel();
        (end, watch.end().await)
    };
    count_stream_end(
        &mut core.ledger(),
        u64::from(events),
        matches!(end, End::Finished),
        matches!(end, End::Cancelled),
    );
    if !matches!(end, End::Finished) || stream.closes {
        return None;
    }
    let tcp = read.reunite(write).ok()?;
    match sign {
        Sign::Gone => None,
        Sign::Bytes(bytes) => Some((tcp, bytes)),
        Sign::Nothing => Some((tcp, Vec::new())),
    }
}

async fn emit<F: Future<Output = Sign>>(
    core: &Core,
    write: &mut impl AsyncWriteRent,
    watch: &mut Watch<'_, F>,
    stream: &Stream,
    event: &mut u32,
) -> End {
    let events = stream.reply.text.events;
    let mut first_due = core.now().after(stream.first_after);
    if let Some(Fault::Stall(silence)) = stream.fault {
        first_due = first_due.after(silence);
    }
    let (cut_at, mut stall_at) = turning_points(stream.fault, events);
    let mut begun = false;
    loop {
        let due = due(first_due, stream.interval, *event);
        let now = core.now();
        if now < due && !watch.stays(due.since(now)).await {
            return End::Cancelled;
        }

        // Everything that is due by now, but never past a turning point.
        let mut out = core.take_buffer();
        if !begun {
            begun = true;
            out.extend_from_slice(&stream.head);
            push_chunk(stream, &mut out, |out| dialect::push_opening(stream.route, &stream.reply, out));
        }
        let stall = stall_at.map(|(at, _)| at);
        let stop_at = cut_at.into_iter().chain(stall).fold(events, u32::min);
        let now = core.now();
        while *event < stop_at && out.len() < BATCH_BYTES && self::due(first_due, stream.interval, *event) <= now {
            push_event(stream, *event, &mut out);
            *event += 1;
        }
        let is_cut = cut_at == Some(*event);
        let is_finished = *event == events && !is_cut && stall_at.is_none();
        if is_finished {
            push_chunk(stream, &mut out, |out| dialect::push_closing(stream.route, &stream.reply, &stream.frame, out));
            if stream.is_chunked {
                out.extend_from_slice(b"0\r\n\r\n");
            }
        }

        let is_written = match stream.fault {
            _ if out.is_empty() => true,
            // Boxed: rare, and its state would make every stream larger.
            Some(fault @ (Fault::Slow(_) | Fault::Split(_))) => {
                Box::pin(write_in_pieces(core, write, watch, &out, fault)).await
            }
            _ => write_all(write, &mut out).await.is_ok(),
        };
        core.give_buffer(out);
        if !is_written {
            return End::Cancelled;
        }
        if is_finished {
            return End::Finished;
        }
        if is_cut {
            return if matches!(stream.fault, Some(Fault::ResetMidBody(_))) { End::Reset } else { End::Closed };
        }
        if let Some((_, silence)) = stall_at.take_if(|(at, _)| at == event) {
            if !watch.stays(silence).await {
                return End::Cancelled;
            }
            first_due = first_due.after(silence);
        }
    }
}

/// When event `event` is due.
fn due(first_due: Nanos, interval: Duration, event: u32) -> Nanos {
    first_due.after(interval.saturating_mul(event))
}

/// After how many events a fault cuts the stream, and after how many it stalls for how long.
fn turning_points(fault: Option<Fault>, events: u32) -> (Option<u32>, Option<(u32, Duration)>) {
    let half = events / 2;
    match fault {
        Some(Fault::ResetMidBody(after) | Fault::CloseMidBody(after)) => {
            (Some(after.unwrap_or(half).min(events)), None)
        }
        Some(Fault::StallMidBody(silence)) => (None, Some((half, silence))),
        _ => (None, None),
    }
}

/// Appends content event `event`, with what should be wrong about it.
fn push_event(stream: &Stream, event: u32, out: &mut Vec<u8>) {
    push_chunk(stream, out, |out| {
        if stream.fault == Some(Fault::GarbageSse) && event.is_multiple_of(GARBAGE_EVERY) {
            out.extend_from_slice(GARBAGE);
        }
        let start = out.len();
        stream.frame.push_event(&stream.reply.text, event, out);
        if stream.fault == Some(Fault::MalformedJson) && event == stream.reply.text.events / 2 {
            out.truncate(start + (out.len() - start) / 2);
            out.extend_from_slice(b"\n\n");
        }
    });
}

/// Appends what `push` appends, as one chunk if the stream is chunked.
fn push_chunk(stream: &Stream, out: &mut Vec<u8>, push: impl FnOnce(&mut Vec<u8>)) {
    /// The size line of every chunk that is smaller than 4 GiB: the digits are filled in when the
    /// size is known, so that nothing moves. Leading zeros are allowed (RFC 9112, section 7.1).
    const SIZE_LINE: &[u8; 10] = b"00000000\r\n";
    if !stream.is_chunked {
        return push(out);
    }
    let start = out.len();
    out.extend_from_slice(SIZE_LINE);
    push(out);
    let size = out.len() - start - SIZE_LINE.len();
    if size == 0 {
        out.truncate(start);
        return;
    }
    let mut left = size;
    for digit in out[start..start + 8].iter_mut().rev() {
        *digit = b"0123456789abcdef"[left & 15];
        left >>= 4;
    }
    out.extend_from_slice(b"\r\n");
}

async fn write_in_pieces<F: Future<Output = Sign>>(
    core: &Core,
    write: &mut impl AsyncWriteRent,
    watch: &mut Watch<'_, F>,
    bytes: &[u8],
    fault: Fault,
) -> bool {
    let mut left = bytes;
    while !left.is_empty() {
        let (size, pause) = piece(core, fault);
        let (now, later) = left.split_at(size.min(left.len()));
        if write_all(write, &mut now.to_vec()).await.is_err() {
            return false;
        }
        left = later;
        if !left.is_empty() && !watch.stays(pause).await {
            return false;
        }
    }
    true
}
