//! `deepintshield doctor` and `deepintshield cluster`, each symptom produced for real: loopback
//! addresses, real nodes, a real etcd. Firewalls are the cluster suite's matter.

use crate::cluster_rig::{Cluster, OTHER_KEY};
use crate::etcd_server::EtcdServer;
use crate::node_rig::{outcome, text};
use crate::source::{root, rust_files};
use serde_json::{Value, json};
use std::net::{TcpListener, UdpSocket};

/// Exit code and output of one command on the configuration of a node.
fn run(cluster: &Cluster, number: usize, command: &[&str]) -> (i32, String) {
    let config = cluster.scratch().path(&format!("config-{number}.json"));
    let (code, out, error) = outcome(&[&["--config", text(&config)], command].concat(), &[]);
    (code, format!("{out}{error}"))
}

/// The doctor finds this, and says each of these.
#[track_caller]
fn check(cluster: &Cluster, number: usize, says: &[&str]) {
    let (code, said) = run(cluster, number, &["doctor"]);
    assert_eq!(code, 1, "{said}");
    for words in says {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}

/// Nodes that list each other.
fn listing_each_other(size: usize) -> Cluster {
    let cluster = Cluster::on_loopback(size, &json!({ "enabled": false }));
    (0..size).for_each(|number| cluster.configure(number, &peers_of(&cluster, size, &json!({}))));
    cluster
}

fn peers_of(cluster: &Cluster, size: usize, more: &Value) -> Value {
    let peers: Vec<_> = (0..size).map(|number| cluster.gossip_address(number).to_string()).collect();
    let mut settings = json!({ "enabled": true, "peers": peers });
    for (name, value) in more.as_object().into_iter().flatten() {
        settings[name] = value.clone();
    }
    settings
}

#[test]
fn a_healthy_cluster_has_no_finding_and_one_line_a_node() {
    let mut cluster = listing_each_other(3);
    cluster.start_all();
    cluster.wait_together(&[0, 1, 2]);
    let (code, said) = run(&cluster, 0, &["doctor"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("nothing is wrong") && said.contains("is n2, answers"), "{said}");

    let (code, table) = run(&cluster, 0, &["cluster"]);
    assert_eq!(code, 0, "{table}");
    for words in ["HEALTHY, 3 of 3", "n0 *", "n1 ", "n2 ", &cluster.gossip_address(2).to_string()] {
        assert!(table.contains(words), "{words:?} is not in:\n{table}");
    }
    let (_, raw) = run(&cluster, 0, &["cluster", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&raw).expect("JSON")["members"], 3);

    cluster.kill(1);
    cluster.kill(2);
    cluster.wait(&[0], "two dead peers", |_, status| {
        status["peers"].as_array().is_some_and(|peers| peers.iter().all(|peer| peer["health"] == "dead"))
    });
    check(&cluster, 0, &["cluster health: NOT HEALTHY", "node marked as dead", "nobody listens at"]);
    assert_eq!(run(&cluster, 0, &["cluster"]).0, 1);
}

#[test]
fn a_node_that_is_not_there_is_said_to_be_so() {
    let cluster = listing_each_other(1);
    let (code, said) = run(&cluster, 0, &["cluster"]);
    assert_eq!(code, 69, "{said}");
    let address = format!("{}:{}", cluster.address(0), cluster.ports().admin);
    let (code, said, error) = outcome(&["--config", "/nowhere.json", "cluster", "--admin", &address], &[]);
    assert_eq!(code, 69, "{said}{error}");
}

#[test]
fn another_key_and_another_name_are_told_apart() {
    let mut cluster = listing_each_other(2);
    let other_key = json!({ "gossip": { "encryption_keys": [OTHER_KEY] } });
    for (more, says) in
        [(other_key, "under another gossip key"), (json!({ "cluster_name": "elsewhere" }), "a cluster of another name")]
    {
        cluster.configure(1, &peers_of(&cluster, 2, &more));
        cluster.start(1);
        check(&cluster, 0, &["nothing there answers with this cluster's key and name", says]);
        cluster.stop(1);
    }
}

#[test]
fn nobody_at_an_address_and_somebody_at_ours() {
    let cluster = listing_each_other(2);
    check(&cluster, 0, &["nobody listens at", "start the node there"]);
    let address = cluster.gossip_address(0);
    let _taken = (TcpListener::bind(address).expect("free"), UdpSocket::bind(address).expect("free"));
    check(&cluster, 0, &["the gossip port cannot be opened", "ss -tulpn"]);
}

#[test]
fn a_configuration_that_cannot_make_a_cluster_is_said_to_be_so() {
    let cluster = Cluster::on_loopback(1, &json!({ "enabled": false }));
    check(&cluster, 0, &["cluster forms but only has 1 member", "`enabled` is false"]);
    cluster.configure(
        0,
        &json!({ "peers": ["192.0.2.1:1"], "gossip": { "encryption_keys": [] }, "bind_address": "0.0.0.0" }),
    );
    check(&cluster, 0, &["the node does not start", "no encryption keys", "openssl rand -base64 32"]);
}

#[test]
fn names_that_do_not_resolve_are_named() {
    let dns = json!({ "enabled": true, "type": "dns", "service_name": "s", "dns_names": ["no-such-name.invalid"] });
    let cluster = Cluster::on_loopback(1, &json!({ "discovery": dns }));
    check(&cluster, 0, &["no new nodes discovered", "dns lookup error", "no-such-name.invalid"]);
}

#[test]
fn what_etcd_refuses_or_hides_is_found() {
    let mut server = EtcdServer::start();
    let settings = |more: Value| {
        let mut discovery = json!({
            "enabled": true, "type": "etcd", "service_name": "s", "etcd_endpoints": [server.endpoint()],
            "dial_timeout": "2s",
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            discovery[name] = value.clone();
        }
        json!({ "discovery": discovery })
    };
    let plain = settings(json!({}));
    let password = settings(json!({ "etcd_username": "gateway", "etcd_password": "wr0ng" }));
    let filtered = settings(json!({ "allowed_address_space": ["10.0.0.0/8"] }));
    let other_service = settings(json!({ "service_name": "t" }));

    let mut cluster = Cluster::on_loopback(1, &plain);
    cluster.start_all();
    server.wait_for_keys(&["/s/n0"]);
    let one = cluster.add(&filtered);
    let node = cluster.gossip_address(0).to_string();
    check(&cluster, one, &["not in allowed address space", &format!("etcd sees {node}"), "this node is at"]);
    cluster.configure(one, &other_service);
    check(&cluster, one, &["no new nodes discovered", "Compare `service_name` (\"t\" here)"]);
    assert_eq!(server.keys(), ["/s/n0"], "the doctor registers nothing");

    server.guard();
    cluster.configure(one, &password);
    check(&cluster, one, &["discovery failed: etcd client error", "`etcd_username` and `etcd_password`"]);
    let forbidden = json!({ "service_name": "t", "etcd_username": "gateway", "etcd_password": "right" });
    let mut discovery = plain["discovery"].clone();
    for (name, value) in forbidden.as_object().into_iter().flatten() {
        discovery[name] = value.clone();
    }
    cluster.configure(one, &json!({ "discovery": discovery }));
    check(&cluster, one, &["permission denied", "etcdctl role grant-permission ROLE readwrite /t/"]);
    server.stop();
    check(&cluster, one, &["etcd client error", "port 2379"]);
}

#[test]
fn the_words_that_name_a_trouble_are_in_the_program() {
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).expect("the page is there");
    let program: String = rust_files().into_iter().map(|file| file.text).collect();
    let mut named = 0;
    for row in page.lines().filter(|line| line.starts_with('|')) {
        let words = row.split('|').nth(2).unwrap_or_default();
        for quoted in words.split('`').skip(1).step_by(2) {
            assert!(program.contains(quoted), "nothing says {quoted:?}");
            named += 1;
        }
    }
    assert!(named > 20, "the page's second column was not read");
}
