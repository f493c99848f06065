//! What a node without a cluster spent of its limits before it was killed or told to end, and what
//! the next process on the same folder lets through. The provider counts.

use crate::node_rig::{Client, Home, Node, Simulator, get_from};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shared::clock::{Clock, Nanos};
use std::time::Duration;

/// Longer than a node needs to write down what it spends before it may spend more.
const REFUSED_FOR_GOOD: Duration = Duration::from_secs(3);

struct Scene {
    provider: Simulator,
    home: Home,
    window: &'static str,
}

impl Scene {
    /// A node with so many requests in a window.
    fn new(amount: u64, window: &'static str) -> Self {
        let provider = Simulator::start(&[]);
        let home = Home::new(provider.address);
        let text = std::fs::read_to_string(home.config()).expect("the rig wrote it");
        let mut config: Value = serde_json::from_str(&text).expect("the rig's is JSON");
        config["governance"] = json!({
            "rate_limits": [{ "id": "l", "request_max_limit": amount, "request_reset_duration": window }],
            "providers": [{ "name": "sim", "rate_limit_id": "l" }],
        });
        home.scratch.write("config.json", &config.to_string());
        Self { provider, home, window }
    }

    /// Sends one request after the other until `enough` were admitted, or none is any more: how many
    /// were.
    fn spend(&self, enough: u64) -> u64 {
        let mut client = Client::connect(self.home.port).expect("the node listens");
        let clock = Clock::start();
        let (mut admitted, mut admitted_at) = (0, Nanos(0));
        while admitted < enough && clock.now().since(admitted_at) < REFUSED_FOR_GOOD {
            let answer = client.chat().expect("it is answered");
            match answer.status {
                200 => (admitted, admitted_at) = (admitted + 1, clock.now()),
                429 => {}
                status => panic!("{status} {}", answer.body),
            }
            if !answer.keeps {
                client = Client::connect(self.home.port).expect("the node listens");
            }
        }
        admitted
    }

    /// Requests in the fullest window, as the provider saw them.
    fn fullest(&self) -> u64 {
        let (_, stats) = get_from(self.provider.address, &format!("/__sim/stats?window={}", self.window));
        let stats: Value = serde_json::from_str(&stats).expect("the statistics are JSON");
        let windows = stats["windows"].as_object().expect("it counts windows");
        windows.values().find_map(|fullest| fullest["requests"].as_u64()).expect("one window was asked for")
    }

    fn end(&self, mut node: Node) {
        node.signal(Signal::SIGTERM);
        assert_eq!(node.ended(), 0, "{}", node.log());
        assert!(self.home.scratch.path("state/spent").exists());
    }
}

#[test]
fn a_node_killed_in_the_middle_of_a_window_does_not_spend_it_again() {
    let scene = Scene::new(30, "60s");
    for _ in 0..2 {
        let node = scene.home.start();
        scene.spend(20);
        node.kill_nine();
    }
    let _node = scene.home.start();
    assert_eq!(scene.spend(1), 0, "what it may have spent beyond what is known counts as spent");
    assert_eq!(scene.fullest(), 20);
}

#[test]
fn a_restart_in_order_neither_resets_a_window_nor_blocks_it() {
    for window in ["60s", "3600s"] {
        let scene = Scene::new(30, window);
        let node = scene.home.start();
        assert_eq!(scene.spend(20), 20);
        scene.end(node);
        let node = scene.home.start();
        assert_eq!(scene.spend(5), 5);
        scene.end(node);
        let _node = scene.home.start();
        assert_eq!(scene.spend(30), 5);
        assert_eq!(scene.fullest(), 30);
    }
}

#[test]
fn a_crash_neither_resets_nor_blocks_a_long_window() {
    let scene = Scene::new(1_000, "3600s");
    let node = scene.home.start();
    assert_eq!(scene.spend(300), 300);
    node.kill_nine();
    let node = scene.home.start();
    let rest = scene.spend(1_000);
    assert!((630..=700).contains(&rest), "{rest} of 700 were left\n{}", node.log());
    assert_eq!(scene.fullest(), 300 + rest);
}
