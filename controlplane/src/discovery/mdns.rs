//! `mdns`: peers of the same link, by DNS-SD (RFC 6762, RFC 6763). This node is an instance of
//! `mdns_service`, named after its node id, at its gossip port; the others are found by browsing.
//! A TXT property says the `service_name`, so that two clusters on one link stay apart; an instance
//! that has no such property is taken.
//!
//! The library answers and asks on a thread of its own, which ends with the source. Absent: IPv6
//! addresses of one link only, which mean nothing without an interface.

use super::{Failure, PEERS_PER_SOURCE_MAX, Source, Surroundings, interfaces};
use mdns_sd::{
    DaemonEvent, IfKind, Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo, UnregisterStatus,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// TXT property with the name of the cluster's nodes.
const SERVICE_PROPERTY: &str = "service_name";
/// TXT property with the node's id.
const NODE_PROPERTY: &str = "node_id";
/// Longest name of a service, without its underscore (RFC 6335, section 5.1).
const SERVICE_CHARACTERS_MAX: usize = 15;
/// Addresses that are remarked on.
const REMARKS_MAX: usize = 256;
/// What changes within this time is told at once.
const GATHER: Duration = Duration::from_millis(50);

/// Advertises and browses.
pub(crate) struct Mdns {
    service: String,
    surroundings: Surroundings,
    running: Option<Running>,
    seen: Seen,
    has_looked: bool,
}

/// The library's thread, with what it tells.
struct Running {
    daemon: ServiceDaemon,
    instance: String,
    browsed: Receiver<ServiceEvent>,
    remarks: Receiver<DaemonEvent>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // A full queue of commands means that the thread is gone or busy with its own end.
        drop(self.daemon.shutdown());
    }
}

impl Mdns {
    /// Starts nothing yet.
    pub(crate) fn new(service: &str, surroundings: Surroundings) -> Self {
        let service = service.trim_end_matches('.').trim_end_matches(".local").to_owned();
        Self { service, surroundings, running: None, seen: Seen::default(), has_looked: false }
    }

    fn start(&self, registers: bool) -> Result<Running, Failure> {
        if !is_service(&self.service) {
            return Err(Failure {
                line: "mdns service not valid",
                cause: format!("`mdns_service` is {:?}", self.service),
                remedy: "it has to look like \"_myapp._tcp\", with at most 15 letters, digits and hyphens".to_owned(),
            });
        }
        if interfaces::all().iter().all(|interface| interface.address.is_loopback()) {
            return Err(Failure {
                line: "no address for mdns",
                cause: "this machine has no address but loopback ones".to_owned(),
                remedy:
                    "connect it to a network, or list the nodes in `cluster_config.peers`; `ip addr` shows addresses"
                        .to_owned(),
            });
        }
        let refused = |error: mdns_sd::Error| Failure {
            line: "mdns not available",
            cause: error.to_string(),
            remedy: "see whether UDP port 5353 is open and multicast is enabled on the interface (`ip link`); \
                     `avahi-browse -a` shows what else is seen"
                .to_owned(),
        };
        let daemon = ServiceDaemon::new().map_err(refused)?;
        let info = self.instance().map_err(refused)?;
        let instance = info.get_fullname().to_owned();
        let running = Running {
            remarks: daemon.monitor().map_err(refused)?,
            browsed: daemon.browse(info.get_type()).map_err(refused)?,
            instance,
            daemon,
        };
        let loopback = vec![IfKind::LoopbackV4, IfKind::LoopbackV6];
        running.daemon.disable_interface(loopback).map_err(refused)?;
        if registers {
            running.daemon.register(info).map_err(refused)?;
        }
        Ok(running)
    }

    /// What others are told: every address of the machine where gossip listens on all of them, the
    /// one address otherwise, and none that gossip could not be reached at.
    fn instance(&self) -> Result<ServiceInfo, mdns_sd::Error> {
        let Surroundings { node_id, advertise, listen, service_name, .. } = &self.surroundings;
        let properties = [(SERVICE_PROPERTY, service_name.as_str()), (NODE_PROPERTY, node_id.as_str())];
        let domain = format!("{}.local.", self.service);
        let host = format!("{}-{}.local.", host_label(node_id), advertise.port());
        if !listen.ip().is_unspecified() {
            return ServiceInfo::new(&domain, node_id, &host, advertise.ip(), advertise.port(), &properties[..]);
        }
        let mut info = ServiceInfo::new(&domain, node_id, &host, "", advertise.port(), &properties[..])?;
        if listen.is_ipv4() {
            info.set_interfaces(vec![IfKind::IPv4]);
        }
        Ok(info.enable_addr_auto())
    }

    /// Until the list changed, or it is time to say that it did not.
    async fn listen(&mut self) -> Result<(), Failure> {
        let wait = if self.has_looked { self.surroundings.interval } else { self.surroundings.dial_timeout };
        let end = tokio::time::sleep(wait);
        tokio::pin!(end);
        let gathered = tokio::time::sleep(wait);
        tokio::pin!(gathered);
        let mut has_changed = false;
        loop {
            let Some(running) = &self.running else { return Ok(()) };
            tokio::select! {
                event = running.browsed.recv_async() => match event {
                    Ok(event) => {
                        if self.seen.take(event, &running.instance, &self.surroundings.service_name) && !has_changed {
                            has_changed = true;
                            gathered.set(tokio::time::sleep(GATHER));
                        }
                    }
                    Err(_) => return Err(self.ended()),
                },
                remark = running.remarks.recv_async() => match remark {
                    Ok(DaemonEvent::NameChange(change)) => tracing::warn!(
                        source = "mdns", old = change.original, new = change.new_name,
                        "another instance has this node's name; two nodes must not have one `node_id`"
                    ),
                    Ok(DaemonEvent::Error(error)) => tracing::warn!(source = "mdns", %error, "mdns fault"),
                    Ok(_) => {}
                    Err(_) => return Err(self.ended()),
                },
                () = &mut gathered, if has_changed => return Ok(()),
                () = &mut end => return Ok(()),
            }
        }
    }

    /// Its thread has ended, or so much was told that it gave up: the next look starts another.
    fn ended(&mut self) -> Failure {
        self.running = None;
        Failure {
            line: "mdns not available",
            cause: "browsing has ended".to_owned(),
            remedy: "it is started anew; on a link with more than a thousand instances choose another `mdns_service`"
                .to_owned(),
        }
    }
}

impl Source for Mdns {
    fn name(&self) -> &'static str {
        "mdns"
    }

    async fn look(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        if self.running.is_none() {
            self.running = Some(self.start(true)?);
        }
        self.listen().await?;
        self.has_looked = true;
        Ok(self.seen.peers())
    }

    /// Browses only.
    async fn peek(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        if self.running.is_none() {
            self.running = Some(self.start(false)?);
        }
        self.listen().await?;
        Ok(self.seen.peers())
    }

    /// Says goodbye, so that others forget this node at once, and ends the library's thread.
    async fn leave(&mut self) {
        let Some(running) = self.running.take() else { return };
        let Ok(left) = running.daemon.unregister(&running.instance) else { return };
        match left.recv_async().await {
            Ok(UnregisterStatus::OK) => {}
            Ok(UnregisterStatus::NotFound) | Err(_) => tracing::debug!("there was nothing to say goodbye to"),
        }
        // The end of the thread sends the goodbye once more.
        if let Ok(ended) = running.daemon.shutdown() {
            drop(ended.recv_async().await);
        }
    }
}

/// Instances by their full name, with the addresses of their gossip.
#[derive(Default)]
struct Seen {
    instances: BTreeMap<String, Vec<SocketAddr>>,
    remarked: BTreeSet<IpAddr>,
}

impl Seen {
    /// Whether the list has changed.
    fn take(&mut self, event: ServiceEvent, own_instance: &str, service_name: &str) -> bool {
        match event {
            ServiceEvent::ServiceResolved(resolved) => {
                let ResolvedService { fullname, port, addresses, txt_properties, .. } = *resolved;
                let other_name =
                    txt_properties.get(SERVICE_PROPERTY).is_some_and(|name| name.val_str() != service_name);
                if other_name || fullname.eq_ignore_ascii_case(own_instance) {
                    return false;
                }
                let hosts = addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr);
                let mut hosts: Vec<_> = hosts.filter(|host| self.admits(*host)).collect();
                hosts.sort_unstable();
                let peers = hosts.into_iter().map(|host| SocketAddr::new(host, port)).collect::<Vec<_>>();
                if self.instances.get(&fullname) == Some(&peers) {
                    return false;
                }
                if self.instances.len() >= PEERS_PER_SOURCE_MAX && !self.instances.contains_key(&fullname) {
                    return false;
                }
                self.instances.insert(fullname, peers);
                true
            }
            ServiceEvent::ServiceRemoved(_, fullname) => self.instances.remove(&fullname).is_some(),
            _ => false,
        }
    }

    /// Whether a host can have this address; said once of each that cannot.
    fn admits(&mut self, address: IpAddr) -> bool {
        let is_host = is_host(address);
        if !is_host && self.remarked.len() < REMARKS_MAX && self.remarked.insert(address) {
            tracing::warn!(
                source = "mdns",
                %address,
                "skipping invalid host address; nothing is wrong if that node has another one, else see `ip addr` there"
            );
        }
        is_host
    }

    fn peers(&self) -> Vec<SocketAddr> {
        self.instances.values().flatten().copied().collect()
    }
}

/// Not loopback, no network's own or broadcast address as the public page has them (`*.0`, `*.255`),
/// and none that means something else on every link.
fn is_host(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_unspecified() && !matches!(v4.octets(), [.., 0 | 255]),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unspecified() && !v6.is_unicast_link_local(),
    }
}

/// `_name._tcp` or `_name._udp` (RFC 6763, section 7).
fn is_service(service: &str) -> bool {
    let name = service.strip_suffix("._tcp").or_else(|| service.strip_suffix("._udp"));
    name.and_then(|name| name.strip_prefix('_')).is_some_and(|name| {
        (1..=SERVICE_CHARACTERS_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

/// A node id has characters that a host's name must not have.
fn host_label(node_id: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' };
    let label: String = node_id.chars().map(letter).collect();
    format!("deepintshield-{}", label.trim_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::tests::surroundings;
    use mdns_sd::ScopedIp;

    const SERVICE: &str = "_bifrost._tcp.local.";

    fn resolved(instance: &str, addresses: &[&str], service_name: Option<&str>) -> ServiceEvent {
        let properties: Vec<_> = service_name.map(|name| (SERVICE_PROPERTY, name)).into_iter().collect();
        let info = ServiceInfo::new(SERVICE, instance, "host.local.", "", 10_101, &properties[..]).unwrap();
        let mut resolved = info.as_resolved_service();
        resolved.addresses = addresses.iter().map(|text| ScopedIp::from(text.parse::<IpAddr>().unwrap())).collect();
        ServiceEvent::ServiceResolved(Box::new(resolved))
    }

    fn removed(instance: &str) -> ServiceEvent {
        ServiceEvent::ServiceRemoved(SERVICE.to_owned(), format!("{instance}.{SERVICE}"))
    }

    #[track_caller]
    fn check(events: Vec<ServiceEvent>, changes: &[bool], peers: &[&str]) {
        let mut seen = Seen::default();
        let own = format!("n1.{SERVICE}");
        let changed: Vec<_> = events.into_iter().map(|event| seen.take(event, &own, "cluster")).collect();
        assert_eq!(changed, changes);
        assert_eq!(seen.peers().iter().map(ToString::to_string).collect::<Vec<_>>(), peers);
    }

    #[test]
    fn an_instance_is_a_peer_until_it_says_goodbye() {
        let first = resolved("n2", &["192.0.2.2"], Some("cluster"));
        let moved = resolved("n2", &["192.0.2.3", "2001:db8::3"], Some("cluster"));
        let again = moved.clone();
        check(vec![first, moved, again], &[true, true, false], &["192.0.2.3:10101", "[2001:db8::3]:10101"]);
        let first = resolved("n2", &["192.0.2.2"], Some("cluster"));
        check(vec![first, removed("n2"), removed("n2")], &[true, true, false], &[]);
    }

    #[test]
    fn only_instances_of_the_same_service_name_are_peers() {
        let own = resolved("N1", &["192.0.2.1"], Some("cluster"));
        let other = resolved("n2", &["192.0.2.2"], Some("another"));
        let silent = resolved("n3", &["192.0.2.3"], None);
        check(vec![own, other, silent], &[false, false, true], &["192.0.2.3:10101"]);
    }

    #[test]
    fn addresses_that_no_host_has_are_skipped() {
        let addresses = ["127.0.0.1", "10.0.0.0", "10.0.0.255", "10.0.0.7", "::1", "fe80::1", "fd00::1"];
        let peers = ["10.0.0.7:10101", "[fd00::1]:10101"];
        check(vec![resolved("n2", &addresses, Some("cluster"))], &[true], &peers);
        let mut seen = Seen::default();
        let skipped = addresses.map(|text| !seen.admits(text.parse().unwrap()));
        assert_eq!(skipped, [true, true, true, false, true, true, false]);
        assert_eq!(seen.remarked.len(), 5, "once each");
    }

    #[test]
    fn a_service_is_given_with_or_without_its_domain() {
        for text in ["_myapp._tcp", "_myapp._tcp.local.", "_myapp._tcp.local", "_myapp._tcp."] {
            assert_eq!(Mdns::new(text, surroundings()).service, "_myapp._tcp", "{text}");
        }
        for text in ["myapp._tcp", "_myapp", "_._tcp", "_a-name-with-17-ch._tcp", "_a.b._tcp", "_a._sctp"] {
            assert!(!is_service(text), "{text}");
        }
    }

    #[test]
    fn a_node_is_an_instance_at_its_gossip_port() {
        let info = Mdns::new("_bifrost._tcp", surroundings()).instance().unwrap();
        assert_eq!((info.get_fullname(), info.get_port()), ("n1._bifrost._tcp.local.", 10_101));
        assert_eq!(info.get_hostname(), "deepintshield-n1-10101.local.");
        assert_eq!(info.get_property_val_str(SERVICE_PROPERTY), Some("cluster"));
        assert!(info.is_addr_auto());
        let bound = Surroundings { listen: "192.0.2.1:10101".parse().unwrap(), ..surroundings() };
        let info = Mdns::new("_bifrost._tcp", bound).instance().unwrap();
        assert!(!info.is_addr_auto() && info.get_addresses_v4().len() == 1);
    }
}
