//! One run: events in the order of virtual time, on machines, links and disks. No threads, no real
//! clock; the same scenario gives the same run.

use super::arrivals::{Arrival, Arrivals};
use super::audit;
use super::broken::Breakage;
use super::central::Central;
use super::machine::{Decision, Machine};
use super::outcome::{Outcome, Progress};
use super::provider::Counted;
use super::scenario::{MILLISECOND_NS, Scenario};
use super::wires::Links;
use controlplane::escrow::{NodeName, Peer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shared::clock::Nanos;
use shared::limit::{LimitRings, Window};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

/// Between two steps of a node.
pub(super) const STEP_NS: u64 = 50 * MILLISECOND_NS;
/// Gossip calls a node suspect that was not heard for this long.
const SUSPECT_AFTER_NS: u64 = 1_500 * MILLISECOND_NS;
/// A write takes at most this long, usually.
const WRITE_MAX_NS: u64 = 20 * MILLISECOND_NS;
/// Messages and ends of requests that wait for a process that does not run.
const BACKLOG_MAX: usize = 4_096;
/// All shares are added up this often; what may be spent is, after every event that may change it.
const AUDIT_EVERY_NS: u64 = 200 * MILLISECOND_NS;
/// Adding them up is quadratic.
const AUDITED_NODES_MAX: usize = 10;

/// Something that happens.
pub(super) enum Event {
    Step { node: usize, life: u64 },
    Written { node: usize, life: u64 },
    Kept { node: usize, life: u64 },
    Deliver { from: NodeName, to: usize, bytes: Rc<Vec<u8>> },
    Settle { node: usize, life: u64, request: u64 },
    Fault { place: usize, begins: bool },
    Flap { place: usize, is_cut: bool },
    Configure { node: usize },
    End { node: usize, life: u64 },
    Leave { node: usize, life: u64 },
    Audit,
}

struct Queued {
    at_ns: u64,
    order: u64,
    event: Event,
}

/// See the module.
pub(crate) struct World<'s> {
    pub(super) scenario: &'s Scenario,
    pub(super) broken: Breakage,
    pub(super) is_traced: bool,
    pub(super) machines: Vec<Machine>,
    numbers: BTreeMap<NodeName, usize>,
    backlogs: Vec<Vec<Event>>,
    pub(super) links: Links,
    pub(super) random: StdRng,
    windows: Vec<Window>,
    arrivals: Arrivals,
    pub(super) central: Central,
    queue: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    pub(super) now_ns: u64,
    /// When a node could be heard by another, last.
    heard_ns: Vec<Vec<u64>>,
    /// Nodes that get requests.
    serving: Vec<usize>,
    /// What the provider counted.
    pub(super) log: Vec<Counted>,
    /// Largest amounts, of every limit, from when on.
    pub(super) largest: Vec<Vec<(u64, u64)>>,
    pub(super) progress: Progress,
    /// The first limit's amount as it was announced last.
    pub(super) amount: u64,
    /// How many nodes there should be.
    pub(super) expected: u16,
}

impl<'s> World<'s> {
    pub(crate) fn new(scenario: &'s Scenario, broken: Breakage, is_traced: bool) -> Self {
        let mut random = StdRng::seed_from_u64(scenario.seed);
        let arrivals = Arrivals::new(scenario, StdRng::seed_from_u64(random.random()));
        let windows = scenario.limits.iter().map(|terms| broken.window(terms.window_ns)).collect();
        let mut world = Self {
            scenario,
            broken,
            is_traced,
            machines: Vec::new(),
            numbers: BTreeMap::new(),
            backlogs: Vec::new(),
            links: Links::new(scenario.wires),
            random,
            windows,
            arrivals,
            central: Central::new(&scenario.limits),
            queue: BinaryHeap::new(),
            queued: 0,
            now_ns: 0,
            heard_ns: Vec::new(),
            serving: Vec::new(),
            log: Vec::new(),
            largest: scenario.limits.iter().map(|terms| vec![(0, terms.amount)]).collect(),
            progress: Progress::default(),
            amount: scenario.limits[0].amount,
            expected: scenario.expected,
        };
        for _ in 0..scenario.nodes {
            let node = world.add_node();
            world.start(node, scenario.is_new);
        }
        for (place, fault) in scenario.faults.iter().enumerate() {
            world.at(fault.begins_ns, Event::Fault { place, begins: true });
            world.at(fault.begins_ns + fault.lasts_ns, Event::Fault { place, begins: false });
        }
        world.at(AUDIT_EVERY_NS, Event::Audit);
        world
    }

    /// Until `end_ns`, or until something is wrong.
    pub(crate) fn run_until(&mut self, end_ns: u64) {
        while self.progress.wrong.is_none() {
            let event_ns = self.queue.peek().map_or(u64::MAX, |Reverse(next)| next.at_ns);
            let arrival_ns = self.arrivals.next_at_ns();
            if event_ns.min(arrival_ns) > end_ns {
                break;
            }
            if arrival_ns < event_ns {
                self.now_ns = arrival_ns;
                self.arrive();
            } else if let Some(Reverse(next)) = self.queue.pop() {
                self.now_ns = next.at_ns;
                self.happen(next.event);
            }
        }
        self.now_ns = self.now_ns.max(end_ns);
    }

    /// The end; what the provider says.
    pub(crate) fn finish(mut self) -> Outcome {
        for machine in &mut self.machines {
            machine.settle_all(&mut self.log);
        }
        self.log.sort_unstable();
        Outcome::of(self)
    }

    /// A node's rings, for who plays its cores.
    pub(super) fn rings(&self, node: usize) -> LimitRings {
        let rings = self.machines.get(node).and_then(|machine| machine.process.as_ref());
        rings.map(|process| process.rings.clone().into()).unwrap_or_default()
    }

    /// A node's reading of the time.
    pub(super) fn reading(&self, node: usize, at_ns: u64) -> Nanos {
        self.machines[node].now(at_ns)
    }

    pub(super) fn at(&mut self, at_ns: u64, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse(Queued { at_ns, order: self.queued, event }));
    }

    pub(super) fn after(&mut self, delay_ns: u64, event: Event) {
        self.at(self.now_ns + delay_ns, event);
    }

    pub(super) fn add_node(&mut self) -> usize {
        let node = self.machines.len();
        let mut amounts: Vec<u64> = self.scenario.limits.iter().map(|terms| terms.amount).collect();
        amounts[0] = self.amount;
        self.machines.push(Machine::new(node, amounts, &mut self.random));
        self.numbers.insert(self.machines[node].name, node);
        self.backlogs.push(Vec::new());
        self.links.add_node();
        self.heard_ns.push(Vec::new());
        let count = self.machines.len();
        self.heard_ns.iter_mut().for_each(|row| row.resize(count, 0));
        node
    }

    /// A process begins; it goes by what was announced last.
    pub(super) fn start(&mut self, node: usize, is_new: bool) {
        let machine = &mut self.machines[node];
        machine.amounts[0] = self.amount;
        machine.start(self.scenario, &self.windows, (is_new, self.expected), self.now_ns, &mut self.random);
        let life = machine.life;
        let phase_ns = self.random.random_range(0..STEP_NS);
        self.after(phase_ns, Event::Step { node, life });
        self.note_amounts();
        self.choose_serving();
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.machines[node].kill(self.scenario.counted_later_ns, self.now_ns, &mut self.random, &mut self.log);
        self.backlogs[node].clear();
        self.note_amounts();
        self.choose_serving();
    }

    /// The process sleeps, or goes on: its cores first, with what they know, and then the rest.
    pub(super) fn pause(&mut self, node: usize, is_paused: bool) {
        let machine = &mut self.machines[node];
        if machine.process.is_none() || machine.is_paused == is_paused {
            return;
        }
        machine.is_paused = is_paused;
        if is_paused {
            return;
        }
        for arrival in std::mem::take(&mut machine.waiting) {
            self.decide(node, &arrival);
        }
        for event in std::mem::take(&mut self.backlogs[node]) {
            self.happen(event);
        }
        let life = self.machines[node].life;
        self.happen(Event::Step { node, life });
    }

    pub(super) fn choose_serving(&mut self) {
        let serves = |machine: &Machine| machine.process.is_some() && !machine.is_leaving;
        self.serving = (0..self.machines.len()).filter(|node| serves(&self.machines[*node])).collect();
    }

    pub(super) fn serving(&self) -> usize {
        self.serving.len()
    }

    pub(super) fn note_amounts(&mut self) {
        for place in 0..self.largest.len() {
            let largest = audit::largest_amount(&self.machines, place);
            if largest > 0 && self.largest[place].last().is_none_or(|(_, last)| *last != largest) {
                self.largest[place].push((self.now_ns, largest));
            }
        }
    }

    fn arrive(&mut self) {
        let arrival = self.arrivals.take(self.serving.len());
        let Some(node) = self.serving.get(arrival.node).copied() else { return };
        self.progress.offer(&arrival, self.central.admits(&arrival));
        if self.machines[node].is_paused {
            self.machines[node].wait(arrival);
        } else {
            self.decide(node, &arrival);
        }
    }

    fn decide(&mut self, node: usize, arrival: &Arrival) {
        let Self { scenario, machines, random, log, now_ns, .. } = self;
        let machine = &mut machines[node];
        let decision = machine.decide(arrival, scenario.counted_later_ns, *now_ns, random, log);
        let life = machine.life;
        match decision {
            Decision::Refused => return,
            Decision::Spent => {}
            Decision::Runs { request, lasts_ns } => self.after(lasts_ns, Event::Settle { node, life, request }),
        }
        self.progress.admit(arrival);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Step { node, life } if self.lives(node, life) && !self.machines[node].is_paused => {
                self.step(node);
                self.after(STEP_NS, Event::Step { node, life });
            }
            Event::Written { node, life } if self.lives(node, life) => {
                self.machines[node].written();
                // A process may be killed between the two.
                let pause_ns = self.random.random_range(0..=3 * MILLISECOND_NS);
                self.after(pause_ns, Event::Kept { node, life });
            }
            Event::Kept { node, life } if self.lives(node, life) => {
                if self.waits_for(node) {
                    self.backlogs[node].push(event);
                } else {
                    let messages = self.machines[node].kept();
                    self.send(node, messages);
                    self.after_change(node);
                }
            }
            Event::Deliver { from, to, ref bytes } => {
                if self.waits_for(to) {
                    self.put_back(to, event);
                } else if let Some(process) = &mut self.machines[to].process {
                    process.escrow.heard(from, bytes.to_vec());
                }
            }
            Event::Settle { node, life, request } if self.lives(node, life) => {
                if self.waits_for(node) {
                    self.backlogs[node].push(event);
                } else {
                    self.machines[node].settle(request, self.now_ns, &mut self.log);
                }
            }
            Event::Audit => {
                self.audit();
                self.after(AUDIT_EVERY_NS, Event::Audit);
            }
            Event::Fault { place, begins } => self.obey(place, begins),
            Event::Flap { place, is_cut } => self.flap(place, is_cut),
            Event::Configure { node } => {
                if self.waits_for(node) {
                    self.backlogs[node].push(event);
                } else {
                    self.configure(node);
                }
            }
            Event::End { node, life } if self.lives(node, life) => self.end(node),
            Event::Leave { node, life } if self.lives(node, life) => self.left(node),
            _ => {}
        }
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.machines[node].process.is_some() && self.machines[node].life == life
    }

    fn waits_for(&self, node: usize) -> bool {
        self.machines[node].is_paused && self.machines[node].process.is_some()
    }

    /// What comes from outside while a process sleeps, as much as its sockets hold.
    fn put_back(&mut self, node: usize, event: Event) {
        if self.backlogs[node].len() < BACKLOG_MAX {
            self.backlogs[node].push(event);
        }
    }

    fn step(&mut self, node: usize) {
        let peers = self.peers(node);
        let machine = &mut self.machines[node];
        let was_pending = machine.process.as_ref().is_some_and(|process| process.pending.is_some());
        let messages = machine.step(&peers, self.broken, self.now_ns);
        let is_pending = machine.process.as_ref().is_some_and(|process| process.pending.is_some());
        if is_pending && !was_pending {
            let life = machine.life;
            let usual_ns = self.random.random_range(0..=WRITE_MAX_NS);
            let write_ns = self.machines[node].slow_write_ns.unwrap_or(usual_ns);
            self.after(write_ns, Event::Written { node, life });
        }
        self.send(node, messages);
        self.after_change(node);
    }

    /// Other nodes as gossip would know them here.
    fn peers(&mut self, node: usize) -> Vec<Peer> {
        let mut peers = Vec::with_capacity(self.machines.len());
        for (other, machine) in self.machines.iter().enumerate() {
            if other == node || machine.life == 0 || machine.has_left {
                continue;
            }
            let heard_ns = &mut self.heard_ns[node][other];
            if machine.process.is_some() && !machine.is_paused && !self.links.is_cut(other, node) {
                *heard_ns = self.now_ns;
            }
            let is_healthy = *heard_ns > 0 && self.now_ns - *heard_ns < SUSPECT_AFTER_NS && !machine.is_leaving;
            peers.push(Peer { node: machine.name, is_healthy });
        }
        peers
    }

    fn send(&mut self, from: usize, messages: Vec<(NodeName, Vec<u8>)>) {
        for (to, bytes) in messages {
            self.progress.send(bytes.len());
            let Some(to) = self.numbers.get(&to).copied() else { continue };
            let bytes = Rc::new(bytes);
            for delay_ns in self.links.arrivals(from, to, &mut self.random) {
                let from = self.machines[from].name;
                self.after(delay_ns, Event::Deliver { from, to, bytes: Rc::clone(&bytes) });
            }
        }
    }

    /// After everything that may raise an entitlement or prolong a lease.
    pub(super) fn after_change(&mut self, node: usize) {
        if self.broken.ignores_leases()
            && let Some(process) = &self.machines[node].process
        {
            process.rings.iter().for_each(|ring| ring.set_valid_until(Nanos(u64::MAX)));
        }
        for place in 0..self.scenario.limits.len() {
            let spendable = audit::spendable(&self.machines, place, self.now_ns);
            let amount = audit::largest_amount(&self.machines, place);
            if spendable > amount {
                let nodes = self.machines.iter().filter_map(|machine| audit::described(machine, place));
                let nodes: Vec<String> = nodes.collect();
                let what = format!("{spendable} units of {amount} may be spent, limit {place}: {}", nodes.join(", "));
                self.progress.is_wrong(self.now_ns, what);
            }
        }
    }

    /// Part of a limit's shares that nodes have which may spend, the worst limit's.
    pub(crate) fn whole(&self) -> f64 {
        let whole = controlplane::escrow::Holdings::WHOLE as f64;
        let parts = (0..self.scenario.limits.len()).map(|place| audit::shares(&self.machines, place, self.now_ns));
        parts.map(|shares| shares as f64 / whole).fold(f64::INFINITY, f64::min)
    }

    fn audit(&mut self) {
        if self.machines.len() > AUDITED_NODES_MAX {
            return;
        }
        for place in 0..self.scenario.limits.len() {
            let shares = audit::shares(&self.machines, place, self.now_ns);
            let whole = controlplane::escrow::Holdings::WHOLE;
            if shares > whole {
                let parts = shares as f64 / whole as f64;
                self.progress.is_wrong(self.now_ns, format!("{parts} of all shares are there, limit {place}"));
            }
        }
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at_ns, self.order) == (other.at_ns, other.order)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ns, self.order).cmp(&(other.at_ns, other.order))
    }
}
