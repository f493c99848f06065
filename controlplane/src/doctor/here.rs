//! Where this node's gossip is: what it would listen on, and what others are told.

use super::{Finding, Place};
use shared::config::model::Cluster;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};

/// As the node itself finds it out.
pub(super) fn place(cluster: &Cluster) -> Result<Place, Finding> {
    let listen = SocketAddr::new(cluster.bind_address, cluster.gossip.port);
    let advertise = match &cluster.advertise_address {
        Some(named) => {
            let resolved = (named.host(), named.port()).to_socket_addrs();
            let first = resolved.ok().and_then(|mut all| all.next());
            first.ok_or_else(|| Finding {
                symptom: "other nodes cannot reach this one".to_owned(),
                cause: format!("`advertise_address` {named} has no address"),
                remedy: "give an IP address, or correct the name or this machine's DNS".to_owned(),
            })?
        }
        None if cluster.bind_address.is_unspecified() => SocketAddr::new(outgoing(cluster.bind_address), listen.port()),
        None => listen,
    };
    Ok(Place { listen, advertise })
}

/// The address that packets to far away leave from. Connecting a datagram socket sends nothing.
fn outgoing(any: IpAddr) -> IpAddr {
    // Addresses of documentation networks: nobody's, and so behind the default route.
    let (any, far): (IpAddr, IpAddr) = match any {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into()),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()),
    };
    let found = UdpSocket::bind(SocketAddr::new(any, 0)).and_then(|socket| {
        socket.connect(SocketAddr::new(far, 9))?;
        socket.local_addr()
    });
    found.map_or(if any.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }, |from| from.ip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::model::HostPort;

    #[test]
    fn others_are_told_what_is_configured_or_where_it_listens() {
        let mut cluster = Cluster { bind_address: "127.0.0.9".parse().unwrap(), ..Cluster::default() };
        let listen = "127.0.0.9:10101".parse().unwrap();
        assert_eq!(place(&cluster), Ok(Place { listen, advertise: listen }));
        cluster.advertise_address = HostPort::parse("192.0.2.5:7", None).ok();
        assert_eq!(place(&cluster), Ok(Place { listen, advertise: "192.0.2.5:7".parse().unwrap() }));
        cluster.advertise_address = HostPort::parse("no-such-name.invalid:7", None).ok();
        assert!(place(&cluster).unwrap_err().cause.contains("no-such-name.invalid:7"));
    }

    #[test]
    fn a_node_that_listens_everywhere_is_somewhere() {
        let place = place(&Cluster::default()).unwrap();
        assert!(!place.advertise.ip().is_unspecified());
    }
}
