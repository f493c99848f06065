//! Limits in a large cluster to which nothing happens: what each node sends at rest and under load,
//! what it costs, and whether anything is exceeded. A step is every 200 ms here; nodes need no other
//! clock, and disks take no time.

use super::machine::{key, name};
use super::scenario::{MILLISECOND_NS, SECOND_NS};
use crate::seeds::say;
use controlplane::escrow::{Escrow, EscrowSettings, LimitTerms, NodeName, Peer, Policy};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shared::clock::Nanos;
use shared::limit::{LimitRing, UNITS_MAX, Window};
use std::sync::Arc;
use std::time::Duration;

const STEP_NS: u64 = 200 * MILLISECOND_NS;
const WINDOW_NS: u64 = 10 * SECOND_NS;
/// Units a window, of each limit.
const AMOUNT: u64 = 100_000;
const LEASE: Duration = Duration::from_secs(10);
/// Under load, requests go to this many limits, and ask for this part of them.
const ACTIVE_LIMITS: usize = 20;
const OFFERED: f64 = 1.5;
/// Units of a request.
const COST: u64 = 100;
const FORMS_NS: u64 = 15 * SECOND_NS;
const PHASE_NS: u64 = 10 * SECOND_NS;

struct Node {
    name: NodeName,
    escrow: Escrow,
    rings: Vec<Arc<LimitRing>>,
}

struct Cluster {
    nodes: Vec<Node>,
    peers: Vec<Peer>,
    random: StdRng,
    now_ns: u64,
    /// Sent in the step before, which arrives in the next one.
    messages: Vec<(NodeName, usize, Vec<u8>)>,
    sent: (u64, u64),
    /// Of active limits: when, and how much.
    admitted: Vec<Vec<(u64, u64)>>,
    exceeded: u64,
}

/// Runs it; true where nothing was exceeded.
pub(crate) fn run(nodes: usize, limits: usize) -> bool {
    let mut cluster = Cluster::new(nodes, limits);
    cluster.pass("forming", FORMS_NS, 0.0);
    cluster.pass("at rest", PHASE_NS, 0.0);
    cluster.pass("under load", PHASE_NS, OFFERED);
    let shortest = (0..limits).map(|place| cluster.entitled(place)).min().unwrap_or(0);
    say(&format!("entitlements of a limit: {shortest} of {AMOUNT} at least; exceeded {} times", cluster.exceeded));
    cluster.exceeded == 0
}

impl Cluster {
    fn new(count: usize, limits: usize) -> Self {
        let now = Nanos(SECOND_NS);
        let window = Window::new(WINDOW_NS).expect("a window");
        let nodes: Vec<Node> = (0..count)
            .map(|number| {
                let settings =
                    EscrowSettings { node: name(number), lease: LEASE, is_new: true, seed: number as u64 + 1 };
                let (mut escrow, _) = Escrow::open(&settings, None, now);
                escrow.expect(u16::try_from(count).unwrap_or(u16::MAX));
                let rings: Vec<_> = (0..limits)
                    .map(|_| {
                        let ring = LimitRing::new(window, UNITS_MAX, now);
                        ring.set_entitlement(0);
                        ring.set_amount(AMOUNT);
                        Arc::new(ring)
                    })
                    .collect();
                let terms = rings.iter().enumerate().map(|(place, ring)| LimitTerms {
                    key: key(place),
                    ring: Arc::clone(ring),
                    amount: AMOUNT,
                    policy: Policy::Reclaim,
                    hold_max: Duration::ZERO,
                    unknown_spend: u64::MAX,
                    handed_before: None,
                });
                escrow.configure(terms.collect(), now);
                Node { name: name(number), escrow, rings }
            })
            .collect();
        Self {
            peers: nodes.iter().map(|node| Peer { node: node.name, is_healthy: true }).collect(),
            nodes,
            random: StdRng::seed_from_u64(1),
            now_ns: SECOND_NS,
            messages: Vec::new(),
            sent: (0, 0),
            admitted: vec![Vec::new(); ACTIVE_LIMITS.min(limits)],
            exceeded: 0,
        }
    }

    fn pass(&mut self, what: &str, time_ns: u64, offered: f64) {
        self.sent = (0, 0);
        let began_cpu = cpu_seconds();
        let before: u64 = self.admitted.iter().flatten().map(|(_, cost)| *cost).sum();
        let end_ns = self.now_ns + time_ns;
        while self.now_ns < end_ns {
            self.now_ns += STEP_NS;
            self.offer(offered);
            self.step();
        }
        let after: u64 = self.admitted.iter().flatten().map(|(_, cost)| *cost).sum();
        let per = self.nodes.len() as f64 * time_ns as f64 / 1e9;
        let could = self.admitted.len() as f64 * AMOUNT as f64 * time_ns as f64 / WINDOW_NS as f64;
        say(&format!(
            "{what:>10}: {:.1} messages and {:.0} bytes a node and second; {:.3} ms of one core a node and second; used {:.3}",
            self.sent.0 as f64 / per,
            self.sent.1 as f64 / per,
            (cpu_seconds() - began_cpu) * 1e3 / per,
            (after - before) as f64 / could,
        ));
    }

    /// What comes in one step's time.
    fn offer(&mut self, offered: f64) {
        let now = Nanos(self.now_ns);
        let units = offered * AMOUNT as f64 * STEP_NS as f64 / WINDOW_NS as f64;
        let requests = (units / COST as f64) as usize;
        for place in 0..self.admitted.len() {
            for _ in 0..requests {
                // Half of them come to a tenth of the nodes.
                let reach = if self.random.random_bool(0.5) { self.nodes.len().div_ceil(10) } else { self.nodes.len() };
                let ring = &self.nodes[self.random.random_range(0..reach)].rings[place];
                if ring.try_hold(COST, now) {
                    ring.stamp(COST, now);
                    self.admitted[place].push((self.now_ns, COST));
                } else {
                    ring.count_refused(COST);
                }
            }
            let from_ns = self.now_ns.saturating_sub(WINDOW_NS);
            let log = &self.admitted[place];
            let sum: u64 = log.iter().rev().take_while(|(at_ns, _)| *at_ns > from_ns).map(|(_, cost)| *cost).sum();
            self.exceeded += u64::from(sum > AMOUNT);
        }
    }

    fn step(&mut self) {
        let now = Nanos(self.now_ns);
        for (from, to, bytes) in std::mem::take(&mut self.messages) {
            self.nodes[to].escrow.heard(from, bytes);
        }
        for number in 0..self.nodes.len() {
            let mut peers = self.peers.clone();
            peers.remove(number);
            let node = &mut self.nodes[number];
            let step = node.escrow.step(&peers, now);
            for (to, bytes) in Escrow::kept(step) {
                self.sent = (self.sent.0 + 1, self.sent.1 + bytes.len() as u64);
                if let Ok(to) = self.peers.binary_search_by_key(&to, |peer| peer.node) {
                    self.messages.push((node.name, to, bytes));
                }
            }
        }
    }

    fn entitled(&self, place: usize) -> u64 {
        let now = Nanos(self.now_ns);
        let rings = self.nodes.iter().map(|node| &node.rings[place]).filter(|ring| ring.is_valid_at(now));
        rings.map(|ring| ring.entitlement()).sum()
    }
}

/// Processor time of this process so far, in user mode.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: state, and ten numbers, then this one.
    let ticks =
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(11)).and_then(|ticks| ticks.parse().ok());
    ticks.unwrap_or(0.0) / TICKS_PER_SECOND
}
