//! Two nodes, and a provider that tells how its own limits stand: what one node hears serves both.

use crate::cluster_rig::Cluster;
use crate::node_rig::{Client, Simulator, get_from, until};
use serde_json::{Value, json};
use shared::clock::{Clock, Nanos};
use std::net::SocketAddr;
use std::time::Duration;

/// The nodes' key at the provider, which somebody else may have too.
const SHARED_KEY: &str = "authorization: Bearer sk-shared\r\n";
const VIRTUAL_KEY: &str = "x-bf-vk: sk-bf-test\r\n";

/// What the limit is attached to: to what the provider counts too, or to what it knows nothing of.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Key,
    VirtualKey,
}

struct Scene {
    provider: Simulator,
    cluster: Cluster,
}

impl Scene {
    /// Two nodes with `amount` requests in `window`, before a provider with `rule`.
    fn new(rule: &str, amount: &Value, window: &str, place: Place) -> Self {
        let provider = Simulator::start(&["--limit", rule]);
        let mut cluster = Cluster::on_loopback(2, &json!({}));
        let peers: Vec<String> = (0..2).map(|number| cluster.gossip_address(number).to_string()).collect();
        let mut key = json!({ "name": "shared", "value": "sk-shared", "models": ["*"], "weight": 1 });
        let grant = json!({ "provider": "sim", "allowed_models": ["*"] });
        let mut virtual_key = json!({ "id": "vk", "name": "vk", "value": "sk-bf-test", "provider_configs": [grant] });
        let limited = if place == Place::Key { &mut key } else { &mut virtual_key };
        limited["rate_limit_id"] = json!("l");
        let config = json!({
            "providers": { "sim": {
                "keys": [key],
                "network_config": { "base_url": format!("http://{}", provider.address), "allow_private_network": true },
                "custom_provider_config": { "base_provider_type": "openai" },
            } },
            "governance": {
                "rate_limits": [{ "id": "l", "request_max_limit": amount, "request_reset_duration": window }],
                "virtual_keys": [virtual_key],
            },
            "cluster_config": { "peers": peers, "expected_nodes": 2, "initial_state": "new" },
        });
        (0..2).for_each(|number| cluster.extend(number, &config));
        cluster.start_all();
        cluster.wait_together(&[0, 1]);
        let scene = Self { provider, cluster };
        // The first one of each node, so that both have a part of the limit.
        let mut clients = [scene.client(0), scene.client(1)];
        for client in &mut clients {
            until("the limit's units are there", || (ask(client, VIRTUAL_KEY).0 == 200).then_some(()));
        }
        scene
    }

    /// A client of a node; of the provider itself above those.
    fn client(&self, number: usize) -> Client {
        let address = match number {
            0 | 1 => SocketAddr::new(self.cluster.address(number), self.cluster.ports().clients),
            _ => self.provider.address,
        };
        Client::connect_to(address).expect("somebody listens")
    }

    /// Requests that the provider refused.
    fn refused(&self) -> u64 {
        let (_, stats) = get_from(self.provider.address, "/__sim/stats");
        let stats: Value = serde_json::from_str(&stats).expect("the statistics are JSON");
        stats["refused"].as_u64().expect("it counts what it refuses")
    }

    /// Waits until both nodes say so of the limit.
    #[track_caller]
    fn wait_learned(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) {
        self.cluster.wait(&[0, 1], what, |_, status| is_so(&status["learned_limits"]));
    }
}

/// Status and text of the answer to one request.
fn ask(client: &mut Client, fields: &str) -> (u16, String) {
    client.send_chat(fields, false).expect("it is taken");
    let head = client.head().expect("it is answered");
    let length = head.to_ascii_lowercase().split("content-length: ").nth(1).and_then(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    let body = client.exactly(length.expect("it has a length")).expect("the answer is whole");
    let head = head + &String::from_utf8_lossy(&body);
    (head[9..12].parse().expect("a status"), head)
}

#[test]
fn a_providers_limit_is_that_of_both_nodes_after_one_answer() {
    for amount in [json!(1000), json!("auto")] {
        let mut scene = Scene::new("requests=30,window=60s,scope=key", &amount, "1m", Place::Key);
        let configured = if amount == "auto" { Value::Null } else { amount };
        scene.wait_learned("the provider's limit", |learned| {
            let limit = &learned[0];
            limit["effective"] == 30 && limit["why"] == "provider_limit" && limit["configured"] == configured
        });
        // Of so small a limit one node holds all units, and lends.
        let mut client = scene.client(1);
        let head = until("the second node has one", || {
            let (status, head) = ask(&mut client, VIRTUAL_KEY);
            (status == 200).then_some(head)
        });
        assert!(head.contains("\r\nx-ratelimit-limit-requests: 30\r\n"), "{head}");
        let (_, metrics) = scene.cluster.get(1, "/metrics");
        let line = "deepintshield_limit_effective{limit=\"l/requests\",unit=\"requests\",why=\"provider_limit\"} 30";
        assert!(metrics.contains(line), "{metrics}");
        scene.cluster.stop(0);
        scene.cluster.stop(1);
    }
}

#[test]
fn what_somebody_else_uses_one_node_hears_and_the_other_leaves_alone() {
    let mut scene = Scene::new("requests=60,window=30s,scope=key", &json!(60), "30s", Place::Key);
    let mut somebody = scene.client(2);
    for _ in 0..40 {
        assert_eq!(ask(&mut somebody, SHARED_KEY).0, 200);
    }
    // The first node is told of it, and the second one hears that.
    let mut client = scene.client(0);
    let mut answered = 2 + (0..3).filter(|_| ask(&mut client, VIRTUAL_KEY).0 == 200).count();
    scene.wait_learned("foreign use", |learned| {
        // 20, less what the nodes have not heard of each other's own five, and one of tolerance.
        learned[0]["effective"].as_u64().is_some_and(|units| (15..=21).contains(&units))
    });
    let mut client = scene.client(1);
    answered += (0..40).filter(|_| ask(&mut client, VIRTUAL_KEY).0 == 200).count();
    assert!((6..=21).contains(&answered), "{answered} of the 20 that were left");
    assert_eq!(scene.refused(), 0, "the provider did not have to refuse any");
    scene.wait_learned("nothing of it when it is over", |learned| *learned == json!([]));
    assert_eq!(ask(&mut client, VIRTUAL_KEY).0, 200);
    scene.cluster.stop(0);
    scene.cluster.stop(1);
}

/// For three windows somebody else takes four of the six requests a second that the provider fills
/// up, while each node is asked for ten a second: what the provider had to refuse the nodes in the
/// second half of that. In the first one nobody can know better; then it was 5 against 24.
fn refused_beside_somebody(place: Place) -> u64 {
    const STEP: Duration = Duration::from_millis(50);
    const STEPS: usize = 600;
    let mut scene = Scene::new("requests=60,window=10s,kind=token-bucket,scope=key", &json!(60), "10s", place);
    let clock = Clock::start();
    let mut somebody = scene.client(2);
    let mut clients = [scene.client(0), scene.client(1)];
    let (mut foreign_refused, mut refused_before) = (0, 0);
    let mut next = Nanos(0);
    for step in 0..STEPS {
        next = next.after(STEP);
        std::thread::sleep(next.since(clock.now()));
        if step == STEPS / 2 {
            refused_before = scene.refused() - foreign_refused;
        }
        if step % 5 == 0 && ask(&mut somebody, SHARED_KEY).0 == 429 {
            foreign_refused += 1;
        }
        ask(&mut clients[step % 2], VIRTUAL_KEY);
    }
    let refused = scene.refused() - foreign_refused - refused_before;
    scene.cluster.stop(0);
    scene.cluster.stop(1);
    refused
}

#[test]
fn a_provider_is_not_made_to_refuse_again_and_again() {
    let unlearned = std::thread::Builder::new().spawn(|| refused_beside_somebody(Place::VirtualKey)).expect("a thread");
    let learned = refused_beside_somebody(Place::Key);
    let unlearned = unlearned.join().expect("it ends");
    println!("refused: {learned} where it is learned, {unlearned} where not");
    assert!(learned * 2 < unlearned, "{learned} where it is learned, {unlearned} where not");
}
