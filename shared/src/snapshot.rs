//! The read-only state that cores serve from: records compiled by the control thread, checked
//! once, and read in place by every core. No secret is in these bytes (see [`crate::published`]),
//! and nothing in them says how they were made.

pub mod model_list;
pub mod names;
pub mod routing;

use crate::limit::ChargeRule;
use model_list::ModelList;
use names::NameIndex;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use routing::RoutingRecord;
use std::sync::Arc;

/// How a provider's requests and answers are read.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq), compare(PartialEq))]
#[repr(u8)]
pub enum Dialect {
    /// `/v1/chat/completions` and its relatives.
    OpenAi,
    /// `/v1/messages`.
    Anthropic,
    /// `/v1beta/models/M:generateContent`.
    Gemini,
    /// `/v2/chat`.
    Cohere,
}

/// Which header carries a key upstream.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq), compare(PartialEq))]
#[repr(u8)]
pub enum CredentialHeader {
    /// `authorization: Bearer KEY`
    Bearer,
    /// `x-api-key: KEY`
    XApiKey,
    /// `x-goog-api-key: KEY`
    XGoogApiKey,
    /// `api-key: KEY`
    ApiKey,
}

/// One address of a provider.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointRecord {
    /// The address as IPv6; IPv4 is mapped (`::ffff:a.b.c.d`).
    pub ip: [u8; 16],
    /// TCP port.
    pub port: u16,
}

/// A provider: an AI vendor's account and dialect.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ProviderRecord {
    /// Its name in the configuration, as in `openai/gpt-4o`.
    pub name: String,
    /// How its bodies are read.
    pub dialect: Dialect,
    /// TLS towards it.
    pub https: bool,
    /// Host name without port: for TLS (SNI and certificate).
    pub host: String,
    /// The Host header: name, and port where it is not the scheme's own.
    pub authority: String,
    /// Put before every path, without a slash at its end; may be empty.
    pub path_prefix: String,
    /// Its paths carry no `/v1`: `/chat/completions` alone.
    pub drops_version: bool,
    /// Which header carries its keys.
    pub credential_header: CredentialHeader,
    /// Resolved addresses; empty while its name could never be resolved.
    pub endpoints: Vec<EndpointRecord>,
    /// Loopback, link-local and private addresses may be connected to.
    pub allow_private_network: bool,
    /// Forward every method and path without looking for a model.
    pub relay_all: bool,
    /// Needs no credential.
    pub is_key_less: bool,
    /// Do not verify its certificate.
    pub insecure_skip_verify: bool,
    /// Certificates trusted for it besides the web roots, PEM.
    pub ca_cert_pem: Option<String>,
    /// Extra headers: name, index of the value among the secrets.
    pub extra_headers: Vec<(String, u32)>,
    /// Milliseconds for connecting, TLS included.
    pub connect_timeout_ms: u32,
    /// Milliseconds until the answer's head.
    pub head_timeout_ms: u32,
    /// Milliseconds from the answer's head to the first byte of its body.
    pub first_byte_timeout_ms: u32,
    /// Milliseconds between two pieces of the answer's body.
    pub idle_timeout_ms: u32,
    /// Milliseconds for an answer that is not streamed, from the first byte sent.
    pub total_timeout_ms: u32,
    /// Tries after the first one, on this provider.
    pub max_retries: u32,
    /// First pause before a retry, milliseconds.
    pub backoff_initial_ms: u32,
    /// Longest pause before a retry, milliseconds.
    pub backoff_max_ms: u32,
    /// Connections of one core to this provider.
    pub connections_max: u32,
    /// Indices of its keys.
    pub keys: Vec<u32>,
    /// The sum of the weights of its keys up to each one, in the same order.
    pub key_weights: Vec<f64>,
    /// Limits that count every request to it.
    pub limits: Vec<u32>,
    /// 0: of this node's region, 1: of none, 2: of another one. The nearest that fit are used.
    pub distance: u8,
}

/// A key: a provider's credential.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct KeyRecord {
    /// Its name, unique among the provider's keys; what `x-bf-api-key` names.
    pub name: String,
    /// Index of the provider.
    pub provider: u32,
    /// Index of the credential among the secrets.
    pub secret: u32,
    /// Share of the requests, relative to the other keys.
    pub weight: f32,
    /// Models that it may be used for; `None`: all.
    pub models: Option<ModelList>,
    /// Models that it may not be used for, whatever `models` says.
    pub blacklisted_models: ModelList,
    /// Numbers of models, sorted, and the names that the provider has for them.
    pub aliases: Vec<(u32, String)>,
    /// Limits that count every request made with it.
    pub limits: Vec<u32>,
    /// As a provider's; a key without a region has its provider's.
    pub distance: u8,
}

/// What a virtual key may do at one provider.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct GrantRecord {
    /// Index of the provider.
    pub provider: u32,
    /// Its place among the virtual key's grants as the configuration has them.
    pub place: u32,
    /// Share of the requests whose model names no provider; `None`: only when it is named.
    pub weight: Option<f32>,
    /// Models allowed; `None`: all.
    pub models: Option<ModelList>,
    /// Keys allowed, sorted; `None`: all of the provider's.
    pub keys: Option<Vec<u32>>,
    /// Limits that count what this virtual key sends to this provider.
    pub limits: Vec<u32>,
}

/// A virtual key: a client's credential at the gateway.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct VirtualKeyRecord {
    /// Its id in the configuration; safe to log.
    pub id: String,
    /// Its name; safe to log.
    pub name: String,
    /// Revoked ones are false.
    pub is_active: bool,
    /// Providers it may use, sorted by their indices; `None`: all, with all their models and keys.
    pub grants: Option<Vec<GrantRecord>>,
    /// Limits that count every request made with it.
    pub limits: Vec<u32>,
    /// Index of its team among those of [`RoutingRecord`].
    pub team: Option<u32>,
    /// Index of its customer, or its team's, there.
    pub customer: Option<u32>,
}

/// What is known of a model besides who serves it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ModelRecord {
    /// Model name as clients say it, without provider; `*` for every model.
    pub model: String,
    /// Only at this provider; `None`: wherever it is served.
    pub provider: Option<u32>,
    /// Most output tokens it produces, reserved where a request states no maximum.
    pub max_output_tokens: Option<u32>,
    /// What it costs; `None`: not known.
    pub price: Option<PriceRecord>,
    /// Limits that count every request for it.
    pub limits: Vec<u32>,
}

/// What a model costs, in thousand-millionths of a US dollar.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, Debug))]
pub struct PriceRecord {
    /// A token of the prompt.
    pub input_nano_usd: u64,
    /// A token of the answer.
    pub output_nano_usd: u64,
}

/// What a limit counts.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq), compare(PartialEq))]
#[repr(u8)]
pub enum Unit {
    /// Attempts sent to a provider.
    Requests,
    /// Tokens, input and output together.
    Tokens,
    /// Attempts that run at the same time: counted until they end, and never after that.
    Concurrent,
    /// Millionths of a US dollar, for input and output together.
    MicroUsd,
}

/// How firmly a limit holds across nodes; see the configuration's words of the same names.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq), compare(PartialEq))]
#[repr(u8)]
pub enum Enforcement {
    /// Entitlements are handed over, and reservations are bounds.
    Strict,
    /// Entitlements are handed over, and reservations are what the provider counts at its door.
    Admission,
    /// Entitlements are handed over, and reservations are learned.
    Statistical,
    /// Each node may use what the others were heard to have left, at a pace.
    Gossip,
}

/// What becomes of a lost node's part of a limit.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq), compare(PartialEq))]
#[repr(u8)]
pub enum OnNodeLoss {
    /// Nobody else may spend it.
    Keep,
    /// The others take it over after its lease.
    Reclaim,
}

/// Which tokens of a request count.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq), compare(PartialEq))]
#[repr(u8)]
pub enum Counted {
    /// The prompt's alone.
    Prompt,
    /// The prompt's and those of the answer.
    PromptAndOutput,
}

/// What is reserved before the tokens are known.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq), compare(PartialEq))]
#[repr(u8)]
pub enum Reserve {
    /// What they can be at most.
    Bound,
    /// What a provider takes them for at its door.
    Formula,
    /// What they have been for prompts of this size: on the average for a pace, and otherwise so
    /// that no larger part than its probability needs more.
    Learned,
}

/// How tokens are charged to a limit. Means nothing to limits of another unit.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq), compare(PartialEq))]
pub struct TokenCharge {
    /// Which tokens.
    pub counted: Counted,
    /// How many of them are taken at the door.
    pub reserve: Reserve,
    /// From when on, and how many of those taken, count as spent.
    pub rule: ChargeRule,
}

/// A limit: so many requests or tokens in a window, or so many requests at once.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct LimitRecord {
    /// Stable name: the rate limit's id and what it counts, as in `team-a/tokens`.
    pub id: String,
    /// What it counts.
    pub unit: Unit,
    /// How many in a window, or at once.
    pub amount: u64,
    /// Window length in nanoseconds; of [`Unit::Concurrent`], which has none, always
    /// [`CONCURRENT_WINDOW_NS`](crate::limit::CONCURRENT_WINDOW_NS).
    pub window_ns: u64,
    /// How firmly it holds across nodes.
    pub enforcement: Enforcement,
    /// How tokens are charged.
    pub charge: TokenCharge,
    /// What becomes of a lost node's part. `None`: as the number of expected nodes says.
    pub on_node_loss: Option<OnNodeLoss>,
    /// How long a request may wait for units, nanoseconds.
    pub max_wait_ns: u64,
    /// Part of the answers that may need more than was reserved; 0 unless that is learned.
    pub overshoot_probability: f64,
    /// The amount is what the provider's answers say; until one does, it is as large as can be.
    pub is_learned: bool,
    /// It is about a part of the window of a limit of its own, which the provider counts as well.
    pub is_part: bool,
    /// Index of the limit whose pace on this node this is. Nobody but this node counts it.
    pub paces: Option<u32>,
}

/// A model that some key or virtual key names, and who serves it where no provider is named.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct KnownModelRecord {
    /// Model name or alias as clients say it.
    pub model: String,
    /// Indices of the providers with a key that lists it, the nearest first and then in the
    /// configuration's order. Empty: none.
    pub providers: Vec<u32>,
}

/// Settings of the request path.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SettingsRecord {
    /// Requests without a virtual key are refused.
    pub enforce_auth: bool,
    /// A client may bring a provider's own key.
    pub allow_direct_keys: bool,
    /// Largest request body, bytes.
    pub body_bytes_max: u64,
    /// Bytes of a body kept in memory for its model and for retries.
    pub buffered_body_bytes: u64,
    /// Bytes of all kept bodies of one core.
    pub buffered_bodies_bytes_per_core: u64,
    /// Origins answered with CORS headers; `*` allows every one.
    pub allowed_origins: Vec<String>,
    /// Headers that `x-bf-eh-NAME` may set upstream, lower-case.
    pub header_allowlist: Vec<String>,
    /// Some provider or key has a region, so that distances differ.
    pub has_regions: bool,
    /// Weights of keys and providers follow latency and errors.
    pub follows_load: bool,
}

/// Everything a core needs to serve requests.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SnapshotRecord {
    /// Grows with every change of the configuration.
    pub epoch: u64,
    /// `deepintshield-ID-PORT`, as `/cluster/status` shows it.
    pub local_node: String,
    /// Region label of this node.
    pub region: String,
    /// Settings of the request path.
    pub settings: SettingsRecord,
    /// Providers, in the configuration's order.
    pub providers: Vec<ProviderRecord>,
    /// Finds a provider by its name.
    pub provider_index: NameIndex,
    /// Index of the first provider that takes every path.
    pub relay: Option<u32>,
    /// Keys of all providers.
    pub keys: Vec<KeyRecord>,
    /// Virtual keys.
    pub virtual_keys: Vec<VirtualKeyRecord>,
    /// HMAC-SHA-256 of each virtual key's value, sorted, with the index of its record.
    pub virtual_key_index: Vec<([u8; 32], u32)>,
    /// Models with settings or limits of their own, sorted by name.
    pub models: Vec<ModelRecord>,
    /// Models that keys and virtual keys name, sorted by name. A model's place here is its number.
    pub known_models: Vec<KnownModelRecord>,
    /// Finds the number of a model.
    pub model_index: NameIndex,
    /// Model names that metrics tell apart, sorted.
    pub model_labels: Vec<String>,
    /// Limits; a limit index counts from the start of this list.
    pub limits: Vec<LimitRecord>,
    /// Where requests go instead of where their model says.
    pub routing: RoutingRecord,
}

/// The bytes are not a snapshot of this version. Nothing was taken from them.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Writing the record failed; only a lack of memory can do that.
    #[error("the snapshot could not be written: {0}")]
    Write(rkyv::rancor::Error),
    /// The bytes do not hold a valid record.
    #[error("the bytes are not a snapshot of this version: {0}")]
    Invalid(rkyv::rancor::Error),
}

/// Checked snapshot bytes, shared by all cores.
#[derive(Clone)]
pub struct Snapshot {
    bytes: Arc<AlignedVec>,
}

impl Snapshot {
    /// Writes a record into bytes that the cores can read in place.
    pub fn from_record(record: &SnapshotRecord) -> Result<Self, SnapshotError> {
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(record).map_err(SnapshotError::Write)?;
        Self::from_aligned(bytes)
    }

    /// Takes bytes from elsewhere (the last-good file) after checking every one of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut aligned = AlignedVec::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        Self::from_aligned(aligned)
    }

    fn from_aligned(bytes: AlignedVec) -> Result<Self, SnapshotError> {
        rkyv::access::<ArchivedSnapshotRecord, rkyv::rancor::Error>(&bytes).map_err(SnapshotError::Invalid)?;
        Ok(Self { bytes: Arc::new(bytes) })
    }

    /// The record, read in place.
    #[inline]
    #[expect(unsafe_code, reason = "checking again on every request would cost O(snapshot)")]
    pub fn view(&self) -> &ArchivedSnapshotRecord {
        // SAFETY: `from_aligned` is the only way to make `self` and checked these very bytes as
        // an `ArchivedSnapshotRecord`. `bytes` is private, aligned by its type and never changes.
        unsafe { rkyv::access_unchecked::<ArchivedSnapshotRecord>(&self.bytes) }
    }

    /// The bytes, for the last-good file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The record as an owned value, for the control thread.
    pub fn to_record(&self) -> Result<SnapshotRecord, SnapshotError> {
        rkyv::deserialize::<SnapshotRecord, rkyv::rancor::Error>(self.view()).map_err(SnapshotError::Invalid)
    }
}
