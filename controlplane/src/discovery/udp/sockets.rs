//! The two sockets of UDP discovery. One hears beacons on the port that all nodes share; the other
//! sends them and gets the answers, on a port of its own, so that of several nodes on one machine
//! each gets what was meant for it.
//!
//! The shared port is opened with `SO_REUSEPORT`: a broadcast goes to every socket there, and only
//! programs of one user may share it (`SO_REUSEADDR` would let anyone in).

use crate::discovery::{Failure, Surroundings, interfaces};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket,
    sockopt::{Broadcast, ReusePort},
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use tokio::net::UdpSocket;

/// Open sockets.
pub(super) struct Sockets {
    pub(super) hears: UdpSocket,
    pub(super) asks: UdpSocket,
}

impl Sockets {
    /// `from`: what others are to see as the sender; no address where routes decide.
    pub(super) fn open(port: u16, from: Ipv4Addr) -> Result<Self, Failure> {
        let hears = open(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)).map_err(|errno| refusal(errno, port))?;
        let asks = open(SocketAddrV4::new(from, 0)).map_err(|errno| Failure {
            line: "no socket for beacons",
            cause: format!("{from}: {}", errno.desc()),
            remedy: "`bind_address` has to be an IPv4 address of this machine; compare `ip addr`".to_owned(),
        })?;
        Ok(Self { hears, asks })
    }
}

fn open(address: SocketAddrV4) -> Result<UdpSocket, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let descriptor = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&descriptor, Broadcast, &true)?;
    if address.port() != 0 {
        setsockopt(&descriptor, ReusePort, &true)?;
    }
    bind(std::os::fd::AsRawFd::as_raw_fd(&descriptor), &SockaddrIn::from(address))?;
    let error = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    UdpSocket::from_std(std::net::UdpSocket::from(descriptor)).map_err(error)
}

fn refusal(errno: Errno, port: u16) -> Failure {
    let (line, remedy) = match errno {
        Errno::EACCES | Errno::EPERM => (
            "permission denied",
            "take a `udp_broadcast_port` above 1023, or give the node CAP_NET_BIND_SERVICE".to_owned(),
        ),
        Errno::EADDRINUSE => (
            "address already in use",
            format!(
                "`netstat -tulpn | grep {port}` tells by whom; end that program, take another `udp_broadcast_port` on \
                 all nodes, or run the nodes of one machine as one user"
            ),
        ),
        _ => ("no socket for beacons", "see what the kernel says, and take another `udp_broadcast_port`".to_owned()),
    };
    Failure { line, cause: format!("UDP port {port}: {}", errno.desc()), remedy }
}

/// Where beacons go: to everybody in each subnet that this node has an allowed address in.
pub(super) fn targets(surroundings: &Surroundings, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let listen = surroundings.listen.ip();
    let interfaces = interfaces::all();
    let mut is_some_allowed = false;
    let mut targets = Vec::new();
    for interface in &interfaces {
        let is_in_use = match interface.subnet {
            Some(subnet) => listen.is_unspecified() || IpAddr::V4(subnet.addr()) == listen || contains(subnet, listen),
            None => interface.address == listen || listen.is_unspecified(),
        };
        if !interface.address.is_ipv4() || !is_in_use || !surroundings.allows(interface.address) {
            continue;
        }
        is_some_allowed = true;
        targets.extend(interface.subnet.map(|subnet| SocketAddr::new(subnet.broadcast().into(), port)));
    }
    targets.sort_unstable();
    targets.dedup();
    if is_some_allowed && targets.is_empty() {
        targets.push(SocketAddr::new(Ipv4Addr::BROADCAST.into(), port));
    }
    if targets.is_empty() {
        let own = interfaces.iter().map(|interface| interface.address).filter(IpAddr::is_ipv4);
        let own: Vec<_> = own.map(|address| address.to_string()).collect();
        return Err(Failure {
            line: "not in allowed address space",
            cause: format!("none of this node's own IPv4 addresses is: {}", own.join(", ")),
            remedy: "add the network of the nodes to `allowed_address_space`, such as \"192.168.1.0/24\"; `ip addr` \
                     shows it"
                .to_owned(),
        });
    }
    Ok(targets)
}

fn contains(subnet: ipnet::Ipv4Net, address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if subnet.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::tests::surroundings;

    fn told(listen: &str, allowed: &str) -> Result<Vec<SocketAddr>, Failure> {
        let listen = listen.parse().unwrap();
        let allowed = vec![allowed.parse().unwrap()];
        targets(&Surroundings { listen, allowed, ..surroundings() }, 9_999)
    }

    #[test]
    fn only_allowed_subnets_hear_of_this_node() {
        let everybody_here = "127.255.255.255:9999".parse().unwrap();
        assert_eq!(told("0.0.0.0:10101", "127.0.0.0/8"), Ok(vec![everybody_here]));
        assert_eq!(told("127.9.9.9:10101", "127.0.0.0/8"), Ok(vec![everybody_here]));
        let failure = told("127.9.9.9:10101", "203.0.113.0/24").unwrap_err();
        assert_eq!(failure.line, "not in allowed address space");
    }

    #[tokio::test]
    async fn a_port_that_another_program_has_is_named_with_a_remedy() {
        let taken = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let failure = Sockets::open(port, Ipv4Addr::UNSPECIFIED).map(drop).unwrap_err();
        assert_eq!(failure.line, "address already in use");
        assert!(failure.remedy.contains(&format!("netstat -tulpn | grep {port}")), "{failure:?}");
        assert_eq!(refusal(Errno::EACCES, 80).line, "permission denied");
    }
}
