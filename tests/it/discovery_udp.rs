//! Nodes that find each other by UDP broadcast, in network namespaces around a bridge.

use crate::cluster_rig::{Cluster, OTHER_KEY};
use crate::node_rig::free_port;
use serde_json::{Value, json};
use std::net::UdpSocket;

pub(crate) const PORT: u16 = 9_999;

pub(crate) fn by_broadcast(port: u16, space: &str) -> Value {
    json!({ "discovery": {
        "enabled": true, "type": "udp", "service_name": "cluster", "udp_broadcast_port": port,
        "allowed_address_space": [space], "interval": "1s", "dial_timeout": "2s",
    } })
}

fn laid_over(mut config: Value, name: &str, value: Value) -> Value {
    config[name] = value;
    config
}

#[test]
fn broadcasts_form_a_cluster_and_follow_who_comes_and_goes() {
    let discovery = by_broadcast(PORT, "10.77.0.0/24");
    let mut cluster = Cluster::in_namespaces(3, &discovery);
    cluster.start_all();
    cluster.wait_together(&[0, 1, 2]);
    cluster.wait_discovered(&[0, 1, 2], 2);

    // Another key: nobody takes it in, and everybody says why.
    let other_key = laid_over(discovery.clone(), "gossip", json!({ "encryption_keys": [OTHER_KEY] }));
    let added = cluster.add(&other_key);
    cluster.start(added);
    cluster.wait_for_line(&[0, 1, 2, added], "a node with another gossip key or `cluster_name`");
    cluster.wait_discovered(&[added], 0);
    cluster.wait_together(&[0, 1, 2]);
    cluster.stop(added);
    cluster.configure(added, &discovery);
    cluster.start(added);
    cluster.wait_together(&[0, 1, 2, added]);
    cluster.wait_discovered(&[0, 1, 2, added], 3);

    // One that leaves says so; one that is killed is forgotten for its silence.
    cluster.stop(added);
    cluster.wait_discovered(&[0, 1, 2], 2);
    cluster.wait_together(&[0, 1, 2]);
    cluster.kill(2);
    cluster.wait_discovered(&[0, 1], 1);
    cluster.wait_healthy(&[0, 1], 2);
    cluster.start(2);
    cluster.wait_healthy(&[0, 1, 2], 3);
    cluster.wait_discovered(&[0, 1, 2], 2);

    // Off the network and back again.
    cluster.space(1).connect(false);
    cluster.wait_discovered(&[0, 2], 1);
    cluster.wait_healthy(&[0, 2], 2);
    cluster.space(1).connect(true);
    cluster.wait_healthy(&[0, 1, 2], 3);
    cluster.wait_discovered(&[0, 1, 2], 2);
}

#[test]
fn nodes_of_one_machine_share_the_broadcast_port() {
    let mut cluster = Cluster::on_loopback(3, &by_broadcast(free_port(), "127.0.0.0/8"));
    cluster.start_all();
    cluster.wait_together(&[0, 1, 2]);
    cluster.wait_discovered(&[0, 1, 2], 2);
}

#[test]
fn what_is_wrong_with_a_broadcast_is_named_with_its_remedy() {
    let discovery = by_broadcast(PORT, "10.77.0.0/24");
    let mut cluster = Cluster::in_namespaces(4, &discovery);
    // Only itself is allowed; nobody at all is allowed; the port is somebody else's.
    cluster.configure(1, &by_broadcast(PORT, &format!("{}/32", cluster.address(1))));
    cluster.configure(2, &by_broadcast(PORT, "192.0.2.0/24"));
    let other_program = cluster.space(3).inside(|| UdpSocket::bind(("0.0.0.0", PORT))).expect("the port is free");
    cluster.start_all();

    cluster.wait_for_line(&[1], "not in allowed address space; add its network to `allowed_address_space`");
    cluster.wait_discovered(&[1], 0);
    cluster.wait_for_line(&[2], "discovery failed: not in allowed address space: none of this node's own");
    cluster.wait_for_line(&[3], "discovery failed: address already in use: UDP port 9999");
    cluster.wait_for_line(&[3], "netstat -tulpn | grep 9999");

    // The port is free again, and is tried again. Whoever allows the second one's address made it a
    // member all the same.
    drop(other_program);
    cluster.wait_discovered(&[3], 2);
    cluster.wait_together(&[0, 1, 3]);
}
