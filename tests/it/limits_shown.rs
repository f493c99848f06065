//! Three nodes that share a limit: what `deepintshield limits`, status, metrics and refusals say of it
//! while it is spent, while a node is gone, and after.

use crate::cluster_rig::Cluster;
use crate::node_rig::{Client, Simulator, outcome, text, until};
use serde_json::{Value, json};
use shared::clock::Clock;
use std::net::SocketAddr;
use std::time::Duration;

const AMOUNT: u64 = 12;
const WINDOW: &str = "6s";
const LIMIT: &str = "l/requests";

struct Scene {
    cluster: Cluster,
    _provider: Simulator,
}

impl Scene {
    /// Three nodes, and [`AMOUNT`] requests in a window for all of them.
    fn new() -> Self {
        let provider = Simulator::start(&[]);
        let mut cluster = Cluster::on_loopback(3, &json!({}));
        let peers: Vec<String> = (0..3).map(|number| cluster.gossip_address(number).to_string()).collect();
        let grant = json!({ "provider": "sim", "allowed_models": ["*"] });
        let config = json!({
            "providers": { "sim": {
                "keys": [{ "name": "k", "value": "sk-k", "models": ["*"], "weight": 1 }],
                "network_config": { "base_url": format!("http://{}", provider.address), "allow_private_network": true },
                "custom_provider_config": { "base_provider_type": "openai" },
            } },
            "governance": {
                "rate_limits": [{ "id": "l", "request_max_limit": AMOUNT, "request_reset_duration": WINDOW }],
                "virtual_keys": [{ "id": "v", "name": "v", "value": "sk-bf-v", "provider_configs": [grant], "rate_limit_id": "l" }],
            },
            "cluster_config": { "peers": peers, "expected_nodes": 3, "initial_state": "new" },
        });
        (0..3).for_each(|number| cluster.extend(number, &config));
        cluster.start_all();
        cluster.wait_together(&[0, 1, 2]);
        let mut scene = Self { cluster, _provider: provider };
        scene.wait(&[0, 1, 2], "all of the limit is with the nodes", |limit| {
            limit["stranded"] == 0 && limit["entitlement"] == AMOUNT
        });
        scene
    }

    #[track_caller]
    fn wait(&mut self, numbers: &[usize], what: &str, is_so: impl Fn(&Value) -> bool) {
        self.cluster.wait(numbers, what, |_, status| is_so(limit(status)));
    }

    fn limit(&self, number: usize) -> Value {
        limit(&self.cluster.status(number).expect("the node answers")).clone()
    }

    /// Status and head of the answer to one request.
    fn ask(&self, number: usize) -> (u16, String) {
        let address = SocketAddr::new(self.cluster.address(number), self.cluster.ports().clients);
        let mut client = Client::connect_to(address).expect("somebody listens");
        client.send_chat("x-bf-vk: sk-bf-v\r\n", false).expect("it is taken");
        let head = client.head().expect("it is answered");
        (head[9..12].parse().expect("a status"), head)
    }

    /// Asks this node until it refuses; how many it admitted, and the head of the refusal.
    fn spend(&self, number: usize) -> (u64, String) {
        for admitted in 0..=AMOUNT {
            let (status, head) = self.ask(number);
            if status == 429 {
                return (admitted, head);
            }
            assert_eq!(status, 200, "{head}");
        }
        panic!("more than the limit was admitted");
    }

    /// What the command prints on a node, and its exit code.
    fn printed(&self, number: usize, more: &[&str]) -> (i32, String) {
        let config = self.cluster.config(number);
        let arguments = [&["limits", "--config", text(&config)], more].concat();
        let (code, out, error) = outcome(&arguments, &[]);
        assert_eq!(error, "");
        (code, out)
    }
}

fn limit(status: &Value) -> &Value {
    let limits = status["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
    limits.iter().find(|limit| limit["id"] == LIMIT).unwrap_or(&Value::Null)
}

fn after_ms(head: &str) -> u64 {
    let field = head.split("\r\nretry-after-ms: ").nth(1).expect("a refusal says when to come back");
    field.split("\r\n").next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn every_nodes_part_is_shown_and_a_lost_one_is_stranded_until_it_comes_back() {
    let mut scene = Scene::new();
    let (code, shown) = scene.printed(1, &[]);
    assert_eq!(code, 0, "{shown}");
    for words in ["3 members in epoch", LIMIT, "n0", "n1 *", "n2", "strict"] {
        assert!(shown.contains(words), "{words} is not in\n{shown}");
    }
    let limit = scene.limit(0);
    assert_eq!(limit["by_node"].as_array().map(Vec::len), Some(3), "{limit}");
    assert_eq!((&limit["overshoot_bound"], &limit["on_node_loss"]), (&json!(0), &json!("reclaim")), "{limit}");

    let (admitted, _) = scene.spend(0);
    assert!(admitted > 0);
    scene.wait(&[0, 1, 2], "what was used and refused is known everywhere", |limit| {
        limit["used"] == admitted && limit["refused"].as_u64() > Some(0)
    });
    let (_, metrics) = scene.cluster.get(0, "/metrics");
    let labels = "{limit=\"l/requests\",unit=\"requests\"}";
    for line in [
        format!("deepintshield_limit_stranded{labels} "),
        format!("deepintshield_limit_utilisation_ratio{labels} "),
        format!("deepintshield_limit_overshoot_bound{labels} 0\n"),
        format!("deepintshield_cluster_limit_entitlement{labels} "),
        "deepintshield_escrow_members{on_node_loss=\"reclaim\"} 3\n".to_owned(),
        "deepintshield_escrow_may_spend{on_node_loss=\"reclaim\"} 1\n".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} is missing in\n{metrics}");
    }
    scene.wait(&[0], "it rests again", |limit| limit["used"] == 0 && limit["stranded"] == 0);

    // Each node keeps a part in reserve, so that something is lost with this one.
    scene.wait(&[2], "it has a part", |limit| limit["entitlement_here"].as_u64() > Some(0));
    scene.cluster.kill(2);
    scene.wait(&[0, 1], "what it had is stranded", |limit| limit["stranded"].as_u64() > Some(0));
    scene.wait(&[0, 1], "and comes back", |limit| limit["stranded"] == 0 && limit["entitlement"] == AMOUNT);
    scene.cluster.wait(&[0, 1], "the roster of two", |log, status| {
        status["escrow"]["books"][0]["members"].as_array().map(Vec::len) == Some(2)
            && log.contains("nodes share the limits without those that were lost")
    });
    scene.cluster.kill(1);
    scene.cluster.wait(&[0], "no quorum", |log, status| {
        limit_waits(status) && log.contains("this node may not spend of shared limits")
    });
    let (code, shown) = scene.printed(0, &[]);
    assert!(code == 1 && shown.contains("nothing may be spent here: fewer than 2 members"), "{code} {shown}");
    let (code, shown) = scene.printed(0, &["--json"]);
    let shown: Value = serde_json::from_str(&shown).expect("the figures are JSON");
    assert!(code == 1 && shown["limits"][0]["waits_for"].is_string() && shown["escrow"]["is_kept"] == true, "{shown}");
}

fn limit_waits(status: &Value) -> bool {
    limit(status)["waits_for"].is_string()
}

#[test]
fn who_comes_back_when_told_is_admitted() {
    let mut scene = Scene::new();
    // All of it is spent through one node.
    let clock = Clock::start();
    let mut spent = 0;
    while spent < AMOUNT {
        assert!(clock.now().0 < 5_000_000_000, "only {spent} within five seconds");
        spent += scene.spend(0).0;
    }
    scene.wait(&[1], "another node knows", |limit| limit["used"] == AMOUNT);
    // Once in a second it hears when they are free.
    let told = until("a refusal says when", || {
        let (status, head) = scene.ask(1);
        assert_eq!(status, 429, "{head}");
        Some(after_ms(&head)).filter(|after_ms| *after_ms > 1_000)
    });
    assert!(told <= 7_500, "{told} ms");
    std::thread::sleep(Duration::from_millis(told));
    let (status, head) = scene.ask(1);
    assert_eq!(status, 200, "told {told} ms: {head}");
}
