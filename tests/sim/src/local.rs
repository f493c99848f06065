//! A network within one simulated host, for clusters of many nodes: turmoil looks at the link of every
//! pair in every step of every host, which a thousand nodes cannot wait for. Everything takes the same
//! time on its way, and nothing goes wrong.

use async_trait::async_trait;
use controlplane::gossip::network::{Datagrams, Listener, Network, Stream};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// On the way.
const LATENCY: Duration = Duration::from_millis(5);
/// What one socket may have on its way; more is lost, or refused.
const QUEUE_MAX: usize = 8_192;
/// Where connections come from; nobody connects to that.
const CLIENT_PORT: u16 = 50_000;

type Datagram = (Instant, SocketAddr, Vec<u8>);
type Connection = (Instant, SocketAddr, LocalStream);

/// Who listens where.
#[derive(Default)]
pub(crate) struct Hub {
    datagrams: Mutex<BTreeMap<SocketAddr, Sender<Datagram>>>,
    listeners: Mutex<BTreeMap<SocketAddr, Sender<Connection>>>,
}

/// One node's sockets.
pub(crate) struct LocalNetwork {
    pub(crate) hub: Arc<Hub>,
    pub(crate) ip: IpAddr,
}

#[async_trait]
impl Network for LocalNetwork {
    async fn bind(&self, at: SocketAddr) -> io::Result<(Box<dyn Datagrams>, Box<dyn Listener>)> {
        let ((sender, incoming), (connecting, connections)) = (channel(QUEUE_MAX), channel(QUEUE_MAX));
        lock(&self.hub.datagrams).insert(at, sender);
        lock(&self.hub.listeners).insert(at, connecting);
        let waiting = tokio::sync::Mutex::new(Waiting { incoming, next: None });
        let datagrams = LocalDatagrams { hub: Arc::clone(&self.hub), at, waiting };
        Ok((Box::new(datagrams), Box::new(LocalListener(tokio::sync::Mutex::new(connections)))))
    }

    async fn connect(&self, _from: IpAddr, to: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let (ours, theirs) = LocalStream::pair();
        let from = SocketAddr::new(self.ip, CLIENT_PORT);
        let listener = lock(&self.hub.listeners).get(&to).cloned().ok_or(io::ErrorKind::ConnectionRefused)?;
        listener.try_send((due(), from, theirs)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        sleep(2 * LATENCY).await;
        Ok(Box::new(ours))
    }
}

struct LocalDatagrams {
    hub: Arc<Hub>,
    at: SocketAddr,
    waiting: tokio::sync::Mutex<Waiting>,
}

struct Waiting {
    incoming: Receiver<Datagram>,
    /// Taken out of the queue, and not there yet.
    next: Option<Datagram>,
}

#[async_trait]
impl Datagrams for LocalDatagrams {
    fn address(&self) -> io::Result<SocketAddr> {
        Ok(self.at)
    }

    async fn receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut waiting = self.waiting.lock().await;
        if waiting.next.is_none() {
            waiting.next = waiting.incoming.recv().await;
        }
        let due = waiting.next.as_ref().map(|(due, ..)| *due).ok_or(io::ErrorKind::NotConnected)?;
        sleep_until(due).await;
        waiting.take(into)
    }

    fn try_receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut waiting = self.waiting.try_lock().map_err(|_| io::ErrorKind::WouldBlock)?;
        if waiting.next.is_none() {
            waiting.next = waiting.incoming.try_recv().ok();
        }
        waiting.take(into)
    }

    fn try_send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        // Where nobody listens, or not fast enough, it is lost.
        if let Some(receiver) = lock(&self.hub.datagrams).get(&to) {
            let _ = receiver.try_send((due(), self.at, bytes.to_vec()));
        }
        Ok(())
    }
}

impl Waiting {
    fn take(&mut self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let arrived = self.next.take_if(|(due, ..)| *due <= Instant::now());
        let (_, from, bytes) = arrived.ok_or(io::ErrorKind::WouldBlock)?;
        let length = bytes.len().min(into.len());
        into[..length].copy_from_slice(&bytes[..length]);
        Ok((length, from))
    }
}

struct LocalListener(tokio::sync::Mutex<Receiver<Connection>>);

#[async_trait]
impl Listener for LocalListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let next = self.0.lock().await.recv().await;
        let (due, from, stream) = next.ok_or(io::ErrorKind::NotConnected)?;
        sleep_until(due).await;
        Ok((Box::new(stream), from))
    }
}

/// One end of a connection.
struct LocalStream {
    /// `None`: we have said all.
    outgoing: Option<Sender<(Instant, Vec<u8>)>>,
    incoming: Receiver<(Instant, Vec<u8>)>,
    /// Until the bytes that come next are there.
    way: Pin<Box<Sleep>>,
    next: Vec<u8>,
    read: usize,
}

impl LocalStream {
    fn pair() -> (Self, Self) {
        let (here, there) = (channel(QUEUE_MAX), channel(QUEUE_MAX));
        (Self::new(here.0, there.1), Self::new(there.0, here.1))
    }

    fn new(outgoing: Sender<(Instant, Vec<u8>)>, incoming: Receiver<(Instant, Vec<u8>)>) -> Self {
        let way = Box::pin(sleep(Duration::ZERO));
        Self { outgoing: Some(outgoing), incoming, way, next: Vec::new(), read: 0 }
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.next.is_empty() {
            let Some((due, bytes)) = ready!(self.incoming.poll_recv(context)) else { return Poll::Ready(Ok(())) };
            self.way.as_mut().reset(due);
            self.next = bytes;
        }
        ready!(self.way.as_mut().poll(context));
        let length = into.remaining().min(self.next.len() - self.read);
        into.put_slice(&self.next[self.read..self.read + length]);
        self.read += length;
        if self.read == self.next.len() {
            // Most connections rest; what each of them had last would be most of the memory.
            (self.next, self.read) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.outgoing.as_ref().is_some_and(|there| there.try_send((due(), bytes.to_vec())).is_ok());
        Poll::Ready(if sent || bytes.is_empty() { Ok(bytes.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing = None;
        Poll::Ready(Ok(()))
    }
}

/// When what leaves now is there.
fn due() -> Instant {
    Instant::now() + LATENCY
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nobody panics while it is held")
}
