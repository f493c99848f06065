//! What a provider counts of a request, and when, in the three ways in which they do. Pure.

use super::super::provider::Counted;
use super::super::scenario::SECOND_NS;
use super::recorded::{Recorded, Request};

/// A way to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// The prompt when it comes, and what is produced second by second.
    Produced,
    /// The prompt and the most that may be produced, when the request comes.
    Door,
    /// The prompt alone, when it comes.
    Prompt,
}

impl Count {
    pub(crate) fn described(self) -> &'static str {
        match self {
            Self::Produced => "A provider that counts prompts when they come and answers as they are produced",
            Self::Door => "A provider that counts prompt and max_tokens at its door",
            Self::Prompt => "A provider that counts prompts",
        }
    }

    /// All that it ever counts of a request.
    pub(crate) fn cost(self, request: &Recorded, answer_tokens_max: u64) -> u64 {
        match self {
            Self::Produced => request.prompt_tokens + request.output_tokens,
            Self::Door => request.prompt_tokens + answer_tokens_max,
            Self::Prompt => request.prompt_tokens,
        }
    }

    /// Adds a request that was sent at an instant and is counted so much later.
    pub(crate) fn add(
        self,
        request: &Request,
        (sent_ns, later_ns): (u64, u64),
        answer_tokens_max: u64,
        log: &mut Vec<Counted>,
    ) {
        let recorded = &request.recorded;
        let mut count = |at_ns, cost| log.push(Counted { at_ns: at_ns + later_ns, cost });
        if self != Self::Produced {
            return count(sent_ns, self.cost(recorded, answer_tokens_max));
        }
        count(sent_ns, recorded.prompt_tokens);
        let produced_in_ns = request.lasts_ns - request.first_after_ns;
        let parts = produced_in_ns.div_ceil(SECOND_NS).max(1);
        let until = |part: u64| recorded.output_tokens * part / parts;
        for part in 1..=parts {
            let ends_ns = sent_ns + request.first_after_ns + produced_in_ns * part / parts;
            count(ends_ns, until(part) - until(part - 1));
        }
    }
}

/// The most in any window, wherever it begins, of a log in order of time.
pub(crate) fn fullest(log: &[Counted], window_ns: u64) -> u64 {
    let (mut first, mut sum, mut most) = (0, 0, 0);
    for counted in log {
        sum += counted.cost;
        while log[first].at_ns + window_ns <= counted.at_ns {
            sum -= log[first].cost;
            first += 1;
        }
        most = most.max(sum);
    }
    most
}

/// What was counted in a time.
pub(crate) fn between(log: &[Counted], from_ns: u64, to_ns: u64) -> u64 {
    log.iter().filter(|counted| (from_ns..to_ns).contains(&counted.at_ns)).map(|counted| counted.cost).sum()
}
