//! Recorded requests, and who sends them where. Pure.

use super::super::scenario::SECOND_NS;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A request of the trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Recorded {
    /// After the first one.
    pub(crate) at_ns: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens: u64,
}

/// One that reaches a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) recorded: Recorded,
    pub(crate) node: usize,
    pub(crate) core: usize,
    /// From the first byte to the last.
    pub(crate) lasts_ns: u64,
    /// Until the first token of the answer.
    pub(crate) first_after_ns: u64,
}

/// Where clients are.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) nodes: usize,
    /// Of each node.
    pub(crate) cores: usize,
    pub(crate) clients: usize,
    /// Exponent of Zipf's law, for requests over clients and for clients over nodes.
    pub(crate) skew: f64,
    pub(crate) seed: u64,
}

/// How fast a provider answers.
#[derive(Clone, Copy)]
pub(crate) struct Answers {
    pub(crate) first_after_ns: u64,
    pub(crate) token_ns: u64,
}

/// Reads `TIMESTAMP,ContextTokens,GeneratedTokens` below a line of names; `speed` times as fast.
pub(crate) fn read(text: &str, speed: f64) -> Result<Vec<Recorded>, String> {
    let mut requests: Vec<Recorded> = Vec::new();
    let mut first_ns = None;
    for (number, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.is_empty()) {
        let fault = |what: &str| format!("line {}: {what}", number + 1);
        let mut fields = line.split(',');
        let mut field = || fields.next().map(str::trim).ok_or_else(|| fault("three fields are expected"));
        let moment = field()?;
        let day_ns = nanos_of_day(moment).ok_or_else(|| fault("no moment"))?;
        let mut tokens = || field()?.parse::<u64>().map_err(|error| fault(&error.to_string()));
        let (prompt_tokens, output_tokens) = (tokens()?, tokens()?);
        let since_ns = day_ns.checked_sub(*first_ns.get_or_insert(day_ns)).ok_or_else(|| fault("out of order"))?;
        let at_ns = (since_ns as f64 / speed) as u64;
        if requests.last().is_some_and(|before| before.at_ns > at_ns) {
            return Err(fault("out of order"));
        }
        requests.push(Recorded { at_ns, prompt_tokens, output_tokens });
    }
    Ok(requests)
}

/// Of `2023-11-16 18:15:46.6805900`; a trace lies within one day.
fn nanos_of_day(moment: &str) -> Option<u64> {
    let (_, time) = moment.split_once(' ')?;
    let mut parts = time.split(':');
    let (hours, minutes) = (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?);
    let seconds: f64 = parts.next()?.parse().ok()?;
    ((0.0..61.0).contains(&seconds) && hours < 24 && minutes < 60)
        .then(|| (hours * 3_600 + minutes * 60) * SECOND_NS + (seconds * 1e9) as u64)
}

/// Draws a client for each request, and for each client a core that it stays with.
pub(crate) fn placed(trace: &[Recorded], spread: Spread, answers: Answers) -> Vec<Request> {
    let mut random = StdRng::seed_from_u64(spread.seed);
    let of_nodes = sums(spread.nodes, spread.skew);
    let of_clients = sums(spread.clients, spread.skew);
    let clients: Vec<(usize, usize)> =
        (0..spread.clients).map(|_| (drawn(&of_nodes, &mut random), random.random_range(0..spread.cores))).collect();
    let place = |recorded: &Recorded| {
        let (node, core) = clients[drawn(&of_clients, &mut random)];
        let lasts_ns = answers.first_after_ns + recorded.output_tokens * answers.token_ns;
        Request { recorded: *recorded, node, core, lasts_ns, first_after_ns: answers.first_after_ns }
    };
    trace.iter().map(place).collect()
}

/// Sums of weights by Zipf's law.
fn sums(count: usize, skew: f64) -> Vec<f64> {
    let weights = (1..=count).map(|rank| (rank as f64).powf(-skew));
    let mut sum = 0.0;
    weights
        .map(|weight| {
            sum += weight;
            sum
        })
        .collect()
}

fn drawn(sums: &[f64], random: &mut StdRng) -> usize {
    let drawn = random.random_range(0.0..sums.last().copied().unwrap_or(1.0));
    sums.partition_point(|sum| *sum <= drawn).min(sums.len().saturating_sub(1))
}

/// Traffic of this kind that was never recorded: most answers short, a few long.
#[cfg(test)]
pub(crate) fn synthetic(seed: u64, seconds: u64, per_second: u64) -> Vec<Recorded> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut moments: Vec<u64> =
        (0..seconds * per_second).map(|_| random.random_range(0..seconds * SECOND_NS)).collect();
    moments.sort_unstable();
    let request = |at_ns| {
        let prompt_tokens = 2_u64.pow(random.random_range(4..11)) + random.random_range(0..16_u64);
        let answers = if random.random_bool(0.05) { 400..=1_000 } else { 10..=200_u64 };
        Recorded { at_ns, prompt_tokens, output_tokens: random.random_range(answers) }
    };
    moments.into_iter().map(request).collect()
}
