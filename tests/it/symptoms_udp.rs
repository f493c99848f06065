//! The troubleshooting of UDP broadcast, in network namespaces: what log and `doctor` say names cause
//! and remedy, with no node running here and beside one.

use crate::cluster_rig::{Cluster, Program};
use crate::discovery_udp::{PORT, by_broadcast};
use crate::node_rig::{program, until};
use std::net::UdpSocket;
use std::process::Command;

/// No nodes discovered via UDP broadcast: a firewall on the port. Then the same with a node here.
#[test]
fn broadcasts_that_a_firewall_drops_are_missed_and_found_again() {
    let mut cluster = Cluster::in_namespaces(2, &by_broadcast(PORT, "10.77.0.0/24"));
    cluster.start(0);
    cluster.wait_for_line(&[0], "no new nodes discovered; 0 known");
    cluster.wait_for_line(&[0], "see whether UDP port `udp_broadcast_port` is open in firewalls");
    (0..2).for_each(|number| cluster.space(number).block(&["iifname e0 udp dport 9999"]));
    cluster.assert_doctor_says(
        1,
        &["no new nodes discovered", "udp works and sees no node", "all nodes are in one subnet"],
    );
    cluster.space(0).block(&[]);
    cluster.space(1).block(&["udp dport 9999"]);
    cluster.assert_doctor_says(1, &["beacons cannot be sent", "Operation not permitted", "`nft list ruleset`"]);
    cluster.space(1).block(&[]);
    let (code, said) = cluster.doctor(1);
    assert!(code == 0 && said.contains("udp discovered 1 nodes: 10.77.0.1:10101"), "{said}");
    assert_eq!(cluster.status(0).expect("it runs")["members"], 1, "who only looks is nobody's peer");

    // Beside a node: what it knows is tried.
    cluster.start(1);
    cluster.wait_together(&[0, 1]);
    let (code, said) = cluster.doctor(1);
    assert!(code == 0, "{said}");
    for words in ["discovery udp was not tried", "10.77.0.1:10101 is n0, answers", "cluster health: HEALTHY"] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
    cluster.space(0).connect(false);
    cluster.assert_doctor_says(1, &["10.77.0.1:10101 is not reached by UDP or TCP", "open port 10101", "both ways"]);
}

/// Address space filtering issues: another node's address, and this one's own.
#[test]
fn an_address_space_without_the_nodes_is_named_by_who_only_looks() {
    let mut cluster = Cluster::in_namespaces(2, &by_broadcast(PORT, "10.77.0.0/24"));
    cluster.start(0);
    cluster.configure(1, &by_broadcast(PORT, "10.77.0.2/32"));
    let remedy = "add its network to `allowed_address_space`";
    cluster.assert_doctor_says(1, &["not in allowed address space", "sender=10.77.0.1", remedy]);
    cluster.configure(1, &by_broadcast(PORT, "192.168.1.0/24"));
    cluster.assert_doctor_says(
        1,
        &[
            "not in allowed address space",
            "this node is at 10.77.0.2, which is outside of 192.168.1.0/24",
            "add the network of the nodes",
        ],
    );
}

/// Permission denied on UDP port: a port for root, and one that another program has.
#[test]
fn a_broadcast_port_that_cannot_be_had_is_named_with_its_remedy() {
    let cluster = Cluster::in_namespaces(2, &by_broadcast(99, "10.77.0.0/24"));
    let log = cluster.scratch().path("unprivileged.log");
    for command in [None, Some("doctor")] {
        let mut node = Command::new("setpriv");
        node.args(["--bounding-set", "-net_bind_service", "--"]).arg(program().get_program());
        node.arg("--config").arg(cluster.config(0)).args(command);
        let output = std::fs::File::create(&log).expect("a log file");
        node.stdout(output.try_clone().expect("a file")).stderr(output);
        let _node = Program::from(cluster.start_beside(0, &mut node));
        for words in ["discovery failed: permission denied", "UDP port 99", "above 1023", "CAP_NET_BIND_SERVICE"] {
            until(words, || std::fs::read_to_string(&log).ok()?.contains(words).then_some(()));
        }
    }
    cluster.configure(1, &by_broadcast(PORT, "10.77.0.0/24"));
    let _other = cluster.space(1).inside(|| UdpSocket::bind(("0.0.0.0", PORT))).expect("the port is free");
    cluster.assert_doctor_says(1, &["discovery failed: address already in use", "netstat -tulpn | grep 9999"]);
}
