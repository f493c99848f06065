//! The raw byte relay once more, on epoll and without a runtime: what moving the bytes costs
//! those who do not have `io_uring`. One read and one write for each event, `TCP_NODELAY` on both
//! sides, no byte looked at.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Most relayed connections at a time; two descriptors each.
const CONNECTIONS_MAX: usize = 9_900;
/// Bytes that one read may take.
const READ_BYTES: usize = 8 * 1024;
/// Events of one wait.
const EVENTS_MAX: usize = 256;
/// Longest wait, in milliseconds.
const WAIT_MILLIS: u16 = 100;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4_096;
/// Stands for the listener among the numbers of ends.
const LISTENER: u64 = u64::MAX;

/// Relays from `listen` to `to` until `is_over`, which is asked ten times a second at least.
pub(crate) fn serve(listen: SocketAddr, to: SocketAddr, is_over: impl Fn() -> bool) -> io::Result<()> {
    let listener = bind(listen)?;
    let mut relay = Relay {
        epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
        pairs: Vec::new(),
        free: Vec::new(),
        buffer: vec![0; READ_BYTES],
    };
    relay.epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut events = [EpollEvent::empty(); EVENTS_MAX];
    while !is_over() {
        let count = match relay.epoll.wait(&mut events, EpollTimeout::from(WAIT_MILLIS)) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().take(count) {
            if event.data() == LISTENER {
                relay.accept_all(&listener, to);
            } else {
                relay.serve_end(event.data(), event.events());
            }
        }
    }
    Ok(())
}

fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(listen), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

struct Relay {
    epoll: Epoll,
    pairs: Vec<Option<[End; 2]>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

/// One socket of a pair. Its number is twice the pair's, and one more for the provider's.
struct End {
    stream: TcpStream,
    /// What the other end sent and this one could not take yet. The other is not read meanwhile.
    unsent: Vec<u8>,
    /// Nothing more comes from here.
    is_over: bool,
}

impl Relay {
    fn accept_all(&mut self, listener: &TcpListener, to: SocketAddr) {
        while let Ok((client, _)) = listener.accept() {
            // A provider that cannot be reached shows as a closed connection.
            if self.pairs.len() - self.free.len() < CONNECTIONS_MAX {
                let _ = self.join(client, to);
            }
        }
    }

    fn join(&mut self, client: TcpStream, to: SocketAddr) -> io::Result<()> {
        // On loopback a connection stands, or is refused, without waiting.
        let provider = TcpStream::connect(to)?;
        let pair = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        let mut ends = [client, provider].map(|stream| End { stream, unsent: Vec::new(), is_over: false });
        for (end, number) in ends.iter_mut().zip(2 * pair as u64..) {
            end.stream.set_nodelay(true)?;
            end.stream.set_nonblocking(true)?;
            self.epoll.add(&end.stream, EpollEvent::new(EpollFlags::EPOLLIN, number))?;
        }
        self.pairs[pair] = Some(ends);
        Ok(())
    }

    fn serve_end(&mut self, number: u64, flags: EpollFlags) {
        let (pair, side) = (number as usize / 2, number as usize % 2);
        // Closed by an event just before this one.
        let Some(Some(ends)) = self.pairs.get_mut(pair) else { return };
        let [first, second] = ends;
        let (this, other) = if side == 0 { (first, second) } else { (second, first) };
        let numbers = (number, number ^ 1);
        let served = if flags.contains(EpollFlags::EPOLLOUT) {
            flush(&self.epoll, this, other, numbers)
        } else {
            relay(&self.epoll, &mut self.buffer, this, other, numbers)
        };
        if served.is_err() || (this.is_over && other.is_over && this.unsent.is_empty() && other.unsent.is_empty()) {
            // Closing the descriptors takes them out of the epoll instance.
            self.pairs[pair] = None;
            self.free.push(pair);
        }
    }
}

/// Reads once from `this` and writes that to `other`.
fn relay(epoll: &Epoll, buffer: &mut [u8], this: &mut End, other: &mut End, numbers: (u64, u64)) -> io::Result<()> {
    let length = match this.stream.read(buffer) {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    if length == 0 {
        this.is_over = true;
        watch(epoll, this, numbers.0, EpollFlags::empty())?;
        // Nothing is unsent there, or this end would not have been read.
        return other.stream.shutdown(Shutdown::Write);
    }
    let bytes = buffer.get(..length).unwrap_or_default();
    let sent = match other.stream.write(bytes) {
        Ok(sent) => sent,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    if sent < length {
        other.unsent.extend_from_slice(bytes.get(sent..).unwrap_or_default());
        watch(epoll, this, numbers.0, EpollFlags::empty())?;
        watch(epoll, other, numbers.1, EpollFlags::EPOLLOUT)?;
    }
    Ok(())
}

/// Writes what `this` could not take before; afterwards both are read again.
fn flush(epoll: &Epoll, this: &mut End, other: &mut End, numbers: (u64, u64)) -> io::Result<()> {
    match this.stream.write(&this.unsent) {
        Ok(sent) => drop(this.unsent.drain(..sent)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    if this.unsent.is_empty() {
        for (end, number) in [(&*this, numbers.0), (&*other, numbers.1)] {
            let flags = if end.is_over { EpollFlags::empty() } else { EpollFlags::EPOLLIN };
            let flags = if end.unsent.is_empty() { flags } else { EpollFlags::EPOLLOUT };
            watch(epoll, end, number, flags)?;
        }
    }
    Ok(())
}

fn watch(epoll: &Epoll, end: &End, number: u64, flags: EpollFlags) -> io::Result<()> {
    Ok(epoll.modify(&end.stream, &mut EpollEvent::new(flags, number))?)
}
