//! Nodes that find each other by Consul: registered with its agent, checked by it, deregistered when
//! they leave or die, and told what to do when it is away or takes them for strangers.

use crate::cluster_rig::Cluster;
use crate::stand_ins::StandIn;
use serde_json::{Value, json};

const CANARY: &str = "b1gs35-canary";
pub(crate) const ALL: &[&str] = &["service:write", "service:read", "node:read"];

pub(crate) fn discovery(server: &StandIn) -> Value {
    json!({
        "enabled": true, "type": "consul", "service_name": "gate",
        "consul_address": format!("127.0.0.1:{}", server.port), "consul_check_interval": "1s",
        "interval": "500ms", "dial_timeout": "2s",
    })
}

/// Waits until Consul has exactly these instances, all passing, while these nodes run.
#[track_caller]
fn wait_for_instances(server: &mut StandIn, cluster: &mut Cluster, numbers: &[usize], instances: &[&str]) {
    let expected: Value = instances.iter().map(|id| ((*id).to_owned(), json!("passing"))).collect();
    let server = std::cell::RefCell::new(server);
    cluster.wait(numbers, &format!("in Consul: {expected}"), |_, _| server.borrow_mut().just("instances") == expected);
}

#[test]
fn nodes_come_go_and_die_and_consul_knows() {
    let mut server = StandIn::start("consul", None);
    server.tell("minute", json!({"seconds": 1}));
    let config = json!({ "discovery": discovery(&server) });
    let mut cluster = Cluster::on_loopback(3, &config);
    cluster.start_all();
    cluster.wait_together(&[0, 1, 2]);
    wait_for_instances(&mut server, &mut cluster, &[0, 1, 2], &["gate-n0", "gate-n1", "gate-n2"]);
    cluster.wait_for_line(&[0, 1, 2], "discovered 2 nodes");

    // The agent is started anew, and has forgotten everybody.
    server.just("stop");
    cluster.wait_for_line(&[0, 1, 2], "discovery failed: error asking Consul for instances");
    cluster.wait_for_line(&[0, 1, 2], "verify that `consul_address` names a Consul agent");
    cluster.wait_together(&[0, 1, 2]);
    server.tell("forget", json!({"index": 2}));
    server.just("start");
    wait_for_instances(&mut server, &mut cluster, &[0, 1, 2], &["gate-n0", "gate-n1", "gate-n2"]);
    cluster.wait_for_line(&[0, 1, 2], "has lost this node");

    // One leaves, one comes, one dies.
    let log = cluster.stop(2);
    assert!(log.contains("deregistered from Consul"), "{log}");
    assert_eq!(server.just("instances").as_object().map(serde_json::Map::len), Some(2));
    let added = cluster.add(&config);
    cluster.start(added);
    cluster.wait_healthy(&[0, 1, added], 3);
    cluster.kill(1);
    cluster.wait_healthy(&[0, added], 2);
    wait_for_instances(&mut server, &mut cluster, &[0, added], &["gate-n0", "gate-n3"]);
}

#[test]
fn a_token_that_may_not_is_told_which_right_it_lacks() {
    let mut server = StandIn::start("consul", None);
    server.tell("tokens", json!({"tokens": {"another": ALL}}));
    let mut discovery = discovery(&server);
    discovery["consul_token"] = json!(CANARY);
    let mut cluster = Cluster::on_loopback(1, &json!({ "discovery": discovery }));
    cluster.start(0);
    cluster.wait_for_line(&[0], "failed to register service with Consul");
    cluster.wait_for_line(&[0], "set `consul_token` to an ACL token with service:write");
    server.tell("tokens", json!({"tokens": {CANARY: ALL}}));
    wait_for_instances(&mut server, &mut cluster, &[0], &["gate-n0"]);
    // Rights that are missing for reading, Consul does not tell.
    server.tell("tokens", json!({"tokens": {CANARY: ["service:write", "service:read"]}}));
    cluster.wait_for_line(&[0], "it is not among the instances");
    cluster.wait_for_line(&[0], "node:read");
    let log = cluster.stop(0);
    assert!(!log.contains(CANARY), "{log}");
}

#[test]
fn a_check_that_fails_is_told_with_its_cause() {
    let server = StandIn::start("consul", None);
    let mut cluster = Cluster::on_loopback(1, &json!({ "discovery": discovery(&server) }));
    // Registered where nobody listens, as behind a wrong `advertise_address`.
    let elsewhere = format!("{}:{}", cluster.spare_address(99), cluster.ports().gossip);
    cluster.configure(0, &json!({ "discovery": discovery(&server), "advertise_address": elsewhere }));
    cluster.start(0);
    cluster.wait_for_line(&[0], "Consul's check of this node fails: dial tcp");
    cluster.wait_for_line(&[0], "`advertise_address` is right");
}
