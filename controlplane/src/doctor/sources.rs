//! Tries every way to find peers once, and says who would be tried and who would not.

use super::settings::{FILTERED, joined};
use super::{Patient, Place, Remark};
use crate::cluster::keyring;
use crate::discovery::static_list::StaticList;
use crate::discovery::{Failure, Source, Surroundings, consul, dns, own_addresses, udp, where_to_look};
use shared::config::model::{Cluster, Discovery, DiscoverySource};
use shared::secret::Secret;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// A source has its own deadlines; this much longer than `dial_timeout` it is stuck.
const PATIENCE: Duration = Duration::from_secs(3);
/// Silence after which a subnet has said all that it will.
const GATHER: Duration = Duration::from_millis(1_500);
/// Addresses of one source that are dealt with.
const PEERS_MAX: usize = 64;

/// Peers that a node would try.
pub(super) async fn try_all(patient: &Patient<'_>, place: &Place, say: &mut dyn FnMut(Remark)) -> Vec<SocketAddr> {
    let cluster = &patient.config.cluster;
    let mut peers = Vec::new();
    if !cluster.peers.is_empty() {
        let around = surroundings(cluster, None, place);
        let mut list = StaticList::new(&cluster.peers, &around, patient.clock);
        let fixed = peek(&mut list, &around).await;
        // The list tells addresses first, and names with the next look.
        let found =
            if cluster.peers.iter().all(|peer| peer.ip().is_some()) { fixed } else { peek(&mut list, &around).await };
        peers.extend(sorted_out("peers", &around, found, say));
    }
    for discovery in &cluster.discovery {
        let around = surroundings(cluster, Some(discovery), place);
        let (name, found) = try_one(patient, discovery, &around).await;
        match found {
            Some(found) => peers.extend(sorted_out(name, &around, found, say)),
            None => say(Remark::Note(format!(
                "discovery {name} was not tried: what it needs belongs to the node that runs, or is not in this build"
            ))),
        }
    }
    peers
}

async fn try_one(
    patient: &Patient<'_>,
    discovery: &Discovery,
    around: &Surroundings,
) -> (&'static str, Option<Result<Vec<SocketAddr>, Failure>>) {
    match &discovery.source {
        #[cfg(feature = "kubernetes")]
        DiscoverySource::Kubernetes { namespace, label_selector, kubeconfig } => {
            let settings = crate::discovery::kubernetes::Settings {
                namespace: namespace.clone(),
                label_selector: label_selector.clone(),
                kubeconfig: kubeconfig.clone(),
            };
            let mut source = crate::discovery::kubernetes::Kubernetes::new(around, settings);
            ("kubernetes", Some(peek(&mut source, around).await))
        }
        DiscoverySource::Consul {
            address, token, ca_cert_pem, datacenters, check_interval, deregister_after, ..
        } => {
            let settings = consul::Settings {
                address: address.clone(),
                token: token.as_ref().map(Secret::duplicate),
                ca_cert_pem: ca_cert_pem.clone(),
                datacenters: datacenters.clone(),
                check_interval: *check_interval,
                deregister_after: *deregister_after,
            };
            ("consul", Some(peek(&mut consul::Consul::new(around.clone(), settings), around).await))
        }
        #[cfg(feature = "etcd")]
        DiscoverySource::Etcd { endpoints, username, password, ca_cert_pem, lease_ttl, .. } => {
            let settings = crate::discovery::etcd::Settings {
                endpoints: endpoints.clone(),
                username: username.clone(),
                password: password.as_ref().map(Secret::duplicate),
                ca_cert_pem: ca_cert_pem.clone(),
                lease_ttl: *lease_ttl,
            };
            let mut source = crate::discovery::etcd::Etcd::new(settings, around.clone());
            ("etcd", Some(peek(&mut source, around).await))
        }
        DiscoverySource::Dns { names } => {
            ("dns", Some(peek(&mut dns::Dns::new(names, around, patient.clock), around).await))
        }
        // These would answer each other in our name, and one of them has the port to itself.
        DiscoverySource::Udp { .. } if patient.status.is_some() => ("udp", None),
        DiscoverySource::Mdns { .. } if patient.status.is_some() => ("mdns", None),
        DiscoverySource::Udp { broadcast_port } => {
            let Ok(keyring) = keyring(&patient.config.cluster) else { return ("udp", None) };
            let (_keys, keyring) = watch::channel(keyring);
            let mut source = udp::Udp::new(*broadcast_port, around.clone(), keyring, patient.clock);
            ("udp", Some(peek_for_a_while(&mut source, around).await))
        }
        #[cfg(feature = "mdns")]
        DiscoverySource::Mdns { service } => {
            let mut source = crate::discovery::mdns::Mdns::new(service, around.clone());
            ("mdns", Some(peek_for_a_while(&mut source, around).await))
        }
        #[cfg(not(feature = "kubernetes"))]
        DiscoverySource::Kubernetes { .. } => ("kubernetes", None),
        #[cfg(not(feature = "etcd"))]
        DiscoverySource::Etcd { .. } => ("etcd", None),
        #[cfg(not(feature = "mdns"))]
        DiscoverySource::Mdns { .. } => ("mdns", None),
    }
}

async fn peek<S: Source>(source: &mut S, around: &Surroundings) -> Result<Vec<SocketAddr>, Failure> {
    let bound = around.dial_timeout.saturating_add(PATIENCE);
    timeout(bound, source.peek()).await.unwrap_or_else(|_| {
        Err(Failure {
            line: "timeout waiting for response",
            cause: format!("nothing was found out within {bound:?}"),
            remedy: "check the network to it, and raise `dial_timeout` where it is slow".to_owned(),
        })
    })
}

/// Answers of a whole subnet come one by one.
async fn peek_for_a_while<S: Source>(source: &mut S, around: &Surroundings) -> Result<Vec<SocketAddr>, Failure> {
    let mut found = peek(source, around).await;
    // One bound for all looks: where the interval is short, there is always another one.
    let gathering = async {
        while found.is_ok() {
            found = source.look().await;
        }
    };
    drop(timeout(GATHER, gathering).await);
    drop(timeout(GATHER, source.leave()).await);
    found
}

/// Says what a source sees; what of it would be tried.
fn sorted_out(
    name: &str,
    around: &Surroundings,
    found: Result<Vec<SocketAddr>, Failure>,
    say: &mut dyn FnMut(Remark),
) -> Vec<SocketAddr> {
    let found = match found {
        Ok(found) => found,
        Err(Failure { line, cause, remedy }) => {
            say(Remark::wrong(format!("discovery failed: {line}"), format!("{name}: {cause}"), remedy));
            return Vec::new();
        }
    };
    let machine: Vec<_> = own_addresses().collect();
    let mut peers = Vec::new();
    let mut is_here = false;
    for mut peer in found.into_iter().take(PEERS_MAX) {
        peer.set_ip(peer.ip().to_canonical());
        if around.is_own(peer, &machine) {
            is_here = true;
        } else if peer.ip().is_unspecified() || peer.ip().is_multicast() || peer.port() == 0 {
            let remedy = "correct the entry; nodes should advertise the address that others reach them at";
            say(Remark::wrong(
                "skipping invalid host address",
                format!("{name} sees {peer}, which is no host"),
                remedy,
            ));
        } else if !around.allows(peer.ip()) {
            let cause = format!("{name} sees {peer}, which is outside of {}", joined(&around.allowed));
            say(Remark::wrong(
                FILTERED,
                cause,
                "add its network to `allowed_address_space`, if it is a node of this cluster",
            ));
        } else if !around.speaks_to(peer.ip()) {
            let cause = format!("{name} sees {peer}, which a socket on {} cannot send to", around.listen.ip());
            say(Remark::wrong(
                "nodes discovered but cannot connect",
                cause,
                "set `bind_address` to \"::\", which reaches both families",
            ));
        } else if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    let beside = if is_here { " beside this one" } else { "" };
    if peers.is_empty() {
        let cause = format!("{name} works and sees no node{beside}");
        let remedy = format!(
            "are others running? Compare `service_name` ({:?} here) and the settings of {name} with theirs, see whether \
             the log above complains; {}",
            around.service_name,
            where_to_look(name)
        );
        say(Remark::wrong("no new nodes discovered", cause, remedy));
    } else {
        say(Remark::Good(format!("{name} discovered {} nodes{beside}: {}", peers.len(), joined(&peers))));
    }
    peers
}

/// As the node itself would have them, under a name that is nobody's.
fn surroundings(cluster: &Cluster, discovery: Option<&Discovery>, place: &Place) -> Surroundings {
    let default = Duration::from_secs(10);
    Surroundings {
        node_id: super::reach::name_for_one_visit(),
        advertise: place.advertise,
        listen: place.listen,
        service_name: discovery.map_or_else(String::new, |discovery| discovery.service_name.clone()),
        bind_port: discovery.map_or(cluster.gossip.port, |discovery| discovery.bind_port),
        dial_timeout: discovery.map_or(default, |discovery| discovery.dial_timeout),
        interval: discovery.map_or(default, |discovery| discovery.interval),
        allowed: discovery.map_or_else(Vec::new, |discovery| discovery.allowed_address_space.clone()),
    }
}
