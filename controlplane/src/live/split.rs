//! A configuration file taken apart: what is this node's own, and the entities that all nodes share.
//! [`super::join`] puts them together again.
//!
//! Pure. Knows where an entity stands in a file and what it is called, and nothing of what it says;
//! for texts that [`shared::config::load`] has taken, and harmless for others.

use super::entity::{Entities, EntityId, EntityKind};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Where the lists of `governance` go.
pub(crate) const LISTS: [(&str, EntityKind); 8] = [
    ("rate_limits", EntityKind::RateLimit),
    ("budgets", EntityKind::Budget),
    ("customers", EntityKind::Customer),
    ("teams", EntityKind::Team),
    ("virtual_keys", EntityKind::VirtualKey),
    ("model_configs", EntityKind::ModelConfig),
    ("providers", EntityKind::ProviderLimit),
    ("routing_rules", EntityKind::RoutingRule),
];

/// Where the sections go of which there is one.
pub(crate) const SINGLES: [(&str, EntityKind); 3] = [
    ("version", EntityKind::Version),
    ("client", EntityKind::Client),
    ("load_balancer_config", EntityKind::LoadBalancer),
];

/// What stays in a node's file, as the members of JSON objects without their braces.
#[derive(Default)]
pub struct Local {
    /// At the top: `server`, `cluster_config`, `config_store`, `auth_config`, and what has no effect.
    pub(super) top: Zeroizing<String>,
    /// In `governance`: `auth_config`, and what has no effect.
    pub(super) governance: Zeroizing<String>,
}

/// A configuration file, taken apart.
#[derive(Default)]
pub struct Parts {
    /// This node's own.
    pub local: Local,
    /// What all nodes share. Secrets are as in the file.
    pub entities: Entities,
}

/// Takes a file's text apart, which has to be JSON without comments ([`shared::config::plain_json`]).
/// `None` where it is no object.
pub fn split(plain: &str) -> Option<Parts> {
    let Ok(Value::Object(mut top)) = serde_json::from_str(plain) else { return None };
    let mut entities = Found::default();
    for (field, kind) in SINGLES {
        if let Some(value) = top.shift_remove(field).filter(|value| !value.is_null()) {
            entities.add(kind, String::new(), value);
        }
    }
    match top.shift_remove("providers") {
        Some(Value::Object(providers)) => {
            for (name, value) in providers {
                entities.provider(name, value);
            }
        }
        other => put_back(&mut top, "providers", other),
    }
    let mut governance = match top.shift_remove("governance") {
        Some(Value::Object(governance)) => governance,
        other => {
            put_back(&mut top, "governance", other);
            Map::new()
        }
    };
    for (field, kind) in LISTS {
        match governance.shift_remove(field) {
            Some(Value::Array(list)) => list.into_iter().for_each(|value| entities.entry(kind, value)),
            other => put_back(&mut governance, field, other),
        }
    }
    let local = Local { top: members(&top), governance: members(&governance) };
    Some(Parts { local, entities: entities.all })
}

/// What is of another shape than ours is for the reader to refuse.
fn put_back(fields: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value.filter(|value| !value.is_null()) {
        fields.insert(name.to_owned(), value);
    }
}

fn members(fields: &Map<String, Value>) -> Zeroizing<String> {
    let text = Zeroizing::new(serde_json::to_string(fields).unwrap_or_default());
    Zeroizing::new(text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or_default().to_owned())
}

/// What an entity of this kind is called by what it says; `None` where it says nothing about it. A
/// key's name has its provider in front.
pub(crate) fn name_of(kind: EntityKind, value: &Value) -> Option<String> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    match kind {
        EntityKind::Version | EntityKind::Client | EntityKind::LoadBalancer => Some(String::new()),
        EntityKind::Provider => None,
        EntityKind::Key | EntityKind::RoutingRule => text("id").or_else(|| text("name")).map(str::to_owned),
        EntityKind::ProviderLimit => text("name").map(str::to_owned),
        EntityKind::ModelConfig => {
            let provider = text("provider").map(|provider| format!("{provider}/")).unwrap_or_default();
            let scope = text("scope_id").map(|scope| format!("@{scope}")).unwrap_or_default();
            text("model_name").map(|model| format!("{provider}{model}{scope}"))
        }
        EntityKind::RateLimit
        | EntityKind::Budget
        | EntityKind::Customer
        | EntityKind::Team
        | EntityKind::VirtualKey => text("id").map(str::to_owned),
    }
}

/// Whether an entity may be called `name` by what it says: as [`name_of`] has it, or as the second
/// one of such a name.
pub(crate) fn is_called(kind: EntityKind, name: &str, value: &Value) -> bool {
    let own = match kind {
        EntityKind::Provider => return true,
        EntityKind::Key => name.split_once('/').map_or("", |(_, own)| own),
        _ => name,
    };
    name_of(kind, value).is_none_or(|stated| {
        own.strip_prefix(&stated).is_some_and(|rest| rest.is_empty() || (may_repeat(kind) && rest.starts_with('#')))
    })
}

/// There may be several of one name, as nothing refers to them and none comes before another.
fn may_repeat(kind: EntityKind) -> bool {
    kind == EntityKind::ModelConfig
}

#[derive(Default)]
struct Found {
    all: Entities,
    /// How many there are of a name that is there more than once.
    counts: BTreeMap<EntityId, u32>,
}

impl Found {
    /// A second one of its name gets a number behind it.
    fn add(&mut self, kind: EntityKind, name: String, value: Value) {
        let id = EntityId::new(kind, name);
        let id = match self.all.entry(id) {
            Entry::Vacant(vacant) => {
                vacant.insert(Arc::new(value));
                return;
            }
            Entry::Occupied(occupied) => occupied.key().clone(),
        };
        let count = self.counts.entry(id.clone()).or_insert(1);
        *count = count.saturating_add(1);
        self.all.insert(EntityId::new(kind, format!("{}#{count}", id.name)), Arc::new(value));
    }

    fn entry(&mut self, kind: EntityKind, value: Value) {
        let name = name_of(kind, &value).unwrap_or_else(|| "#1".to_owned());
        self.add(kind, name, value);
    }

    fn provider(&mut self, name: String, mut value: Value) {
        let keys = value.as_object_mut().and_then(|fields| match fields.shift_remove("keys") {
            Some(Value::Array(keys)) => Some(keys),
            other => {
                put_back(fields, "keys", other);
                None
            }
        });
        for key in keys.into_iter().flatten() {
            let own = name_of(EntityKind::Key, &key).unwrap_or_else(|| "#1".to_owned());
            self.add(EntityKind::Key, format!("{name}/{own}"), key);
        }
        self.add(EntityKind::Provider, name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(plain: &str) -> Vec<String> {
        split(plain).unwrap().entities.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn entities_are_called_by_what_they_say() {
        let text = r#"{"version": 1, "client": {}, "server": {"port": 7},
            "providers": {"openai": {"keys": [{"name": "a"}, {"name": "b", "id": "k/2"}]}, "ollama": {}},
            "governance": {"rate_limits": [{"id": "r"}], "virtual_keys": [{"id": "v", "name": "x"}],
                "model_configs": [{"model_name": "*"}, {"model_name": "m", "provider": "openai"},
                    {"model_name": "m", "provider": "openai"}, {"model_name": "m", "scope_id": "v"}],
                "providers": [{"name": "openai"}], "routing_rules": [{"name": "one"}, {}, {}],
                "auth_config": {"is_enabled": false}}}"#;
        assert_eq!(
            ids(text),
            [
                "version",
                "client",
                "provider/ollama",
                "provider/openai",
                "key/openai/a",
                "key/openai/k/2",
                "rate_limit/r",
                "virtual_key/v",
                "model_config/*",
                "model_config/m@v",
                "model_config/openai/m",
                "model_config/openai/m#2",
                "provider_limit/openai",
                "routing_rule/#1",
                "routing_rule/#1#2",
                "routing_rule/one",
            ]
        );
        let parts = split(text).unwrap();
        assert_eq!(*parts.local.top, r#""server":{"port":7}"#);
        assert_eq!(*parts.local.governance, r#""auth_config":{"is_enabled":false}"#);
        for (id, value) in &parts.entities {
            assert!(is_called(id.kind, &id.name, value), "{id}");
        }
    }

    #[test]
    fn an_entity_under_a_name_that_it_does_not_say_is_noticed() {
        let limit = serde_json::json!({"id": "r"});
        assert!(is_called(EntityKind::RateLimit, "r", &limit));
        for other in ["", "s", "rr", "r#2"] {
            assert!(!is_called(EntityKind::RateLimit, other, &limit), "{other}");
        }
        let key = serde_json::json!({"id": "k", "name": "n"});
        assert!(is_called(EntityKind::Key, "openai/k", &key));
        assert!(!is_called(EntityKind::Key, "openai/n", &key) && !is_called(EntityKind::Key, "k", &key));
    }

    #[test]
    fn what_is_empty_or_of_another_shape_stays_where_it_is() {
        assert_eq!(ids(r#"{"providers": null, "governance": null, "client": null}"#), Vec::<String>::new());
        let odd = split(r#"{"providers": 7, "governance": {"teams": {}, "budgets": null}}"#).unwrap();
        assert!(odd.entities.is_empty());
        assert_eq!((odd.local.top.as_str(), odd.local.governance.as_str()), (r#""providers":7"#, r#""teams":{}"#));
        assert!(split("[]").is_none() && split("{").is_none());
    }
}
