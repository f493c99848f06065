//! One seed: the cluster forms, faults come and go, and then every node must believe the same.

use crate::network::SimulatedNetwork;
use crate::node::{Node, WALL_BEGINS_MS, id, ip};
use crate::scenario::{FAULTS_END, FORMING, Fault, Kind, Scenario};
use crate::seeds::say;
use controlplane::member::Health;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use turmoil::Sim;

/// Virtual time moves in these steps.
const STEP: Duration = Duration::from_millis(5);
/// After the last fault all views are the same within this.
const HEALS_WITHIN: Duration = Duration::from_secs(20);
/// And stay so for this long.
const STAYS: Duration = Duration::from_secs(5);
/// A link that loses a message carries again after a message or two.
const REPAIR_RATE: f64 = 0.7;

/// Takes over the randomness and the clocks of this process.
pub(crate) fn take_over(seed: u64) -> mad_turmoil::time::SimClocksGuard {
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    mad_turmoil::time::SimClocksGuard::init()
}

/// Runs a seed; true where it held.
pub(crate) fn run(seed: u64) -> bool {
    let scenario = Scenario::of(seed);
    let _clocks = take_over(seed);
    let mut cluster = Cluster::new(&scenario);
    let outcome = cluster.live_through(&scenario);
    let traces: Vec<_> = cluster.nodes.iter().map(|node| node.seen().trace).collect();
    say(&format!("seed {seed}: {} nodes, {} faults; trace {traces:016x?}", scenario.nodes, scenario.faults.len()));
    match outcome {
        Ok(healed_after) => {
            say(&format!("the same view everywhere {} ms after the last fault", healed_after.as_millis()));
            true
        }
        Err(what) => {
            for fault in &scenario.faults {
                say(&format!(
                    "  {:>6} ms for {:>5} ms: {:?}",
                    fault.begins.as_millis(),
                    fault.lasts.as_millis(),
                    fault.kind
                ));
            }
            say(&format!("seed {seed} FAILED: {what}\n{}", cluster.described()));
            false
        }
    }
}

/// The nodes and the network between them.
struct Cluster {
    sim: Sim<'static>,
    nodes: Vec<Arc<Node>>,
    is_cut: Vec<Vec<bool>>,
    loss: f64,
}

impl Cluster {
    fn new(scenario: &Scenario) -> Self {
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(scenario.seed)
            .tick_duration(STEP)
            .simulation_duration(Duration::from_secs(3_600))
            .min_message_latency(scenario.latency.0)
            .max_message_latency(scenario.latency.1)
            .repair_rate(REPAIR_RATE)
            .udp_capacity(4_096)
            .tcp_capacity(4_096)
            .enable_random_order();
        let mut sim = builder.build();
        let nodes: Vec<_> = (0..scenario.nodes).map(Node::new).collect();
        for node in &nodes {
            let node = Arc::clone(node);
            sim.host(ip(node.number), move || Arc::clone(&node).run(Arc::new(SimulatedNetwork)));
        }
        Self { sim, is_cut: vec![vec![false; nodes.len()]; nodes.len()], nodes, loss: 0.0 }
    }

    /// How long after the last fault all views were the same, or what was wrong.
    fn live_through(&mut self, scenario: &Scenario) -> Result<Duration, String> {
        self.pass(FORMING)?;
        if !self.agrees() {
            return Err(format!("the cluster did not form within {} s", FORMING.as_secs()));
        }
        let mut down = vec![false; self.nodes.len()];
        while self.sim.elapsed() < FAULTS_END {
            self.obey(scenario, &mut down);
            self.step()?;
        }
        self.obey(scenario, &mut down);
        for node in &self.nodes {
            node.seen().is_quiet = true;
        }
        let ended = self.sim.elapsed();
        while !self.agrees() {
            if self.sim.elapsed() > ended + HEALS_WITHIN {
                return Err(format!("the views differ {} s after the last fault", HEALS_WITHIN.as_secs()));
            }
            self.step()?;
        }
        let healed_after = self.sim.elapsed().saturating_sub(ended);
        let until = self.sim.elapsed() + STAYS;
        while self.sim.elapsed() < until {
            self.step()?;
            if !self.agrees() {
                return Err("the views were the same, and then differed again without a fault".to_owned());
            }
        }
        Ok(healed_after)
    }

    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let until = self.sim.elapsed() + time;
        while self.sim.elapsed() < until {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| format!("a node ended: {error}"))?;
        let twin = self.nodes.iter().find(|node| node.seen().has_twin);
        twin.map_or(Ok(()), |node| Err(format!("{} took its own past for another node", id(node.number))))
    }

    /// Makes the world what the faults of this moment say.
    fn obey(&mut self, scenario: &Scenario, down: &mut [bool]) {
        let now = self.sim.elapsed();
        let current: Vec<_> =
            scenario.faults.iter().filter(|fault| fault.begins <= now && now < fault.begins + fault.lasts).collect();
        self.crash_and_start(&current, down);
        self.set_clocks(scenario, now);
        self.set_links(scenario, &current, now);
    }

    fn crash_and_start(&mut self, current: &[&Fault], down: &mut [bool]) {
        for (number, is_down) in down.iter_mut().enumerate() {
            let crash = current.iter().find_map(|fault| match fault.kind {
                Kind::Crash { node, keeps_its_state } if node == number => Some(keeps_its_state),
                _ => None,
            });
            match (crash, *is_down) {
                (Some(keeps_its_state), false) => {
                    self.sim.crash(ip(number));
                    self.nodes[number].seen().forgets |= !keeps_its_state;
                    *is_down = true;
                }
                (None, true) => {
                    self.sim.bounce(ip(number));
                    *is_down = false;
                }
                _ => {}
            }
        }
    }

    /// A clock that jumped stays where it is until it jumps again.
    fn set_clocks(&self, scenario: &Scenario, now: Duration) {
        for fault in scenario.faults.iter().filter(|fault| fault.begins <= now) {
            if let Kind::ClockJump { node, by_ms } = fault.kind {
                self.nodes[node].wall_error_ms.store(WALL_BEGINS_MS + by_ms, Ordering::Relaxed);
            }
        }
    }

    fn set_links(&mut self, scenario: &Scenario, current: &[&Fault], now: Duration) {
        let count = self.nodes.len();
        let mut is_cut = vec![vec![false; count]; count];
        let mut loss = 0_u16;
        let mut slowest = scenario.latency.1;
        let mut part = |first: usize| {
            for (from, row) in is_cut.iter_mut().enumerate() {
                for (to, cut) in row.iter_mut().enumerate() {
                    *cut |= (from < first) != (to < first);
                }
            }
        };
        let mut one_way = Vec::new();
        for fault in current {
            match &fault.kind {
                Kind::Loss { permille } => loss = loss.max(*permille),
                Kind::Delay { slowest: until } => slowest = slowest.max(*until),
                Kind::Partition { first } => part(*first),
                Kind::Flapping { first, period } => {
                    let turns = now.saturating_sub(fault.begins).as_millis() / period.as_millis();
                    if turns.is_multiple_of(2) {
                        part(*first);
                    }
                }
                Kind::OneWay { from, to } => one_way.push((*from, *to)),
                Kind::Crash { .. } | Kind::ClockJump { .. } => {}
            }
        }
        for (from, to) in one_way {
            is_cut[from][to] = true;
        }
        self.sim.set_max_message_latency(slowest);
        let loss = f64::from(loss) / 1_000.0;
        if is_cut == self.is_cut && loss.total_cmp(&self.loss).is_eq() {
            return;
        }
        for (from, row) in is_cut.iter().enumerate() {
            for (to, cut) in row.iter().enumerate().filter(|(to, _)| *to != from) {
                // A link that loses messages at random would mend one that is cut.
                let is_whole = !cut && !is_cut[to][from];
                self.sim.set_link_fail_rate(ip(from), ip(to), if is_whole { loss } else { 0.0 });
                if *cut {
                    self.sim.partition_oneway(ip(from), ip(to));
                } else {
                    self.sim.repair_oneway(ip(from), ip(to));
                }
            }
        }
        (self.is_cut, self.loss) = (is_cut, loss);
    }

    /// Every node knows every other one, healthy, in its newest generation, with its newest news.
    fn agrees(&self) -> bool {
        self.nodes.iter().all(|node| {
            let seen = node.seen();
            let others = self.nodes.iter().filter(|other| other.number != node.number);
            seen.members as usize == self.nodes.len()
                && seen.is_cluster_healthy
                && seen.view.members.len() + 1 == self.nodes.len()
                && others.clone().count() + 1 == self.nodes.len()
                && others.into_iter().all(|other| {
                    let (name, other) = (id(other.number), other.seen());
                    seen.view.members.iter().any(|member| {
                        member.id == name
                            && member.health == Health::Healthy
                            && member.generation >= other.last_generation
                            && (!other.is_quiet || member.values.configuration.epoch == other.news)
                    })
                })
        })
    }

    fn described(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let seen = node.seen();
            let _ = writeln!(
                text,
                "  {} (generation {}, news {}): {} members, healthy {}, doubts {}",
                id(node.number),
                seen.last_generation,
                seen.news,
                seen.members,
                seen.is_cluster_healthy,
                seen.view.doubts_itself
            );
            for member in &seen.view.members {
                let _ = writeln!(
                    text,
                    "    {} generation {} {} news {} tcp {}",
                    member.id,
                    member.generation,
                    member.health.name(),
                    member.values.configuration.epoch,
                    member.is_tcp_only
                );
            }
        }
        text
    }
}
