//! What the configuration alone shows. Pure.

use super::Remark;
use crate::cluster::ClusterError;
use crate::gossip::keyring::Keyring;
use shared::config::model::{Cluster, DiscoverySource};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub(super) const ALONE: &str = "cluster forms but only has 1 member";
pub(super) const FILTERED: &str = "not in allowed address space";

/// Shorter than this, a pause of a busy machine looks like a death.
const TIMEOUT_FAIR: Duration = Duration::from_secs(3);
/// More often than this, discovery is load for whoever answers it.
const INTERVAL_FAIR: Duration = Duration::from_secs(1);
/// Ports below are for programs with the right to them.
const PRIVILEGED_PORTS_END: u16 = 1_024;

/// Everything but addresses.
pub(super) fn judge(cluster: &Cluster, keyring: &Result<Keyring, ClusterError>) -> Vec<Remark> {
    if !cluster.enabled {
        let cause = "`cluster_config` is missing, or its `enabled` is false: this node looks for nobody";
        let remedy = "set `cluster_config.enabled` to true and give it `peers` or a `discovery`";
        return vec![Remark::wrong(ALONE, cause, remedy)];
    }
    let mut remarks = Vec::new();
    let gossip = &cluster.gossip;
    match keyring {
        Err(error) => {
            let remedy = "correct the key and compare it with the other nodes'";
            remarks.push(Remark::wrong("the node does not start", error.to_string(), remedy));
        }
        Ok(ring) if ring.is_plain() && !gossip.insecure && !cluster.bind_address.is_loopback() => {
            let cause = format!("gossip on {} has no encryption keys", cluster.bind_address);
            let remedy = "make a key with `openssl rand -base64 32` and give it to every node in \
                          `gossip.encryption_keys` or DEEPINTSHIELD_GOSSIP_KEY, or say \"insecure\": true";
            remarks.push(Remark::wrong("the node does not start", cause, remedy));
        }
        Ok(ring) => {
            let keys = if ring.is_plain() { "none".to_owned() } else { joined(ring.key_ids()) };
            let (name, port) = (&cluster.cluster_name, gossip.port);
            let same = format!("every node has to have the same: cluster_name {name:?}, gossip keys {keys} (ids)");
            remarks.push(Remark::Note(format!("{same}; gossip port here: {port}")));
        }
    }
    for discovery in &cluster.discovery {
        remarks.push(Remark::Note(format!("and the same service_name: {:?}", discovery.service_name)));
        if discovery.interval < INTERVAL_FAIR {
            let text =
                format!("discovery every {:?} is load for whoever answers it; 10 s are usual", discovery.interval);
            remarks.push(Remark::Note(text));
        }
        match &discovery.source {
            DiscoverySource::Kubernetes { label_selector: None, .. } => {
                let remedy = "set `k8s_label_selector`, to \"app=deepintshield\" for example";
                remarks.push(Remark::wrong(ALONE, "there is no `k8s_label_selector`, so no pod is a peer", remedy));
            }
            DiscoverySource::Udp { broadcast_port } if *broadcast_port < PRIVILEGED_PORTS_END => {
                let text = format!("udp_broadcast_port {broadcast_port} needs the right to ports below 1024");
                remarks.push(Remark::Note(text));
            }
            _ => {}
        }
    }
    if gossip.timeout < TIMEOUT_FAIR {
        let text = format!(
            "gossip.timeout_seconds is {}: a short pause of a node or network counts as its death; nodes that come and \
             go repeatedly need more",
            gossip.timeout.as_secs()
        );
        remarks.push(Remark::Note(text));
    }
    remarks
}

/// Whether others that are configured alike would take this address.
pub(super) fn judge_advertised(cluster: &Cluster, advertise: SocketAddr) -> Vec<Remark> {
    let ip = advertise.ip().to_canonical();
    let mut remarks = Vec::new();
    for discovery in &cluster.discovery {
        let allowed = &discovery.allowed_address_space;
        if !allowed.is_empty() && !allowed.iter().any(|network| network.contains(&ip)) {
            let cause = format!("this node is at {ip}, which is outside of {}", joined(allowed));
            let remedy = "add its network (the network's address, such as 10.0.0.0/8, not the host's) to \
                          `allowed_address_space` on every node, or set `advertise_address`";
            remarks.push(Remark::wrong(FILTERED, cause, remedy));
        }
    }
    if ip.is_loopback() && !is_all_on_loopback(cluster) {
        let cause = format!("this node tells others to reach it at {advertise}, which is their own machine");
        let remedy = "set `cluster_config.advertise_address`, or a `bind_address` that others can reach";
        remarks.push(Remark::wrong(ALONE, cause, remedy));
    }
    remarks
}

/// Some nodes of one machine, as in a test.
fn is_all_on_loopback(cluster: &Cluster) -> bool {
    let is_loopback = |host: &str| host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    cluster.bind_address.is_loopback() && cluster.peers.iter().all(|peer| is_loopback(peer.host()))
}

pub(super) fn joined<T: ToString>(parts: impl IntoIterator<Item = T>) -> String {
    parts.into_iter().map(|part| part.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::{Sources, load};

    fn cluster(text: &str) -> Cluster {
        let sources = Sources::none();
        load(&format!(r#"{{"cluster_config": {text}}}"#), &sources).expect("it loads").config.cluster
    }

    fn judged(cluster: &Cluster) -> Vec<Remark> {
        judge(cluster, &Ok(Keyring::new("c", &cluster.gossip.encryption_keys).expect("keys")))
    }

    fn causes(remarks: &[Remark]) -> Vec<&str> {
        let mut causes = Vec::new();
        for remark in remarks {
            if let Remark::Wrong(finding) = remark {
                causes.push(finding.cause.as_str());
            }
        }
        causes
    }

    #[test]
    fn a_node_that_looks_for_nobody_is_told_so() {
        assert!(causes(&judged(&Cluster::default()))[0].contains("`enabled` is false"));
    }

    #[test]
    fn a_port_that_others_reach_needs_keys_or_the_word_that_it_does_not() {
        for (more, count) in
            [("", 1), (r#", "bind_address": "127.0.0.1""#, 0), (r#", "gossip": {"port": 1, "insecure": true}"#, 0)]
        {
            let cluster = cluster(&format!(r#"{{"enabled": true, "peers": ["127.0.0.2:1"]{more}}}"#));
            assert_eq!(causes(&judged(&cluster)).len(), count, "{more}");
        }
    }

    #[test]
    fn an_address_that_others_would_not_take_is_found() {
        let cluster = cluster(
            r#"{"enabled": true, "discovery": {"enabled": true, "type": "dns", "service_name": "s",
                "dns_names": ["a.test"], "allowed_address_space": ["10.0.0.0/8"]}}"#,
        );
        let judged = |address: &str| judge_advertised(&cluster, address.parse().unwrap());
        assert!(judged("10.1.2.3:1").is_empty());
        assert!(causes(&judged("192.0.2.1:1"))[0].contains("outside of 10.0.0.0/8"));
        assert_eq!(causes(&judged("127.0.0.1:1")).len(), 2, "and it is loopback");
    }
}
