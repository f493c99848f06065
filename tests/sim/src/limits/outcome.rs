//! What came of a run: what the cluster admitted and what the exact central limiter would have, what
//! the providers have against it, and the first thing that was wrong on the way.

use super::arrivals::Arrival;
use super::audit;
use super::provider::{Counted, Excess, judge};
use super::scenario::SECOND_NS;
use super::world::World;

/// Written while it runs. Units by the second in which the request came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    admitted: Vec<u64>,
    central: Vec<u64>,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// A node lost what it had.
    pub(crate) has_forgotten: bool,
    /// A node left.
    pub(crate) has_left: bool,
    pub(crate) wrong: Option<(u64, String)>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) progress: Progress,
    pub(crate) excesses: Vec<Excess>,
    /// Everything that the provider counted, as one number.
    pub(crate) trace: u64,
}

impl Progress {
    /// A request came.
    pub(crate) fn offer(&mut self, arrival: &Arrival, central_admits: bool) {
        if central_admits {
            add(&mut self.central, arrival);
        }
    }

    /// A node admitted it.
    pub(crate) fn admit(&mut self, arrival: &Arrival) {
        add(&mut self.admitted, arrival);
    }

    /// A message left.
    pub(crate) fn send(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }

    /// Only the first thing counts; what follows may follow from it.
    pub(crate) fn is_wrong(&mut self, at_ns: u64, what: String) {
        self.wrong.get_or_insert((at_ns, what));
    }

    /// Units that the cluster and the central limiter admitted between two instants.
    pub(crate) fn between(&self, from_ns: u64, to_ns: u64) -> (u64, u64) {
        let (from, to) = ((from_ns / SECOND_NS) as usize, (to_ns / SECOND_NS) as usize);
        let sum = |seconds: &[u64]| seconds.iter().take(to).skip(from).sum();
        (sum(&self.admitted), sum(&self.central))
    }

    /// Their ratio.
    pub(crate) fn utilisation(&self, from_ns: u64, to_ns: u64) -> f64 {
        let (admitted, central) = self.between(from_ns, to_ns);
        if central == 0 { 1.0 } else { admitted as f64 / central as f64 }
    }
}

fn add(seconds: &mut Vec<u64>, arrival: &Arrival) {
    let second = (arrival.at_ns / SECOND_NS) as usize;
    if seconds.len() <= second {
        seconds.resize(second + 1, 0);
    }
    seconds[second] += arrival.settles.map_or(arrival.cost, |(used, _)| used);
}

impl Outcome {
    /// Of a world at its end, whose log is in order.
    pub(super) fn of(world: World<'_>) -> Self {
        let hold_ns = u64::try_from(world.scenario.hold_max().as_nanos()).unwrap_or(0);
        let mut excesses = Vec::new();
        for (terms, largest) in world.scenario.limits.iter().zip(&world.largest) {
            // Until a window after the last node has lowered it, and what may run behind that.
            let lag_ns = terms.window_ns + terms.window_ns / 50 + hold_ns + SECOND_NS;
            excesses.extend(judge(&world.log, *terms, &audit::bounds(largest, lag_ns)));
        }
        let trace = traced(&world.log, world.progress.messages);
        Self { progress: world.progress, excesses, trace }
    }
}

/// FNV-1a.
fn traced(log: &[Counted], messages: u64) -> u64 {
    let words = log.iter().flat_map(|counted| [counted.at_ns, counted.cost]).chain([messages]);
    words.fold(0xcbf2_9ce4_8422_2325, |hash, word| (hash ^ word).wrapping_mul(0x100_0000_01b3))
}
