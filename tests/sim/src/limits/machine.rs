//! A simulated node: the escrow and the rings of production, a clock of its own, and a disk that
//! survives its process. What a core does when a request comes and when it ends is here too.

use super::arrivals::Arrival;
use super::broken::Breakage;
use super::provider::Counted;
use super::scenario::{MILLISECOND_NS, Scenario};
use controlplane::escrow::{Escrow, EscrowSettings, LimitKey, LimitTerms, NodeName, Peer, Step};
use rand::RngExt;
use rand::rngs::StdRng;
use shared::clock::Nanos;
use shared::limit::{LimitRing, UNITS_MAX, Window};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A core reads the time this much before it decides, at most.
const READING_AGE_MAX_NS: u64 = 2 * MILLISECOND_NS;
/// Requests that wait at a process that does not run; beyond, clients are refused by the kernel.
const WAITING_MAX: usize = 2_000;

/// A node.
pub(crate) struct Machine {
    pub(crate) name: NodeName,
    pub(crate) process: Option<Process>,
    /// What was written last and is whole.
    pub(crate) disk: Option<Vec<u8>>,
    /// Which process; what was meant for an earlier one does not reach a later one.
    pub(crate) life: u64,
    pub(crate) is_paused: bool,
    /// Requests that came while it was.
    pub(crate) waiting: Vec<Arrival>,
    /// It is to have no requests any more.
    pub(crate) is_leaving: bool,
    /// And has ended for good.
    pub(crate) has_left: bool,
    /// Amounts that it goes by.
    pub(crate) amounts: Vec<u64>,
    /// Writes take this long, where the disk is slow.
    pub(crate) slow_write_ns: Option<u64>,
    clock: NodeClock,
}

/// A node's monotonic clock: its own zero, and seconds of its own length.
#[derive(Clone, Copy)]
struct NodeClock {
    offset_ns: i128,
    parts_per_million: i128,
}

/// What ends with a kill.
pub(crate) struct Process {
    pub(crate) escrow: Escrow,
    pub(crate) rings: Vec<Arc<LimitRing>>,
    /// A step whose state is not on disk yet, or was just written.
    pub(crate) pending: Option<Pending>,
    running: BTreeMap<u64, Running>,
    next_request: u64,
}

/// See [`Process::pending`].
pub(crate) struct Pending {
    /// Nothing, where it was carried out too early.
    pub(crate) step: Option<Step>,
    pub(crate) state: Vec<u8>,
    pub(crate) is_written: bool,
}

struct Running {
    reserved: u64,
    used: u64,
    counted: Vec<Counted>,
}

/// What became of a request.
pub(crate) enum Decision {
    Refused,
    /// Spent at once.
    Spent,
    /// Runs for this long; to be settled by its number then.
    Runs {
        request: u64,
        lasts_ns: u64,
    },
}

impl Machine {
    pub(crate) fn new(number: usize, amounts: Vec<u64>, random: &mut StdRng) -> Self {
        Self {
            name: name(number),
            process: None,
            disk: None,
            life: 0,
            is_paused: false,
            waiting: Vec::new(),
            is_leaving: false,
            has_left: false,
            amounts,
            slow_write_ns: None,
            clock: NodeClock::new(random),
        }
    }

    /// Its own reading of the time.
    pub(crate) fn now(&self, true_ns: u64) -> Nanos {
        let passed = i128::from(true_ns) * (1_000_000 + self.clock.parts_per_million) / 1_000_000;
        Nanos(u64::try_from(passed + self.clock.offset_ns).unwrap_or(0))
    }

    /// Begins a process, with what is on the disk.
    pub(crate) fn start(
        &mut self,
        scenario: &Scenario,
        windows: &[Window],
        (is_new, expected): (bool, u16),
        at_ns: u64,
        random: &mut StdRng,
    ) {
        // Another zero with every process.
        self.clock.offset_ns = NodeClock::new(random).offset_ns;
        self.life += 1;
        let now = self.now(at_ns);
        let settings = EscrowSettings {
            node: self.name,
            lease: Duration::from_nanos(scenario.lease_ns),
            is_new,
            seed: random.random(),
        };
        let (mut escrow, fault) = Escrow::open(&settings, self.disk.as_deref(), now);
        assert_eq!(fault, Ok(()), "what was written can be read");
        escrow.expect(expected);
        let rings: Vec<_> = windows
            .iter()
            .map(|window| {
                let ring = LimitRing::new(*window, UNITS_MAX, now);
                ring.set_entitlement(0);
                ring.set_valid_until(Nanos(0));
                Arc::new(ring)
            })
            .collect();
        let process = Process { escrow, rings, pending: None, running: BTreeMap::new(), next_request: 0 };
        self.process = Some(process);
        self.configure(scenario, now);
    }

    /// Goes by the amounts that it was told.
    pub(crate) fn configure(&mut self, scenario: &Scenario, now: Nanos) {
        let Some(process) = &mut self.process else { return };
        let terms = process.rings.iter().zip(&self.amounts).enumerate().map(|(place, (ring, amount))| {
            ring.set_amount(*amount);
            LimitTerms {
                key: key(place),
                ring: Arc::clone(ring),
                amount: *amount,
                policy: scenario.policy,
                hold_max: scenario.hold_max(),
                unknown_spend: u64::MAX,
                handed_before: None,
            }
        });
        process.escrow.configure(terms.collect(), now);
    }

    /// One step; the messages that leave at once, where nothing has to be kept, or where the node
    /// is broken in that way.
    pub(crate) fn step(&mut self, peers: &[Peer], broken: Breakage, true_ns: u64) -> Vec<(NodeName, Vec<u8>)> {
        let now = self.now(true_ns);
        let Some(process) = self.process.as_mut().filter(|process| process.pending.is_none()) else {
            return Vec::new();
        };
        let step = process.escrow.step(peers, now);
        if !step.must_persist {
            return Escrow::kept(step);
        }
        let mut pending = Pending { step: Some(step), state: process.escrow.state(), is_written: false };
        let early = pending.step.take_if(|_| broken.sends_early());
        process.pending = Some(pending);
        early.map(Escrow::kept).unwrap_or_default()
    }

    /// The state of the step that is pending is on the disk now.
    pub(crate) fn written(&mut self) {
        if let Some(pending) = self.process.as_mut().and_then(|process| process.pending.as_mut()) {
            pending.is_written = true;
            self.disk = Some(pending.state.clone());
        }
    }

    /// And the process knows it: raises entitlements, and says what leaves.
    pub(crate) fn kept(&mut self) -> Vec<(NodeName, Vec<u8>)> {
        let pending = self.process.as_mut().and_then(|process| process.pending.take());
        pending.and_then(|pending| pending.step).map(Escrow::kept).unwrap_or_default()
    }

    /// The process ends without a word. A write that was under way is whole or was not begun. What
    /// its requests used, they have used by now.
    pub(crate) fn kill(&mut self, counted_later_ns: u64, at_ns: u64, random: &mut StdRng, log: &mut Vec<Counted>) {
        let Some(process) = self.process.take() else { return };
        self.life += 1;
        self.is_paused = false;
        self.waiting.clear();
        if let Some(pending) = process.pending
            && !pending.is_written
            && random.random_bool(0.5)
        {
            self.disk = Some(pending.state);
        }
        for counted in process.running.into_values().flat_map(|running| running.counted) {
            let last_ns = at_ns + random.random_range(0..=counted_later_ns);
            log.push(Counted { at_ns: counted.at_ns.min(last_ns), ..counted });
        }
    }

    /// A request comes to a process that does not run.
    pub(crate) fn wait(&mut self, arrival: Arrival) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push(arrival);
        }
    }

    /// A core decides about a request, and sends it.
    pub(crate) fn decide(
        &mut self,
        arrival: &Arrival,
        counted_later_ns: u64,
        at_ns: u64,
        random: &mut StdRng,
        log: &mut Vec<Counted>,
    ) -> Decision {
        let now = self.now(at_ns.saturating_sub(random.random_range(0..=READING_AGE_MAX_NS)));
        let Some(process) = &mut self.process else { return Decision::Refused };
        for (place, ring) in process.rings.iter().enumerate() {
            if !ring.try_hold(arrival.cost, now) {
                ring.count_refused(arrival.cost);
                process.rings[..place].iter().for_each(|ring| ring.release(arrival.cost));
                return Decision::Refused;
            }
            assert!(ring.used() <= ring.entitlement(), "{} used of {}", ring.used(), ring.entitlement());
        }
        let later_ns = lateness(at_ns, counted_later_ns, random);
        let Some((used, lasts_ns)) = arrival.settles else {
            process.rings.iter().for_each(|ring| ring.stamp(arrival.cost, now));
            log.push(Counted { at_ns: at_ns + later_ns, cost: arrival.cost });
            return Decision::Spent;
        };
        // Counted in two parts: some time while it runs, and behind its end.
        let first = Counted { at_ns: at_ns + random.random_range(0..=lasts_ns), cost: used / 2 };
        let last = Counted { at_ns: at_ns + lasts_ns + later_ns, cost: used - used / 2 };
        let request = process.next_request;
        process.next_request += 1;
        process.running.insert(request, Running { reserved: arrival.cost, used, counted: vec![first, last] });
        Decision::Runs { request, lasts_ns }
    }

    /// A request has ended.
    pub(crate) fn settle(&mut self, request: u64, true_ns: u64, log: &mut Vec<Counted>) {
        let now = self.now(true_ns);
        let Some(process) = &mut self.process else { return };
        let Some(running) = process.running.remove(&request) else { return };
        for ring in &process.rings {
            ring.stamp(running.used, now);
            ring.release(running.reserved - running.used);
        }
        log.extend(running.counted);
    }

    /// Those that still run at the end of it all.
    pub(crate) fn settle_all(&mut self, log: &mut Vec<Counted>) {
        let running = self.process.as_mut().map(|process| std::mem::take(&mut process.running)).unwrap_or_default();
        log.extend(running.into_values().flat_map(|running| running.counted));
    }
}

impl Process {
    /// Requests run.
    pub(crate) fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }
}

impl NodeClock {
    fn new(random: &mut StdRng) -> Self {
        let offset_ns = random.random_range(0..1_000_000_000_000_u64);
        Self { offset_ns: offset_ns.into(), parts_per_million: random.random_range(-200..=200_i64).into() }
    }
}

/// How much later than stamped something is counted: for some time everything as late as can be, then
/// everything at once, or anything between. It hurts most where that changes within a window.
fn lateness(at_ns: u64, most_ns: u64, random: &mut StdRng) -> u64 {
    const LASTS_NS: u64 = 3_000 * MILLISECOND_NS;
    // In no order that could fit a window.
    match ((at_ns / LASTS_NS).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 3 {
        0 => most_ns - random.random_range(0..=most_ns / 50),
        1 => random.random_range(0..=most_ns / 50),
        _ => random.random_range(0..=most_ns),
    }
}

/// A node's id.
pub(crate) fn name(number: usize) -> NodeName {
    NodeName::new(&format!("n{number:04}")).expect("short enough")
}

/// A limit's key.
pub(crate) fn key(place: usize) -> LimitKey {
    LimitKey(7 + place as u64)
}
