//! Sockets as gossip needs them, behind a trait: tokio's in a node, simulated ones in a simulator.
//! No type of a runtime's own network shows through.
//!
//! Datagrams may get lost, so sending one never waits; streams are written by tasks of their own.

use async_trait::async_trait;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncRead, AsyncWrite};

/// What the kernel may hold for us in datagrams: some 400 of the largest, 10 ms of a flood of
/// small ones. More would only delay what comes behind junk.
const RECEIVE_BUFFER_BYTES: usize = 512 * 1024;
/// Connections that wait to be accepted.
const ACCEPT_BACKLOG: u32 = 128;
/// Ports tried where the port is 0: one that is free for datagrams may be taken for streams.
const PORTS_TRIED_MAX: usize = 16;

/// Where sockets come from.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Opens datagrams and streams on one port. With port 0, on any that is free for both.
    async fn bind(&self, at: SocketAddr) -> io::Result<(Box<dyn Datagrams>, Box<dyn Listener>)>;

    /// Connects to `to`, from `from` unless that is unspecified.
    async fn connect(&self, from: IpAddr, to: SocketAddr) -> io::Result<Box<dyn Stream>>;
}

/// An open datagram socket.
#[async_trait]
pub trait Datagrams: Send + Sync + 'static {
    /// Where it is bound.
    fn address(&self) -> io::Result<SocketAddr>;

    /// Waits for the next datagram; what does not fit into `into` is cut off.
    async fn receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)>;

    /// The next datagram that is there already; [`io::ErrorKind::WouldBlock`] where there is none.
    fn try_receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)>;

    /// Sends without waiting.
    fn try_send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()>;
}

/// An open port for streams.
#[async_trait]
pub trait Listener: Send + Sync + 'static {
    /// Waits for the next connection.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)>;
}

/// A connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// The operating system's sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNetwork;

#[async_trait]
impl Network for SystemNetwork {
    async fn bind(&self, at: SocketAddr) -> io::Result<(Box<dyn Datagrams>, Box<dyn Listener>)> {
        let mut tried = 0;
        loop {
            tried += 1;
            match bind_both(at) {
                Err(error) if at.port() == 0 && error.kind() == io::ErrorKind::AddrInUse && tried < PORTS_TRIED_MAX => {
                }
                bound => {
                    let (datagrams, streams) = bound?;
                    // Before the runtime has seen that once, nothing can be sent without waiting.
                    datagrams.writable().await?;
                    return Ok((Box::new(datagrams), Box::new(streams)));
                }
            }
        }
    }

    async fn connect(&self, from: IpAddr, to: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let socket = if to.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
        if !from.is_unspecified() && from.is_ipv4() == to.is_ipv4() {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

fn bind_both(at: SocketAddr) -> io::Result<(tokio::net::UdpSocket, tokio::net::TcpListener)> {
    let datagrams = std::net::UdpSocket::bind(at)?;
    datagrams.set_nonblocking(true)?;
    // The kernel may grant less; a smaller buffer loses more in a burst and nothing else.
    let _ = setsockopt(&datagrams, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES);
    let streams = if at.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
    // A restart must not wait for connections of the process before.
    streams.set_reuseaddr(true)?;
    streams.bind(SocketAddr::new(at.ip(), datagrams.local_addr()?.port()))?;
    Ok((tokio::net::UdpSocket::from_std(datagrams)?, streams.listen(ACCEPT_BACKLOG)?))
}

#[async_trait]
impl Datagrams for tokio::net::UdpSocket {
    fn address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    async fn receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.recv_from(into).await.map(canonical)
    }

    fn try_receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.try_recv_from(into).map(canonical)
    }

    fn try_send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        // A socket of both families takes IPv4 addresses in their mapped form only.
        let is_mapped = to.is_ipv4() && self.local_addr()?.is_ipv6();
        self.try_send_to(bytes, if is_mapped { mapped(to) } else { to }).map(|_| ())
    }
}

#[async_trait]
impl Listener for tokio::net::TcpListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, from) = Self::accept(self).await?;
        let ((), from) = canonical(((), from));
        Ok((Box::new(stream), from))
    }
}

/// IPv4 in its own form, so that a peer has one address whatever the socket.
fn canonical<T>((received, mut from): (T, SocketAddr)) -> (T, SocketAddr) {
    from.set_ip(from.ip().to_canonical());
    (received, from)
}

fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(IpAddr::V6(ip), address.port())
}
