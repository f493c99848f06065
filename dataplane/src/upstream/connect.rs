//! Makes a connection to one address of a provider: the one place that connects.

use super::address::is_public;
use crate::core::Core;
use crate::driver::Driver;
use crate::rejection::{Cause, Rejection};
use crate::socket::Socket;
use crate::tls::TlsSession;
use monoio::net::TcpStream;
use rustls::ClientConfig;
use shared::clock::Nanos;
use socket2::{Domain, Protocol, Type};
use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

thread_local! {
    /// How sockets wait on this core: epoll's must not block, `io_uring`'s must.
    static DRIVER: Cell<Driver> = const { Cell::new(Driver::Epoll) };
}

/// Tells this core's connector how its sockets wait.
pub(crate) fn use_driver(driver: Driver) {
    DRIVER.set(driver);
}

/// Where to connect, and how far one may go.
pub(crate) struct Destination<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) allow_private_network: bool,
    /// Host for the certificate, and what to trust.
    pub(crate) tls: Option<(&'a str, &'a Arc<ClientConfig>)>,
    pub(crate) provider: &'a str,
}

/// Connects until `due`. `began` is told the descriptor, so that the attempt can be ended.
pub(crate) async fn connect(
    core: &Core,
    destination: &Destination<'_>,
    due: Nanos,
    began: impl Fn(RawFd),
) -> Result<Socket, Rejection> {
    let provider = destination.provider;
    let address = canonical(destination.address);
    if !destination.allow_private_network && !is_public(address.ip()) {
        let text = format!(
            "provider {provider} resolves to {}, which is not a public address; allow_private_network permits it",
            address.ip()
        );
        return Err(Rejection::new(Cause::AddressNotAllowed, text));
    }
    let unreachable = |error: io::Error| {
        Rejection::new(Cause::ProviderUnreachable, format!("provider {provider} cannot be reached: {}", error.kind()))
    };
    let (stream, fd) = begin(address).map_err(unreachable)?;
    began(fd);
    let watch = core.deadlines.watch(fd);
    watch.set(due);
    let waited = stream.writable(false).await;
    if watch.has_passed() {
        let text = format!("provider {provider} did not accept a connection in time");
        return Err(Rejection::new(Cause::ConnectTimeout, text));
    }
    drop(watch);
    waited.map_err(unreachable)?;
    // Only a connected socket has a peer; why it is not shows in the next operation alone.
    stream.peer_addr().map_err(unreachable)?;
    let mut socket = Socket::new(stream, &core.deadlines);
    if let Some((host, config)) = destination.tls {
        let session = TlsSession::client(config, host)
            .map_err(|error| Rejection::new(Cause::ProviderTls, format!("provider {provider}: {error}")))?;
        socket.deadline.set(due);
        let mut buffer = core.buffers.take();
        let outcome = socket.start_tls(session, &mut buffer).await;
        core.buffers.give(buffer);
        if socket.deadline.has_passed() {
            let text = format!("provider {provider} did not finish the TLS handshake in time");
            return Err(Rejection::new(Cause::ConnectTimeout, text));
        }
        outcome.map_err(|error| {
            Rejection::new(Cause::ProviderTls, format!("the TLS handshake with provider {provider} failed: {error}"))
        })?;
        socket.deadline.clear();
    }
    core.counters.connected();
    Ok(socket)
}

/// Starts connecting without waiting, so that the deadline can end it by shutting it down.
fn begin(address: SocketAddr) -> io::Result<(TcpStream, RawFd)> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    // io_uring waits in the kernel, where a socket that must not block would answer at once.
    socket.set_nonblocking(DRIVER.get() == Driver::Epoll)?;
    let fd = socket.as_raw_fd();
    Ok((TcpStream::from_std(socket.into())?, fd))
}

/// IPv4 addresses are kept as mapped ones; connecting wants them plain.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => SocketAddr::new(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4), address.port()),
        IpAddr::V4(_) => address,
    }
}
