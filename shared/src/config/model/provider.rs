//! Providers: how to reach one, which keys it takes, which models they may ask for.

use core::fmt;
use core::time::Duration;

use super::{BaseUrl, Origin, Secret};

/// One entry of `providers`.
#[derive(Debug, PartialEq)]
pub struct Provider {
    /// The entry's name: the `provider/` in front of a model.
    pub name: String,
    /// The vendor, or what the custom entry is built on.
    pub kind: ProviderKind,
    /// The language it speaks. Custom entries take their base's.
    pub dialect: Dialect,
    /// Preferred by nodes of the same region.
    pub region: Option<String>,
    /// In the file's order; names are unique within the provider. Empty for keyless ones.
    pub keys: Vec<Key>,
    /// Address, timeouts, retries.
    pub network: Network,
    /// `concurrency_and_buffer_size.concurrency`: requests upstream at once.
    pub concurrency_max: u32,
    /// `concurrency_and_buffer_size.buffer_size`: requests that may wait for one of those.
    pub queue_max: u32,
    /// Set for entries with a name of their own.
    pub custom: Option<CustomProvider>,
}

impl Provider {
    /// Default of [`Provider::concurrency_max`].
    pub const CONCURRENCY_MAX: u32 = 1_000;
    /// Default of [`Provider::queue_max`].
    pub const QUEUE_MAX: u32 = 5_000;

    /// Whether requests go upstream without a key of ours.
    pub fn is_keyless(&self) -> bool {
        self.keys.is_empty()
    }
}

/// `custom_provider_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustomProvider {
    /// `base_provider_type`: whose dialect and paths it has.
    pub base: ProviderKind,
    /// `is_key_less`: no credential is sent.
    pub is_keyless: bool,
    /// `relay_all`: every method and path is forwarded, without looking for a model.
    pub relay_all: bool,
}

/// One provider credential.
#[derive(PartialEq)]
pub struct Key {
    /// `id`, or the name where there is none: what `key_ids` refers to.
    pub id: String,
    /// Unique within the provider; what `x-bf-api-key` names.
    pub name: String,
    /// Empty for servers that ask for none.
    pub value: Secret,
    /// Where the value's text came from.
    pub origin: Origin,
    /// What it may be used for.
    pub models: Models,
    /// Exceptions from [`Key::models`]; `*` stands for all.
    pub blacklisted_models: Vec<String>,
    /// Share of the traffic among the keys that fit, 0 to 1,000,000. 0: only when named.
    pub weight: f64,
    /// `from` as clients say it, `to` as the provider says it.
    pub aliases: Vec<(String, String)>,
    /// Preferred by nodes of the same region.
    pub region: Option<String>,
    /// Limit over everything that is asked with this key.
    pub rate_limit_id: Option<String>,
    /// `enabled`: whether it is used at all.
    pub is_enabled: bool,
}

impl Key {
    /// Whether this key may be used for `model` (as clients say it).
    pub fn allows(&self, model: &str) -> bool {
        self.models.allows(model) && !is_listed(&self.blacklisted_models, model)
    }

    /// The provider's name for `model`.
    pub fn resolve<'a>(&'a self, model: &'a str) -> &'a str {
        self.aliases.iter().find(|(from, _)| from == model).map_or(model, |(_, to)| to)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("fingerprint", &self.value.fingerprint())
            .field("origin", &self.origin)
            .field("models", &self.models)
            .field("blacklisted_models", &self.blacklisted_models)
            .field("weight", &self.weight)
            .field("aliases", &self.aliases)
            .field("region", &self.region)
            .field("rate_limit_id", &self.rate_limit_id)
            .field("is_enabled", &self.is_enabled)
            .finish_non_exhaustive()
    }
}

/// Whether a list of exceptions has `model` or `*`.
pub(super) fn is_listed(models: &[String], model: &str) -> bool {
    models.iter().any(|listed| listed == "*" || listed == model)
}

/// Which models something covers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Models {
    /// `["*"]`.
    #[default]
    All,
    /// These and no others.
    Only(Vec<String>),
}

impl Models {
    /// Whether `model` is covered.
    pub fn allows(&self, model: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|name| name == model),
        }
    }
}

/// `network_config`.
#[derive(Debug, PartialEq)]
pub struct Network {
    /// `base_url`, or the vendor's own. Request paths, with their version, are appended.
    pub base_url: BaseUrl,
    /// Sent with every request. A client cannot overwrite them.
    pub extra_headers: Vec<ExtraHeader>,
    /// `connect_timeout`: TCP and TLS together.
    pub connect_timeout: Duration,
    /// `response_head_timeout`: from the last request byte to the end of the answer's head.
    /// Default: the request timeout, since unstreamed answers come when they are complete.
    pub response_head_timeout: Duration,
    /// `first_body_byte_timeout`: from the head to the first body byte. Default: the idle one.
    pub first_body_byte_timeout: Duration,
    /// `stream_idle_timeout_in_seconds`: between two body bytes.
    pub stream_idle_timeout: Duration,
    /// `default_request_timeout_in_seconds`: one attempt in total; for a streamed answer, until
    /// its first body byte.
    pub request_timeout: Duration,
    /// `max_retries` and the waits between them.
    pub retry: Retry,
    /// `keep_alive_timeout_in_seconds`: an idle pooled connection is closed after this.
    pub keep_alive_timeout: Duration,
    /// `max_conns_per_host`: this node's connections to one endpoint.
    pub connections_max: u32,
    /// `insecure_skip_verify`: any certificate will do. For tests.
    pub insecure_skip_verify: bool,
    /// `ca_cert_pem`: roots to trust besides the web's.
    pub ca_cert_pem: Option<String>,
    /// `allow_private_network`: whether loopback and private addresses may be connected to.
    pub allow_private_network: bool,
}

impl Network {
    /// Defaults for a provider at `base_url`.
    pub fn new(base_url: BaseUrl, allow_private_network: bool) -> Self {
        let request_timeout = Duration::from_mins(5);
        let stream_idle_timeout = Duration::from_mins(2);
        Self {
            base_url,
            extra_headers: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            response_head_timeout: request_timeout,
            first_body_byte_timeout: stream_idle_timeout,
            stream_idle_timeout,
            request_timeout,
            retry: Retry::default(),
            keep_alive_timeout: Duration::from_secs(30),
            connections_max: 5_000,
            insecure_skip_verify: false,
            ca_cert_pem: None,
            allow_private_network,
        }
    }
}

/// When and how often an attempt is repeated on the same provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first.
    pub max: u8,
    /// `retry_backoff_initial`: wait before the first repetition, doubled for each further one.
    pub backoff_initial: Duration,
    /// `retry_backoff_max`: never wait longer.
    pub backoff_max: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max: 0, backoff_initial: Duration::from_millis(500), backoff_max: Duration::from_secs(5) }
    }
}

/// A header of our own on requests to a provider. The value often is a credential.
#[derive(PartialEq)]
pub struct ExtraHeader {
    /// Lower case, a token; never framing or Host.
    pub name: String,
    /// Printable.
    pub value: Secret,
    /// Where the value's text came from.
    pub origin: Origin,
}

impl fmt::Debug for ExtraHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtraHeader").field("name", &self.name).field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// The shape of requests, answers and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `/v1/chat/completions` and its family.
    OpenAi,
    /// `/v1/messages`.
    Anthropic,
    /// `/v1beta/models/M:generateContent`.
    Gemini,
    /// `/v2/chat`.
    Cohere,
}

/// Which header carries a key upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// The vendors whose names the configuration knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the vendor's own name")]
pub enum ProviderKind {
    OpenAi,
    Anthropic,
    Gemini,
    Mistral,
    Groq,
    Cohere,
    Cerebras,
    OpenRouter,
    Perplexity,
    Xai,
    DeepSeek,
    Fireworks,
    Together,
    Nebius,
    HuggingFace,
    Ollama,
    Vllm,
    Sgl,
    Azure,
}

impl ProviderKind {
    /// Every vendor with its name in files, its own address if it has one, and its dialect.
    /// An address never ends in a version segment: request paths bring it along.
    #[rustfmt::skip]
    const TABLE: [(Self, &'static str, Option<&'static str>, Dialect); 19] = [
        (Self::OpenAi,      "openai",      Some("https://api.openai.com"), Dialect::OpenAi),
        (Self::Anthropic,   "anthropic",   Some("https://api.anthropic.com"), Dialect::Anthropic),
        (Self::Gemini,      "gemini",      Some("https://generativelanguage.googleapis.com"), Dialect::Gemini),
        (Self::Mistral,     "mistral",     Some("https://api.mistral.ai"), Dialect::OpenAi),
        (Self::Groq,        "groq",        Some("https://api.groq.com/openai"), Dialect::OpenAi),
        (Self::Cohere,      "cohere",      Some("https://api.cohere.com"), Dialect::Cohere),
        (Self::Cerebras,    "cerebras",    Some("https://api.cerebras.ai"), Dialect::OpenAi),
        (Self::OpenRouter,  "openrouter",  Some("https://openrouter.ai/api"), Dialect::OpenAi),
        (Self::Perplexity,  "perplexity",  Some("https://api.perplexity.ai"), Dialect::OpenAi),
        (Self::Xai,         "xai",         Some("https://api.x.ai"), Dialect::OpenAi),
        (Self::DeepSeek,    "deepseek",    Some("https://api.deepseek.com"), Dialect::OpenAi),
        (Self::Fireworks,   "fireworks",   Some("https://api.fireworks.ai/inference"), Dialect::OpenAi),
        (Self::Together,    "together",    Some("https://api.together.xyz"), Dialect::OpenAi),
        (Self::Nebius,      "nebius",      Some("https://api.tokenfactory.nebius.com"), Dialect::OpenAi),
        (Self::HuggingFace, "huggingface", Some("https://router.huggingface.co"), Dialect::OpenAi),
        (Self::Ollama,      "ollama",      Some("http://localhost:11434"), Dialect::OpenAi),
        (Self::Vllm,        "vllm",        None, Dialect::OpenAi),
        (Self::Sgl,         "sgl",         None, Dialect::OpenAi),
        (Self::Azure,       "azure",       None, Dialect::OpenAi),
    ];

    /// The vendor of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// Every known name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::TABLE.iter().map(|row| row.1)
    }

    /// Its name in files and metrics.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The vendor's own address; `None` where every user has another one.
    pub fn default_base_url(self) -> Option<&'static str> {
        self.row().2
    }

    /// What it speaks.
    pub fn dialect(self) -> Dialect {
        self.row().3
    }

    /// How it takes its keys.
    pub fn credential_header(self) -> CredentialHeader {
        match self {
            Self::Anthropic => CredentialHeader::XApiKey,
            Self::Gemini => CredentialHeader::XGoogApiKey,
            Self::Azure => CredentialHeader::ApiKey,
            _ => CredentialHeader::Bearer,
        }
    }

    /// Whether it usually runs beside us: private addresses are allowed and keys optional.
    pub fn is_self_hosted(self) -> bool {
        matches!(self, Self::Ollama | Self::Vllm | Self::Sgl)
    }

    fn row(self) -> &'static (Self, &'static str, Option<&'static str>, Dialect) {
        Self::TABLE.iter().find(|row| row.0 == self).expect("the table has a row for every variant; a test walks it")
    }
}
