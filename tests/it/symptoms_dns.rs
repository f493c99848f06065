//! The troubleshooting of DNS discovery, with a real DNS server: what log and `doctor` say names cause
//! and remedy.

use crate::cluster_rig::Cluster;
use crate::discovery_dns::{a, by_names};
use crate::name_server::{NameServer, QUICK};
use serde_json::json;

/// A cluster that asks this server, which has no records yet.
fn served(size: usize, names: &[&str]) -> (Cluster, NameServer) {
    let mut cluster = Cluster::on_loopback(size, &by_names(names));
    let server = cluster.spare_address(250);
    cluster.resolve_by(server);
    let mut dns = NameServer::new(server);
    dns.start(|command| cluster.start_beside(0, command));
    (cluster, dns)
}

/// DNS lookup errors: a name that is not there, and a server that is not.
#[test]
fn a_name_that_is_not_there_is_told_from_a_server_that_is_not() {
    let (mut cluster, mut dns) = served(1, &["nodes.quick.test"]);
    cluster.assert_doctor_says(0, &["dns lookup error", "nodes.quick.test: the name does not exist", "nslookup"]);
    cluster.start(0);
    cluster.wait_for_line(&[0], "dns lookup error");
    cluster.wait_for_line(&[0], "nodes.quick.test: the name does not exist");
    cluster.stop(0);
    dns.stop();
    cluster.assert_doctor_says(0, &["dns lookup error", "/etc/resolv.conf"]);
}

/// No nodes discovered via DNS: the names stand for this node alone. A name that is an alias is no
/// reason: it is followed.
#[test]
fn names_that_stand_for_nobody_else_are_found_out_and_an_alias_is_followed() {
    let (mut cluster, dns) = served(2, &["nodes.quick.test"]);
    dns.add(QUICK, &[a("nodes", 1, cluster.address(0))]);
    cluster.start(0);
    cluster.wait_for_line(&[0], "no new nodes discovered; 0 known. Alone? compare `service_name`");
    cluster.wait_for_line(&[0], "they have to stand for all nodes' addresses");
    cluster.assert_doctor_says(0, &["dns works and sees no node beside this one", "`nslookup` shows"]);

    dns.remove(QUICK, &["nodes".to_owned()]);
    let real = [a("real", 1, cluster.address(0)), a("real", 1, cluster.address(1))];
    dns.add(QUICK, &[real.as_slice(), &["nodes 1 CNAME real".to_owned()]].concat());
    cluster.start(1);
    cluster.wait_together(&[0, 1]);
    cluster.wait_discovered(&[0, 1], 1);
}

/// Nodes discovered but can't connect: another port than the nodes', or an address that is nobody's.
#[test]
fn nodes_that_are_found_where_nobody_listens_are_named() {
    let (mut cluster, dns) = served(2, &["nodes.quick.test"]);
    dns.add(QUICK, &[a("nodes", 1, cluster.address(0)), a("nodes", 1, cluster.address(1))]);
    let mut other_port = by_names(&["nodes.quick.test"]);
    other_port["discovery"]["bind_port"] = json!(1);
    cluster.configure(0, &other_port);
    cluster.start(0);
    let nobody = format!("nobody listens at {}:1", cluster.address(1));
    cluster.assert_doctor_says(0, &["dns discovered", &nobody, "correct `bind_port`/`gossip.port`"]);
    cluster.wait_for_line(&[0], "timeout waiting for response; is the node up, are UDP and TCP of this port open");
    cluster.wait_for_line(&[0], "failed to broadcast: neither UDP nor TCP reaches the peer");
}
