//! The simulated network, as gossip's transport asks for one.

use async_trait::async_trait;
use controlplane::gossip::network::{Datagrams, Listener, Network, Stream};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use turmoil::net::{TcpListener, TcpStream, UdpSocket};

/// Sockets of the simulated host that asks.
pub(crate) struct SimulatedNetwork;

#[async_trait]
impl Network for SimulatedNetwork {
    async fn bind(&self, at: SocketAddr) -> io::Result<(Box<dyn Datagrams>, Box<dyn Listener>)> {
        // A simulated host has one address and does not let it be named.
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), at.port());
        let datagrams = UdpSocket::bind(any).await?;
        let listener = TcpListener::bind(any).await?;
        Ok((Box::new(SimulatedDatagrams(datagrams)), Box::new(SimulatedListener(listener))))
    }

    async fn connect(&self, _from: IpAddr, to: SocketAddr) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(TcpStream::connect(to).await?))
    }
}

struct SimulatedDatagrams(UdpSocket);

#[async_trait]
impl Datagrams for SimulatedDatagrams {
    fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    async fn receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_from(into).await
    }

    fn try_receive(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.try_recv_from(into)
    }

    fn try_send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.0.try_send_to(bytes, to).map(|_| ())
    }
}

struct SimulatedListener(TcpListener);

#[async_trait]
impl Listener for SimulatedListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        Ok((Box::new(stream), from))
    }
}
