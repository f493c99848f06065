//! From entities to what the cores read: joined, loaded, compiled. A change is read alone where the
//! rest can stay as it was read before, since a hundred thousand virtual keys take more than a
//! second to read and one takes none.
//!
//! Blocks for as long as it computes, and reads the files that references name; it is for the
//! blocking pool.

use super::entity::{Entities, EntityId, EntityKind};
use super::handle::EntityFault;
use super::join::{join, of_kind, orphans};
use super::seal::Sealer;
use super::split::{Local, is_called};
use crate::compile::{Compiled, NodeFacts, compile};
use crate::sources;
use serde_json::Value;
use shared::config::model::{Config, Origin, VirtualKey};
use shared::config::{Sources, load};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// Reads entities on one node.
pub(crate) struct Reading {
    pub(crate) local: Local,
    pub(crate) sealer: Option<Arc<Sealer>>,
    pub(crate) facts: Arc<NodeFacts>,
}

/// Entities with what was read of them.
pub(crate) struct Read {
    pub(crate) entities: Arc<Entities>,
    /// Virtual keys are in the order of their entities.
    pub(crate) config: Config,
}

/// What reading comes to: what was read, what it compiles to, and what its author should know.
pub(crate) type Outcome = Result<(Read, Compiled, Vec<String>), Vec<EntityFault>>;

impl Reading {
    /// Reads `entities`. `before` is what was read last; of what is the same there, not everything
    /// is read again. References in it are followed again with `before` being `None` only.
    pub(crate) fn read(&self, entities: &Arc<Entities>, before: Option<&Read>) -> Outcome {
        let (config, warnings) = match before.map(|before| self.read_changed(entities, before)) {
            Some(Ok(Some(read))) => read,
            Some(Err(faults)) => return Err(faults),
            Some(Ok(None)) | None => self.read_whole(entities)?,
        };
        let compiled = compile(&config, &self.facts).map_err(|error| vec![general(error.to_string())])?;
        Ok((Read { entities: Arc::clone(entities), config }, compiled, warnings))
    }

    fn read_whole(&self, entities: &Entities) -> Result<(Config, Vec<String>), Vec<EntityFault>> {
        let misnamed = entities.iter().filter(|(id, value)| !is_called(id.kind, &id.name, value));
        let mut faults: Vec<EntityFault> = misnamed.map(|(id, value)| called_otherwise(id, value)).collect();
        faults.extend(orphans(entities));
        if !faults.is_empty() {
            return Err(faults);
        }
        let joined = join(&self.local, entities);
        let sources = Sources {
            env: &sources::env,
            file: &sources::file,
            sealed: &|placed| self.sealer.as_ref()?.open_placed(placed),
        };
        match load(&joined.text, &sources) {
            Ok(loaded) => Ok((loaded.config, loaded.warnings.iter().map(|warning| joined.warning(warning)).collect())),
            Err(faults) => Err(faults.into_iter().map(|fault| joined.fault(fault)).collect()),
        }
    }

    /// `None` where everything has to be read.
    fn read_changed(
        &self,
        entities: &Entities,
        before: &Read,
    ) -> Result<Option<(Config, Vec<String>)>, Vec<EntityFault>> {
        let old = &before.entities;
        let is_same = |id: &EntityId, value: &Arc<Value>| old.get(id).is_some_and(|old| Arc::ptr_eq(old, value));
        if of_kind(old, EntityKind::Version).ne(of_kind(entities, EntityKind::Version)) || renames_keys(old, entities) {
            return Ok(None);
        }
        let Some(ruled) = virtual_keys_of_rules(entities) else { return Ok(None) };
        let is_named = |name: Option<&str>| name.is_some_and(|name| ruled.contains(name));
        let kept = |id: &EntityId, value: &Arc<Value>| {
            id.kind == EntityKind::VirtualKey
                && is_same(id, value)
                && !is_named(Some(&id.name))
                && !is_named(value.get("name").and_then(Value::as_str))
        };
        let part: Entities = entities
            .iter()
            .filter(|(id, value)| !kept(id, value))
            .map(|(id, value)| (id.clone(), Arc::clone(value)))
            .collect();
        let (mut config, mut warnings) = self.read_whole(&part)?;
        let changed: BTreeSet<String> =
            part.iter().filter(|(id, value)| !is_same(id, value)).map(|(id, _)| id.to_string()).collect();
        // What did not change was warned of before.
        warnings.retain(|line| changed.iter().any(|id| line.starts_with(id.as_str())));

        let ids: Vec<&EntityId> = of_kind(&part, EntityKind::VirtualKey).map(|(id, _)| id).collect();
        let read: Vec<Arc<VirtualKey>> = std::mem::take(&mut config.governance.virtual_keys);
        let mut known = of_kind(old, EntityKind::VirtualKey).zip(&before.config.governance.virtual_keys);
        let mut read_again = ids.iter().zip(&read).peekable();
        let mut all = Vec::with_capacity(before.config.governance.virtual_keys.len().saturating_add(read.len()));
        let mut rest: Vec<&Arc<VirtualKey>> = Vec::new();
        for (id, _) in of_kind(entities, EntityKind::VirtualKey) {
            if let Some((_, virtual_key)) = read_again.next_if(|(read, _)| **read == id) {
                all.push(Arc::clone(virtual_key));
            } else if let Some((_, virtual_key)) = known.by_ref().find(|((old, _), _)| *old == id) {
                all.push(Arc::clone(virtual_key));
                rest.push(virtual_key);
            } else {
                // Some entity came to no virtual key: that is for the reader to explain.
                return Ok(None);
            }
        }
        let clashes = clashes(&ids, &read, &rest);
        if !clashes.is_empty() {
            return Err(clashes);
        }
        let names = Names::of(&config);
        if rest.iter().any(|virtual_key| !refers_to_what_is_there(virtual_key, &names)) {
            return Ok(None);
        }
        drop(names);
        config.governance.virtual_keys = all;
        Ok(Some((config, warnings)))
    }
}

/// Everything in routing rules that could be the id or name of a virtual key, which has to be there
/// for them; `None` where a rule may get one from elsewhere.
fn virtual_keys_of_rules(entities: &Entities) -> Option<HashSet<&str, ahash::RandomState>> {
    fn collect<'e>(value: &'e Value, found: &mut HashSet<&'e str, ahash::RandomState>) -> bool {
        match value {
            Value::String(text) => {
                // Names stand in quotes in an expression.
                found.extend(text.split(['"', '\'']));
                Origin::of(text) == Origin::Literal
            }
            Value::Array(list) => list.iter().all(|value| collect(value, found)),
            Value::Object(fields) => fields.values().all(|value| collect(value, found)),
            _ => true,
        }
    }
    let mut found = HashSet::default();
    of_kind(entities, EntityKind::RoutingRule).all(|(_, rule)| collect(rule, &mut found)).then_some(found)
}

/// A name of a key that grants may refer to is gone: what they say has to be read again.
fn renames_keys(old: &Entities, new: &Entities) -> bool {
    let names = |value: &Value| (value.get("id").cloned(), value.get("name").cloned());
    of_kind(old, EntityKind::Key).any(|(id, value)| new.get(id).is_none_or(|new| names(new) != names(value)))
}

/// Virtual keys that were read alone must not be taken for one of the others.
fn clashes(ids: &[&EntityId], read: &[Arc<VirtualKey>], rest: &[&Arc<VirtualKey>]) -> Vec<EntityFault> {
    type Part = fn(&VirtualKey) -> &str;
    if read.is_empty() {
        return Vec::new();
    }
    let parts: [(&str, &str, Part); 3] = [
        ("/id", "id", |key| &key.id),
        ("/name", "name", |key| &key.name),
        ("/value", "value", |key| key.value.expose()),
    ];
    let mut faults = Vec::new();
    for (pointer, noun, part) in parts {
        let taken: HashSet<&str, ahash::RandomState> = rest.iter().map(|key| part(key)).collect();
        let twice = ids.iter().zip(read).filter(|(_, key)| taken.contains(part(key)));
        faults.extend(twice.map(|(id, _)| EntityFault {
            id: Some((*id).clone()),
            pointer: pointer.to_owned(),
            problem: format!("another virtual key has this {noun}"),
            expected: format!("a {noun} of its own"),
            nearest: None,
        }));
    }
    faults
}

/// Everything that a virtual key may refer to.
struct Names<'c> {
    rate_limits: HashSet<&'c str, ahash::RandomState>,
    budgets: HashSet<&'c str, ahash::RandomState>,
    groups: HashSet<(bool, &'c str), ahash::RandomState>,
    providers: HashSet<&'c str, ahash::RandomState>,
    keys: HashSet<(&'c str, &'c str), ahash::RandomState>,
}

impl<'c> Names<'c> {
    fn of(config: &'c Config) -> Self {
        let governance = &config.governance;
        let teams = governance.teams.iter().map(|team| (true, team.id.as_str()));
        let customers = governance.customers.iter().map(|customer| (false, customer.id.as_str()));
        let keys = |provider: &'c shared::config::model::Provider| {
            provider.keys.iter().map(|key| (provider.name.as_str(), key.id.as_str()))
        };
        Self {
            rate_limits: governance.rate_limits.iter().map(|limit| limit.id.as_str()).collect(),
            budgets: governance.budgets.iter().map(|budget| budget.id.as_str()).collect(),
            groups: teams.chain(customers).collect(),
            providers: config.providers.iter().map(|provider| provider.name.as_str()).collect(),
            keys: config.providers.iter().flat_map(keys).collect(),
        }
    }
}

fn refers_to_what_is_there(key: &VirtualKey, names: &Names<'_>) -> bool {
    let limit = |id: &Option<String>| id.as_ref().is_none_or(|id| names.rate_limits.contains(id.as_str()));
    let budgets = |ids: &[String]| ids.iter().all(|id| names.budgets.contains(id.as_str()));
    let group = |is_team: bool, id: &Option<String>| {
        id.as_ref().is_none_or(|id| names.groups.contains(&(is_team, id.as_str())))
    };
    let keys = |provider: &str, ids: &[String]| ids.iter().all(|id| names.keys.contains(&(provider, id.as_str())));
    limit(&key.rate_limit_id)
        && budgets(&key.budget_ids)
        && group(true, &key.team_id)
        && group(false, &key.customer_id)
        && key.grants.iter().flatten().all(|grant| {
            names.providers.contains(grant.provider.as_str())
                && limit(&grant.rate_limit_id)
                && budgets(&grant.budget_ids)
                && keys(&grant.provider, grant.key_ids.as_deref().unwrap_or_default())
        })
}

fn called_otherwise(id: &EntityId, value: &Value) -> EntityFault {
    let own = super::split::name_of(id.kind, value).unwrap_or_default();
    EntityFault {
        id: Some(id.clone()),
        pointer: String::new(),
        problem: format!("says that it is {own:?}"),
        expected: "the name that it is stored under".to_owned(),
        nearest: None,
    }
}

fn general(problem: String) -> EntityFault {
    EntityFault { id: None, pointer: String::new(), problem, expected: String::new(), nearest: None }
}

#[cfg(test)]
mod tests;
