//! Nodes that find each other by a real etcd, which stops, forgets, and asks for passwords.

use crate::cluster_rig::Cluster;
use crate::etcd_server::EtcdServer;
use serde_json::{Value, json};

pub(crate) fn discovery(server: &EtcdServer, more: &Value) -> Value {
    let mut discovery = json!({
        "enabled": true, "type": "etcd", "service_name": "s", "etcd_endpoints": [server.endpoint()],
        "dial_timeout": "2s",
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        discovery[name] = value.clone();
    }
    json!({ "discovery": discovery })
}

#[test]
fn three_nodes_stay_together_whatever_etcd_does() {
    let mut server = EtcdServer::start();
    let settings = discovery(&server, &json!({}));
    let mut cluster = Cluster::on_loopback(3, &settings);
    cluster.start_all();
    cluster.wait_together(&[0, 1, 2]);
    server.wait_for_keys(&["/s/n0", "/s/n1", "/s/n2"]);

    server.stop();
    cluster.wait_for_line(&[0, 1, 2], "discovery failed: etcd client error");
    cluster.wait_together(&[0, 1, 2]);
    server.run();
    let three = cluster.add(&settings);
    cluster.start(three);
    cluster.wait_together(&[0, 1, 2, 3]);

    server.stop();
    server.wipe();
    server.run();
    server.wait_for_keys(&["/s/n0", "/s/n1", "/s/n2", "/s/n3"]);

    let log = cluster.stop(1);
    assert!(log.contains("unregistered"), "{log}");
    server.wait_for_keys(&["/s/n0", "/s/n2", "/s/n3"]);
    cluster.wait_healthy(&[0, 2, 3], 3);
}

#[test]
fn a_killed_nodes_key_goes_with_its_lease_and_it_comes_back() {
    let server = EtcdServer::start();
    let mut cluster = Cluster::on_loopback(2, &discovery(&server, &json!({ "etcd_lease_ttl": "5s" })));
    cluster.start_all();
    cluster.wait_together(&[0, 1]);
    cluster.kill(1);
    server.wait_for_keys(&["/s/n0"]);
    cluster.start(1);
    cluster.wait_together(&[0, 1]);
    server.wait_for_keys(&["/s/n0", "/s/n1"]);
}

#[test]
fn a_node_joins_after_a_compaction() {
    let server = EtcdServer::start();
    let settings = discovery(&server, &json!({}));
    let mut cluster = Cluster::on_loopback(1, &settings);
    cluster.start_all();
    server.wait_for_keys(&["/s/n0"]);
    for _ in 0..8 {
        server.control(&["put", "/elsewhere", "x"]);
    }
    let status: Value = serde_json::from_str(&server.control(&["get", "/elsewhere", "-w", "json"])).expect("JSON");
    server.control(&["compact", &status["header"]["revision"].to_string()]);
    server.control(&["del", "/elsewhere"]);
    let one = cluster.add(&settings);
    cluster.start(one);
    cluster.wait_together(&[0, 1]);
}

#[test]
fn a_wrong_password_keeps_a_node_out_and_the_log_says_so() {
    let mut server = EtcdServer::start();
    server.guard();
    let with = |password: &str| json!({ "etcd_username": "gateway", "etcd_password": password });
    let right = discovery(&server, &with("right"));
    let mut cluster = Cluster::on_loopback(1, &right);
    let wrong = cluster.add(&discovery(&server, &with("canary-wr0ng")));
    cluster.start_all();
    cluster.wait_for_line(&[wrong], "etcd client error");
    let log = cluster.stop(wrong);
    assert!(log.contains("check `etcd_username` and `etcd_password`"), "{log}");
    assert!(!log.contains("canary-wr0ng"), "{log}");
    cluster.configure(wrong, &right);
    cluster.start(wrong);
    cluster.wait_together(&[0, wrong]);
}
