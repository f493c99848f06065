//! The pieces that a configuration changes in: what has an id of its own.

use core::fmt;
use core::str::FromStr;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What sort of thing an entity is. The order is the order in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntityKind {
    /// `version`: how empty lists are read. One, without a name.
    Version,
    /// `client`. One, without a name.
    Client,
    /// `load_balancer_config`. One, without a name.
    LoadBalancer,
    /// An entry of `providers`, without its keys; named by its name there.
    Provider,
    /// One of a provider's `keys`, named `PROVIDER/ID`.
    Key,
    /// One of `governance.rate_limits`.
    RateLimit,
    /// One of `governance.budgets`.
    Budget,
    /// One of `governance.customers`.
    Customer,
    /// One of `governance.teams`.
    Team,
    /// One of `governance.virtual_keys`.
    VirtualKey,
    /// One of `governance.model_configs`, named `MODEL` or `PROVIDER/MODEL`.
    ModelConfig,
    /// One of `governance.providers`, named by the provider.
    ProviderLimit,
    /// One of `governance.routing_rules`.
    RoutingRule,
}

impl EntityKind {
    /// Every kind with its name in stores, logs and the admin interface.
    #[rustfmt::skip]
    const TABLE: [(Self, &'static str); 13] = [
        (Self::Version,       "version"),
        (Self::Client,        "client"),
        (Self::LoadBalancer,  "load_balancer"),
        (Self::Provider,      "provider"),
        (Self::Key,           "key"),
        (Self::RateLimit,     "rate_limit"),
        (Self::Budget,        "budget"),
        (Self::Customer,      "customer"),
        (Self::Team,          "team"),
        (Self::VirtualKey,    "virtual_key"),
        (Self::ModelConfig,   "model_config"),
        (Self::ProviderLimit, "provider_limit"),
        (Self::RoutingRule,   "routing_rule"),
    ];

    /// Every kind, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::TABLE.iter().map(|row| row.0)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::TABLE.iter().find(|row| row.0 == self).expect("the table has a row for every kind; a test walks it").1
    }

    /// There is one at most, and its name is empty.
    pub fn is_single(self) -> bool {
        matches!(self, Self::Version | Self::Client | Self::LoadBalancer)
    }

    /// Where secrets stand in such an entity, as JSON pointers; `*` stands for every field or entry.
    pub fn secrets(self) -> &'static [&'static str] {
        match self {
            Self::Key => &["/value", "/azure_key_config/client_secret"],
            Self::VirtualKey => &["/value"],
            Self::Provider => &["/network_config/extra_headers/*", "/proxy_config/password"],
            _ => &[],
        }
    }
}

/// The text names no kind of entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no entity of a configuration has this name")]
pub struct NoSuchEntity;

impl FromStr for EntityKind {
    type Err = NoSuchEntity;

    fn from_str(name: &str) -> Result<Self, NoSuchEntity> {
        Self::TABLE.iter().find(|row| row.1 == name).map(|row| row.0).ok_or(NoSuchEntity)
    }
}

/// Which entity: `KIND/NAME`, or `KIND` where there is one only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntityId {
    /// What sort.
    pub kind: EntityKind,
    /// Unique among its kind.
    pub name: String,
}

impl EntityId {
    /// The entity of this kind and name.
    pub fn new(kind: EntityKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if self.kind.is_single() { Ok(()) } else { write!(f, "/{}", self.name) }
    }
}

impl FromStr for EntityId {
    type Err = NoSuchEntity;

    fn from_str(text: &str) -> Result<Self, NoSuchEntity> {
        let (kind, name) = text.split_once('/').unwrap_or((text, ""));
        let kind: EntityKind = kind.parse()?;
        if kind.is_single() == name.is_empty() { Ok(Self::new(kind, name)) } else { Err(NoSuchEntity) }
    }
}

/// Every entity of a configuration. Those that a change leaves alone are the same ones before and
/// after it, so that a change costs little beside a hundred thousand of them.
pub type Entities = BTreeMap<EntityId, Arc<Value>>;

/// An entity and what it says: its fields as in a configuration file.
#[derive(Clone, PartialEq)]
pub struct Entity {
    /// Which.
    pub id: EntityId,
    /// An object; a number for `version`. May hold secrets in clear, so that it has no `Debug`.
    pub value: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        for kind in EntityKind::all() {
            let name = if kind.is_single() { "" } else { "a/b c" };
            let id = EntityId::new(kind, name);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for wrong in ["", "/", "key", "key/", "client/x", "keys/a", "Key/a"] {
            assert_eq!(wrong.parse::<EntityId>(), Err(NoSuchEntity), "{wrong}");
        }
    }

    #[test]
    fn kinds_stand_in_the_table_in_their_order() {
        assert!(EntityKind::all().collect::<Vec<_>>().is_sorted());
    }
}
