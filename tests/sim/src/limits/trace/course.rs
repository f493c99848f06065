//! One run of a trace: requests, ticks and ends in the order of virtual time, and the figures of it.

use super::super::arrivals::Arrival;
use super::super::central::Central;
use super::super::provider::Counted;
use super::super::scenario::{MILLISECOND_NS, SECOND_NS, Terms};
use super::counts::{Count, between, fullest};
use super::recorded::Request;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// A cluster forms before the first request.
const BEGINS_NS: u64 = 15 * SECOND_NS;
const TICK_NS: u64 = 10 * MILLISECOND_NS;
/// The provider counts this much later than a node stamps, at most.
const COUNTED_LATER_NS: u64 = 245 * MILLISECOND_NS;

/// Who admits.
pub(crate) trait Limiter {
    /// What it keeps of a request that runs.
    type Running;

    /// Nothing: it is refused.
    fn admit(&mut self, request: &Request, now_ns: u64) -> Option<Admission<Self::Running>>;
    fn end(&mut self, request: &Request, running: Self::Running, now_ns: u64);
    /// Every 10 ms.
    fn tick(&mut self, now_ns: u64);
    /// What went wrong in the simulation itself.
    fn fault(&self) -> Option<String>;
}

/// A request that was let through.
pub(crate) struct Admission<R> {
    pub(crate) running: R,
    pub(crate) reserved: Option<Reserved>,
}

/// What was taken for it at the door.
#[derive(Clone, Copy)]
pub(crate) struct Reserved {
    pub(crate) tokens: u64,
    /// From what others needed; less than the most there can be.
    pub(crate) is_estimate: bool,
}

/// What came of a run.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) offered: u64,
    pub(crate) refused: u64,
    /// In the provider's count, of any window.
    pub(crate) fullest: u64,
    /// What it counted, of all that the limit allows in the time.
    pub(crate) used: f64,
    /// Of what one limiter admits that sees all requests and knows what each will use.
    pub(crate) of_central: f64,
    pub(crate) answered_tokens: u64,
    pub(crate) reserved_tokens: u64,
    /// Answers whose tokens were estimated, those that needed more, and by how much.
    pub(crate) estimated: u64,
    pub(crate) exceeded: u64,
    pub(crate) beyond_tokens: u64,
    pub(crate) fault: Option<String>,
}

/// Plays all requests.
pub(crate) fn run_course<L: Limiter>(
    requests: &[Request],
    mut limiter: L,
    count: Count,
    terms: Terms,
    answer_tokens_max: u64,
) -> Figures {
    let mut random = StdRng::seed_from_u64(7);
    let mut figures = Figures { offered: requests.len() as u64, ..Figures::default() };
    let mut running: BTreeMap<usize, L::Running> = BTreeMap::new();
    let mut ends = BinaryHeap::new();
    let mut central = Central::new(&[terms]);
    let (mut log, mut central_log) = (Vec::new(), Vec::new());
    let mut tick_ns = 0;
    for (number, request) in requests.iter().enumerate() {
        let now_ns = BEGINS_NS + request.recorded.at_ns;
        pass_until(now_ns, &mut tick_ns, &mut ends, |event, at_ns| match event {
            Passing::Tick => limiter.tick(at_ns),
            Passing::End(ended) => {
                if let Some(kept) = running.remove(&ended) {
                    limiter.end(&requests[ended], kept, at_ns);
                }
            }
        });
        let counted_at = (now_ns, random.random_range(0..=COUNTED_LATER_NS));
        if central.admits(&foreseen(request, now_ns, count, answer_tokens_max)) {
            count.add(request, counted_at, answer_tokens_max, &mut central_log);
        }
        let Some(admission) = limiter.admit(request, now_ns) else {
            figures.refused += 1;
            continue;
        };
        figures.note(request, admission.reserved, count);
        running.insert(number, admission.running);
        ends.push(Reverse((now_ns + request.lasts_ns, number)));
        count.add(request, counted_at, answer_tokens_max, &mut log);
    }
    let last_ns = BEGINS_NS + requests.last().map_or(0, |request| request.recorded.at_ns);
    log.sort_unstable();
    figures.fullest = fullest(&log, terms.window_ns);
    // The first window begins empty, and is measured by nobody.
    let from_ns = (BEGINS_NS + terms.window_ns).min(last_ns);
    let counted = |log: &[Counted]| between(log, from_ns, last_ns) as f64;
    let windows = (last_ns - from_ns).max(1) as f64 / terms.window_ns as f64;
    figures.used = counted(&log) / (terms.amount as f64 * windows);
    figures.of_central = counted(&log) / counted(&central_log).max(1.0);
    figures.fault = limiter.fault();
    figures
}

/// What a limiter would be told that knows the future.
fn foreseen(request: &Request, at_ns: u64, count: Count, answer_tokens_max: u64) -> Arrival {
    let cost = count.cost(&request.recorded, answer_tokens_max);
    let settles = (count == Count::Produced).then_some((cost, request.lasts_ns));
    Arrival { at_ns, node: request.node, cost, settles }
}

enum Passing {
    Tick,
    End(usize),
}

/// Ticks and ends before an instant, in order.
fn pass_until(
    now_ns: u64,
    tick_ns: &mut u64,
    ends: &mut BinaryHeap<Reverse<(u64, usize)>>,
    mut happens: impl FnMut(Passing, u64),
) {
    loop {
        let end = ends.peek().map(|Reverse(end)| *end).filter(|(at_ns, _)| *at_ns <= now_ns);
        match end {
            Some((at_ns, number)) if at_ns < *tick_ns => {
                ends.pop();
                happens(Passing::End(number), at_ns);
            }
            _ if *tick_ns <= now_ns => {
                happens(Passing::Tick, *tick_ns);
                *tick_ns += TICK_NS;
            }
            _ => return,
        }
    }
}

impl Figures {
    /// A request was admitted.
    fn note(&mut self, request: &Request, reserved: Option<Reserved>, count: Count) {
        let needed = match count {
            Count::Prompt => request.recorded.prompt_tokens,
            Count::Produced | Count::Door => request.recorded.prompt_tokens + request.recorded.output_tokens,
        };
        self.answered_tokens += needed;
        let Some(Reserved { tokens, is_estimate }) = reserved else { return };
        self.reserved_tokens += tokens;
        if is_estimate {
            self.estimated += 1;
            self.exceeded += u64::from(needed > tokens);
            self.beyond_tokens += needed.saturating_sub(tokens);
        }
    }
}
