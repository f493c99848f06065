//! One simulated node: the gossip and the cluster state of production. No cores, no discovery: its
//! peers are listed. What survives a crash is kept outside of it, as a disk would.

use controlplane::addresses::Addresses;
use controlplane::event::Event;
use controlplane::gossip::identity::Generations;
use controlplane::gossip::keyring::Keyring;
use controlplane::gossip::network::Network;
use controlplane::gossip::values::{ConfigurationMark, NodeValues, encode};
use controlplane::gossip::{Gossip, GossipSettings};
use controlplane::member::View;
use controlplane::state::ClusterState;
use shared::clock::Clock;
use shared::config::model::{Cluster, NodeId};
use shared::secret::Secret;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// The key of all nodes: base64 of 32 bytes.
const KEY: &str = "c2ltdWxhdGVkIG5vZGVzIHNoYXJlIG9uZSBrZXkhISE=";
const PORT: u16 = 10_101;
/// How often a node tells something new.
const NEWS_INTERVAL: Duration = Duration::from_millis(500);
/// Nodes that all others know from the start.
const SEEDS: usize = 2;
/// Wall clocks of simulated nodes begin here: 2025-06-15.
pub(crate) const WALL_BEGINS_MS: i64 = 1_750_000_000_000;

/// A node, seen from outside.
pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) seen: Mutex<Seen>,
    /// How far its time of day is off from the simulation's, which begins in 1970.
    pub(crate) wall_error_ms: &'static AtomicI64,
}

/// What is known of a node.
#[derive(Default)]
pub(crate) struct Seen {
    /// What it believes of the others.
    pub(crate) view: View,
    /// As it would tell its clients.
    pub(crate) members: u32,
    pub(crate) is_cluster_healthy: bool,
    /// News that it told; the last one is what the others have to know.
    pub(crate) news: u64,
    /// No further news: what was told must get around.
    pub(crate) is_quiet: bool,
    /// Kept on its disk.
    pub(crate) last_generation: u64,
    /// The next start finds its disk empty.
    pub(crate) forgets: bool,
    /// It found another node under its own id.
    pub(crate) has_twin: bool,
    /// Everything that it was told by gossip, in order, as one number.
    pub(crate) trace: u64,
}

/// Address of a node's gossip.
pub(crate) fn address(number: usize) -> SocketAddr {
    SocketAddr::new(ip(number), PORT)
}

/// A node's address.
pub(crate) fn ip(number: usize) -> IpAddr {
    let number = u16::try_from(number + 1).expect("fewer nodes than addresses").to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, number[0], number[1]))
}

/// A node's id.
pub(crate) fn id(number: usize) -> String {
    format!("node-{number}")
}

impl Node {
    pub(crate) fn new(number: usize) -> Arc<Self> {
        let wall_error_ms = Box::leak(Box::new(AtomicI64::new(WALL_BEGINS_MS)));
        Arc::new(Self { number, seen: Mutex::default(), wall_error_ms })
    }

    pub(crate) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().expect("nobody panics while looking")
    }

    /// Runs the node until it is crashed.
    pub(crate) async fn run(self: Arc<Self>, network: Arc<dyn Network>) -> turmoil::Result {
        let clock = Clock::start().with_wall_error(self.wall_error_ms);
        let last_generation = {
            let mut seen = self.seen();
            if std::mem::take(&mut seen.forgets) {
                seen.last_generation = 0;
            }
            seen.view = View::default();
            seen.last_generation
        };
        let cluster = Cluster { bind_address: ip(self.number), ..Cluster::default() };
        let own = address(self.number);
        let settings = GossipSettings::new(
            &cluster,
            NodeId::new(&id(self.number))?,
            Generations::after(last_generation),
            Keyring::new(&cluster.cluster_name, &[Secret::new(KEY)])?,
            own,
        );
        let (sender, mut events) = mpsc::channel(1_024);
        let gossip = Gossip::start(settings, network, clock, sender).await?;
        self.seen().last_generation = gossip.generation();
        let seeds: BTreeSet<_> = (0..SEEDS).map(address).filter(|seed| *seed != own).collect();
        gossip.follow(seeds);

        let mut state = ClusterState::new(Addresses::default());
        let mut news = tokio::time::interval(NEWS_INTERVAL);
        news.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else { return Err("gossip has ended".into()) };
                    self.take(&mut state, event, clock);
                }
                _ = news.tick() => {
                    let mut seen = self.seen();
                    if !seen.is_quiet {
                        seen.news += 1;
                    }
                    gossip.publish(encode(&values(self.number, seen.news)));
                }
            }
        }
    }

    fn take(&self, state: &mut ClusterState, event: Event, clock: Clock) {
        let mut seen = self.seen();
        match &event {
            Event::Gossiped(view) => {
                seen.trace = traced(seen.trace, view, clock);
                seen.view = (**view).clone();
            }
            Event::DuplicateNode { .. } => seen.has_twin = true,
            _ => {}
        }
        state.apply(event, clock.now());
        let live = state.live();
        (seen.members, seen.is_cluster_healthy) = (live.members, live.is_cluster_healthy);
    }
}

fn values(number: usize, news: u64) -> NodeValues {
    let configuration = ConfigurationMark { epoch: news, author: id(number), hash: format!("{news:016x}") };
    NodeValues { configuration, ..NodeValues::default() }
}

/// FNV-1a over when it was heard and what.
fn traced(trace: u64, view: &View, clock: Clock) -> u64 {
    let mut bytes = clock.now().0.to_le_bytes().to_vec();
    for member in &view.members {
        bytes.extend_from_slice(member.id.as_bytes());
        bytes.extend_from_slice(&member.generation.to_le_bytes());
        bytes.push(member.health as u8);
        bytes.extend_from_slice(&member.values.configuration.epoch.to_le_bytes());
    }
    bytes
        .iter()
        .fold(trace ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
