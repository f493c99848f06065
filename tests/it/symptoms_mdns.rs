//! The troubleshooting of mDNS, in network namespaces: what log and `doctor` say names cause and
//! remedy, with no node running here and beside one.

use crate::avahi::Avahi;
use crate::cluster_rig::Cluster;
use crate::discovery_mdns::{SERVICE, by_mdns};

/// mDNS services not discovered: multicast that is dropped, and a machine without a network. Then
/// discovery works but the cluster is unstable: members are kept by gossip alone.
#[test]
fn multicast_that_is_dropped_hides_nodes_and_parts_no_members() {
    let mut cluster = Cluster::in_namespaces(2, &by_mdns("cluster"));
    cluster.space(1).block(&["udp dport 5353"]);
    cluster.start_all();
    cluster.wait_for_line(&[0, 1], "no new nodes discovered; 0 known");
    cluster.wait_for_line(&[0, 1], "UDP port 5353 is open in firewalls, all nodes are on one link, and multicast");
    cluster.stop(1);
    cluster.assert_doctor_says(1, &["mdns works and sees no node", "`ip link`, `avahi-browse -a`"]);
    cluster.space(1).connect(false);
    cluster.space(1).ip("address flush dev e0");
    cluster.assert_doctor_says(1, &["no address for mdns", "connect it to a network"]);
    cluster.space(1).ip("address add 10.77.0.2/24 broadcast + dev e0");
    cluster.space(1).connect(true);
    cluster.space(1).block(&[]);
    let (code, said) = cluster.doctor(1);
    assert!(code == 0 && said.contains("mdns discovered 1 nodes: 10.77.0.1:10101"), "{said}");

    cluster.start(1);
    cluster.wait_together(&[0, 1]);
    cluster.space(1).block(&["udp dport 5353"]);
    let (code, said) = cluster.doctor(1);
    assert!(code == 0 && said.contains("discovery mdns was not tried"), "{said}");
    assert!(said.contains("10.77.0.1:10101 is n0, answers"), "{said}");
    // Multicast is heard, and gossip is not: that is what parts nodes.
    cluster.space(1).block(&["udp dport 10101", "tcp dport 10101"]);
    cluster.wait_for_line(&[0, 1], "node marked as suspect");
    cluster.wait_discovered(&[0, 1], 1);
    cluster
        .assert_doctor_says(1, &["node marked as", "10.77.0.1:10101 is not reached by UDP or TCP", "open port 10101"]);
    cluster.space(1).block(&[]);
    cluster.wait_together(&[0, 1]);
    cluster.wait_for_line(&[0, 1], "node recovered");
}

/// Network address validation errors: a host that says it has the network's broadcast address.
#[test]
fn an_address_that_no_host_has_is_skipped_and_named() {
    let mut cluster = Cluster::in_namespaces(2, &by_mdns("cluster"));
    let host = cluster.add_host();
    let avahi = Avahi::start(&host);
    let _address = avahi.publish_address("nobody.local", "10.77.0.255");
    let _service = avahi.publish_on("nobody.local", "nobody", SERVICE, 10_101, "service_name=cluster");
    cluster.start(0);
    cluster.wait_for_line(&[0], "skipping invalid host address; nothing is wrong if that node has another one");
    cluster.wait_for_line(&[0], "address=10.77.0.255");
    let (_, said) = cluster.doctor(1);
    for words in ["skipping invalid host address", "10.77.0.255", "see `ip addr` there", "mdns discovered 1 nodes"] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}
