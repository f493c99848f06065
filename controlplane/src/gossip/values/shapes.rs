//! The shapes of what a node publishes. Their text in gossip is the codec's.

use serde::{Deserialize, Serialize};

/// Everything that one node published.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeValues {
    /// Who it is.
    pub about: About,
    /// How it is.
    pub load: Load,
    /// What it runs.
    pub configuration: ConfigurationMark,
    /// Keys that a provider refused or limited there.
    pub rests: Vec<Rest>,
    /// Its requests, by provider.
    pub providers: Vec<ProviderTraffic>,
    /// Its requests, by provider, key and model; the busiest ones.
    pub traffic: Vec<TrafficRow>,
    /// What it used of its limits; those of which nothing is in use are left out.
    pub limits: Vec<LimitUse>,
    /// What providers said of their limits there.
    pub told: Vec<ToldRow>,
    /// Values and rows of it that could not be read here; not published.
    pub unreadable: u32,
}

/// Who a node is. Changes with a start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Program version.
    pub version: String,
    /// Highest protocol version it speaks.
    pub protocol: u32,
    /// Region label.
    pub region: String,
    /// `starting`, `ready`, `overloaded`, `draining`.
    pub state: String,
    /// Where its clients connect to, for people.
    pub client_address: String,
    /// Wall-clock milliseconds of its start.
    pub started_ms: u64,
    /// Ids of the gossip keys that it accepts, so that none is sent with too early.
    pub gossip_keys: Vec<String>,
}

/// How a node is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Part of the machine's processors in use, permille.
    pub cpu_permille: u16,
    /// Part of the memory in use (of the cgroup where there is one), permille.
    pub memory_permille: u16,
    /// Bytes received and sent a second, all interfaces but loopback.
    pub network_bytes_per_second: u64,
    /// Open file descriptors, permille of what is allowed.
    pub descriptors_permille: u16,
    /// Answers being streamed.
    pub streams: u64,
    /// Requests being served.
    pub requests_in_flight: u64,
    /// Longest delay of each core's tick lately, microseconds.
    pub tick_delay_us: Vec<u64>,
    /// The node sheds load and is not ready.
    pub is_overloaded: bool,
}

/// Which configuration a node runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigurationMark {
    /// Number of the change.
    pub epoch: u64,
    /// Id of the node that made it.
    pub author: String,
    /// First 16 hexadecimal digits of the SHA-256 of the configuration.
    pub hash: String,
}

/// A key that rests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rest {
    /// Provider's name.
    pub provider: String,
    /// Key's name.
    pub key: String,
    /// Only for this model.
    pub model: Option<String>,
    /// `limited` or `refused`.
    pub reason: String,
    /// Left when it was published, milliseconds. Who hears of it counts from then.
    pub remaining_ms: u64,
    /// Tells one rest of a key from its next one.
    pub number: u64,
}

/// Requests to one provider in the last ten seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProviderTraffic {
    /// Provider's name.
    pub provider: String,
    /// Attempts.
    pub attempts: u64,
    /// Attempts that failed for the provider's own reasons: 5xx, unreachable, timeout, cut.
    pub failures: u64,
    /// Median time to the first byte, microseconds.
    pub first_byte_us: u64,
}

/// Requests of one provider in ten seconds: by model, as clients saw them, where the key is
/// empty; by key, as attempts at the provider, where the model is empty. So the two kinds are
/// never summed up together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrafficRow {
    /// Provider's name.
    pub provider: String,
    /// Key's name; empty in a row of a model.
    pub key: String,
    /// Model's label; empty in a row of a key.
    pub model: String,
    /// Requests, or attempts.
    pub requests: u64,
    /// By class: limited, refused, error, unreachable, timeout, cut.
    pub errors: [u64; 6],
    /// Time to the first byte: counts by bucket of [`shared::report::LATENCY_BOUNDS_US`], without
    /// the empty ones at the end. Rows of keys have none.
    pub latency: Vec<u64>,
}

/// Use of one limit on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitUse {
    /// Limit's id.
    pub id: String,
    /// `requests` or `tokens`.
    pub unit: String,
    /// Spent and held in the window that ends now.
    pub used: u64,
    /// Amount of the limit.
    pub amount: u64,
    /// Units that the node may use in a window, now; `None` where it does not say so.
    pub entitlement: Option<u64>,
    /// Requests that it refused for this limit since its start.
    pub refused: u64,
    /// After what time one unit, half and all of what is used there does not count any more,
    /// milliseconds from when it was published; empty where that is not known.
    pub back_ms: Vec<u64>,
}

/// What a provider said last of the limits of one key and model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToldRow {
    /// Provider's name.
    pub provider: String,
    /// Key's name.
    pub key: String,
    /// Model, as clients say it; may be empty.
    pub model: String,
    /// Tells one answer from the next; who saw it before counts its times from then.
    pub number: u64,
    /// How long before it was published it was true, milliseconds.
    pub age_ms: u64,
    /// It was a refusal, and this is left of its `retry-after`, milliseconds; 0: it was none.
    pub refused_ms: u64,
    /// Requests.
    pub requests: ToldFigures,
    /// Tokens, input and output together.
    pub tokens: ToldFigures,
}

/// Figures of one unit; what was not said is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ToldFigures {
    /// Units in a window.
    pub limit: Option<u64>,
    /// Units that would still be admitted.
    pub remaining: Option<u64>,
    /// Until all are back, milliseconds.
    pub reset_ms: Option<u64>,
}
