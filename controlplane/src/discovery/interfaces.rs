//! The addresses of this machine, and what a packet to a whole subnet is sent to. Asked anew each
//! time, since containers and laptops change theirs.

use ipnet::Ipv4Net;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use std::net::IpAddr;

/// One address of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) address: IpAddr,
    /// Whom a broadcast reaches from here; `None` for IPv6, which has none, and on links of two.
    pub(super) subnet: Option<Ipv4Net>,
}

/// Those that are up; none where the kernel does not say.
pub(super) fn all() -> Vec<Interface> {
    let Ok(entries) = getifaddrs() else { return Vec::new() };
    let reaches_many = InterfaceFlags::IFF_BROADCAST.union(InterfaceFlags::IFF_LOOPBACK);
    let mut found = Vec::new();
    for entry in entries.filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP)) {
        let Some(address) = entry.address.as_ref().and_then(ip) else { continue };
        let netmask = entry.netmask.as_ref().and_then(ip);
        let subnet = if entry.flags.intersects(reaches_many) { subnet(address, netmask) } else { None };
        found.push(Interface { address, subnet });
    }
    found
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Where its broadcast address is computed from: an interface that was given its address without
/// one claims none, while the kernel takes the computed one all the same. Subnets of one or two
/// addresses have none (RFC 3021).
fn subnet(address: IpAddr, netmask: Option<IpAddr>) -> Option<Ipv4Net> {
    let (IpAddr::V4(address), Some(IpAddr::V4(netmask))) = (address, netmask) else { return None };
    Ipv4Net::with_netmask(address, netmask).ok().filter(|subnet| subnet.prefix_len() <= 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_one_of_the_machines() {
        let loopback = all().into_iter().find(|interface| interface.address == IpAddr::from([127, 0, 0, 1])).unwrap();
        assert_eq!(loopback.subnet.unwrap().broadcast().octets(), [127, 255, 255, 255]);
    }

    #[test]
    fn a_subnet_of_two_addresses_has_no_broadcast_address() {
        let of = |address: &str, netmask: &str| {
            let subnet = subnet(address.parse().unwrap(), netmask.parse().ok())?;
            Some(subnet.broadcast().to_string())
        };
        assert_eq!(of("192.0.2.77", "255.255.255.0").as_deref(), Some("192.0.2.255"));
        assert_eq!(of("192.0.2.77", "255.255.255.192").as_deref(), Some("192.0.2.127"));
        assert_eq!(of("192.0.2.77", "255.255.255.254"), None);
        assert_eq!(of("192.0.2.77", "255.255.255.255"), None);
        assert_eq!(of("2001:db8::1", "ffff:ffff::"), None);
    }
}
