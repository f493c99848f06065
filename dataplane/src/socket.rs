//! One TCP connection of a core, to a client or to a provider, with or without TLS.
//!
//! A connection that waits keeps a read of a few bytes open. It ends when bytes come (a request,
//! an answer) or when the peer leaves, so that a client that has gone and a pooled connection
//! that was closed are noticed without a system call and without cancelling anything. Reads and
//! writes own their buffers until they end, as `io_uring` needs. A few connections that are busy
//! wait with a whole buffer: there a message is one read, and is not copied together from two.

mod records;

use crate::buffers::{Buffer, BufferShape, BusyWait};
use crate::deadlines::{Deadline, Deadlines};
use crate::tls::TlsSession;
use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::TcpStream;
use nix::libc;
use nix::sys::socket::{Shutdown, SockaddrIn, connect, shutdown};
use records::Tls;
use shared::bounds::RESIDENT_READ_BYTES;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Where the reading half and the one who asks meet.
#[derive(Default)]
struct Desk {
    /// Bytes to fill and where to start; taken by the reading half.
    order: Option<(Box<[u8]>, usize, usize)>,
    /// A read is with the kernel.
    is_reading: bool,
    /// What the read brought.
    outcome: Option<Outcome>,
}

/// How a read ended: how many bytes from where, or why not.
struct Outcome {
    result: io::Result<usize>,
    bytes: Box<[u8]>,
    from: usize,
}

impl Outcome {
    fn fresh(&self) -> &[u8] {
        let count = *self.result.as_ref().unwrap_or(&0);
        self.bytes.get(self.from..self.from.saturating_add(count)).unwrap_or_default()
    }
}

/// The reading half: one future for the life of the connection, so that a read can be left
/// waiting between two requests without an allocation for each.
struct Reader {
    desk: Rc<RefCell<Desk>>,
    reading: Pin<Box<dyn Future<Output = ()>>>,
}

async fn read_for_ever(mut half: OwnedReadHalf<TcpStream>, desk: Rc<RefCell<Desk>>) {
    loop {
        let (bytes, from, to) = poll_fn(|_| match desk.borrow_mut().order.take() {
            Some(order) => Poll::Ready(order),
            // Whoever places an order polls this future next: no waker is needed.
            None => Poll::Pending,
        })
        .await;
        let (result, slice) = half.read(bytes.slice_mut(from..to)).await;
        let mut desk = desk.borrow_mut();
        desk.is_reading = false;
        desk.outcome = Some(Outcome { result, bytes: slice.into_inner(), from });
    }
}

impl Reader {
    fn new(half: OwnedReadHalf<TcpStream>) -> Self {
        let desk = Rc::new(RefCell::new(Desk::default()));
        let reading = Box::pin(read_for_ever(half, Rc::clone(&desk)));
        Self { desk, reading }
    }

    fn is_reading(&self) -> bool {
        let desk = self.desk.borrow();
        desk.is_reading || desk.outcome.is_some()
    }

    fn order(&mut self, bytes: Box<[u8]>, from: usize, to: usize) {
        let mut desk = self.desk.borrow_mut();
        debug_assert!(!desk.is_reading && desk.outcome.is_none());
        desk.order = Some((bytes, from, to));
        desk.is_reading = true;
    }

    /// Orders what fits behind the payload of `buffer`.
    fn order_room(&mut self, buffer: Buffer) -> BufferShape {
        let room = buffer.room();
        let (bytes, shape) = buffer.into_parts();
        self.order(bytes, shape.end, shape.end + room);
        shape
    }

    /// Ready when the read that was ordered has ended.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.desk.borrow().outcome.is_none() {
            let _ = self.reading.as_mut().poll(cx);
        }
        if self.desk.borrow().outcome.is_some() { Poll::Ready(()) } else { Poll::Pending }
    }

    async fn outcome(&mut self) -> Outcome {
        poll_fn(|cx| self.poll_ended(cx)).await;
        self.desk.borrow_mut().outcome.take().expect("poll_ended said that it is there")
    }
}

/// What a waiting connection noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noticed {
    /// Nothing yet.
    Nothing,
    /// Bytes are there.
    Bytes,
    /// The peer has closed or reset the connection.
    Gone,
}

/// The half that reads.
pub(crate) struct Receiver {
    reader: Reader,
    /// The few bytes that a waiting connection reads into.
    resident: Option<Box<[u8]>>,
    /// The read that waits has a whole buffer, of this shape.
    roomy: Option<(BufferShape, BusyWait)>,
    tls: Option<Tls>,
}

/// The half that writes.
pub(crate) struct Sender {
    half: OwnedWriteHalf<TcpStream>,
    tls: Option<Rc<RefCell<TlsSession>>>,
    /// Bytes of TLS records on their way; kept for the next write.
    records: Vec<u8>,
}

/// A connection. Fields are dropped in order: the deadline lets go before the descriptor closes.
pub(crate) struct Socket {
    pub(crate) deadline: Deadline,
    pub(crate) receiver: Receiver,
    pub(crate) sender: Sender,
    pub(crate) fd: RawFd,
}

impl Socket {
    /// Takes a connected stream over.
    pub(crate) fn new(stream: TcpStream, deadlines: &Rc<Deadlines>) -> Self {
        let fd = stream.as_raw_fd();
        let (read, write) = stream.into_split();
        Self {
            deadline: deadlines.watch(fd),
            receiver: Receiver { reader: Reader::new(read), resident: None, roomy: None, tls: None },
            sender: Sender { half: write, tls: None, records: Vec::new() },
            fd,
        }
    }

    /// Runs the handshake of `session` and reads and writes through it from then on.
    pub(crate) async fn start_tls(&mut self, session: TlsSession, buffer: &mut Buffer) -> io::Result<()> {
        let session = Rc::new(RefCell::new(session));
        self.receiver.tls = Some(Tls::new(Rc::clone(&session)));
        self.sender.tls = Some(Rc::clone(&session));
        loop {
            self.sender.flush_records().await?;
            if !session.borrow().is_handshaking() {
                return Ok(());
            }
            buffer.clear();
            if self.receiver.read_raw(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let outcome = session.borrow_mut().receive(buffer.payload());
            if let Err(error) = outcome {
                // The alert that tells the peer why; it may be gone already.
                let _ = self.sender.flush_records().await;
                return Err(error);
            }
        }
    }

    /// Ends the connection now; whatever waits on it ends too.
    pub(crate) fn abort(&self) {
        abort(self.fd);
    }
}

/// Ends the connection behind `fd`; whatever waits on it ends by itself.
pub(crate) fn abort(fd: RawFd) {
    // A peer that closed first makes this fail, and there is nothing left to do then.
    let _ = shutdown(fd, Shutdown::Both);
}

/// Resets the connection behind `fd` (RST), throwing away what was not sent: for an answer whose end
/// is the end of the connection and that was cut.
///
/// Connecting to no address dissolves a TCP connection, with a reset if it is established
/// (connect(2), `AF_UNSPEC`). `SO_LINGER` would do the same, but cannot be set on a descriptor
/// that the runtime owns without unsafe code.
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

impl Receiver {
    /// Leaves a small read waiting, if none is.
    pub(crate) fn wait_quietly(&mut self) {
        if self.may_wait() {
            self.order_resident();
        }
    }

    fn order_resident(&mut self) {
        let resident = self.resident.take().unwrap_or_else(|| vec![0; RESIDENT_READ_BYTES].into_boxed_slice());
        self.reader.order(resident, 0, RESIDENT_READ_BYTES);
    }

    /// Leaves a read waiting that has room for a whole message, if none is waiting yet.
    pub(crate) fn wait_in(&mut self, buffer: Buffer, wait: BusyWait) {
        debug_assert!(self.may_wait(), "whoever asks for a buffer has asked that first");
        self.roomy = Some((self.reader.order_room(buffer), wait));
    }

    /// Whether a read may be left waiting: none is, and nothing is there already.
    pub(crate) fn may_wait(&self) -> bool {
        !self.reader.is_reading() && !self.tls.as_ref().is_some_and(Tls::has_plain)
    }

    /// The read that waits has a buffer, which the next [`Self::read`] gives to whoever comes
    /// without one.
    pub(crate) fn waits_in_buffer(&self) -> bool {
        self.roomy.is_some()
    }

    /// What the quiet read noticed so far; `cx` is woken when that changes.
    pub(crate) fn poll_noticed(&mut self, cx: &mut Context<'_>) -> Noticed {
        if self.tls.is_some() {
            return self.poll_noticed_tls(cx);
        }
        if self.reader.poll_ended(cx).is_pending() {
            return Noticed::Nothing;
        }
        match &self.reader.desk.borrow().outcome {
            Some(Outcome { result: Ok(0) | Err(_), .. }) => Noticed::Gone,
            _ => Noticed::Bytes,
        }
    }

    /// What the quiet read has noticed, as far as this core has heard.
    pub(crate) fn noticed(&mut self) -> Noticed {
        self.poll_noticed(&mut Context::from_waker(Waker::noop()))
    }

    /// Waits until the quiet read notices something.
    pub(crate) async fn until_noticed(&mut self) -> Noticed {
        self.wait_quietly();
        poll_fn(|cx| match self.poll_noticed(cx) {
            Noticed::Nothing => Poll::Pending,
            noticed => Poll::Ready(noticed),
        })
        .await
    }

    /// Reads bytes behind the payload of `buffer`, decrypted. Zero: the peer has ended its side.
    pub(crate) async fn read(&mut self, buffer: &mut Buffer) -> io::Result<usize> {
        if self.tls.is_some() { self.read_tls(buffer).await } else { self.read_raw(buffer).await }
    }

    /// Only the small bytes of a quiet read are kept for the next one.
    fn keep_resident(&mut self, bytes: Box<[u8]>) {
        if bytes.len() == RESIDENT_READ_BYTES {
            self.resident = Some(bytes);
        }
    }

    /// What a read brings that nobody waited for to its end: a quiet one, or one whose task had
    /// something better to do. What does not fit stays for the next read.
    async fn read_left(&mut self, buffer: &mut Buffer) -> io::Result<usize> {
        let mut outcome = self.reader.outcome().await;
        if let Some((shape, _)) = self.roomy.take()
            && !buffer.is_real()
        {
            let count = *outcome.result.as_ref().unwrap_or(&0);
            *buffer = Buffer::from_parts(outcome.bytes, shape, count);
            return outcome.result;
        }
        let there = outcome.fresh().len();
        let count = there.min(buffer.room());
        let fits = buffer.append(outcome.fresh().get(..count).unwrap_or_default());
        debug_assert!(fits, "there was room");
        if count < there {
            outcome.from += count;
            outcome.result = Ok(there - count);
            self.reader.desk.borrow_mut().outcome = Some(outcome);
            return Ok(count);
        }
        self.keep_resident(outcome.bytes);
        outcome.result
    }

    async fn read_raw(&mut self, buffer: &mut Buffer) -> io::Result<usize> {
        if buffer.room() == 0 && !self.waits_in_buffer() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if self.reader.is_reading() {
            return self.read_left(buffer).await;
        }
        let room = buffer.room();
        let taken = std::mem::replace(buffer, Buffer::empty());
        let (bytes, shape) = taken.into_parts();
        self.reader.order(bytes, shape.end, shape.end + room);
        let Outcome { result, bytes, .. } = self.reader.outcome().await;
        let count = *result.as_ref().unwrap_or(&0);
        *buffer = Buffer::from_parts(bytes, shape, count);
        result
    }
}

impl Sender {
    /// Writes the whole payload of `buffer`; the buffer comes back either way.
    pub(crate) async fn write_all(&mut self, buffer: &mut Buffer) -> io::Result<()> {
        let taken = std::mem::replace(buffer, Buffer::empty());
        let (bytes, shape) = taken.into_parts();
        let (outcome, bytes) = self.write_owned(bytes, shape.start..shape.end).await;
        *buffer = Buffer::from_parts(bytes, shape, 0);
        outcome
    }

    /// Writes a range of bytes that the kernel may keep until they are on their way.
    pub(crate) async fn write_owned<T: IoBuf + AsRef<[u8]>>(
        &mut self,
        mut bytes: T,
        range: Range<usize>,
    ) -> (io::Result<()>, T) {
        let mut from = range.start;
        if let Some(tls) = self.tls.clone() {
            while from < range.end {
                let plain = bytes.as_ref().get(from..range.end).unwrap_or_default();
                let outcome = tls.borrow_mut().encrypt(plain);
                match outcome {
                    Ok(count) => from += count,
                    Err(error) => return (Err(error), bytes),
                }
                if let Err(error) = self.flush_records().await {
                    return (Err(error), bytes);
                }
            }
            return (Ok(()), bytes);
        }
        while from < range.end {
            let (result, slice) = self.half.write(bytes.slice(from..range.end)).await;
            bytes = slice.into_inner();
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), bytes),
                Ok(count) => from += count,
                Err(error) => return (Err(error), bytes),
            }
        }
        (Ok(()), bytes)
    }

    /// Ends our side in order: a TLS `close_notify` where there is TLS, then FIN.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        if let Some(tls) = self.tls.clone() {
            tls.borrow_mut().say_goodbye();
            self.flush_records().await?;
        }
        self.half.shutdown().await
    }

    /// Sends the records that the TLS session wants to send.
    async fn flush_records(&mut self) -> io::Result<()> {
        let Some(tls) = self.tls.clone() else { return Ok(()) };
        loop {
            let mut records = std::mem::take(&mut self.records);
            records.clear();
            tls.borrow_mut().take_records(&mut records)?;
            if records.is_empty() {
                self.records = records;
                return Ok(());
            }
            let mut from = 0;
            while from < records.len() {
                let len = records.len();
                let (result, slice) = self.half.write(records.slice(from..len)).await;
                records = slice.into_inner();
                match result? {
                    0 => return Err(io::ErrorKind::WriteZero.into()),
                    count => from += count,
                }
            }
            self.records = records;
        }
    }
}
