//! A configuration after reading: every text has become a type, every reference exists.
//!
//! The values come from [`super::load`] or from [`Config::default`]; nothing here checks or
//! parses. A field that the file leaves out carries its default, so readers never ask "is it
//! there?" for a value that has one. Secrets stay in [`Secret`]; the hand-written `Debug`s
//! print their [fingerprints](crate::secret::Fingerprint) at most.

mod client;
mod cluster;
mod governance;
mod provider;
mod routing;
mod server;
mod store;

pub use super::base_url::{BaseUrl, HostPort, Scheme};
pub use super::durations::Window;
pub use crate::secret::Secret;
pub use client::Client;
pub use cluster::{Cluster, Discovery, DiscoverySource, Gossip, InitialState, NodeId, NodeIdTooLong};
pub use governance::{
    AdminAuth, Allowance, Amount, ApiToken, Budget, Charge, Customer, Enforcement, Governance, ModelConfig, OnNodeLoss,
    Price, ProviderGrant, ProviderLimit, RateLimit, Role, Team, VirtualKey,
};
pub use provider::{
    CredentialHeader, CustomProvider, Dialect, ExtraHeader, Key, Models, Network, Provider, ProviderKind, Retry,
};
pub use routing::{Condition, Hop, Pattern, RoutingRule, RuleScope, Sticky, Subject, Target};
pub use server::{BodyBuffer, Driver, LogFormat, Overload, Server, TlsFiles};
pub use store::{ConfigStore, LoadBalancer, Postgres, SslMode, StoreRules};

/// Everything one node is told. `Config::default()` is a node on 127.0.0.1:8080 without
/// providers, which answers its own paths and nothing else.
#[derive(Debug, Default, PartialEq)]
pub struct Config {
    /// Addresses, cores, TLS and buffers of this process.
    pub server: Server,
    /// What clients may do.
    pub client: Client,
    /// In the file's order; names are unique.
    pub providers: Vec<Provider>,
    /// Virtual keys and limits.
    pub governance: Governance,
    /// How nodes find and hear each other.
    pub cluster: Cluster,
    /// Where shared changes are kept. `None`: the file is all there is.
    pub config_store: Option<ConfigStore>,
    /// What it is to hold.
    pub store_rules: StoreRules,
    /// Whether weights follow latency and errors.
    pub load_balancer: LoadBalancer,
}

impl Config {
    /// The provider of this name.
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    /// The rate limit of this id. Ids in a loaded configuration always exist.
    pub fn rate_limit(&self, id: &str) -> Option<&RateLimit> {
        self.governance.rate_limits.iter().find(|limit| limit.id == id)
    }
}

/// Where a secret's text came from. The last-good file keeps this in place of the text when it
/// cannot be sealed, and the admin interface shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Written in the file itself.
    Literal,
    /// `env.NAME`.
    Env(String),
    /// `file:PATH`.
    File(String),
    /// `sealed:…`, of a document that is kept.
    Sealed,
}
