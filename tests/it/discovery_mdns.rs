//! Nodes that find each other by mDNS, in network namespaces around a bridge, with Avahi beside them:
//! it has to see them, and be seen by them.

use crate::avahi::Avahi;
use crate::cluster_rig::Cluster;
use crate::node_rig::until;
use serde_json::{Value, json};

pub(crate) const SERVICE: &str = "_bifrost._tcp";

pub(crate) fn by_mdns(service_name: &str) -> Value {
    json!({ "discovery": {
        "enabled": true, "type": "mdns", "service_name": service_name, "interval": "1s", "dial_timeout": "2s",
    } })
}

#[test]
fn mdns_forms_a_cluster_and_avahi_sees_it_and_is_seen() {
    let mut cluster = Cluster::in_namespaces(3, &by_mdns("cluster"));
    let host = cluster.add_host();
    let avahi = Avahi::start(&host);
    cluster.start_all();
    cluster.wait_together(&[0, 1, 2]);
    cluster.wait_discovered(&[0, 1, 2], 2);

    // Avahi sees each node with its address, its port and its names.
    for number in 0..3 {
        let address = cluster.address(number).to_string();
        let properties = ["\"service_name=cluster\"".to_owned(), format!("\"node_id=n{number}\"")];
        until("avahi sees the node", || {
            let seen = avahi.browse(SERVICE);
            let is_node = |line: &&str| line.starts_with('=') && line.contains(&format!(";{address};10101;"));
            let line = seen.lines().find(is_node)?;
            properties.iter().all(|property| line.contains(property)).then_some(())
        });
    }

    // What Avahi advertises is a peer, unless it is of another cluster; and is none when it ends.
    let stranger = avahi.publish("stranger", SERVICE, 10_101, "service_name=another");
    let peer = avahi.publish("peer", SERVICE, 10_101, "service_name=cluster");
    cluster.wait_discovered(&[0, 1, 2], 3);
    drop(peer);
    cluster.wait_discovered(&[0, 1, 2], 2);
    drop(stranger);

    // A node that leaves says goodbye.
    cluster.stop(2);
    cluster.wait_discovered(&[0, 1], 1);
    cluster.wait_together(&[0, 1]);
    until("avahi has heard the goodbye", || (!avahi.browse(SERVICE).contains("node_id=n2")).then_some(()));

    // One comes, of the right name; another one, of a wrong name, stays alone.
    let (added, alone) = (cluster.add(&by_mdns("cluster")), cluster.add(&by_mdns("another")));
    cluster.start(added);
    cluster.start(alone);
    cluster.wait_together(&[0, 1, added]);
    cluster.wait_together(&[alone]);
    cluster.wait_discovered(&[alone], 0);

    // Avahi is nothing that nodes need, and a killed node is found again.
    drop(avahi);
    cluster.kill(1);
    cluster.wait_healthy(&[0, added], 2);
    cluster.start(1);
    cluster.wait_healthy(&[0, 1, added], 3);
    let avahi = Avahi::start(&host);
    until("the new avahi sees the nodes", || avahi.browse(SERVICE).contains("node_id=n1").then_some(()));
}
