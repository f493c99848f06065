//! Frames over TCP, for those that are too long for a datagram and for peers that no datagram
//! reaches. A connection carries frames one way, each behind its length; the way back is a
//! connection of the other node's.
//!
//! Whoever connects holds next to nothing until a frame of its own has verified, and has little
//! time for it.

use super::frame::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, Refusal};
use super::network::{Listener, Stream};
use super::peers::Via;
use super::port::{Shared, State, lock};
use super::queue::Queue;
use shared::clock::Nanos;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// A new connection shows a valid frame by then, or is closed.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(5);
/// A frame that has begun ends by then.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// The side that writes closes first, so that no frame meets a closing connection.
const WRITE_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const READ_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const _: () = assert!(WRITE_IDLE_TIMEOUT.as_secs() + FRAME_TIMEOUT.as_secs() < READ_IDLE_TIMEOUT.as_secs());
/// Connections from others: all, those of one host, and those of which no frame has verified. Hosts
/// that this node talks to itself find room beyond those of strangers, who may have many addresses.
const INBOUND_MAX: usize = 1_280;
const INBOUND_OF_HOST_MAX: usize = 64;
const INBOUND_UNKNOWN_MAX: usize = 128;
const INBOUND_UNKNOWN_OF_HOST_MAX: usize = 16;
/// A connection that began with a bad frame keeps its place for so long: what strangers may cost is
/// the time of a few hundred frames a second.
const BAD_START_PAUSE: Duration = Duration::from_millis(250);
/// Connections without a place in a row, after which the port rests for a moment.
const REFUSED_A_TURN: u32 = 64;
const REST: Duration = Duration::from_millis(1);
/// Frames in a row that an authenticated connection may have refused: as many as may have been on
/// their way when the keys changed.
const REFUSED_IN_A_ROW_MAX: u32 = 64;
/// Peers with a connection of ours, or one that failed lately.
const LINES_MAX: usize = 1_088;
/// Frames that wait for one peer.
const LINE_FRAMES_MAX: usize = 64;
const LINE_BYTES_MAX: usize = 512 * 1024;
/// Between two attempts to connect; doubled with each that fails.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A connection that the other side closes sooner was as good as refused.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// After a failure to accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections to others, by address.
#[derive(Default)]
pub(super) struct Lines {
    lines: BTreeMap<SocketAddr, Line>,
}

struct Line {
    queue: Arc<Queue<Vec<u8>>>,
    /// A task serves it.
    is_served: bool,
    failures: u32,
    retry_at: Nanos,
}

impl Lines {
    /// Nothing waits to be written.
    pub(super) fn are_idle(&self) -> bool {
        self.queued() == 0
    }

    /// Frames that wait, of all peers.
    pub(super) fn queued(&self) -> usize {
        self.lines.values().map(|line| line.queue.len()).sum()
    }

    /// The line to a peer, unless it rests or there are too many.
    fn ready(&mut self, to: SocketAddr, now: Nanos) -> Option<&mut Line> {
        if self.lines.len() >= LINES_MAX && !self.lines.contains_key(&to) {
            let spare = self.lines.iter().find(|(_, line)| !line.is_served && line.retry_at <= now);
            let spare = spare.map(|(address, _)| *address)?;
            self.lines.remove(&spare);
        }
        let line = self.lines.entry(to).or_insert_with(|| Line {
            queue: Arc::new(Queue::new(LINE_FRAMES_MAX, LINE_BYTES_MAX)),
            is_served: false,
            failures: 0,
            retry_at: Nanos::default(),
        });
        (line.is_served || line.retry_at <= now).then_some(line)
    }

    /// The task of a line ends; `false`: it must not, since something has come in between.
    fn end(&mut self, to: SocketAddr) -> bool {
        let is_idle = self.lines.get(&to).is_none_or(|line| line.queue.is_empty());
        if is_idle {
            self.lines.remove(&to);
        }
        is_idle
    }

    /// The peer cannot be connected to; answers how many frames are lost with that.
    fn fail(&mut self, to: SocketAddr, now: Nanos) -> u64 {
        let Some(line) = self.lines.get_mut(&to) else { return 0 };
        let pause = RETRY_MIN * 2_u32.pow(line.failures.min(8));
        line.failures += 1;
        line.retry_at = now.after(pause.min(RETRY_MAX));
        line.is_served = false;
        line.queue.clear()
    }

    fn succeed(&mut self, to: SocketAddr) {
        if let Some(line) = self.lines.get_mut(&to) {
            line.failures = 0;
        }
    }
}

/// Puts a frame into the queue of a peer, and sees to it that somebody serves that queue.
pub(super) fn enqueue(shared: &Arc<Shared>, state: &mut State, to: SocketAddr, frame: Vec<u8>) {
    let Some(line) = state.lines.ready(to, shared.clock.now()) else {
        state.counts.frames_dropped += 1;
        return;
    };
    let bytes = frame.len();
    state.counts.frames_dropped += line.queue.push(frame, bytes);
    if !std::mem::replace(&mut line.is_served, true) {
        shared.spawn(serve_line(shared.clone(), to, line.queue.clone()));
    }
}

async fn serve_line(shared: Arc<Shared>, to: SocketAddr, queue: Arc<Queue<Vec<u8>>>) {
    loop {
        let connected = timeout(shared.dial_timeout, shared.network.connect(shared.bind_ip, to)).await;
        let connected_at = shared.clock.now();
        let ended = match connected {
            Ok(Ok(stream)) => write_frames(&shared, to, stream, &queue).await,
            Ok(Err(_)) | Err(_) => Ended::Failed,
        };
        let now = shared.clock.now();
        let mut state = shared.lock();
        let is_short = now.since(connected_at) < SHORT_LIFE;
        match ended {
            Ended::Idle if state.lines.end(to) => return,
            Ended::Closed if !is_short && state.lines.end(to) => return,
            // Something waits, and there is no reason to think that it could not be sent.
            Ended::Idle => {}
            Ended::Closed if !is_short => {}
            Ended::Closed | Ended::Failed => {
                let lost = state.lines.fail(to, now);
                state.counts.frames_dropped += lost;
                return;
            }
        }
    }
}

/// How a connection to a peer ended.
enum Ended {
    /// Nothing was to be sent for long.
    Idle,
    /// By the peer.
    Closed,
    /// It could not be made, or not be written to.
    Failed,
}

async fn write_frames(shared: &Shared, to: SocketAddr, stream: Box<dyn Stream>, queue: &Queue<Vec<u8>>) -> Ended {
    let (mut reads, mut writes) = tokio::io::split(stream);
    loop {
        let mut unasked = [0; 1];
        let frame = tokio::select! {
            frame = timeout(WRITE_IDLE_TIMEOUT, queue.pop()) => frame,
            // Nothing is ever said on the way back.
            _ = reads.read(&mut unasked) => return Ended::Closed,
        };
        let Ok(frame) = frame else { return Ended::Idle };
        let length = (frame.len() as u32).to_be_bytes();
        let framed = [length.as_slice(), &frame].concat();
        if !matches!(timeout(FRAME_TIMEOUT, writes.write_all(&framed)).await, Ok(Ok(()))) {
            return Ended::Failed;
        }
        let mut state = shared.lock();
        state.lines.succeed(to);
        state.counts.frames_sent_tcp += 1;
        state.counts.bytes_sent += frame.len() as u64;
    }
}

/// Connections of others, by host.
#[derive(Default)]
pub(super) struct Inbound {
    by_host: BTreeMap<IpAddr, Hosted>,
    all: Hosted,
}

#[derive(Clone, Copy, Default)]
struct Hosted {
    connections: usize,
    /// Of which no frame has verified yet.
    unknown: usize,
}

impl Inbound {
    fn has_room(&self, host: IpAddr, is_stranger: bool) -> bool {
        let of_host = self.by_host.get(&host).copied().unwrap_or_default();
        self.all.connections < INBOUND_MAX
            && (self.all.unknown < INBOUND_UNKNOWN_MAX || !is_stranger)
            && of_host.connections < INBOUND_OF_HOST_MAX
            && of_host.unknown < INBOUND_UNKNOWN_OF_HOST_MAX
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.all.connections == 0
    }
}

/// A place among the connections of others, given back when it is dropped.
struct Place {
    shared: Arc<Shared>,
    host: IpAddr,
    is_unknown: bool,
}

impl Place {
    fn take(shared: &Arc<Shared>, host: IpAddr) -> Option<Self> {
        let is_stranger = !shared.lock().peers.talks_to(host);
        let mut inbound = lock(&shared.inbound);
        if !inbound.has_room(host, is_stranger) {
            return None;
        }
        let of_host = inbound.by_host.entry(host).or_default();
        (of_host.connections, of_host.unknown) = (of_host.connections + 1, of_host.unknown + 1);
        let all = &mut inbound.all;
        (all.connections, all.unknown) = (all.connections + 1, all.unknown + 1);
        Some(Self { shared: shared.clone(), host, is_unknown: true })
    }

    /// A frame has verified.
    fn is_known_now(&mut self) {
        if std::mem::take(&mut self.is_unknown) {
            let mut inbound = lock(&self.shared.inbound);
            inbound.all.unknown -= 1;
            if let Some(of_host) = inbound.by_host.get_mut(&self.host) {
                of_host.unknown -= 1;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.is_known_now();
        let mut inbound = lock(&self.shared.inbound);
        inbound.all.connections -= 1;
        if let Some(of_host) = inbound.by_host.get_mut(&self.host) {
            of_host.connections -= 1;
            if of_host.connections == 0 {
                inbound.by_host.remove(&self.host);
            }
        }
    }
}

/// Accepts connections until the port is closed.
pub(super) async fn accept(shared: Arc<Shared>, listener: Box<dyn Listener>) {
    let mut refused_in_a_row = 0;
    loop {
        if refused_in_a_row >= REFUSED_A_TURN {
            refused_in_a_row = 0;
            tokio::time::sleep(REST).await;
        }
        let Ok((stream, source)) = listener.accept().await else {
            shared.lock().counts.socket_errors += 1;
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if let Some(place) = Place::take(&shared, source.ip()) {
            refused_in_a_row = 0;
            shared.spawn(read_frames(shared.clone(), stream, source, place));
        } else {
            refused_in_a_row += 1;
            shared.lock().counts.connections_refused += 1;
        }
    }
}

async fn read_frames(shared: Arc<Shared>, mut stream: Box<dyn Stream>, source: SocketAddr, mut place: Place) {
    let mut refused_in_a_row = 0;
    while refused_in_a_row < REFUSED_IN_A_ROW_MAX {
        let read = if place.is_unknown {
            timeout(FIRST_FRAME_TIMEOUT, read_frame(&mut stream)).await.unwrap_or(Ok(None))
        } else {
            read_frame(&mut stream).await
        };
        let taken = match read {
            Ok(Some(Ok(mut frame))) => shared.take(&mut frame, source, Via::Tcp),
            Ok(Some(Err(refusal))) => {
                shared.refuse(source, refusal);
                if place.is_unknown {
                    drop(stream);
                    tokio::time::sleep(BAD_START_PAUSE).await;
                }
                return;
            }
            Ok(None) | Err(_) => return,
        };
        match taken {
            Ok(()) => {
                refused_in_a_row = 0;
                place.is_known_now();
            }
            Err(refusal) if place.is_unknown && !refusal.is_authentic() => {
                // Closed at once, and its place given back later.
                drop(stream);
                tokio::time::sleep(BAD_START_PAUSE).await;
                return;
            }
            Err(_) => refused_in_a_row += 1,
        }
    }
}

/// The next frame; `None` where there is none in time, or the connection ended.
async fn read_frame(stream: &mut Box<dyn Stream>) -> io::Result<Option<Result<Vec<u8>, Refusal>>> {
    let Ok(length) = timeout(READ_IDLE_TIMEOUT, stream.read_u32()).await else { return Ok(None) };
    let length = length?;
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX) else {
        return Ok(Some(Err(Refusal::TooLong)));
    };
    if length < FRAME_BYTES_MIN {
        return Ok(Some(Err(Refusal::NotAFrame)));
    }
    // Grows with what arrives: who only announces a frame holds nothing.
    let mut frame = Vec::new();
    let read = timeout(FRAME_TIMEOUT, stream.take(length as u64).read_to_end(&mut frame)).await;
    let is_whole = matches!(read, Ok(Ok(read)) if read == length);
    Ok(is_whole.then_some(Ok(frame)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_take_no_room_from_hosts_that_this_node_talks_to() {
        let mut inbound = Inbound::default();
        let peer = IpAddr::from([10, 0, 0, 1]);
        assert!(inbound.has_room(peer, true));
        inbound.all = Hosted { connections: INBOUND_UNKNOWN_MAX, unknown: INBOUND_UNKNOWN_MAX };
        assert!(!inbound.has_room(peer, true));
        assert!(inbound.has_room(peer, false));
        inbound.by_host.insert(peer, Hosted { connections: 16, unknown: INBOUND_UNKNOWN_OF_HOST_MAX });
        assert!(!inbound.has_room(peer, false), "what one host may have holds for all");
        inbound.by_host.clear();
        inbound.all.connections = INBOUND_MAX;
        assert!(!inbound.has_room(peer, false));
    }
}
