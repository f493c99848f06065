//! What happens to a simulated cluster, as data: a seed gives the same list of faults for ever. Pure.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// Faults begin after the cluster had this long to form.
pub(crate) const FORMING: Duration = Duration::from_secs(5);
/// No fault begins later than this.
const LAST_FAULT_BEGINS: Duration = Duration::from_secs(45);
/// All faults are over by then.
pub(crate) const FAULTS_END: Duration = Duration::from_secs(60);

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// Each message's delay lies between these.
    pub(crate) latency: (Duration, Duration),
    /// In the order in which they begin.
    pub(crate) faults: Vec<Fault>,
}

/// Something that goes wrong, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) begins: Duration,
    pub(crate) lasts: Duration,
    pub(crate) kind: Kind,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// This part of all messages is lost.
    Loss { permille: u16 },
    /// The slowest messages take this long, so that they overtake each other.
    Delay { slowest: Duration },
    /// The first nodes and the others do not hear each other.
    Partition { first: usize },
    /// Nothing of what one node says reaches the other.
    OneWay { from: usize, to: usize },
    /// Cut and healed again and again.
    Flapping { first: usize, period: Duration },
    /// Ends without a word, and starts again when the fault is over.
    Crash { node: usize, keeps_its_state: bool },
    /// The time of day is off from then on; what was off before is forgotten.
    ClockJump { node: usize, by_ms: i64 },
}

impl Scenario {
    /// The scenario of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let nodes = [3, 3, 4, 5, 7][random.random_range(0..5)];
        let slowest = random.random_range(2..=60);
        let mut faults: Vec<_> = (0..random.random_range(2..=8)).map(|_| fault(&mut random, nodes)).collect();
        faults.sort_by_key(|fault| fault.begins);
        Self { seed, nodes, latency: (Duration::from_millis(1), Duration::from_millis(slowest)), faults }
    }
}

fn fault(random: &mut StdRng, nodes: usize) -> Fault {
    let milliseconds = |random: &mut StdRng, from: Duration, to: Duration| {
        Duration::from_millis(random.random_range(from.as_millis() as u64..=to.as_millis() as u64))
    };
    let begins = milliseconds(random, FORMING, LAST_FAULT_BEGINS);
    let lasts = milliseconds(random, Duration::from_millis(300), Duration::from_secs(25))
        .min(FAULTS_END.saturating_sub(begins));
    let node = random.random_range(0..nodes);
    let kind = match random.random_range(0..7) {
        0 => Kind::Loss { permille: random.random_range(50..=400) },
        1 => Kind::Delay { slowest: Duration::from_millis(random.random_range(100..=1_500)) },
        2 => Kind::Partition { first: random.random_range(1..nodes) },
        3 => Kind::OneWay { from: node, to: (node + random.random_range(1..nodes)) % nodes },
        4 => Kind::Flapping {
            first: random.random_range(1..nodes),
            period: Duration::from_millis(random.random_range(200..=4_000)),
        },
        5 => Kind::Crash { node, keeps_its_state: random.random_bool(0.5) },
        // A minute, an hour, a year; in both directions.
        _ => Kind::ClockJump {
            node,
            by_ms: [60_000, 3_600_000, 31_536_000_000][random.random_range(0..3)]
                * if random.random_bool(0.5) { 1 } else { -1 },
        },
    };
    Fault { begins, lasts, kind }
}
