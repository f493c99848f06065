//! What operators see on the admin listener of one node, and the gossip keys that they change there.

use crate::node_rig::{Client, Home, Node, Simulator, free_port, get, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const OLD_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEW_KEY: &str = "YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODk=";

fn status(home: &Home) -> Value {
    serde_json::from_str(&get(home.admin_port, "/cluster/status").1).expect("the answer is JSON")
}

/// A node that looks for one peer, which is not there.
fn in_a_cluster(home: &Home) -> Node {
    let (port, peer) = (free_port(), free_port());
    let cluster = format!(
        r#" }}, "cluster_config": {{ "enabled": true, "node_id": "one", "bind_address": "127.0.0.1",
           "peers": ["127.0.0.1:{peer}"], "gossip": {{ "port": {port}, "encryption_keys": ["{OLD_KEY}"] }}"#
    );
    home.configure("sk-one", &cluster);
    home.start()
}

/// Asks the admin listener; the answer's status and JSON.
fn ask(home: &Home, method: &str, path: &str, host: &str, body: &str) -> (u16, Value) {
    let mut client = Client::connect(home.admin_port).expect("the admin listener is there");
    let length = body.len();
    client
        .send(&format!(
            "{method} /api/cluster/gossip-keys{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        ))
        .expect("it takes a request");
    let answer = client.answer().expect("it answers");
    (answer.status, serde_json::from_str(&answer.body).expect("the answer is JSON"))
}

#[test]
fn the_admin_listener_shows_a_node_in_full() {
    let provider = Simulator::start(&[]);
    let home = Home::new(provider.address);
    let _node = home.start();
    let page = until("its load was read", || {
        Some(status(&home)).filter(|page| page["load"]["memory_permille"].as_u64() > Some(0))
    });
    let fields: BTreeSet<&str> = page.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = [
        "local_node",
        "members",
        "healthy_members",
        "cluster_health",
        "state",
        "reason",
        "region",
        "epoch",
        "cores",
        "requests_in_flight",
        "version",
        "generation",
        "protocol",
        "doubts_itself",
        "digest_bytes",
        "configuration",
        "configuration_store",
        "adopted_revision",
        "load",
        "limits",
        "escrow",
        "learned_limits",
        "resting_keys",
        "demoted_providers",
        "discovery",
        "peers",
    ];
    assert_eq!(fields, BTreeSet::from(wanted));
    assert_eq!((&page["peers"], &page["limits"], &page["generation"]), (&json!([]), &json!([]), &json!(0)));
    assert_eq!(page["load"]["tick_delay_us"].as_array().map(Vec::len), Some(2), "one for each core: {page}");
    assert_eq!(page["configuration"]["hash"].as_str().map(str::len), Some(16), "{page}");

    let metrics = get(home.admin_port, "/metrics").1;
    for line in
        ["deepintshield_cluster_members 1", "deepintshield_cluster_healthy 1", "deepintshield_load_overloaded 0"]
    {
        assert!(metrics.lines().any(|shown| shown == line), "{line} is missing in\n{metrics}");
    }
}

#[test]
fn a_node_in_a_cluster_shows_what_it_tells_and_where_it_looks() {
    let provider = Simulator::start(&[]);
    let home = Home::new(provider.address);
    let _node = in_a_cluster(&home);
    let page = until("its peers list was read", || {
        Some(status(&home)).filter(|page| page["discovery"][0]["peers"] == json!(1))
    });
    assert!(page["generation"].as_u64() > Some(1_700_000_000_000), "milliseconds since 1970: {page}");
    assert_eq!(page["protocol"], json!(1));
    assert!(get(home.admin_port, "/metrics").1.contains("deepintshield_discovery_peers{"));
}

#[test]
fn gossip_keys_are_rotated_while_the_node_runs() {
    let provider = Simulator::start(&[]);
    let home = Home::new(provider.address);
    let node = in_a_cluster(&home);
    let steps = |method: &str, path: &str, body: &str| ask(&home, method, path, "127.0.0.1", body);

    let (_, before) = steps("GET", "", "");
    let old = before["keys"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!((&before["keys"][0]["sends"], &before["keys"][0]["is_configured"]), (&json!(true), &json!(true)));

    let (code, added) = steps("POST", "", &json!({"key": NEW_KEY}).to_string());
    let new = added["keys"][1]["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (code, &added["keys"][1]["sends"], &added["keys"][1]["is_configured"]),
        (200, &json!(false), &json!(false))
    );
    assert!(added["note"].as_str().unwrap().contains("gone when this node ends"), "{added}");

    assert_eq!(steps("DELETE", &format!("/{old}"), "").0, 409, "this node sends with it");
    let (code, sending) = steps("POST", &format!("/{new}/send"), "");
    assert_eq!((code, sending["keys"][0]["id"].as_str()), (200, Some(new.as_str())));
    let (code, dropped) = steps("DELETE", &format!("/{old}"), "");
    assert_eq!((code, dropped["keys"].as_array().map(Vec::len)), (200, Some(1)));
    assert_eq!(steps("POST", "/00000001/send", "").0, 404);
    assert_eq!(steps("POST", "", "{\"key\":\"c2hvcnQ=\"}").0, 400);

    for shown in [node.log(), dropped.to_string(), added.to_string(), get(home.admin_port, "/metrics").1] {
        assert!(!shown.contains(OLD_KEY) && !shown.contains(NEW_KEY), "a key is shown in {shown}");
    }
}

#[test]
fn gossip_keys_are_neither_shown_nor_changed_under_a_foreign_name() {
    let provider = Simulator::start(&[]);
    let home = Home::new(provider.address);
    let _node = home.start();
    assert_eq!(ask(&home, "GET", "", "evil.example", "").0, 403);
    assert_eq!(ask(&home, "POST", "", "evil.example", &json!({"key": NEW_KEY}).to_string()).0, 403);
    let (code, answer) = ask(&home, "POST", "", "localhost", &json!({"key": NEW_KEY}).to_string());
    assert_eq!(code, 404, "it is not part of a cluster");
    assert!(answer["error"]["message"].as_str().unwrap().contains("cluster_config.enabled"), "{answer}");
}
