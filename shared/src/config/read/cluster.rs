//! `cluster_config`: this node's name, its peers, gossip.

use core::num::{NonZeroU8, NonZeroU16};
use core::time::Duration;

use super::server::read_host;
use super::{discovery, read_switch};
use crate::config::model::{Cluster, Discovery, Gossip, InitialState, NodeId, Secret};
use crate::config::reader::{Fields, Node, Place, Reader};

/// Static peers, and nodes that may be expected.
const NODES_MAX: u64 = 1_024;

/// Discovery methods at once.
const DISCOVERIES_MAX: usize = 16;

/// Keys of the gossip keyring: the one in use, the next, and some that are on their way out.
const GOSSIP_KEYS_MAX: usize = 16;

/// Base64 of 32 bytes: 43 characters and one `=`.
const GOSSIP_KEY_CHARACTERS: usize = 44;

const INITIAL_STATES: [(&str, InitialState); 2] = [("new", InitialState::New), ("existing", InitialState::Existing)];

pub(super) fn read(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Cluster> {
    reader.object(node, |reader, fields| {
        let base = Cluster::default();
        let gossip = fields.read(reader, "gossip", |r, n| r.object(n, read_gossip)).unwrap_or_default();
        let discovery_node = fields.get(reader, "discovery");
        let discovery = discovery_node.as_ref().map(|node| read_discoveries(reader, node, gossip.port));
        let cluster = Cluster {
            enabled: read_switch(reader, fields, "enabled"),
            cluster_name: fields.read(reader, "cluster_name", Reader::name).unwrap_or(base.cluster_name),
            node_id: fields.read(reader, "node_id", read_node_id),
            region: fields.read(reader, "region", Reader::name).unwrap_or(base.region),
            peers: fields
                .read(reader, "peers", |r, n| Some(r.list(n, NODES_MAX as usize, |r, n| r.host_port(n, None))))
                .unwrap_or_default(),
            bind_address: fields.read(reader, "bind_address", read_host).unwrap_or(base.bind_address),
            advertise_address: fields.read(reader, "advertise_address", |r, n| r.host_port(n, Some(gossip.port))),
            expected_nodes: fields
                .read(reader, "expected_nodes", |r, n| r.count(n, 1..=NODES_MAX))
                .and_then(NonZeroU16::new),
            initial_state: fields
                .read(reader, "initial_state", |r, n| r.choice(n, &INITIAL_STATES))
                .unwrap_or_default(),
            gossip,
            discovery: discovery.unwrap_or_default(),
        };
        let discovery_place = discovery_node.map(|node| node.place);
        check(reader, &fields.place, &cluster, discovery_place.as_ref());
        cluster
    })
}

/// The public page has one object; several methods at once are a list of them.
fn read_discoveries(reader: &mut Reader<'_>, node: &Node<'_>, gossip_port: u16) -> Vec<Discovery> {
    if node.is_list() {
        let found = reader.list(node, DISCOVERIES_MAX, |r, n| Some(discovery::read(r, n, gossip_port)));
        return found.into_iter().flatten().collect();
    }
    discovery::read(reader, node, gossip_port).into_iter().collect()
}

fn check(reader: &mut Reader<'_>, place: &Place, cluster: &Cluster, discovery: Option<&Place>) {
    if !cluster.enabled {
        return;
    }
    // A discovery that did not load has its own fault already.
    let discovery_is_at_fault = discovery.is_some_and(|place| reader.has_fault_below(place));
    if cluster.peers.is_empty() && cluster.discovery.is_empty() && !discovery_is_at_fault {
        let problem = "enabled, with neither peers nor discovery";
        reader.fault(place, problem, "peers, or a discovery that is enabled");
    }
    let is_open =
        cluster.gossip.encryption_keys.is_empty() && !cluster.gossip.insecure && !cluster.bind_address.is_loopback();
    if is_open {
        let message = "gossip has no encryption_keys: unless DEEPINTSHIELD_GOSSIP_KEY holds one, the node refuses to start on an address that others reach; make a key with `openssl rand -base64 32`, or say \"insecure\": true in gossip";
        reader.warn(place, message);
    }
}

fn read_node_id(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<NodeId> {
    let text = reader.text(node)?;
    match NodeId::new(&text) {
        Ok(id) => Some(id),
        Err(fault) => {
            reader.fault(&node.place, fault.to_string(), "");
            None
        }
    }
}

fn read_gossip(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Gossip {
    let base = Gossip::default();
    let mut gossip = Gossip {
        port: fields.read(reader, "port", Reader::port).unwrap_or(base.port),
        encryption_keys: fields
            .read(reader, "encryption_keys", |r, n| Some(r.list(n, GOSSIP_KEYS_MAX, read_gossip_key)))
            .unwrap_or_default(),
        interval: fields
            .read(reader, "interval", |r, n| r.duration(n, &(Duration::from_millis(20)..=Duration::from_secs(10))))
            .unwrap_or(base.interval),
        insecure: read_switch(reader, fields, "insecure"),
        ..base
    };
    if let Some(node) = fields.get(reader, "config") {
        reader.object(&node, |reader, fields| {
            let threshold = |r: &mut Reader<'_>, n: &Node<'_>| r.count(n, 1..=100).and_then(NonZeroU8::new);
            gossip.timeout =
                fields.read(reader, "timeout_seconds", |r, n| r.seconds(n, 1..=3_600)).unwrap_or(gossip.timeout);
            gossip.success_threshold =
                fields.read(reader, "success_threshold", threshold).unwrap_or(gossip.success_threshold);
            gossip.failure_threshold =
                fields.read(reader, "failure_threshold", threshold).unwrap_or(gossip.failure_threshold);
        });
    }
    gossip
}

fn read_gossip_key(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Secret> {
    let key = reader.secret(node)?.secret;
    let fits = key.len() == GOSSIP_KEY_CHARACTERS
        && key.expose().strip_suffix('=').is_some_and(|digits| {
            digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
        });
    if !fits {
        let expected = "32 random bytes in base64 (44 characters)";
        reader.fault(&node.place, "not a gossip key", expected);
    }
    fits.then_some(key)
}
