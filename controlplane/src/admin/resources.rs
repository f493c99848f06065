//! The one table of what can be changed at the admin interface: its path, what names it, and where
//! it stands in a configuration file.

use super::hidden::hidden;
use crate::live::split::{LISTS, SINGLES, name_of};
use crate::live::{Entities, EntityId, EntityKind};
use serde_json::{Map, Value};

/// A kind of entities that has a path of its own.
pub(super) struct Resource {
    pub(super) kind: EntityKind,
    /// Of the list; an entity's own is this and its name, with every `/` in the name escaped or not.
    pub(super) path: &'static str,
    /// The field of the body that names a new one.
    pub(super) named_by: &'static str,
    /// That field only names it, and is no part of the entity.
    pub(super) is_name_apart: bool,
    /// For people.
    pub(super) noun: &'static str,
}

#[rustfmt::skip]
pub(super) const RESOURCES: [Resource; 10] = [
    row(EntityKind::Provider,      "/api/providers",                  "name",       true,  "provider"),
    row(EntityKind::Key,           "/api/keys",                       "name",       false, "key of a provider"),
    row(EntityKind::RateLimit,     "/api/governance/rate-limits",     "id",         false, "rate limit"),
    row(EntityKind::Budget,        "/api/governance/budgets",         "id",         false, "budget"),
    row(EntityKind::Customer,      "/api/governance/customers",       "id",         false, "customer"),
    row(EntityKind::Team,          "/api/governance/teams",           "id",         false, "team"),
    row(EntityKind::VirtualKey,    "/api/governance/virtual-keys",    "id",         false, "virtual key"),
    row(EntityKind::ModelConfig,   "/api/governance/model-configs",   "model_name", false, "model configuration"),
    row(EntityKind::ProviderLimit, "/api/governance/providers",       "name",       false, "limit of a provider"),
    row(EntityKind::RoutingRule,   "/api/governance/routing-rules",   "name",       false, "routing rule"),
];

const fn row(
    kind: EntityKind,
    path: &'static str,
    named_by: &'static str,
    is_name_apart: bool,
    noun: &'static str,
) -> Resource {
    Resource { kind, path, named_by, is_name_apart, noun }
}

/// The path of entities of the kind with this name, for clients.
pub fn path_of(kind: &str) -> Option<&'static str> {
    RESOURCES.iter().find(|row| row.kind.name() == kind).map(|row| row.path)
}

impl Resource {
    /// The pattern of an entity's own path. Names of providers have no `/`, others may.
    pub(super) fn item_path(&self) -> String {
        let name = if self.kind == EntityKind::Provider { "{name}" } else { "{*name}" };
        format!("{}/{name}", self.path)
    }

    /// What an entity is called that is to be made of this body, and the body without what only
    /// names it; `None` where it has no name. `provider`: whose key it is, where the path says it.
    pub(super) fn name_new(&self, mut body: Value, provider: Option<&str>) -> Option<(String, Value)> {
        let mut take = |field: &str| match body.as_object_mut()?.shift_remove(field)? {
            Value::String(text) if !text.is_empty() => Some(text),
            _ => None,
        };
        let name = match self.kind {
            EntityKind::Provider => take(self.named_by)?,
            EntityKind::Key => {
                let provider = provider.map(str::to_owned).or_else(|| take("provider"))?;
                format!("{provider}/{}", name_of(self.kind, &body)?)
            }
            kind => name_of(kind, &body)?,
        };
        Some((name, body))
    }
}

/// Entities as a configuration file has them, without secrets.
pub(super) fn as_file(entities: &Entities) -> Value {
    let mut top = Map::new();
    let mut providers = Map::new();
    let mut governance = Map::new();
    for (EntityId { kind, name }, value) in entities {
        let value = hidden(*kind, value);
        if let Some((field, _)) = SINGLES.iter().find(|row| row.1 == *kind) {
            top.insert((*field).to_owned(), value);
        } else if let Some((field, _)) = LISTS.iter().find(|row| row.1 == *kind) {
            push(governance.entry(*field), value);
        } else if *kind == EntityKind::Provider {
            providers.insert(name.clone(), value);
        } else if let Some(Value::Object(provider)) =
            name.split_once('/').and_then(|(provider, _)| providers.get_mut(provider))
        {
            push(provider.entry("keys"), value);
        }
    }
    top.insert("providers".to_owned(), providers.into());
    top.insert("governance".to_owned(), governance.into());
    top.into()
}

fn push(list: serde_json::map::Entry<'_>, value: Value) {
    if let Value::Array(list) = list.or_insert_with(|| Value::Array(Vec::new())) {
        list.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::split::split;
    use serde_json::json;

    #[test]
    fn what_is_taken_apart_looks_the_same_put_together() {
        let file = json!({
            "version": 1,
            "client": {"max_request_body_size_mb": 1},
            "providers": {"openai": {"keys": [{"name": "a", "value": "env.A"}]}, "ollama": {}},
            "governance": {"rate_limits": [{"id": "a"}, {"id": "b"}], "virtual_keys": [{"id": "v", "value": "file:/v"}]},
        });
        assert_eq!(as_file(&split(&file.to_string()).unwrap().entities), file);
    }

    #[test]
    fn every_kind_that_there_are_several_of_has_a_path() {
        for kind in EntityKind::all().filter(|kind| !kind.is_single()) {
            assert_eq!(RESOURCES.iter().filter(|row| row.kind == kind).count(), 1, "{}", kind.name());
        }
    }

    #[test]
    fn new_entities_are_called_by_what_they_say() {
        let name = |kind, body: Value, provider| {
            RESOURCES.iter().find(|row| row.kind == kind).unwrap().name_new(body, provider)
        };
        assert_eq!(
            name(EntityKind::Provider, json!({"name": "openai", "region": "eu"}), None),
            Some(("openai".to_owned(), json!({"region": "eu"})))
        );
        let key = json!({"provider": "openai", "name": "a"});
        assert_eq!(name(EntityKind::Key, key.clone(), None), Some(("openai/a".to_owned(), json!({"name": "a"}))));
        assert_eq!(name(EntityKind::Key, key, Some("groq")).unwrap().0, "groq/a");
        assert_eq!(name(EntityKind::Key, json!({"name": "a"}), None), None);
        assert_eq!(name(EntityKind::RateLimit, json!({"id": 7}), None), None);
        assert_eq!(name(EntityKind::RateLimit, json!([]), None), None);
    }
}
