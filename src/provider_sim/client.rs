//! The client's connection: whole writes, reading with pooled buffers, waiting while the client
//! may leave, and resets.

use std::{
    future::Future,
    io,
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    time::Duration,
};

use monoio::{
    buf::IoBufMut,
    io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, CancelHandle, CancelableAsyncReadRent},
    net::TcpStream,
};
use nix::{
    libc,
    sys::socket::{SockaddrIn, connect},
};

use super::core::Core;

/// Room that a read has at least.
const READ_BYTES_MIN: usize = 2 * 1024;
/// What a stream reads into while it only watches for the client's end.
const WATCH_BYTES: usize = 256;
/// How long the rest of a refused request is read, so that the client sees the refusal: closing
/// with unread bytes would reset the connection.
const LINGER: Duration = Duration::from_millis(500);
/// Reads of that rest.
const LINGER_READS_MAX: usize = 64;

/// Reads once, behind what `input` has. Returns 0 at the end of the connection.
pub(crate) async fn fill(core: &Core, tcp: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<usize> {
    let mut buffer = std::mem::take(input);
    if buffer.capacity() == 0 {
        // Nothing is held while the client is silent.
        tcp.readable(false).await?;
        buffer = core.take_buffer();
    }
    let length = buffer.len();
    if buffer.capacity() - length < READ_BYTES_MIN {
        buffer.reserve(READ_BYTES_MIN.max(length));
    }
    let capacity = buffer.capacity();
    let (result, slice) = tcp.read(buffer.slice_mut(length..capacity)).await;
    *input = slice.into_inner();
    result
}

/// Waits for `wait`; `false` if the client left meanwhile. What it sent meanwhile is in `input`.
pub(crate) async fn stays(core: &Core, tcp: &mut TcpStream, input: &mut Vec<u8>, wait: Duration) -> bool {
    if wait.is_zero() {
        return true;
    }
    let until = monoio::time::Instant::now() + wait;
    let is_readable = monoio::select! {
        _ = tcp.readable(false) => true,
        () = monoio::time::sleep_until(until) => false,
    };
    if is_readable {
        if !matches!(fill(core, tcp, input).await, Ok(1..)) {
            return false;
        }
        // A client that sends its next request early is not watched any longer.
        monoio::time::sleep_until(until).await;
    }
    true
}

/// Writes all of `buffer`, and gives it back empty.
pub(crate) async fn write_all(tcp: &mut impl AsyncWriteRent, buffer: &mut Vec<u8>) -> io::Result<()> {
    let (result, mut back) = tcp.write_all(std::mem::take(buffer)).await;
    back.clear();
    *buffer = back;
    result.map(drop)
}

/// Ends our side, and reads on for a moment so that the client can read our last answer.
pub(crate) async fn linger(core: &Core, mut tcp: TcpStream) {
    let mut input = core.take_buffer();
    if AsyncWriteRent::shutdown(&mut tcp).await.is_ok() {
        let until = monoio::time::Instant::now() + LINGER;
        for _ in 0..LINGER_READS_MAX {
            let is_readable = monoio::select! {
                readable = tcp.readable(false) => readable.is_ok(),
                () = monoio::time::sleep_until(until) => false,
            };
            input.clear();
            if !is_readable || !matches!(fill(core, &mut tcp, &mut input).await, Ok(1..)) {
                break;
            }
        }
    }
    core.give_buffer(input);
}

/// Resets the connection of `fd` (RST), throwing away what was not sent.
///
/// Connecting to no address dissolves a TCP connection, with a reset if it is established
/// (connect(2), `AF_UNSPEC`). `SO_LINGER` with zero would do the same, but cannot be set on a
/// descriptor that the runtime owns without unsafe code.
pub(crate) fn reset(fd: RawFd) {
    let nowhere = libc::sockaddr_in {
        sin_family: libc::AF_UNSPEC as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: 0 },
        sin_zero: [0; 8],
    };
    // It fails if the connection is gone already, and then there is nothing to reset.
    let _ = connect(fd, &SockaddrIn::from(nowhere));
}

/// The descriptor of a connection, for [`reset`]. Valid while the connection is.
pub(crate) fn descriptor(tcp: &TcpStream) -> RawFd {
    tcp.as_raw_fd()
}

/// What a client did while a stream was written to it.
#[derive(Debug)]
pub(crate) enum Sign {
    /// It left.
    Gone,
    /// It sent its next request, or the beginning of it.
    Bytes(Vec<u8>),
    /// Nothing, until the watch was ended.
    Nothing,
}

/// Waits for a sign from the client. End it through `cancel`, then await it: a read that is only
/// dropped may lose bytes.
pub(crate) async fn watch(read: &mut impl CancelableAsyncReadRent, cancel: CancelHandle) -> Sign {
    let (result, bytes) = read.cancelable_read(Vec::with_capacity(WATCH_BYTES), cancel).await;
    match result {
        Ok(1..) => Sign::Bytes(bytes),
        Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => Sign::Nothing,
        Ok(_) | Err(_) => Sign::Gone,
    }
}

/// A watch, and what it saw.
pub(crate) struct Watch<'a, F> {
    waiting: Option<Pin<&'a mut F>>,
    seen: Sign,
}

impl<'a, F: Future<Output = Sign>> Watch<'a, F> {
    /// A watch that has seen nothing yet.
    pub(crate) fn new(waiting: Pin<&'a mut F>) -> Self {
        Self { waiting: Some(waiting), seen: Sign::Nothing }
    }

    /// Waits for `wait`; `false` as soon as the client has left.
    pub(crate) async fn stays(&mut self, wait: Duration) -> bool {
        let Some(waiting) = self.waiting.as_mut() else {
            if matches!(self.seen, Sign::Gone) {
                return false;
            }
            monoio::time::sleep(wait).await;
            return true;
        };
        let until = monoio::time::Instant::now() + wait;
        let seen = monoio::select! {
            seen = waiting.as_mut() => Some(seen),
            () = monoio::time::sleep_until(until) => None,
        };
        if let Some(seen) = seen {
            self.waiting = None;
            self.seen = seen;
            if matches!(self.seen, Sign::Gone) {
                return false;
            }
            monoio::time::sleep_until(until).await;
        }
        true
    }

    /// What was seen, once the watch was cancelled.
    pub(crate) async fn end(self) -> Sign {
        match self.waiting {
            Some(waiting) => waiting.await,
            None => self.seen,
        }
    }
}
