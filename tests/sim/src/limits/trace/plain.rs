//! How other gateways keep a limit on tokens: what an answer used is added when it has ended, and a
//! request is admitted while what was added is below the limit. The counter here is a sliding log, exact
//! and read and written without delay, which is better than most have.

use super::super::scenario::Terms;
use super::counts::Count;
use super::course::{Admission, Limiter};
use super::recorded::Request;
use std::collections::VecDeque;

/// See the module.
pub(crate) struct AtTheEnd {
    terms: Terms,
    count: Count,
    /// One of all nodes, or one each.
    counters: Vec<Log>,
}

#[derive(Default)]
struct Log {
    sum: u64,
    ended: VecDeque<(u64, u64)>,
}

impl AtTheEnd {
    pub(crate) fn new(counters: usize, terms: Terms, count: Count) -> Self {
        Self { terms, count, counters: (0..counters).map(|_| Log::default()).collect() }
    }

    fn counter(&mut self, request: &Request) -> &mut Log {
        let place = request.node.min(self.counters.len() - 1);
        &mut self.counters[place]
    }
}

impl Limiter for AtTheEnd {
    type Running = ();

    fn admit(&mut self, request: &Request, now_ns: u64) -> Option<Admission<()>> {
        let Terms { amount, window_ns } = self.terms;
        let log = self.counter(request);
        while let Some((ended_ns, tokens)) = log.ended.front().copied()
            && ended_ns + window_ns <= now_ns
        {
            log.ended.pop_front();
            log.sum -= tokens;
        }
        (log.sum < amount).then_some(Admission { running: (), reserved: None })
    }

    fn end(&mut self, request: &Request, (): (), now_ns: u64) {
        // Usage says nothing of what a provider may have counted at its door.
        let tokens = match self.count {
            Count::Prompt => request.recorded.prompt_tokens,
            Count::Produced | Count::Door => request.recorded.prompt_tokens + request.recorded.output_tokens,
        };
        let log = self.counter(request);
        log.sum += tokens;
        log.ended.push_back((now_ns, tokens));
    }

    fn tick(&mut self, _now_ns: u64) {}

    fn fault(&self) -> Option<String> {
        None
    }
}
