//! The troubleshooting of Kubernetes discovery, each symptom brought about: what log and `doctor`
//! say of it names cause and remedy. The log's lines about credentials stand with the discovery's tests.

use crate::cluster_rig::Cluster;
use crate::discovery_kubernetes::{ALL, Pods};
use crate::node_rig::text;
use crate::stand_ins::StandIn;
use serde_json::json;

/// Pods not discovering each other: labels, namespace, pods that are not ready, no API server.
#[test]
fn pods_that_do_not_find_each_other_are_told_why() {
    let mut pods = Pods::new(2);
    let ip = pods.cluster.address(1);
    pods.server.tell("put", json!({"name": "gate-1", "ips": [ip], "labels": {"app": "gates"}}));
    let alone = ["no new nodes discovered", "`kubectl get pods --show-labels`"];
    pods.cluster.assert_doctor_says(0, &alone);
    pods.cluster.assert_doctor_says(0, &["no pod in namespace \"default\" has the labels \"app=gate\"", "compare"]);

    pods.server.tell("put", json!({"name": "gate-1", "ips": [ip], "ready": false}));
    pods.cluster.assert_doctor_says(0, &alone);
    pods.cluster.assert_doctor_says(0, &["1 pods in namespace \"default\"", "none of them is running and ready"]);

    let mut elsewhere = pods.config.clone();
    elsewhere["discovery"]["k8s_namespace"] = json!("elsewhere");
    pods.cluster.configure(0, &elsewhere);
    pods.cluster.assert_doctor_says(0, &["error listing pods", "a Role in namespace \"elsewhere\""]);
    pods.cluster.configure(0, &pods.config);

    // It is found, and its gossip port does not answer; then it does.
    pods.put(1);
    pods.cluster.assert_doctor_says(0, &["kubernetes discovered 1 nodes", "nobody listens at", "start the node there"]);
    pods.cluster.start(1);
    let (code, said) = pods.cluster.doctor(0);
    assert!(code == 0 && said.contains("is n1, answers"), "{said}");

    pods.server.just("stop");
    pods.cluster.assert_doctor_says(0, &["error listing pods", "verify that the API server can be reached"]);
}

/// Permission denied errors: no credentials, those of nobody, and each right that is missing.
#[test]
fn a_pod_without_the_rights_is_told_which() {
    let mut pods = Pods::new(1);
    let role = "with the verbs get, list and watch on pods, and a RoleBinding";
    pods.server.tell("tokens", json!({"tokens": {"another": ALL}}));
    pods.cluster
        .assert_doctor_says(0, &["error listing pods", "Unauthorized", "verify that the ServiceAccount exists"]);
    pods.token("canary-2", &[]);
    pods.cluster.assert_doctor_says(0, &["cannot list resource", "forbidden", role]);
    pods.token("canary-3", &["default/list"]);
    pods.cluster.assert_doctor_says(0, &["error listing pods (watch)", "cannot watch resource", role]);
    pods.token("canary-4", ALL);
    pods.cluster.assert_doctor_says(0, &["no new nodes discovered"]);

    let mut config = pods.config.clone();
    config["discovery"]["k8s_kubeconfig"] = json!("/nonexistent/kubeconfig");
    pods.cluster.configure(0, &config);
    pods.cluster.assert_doctor_says(0, &["error getting kubernetes config", "give it a ServiceAccount"]);
}

/// Cluster forms but nodes show as unhealthy: a network policy comes between pods that know each other.
#[test]
fn pods_that_a_network_policy_parts_are_suspect_then_dead_and_come_back() {
    let mut cluster = Cluster::in_namespaces(2, &json!({ "enabled": false }));
    let server = cluster.switch().address().to_string();
    let mut stand_in = StandIn::start_at(&server, "kubernetes", None, |command| cluster.switch().start(command));
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{server}:{}", stand_in.port)}}],
        "users": [{"name": "c", "user": {"token": "canary"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    });
    let kubeconfig = cluster.scratch().write("kubeconfig", &kubeconfig.to_string());
    stand_in.tell("tokens", json!({"tokens": {"canary": ALL}}));
    for number in 0..2 {
        stand_in.tell("put", json!({"name": format!("gate-{number}"), "ips": [cluster.address(number)]}));
        cluster.configure(
            number,
            &json!({ "discovery": {
                "enabled": true, "type": "kubernetes", "service_name": "gate", "k8s_label_selector": "app=gate",
                "k8s_kubeconfig": text(&kubeconfig), "dial_timeout": "2s",
            }}),
        );
    }
    cluster.start_all();
    cluster.wait_together(&[0, 1]);
    cluster.space(1).block(&["udp dport 10101", "tcp dport 10101"]);
    cluster.wait_for_line(&[0, 1], "node marked as suspect; where this happens often, check the network");
    cluster.wait_for_line(&[0, 1], "or raise gossip.config.timeout_seconds");
    cluster.wait_for_line(&[0, 1], "node marked as dead; start it, or, where it runs, see whether the gossip port");
    cluster.assert_doctor_says(
        0,
        &["kubernetes discovered 1 nodes", "node marked as dead", "not reached by UDP or TCP", "NetworkPolicies"],
    );
    cluster.space(1).block(&[]);
    cluster.wait_together(&[0, 1]);
    cluster.wait_for_line(&[0, 1], "node recovered");
}
