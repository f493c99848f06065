//! The pages on the data port, as balancers and clients of the cluster see them.

use crate::node_rig::{Client, Home, Simulator, get, until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn cluster_status_has_the_fields_of_the_page_and_nothing_about_peers() {
    let provider = Simulator::start(&[]);
    let home = Home::new(provider.address);
    let _node = home.start();
    let (status, body) = until("this core is ready too", || {
        Some(get(home.port, "/cluster/status")).filter(|(_, body)| body.contains("\"ready\":true"))
    });
    let page: Value = serde_json::from_str(&body).unwrap();
    let fields: BTreeSet<&str> = page.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = BTreeSet::from(["local_node", "members", "healthy_members", "cluster_health", "ready"]);
    assert_eq!((status, fields), (200, wanted), "{body}");
    let name = page["local_node"].as_str().unwrap();
    assert!(name.starts_with("deepintshield-") && name.len() > "deepintshield-".len(), "{name}");
    assert_eq!(page["members"], 1);
    assert_eq!(page["healthy_members"], 1);
    assert_eq!(page["cluster_health"], "HEALTHY");
    assert_eq!(page["ready"], true);
}

#[test]
fn a_draining_node_is_healthy_and_not_ready_and_says_why() {
    let provider = Simulator::start(&["--token-ms", "200"]);
    let home = Home::new(provider.address);
    let mut node = home.start();
    // One core hears of it a tick later than the other.
    until("it is ready", || (get(home.port, "/ready") == (200, "ready\n".to_owned())).then_some(()));
    assert_eq!(get(home.port, "/health").0, 200);

    // The page is asked for behind a request that is still running when the drain begins.
    let mut client = Client::connect(home.port).unwrap();
    client.send_chat("", true).unwrap();
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    client.send("GET /ready HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    until("it runs", || get(home.admin_port, "/cluster/status").1.contains("\"requests_in_flight\":1").then_some(()));
    node.signal(Signal::SIGTERM);
    until("it drains", || (get(home.admin_port, "/ready").0 == 503).then_some(()));
    client.chunks().unwrap();
    let ready = client.answer().unwrap();
    assert!(ready.status == 503 && ready.body == "draining\n" && !ready.keeps, "{} {}", ready.status, ready.body);
    assert_eq!(node.ended(), 0);
}
