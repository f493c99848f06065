//! Some nodes over loopback: joining, hearing, dying, leaving, coming back. Rounds are short, so
//! that a whole life takes a second or two; every wait is for a condition.

use super::*;
use crate::gossip::network::SystemNetwork;
use crate::gossip::values::{About, NodeValues, encode};
use crate::member::{Health, View};
use shared::secret::Secret;
use std::net::IpAddr;

/// Nothing takes this long unless it is broken.
const WAIT_MAX: Duration = Duration::from_secs(30);
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn cluster() -> Cluster {
    let gossip = shared::config::model::Gossip {
        port: 0,
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(1),
        ..shared::config::model::Gossip::default()
    };
    Cluster { bind_address: IpAddr::from([127, 0, 0, 1]), gossip, ..Cluster::default() }
}

fn settings(id: &str, generation: u64) -> GossipSettings {
    let cluster = cluster();
    let keyring = Keyring::new(&cluster.cluster_name, &[Secret::new(KEY)]).unwrap();
    let advertise = ([127, 0, 0, 1], 0).into();
    GossipSettings::new(&cluster, NodeId::new(id).unwrap(), Generations::after(generation), keyring, advertise)
}

struct Peer {
    gossip: Gossip,
    events: mpsc::Receiver<Event>,
}

impl Peer {
    async fn start(id: &str) -> Self {
        Self::after(id, 0).await
    }

    /// With a generation above that one.
    async fn after(id: &str, generation: u64) -> Self {
        let (sender, events) = mpsc::channel(16);
        let gossip =
            Gossip::start(settings(id, generation), Arc::new(SystemNetwork), Clock::start(), sender).await.unwrap();
        let peer = Self { gossip, events };
        peer.publish("ready");
        peer
    }

    fn publish(&self, state: &str) {
        let about = About { state: state.to_owned(), ..About::default() };
        self.gossip.publish(encode(&NodeValues { about, ..NodeValues::default() }));
    }

    fn address(&self) -> SocketAddr {
        self.gossip.advertise()
    }

    fn follow(&self, others: &[&Self]) {
        self.gossip.follow(others.iter().map(|other| other.address()).collect());
    }

    /// Waits for a view of which this is true.
    async fn until(&mut self, what: &str, is_so: impl Fn(&View) -> bool) -> View {
        let mut last = None;
        let waiting = async {
            while let Some(event) = self.events.recv().await {
                if let Event::Gossiped(view) = event {
                    if is_so(&view) {
                        return Some(*view);
                    }
                    last = Some(view);
                }
            }
            None
        };
        let found = tokio::time::timeout(WAIT_MAX, waiting).await.ok().flatten();
        found.unwrap_or_else(|| panic!("{what} did not happen; the last view was {last:?}"))
    }

    async fn until_healthy(&mut self, ids: &[&str]) -> View {
        self.until(&format!("{ids:?} being healthy"), |view| {
            ids.iter().all(|id| health(view, id) == Some(Health::Healthy))
        })
        .await
    }

    async fn until_health(&mut self, id: &str, wanted: Option<Health>) -> View {
        self.until(&format!("{id} being {wanted:?}"), |view| health(view, id) == wanted).await
    }
}

fn health(view: &View, id: &str) -> Option<Health> {
    view.members.iter().find(|member| member.id == id).map(|member| member.health)
}

fn state(view: &View, id: &str) -> String {
    let member = view.members.iter().find(|member| member.id == id);
    member.map(|member| member.values.about.state.clone()).unwrap_or_default()
}

/// Three that know each other: everybody tries the first one only.
async fn three() -> [Peer; 3] {
    let mut peers = [Peer::start("a").await, Peer::start("b").await, Peer::start("c").await];
    let [a, b, c] = &peers;
    b.follow(&[a]);
    c.follow(&[a]);
    for (peer, others) in peers.iter_mut().zip([["b", "c"], ["a", "c"], ["a", "b"]]) {
        peer.until_healthy(&others).await;
    }
    peers
}

#[tokio::test]
async fn three_nodes_join_through_one_and_hear_each_others_values() {
    let [mut a, mut b, c] = three().await;
    c.publish("overloaded");
    a.until("the new value", |view| state(view, "c") == "overloaded").await;
    b.until("the new value", |view| state(view, "c") == "overloaded").await;
    c.publish("ready");
    a.until("the next value", |view| state(view, "c") == "ready").await;
}

#[tokio::test]
async fn a_killed_node_becomes_suspect_and_then_dead_and_comes_back_higher() {
    let [mut a, mut b, c] = three().await;
    let generation = c.gossip.generation();
    c.gossip.stop().await;
    for peer in [&mut a, &mut b] {
        peer.until_health("c", Some(Health::Suspect)).await;
        peer.until_health("c", Some(Health::Dead)).await;
    }
    let mut c = Peer::after("c", generation).await;
    c.follow(&[&a, &b]);
    for peer in [&mut a, &mut b] {
        let view = peer.until_healthy(&["c"]).await;
        let known: Vec<_> = view.members.iter().filter(|member| member.id == "c").collect();
        assert!(known.len() == 1 && known.first().is_some_and(|member| member.generation > generation));
    }
    c.until_healthy(&["a", "b"]).await;
}

#[tokio::test]
async fn a_node_that_leaves_is_leaving_and_then_gone_but_never_dead() {
    let [mut a, b, c] = three().await;
    drop(b);
    c.gossip.leave().await;
    a.until_health("c", Some(Health::Leaving)).await;
    let view = a.until("c being gone", |view| health(view, "c") != Some(Health::Leaving)).await;
    assert_eq!(health(&view, "c"), None);
}

#[tokio::test]
async fn the_newcomer_under_a_taken_id_stops_with_an_alarm() {
    let [a, mut b, c] = three().await;
    let mut other = Peer::after("b", b.gossip.generation()).await;
    other.follow(&[&a, &b, &c]);
    let generation = other.gossip.generation();
    let alarm = async {
        while let Some(event) = other.events.recv().await {
            if let Event::DuplicateNode { id, address } = event {
                return Some((id, address));
            }
        }
        None
    };
    let alarm = tokio::time::timeout(WAIT_MAX, alarm).await.unwrap();
    assert_eq!(alarm, Some(("b".to_owned(), b.address())));
    // Neither of them started above the other while both lived.
    assert_eq!(other.gossip.wire.generation(), generation);
    other.gossip.stop().await;
    b.until_healthy(&["a", "c"]).await;
    while let Ok(event) = b.events.try_recv() {
        assert!(!matches!(event, Event::DuplicateNode { .. }), "the one that was there first stays");
    }
}

#[tokio::test]
async fn a_node_whose_clock_was_set_back_starts_again_above_its_past() {
    let [mut a, b, c] = three().await;
    let past = c.gossip.generation() + 1_000_000_000;
    c.gossip.stop().await;
    let c = Peer::after("c", past).await;
    c.follow(&[&a, &b]);
    a.until("c's later generation", |view| view.members.iter().any(|node| node.id == "c" && node.generation > past))
        .await;
    c.gossip.stop().await;
    let c = Peer::start("c").await;
    c.follow(&[&a, &b]);
    assert!(c.gossip.generation() < past);
    let is_back = |view: &View| {
        view.members.iter().any(|node| node.id == "c" && node.generation > past + 1 && node.health == Health::Healthy)
    };
    a.until("c above its past", is_back).await;
}

#[tokio::test]
async fn without_keys_an_open_port_is_refused_with_both_remedies() {
    let everywhere = Cluster { bind_address: IpAddr::from([0, 0, 0, 0]), ..cluster() };
    let keyring = Keyring::new("c", &[]).unwrap();
    let id = NodeId::new("a").unwrap();
    let settings = GossipSettings::new(&everywhere, id, Generations::after(0), keyring, ([127, 0, 0, 1], 0).into());
    let opened = GossipPort::open(settings, Arc::new(SystemNetwork), Clock::start()).await;
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("openssl rand -base64 32") && error.contains("\"insecure\": true"), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_said_to_be_taken() {
    let a = Peer::start("a").await;
    let taken = settings("b", 0).listening_on(a.address());
    let opened = GossipPort::open(taken, Arc::new(SystemNetwork), Clock::start()).await;
    let error = opened.err().unwrap();
    assert!(error.is_taken() && error.to_string().contains(&a.address().to_string()), "{error}");
}
