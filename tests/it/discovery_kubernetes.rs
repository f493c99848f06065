//! Nodes that find each other by the Kubernetes API: pods that are ready and carry the labels, an API
//! server that is away for a while or forgets, and credentials that are wrong or replaced.

use crate::cluster_rig::Cluster;
use crate::node_rig::text;
use crate::stand_ins::{Certificate, StandIn};
use serde_json::{Value, json};

pub(crate) const ALL: &[&str] = &["default/list", "default/watch"];

/// Nodes that are pods, and the API server that knows them.
pub(crate) struct Pods {
    pub(crate) server: StandIn,
    pub(crate) cluster: Cluster,
    pub(crate) config: Value,
}

impl Pods {
    /// None of them is a pod yet.
    pub(crate) fn new(size: usize) -> Self {
        let cluster = Cluster::on_loopback(size, &json!({ "enabled": false }));
        let scratch = cluster.scratch();
        let certificate = Certificate::new(&scratch.path("."));
        let server = StandIn::start("kubernetes", Some(&certificate));
        let token = scratch.write("token", "canary-1");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://127.0.0.1:{}", server.port), "certificate-authority": certificate.authority,
            }}],
            "users": [{"name": "c", "user": {"tokenFile": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        let kubeconfig = scratch.write("kubeconfig", &kubeconfig.to_string());
        let config = json!({ "enabled": true, "discovery": {
            "enabled": true, "type": "kubernetes", "service_name": "gate", "k8s_label_selector": "app=gate",
            "k8s_kubeconfig": text(&kubeconfig), "interval": "500ms", "dial_timeout": "2s",
        }});
        (0..size).for_each(|number| cluster.configure(number, &config));
        let mut pods = Self { server, cluster, config };
        pods.token("canary-1", ALL);
        pods
    }

    /// The server takes this token alone, and the nodes have it.
    pub(crate) fn token(&mut self, token: &str, allowed: &[&str]) {
        self.cluster.scratch().write("token", token);
        self.server.tell("tokens", json!({"tokens": {token: allowed}}));
    }

    pub(crate) fn put(&mut self, number: usize) {
        let ip = self.cluster.address(number);
        self.server.tell("put", json!({"name": format!("gate-{number}"), "ips": [ip]}));
    }

    pub(crate) fn delete(&mut self, number: usize) {
        self.server.tell("delete", json!({"name": format!("gate-{number}")}));
    }
}

#[test]
fn pods_come_and_go_and_the_api_server_too() {
    let mut pods = Pods::new(3);
    pods.cluster.start_all();
    pods.cluster.wait_for_line(&[0, 1, 2], "no pod in namespace \"default\" has the labels \"app=gate\"");
    (0..3).for_each(|number| pods.put(number));
    pods.cluster.wait_together(&[0, 1, 2]);
    pods.cluster.wait_for_line(&[0, 1, 2], "discovered 2 nodes");

    pods.server.just("stop");
    pods.cluster.wait_for_line(&[0, 1, 2], "discovery failed: error listing pods");
    pods.cluster.wait_for_line(&[0, 1, 2], "verify that the API server can be reached");
    pods.cluster.wait_together(&[0, 1, 2]);
    // While it is away one node ends and another comes, and what happened is forgotten.
    pods.cluster.stop(2);
    pods.delete(2);
    let added = pods.cluster.add(&pods.config);
    pods.put(added);
    pods.server.just("compact");
    pods.server.just("start");
    pods.cluster.start(added);
    pods.cluster.wait_healthy(&[0, 1, added], 3);
    pods.cluster.kill(1);
    pods.delete(1);
    pods.cluster.wait_healthy(&[0, added], 2);
}

#[test]
fn credentials_are_told_from_rights_and_both_are_tried_again() {
    let mut pods = Pods::new(2);
    pods.server.tell("tokens", json!({"tokens": {"another": ALL}}));
    (0..2).for_each(|number| pods.put(number));
    pods.cluster.start_all();
    pods.cluster.wait_for_line(&[0, 1], "error listing pods: Unauthorized");
    pods.cluster.wait_for_line(&[0, 1], "verify that the ServiceAccount exists");
    pods.token("canary-1", &["default/list"]);
    pods.cluster.wait_together(&[0, 1]);
    pods.token("canary-2", ALL);
    pods.server.just("end_watches");
    let added = pods.cluster.add(&pods.config);
    pods.cluster.start(added);
    pods.put(added);
    pods.cluster.wait_together(&[0, 1, added]);
    let log = pods.cluster.log(0) + &pods.cluster.stop(added);
    assert!(!log.contains("canary"), "no log has a token: {log}");

    pods.token("canary-3", &[]);
    pods.cluster.start(added);
    pods.cluster.wait_for_line(&[added], "cannot list resource");
    pods.cluster.wait_for_line(&[added], "with the verbs get, list and watch on pods, and a RoleBinding");
}

#[test]
fn a_node_without_credentials_or_selector_says_so() {
    let mut pods = Pods::new(2);
    let mut config = pods.config.clone();
    config["discovery"]["k8s_kubeconfig"] = json!("/nonexistent/kubeconfig");
    pods.cluster.configure(0, &config);
    config["discovery"]["k8s_label_selector"] = Value::Null;
    config["discovery"].as_object_mut().expect("an object").remove("k8s_label_selector");
    pods.cluster.configure(1, &config);
    pods.cluster.start_all();
    pods.cluster.wait_for_line(&[0], "error getting kubernetes config");
    pods.cluster.wait_for_line(&[0], "give it a ServiceAccount");
    pods.cluster.wait_for_line(&[1], "no pods are looked for: set `k8s_label_selector`");
}
