//! Nodes that find each other by DNS, with a real DNS server whose records change. Its names have a
//! TTL of one second and the discovery interval is five minutes, so whatever is noticed here in
//! time was noticed because the TTL was over.

use crate::cluster_rig::Cluster;
use crate::name_server::{NameServer, QUICK, SLOW};
use crate::node_rig::{free_port, until};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};

pub(crate) fn by_names(names: &[&str]) -> Value {
    let names: Vec<_> = names.to_vec();
    json!({ "discovery": {
        "enabled": true, "type": "dns", "service_name": "cluster", "dns_names": names, "interval": "300s", "dial_timeout": "2s",
    } })
}

pub(crate) fn a(owner: &str, ttl: u32, address: IpAddr) -> String {
    format!("{owner} {ttl} {} {address}", if address.is_ipv4() { "A" } else { "AAAA" })
}

/// A and SRV, a port of its own behind SRV, records that come and go, a server that goes and comes.
#[test]
fn dns_names_form_a_cluster_and_follow_their_records() {
    let discovery = by_names(&["nodes.quick.test", "_gossip._udp.quick.test", "fixed.slow.test"]);
    let mut cluster = Cluster::on_loopback(4, &discovery);
    let server = cluster.spare_address(250);
    cluster.resolve_by(server);

    // The second node is found by SRV alone, at a port that no default knows.
    let own_port = free_port();
    let mut with_own_port = discovery.clone();
    with_own_port["gossip"] = json!({ "port": own_port });
    with_own_port["discovery"]["bind_port"] = json!(cluster.ports().gossip);
    cluster.configure(1, &with_own_port);

    let mut dns = NameServer::new(server);
    dns.start(|command| cluster.start_beside(0, command));
    let address = |number: usize| cluster.address(number);
    dns.add(
        QUICK,
        &[a("nodes", 1, address(0)), a("one", 1, address(1)), format!("_gossip._udp 1 SRV 0 0 {own_port} one")],
    );
    dns.add(SLOW, &[a("fixed", 60, address(2))]);
    for number in 0..3 {
        cluster.start(number);
    }
    cluster.wait_together(&[0, 1, 2]);
    cluster.wait_discovered(&[0, 1, 2], 2);

    // The record with the long TTL is not asked for while the others are, again and again.
    let (slow, quick) = (dns.questions(SLOW, "A"), dns.questions(QUICK, "SRV"));
    until("more questions", || (dns.questions(QUICK, "SRV") >= quick + 9).then_some(()));
    assert_eq!(dns.questions(SLOW, "A"), slow, "a TTL of a minute is not over yet");

    // Another address of a known name.
    dns.add(QUICK, &[a("nodes", 1, cluster.address(3))]);
    cluster.start(3);
    cluster.wait_together(&[0, 1, 2, 3]);
    cluster.wait_discovered(&[0, 1, 2, 3], 3);

    // Without the server everybody keeps what it knew, and a node that comes back finds nobody by
    // itself, and is found.
    dns.stop();
    cluster.wait_for_line(&[0, 1, 2, 3], "dns lookup error");
    cluster.wait_for_line(&[0], "try `nslookup nodes.quick.test`");
    cluster.kill(2);
    cluster.wait_healthy(&[0, 1, 3], 3);
    cluster.start(2);
    cluster.wait_together(&[0, 1, 2, 3]);
    cluster.wait_for_line(&[2], "discovery failed: dns lookup error");

    // A node that left, and whose record is gone when the server is back.
    dns.start(|command| cluster.start_beside(0, command));
    dns.remove(QUICK, &[format!("nodes A {}", cluster.address(3))]);
    cluster.stop(3);
    cluster.wait_together(&[0, 1, 2]);
    cluster.wait_discovered(&[0, 1, 2], 2);

    // A name that is gone altogether is said to be, and the others stay.
    dns.remove(QUICK, &["nodes".to_owned()]);
    cluster.wait_for_line(&[1, 2], "nodes.quick.test: the name does not exist");
    cluster.wait_discovered(&[1, 2], 1);
    cluster.wait_together(&[0, 1, 2]);
}

#[test]
fn dns_names_of_ipv6_addresses_form_a_cluster() {
    let discovery = by_names(&["nodes.quick.test"]);
    let mut cluster = Cluster::in_namespaces(3, &discovery);
    let (server, server_v4) = (cluster.switch().address(), Ipv4Addr::new(192, 0, 2, 1).into());
    cluster.resolve_by(server);
    let mut dns = NameServer::new(server);
    dns.start(|command| cluster.switch().start(command));
    for number in 0..3 {
        let mut config = discovery.clone();
        let address = cluster.space(number).address_v6();
        config["bind_address"] = json!(address);
        cluster.configure(number, &config);
        // Nobody speaks IPv4 here: that address is nobody's peer.
        dns.add(QUICK, &[a("nodes", 1, address)]);
    }
    dns.add(QUICK, &[a("nodes", 1, server_v4)]);
    cluster.start_all();
    cluster.wait_together(&[0, 1, 2]);
    cluster.wait_discovered(&[0, 1, 2], 2);
}
