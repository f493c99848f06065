//! Configuration → what the cores read. Pure: no clock, no files, no look-ups.
//!
//! Absent: addresses (see [`crate::addresses`]) and the epoch, which change without the
//! configuration; and what the configuration knows but no core acts on yet (budgets, teams,
//! customers).

mod known_models;
mod limits;
mod routing;

use known_models::KnownModels;
use limits::Limits;
use ring::hmac;
use shared::bounds::MODEL_LABELS_MAX;
use shared::config::model as config;
use shared::config::model::{Config, Models, Origin};
use shared::limit::{COUNTING_SPREAD_NS, LimitDefinition, Window, WindowError};
use shared::secret::Secret;
use shared::snapshot::names::NameIndex;
use shared::snapshot::{
    CredentialHeader, Dialect, GrantRecord, KeyRecord, LimitRecord, ModelRecord, PriceRecord, ProviderRecord,
    SettingsRecord, SnapshotRecord, VirtualKeyRecord,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a node knows about itself besides its configuration.
pub struct NodeFacts {
    /// Key of the HMAC that virtual keys are looked up by.
    pub lookup_key: [u8; 32],
    /// This node's id, which stays the same until the process ends.
    pub node_id: String,
    /// Cores that share what is bounded for the node.
    pub cores: u32,
}

/// A secret of the table beside the snapshot, with where it came from.
pub struct TableSecret {
    /// The text; empty when its reference could not be resolved.
    pub secret: Secret,
    /// Where to find it again.
    pub origin: Origin,
    /// What it is for, as log lines may say it.
    pub label: String,
}

/// A configuration, ready to be given its addresses and published.
pub struct Compiled {
    /// Without epoch and endpoints.
    pub record: SnapshotRecord,
    /// By the indices in the record.
    pub secrets: Vec<TableSecret>,
    /// What an operator should know, one sentence each.
    pub warnings: Vec<String>,
}

/// The configuration cannot be turned into a snapshot. A loaded one always can, but for these.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A limit's window is shorter or longer than can be counted.
    #[error("governance.rate_limits: {id}: {source}")]
    Window {
        /// The rate limit's id.
        id: String,
        /// What is wrong with it.
        source: WindowError,
    },
}

/// Turns a configuration into records.
pub fn compile(config: &Config, facts: &NodeFacts) -> Result<Compiled, CompileError> {
    let mut out = Tables::new(config);
    let limits = Limits::new(config);
    out.warnings.extend(limits.crowded(config));
    let providers: Vec<ProviderRecord> = config
        .providers
        .iter()
        .zip(0_u32..)
        .map(|(provider, index)| out.provider(provider, index, config, &limits, facts))
        .collect();
    let provider_names: Vec<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
    let (virtual_keys, virtual_key_index) = out.virtual_keys(config, &limits, &facts.lookup_key);
    let (routing, warnings) = routing::routing(config, &out.key_by_id);
    out.warnings.extend(warnings);
    let record = SnapshotRecord {
        epoch: 0,
        local_node: format!("deepintshield-{}-{}", facts.node_id, config.cluster.gossip.port),
        region: config.cluster.region.clone(),
        settings: settings(config),
        provider_index: NameIndex::new(&provider_names),
        relay: providers.iter().position(|provider| provider.relay_all).map(index),
        providers,
        keys: out.keys,
        virtual_keys,
        virtual_key_index,
        models: models(config, &limits),
        known_models: out.known_models.records(config),
        model_index: out.known_models.index(),
        model_labels: model_labels(config),
        limits: limits.records,
        routing,
    };
    limit_definitions(&record.limits)?;
    Ok(Compiled { record, secrets: out.secrets, warnings: out.warnings })
}

/// What the limit table is told, in the records' order.
pub fn limit_definitions(records: &[LimitRecord]) -> Result<Vec<LimitDefinition>, CompileError> {
    records
        .iter()
        .map(|record| {
            // Nobody else counts a pace, so that there is no spread between two counts.
            let spread_ns = if record.paces.is_some() { 0 } else { COUNTING_SPREAD_NS };
            let window = Window::with_spread(record.window_ns, spread_ns)
                .map_err(|source| CompileError::Window { id: record.id.clone(), source })?;
            Ok(LimitDefinition {
                id: record.id.as_str().into(),
                unit: record.unit,
                window,
                amount: record.amount,
                entitlement: Some(record.amount),
            })
        })
        .collect()
}

/// Keyed hash under which a core looks a virtual key up.
pub fn lookup_hash(lookup_key: &[u8; 32], value: &str) -> [u8; 32] {
    hash_with(&hmac::Key::new(hmac::HMAC_SHA256, lookup_key), value)
}

fn hash_with(key: &hmac::Key, value: &str) -> [u8; 32] {
    let tag = hmac::sign(key, value.as_bytes());
    let mut hash = [0; 32];
    hash.copy_from_slice(tag.as_ref());
    hash
}

/// What grows while providers and virtual keys are gone through.
struct Tables<'c> {
    known_models: KnownModels<'c>,
    keys: Vec<KeyRecord>,
    secrets: Vec<TableSecret>,
    warnings: Vec<String>,
    /// Index of a key by its provider's index and its id.
    key_by_id: BTreeMap<(u32, String), u32>,
}

impl<'c> Tables<'c> {
    fn new(config: &'c Config) -> Self {
        Self {
            known_models: KnownModels::new(config),
            keys: Vec::new(),
            secrets: Vec::new(),
            warnings: Vec::new(),
            key_by_id: BTreeMap::new(),
        }
    }

    fn secret(&mut self, secret: &Secret, origin: &Origin, label: String) -> u32 {
        let at = index(self.secrets.len());
        self.secrets.push(TableSecret { secret: secret.duplicate(), origin: origin.clone(), label });
        at
    }

    fn provider(
        &mut self,
        provider: &config::Provider,
        provider_index: u32,
        config: &Config,
        limits: &Limits,
        facts: &NodeFacts,
    ) -> ProviderRecord {
        let network = &provider.network;
        let base_url = &network.base_url;
        let extra_headers = network
            .extra_headers
            .iter()
            .map(|header| {
                let label = format!("header {} of provider {}", header.name, provider.name);
                (header.name.clone(), self.secret(&header.value, &header.origin, label))
            })
            .collect();
        let is_key_less = is_key_less(provider);
        let enabled = || provider.keys.iter().filter(|key| key.is_enabled);
        let keys = enabled().map(|key| self.key(key, provider, provider_index, config, limits)).collect();
        let mut key_weights = Vec::new();
        for key in enabled() {
            // As the cores have it.
            key_weights.push(key_weights.last().unwrap_or(&0.0) + f64::from(key.weight as f32));
        }
        let limits = config
            .governance
            .providers
            .iter()
            .filter(|limit| limit.provider == provider.name)
            .flat_map(|limit| limits.of(limit.rate_limit_id.as_ref(), &limit.budget_ids))
            .collect();
        ProviderRecord {
            name: provider.name.clone(),
            dialect: dialect(provider.dialect),
            https: base_url.scheme() == config::Scheme::Https,
            host: base_url.host().to_owned(),
            authority: base_url.host_header(),
            path_prefix: base_url.path_prefix().to_owned(),
            drops_version: drops_version(provider),
            credential_header: credential_header(provider.kind.credential_header()),
            endpoints: Vec::new(),
            allow_private_network: network.allow_private_network,
            relay_all: provider.custom.is_some_and(|custom| custom.relay_all),
            is_key_less,
            insecure_skip_verify: network.insecure_skip_verify,
            ca_cert_pem: network.ca_cert_pem.clone(),
            extra_headers,
            connect_timeout_ms: millis(network.connect_timeout),
            head_timeout_ms: millis(network.response_head_timeout),
            first_byte_timeout_ms: millis(network.first_body_byte_timeout),
            idle_timeout_ms: millis(network.stream_idle_timeout),
            total_timeout_ms: millis(network.request_timeout),
            max_retries: u32::from(network.retry.max),
            backoff_initial_ms: millis(network.retry.backoff_initial),
            backoff_max_ms: millis(network.retry.backoff_max),
            connections_max: network.connections_max.div_ceil(facts.cores.max(1)).max(1),
            keys,
            key_weights,
            limits,
            distance: distance(config, provider.region.as_ref()),
        }
    }

    fn key(
        &mut self,
        key: &config::Key,
        provider: &config::Provider,
        provider_index: u32,
        config: &Config,
        limits: &Limits,
    ) -> u32 {
        let label = format!("key {} of provider {}", key.name, provider.name);
        if key.value.is_empty() && !is_key_less(provider) {
            self.warnings.push(format!("the {label} is empty and is not used; see where its value should come from"));
        }
        let secret = self.secret(&key.value, &key.origin, label);
        let at = index(self.keys.len());
        self.key_by_id.insert((provider_index, key.id.clone()), at);
        self.keys.push(KeyRecord {
            name: key.name.clone(),
            provider: provider_index,
            secret,
            weight: key.weight as f32,
            models: self.known_models.only(&key.models),
            blacklisted_models: self.known_models.list(&key.blacklisted_models),
            aliases: self.known_models.aliases(&key.aliases),
            limits: limits.of(key.rate_limit_id.as_ref(), &[]),
            distance: distance(config, key.region.as_ref().or(provider.region.as_ref())),
        });
        at
    }

    fn virtual_keys(
        &mut self,
        config: &Config,
        limits: &Limits,
        lookup_key: &[u8; 32],
    ) -> (Vec<VirtualKeyRecord>, Vec<([u8; 32], u32)>) {
        let mut records = Vec::new();
        let mut hashes = Vec::new();
        let lookup_key = hmac::Key::new(hmac::HMAC_SHA256, lookup_key);
        let providers = config.providers.iter().zip(0_u32..);
        let providers = providers.map(|(provider, at)| (provider.name.as_str(), at)).collect();
        let groups = routing::Groups::new(config);
        for virtual_key in &config.governance.virtual_keys {
            if virtual_key.value.is_empty() {
                // An empty one in the index would let everybody in who sends nothing.
                self.warnings.push(format!("virtual key {} has no value and cannot be used", virtual_key.id));
            } else {
                hashes.push((hash_with(&lookup_key, virtual_key.value.expose()), index(records.len())));
            }
            let grants = self.grants(virtual_key, &providers, limits);
            let (team, customer) = groups.of(virtual_key);
            records.push(VirtualKeyRecord {
                id: virtual_key.id.clone(),
                name: virtual_key.name.clone(),
                is_active: virtual_key.is_active,
                grants,
                limits: limits.of_client(virtual_key),
                team,
                customer,
            });
        }
        hashes.sort_unstable();
        (records, hashes)
    }

    /// One for each provider that the virtual key names, sorted by provider.
    fn grants(
        &mut self,
        virtual_key: &config::VirtualKey,
        providers: &BTreeMap<&str, u32>,
        limits: &Limits,
    ) -> Option<Vec<GrantRecord>> {
        let places = virtual_key.grants.as_ref()?.iter().zip(0..);
        let mut records: Vec<GrantRecord> =
            places.filter_map(|(grant, place)| self.grant(grant, place, providers, limits)).collect();
        records.sort_by_key(|grant| grant.provider);
        let count = records.len();
        // The first one of a provider stays, since sorting kept their order.
        records.dedup_by_key(|grant| grant.provider);
        if records.len() < count {
            let id = &virtual_key.id;
            self.warnings.push(format!(
                "virtual key {id} names a provider twice in provider_configs; the first entry holds, remove the other"
            ));
        }
        Some(records)
    }

    /// `None` for a provider that does not exist; loading has refused that already.
    fn grant(
        &self,
        grant: &config::ProviderGrant,
        place: u32,
        providers: &BTreeMap<&str, u32>,
        limits: &Limits,
    ) -> Option<GrantRecord> {
        let provider = *providers.get(grant.provider.as_str())?;
        // A key that is switched off is in no table, so that a grant of it alone allows none.
        let key_at = |id: &String| self.key_by_id.get(&(provider, id.clone())).copied();
        Some(GrantRecord {
            provider,
            place,
            weight: grant.weight.map(|weight| weight as f32),
            models: self.known_models.only(&grant.allowed_models),
            keys: grant.key_ids.as_ref().map(|ids| sorted(ids.iter().filter_map(key_at))),
            limits: limits.of(grant.rate_limit_id.as_ref(), &grant.budget_ids),
        })
    }
}

/// How far something with this label is from this node.
fn distance(config: &Config, region: Option<&String>) -> u8 {
    match region {
        Some(region) if *region == config.cluster.region => 0,
        None => 1,
        Some(_) => 2,
    }
}

/// Providers whose requests carry no credential of ours: said so, without keys, or with keys
/// that are written down as empty and only list models.
fn is_key_less(provider: &config::Provider) -> bool {
    provider.custom.is_some_and(|custom| custom.is_keyless)
        || provider.keys.iter().all(|key| key.value.is_empty() && key.origin == Origin::Literal)
}

/// One vendor's paths have no version, and some users end their base URL with it.
fn drops_version(provider: &config::Provider) -> bool {
    let last_segment = provider.network.base_url.path_prefix().rsplit('/').next().unwrap_or_default();
    let digits = last_segment.strip_prefix('v').unwrap_or_default();
    let ends_with_version = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    provider.kind == config::ProviderKind::Perplexity || ends_with_version
}

fn settings(config: &Config) -> SettingsRecord {
    let buffer = &config.server.body_buffer;
    SettingsRecord {
        enforce_auth: config.client.enforce_auth_on_inference,
        allow_direct_keys: config.client.allow_direct_keys,
        body_bytes_max: config.client.max_request_body_bytes,
        buffered_body_bytes: buffer.request_bytes_max as u64,
        buffered_bodies_bytes_per_core: buffer.core_bytes_max as u64,
        allowed_origins: config.client.allowed_origins.clone(),
        header_allowlist: config.client.extra_header_allowlist.clone(),
        has_regions: config
            .providers
            .iter()
            .any(|provider| provider.region.is_some() || provider.keys.iter().any(|key| key.region.is_some())),
        follows_load: config.load_balancer.enabled,
    }
}

/// One record for a model and provider, sorted by model; `*` for each model.
fn models(config: &Config, limits: &Limits) -> Vec<ModelRecord> {
    let mut records: BTreeMap<(String, Option<u32>), ModelRecord> = BTreeMap::new();
    for entry in &config.governance.model_configs {
        let model = entry.model.clone().unwrap_or_else(|| "*".to_owned());
        let at = |name: &String| config.providers.iter().position(|provider| provider.name == *name).map(index);
        let provider = entry.provider.as_ref().and_then(at);
        if entry.provider.is_some() && provider.is_none() {
            // Loading has refused this already; without it the limit would hold everywhere.
            continue;
        }
        let record = records.entry((model.clone(), provider)).or_insert_with(|| ModelRecord {
            model,
            provider,
            max_output_tokens: None,
            price: None,
            limits: Vec::new(),
        });
        record.price = record.price.or(entry
            .price
            .map(|price| PriceRecord { input_nano_usd: price.input_nano_usd, output_nano_usd: price.output_nano_usd }));
        record.max_output_tokens = record.max_output_tokens.or(entry.max_output_tokens.map(std::num::NonZeroU32::get));
        for limit in limits.of(entry.rate_limit_id.as_ref(), &entry.budget_ids) {
            if !record.limits.contains(&limit) {
                record.limits.push(limit);
            }
        }
    }
    records.into_values().collect()
}

/// Every model name that the configuration mentions, up to the bound, in the order of names.
fn model_labels(config: &Config) -> Vec<String> {
    let mut names = BTreeSet::new();
    for key in config.providers.iter().flat_map(|provider| &provider.keys) {
        names.extend(listed(&key.models));
        names.extend(key.aliases.iter().flat_map(|(from, to)| [from, to]));
    }
    names.extend(config.governance.model_configs.iter().filter_map(|entry| entry.model.as_ref()));
    for grant in config.governance.virtual_keys.iter().filter_map(|key| key.grants.as_ref()).flatten() {
        names.extend(listed(&grant.allowed_models));
    }
    for rule in &config.governance.routing_rules {
        let targets = rule.targets.iter().map(|target| &target.hop);
        names.extend(targets.chain(&rule.fallbacks).filter_map(|hop| hop.model.as_ref()));
    }
    names.into_iter().take(MODEL_LABELS_MAX).cloned().collect()
}

fn listed(models: &Models) -> &[String] {
    match models {
        Models::All => &[],
        Models::Only(names) => names,
    }
}

/// Cores look things up by halving.
fn sorted<T: Ord>(things: impl Iterator<Item = T>) -> Vec<T> {
    let mut sorted: Vec<T> = things.collect();
    sorted.sort_unstable();
    sorted
}

fn dialect(dialect: config::Dialect) -> Dialect {
    match dialect {
        config::Dialect::OpenAi => Dialect::OpenAi,
        config::Dialect::Anthropic => Dialect::Anthropic,
        config::Dialect::Gemini => Dialect::Gemini,
        config::Dialect::Cohere => Dialect::Cohere,
    }
}

fn credential_header(header: config::CredentialHeader) -> CredentialHeader {
    match header {
        config::CredentialHeader::Bearer => CredentialHeader::Bearer,
        config::CredentialHeader::XApiKey => CredentialHeader::XApiKey,
        config::CredentialHeader::XGoogApiKey => CredentialHeader::XGoogApiKey,
        config::CredentialHeader::ApiKey => CredentialHeader::ApiKey,
    }
}

/// Longer than 49 days is 49 days.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Positions fit: a configuration file is far below four thousand million entries.
fn index(position: usize) -> u32 {
    u32::try_from(position).expect("a configuration has fewer than 2^32 entries")
}

#[cfg(test)]
pub(crate) mod tests;
