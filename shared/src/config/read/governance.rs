//! `governance`: virtual keys and everything that limits refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::keys::WEIGHT_MAX;
use super::limits::{read_budget, read_id, read_rate_limit};
use super::{EmptyMeans, MODELS_MAX, read_models, read_names, read_switch, routing};
use crate::config::model::{
    AdminAuth, Config, Customer, Governance, ModelConfig, Models, Price, ProviderGrant, ProviderLimit, Team, VirtualKey,
};
use crate::config::reader::{Fields, Node, Place, Reader};
use crate::config::references::Kind;

/// Entries of each list. The nodes hold all of them in every snapshot.
const ENTRIES_MAX: usize = 100_000;

/// Budgets of one owner.
const BUDGETS_MAX: usize = 16;

/// A million dollars for a million tokens.
const DOLLARS_PER_TOKEN_MAX: f64 = 1.0;

/// What a virtual key begins with, so that it is told from a provider's in `Authorization`.
const VIRTUAL_KEY_PREFIX: &str = "sk-bf-";

pub(super) fn read(reader: &mut Reader<'_>, node: &Node<'_>, empty: EmptyMeans) -> Option<Governance> {
    reader.object(node, |reader, fields| {
        let mut values = Values::default();
        let governance = Governance {
            virtual_keys: read_list(reader, fields, "virtual_keys", |reader, node| {
                reader.object(node, |r, f| read_virtual_key(r, f, empty, &mut values)).flatten().map(Arc::new)
            }),
            rate_limits: read_list(reader, fields, "rate_limits", read_rate_limit),
            budgets: read_list(reader, fields, "budgets", read_budget),
            model_configs: read_list(reader, fields, "model_configs", |r, n| r.object(n, read_model_config).flatten()),
            providers: read_list(reader, fields, "providers", |r, n| r.object(n, read_provider_limit).flatten()),
            teams: read_list(reader, fields, "teams", |r, n| r.object(n, read_team).flatten()),
            customers: read_list(reader, fields, "customers", |r, n| r.object(n, read_customer).flatten()),
            routing_rules: fields.read(reader, "routing_rules", |r, n| Some(routing::read(r, n))).unwrap_or_default(),
            auth: fields.read(reader, "auth_config", read_auth).unwrap_or_default(),
        };
        warn_of_unknown_prices(reader, &fields.place, &governance);
        governance
    })
}

/// What costs nobody knows how much cannot be kept within a budget, and is refused.
fn warn_of_unknown_prices(reader: &mut Reader<'_>, place: &Place, governance: &Governance) {
    let has_default = governance.model_configs.iter().any(|entry| entry.model.is_none() && entry.price.is_some());
    if !governance.budgets.is_empty() && !has_default {
        let message = "a request to which a budget applies is refused where the price of its model is not known; \
                       model_configs says prices (input_cost_per_token, output_cost_per_token), also for \"*\"";
        reader.warn(place, message);
    }
}

fn read_list<'a, 's, T>(
    reader: &mut Reader<'s>,
    fields: &mut Fields<'a>,
    name: &'static str,
    read: impl FnMut(&mut Reader<'s>, &Node<'a>) -> Option<T>,
) -> Vec<T> {
    match fields.get(reader, name) {
        Some(node) => reader.list(&node, ENTRIES_MAX, read),
        None => Vec::new(),
    }
}

/// Fingerprints of the virtual keys so far: two clients with one credential are one client.
type Values = BTreeSet<crate::secret::Fingerprint>;

fn read_virtual_key(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    empty: EmptyMeans,
    values: &mut Values,
) -> Option<VirtualKey> {
    let id = read_id(reader, fields, Kind::VirtualKey);
    let name_node = fields.required(reader, "name", "a name of its own");
    let name = name_node.as_ref().and_then(|node| reader.name(node));
    if let (Some(node), Some(name)) = (&name_node, &name) {
        reader.declare(Kind::VirtualKeyName, name, node);
    }
    let value = read_virtual_key_value(reader, fields, values);
    let is_active = fields.read(reader, "is_active", Reader::boolean);
    let rate_limit_id = read_rate_limit_id(reader, fields);
    let budget_ids = read_budget_ids(reader, fields);
    let team_id = read_reference(reader, fields, "team_id", Kind::Team);
    let customer_id = read_reference(reader, fields, "customer_id", Kind::Customer);
    if team_id.is_some() && customer_id.is_some() {
        let problem = "belongs to a team and to a customer";
        reader.fault(&fields.place, problem, "one of them");
    }
    let grants = read_grants(reader, fields, empty);
    let value = value?;
    Some(VirtualKey {
        id: id?,
        name: name?,
        value: value.secret,
        origin: value.origin,
        is_active: is_active.unwrap_or(true),
        rate_limit_id,
        budget_ids,
        team_id,
        customer_id,
        grants,
    })
}

fn read_virtual_key_value(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    values: &mut Values,
) -> Option<crate::config::reader::SecretText> {
    let expected = "what clients send, such as \"sk-bf-…\", \"env.NAME\" or \"file:PATH\"";
    let node = fields.required(reader, "value", expected)?;
    let value = reader.secret(&node)?;
    if !values.insert(value.secret.fingerprint()) {
        reader.fault(&node.place, "another virtual key has this value", "a value of its own");
    }
    if !value.secret.expose().starts_with(VIRTUAL_KEY_PREFIX) {
        let message = "without \"sk-bf-\" in front it is recognised in x-bf-vk only";
        reader.warn(&node.place, message);
    }
    Some(value)
}

/// `None`: every provider, which only files of version 1 can say, by saying nothing.
fn read_grants(reader: &mut Reader<'_>, fields: &mut Fields<'_>, empty: EmptyMeans) -> Option<Vec<ProviderGrant>> {
    let grants: Vec<ProviderGrant> =
        read_list(reader, fields, "provider_configs", |r, n| r.object(n, |r, f| read_grant(r, f, empty)).flatten());
    if !grants.is_empty() {
        return Some(grants);
    }
    if empty == EmptyMeans::Everything {
        return None;
    }
    let message =
        "no provider_configs: this virtual key reaches no provider (name them, or set \"version\": 1 at the top)";
    reader.warn(&fields.place, message);
    Some(grants)
}

fn read_grant(reader: &mut Reader<'_>, fields: &mut Fields<'_>, empty: EmptyMeans) -> Option<ProviderGrant> {
    let node = fields.required(reader, "provider", "the name of a provider");
    let provider = node.and_then(|node| read_provider_name(reader, &node));
    let weight = fields.read(reader, "weight", |r, n| r.number(n, 0.0..=WEIGHT_MAX));
    let allowed_models = read_models(reader, fields, "allowed_models", empty);
    let allowed_models = allowed_models.unwrap_or_else(|| match empty {
        EmptyMeans::Everything => Models::All,
        EmptyMeans::Nothing => {
            let message = "no allowed_models: this entry allows none ([\"*\"] allows all)";
            reader.warn(&fields.place, message);
            Models::Only(Vec::new())
        }
    });
    let blacklisted_models = read_names(reader, fields, "blacklisted_models", MODELS_MAX);
    let key_ids = read_grant_key_ids(reader, fields, provider.as_deref(), empty);
    let rate_limit_id = read_rate_limit_id(reader, fields);
    let budget_ids = read_budget_ids(reader, fields);
    Some(ProviderGrant {
        provider: provider?,
        weight,
        allowed_models,
        blacklisted_models,
        key_ids,
        rate_limit_id,
        budget_ids,
    })
}

fn read_grant_key_ids(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    provider: Option<&str>,
    empty: EmptyMeans,
) -> Option<Vec<String>> {
    let node = fields.get(reader, "key_ids")?;
    let ids = reader.list(&node, MODELS_MAX, |reader, node| {
        let id = reader.name(node)?;
        if let Some(provider) = provider
            && id != "*"
        {
            reader.refer(Kind::Key(provider.to_owned()), &id, node);
        }
        Some(id)
    });
    match (ids.is_empty(), empty) {
        (true, EmptyMeans::Everything) => None,
        (true, EmptyMeans::Nothing) => {
            let message = "an empty list allows no key; leave it out or write [\"*\"] for all";
            reader.warn(&node.place, message);
            Some(ids)
        }
        (false, _) if ids.iter().any(|id| id == "*") => None,
        (false, _) => Some(ids),
    }
}

fn read_model_config(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<ModelConfig> {
    let id = fields.get(reader, "id");
    if let Some(node) = id
        && let Some(id) = reader.name(&node)
    {
        reader.declare(Kind::ModelConfig, &id, &node);
    }
    let model = fields.required(reader, "model_name", "the name of a model, or \"*\"");
    let model = model.and_then(|node| reader.name(&node));
    let provider = fields.read(reader, "provider", read_provider_name);
    let scope = fields.read(reader, "scope", |r, n| r.choice(n, &SCOPES));
    fields.get(reader, "scope_id");
    let config = ModelConfig {
        provider,
        rate_limit_id: read_rate_limit_id(reader, fields),
        budget_ids: read_budget_ids(reader, fields),
        max_output_tokens: fields
            .read(reader, "max_output_tokens", |r, n| r.count(n, 1..=100_000_000))
            .and_then(core::num::NonZeroU32::new),
        price: read_price(reader, fields),
        model: Some(model?).filter(|name| name != "*"),
    };
    // Taken without its scope, the limit would bind everybody.
    if scope == Some(Scope::VirtualKey) {
        let message = "without effect on this node: only entries for everybody are (leave scope out, or limit the virtual key itself)";
        reader.warn(&fields.place, message);
        return None;
    }
    Some(config)
}

#[derive(Clone, Copy, PartialEq)]
enum Scope {
    Global,
    VirtualKey,
}

const SCOPES: [(&str, Scope); 2] = [("global", Scope::Global), ("virtual_key", Scope::VirtualKey)];

/// Both or none: half a price would let the other half go by for nothing.
fn read_price(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Price> {
    let names = ["input_cost_per_token", "output_cost_per_token"];
    let nodes = names.map(|name| fields.get(reader, name));
    if nodes.iter().all(Option::is_none) {
        return None;
    }
    let mut nano_usd = [None; 2];
    for ((name, node), nano_usd) in names.into_iter().zip(&nodes).zip(&mut nano_usd) {
        match node {
            Some(node) => {
                let dollars = reader.number(node, 0.0..=DOLLARS_PER_TOKEN_MAX);
                // Rounded up: a budget errs on its owner's side.
                *nano_usd = dollars.map(|dollars| (dollars * 1e9 - 1e-3).ceil().max(0.0) as u64);
            }
            None => reader.fault(&fields.place, format!("{name:?} is missing"), "both prices, in US dollars a token"),
        }
    }
    let [input_nano_usd, output_nano_usd] = nano_usd;
    Some(Price { input_nano_usd: input_nano_usd?, output_nano_usd: output_nano_usd? })
}

fn read_provider_limit(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<ProviderLimit> {
    let node = fields.required(reader, "name", "the name of a provider");
    let provider = node.as_ref().and_then(|node| read_provider_name(reader, node));
    if let (Some(node), Some(name)) = (&node, &provider) {
        reader.declare(Kind::ProviderLimit, name, node);
    }
    let rate_limit_id = read_rate_limit_id(reader, fields);
    let budget_ids = read_budget_ids(reader, fields);
    Some(ProviderLimit { provider: provider?, rate_limit_id, budget_ids })
}

fn read_team(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Team> {
    let id = read_id(reader, fields, Kind::Team);
    let name = fields.required(reader, "name", "a name");
    let name = name.and_then(|node| reader.name(&node));
    let customer_id = read_reference(reader, fields, "customer_id", Kind::Customer);
    let rate_limit_id = read_rate_limit_id(reader, fields);
    let budget_ids = read_budget_ids(reader, fields);
    Some(Team { id: id?, name: name?, customer_id, rate_limit_id, budget_ids })
}

fn read_customer(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Customer> {
    let id = read_id(reader, fields, Kind::Customer);
    let name = fields.required(reader, "name", "a name");
    let name = name.and_then(|node| reader.name(&node));
    let rate_limit_id = read_rate_limit_id(reader, fields);
    let budget_ids = read_budget_ids(reader, fields);
    Some(Customer { id: id?, name: name?, rate_limit_id, budget_ids })
}

pub(super) fn read_auth(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<AdminAuth> {
    reader.object(node, |reader, fields| {
        let is_enabled = read_switch(reader, fields, "is_enabled");
        let username = fields.read(reader, "admin_username", Reader::name);
        let password_node = fields.get(reader, "admin_password");
        let is_given = password_node.is_some();
        let is_hash = |text: &str| text.starts_with("$argon2");
        let password = password_node.and_then(|node| reader.secret_or_hash(&node, is_hash));
        let tokens = super::tokens::read(reader, fields);
        let is_half = username.is_some() != is_given;
        if is_enabled && (is_half || (!is_given && tokens.is_empty())) {
            let expected = "admin_username and admin_password, or api_tokens, or both";
            reader.fault(&fields.place, "enabled without credentials", expected);
        }
        let (password, password_origin) = match password {
            Some(text) => (Some(text.secret), Some(text.origin)),
            None => (None, None),
        };
        AdminAuth {
            is_enabled,
            username,
            password,
            password_origin,
            disable_auth_on_inference: read_switch(reader, fields, "disable_auth_on_inference"),
            tokens,
        }
    })
}

fn read_provider_name(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<String> {
    let name = reader.name(node)?;
    reader.refer(Kind::Provider, &name, node);
    Some(name)
}

pub(super) fn read_rate_limit_id(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<String> {
    read_reference(reader, fields, "rate_limit_id", Kind::RateLimit)
}

fn read_reference(reader: &mut Reader<'_>, fields: &mut Fields<'_>, name: &'static str, kind: Kind) -> Option<String> {
    let node = fields.get(reader, name)?;
    let id = reader.name(&node)?;
    reader.refer(kind, &id, &node);
    Some(id)
}

/// `budget_ids`, and `budget_id` where there is one only.
fn read_budget_ids(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Vec<String> {
    let one = read_reference(reader, fields, "budget_id", Kind::Budget);
    let many = fields.read(reader, "budget_ids", |reader, node| {
        Some(reader.list(node, BUDGETS_MAX, |reader, node| {
            let id = reader.name(node)?;
            reader.refer(Kind::Budget, &id, node);
            Some(id)
        }))
    });
    let mut ids = many.unwrap_or_default();
    if let Some(id) = one
        && !ids.contains(&id)
    {
        ids.push(id);
    }
    ids
}

/// Grants and rules may name a key by its id or its name; afterwards all use the id.
pub(super) fn use_key_ids(config: &mut Config) {
    let mut ids: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for provider in &config.providers {
        for key in &provider.keys {
            ids.insert((&provider.name, &key.name), &key.id);
        }
    }
    // Nobody else has them yet.
    for virtual_key in config.governance.virtual_keys.iter_mut().filter_map(Arc::get_mut) {
        for grant in virtual_key.grants.iter_mut().flatten() {
            for id in grant.key_ids.iter_mut().flatten() {
                if let Some(known) = ids.get(&(grant.provider.as_str(), id.as_str())) {
                    (*known).clone_into(id);
                }
            }
        }
    }
    for rule in &mut config.governance.routing_rules {
        let targets = rule.targets.iter_mut().map(|target| &mut target.hop);
        for hop in targets.chain(&mut rule.fallbacks) {
            if let (Some(provider), Some(id)) = (&hop.provider, &mut hop.key)
                && let Some(known) = ids.get(&(provider.as_str(), id.as_str()))
            {
                (*known).clone_into(id);
            }
        }
    }
}
