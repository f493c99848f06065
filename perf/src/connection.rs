//! One keep-alive connection: a request goes out in one write, one answer comes back.
//!
//! No pipelining: bytes after the answer are a fault of the peer and counted as such.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    rc::Rc,
    time::Duration,
};

use monoio::{
    io::{AsyncReadRent, AsyncWriteRentExt},
    net::TcpStream,
};

use crate::{
    answer::{AnswerError, AnswerReader},
    clock,
    tally::Failure,
    tls::{self, TlsStream},
    watchdog::Watchdog,
};

/// What came back. The body went to the caller piece by piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// Body bytes, without framing.
    pub(crate) body_bytes: u64,
    /// The connection may be used again.
    pub(crate) keeps_alive: bool,
}

/// With TLS or without.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

impl Stream {
    async fn read(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Plain(stream) => stream.read(buffer).await,
            Self::Tls(stream) => stream.read(buffer).await,
        }
    }

    async fn write_all(&mut self, bytes: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => stream.write_all(bytes).await,
        }
    }

    fn fd(&self) -> RawFd {
        match self {
            Self::Plain(stream) => stream.as_raw_fd(),
            Self::Tls(stream) => stream.tcp().as_raw_fd(),
        }
    }
}

async fn connected(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_addr(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An open connection of one lane.
pub(crate) struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    watchdog: Rc<Watchdog>,
    lane: usize,
    silence_max: Duration,
}

impl Connection {
    /// Connects, with `TCP_NODELAY`. A peer that sends nothing for `silence_max` is cut off.
    pub(crate) async fn open(
        address: SocketAddr,
        watchdog: &Rc<Watchdog>,
        lane: usize,
        read_bytes: usize,
        silence_max: Duration,
    ) -> io::Result<Self> {
        let stream = Stream::Plain(connected(address).await?);
        let (buffer, watchdog) = (Vec::with_capacity(read_bytes), Rc::clone(watchdog));
        Ok(Self { stream, buffer, watchdog, lane, silence_max })
    }

    /// The same with TLS.
    pub(crate) async fn open_tls(
        address: SocketAddr,
        tls: &tls::Client,
        watchdog: &Rc<Watchdog>,
        lane: usize,
        read_bytes: usize,
        silence_max: Duration,
    ) -> io::Result<Self> {
        let plain = connected(address).await?;
        watchdog.arm(lane, plain.as_raw_fd(), clock::now() + silence_max);
        let shaken = tls.connect(plain).await;
        watchdog.disarm(lane);
        let stream = Stream::Tls(Box::new(shaken?));
        let (buffer, watchdog) = (Vec::with_capacity(read_bytes), Rc::clone(watchdog));
        Ok(Self { stream, buffer, watchdog, lane, silence_max })
    }

    /// Sends `request` (which is given back) and reads the answer to its end.
    /// After a failure the connection must be dropped.
    pub(crate) async fn exchange(
        &mut self,
        request: Vec<u8>,
        mut body: impl FnMut(u16, &[u8]),
    ) -> (Result<Answer, Failure>, Vec<u8>) {
        self.arm();
        let (sent, request) = self.stream.write_all(request).await;
        // A peer may answer and close before it took the whole request: its answer, if
        // there is one, is worth more than the error of the write.
        let mut answer = self.read_answer(&mut body).await;
        if sent.is_err() && answer == Err(Failure::Truncated) {
            answer = Err(Failure::Reset);
        }
        if self.watchdog.disarm(self.lane) {
            answer = Err(Failure::Deadline);
        }
        (answer, request)
    }

    async fn read_answer(&mut self, body: &mut impl FnMut(u16, &[u8])) -> Result<Answer, Failure> {
        let mut reader = AnswerReader::new();
        while !reader.is_done() {
            let buffer = std::mem::take(&mut self.buffer);
            let (read, buffer) = self.stream.read(buffer).await;
            self.buffer = buffer;
            let length = read.map_err(|_| Failure::Reset)?;
            if length == 0 {
                reader.end().map_err(|_| Failure::Truncated)?;
                break;
            }
            let bytes = self.buffer.get(..length).unwrap_or_default();
            let taken = feed(&mut reader, bytes, body).map_err(|_| Failure::Malformed)?;
            if reader.is_done() && taken < length {
                return Err(Failure::Surplus);
            }
            self.arm();
        }
        Ok(Answer { status: reader.status(), body_bytes: reader.body_bytes(), keeps_alive: reader.keeps_alive() })
    }

    fn arm(&self) {
        self.watchdog.arm(self.lane, self.stream.fd(), clock::now() + self.silence_max);
    }
}

/// Hands on body bytes together with the status they belong to.
fn feed(reader: &mut AnswerReader, bytes: &[u8], body: &mut impl FnMut(u16, &[u8])) -> Result<usize, AnswerError> {
    let mut status = reader.status();
    let mut at = 0;
    if status == 0 {
        // The head and the first body bytes usually share a read: the status has to be
        // known before those bytes are handed on.
        let mut first: Vec<u8> = Vec::new();
        at = reader.feed(bytes, |part| first.extend_from_slice(part))?;
        status = reader.status();
        if !first.is_empty() {
            body(status, &first);
        }
    }
    let rest = bytes.get(at..).unwrap_or_default();
    Ok(at + reader.feed(rest, |part| body(status, part))?)
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The descriptor may be another connection's a moment later.
        self.watchdog.disarm(self.lane);
    }
}
