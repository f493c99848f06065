//! The general troubleshooting, each symptom brought about on loopback addresses: what log and
//! `doctor` say of it names cause and remedy. Those that need a firewall are the cluster suite's.

use crate::cluster_rig::{Cluster, KEY, OTHER_KEY};
use crate::source::{root, text_files};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;

fn listing(cluster: &Cluster, numbers: &[usize]) -> Value {
    let peers: Vec<_> = numbers.iter().map(|number| cluster.gossip_address(*number).to_string()).collect();
    json!({ "enabled": true, "peers": peers })
}

/// Cluster forms but only has 1 member: the node knows of nobody.
#[test]
fn a_node_that_knows_of_nobody_says_so_and_what_to_compare() {
    let mut cluster = Cluster::on_loopback(1, &json!({ "enabled": false }));
    cluster.configure(0, &listing(&cluster, &[0]));
    cluster.start(0);
    cluster.wait_for_line(&[0], "failed to join cluster: no peer is known; it is tried on. Is this the first node?");
    cluster.wait_for_line(&[0], "compare cluster_config.peers and discovery with the other nodes'");
    let says = ["cluster forms but only has 1 member", "the node runs and knows of no other", "compare `service_name`"];
    cluster.assert_doctor_says(0, &says);
}

/// Split brain: two clusters by two lists; whoever knows of both brings them together.
#[test]
fn two_clusters_that_one_doctor_sees_come_together_without_a_restart() {
    let mut cluster = Cluster::on_loopback(4, &json!({ "enabled": false }));
    let pairs = [[0, 1], [2, 3]];
    for pair in &pairs {
        for number in pair {
            cluster.configure(*number, &listing(&cluster, pair));
        }
    }
    cluster.start_all();
    for pair in &pairs {
        cluster.wait_together(pair);
    }
    // The list is mended in the file, and the node not told yet.
    cluster.configure(0, &listing(&cluster, &[0, 1, 2, 3]));
    let stranger = format!("{} was discovered, but is no member of this node's cluster", cluster.gossip_address(2));
    cluster.assert_doctor_says(0, &["failed to join cluster", &stranger, "is n2, answers", "No restart is needed"]);
    let bridge = cluster.add(&json!({ "enabled": false }));
    cluster.configure(bridge, &listing(&cluster, &[0, 2]));
    cluster.start(bridge);
    cluster.wait_together(&[0, 1, 2, 3, bridge]);
}

/// Cluster unstable, nodes flapping: a node that is held up again and again.
#[test]
fn a_node_that_is_held_up_again_and_again_is_named_by_all_and_by_itself() {
    let mut cluster = Cluster::on_loopback(2, &json!({ "enabled": false }));
    for number in 0..2 {
        let mut config = listing(&cluster, &[0, 1]);
        config["gossip"] = json!({ "config": { "timeout_seconds": 2 } });
        cluster.configure(number, &config);
    }
    cluster.start_all();
    cluster.wait_together(&[0, 1]);
    for times in 1..=2 {
        cluster.signal(1, Signal::SIGSTOP);
        let is_out =
            |log: &str, _: &Value| log.matches("node marked as suspect; where this happens often").count() >= times;
        cluster.wait(&[0], "the held node is suspect", is_out);
        if times == 2 {
            let remedies = ["node marked as", "n1 at", "gossip.timeout_seconds is 2", "need more"];
            cluster.assert_doctor_says(0, &remedies);
        }
        cluster.signal(1, Signal::SIGCONT);
        cluster.wait_together(&[0, 1]);
    }
    cluster.wait_for_line(&[1], "this node may be the one that is cut off, or it was held up itself");
    cluster.wait_for_line(&[0], "node recovered");
}

/// Cannot broadcast messages to cluster: the only other member is gone.
#[test]
fn messages_that_reach_nobody_are_said_with_whom_they_were_for() {
    let mut cluster = Cluster::on_loopback(2, &json!({ "enabled": false }));
    (0..2).for_each(|number| cluster.configure(number, &listing(&cluster, &[0, 1])));
    cluster.start_all();
    cluster.wait_together(&[0, 1]);
    cluster.kill(1);
    let peer = format!("peer={}", cluster.gossip_address(1));
    for words in ["timeout waiting for response; is the node up", "failed to broadcast: neither UDP nor TCP reaches"] {
        cluster.wait(&[0], words, |log, _| log.lines().any(|line| line.contains(words) && line.contains(&peer)));
    }
    cluster.assert_doctor_says(0, &["nobody listens at", "start the node there"]);
    cluster.start(1);
    cluster.wait_together(&[0, 1]);
}

/// A key that was made the first one here before the other node has it.
#[test]
fn a_peer_that_does_not_take_the_first_key_is_told_what_is_left_to_do() {
    let mut cluster = Cluster::on_loopback(2, &json!({ "enabled": false }));
    cluster.configure(1, &listing(&cluster, &[0, 1]));
    cluster.start(1);
    let mut config = listing(&cluster, &[0, 1]);
    config["gossip"] = json!({ "encryption_keys": [OTHER_KEY, KEY] });
    cluster.configure(0, &config);
    cluster.assert_doctor_says(
        0,
        &["key rotation is not finished", "(n1) answers", "make it the first one only when all"],
    );
}

/// High memory usage: what a node would say whose digest has grown. It cannot grow like that here:
/// members, keys and texts are bounded; so the node is a listener that says so.
#[test]
fn a_digest_that_has_grown_is_named_with_the_size_that_clusters_have() {
    let cluster = Cluster::on_loopback(1, &json!({ "enabled": false }));
    cluster.configure(0, &listing(&cluster, &[0]));
    let admin = TcpListener::bind((cluster.address(0), cluster.ports().admin)).expect("free");
    let status = json!({
        "cluster_health": "HEALTHY", "members": 1, "healthy_members": 1, "state": "ready", "doubts_itself": false,
        "digest_bytes": 100_000, "peers": [], "discovery": [],
    })
    .to_string();
    let answers = || {
        for _ in ["status", "metrics"] {
            let (mut client, _) = admin.accept().expect("it asks");
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).expect("a question");
                asked.extend(byte);
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", status.len());
            client.write_all((head + &status).as_bytes()).expect("an answer");
        }
    };
    let says = ["high memory usage in cluster", "a gossip digest has 100000 B", "3 to 7 nodes are usual"];
    std::thread::scope(|scope| {
        scope.spawn(answers);
        cluster.assert_doctor_says(0, &says);
    });
}

/// The page's table of troubles has a test for each, and each test that it names is there.
#[test]
fn every_trouble_of_the_page_names_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).expect("the page is there");
    let files = text_files();
    let tests: Vec<_> = files.iter().filter(|file| file.path.starts_with("tests/")).collect();
    let is_python = |path: &str| Path::new(path).extension().is_some_and(|extension| extension == "py");
    let exists = |name: &str| {
        let (rust, python) = (format!("#[test]\nfn {name}()"), format!("def {name}("));
        tests.iter().any(|file| file.text.contains(&rust) || is_python(&file.path) && file.text.contains(&python))
    };
    let mut rows = 0;
    let table = page.split("\n## ").next().unwrap_or_default();
    for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| **")).skip(1) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, trouble, _, _, shown, ""] = cells[..] else { panic!("five bars in {row}") };
        let names: Vec<_> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test for {trouble}");
        for name in names {
            assert!(exists(name), "no test is called {name:?} ({trouble})");
        }
        rows += 1;
    }
    assert!(rows >= 25, "the table was not read: {rows} rows");
}
