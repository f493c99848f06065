//! The pods that are known, and where their gossip is reached. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Pods that are followed, ready or not; far beyond what a cluster can have.
pub(super) const PODS_MAX: usize = 4 * crate::discovery::PEERS_PER_SOURCE_MAX;

/// A container port of this name is where gossip is.
const PORT_NAME: &str = "gossip";

/// How a pod becomes a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// Our own address's family, which is chosen where a pod has both.
    pub(super) prefers_ipv4: bool,
    /// `bind_port`
    pub(super) port_default: u16,
}

/// By name, since a namespace has each but once at a time.
#[derive(Debug, Default)]
pub(super) struct Pods(BTreeMap<String, Known>);

#[derive(Debug, PartialEq, Eq)]
struct Known {
    /// Tells a pod from its successor of the same name.
    uid: Option<String>,
    /// `None`: not ready.
    peer: Option<SocketAddr>,
}

impl Pods {
    /// Whether the peers are others than before.
    pub(super) fn put(&mut self, pod: &Pod, reading: Reading) -> bool {
        let Some(name) = pod.metadata.name.clone() else { return false };
        if self.0.len() >= PODS_MAX && !self.0.contains_key(&name) {
            return false;
        }
        let known = Known { uid: pod.metadata.uid.clone(), peer: peer(pod, reading) };
        let peer = known.peer;
        let before = self.0.insert(name, known);
        before.and_then(|before| before.peer) != peer
    }

    /// Whether the peers are others than before. The end of a predecessor changes nothing.
    pub(super) fn take(&mut self, pod: &Pod) -> bool {
        let Some(name) = &pod.metadata.name else { return false };
        if self.0.get(name).is_none_or(|known| known.uid != pod.metadata.uid) {
            return false;
        }
        self.0.remove(name).is_some_and(|known| known.peer.is_some())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn peers(&self) -> Vec<SocketAddr> {
        self.0.values().filter_map(|known| known.peer).collect()
    }
}

/// Where a pod's gossip is reached, if it is running, ready and not about to end.
fn peer(pod: &Pod, reading: Reading) -> Option<SocketAddr> {
    let status = pod.status.as_ref()?;
    if pod.metadata.deletion_timestamp.is_some() || status.phase.as_deref() != Some("Running") {
        return None;
    }
    let mut conditions = status.conditions.iter().flatten();
    if !conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True") {
        return None;
    }
    let several = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let addresses: Vec<IpAddr> = several.chain(status.pod_ip.as_deref()).filter_map(|ip| ip.parse().ok()).collect();
    let is_preferred = |ip: &&IpAddr| ip.is_ipv4() == reading.prefers_ipv4;
    let ip = addresses.iter().find(is_preferred).or(addresses.first())?;
    Some(SocketAddr::new(*ip, port(pod).unwrap_or(reading.port_default)))
}

/// The first port of that name, whatever its protocol: gossip uses UDP and TCP on one.
fn port(pod: &Pod) -> Option<u16> {
    let spec = pod.spec.as_ref()?;
    // Those of `init_containers` that restart always run beside the others.
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let mut ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let port = ports.find(|port| port.name.as_deref() == Some(PORT_NAME))?;
    u16::try_from(port.container_port).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const IPV4: Reading = Reading { prefers_ipv4: true, port_default: 10_101 };
    const IPV6: Reading = Reading { prefers_ipv4: false, port_default: 10_101 };

    /// A ready pod, with `changes` merged over it.
    fn pod(changes: Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "gate-0", "uid": "u1"},
            "spec": {"containers": [{"name": "gate", "ports": [{"containerPort": 8080, "name": "http"}]}]},
            "status": {
                "phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
                "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}, {"ip": "fd00::5"}],
            },
        });
        merge(&mut pod, changes);
        serde_json::from_value(pod).expect("a pod")
    }

    fn merge(into: &mut Value, changes: Value) {
        match (into, changes) {
            (Value::Object(into), Value::Object(changes)) => {
                changes.into_iter().for_each(|(name, change)| merge(into.entry(name).or_insert(Value::Null), change));
            }
            (into, change) => *into = change,
        }
    }

    #[track_caller]
    fn check(changes: Value, reading: Reading, expected: Option<&str>) {
        let found = peer(&pod(changes), reading).map(|peer| peer.to_string());
        assert_eq!(found.as_deref(), expected);
    }

    #[test]
    fn a_ready_pod_is_reached_at_one_address_of_our_family() {
        check(json!({}), IPV4, Some("10.1.0.5:10101"));
        check(json!({}), IPV6, Some("[fd00::5]:10101"));
        check(json!({"status": {"podIPs": [{"ip": "fd00::5"}]}}), IPV6, Some("[fd00::5]:10101"));
        check(json!({"status": {"podIPs": null}}), IPV6, Some("10.1.0.5:10101"));
        check(json!({"status": {"podIPs": null, "podIP": "not yet"}}), IPV4, None);
    }

    #[test]
    fn a_container_port_named_gossip_is_the_port() {
        let named = |port: i64| json!([{"name": "gate", "ports": [{"containerPort": port, "name": "gossip"}]}]);
        check(json!({"spec": {"containers": named(7_946)}}), IPV4, Some("10.1.0.5:7946"));
        check(json!({"spec": {"containers": named(0)}}), IPV4, Some("10.1.0.5:10101"));
        let mut sidecar = named(7_000);
        check(json!({"spec": {"initContainers": sidecar.clone()}}), IPV4, Some("10.1.0.5:10101"));
        sidecar[0]["restartPolicy"] = json!("Always");
        check(json!({"spec": {"initContainers": sidecar}}), IPV4, Some("10.1.0.5:7000"));
    }

    #[test]
    fn a_pod_that_is_not_ready_or_about_to_end_is_no_peer() {
        check(json!({"status": {"phase": "Pending"}}), IPV4, None);
        check(json!({"status": {"phase": "Succeeded"}}), IPV4, None);
        check(json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}), IPV4, None);
        check(json!({"status": {"conditions": null}}), IPV4, None);
        check(json!({"status": null}), IPV4, None);
        check(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), IPV4, None);
    }

    #[test]
    fn the_late_end_of_a_predecessor_does_not_take_its_successor_away() {
        let mut pods = Pods::default();
        assert!(pods.put(&pod(json!({})), IPV4));
        assert!(!pods.put(&pod(json!({})), IPV4), "the same event again");
        assert!(
            pods.put(&pod(json!({"metadata": {"uid": "u2"}, "status": {"podIPs": null, "podIP": "10.1.0.9"}})), IPV4)
        );
        assert!(!pods.take(&pod(json!({}))));
        let successor: SocketAddr = "10.1.0.9:10101".parse().expect("an address");
        assert_eq!(pods.peers(), [successor]);
        assert!(pods.take(&pod(json!({"metadata": {"uid": "u2"}}))));
        assert!(!pods.take(&pod(json!({"metadata": {"uid": "u2"}}))));
        assert!(pods.peers().is_empty());
    }

    #[test]
    fn no_more_pods_are_followed_than_the_bound() {
        let mut pods = Pods::default();
        for number in 0..=PODS_MAX {
            pods.put(&pod(json!({"metadata": {"name": format!("gate-{number}")}})), IPV4);
        }
        assert_eq!(pods.len(), PODS_MAX);
    }
}
