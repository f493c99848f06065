//! The troubleshooting of Consul discovery, each symptom brought about: what log and `doctor` say of
//! it names cause and remedy.

use crate::cluster_rig::Cluster;
use crate::discovery_consul::{ALL, discovery};
use crate::stand_ins::StandIn;
use serde_json::{Value, json};

fn with(mut discovery: Value, name: &str, value: Value) -> Value {
    discovery[name] = value;
    json!({ "discovery": discovery })
}

/// Failed to register with Consul: no agent there, and a token that nobody knows.
#[test]
fn an_agent_that_is_away_or_refuses_is_told_apart() {
    let mut server = StandIn::start("consul", None);
    server.just("stop");
    let mut cluster = Cluster::on_loopback(1, &json!({ "discovery": discovery(&server) }));
    cluster.start(0);
    let remedy = "verify that `consul_address` names a Consul agent";
    cluster.wait_for_line(&[0], "failed to register service with Consul");
    cluster.wait_for_line(&[0], remedy);
    cluster.assert_doctor_says(0, &["discovery failed: error asking Consul for instances", remedy, "no firewall"]);
    server.just("start");
    server.tell("tokens", json!({"tokens": {"another": ALL}}));
    cluster.configure(0, &with(discovery(&server), "consul_token", json!("canary")));
    cluster.assert_doctor_says(0, &["ACL not found", "set `consul_token` to an ACL token with service:read"]);
}

/// Services registered but not discovered: another name, another datacenter, a name as address.
#[test]
fn instances_that_are_registered_and_not_found_are_explained() {
    let mut server = StandIn::start("consul", None);
    let mut cluster = Cluster::on_loopback(1, &json!({ "discovery": discovery(&server) }));
    let other_name = with(discovery(&server), "service_name", json!("gates"));
    let one = cluster.add(&other_name);
    cluster.start_all();
    cluster.wait_for_line(&[0, one], "no new nodes discovered; 0 known. Alone? compare `service_name`");
    cluster.wait_for_line(&[0, one], "in this datacenter, and their checks pass");
    let registered = json!({"gate-n0": "passing", "gates-n1": "passing"});
    let asked = std::cell::RefCell::new(&mut server);
    cluster.wait(&[0, one], "both are registered", |_, _| asked.borrow_mut().just("instances") == registered);

    // Who only looks sees what a node of that name would.
    let looks = cluster.add(&with(discovery(&server), "service_name", json!("gatess")));
    cluster.assert_doctor_says(looks, &["no new nodes discovered", "Compare `service_name` (\"gatess\" here)"]);
    cluster.configure(looks, &with(discovery(&server), "consul_datacenters", json!(["dc7"])));
    cluster.assert_doctor_says(looks, &["No path to datacenter", "compare `consul_datacenters` with what"]);
    server.tell("put", json!({"id": "by-name", "name": "gate", "address": "no-such-name.invalid", "port": 1}));
    cluster.configure(looks, &json!({ "discovery": discovery(&server) }));
    let (_, said) = cluster.doctor(looks);
    for words in
        ["skipping invalid host address", "no-such-name.invalid", "consul discovered 1 nodes", "is n0, answers"]
    {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}

/// Health checks failing: Consul's own words about it, where another node looks.
#[test]
fn an_instance_that_consul_cannot_reach_is_named_with_what_consul_says() {
    let mut server = StandIn::start("consul", None);
    let mut cluster = Cluster::on_loopback(1, &json!({ "discovery": discovery(&server) }));
    let elsewhere = format!("{}:{}", cluster.spare_address(99), cluster.ports().gossip);
    cluster.configure(0, &json!({ "discovery": discovery(&server), "advertise_address": elsewhere }));
    cluster.start(0);
    cluster.wait_for_line(&[0], "Consul's check of this node fails: dial tcp");
    assert_eq!(server.just("instances"), json!({"gate-n0": "critical"}));
    let looks = cluster.add(&json!({ "discovery": discovery(&server) }));
    cluster.assert_doctor_says(looks, &["no new nodes discovered", "see in Consul whether the others are registered"]);
    let (_, said) = cluster.doctor(looks);
    for words in ["gate-n0", "Consul's check of it fails: dial tcp", &elsewhere, "gossip port by TCP"] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}
