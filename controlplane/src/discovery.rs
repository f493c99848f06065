//! Finding peers. A source says which addresses it sees, all of them, every time; nothing more is
//! asked of it. What a source may not do is here, once for all: hurry, flood, name ourselves or
//! an address that is not allowed, or lose the peers it saw when it fails.
//!
//! Discovery only proposes. An address becomes a peer when gossip hears it with the right key.

use crate::event::Event;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

pub(crate) mod consul;
pub(crate) mod dns;
#[cfg(feature = "etcd")]
pub(crate) mod etcd;
mod interfaces;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
#[cfg(feature = "mdns")]
pub(crate) mod mdns;
mod names;
mod pace;
// The stand-ins are the ones that whole nodes are tested with.
#[cfg(test)]
#[path = "../../tests/it/stand_ins.rs"]
mod stand_ins;
mod start;
pub(crate) mod static_list;
pub(crate) mod udp;

use pace::Pace;
pub(crate) use start::{NotBuilt, Prepared, Running, prepare};

/// Peers of one source that are kept; more are left out, and said so.
pub(crate) const PEERS_PER_SOURCE_MAX: usize = 1_024;
/// A source has this long to take back what it registered.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// Addresses of this machine's interfaces that are up.
pub(crate) fn own_addresses() -> impl Iterator<Item = IpAddr> {
    interfaces::all().into_iter().map(|interface| interface.address)
}

/// One way to find peers.
pub(crate) trait Source {
    /// The method, as the configuration calls it.
    fn name(&self) -> &'static str;

    /// All peers that are seen now. The first call answers as soon as it can; a later one may
    /// wait until something changed, and waits at most the discovery interval where nothing can be
    /// watched. A registration that this needs is renewed here too. Dropping the future at any
    /// await does no harm.
    async fn look(&mut self) -> Result<Vec<SocketAddr>, Failure>;

    /// The first look of somebody who only wants to know whether it works: registers nothing, and
    /// where a registration is needed, finds out whether it would be let.
    async fn peek(&mut self) -> Result<Vec<SocketAddr>, Failure> {
        self.look().await
    }

    /// Takes back what was registered, so that others need not wait for it to expire.
    async fn leave(&mut self) {}
}

/// Why a source sees nothing. Its last list stays in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The log line, in the public page's words where it names one: `dns lookup error` …
    pub line: &'static str,
    /// What happened, without secrets.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

/// One source among those of a node. Two of one method see different peers, and neither's list
/// replaces the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceName {
    /// The method, as the configuration calls it.
    pub method: &'static str,
    /// Which one of its method, in the order of the configuration; from 1.
    pub number: usize,
}

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            1 => f.write_str(self.method),
            number => write!(f, "{}-{number}", self.method),
        }
    }
}

/// What every source may know of its node and of its settings.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// This node's id.
    pub(crate) node_id: String,
    /// Where others reach this node's gossip; what is registered.
    pub(crate) advertise: SocketAddr,
    /// Where this node's gossip listens; an unspecified address means every one of the machine's.
    pub(crate) listen: SocketAddr,
    /// `service_name`
    pub(crate) service_name: String,
    /// Port of peers whose source names none.
    pub(crate) bind_port: u16,
    /// One look-up at most.
    pub(crate) dial_timeout: Duration,
    /// Between look-ups where nothing can be watched.
    pub(crate) interval: Duration,
    /// Empty: all addresses are allowed.
    pub(crate) allowed: Vec<IpNet>,
}

impl Surroundings {
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allowed.is_empty() || self.allowed.iter().any(|network| network.contains(&address))
    }

    /// Whether a packet to this peer would come back to this node. `machine` are the addresses of
    /// all interfaces.
    pub(crate) fn is_own(&self, peer: SocketAddr, machine: &[IpAddr]) -> bool {
        let is_everywhere = self.listen.ip().is_unspecified() && peer.port() == self.listen.port();
        peer == self.advertise
            || peer == self.listen
            || is_everywhere && (peer.ip().is_loopback() || machine.contains(&peer.ip()))
    }

    /// Whether gossip can send to this address: a socket of IPv4 cannot reach IPv6, and one of IPv6
    /// reaches both only when it is bound to no address.
    pub(crate) fn speaks_to(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.listen.is_ipv4() || self.listen.is_ipv6() && self.listen.ip().is_unspecified()
    }
}

/// Runs one source until `leaving` turns true, or the control loop is gone. `number`: see
/// [`SourceName`].
pub(crate) async fn follow<S: Source>(
    mut source: S,
    number: usize,
    surroundings: Surroundings,
    events: mpsc::Sender<Event>,
    mut leaving: watch::Receiver<bool>,
) {
    let name = SourceName { method: source.name(), number };
    let mut pace = Pace::new();
    let mut last: Option<Vec<SocketAddr>> = None;
    let mut has_failed = false;
    loop {
        let looked = tokio::select! {
            looked = source.look() => looked,
            _ = leaving.wait_for(|leaving| *leaving) => break,
        };
        let pause = match looked {
            Ok(found) => {
                let machine: Vec<_> = own_addresses().collect();
                let peers = admitted(name, &surroundings, found, last.as_deref(), &machine);
                let is_other = last.as_ref() != Some(&peers);
                if is_other {
                    say_found(name, &peers, last.as_deref());
                    last = Some(peers.clone());
                }
                // Also after failures, which are over now.
                let is_news = is_other || std::mem::take(&mut has_failed);
                if is_news && events.send(Event::Discovered { source: name, peers }).await.is_err() {
                    return;
                }
                pace.after_success()
            }
            Err(failure) => {
                let pause = pace.after_failure();
                if pause.is_worth_saying {
                    say_failed(name, &failure, last.as_ref().map_or(0, Vec::len));
                }
                has_failed = true;
                if events.send(Event::DiscoveryFailed { source: name, failure }).await.is_err() {
                    return;
                }
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause.length) => {}
            _ = leaving.wait_for(|leaving| *leaving) => break,
        }
    }
    if tokio::time::timeout(LEAVE_TIMEOUT, source.leave()).await.is_err() {
        tracing::warn!(source = %name, "the registration could not be taken back in time; it will expire");
    }
}

/// What of a source's list may be contacted: sorted, without doubles, ourselves, what is not
/// allowed, what gossip cannot send to and what is no host.
fn admitted(
    source: SourceName,
    surroundings: &Surroundings,
    mut found: Vec<SocketAddr>,
    last: Option<&[SocketAddr]>,
    machine: &[IpAddr],
) -> Vec<SocketAddr> {
    for peer in &mut found {
        peer.set_ip(peer.ip().to_canonical());
    }
    found.sort_unstable();
    found.dedup();
    let is_new = |peer: &SocketAddr| last.is_none_or(|last| last.binary_search(peer).is_err());
    found.retain(|peer| {
        let is_host = !peer.ip().is_unspecified() && !peer.ip().is_multicast() && peer.port() != 0;
        if !is_host || surroundings.is_own(*peer, machine) || !surroundings.speaks_to(peer.ip()) {
            return false;
        }
        let is_allowed = surroundings.allows(peer.ip());
        if !is_allowed && is_new(peer) {
            tracing::warn!(
                %source,
                %peer,
                "not in allowed address space; add its network to `allowed_address_space` if it is a node of this cluster"
            );
        }
        is_allowed
    });
    if found.len() > PEERS_PER_SOURCE_MAX {
        tracing::warn!(
            %source,
            found = found.len(),
            kept = PEERS_PER_SOURCE_MAX,
            "more peers than a cluster can have; the rest is left out; narrow what the source selects"
        );
        found.truncate(PEERS_PER_SOURCE_MAX);
    }
    found
}

fn say_found(source: SourceName, peers: &[SocketAddr], last: Option<&[SocketAddr]>) {
    let is_news = peers.iter().any(|peer| last.is_none_or(|last| last.binary_search(peer).is_err()));
    if is_news {
        tracing::info!(%source, "discovered {} nodes", peers.len());
    } else if peers.is_empty() {
        tracing::warn!(
            %source,
            "no new nodes discovered; 0 known. Alone? compare `service_name` and the source's settings with the other \
             nodes'; {}",
            where_to_look(source.method)
        );
    } else {
        tracing::warn!(%source, "no new nodes discovered; {} known", peers.len());
    }
}

/// What to look at when a source works and sees nobody.
pub(crate) fn where_to_look(source: &str) -> &'static str {
    match source {
        "kubernetes" => "`kubectl get pods --show-labels` shows namespace, labels and whether pods are ready",
        "consul" => "see in Consul whether the others are registered, in this datacenter, and their checks pass",
        "etcd" => "`etcdctl get --prefix /SERVICE_NAME/ --keys-only` lists who is registered",
        "dns" => "`nslookup` shows what the names stand for; they have to stand for all nodes' addresses",
        "udp" => {
            "see whether UDP port `udp_broadcast_port` is open in firewalls, all nodes are in one subnet, and the \
             network lets broadcasts through (`tcpdump -i any -n udp port PORT`)"
        }
        "mdns" => {
            "see whether UDP port 5353 is open in firewalls, all nodes are on one link, and multicast is let through \
             (`ip link`, `avahi-browse -a`)"
        }
        _ => "see whether `peers` lists others than this node",
    }
}

fn say_failed(source: SourceName, failure: &Failure, kept: usize) {
    let Failure { line, cause, remedy } = failure;
    tracing::error!(%source, kept, "discovery failed: {line}: {cause}; {remedy}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: SourceName = SourceName { method: "named", number: 1 };

    /// Of a node at 192.0.2.1:10101, on all interfaces.
    pub(super) fn surroundings() -> Surroundings {
        Surroundings {
            node_id: "n1".to_owned(),
            advertise: "192.0.2.1:10101".parse().unwrap(),
            listen: "0.0.0.0:10101".parse().unwrap(),
            service_name: "cluster".to_owned(),
            bind_port: 10_101,
            dial_timeout: Duration::from_secs(1),
            interval: Duration::from_secs(10),
            allowed: Vec::new(),
        }
    }

    #[track_caller]
    fn check(surroundings: &Surroundings, found: &[&str], admits: &[&str]) {
        let machine = ["192.0.2.1", "10.0.0.1", "127.0.0.1"].map(|text| text.parse().unwrap());
        let found = found.iter().map(|text| text.parse().unwrap()).collect();
        let admitted = admitted(NAME, surroundings, found, None, &machine);
        assert_eq!(admitted.iter().map(ToString::to_string).collect::<Vec<_>>(), admits);
    }

    #[test]
    fn a_list_is_sorted_and_without_doubles() {
        let found = ["192.0.2.9:2", "192.0.2.8:1", "192.0.2.9:2", "[::ffff:192.0.2.9]:2"];
        check(&surroundings(), &found, &["192.0.2.8:1", "192.0.2.9:2"]);
    }

    #[test]
    fn a_node_is_no_peer_of_its_own_on_any_of_its_addresses() {
        let found = ["192.0.2.1:10101", "10.0.0.1:10101", "127.0.0.1:10101", "10.0.0.1:10102"];
        check(&surroundings(), &found, &["10.0.0.1:10102"]);
    }

    #[test]
    fn a_node_on_one_address_has_peers_on_the_others_of_its_machine() {
        let listen = "127.0.0.2:10101".parse().unwrap();
        let bound = Surroundings { advertise: listen, listen, ..surroundings() };
        check(&bound, &["127.0.0.1:10101", "127.0.0.2:10101"], &["127.0.0.1:10101"]);
    }

    #[test]
    fn what_is_no_host_is_no_peer() {
        check(&surroundings(), &["0.0.0.0:10101", "224.0.0.1:10101", "192.0.2.9:0"], &[]);
    }

    #[test]
    fn only_allowed_networks_are_contacted() {
        let allowed = vec!["10.0.0.0/8".parse().unwrap()];
        let found = ["192.0.2.9:1", "10.1.2.3:1", "[::ffff:10.1.2.4]:1"];
        check(&Surroundings { allowed, ..surroundings() }, &found, &["10.1.2.3:1", "10.1.2.4:1"]);
    }

    #[test]
    fn addresses_that_gossip_cannot_send_to_are_left_out() {
        let found = ["192.0.2.9:1", "[2001:db8::9]:1"];
        check(&surroundings(), &found, &["192.0.2.9:1"]);
        let listening = |listen: &str| Surroundings { listen: listen.parse().unwrap(), ..surroundings() };
        check(&listening("[2001:db8::1]:10101"), &found, &["[2001:db8::9]:1"]);
        check(&listening("[::]:10101"), &found, &found);
    }
}
