//! What a simulated cluster with limits goes through, as data: a seed gives the same list for ever.
//! Pure.

use controlplane::escrow::Policy;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

pub(crate) const SECOND_NS: u64 = 1_000_000_000;
pub(crate) const MILLISECOND_NS: u64 = 1_000_000;
/// Requests a second of the whole cluster that are simulated at most.
const ARRIVALS_PER_SECOND_MAX: f64 = 900.0;
/// Requests that settle at their end run for at most this long.
const LASTS_MAX_NS: u64 = 4 * SECOND_NS;
/// The provider counts this much later than we stamp, at most: J less what a core's time may be old.
const COUNTED_LATER_NS: u64 = 245 * MILLISECOND_NS;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// Nodes that there are from the start.
    pub(crate) nodes: usize,
    /// Nodes that there should be, as they are told.
    pub(crate) expected: u16,
    /// Nobody has spent anything before.
    pub(crate) is_new: bool,
    /// Every request takes from all of them. The first one's load is offered; a second one is a
    /// sub-window of it.
    pub(crate) limits: Vec<Terms>,
    pub(crate) policy: Policy,
    pub(crate) lease_ns: u64,
    /// Offered load, parts of the first limit.
    pub(crate) offered: f64,
    pub(crate) costs: Costs,
    pub(crate) charge: Charge,
    /// Exponent of Zipf's law; 0 is even.
    pub(crate) skew: f64,
    pub(crate) hot_moves_every_ns: Option<u64>,
    pub(crate) wires: Wires,
    /// The provider counts up to this much later than we stamp.
    pub(crate) counted_later_ns: u64,
    /// In the order in which they begin.
    pub(crate) faults: Vec<Fault>,
    /// No fault lasts longer than this.
    pub(crate) faults_end_ns: u64,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Terms {
    pub(crate) amount: u64,
    pub(crate) window_ns: u64,
}

/// Sizes of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Costs {
    /// All alike.
    Same(u64),
    /// Mostly small; a few are many times as large.
    HeavyTailed { least: u64 },
}

/// What counts as spent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Charge {
    /// All that was reserved, when it is sent.
    Admission,
    /// What was used, at the end; the provider counts it in between.
    Settlement { lasts_max_ns: u64 },
}

/// The network when nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wires {
    pub(crate) delay_ns: (u64, u64),
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
}

/// Something that goes wrong, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) begins_ns: u64,
    pub(crate) lasts_ns: u64,
    pub(crate) kind: Kind,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// This part of all messages is lost.
    Loss(f64),
    /// The slowest messages take this long, so that they overtake each other.
    Delay { slowest_ns: u64 },
    /// The first nodes and the others do not hear each other.
    Partition { first: usize },
    /// Nothing of what one node says reaches the other.
    OneWay { from: usize, to: usize },
    /// Cut and healed again and again.
    Flapping { first: usize, period_ns: u64 },
    /// The process does not run for a while, and does not notice.
    Pause { node: usize },
    /// Ends without a word, and starts again when the fault is over.
    Kill { node: usize, keeps_its_state: bool },
    /// All at once.
    KillAll { keep_their_state: bool },
    /// Gives away what it has and ends for good.
    Leave { node: usize },
    /// A node that was not there before.
    Join,
    /// The first limit has another amount from now on; nodes hear of it within the fault's time.
    Amount(u64),
    /// Writes take this long.
    SlowDisk { node: usize, write_ns: u64 },
}

impl Scenario {
    /// The scenario of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x6c69_6d69_7473);
        let random = &mut random;
        let nodes = match random.random_range(0..100) {
            0..=5 => 1,
            6..=13 => 2,
            14..=96 => [3, 3, 4, 5, 7][random.random_range(0..5)],
            97..=98 => random.random_range(12..=25),
            _ => random.random_range(30..=100),
        };
        let is_large = nodes > 10;
        let window_s = if is_large { 8 } else { [5, 6, 8, 10, 10, 15, 20, 30, 60][random.random_range(0..9)] };
        let window_ns = window_s * SECOND_NS;
        let amount = log_uniform(random, 10.0, 1e6);
        let offered = [0.5, 0.9, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 50.0][random.random_range(0..9)];
        let costs = costs(random, offered * amount as f64 / window_s as f64, amount);
        let charge =
            if random.random_bool(0.3) { Charge::Settlement { lasts_max_ns: LASTS_MAX_NS } } else { Charge::Admission };
        let mut limits = vec![Terms { amount, window_ns }];
        let sub_amount = amount / window_s;
        if charge == Charge::Admission && sub_amount as f64 >= costs.mean().max(2.0) && random.random_bool(0.15) {
            limits.push(Terms { amount: sub_amount * 2, window_ns: 2 * SECOND_NS });
        }
        let is_new = random.random_bool(0.7);
        let lease_ns = [4, 6, 10][random.random_range(0..3)] * SECOND_NS;
        let forming_ns = if is_new { 10 * SECOND_NS } else { lease_ns + window_ns + 12 * SECOND_NS };
        let faults_last_ns = if is_large { 25 } else { random.random_range(20..=60) } * SECOND_NS;
        let faults_end_ns = forming_ns + faults_last_ns;
        let count = if random.random_bool(0.1) { 0 } else { random.random_range(1..=7) };
        let mut faults: Vec<_> = (0..count).map(|_| fault(random, nodes, amount, (0, faults_end_ns))).collect();
        faults.sort_by_key(|fault| fault.begins_ns);
        Self {
            seed,
            nodes,
            expected: nodes as u16,
            is_new,
            limits,
            policy: if nodes >= 3 && random.random_bool(0.75) { Policy::Reclaim } else { Policy::Keep },
            lease_ns,
            offered,
            costs,
            charge,
            skew: [0.0, 0.8, 1.2, 2.0][random.random_range(0..4)],
            hot_moves_every_ns: random.random_bool(0.7).then(|| random.random_range(2..=10) * SECOND_NS),
            wires: Wires {
                delay_ns: (MILLISECOND_NS, [2, 10, 50, 200][random.random_range(0..4)] * MILLISECOND_NS),
                loss: [0.0, 0.0, 0.01, 0.05][random.random_range(0..4)],
                duplication: [0.0, 0.02, 0.2][random.random_range(0..3)],
            },
            counted_later_ns: COUNTED_LATER_NS,
            faults,
            faults_end_ns,
        }
    }

    /// A cluster to which nothing happens, with requests of one unit and a hot node that moves.
    pub(crate) fn calm(seed: u64, nodes: usize, terms: Terms, offered: f64, lasts_ns: u64) -> Self {
        Self {
            seed,
            nodes,
            expected: nodes as u16,
            is_new: true,
            limits: vec![terms],
            policy: Policy::Reclaim,
            lease_ns: 10 * SECOND_NS,
            offered,
            costs: Costs::Same(1),
            charge: Charge::Admission,
            skew: 1.2,
            hot_moves_every_ns: Some(5 * SECOND_NS),
            wires: Wires { delay_ns: (MILLISECOND_NS, 5 * MILLISECOND_NS), loss: 0.0, duplication: 0.0 },
            counted_later_ns: COUNTED_LATER_NS,
            faults: Vec::new(),
            faults_end_ns: lasts_ns,
        }
    }

    /// The longest time from an admission to the provider's last count of it, beyond its spread.
    pub(crate) fn hold_max(&self) -> Duration {
        match self.charge {
            Charge::Admission => Duration::ZERO,
            Charge::Settlement { lasts_max_ns } => Duration::from_nanos(lasts_max_ns),
        }
    }

    /// The longest window.
    pub(crate) fn window_ns(&self) -> u64 {
        self.limits.iter().map(|terms| terms.window_ns).max().unwrap_or(0)
    }
}

fn log_uniform(random: &mut StdRng, from: f64, to: f64) -> u64 {
    (from * (to / from).powf(random.random_range(0.0..=1.0))) as u64
}

/// Units, or tokens: in a way that the simulated stream has not too many requests.
fn costs(random: &mut StdRng, units_per_second: f64, amount: u64) -> Costs {
    let least = (units_per_second / ARRIVALS_PER_SECOND_MAX).ceil().max(1.0) as u64;
    match random.random_range(0..3) {
        0 => Costs::HeavyTailed { least: least.max(amount / 10_000) },
        1 if amount >= 5_000 => Costs::Same(least.max(1_000)),
        _ => Costs::Same(least),
    }
}

fn fault(random: &mut StdRng, nodes: usize, amount: u64, (from_ns, end_ns): (u64, u64)) -> Fault {
    // Some while the cluster forms.
    let begins_ns = random.random_range(from_ns + 2 * SECOND_NS..=end_ns - 3 * SECOND_NS);
    let lasts_ns = random.random_range(200 * MILLISECOND_NS..=30 * SECOND_NS).min(end_ns - begins_ns);
    let node = random.random_range(0..nodes);
    let other = (node + random.random_range(1..nodes.max(2))) % nodes;
    let first = random.random_range(0..nodes).max(1);
    let kind = match random.random_range(0..100) {
        0..=9 => Kind::Loss(random.random_range(0.02..=0.3)),
        10..=16 => Kind::Delay { slowest_ns: random.random_range(100..=1_500) * MILLISECOND_NS },
        17..=28 => Kind::Partition { first },
        29..=36 => Kind::OneWay { from: node, to: other },
        37..=44 => Kind::Flapping { first, period_ns: random.random_range(200..=4_000) * MILLISECOND_NS },
        45..=56 => Kind::Pause { node },
        57..=73 => Kind::Kill { node, keeps_its_state: random.random_bool(0.6) },
        74..=78 => Kind::KillAll { keep_their_state: random.random_bool(0.5) },
        79..=83 => Kind::Leave { node },
        84..=88 => Kind::Join,
        89..=95 => Kind::Amount(log_uniform(random, (amount as f64 / 4.0).max(10.0), amount as f64 * 2.0)),
        _ => Kind::SlowDisk { node, write_ns: 200 * MILLISECOND_NS },
    };
    Fault { begins_ns, lasts_ns, kind }
}
