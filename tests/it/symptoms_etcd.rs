//! The troubleshooting of etcd discovery, with a real etcd that is full, guarded or held up: what log
//! and `doctor` say of it names cause and remedy.

use crate::cluster_rig::Cluster;
use crate::discovery_etcd::discovery;
use crate::etcd_server::EtcdServer;
use nix::sys::signal::Signal;
use serde_json::json;

/// Failed to create etcd client: an endpoint that is not there, and one that does not speak TLS.
#[test]
fn an_etcd_endpoint_that_is_wrong_is_named_with_what_is_wrong() {
    let server = EtcdServer::start();
    let cluster = Cluster::on_loopback(1, &discovery(&server, &json!({ "etcd_endpoints": ["http://127.0.0.1:1"] })));
    cluster.assert_doctor_says(0, &["etcd client error", "http://127.0.0.1:1", "http:// or https://, port 2379"]);
    let by_tls = server.endpoint().replace("http:", "https:");
    cluster.configure(0, &discovery(&server, &json!({ "etcd_endpoints": [by_tls] })));
    cluster.assert_doctor_says(0, &["etcd client error", "use https:// for TLS ports only"]);
}

/// Failed to register with etcd: the store is full.
#[test]
fn a_full_etcd_is_named_with_its_remedy_and_the_node_goes_on() {
    let server = EtcdServer::start_with(&["--quota-backend-bytes", "200000"]);
    let filler = "x".repeat(60_000);
    let is_full = (0..50).any(|number| server.try_control(&["put", &format!("/filler/{number}"), &filler]).is_none());
    assert!(is_full, "the quota is a few of these");
    let mut cluster = Cluster::on_loopback(1, &discovery(&server, &json!({})));
    let says = ["failed to register with etcd", "database space exceeded", "compact and defragment it"];
    cluster.assert_doctor_says(0, &says);
    cluster.start(0);
    for words in says {
        cluster.wait_for_line(&[0], words);
    }
}

/// Failed to register with etcd: the user may read and not write.
#[test]
fn a_user_who_may_not_write_is_told_which_right_is_missing() {
    let mut server = EtcdServer::start();
    server.guard();
    let more = json!({ "service_name": "t", "etcd_username": "gateway", "etcd_password": "right" });
    server.control(&["role", "grant-permission", "gateway", "read", "/t/", "--prefix=true"]);
    let mut cluster = Cluster::on_loopback(1, &discovery(&server, &more));
    let says = ["failed to register with etcd", "permission denied", "grant-permission ROLE readwrite /t/"];
    cluster.assert_doctor_says(0, &says);
    cluster.start(0);
    for words in says {
        cluster.wait_for_line(&[0], words);
    }
}

/// Lease keepalive failures: etcd is held up for longer than the lease lasts, and nodes register anew.
#[test]
fn a_lease_that_etcd_lets_go_is_said_and_renewed_and_parts_nobody() {
    let server = EtcdServer::start();
    let mut cluster = Cluster::on_loopback(2, &discovery(&server, &json!({ "etcd_lease_ttl": "5s" })));
    cluster.start_all();
    cluster.wait_together(&[0, 1]);
    server.wait_for_keys(&["/s/n0", "/s/n1"]);
    server.signal(Signal::SIGSTOP);
    cluster.wait_for_line(&[0, 1], "etcd lease keepalive failed: no answer within");
    cluster.wait_for_line(&[0, 1], "check the network to etcd and its load");
    cluster.wait_for_line(&[0, 1], "and raise `etcd_lease_ttl` where it is slow");
    cluster.wait_together(&[0, 1]);
    server.signal(Signal::SIGCONT);
    server.wait_for_keys(&["/s/n0", "/s/n1"]);
    // The leases end in earnest, as they do when etcd is held up for longer.
    let leases = server.control(&["lease", "list"]);
    for lease in leases.lines().skip(1) {
        server.control(&["lease", "revoke", lease]);
    }
    server.wait_for_keys(&["/s/n0", "/s/n1"]);
    cluster.wait(&[0, 1], "registered again", |log, _| log.matches(" registered source=").count() > 1);
    cluster.wait_together(&[0, 1]);
}
