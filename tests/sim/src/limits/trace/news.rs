//! Nodes that keep a limit by what they hear of each other: the publisher and the entitlements of
//! production, with a gossip that is as late as it may be.

use super::super::scenario::{MILLISECOND_NS, SECOND_NS};
use super::rules::Compiled;
use controlplane::compile::TableSecret;
use controlplane::entitlements::Others;
use controlplane::gossip::values::{LimitUse, NodeValues};
use controlplane::learned::Learned;
use controlplane::member::{Health, Member, View};
use controlplane::publish::{Publisher, Sharing};
use controlplane::traffic;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shared::clock::Nanos;
use shared::limit::LimitRings;
use shared::ring::core_channel;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// A node says what it used this often, and looks this often at what the others said.
const SAYS_EVERY_NS: u64 = SECOND_NS;
const LOOKS_EVERY_NS: u64 = SECOND_NS;
/// Two rounds of gossip and the way.
const UNDER_WAY_MAX_NS: u64 = 550 * MILLISECOND_NS;

/// See the module.
pub(crate) struct News {
    nodes: Vec<Node>,
    random: StdRng,
}

struct Node {
    publisher: Publisher,
    rings: LimitRings,
    offset_ns: u64,
    says_at_ns: u64,
    looks_at_ns: u64,
    /// Of each node, what has arrived and what is under way, the oldest first.
    heard: Vec<Vec<Saying>>,
}

#[derive(Clone)]
struct Saying {
    arrives_ns: u64,
    used: Vec<LimitUse>,
}

impl News {
    pub(crate) fn new(seed: u64, count: usize, compiled: Compiled) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let secrets: Arc<[TableSecret]> = compiled.secrets.into();
        let nodes = (0..count).map(|_| {
            let offset_ns = random.random_range(0..1_000 * SECOND_NS);
            let (sender, receiver) = core_channel();
            let mut publisher = Publisher::new(vec![sender], [0; 32]);
            let view = View::default();
            let others = others(&view, count);
            let (learned, now) = (Learned::default(), Nanos(offset_ns));
            let published =
                publisher.publish(Sharing::Cluster(&others), &learned, &compiled.record, &secrets, None, now);
            published.expect("a compiled record can be published");
            let rings = receiver.newest().expect("it was published").limits.clone();
            Node {
                publisher,
                rings,
                offset_ns,
                says_at_ns: random.random_range(0..SAYS_EVERY_NS),
                looks_at_ns: random.random_range(0..LOOKS_EVERY_NS),
                heard: vec![Vec::new(); count],
            }
        });
        Self { nodes: nodes.collect(), random }
    }

    pub(crate) fn rings(&self, node: usize) -> LimitRings {
        Arc::clone(&self.nodes[node].rings)
    }

    pub(crate) fn reading(&self, node: usize, at_ns: u64) -> Nanos {
        Nanos(self.nodes[node].offset_ns + at_ns)
    }

    /// Called every few milliseconds: whoever is due says and looks.
    pub(crate) fn run_until(&mut self, at_ns: u64) {
        for from in 0..self.nodes.len() {
            let count = self.nodes.len();
            let now = self.reading(from, at_ns);
            if self.nodes[from].says_at_ns <= at_ns {
                self.nodes[from].says_at_ns += SAYS_EVERY_NS;
                let rings = &self.nodes[from].rings;
                for ring in rings.iter() {
                    ring.advance(now);
                }
                let used = traffic::limits(&self.nodes[from].publisher.limits(count as u64, now));
                for node in &mut self.nodes {
                    let arrives_ns = at_ns + self.random.random_range(0..=UNDER_WAY_MAX_NS);
                    node.heard[from].push(Saying { arrives_ns, used: used.clone() });
                }
            }
            if self.nodes[from].looks_at_ns <= at_ns {
                self.nodes[from].looks_at_ns += LOOKS_EVERY_NS;
                self.nodes[from].look(from, at_ns, now);
            }
        }
    }
}

impl Node {
    fn look(&mut self, own: usize, at_ns: u64, now: Nanos) {
        let mut view = View::default();
        for (number, sayings) in self.heard.iter_mut().enumerate().filter(|(number, _)| *number != own) {
            let arrived = sayings.iter().rposition(|saying| saying.arrives_ns <= at_ns);
            sayings.drain(..arrived.unwrap_or(0));
            if arrived.is_some()
                && let Some(saying) = sayings.first()
            {
                view.members.push(member(number, saying.used.clone(), now));
            }
        }
        let others = others(&view, self.heard.len());
        self.publisher.entitle(Sharing::Cluster(&others), &Learned::default(), now);
    }
}

fn others(view: &View, nodes: usize) -> Others<'_> {
    Others::of(view, u16::try_from(nodes).unwrap_or(u16::MAX))
}

fn member(number: usize, limits: Vec<LimitUse>, now: Nanos) -> Member {
    Member {
        id: format!("n{number}"),
        generation: 1,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        health: Health::Healthy,
        values: NodeValues { limits, ..NodeValues::default() },
        heard_at: now,
        round_trip: None,
        clock_offset_ms: None,
        is_tcp_only: false,
        speaks_our_key: true,
    }
}
