//! What a core counted since its last report. Sums only: a report that waits can be added to the
//! next one, and the control thread adds all of them up. No clock, no labels without a bound.

use crate::published::RestingKey;
use crate::told::KeyTold;
use std::collections::HashMap;

/// Upper bounds of the latency buckets, in microseconds; one more bucket holds the rest.
pub const LATENCY_BOUNDS_US: [u64; 18] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    120_000_000,
];

/// Counts by latency bucket, and the sum of what was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// One more than the bounds: the last holds everything above them.
    pub buckets: [u64; LATENCY_BOUNDS_US.len() + 1],
    /// Sum of all values, microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Counts one value.
    pub fn record_us(&mut self, value_us: u64) {
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < value_us);
        self.buckets[bucket] = self.buckets[bucket].saturating_add(1);
        self.sum_us = self.sum_us.saturating_add(value_us);
    }

    /// Adds another histogram to this one.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = mine.saturating_add(*theirs);
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, bucket| sum.saturating_add(*bucket))
    }
}

/// What a row of traffic is about. Every part comes from a bounded set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrafficLabels {
    /// Provider's name; empty where none was chosen.
    pub provider: String,
    /// One of the snapshot's model labels, or `other`; empty where the request had none.
    pub model: String,
    /// Kind of endpoint, such as `chat` or `messages`.
    pub endpoint: &'static str,
    /// Status sent to the client.
    pub status: u16,
    /// The error code where the gateway itself refused or failed; empty otherwise.
    pub code: &'static str,
}

/// Sums for one set of labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests answered.
    pub requests: u64,
    /// Answers that were streamed.
    pub streams: u64,
    /// Answers cut by the provider after they had begun.
    pub cut: u64,
    /// Clients that left before the end.
    pub abandoned: u64,
    /// Input tokens as the provider counted them.
    pub input_tokens: u64,
    /// Output tokens as the provider counted them.
    pub output_tokens: u64,
    /// Answers without usage although tokens were to be counted.
    pub usage_missing: u64,
    /// Whole request, from the head read to the last byte written.
    pub duration: Histogram,
    /// Until the answer's first byte went to the client.
    pub first_byte: Histogram,
    /// The node's own part before the request went upstream.
    pub overhead: Histogram,
}

impl Traffic {
    /// Adds another row to this one.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.streams = self.streams.saturating_add(other.streams);
        self.cut = self.cut.saturating_add(other.cut);
        self.abandoned = self.abandoned.saturating_add(other.abandoned);
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.usage_missing = self.usage_missing.saturating_add(other.usage_missing);
        self.duration.add(&other.duration);
        self.first_byte.add(&other.first_byte);
        self.overhead.add(&other.overhead);
    }
}

/// Attempts at one provider with one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptLabels {
    /// Provider's name.
    pub provider: String,
    /// Key's name; empty for providers without keys.
    pub key: String,
    /// `ok`, `limited`, `refused`, `error`, `unreachable`, `timeout`, `cut`.
    pub outcome: &'static str,
}

/// A key of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyLabels {
    /// Provider's name.
    pub provider: String,
    /// Key's name; empty for providers without keys.
    pub key: String,
}

/// A provider said to a virtual key that a key may not use a model, or that there is none such.
/// A core says so once for each of the first two virtual keys, and again after a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Which key.
    pub key: KeyLabels,
    /// Which model, as clients say it.
    pub model: String,
    /// Id of the virtual key.
    pub virtual_key: String,
}

/// What a core has right now; replaces what the last report said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Open client connections.
    pub connections: u64,
    /// Requests being served.
    pub requests_in_flight: u64,
    /// Answers being streamed.
    pub streams: u64,
    /// Requests that wait for units of limits.
    pub waiting: u64,
    /// Open provider connections that wait for a request.
    pub idle_upstreams: u64,
    /// Bytes of request bodies kept in memory.
    pub buffered_body_bytes: u64,
    /// Longest time between two ticks of the core since the last report, microseconds.
    pub tick_delay_us: u64,
    /// Epoch of the configuration that the core runs.
    pub epoch: u64,
}

/// Plain sums of a core, by metric name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Connections accepted.
    pub connections_accepted: u64,
    /// Connections refused for lack of room.
    pub connections_refused: u64,
    /// Provider connections made.
    pub upstream_connects: u64,
    /// Provider connections reused.
    pub upstream_reuses: u64,
    /// Provider connections thrown away because something unasked arrived or they were closed.
    pub upstream_stale: u64,
    /// Bytes read from clients.
    pub client_bytes_in: u64,
    /// Bytes written to clients.
    pub client_bytes_out: u64,
    /// Tokens used above what was reserved for them.
    pub reserved_too_little_tokens: u64,
    /// Usage figures that were not plain counts and had to be clamped.
    pub usage_flagged: u64,
    /// Connections closed by a panic that was caught.
    pub panics: u64,
}

/// How well the tokens of answers were estimated for one limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimates {
    /// Answers that told their tokens.
    pub answers: u64,
    /// Those that needed more than was reserved for them.
    pub exceeded: u64,
    /// How much more.
    pub exceeded_tokens: u64,
    /// The part of that for which the node had no room: the limit itself was exceeded by it.
    pub beyond_entitlement_tokens: u64,
}

impl Estimates {
    /// Adds another count to this one.
    pub fn add(&mut self, other: &Self) {
        self.answers = self.answers.saturating_add(other.answers);
        self.exceeded = self.exceeded.saturating_add(other.exceeded);
        self.exceeded_tokens = self.exceeded_tokens.saturating_add(other.exceeded_tokens);
        self.beyond_entitlement_tokens = self.beyond_entitlement_tokens.saturating_add(other.beyond_entitlement_tokens);
    }
}

/// Requests that waited for units of one limit, by the end of their wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitWaits {
    /// All of them.
    pub waits: u64,
    /// Those that were refused after all, or whose client left.
    pub given_up: u64,
    /// How long they waited together, microseconds.
    pub waited_us: u64,
}

impl LimitWaits {
    /// Adds another count to this one.
    pub fn add(&mut self, other: &Self) {
        self.waits = self.waits.saturating_add(other.waits);
        self.given_up = self.given_up.saturating_add(other.given_up);
        self.waited_us = self.waited_us.saturating_add(other.waited_us);
    }
}

/// One core's sums since its last report.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Which core.
    pub core: u32,
    /// Requests by what they were about.
    pub traffic: HashMap<TrafficLabels, Traffic, ahash::RandomState>,
    /// Attempts by provider, key and outcome.
    pub attempts: HashMap<AttemptLabels, u64, ahash::RandomState>,
    /// Refusals by limit id.
    pub refusals: HashMap<String, u64, ahash::RandomState>,
    /// Requests that went where a routing rule led them, by the rule.
    pub routed: HashMap<String, u64, ahash::RandomState>,
    /// Requests that waited for units, by the id of the limit that had none for them.
    pub limit_waits: HashMap<String, LimitWaits, ahash::RandomState>,
    /// Answers to requests whose tokens were estimated, by limit id.
    pub estimates: HashMap<String, Estimates, ahash::RandomState>,
    /// Keys that the core learned should rest.
    pub resting_keys: Vec<RestingKey>,
    /// Models that keys were not allowed.
    pub denials: Vec<Denial>,
    /// What providers said of their limits; the newest for each key and model.
    pub told: Vec<KeyTold>,
    /// Times from sending to the answer's head, by key; only where weights follow them.
    pub waits: HashMap<KeyLabels, Histogram, ahash::RandomState>,
    /// Sums without labels.
    pub sums: Sums,
    /// What the core has right now.
    pub gauges: Gauges,
}
