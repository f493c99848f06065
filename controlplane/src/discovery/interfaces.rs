//! The addresses of this machine, and what a packet to a whole subnet is sent to. Asked anew each
//! time, since containers and laptops change theirs.

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use std::net::{IpAddr, Ipv4Addr};

/// One address of one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) address: IpAddr,
    /// Everybody of the subnet; `None` where it has no such address.
    pub(super) broadcast: Option<Ipv4Addr>,
}

/// Those that are up; none where the kernel does not say.
pub(super) fn all() -> Vec<Interface> {
    let Ok(entries) = getifaddrs() else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP)) {
        let Some(address) = entry.address.as_ref().and_then(ip) else { continue };
        let netmask = entry.netmask.as_ref().and_then(ip);
        let reaches_many =
            entry.flags.intersects(InterfaceFlags::IFF_BROADCAST.union(InterfaceFlags::IFF_LOOPBACK));
        let broadcast = if reaches_many { broadcast(address, netmask) } else { None };
        found.push(Interface { address, broadcast });
    }
    found
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// The last address of the subnet. Computed, because an interface whose address was given without
/// a broadcast address claims none, while the kernel takes the computed one all the same. Subnets
/// of one or two addresses have none (RFC 3021).
fn broadcast(address: IpAddr, netmask: Option<IpAddr>) -> Option<Ipv4Addr> {
    let (IpAddr::V4(address), Some(IpAddr::V4(netmask))) = (address, netmask) else { return None };
    (netmask.to_bits().count_zeros() >= 2).then(|| Ipv4Addr::from_bits(address.to_bits() | !netmask.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_one_of_the_machines() {
        let loopback = all().into_iter().find(|interface| interface.address == IpAddr::from([127, 0, 0, 1])).unwrap();
        assert_eq!(loopback.broadcast, Some(Ipv4Addr::new(127, 255, 255, 255)));
    }

    #[test]
    fn a_subnet_of_two_addresses_has_no_broadcast_address() {
        let of = |address: &str, netmask: &str| broadcast(address.parse().unwrap(), netmask.parse().ok());
        assert_eq!(of("192.0.2.77", "255.255.255.0"), Some(Ipv4Addr::new(192, 0, 2, 255)));
        assert_eq!(of("192.0.2.77", "255.255.255.192"), Some(Ipv4Addr::new(192, 0, 2, 127)));
        assert_eq!(of("192.0.2.77", "255.255.255.254"), None);
        assert_eq!(of("192.0.2.77", "255.255.255.255"), None);
        assert_eq!(of("2001:db8::1", "ffff:ffff::"), None);
    }
}
