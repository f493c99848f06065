//! What a proposal comes to: sealed, held against the rules for writers, and read as a whole.
//!
//! The rules are about secrets. Whoever may change the configuration does not get to see what is in
//! it: not by naming a variable or a file that nobody meant for it, and not by sending a key that
//! is kept here to a host of their own.

use super::entity::{Entities, EntityId, EntityKind};
use super::handle::EntityFault;
use super::join::keys_of;
use super::reading::{Read, Reading};
use super::revision::Change;
use super::seal::{in_clear, is_clear, secrets_of};
use crate::compile::Compiled;
use serde_json::Value;
use shared::config::model::{BaseUrl, Origin, ProviderKind};
use std::collections::BTreeSet;
use std::sync::Arc;

/// References that writers may use.
#[derive(Default)]
pub(crate) struct Allowed {
    exact: BTreeSet<String>,
    prefixes: Vec<String>,
}

impl Allowed {
    /// What `patterns` say, of which a `*` at the end stands for anything, and what the file itself
    /// refers to.
    pub(crate) fn new(patterns: &[String], file: &Entities) -> Self {
        let mut allowed = Self::default();
        for pattern in patterns {
            match pattern.strip_suffix('*') {
                Some(prefix) => allowed.prefixes.push(prefix.to_owned()),
                None => {
                    allowed.exact.insert(pattern.clone());
                }
            }
        }
        for value in file.values() {
            references(value, "", &mut |_, text| {
                allowed.exact.insert(text.to_owned());
            });
        }
        allowed
    }

    fn has(&self, reference: &str) -> bool {
        // A path must not leave the folder that a pattern names.
        let is_plain = !reference.split('/').any(|part| part == "..");
        let matches = |prefix: &String| is_plain && reference.starts_with(prefix.as_str());
        self.exact.contains(reference) || self.prefixes.iter().any(matches)
    }
}

/// Every reference in a value, with its pointer.
fn references(value: &Value, at: &str, found: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::String(text) if matches!(Origin::of(text), Origin::Env(_) | Origin::File(_)) => found(at, text),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| references(value, &format!("{at}/{index}"), found));
        }
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            references(value, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
        }),
        _ => {}
    }
}

/// A proposal that can be done.
pub(crate) struct Prepared {
    /// Those that change something, sealed.
    pub(crate) changes: Vec<Change>,
    pub(crate) read: Read,
    pub(crate) compiled: Compiled,
    pub(crate) warnings: Vec<String>,
}

/// Who wants it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The node's own file, which may say anything.
    File,
    /// Somebody who may not learn secrets.
    Writer,
}

/// Judges changes of `entities`. Blocks; see [`Reading`].
pub(crate) fn prepare(
    reading: &Reading,
    allowed: &Allowed,
    entities: &Arc<Entities>,
    before: Option<&Read>,
    mut changes: Vec<Change>,
    by: By,
) -> Result<Prepared, Vec<EntityFault>> {
    let mut faults = twice(&changes);
    if by == By::Writer {
        faults.extend(changes.iter().flat_map(|change| not_allowed(change, entities, allowed)));
        faults.extend(elsewhere(&changes, entities));
    }
    for Change { id, value } in &mut changes {
        let Some(value) = value else { continue };
        match &reading.sealer {
            None => faults.extend(in_clear(id.kind, value).into_iter().map(|pointer| unsealable(id, &pointer))),
            Some(sealer) => {
                if let Err(error) = sealer.seal_all(id, value, entities.get(id).map(|old| &**old)) {
                    faults.push(fault(id, "", error.to_string(), ""));
                }
            }
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    changes.retain(|change| entities.get(&change.id).map(|old| &**old) != change.value.as_ref());
    let mut after = Entities::clone(entities);
    apply(&mut after, &changes);
    let (read, compiled, warnings) = reading.read(&Arc::new(after), before)?;
    Ok(Prepared { changes, read, compiled, warnings })
}

/// Changes entities.
pub(crate) fn apply(entities: &mut Entities, changes: &[Change]) {
    for Change { id, value } in changes {
        match value {
            Some(value) => drop(entities.insert(id.clone(), Arc::new(value.clone()))),
            None => drop(entities.remove(id)),
        }
    }
}

fn fault(id: &EntityId, pointer: &str, problem: impl Into<String>, expected: &str) -> EntityFault {
    EntityFault {
        id: Some(id.clone()),
        pointer: pointer.to_owned(),
        problem: problem.into(),
        expected: expected.to_owned(),
        nearest: None,
    }
}

fn twice(changes: &[Change]) -> Vec<EntityFault> {
    let mut seen = BTreeSet::new();
    let again = changes.iter().filter(|change| !seen.insert(&change.id));
    again.map(|change| fault(&change.id, "", "is changed twice", "one change of it")).collect()
}

fn unsealable(id: &EntityId, pointer: &str) -> EntityFault {
    fault(
        id,
        pointer,
        "a secret cannot be kept without a key to seal it with",
        "DEEPINTSHIELD_ENCRYPTION_KEY to be set (the same on all nodes), or \"env.NAME\" or \"file:PATH\"",
    )
}

fn not_allowed(change: &Change, entities: &Entities, allowed: &Allowed) -> Vec<EntityFault> {
    let mut faults = Vec::new();
    let old = entities.get(&change.id);
    if let Some(value) = &change.value {
        references(value, "", &mut |pointer, text| {
            let was_there = old.and_then(|old| old.pointer(pointer)).and_then(Value::as_str) == Some(text);
            if !was_there && !allowed.has(text) {
                let expected = "one that stands in the node's file, or that config_store.references there allows";
                faults.push(fault(&change.id, pointer, "this reference is not allowed here", expected));
            }
        });
    }
    faults
}

/// Secrets that would go to another host than the one they were entered for.
fn elsewhere(changes: &[Change], entities: &Entities) -> Vec<EntityFault> {
    const PROBLEM: &str = "the host of the provider's base_url changes";
    let mut faults = Vec::new();
    let is_entered = |id: &EntityId| {
        let values = changes.iter().filter(|change| change.id == *id).map(|change| change.value.as_ref());
        values.flatten().any(|value| secrets_of(id.kind, value).iter().all(|(_, text)| is_given(text)))
    };
    for change in changes.iter().filter(|change| change.id.kind == EntityKind::Provider) {
        let (Some(old), Some(new)) = (entities.get(&change.id), &change.value) else { continue };
        let provider = &change.id.name;
        if host(provider, old) == host(provider, new) {
            continue;
        }
        let kept = secrets_of(EntityKind::Provider, new).into_iter().filter(|(_, text)| !is_given(text));
        faults.extend(kept.map(|(pointer, _)| fault(&change.id, &pointer, PROBLEM, "the value entered again")));
        for (id, _) in keys_of(entities, provider) {
            let is_removed = changes.iter().any(|change| change.id == *id && change.value.is_none());
            let has_secret = entities.get(id).is_some_and(|key| !secrets_of(id.kind, key).is_empty());
            if has_secret && !is_removed && !is_entered(id) {
                faults.push(fault(id, "/value", PROBLEM, "the key entered again in the same change"));
            }
        }
    }
    faults
}

/// The writer knows it: it is in clear, or a reference that may be used.
fn is_given(text: &str) -> bool {
    is_clear(text) || matches!(Origin::of(text), Origin::Env(_) | Origin::File(_))
}

/// Where a provider's requests go: what cannot be read is only the same as itself.
fn host(name: &str, provider: &Value) -> String {
    let text = |pointer: &str| provider.pointer(pointer).and_then(Value::as_str);
    let base = text("/custom_provider_config/base_provider_type").unwrap_or(name);
    let default = || ProviderKind::from_name(base).and_then(ProviderKind::default_base_url);
    let url = text("/network_config/base_url").or_else(default).unwrap_or_default();
    match BaseUrl::parse(url) {
        Ok(url) => format!("{:?} {}", url.scheme(), url.host_header()),
        Err(_) => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::seal::Sealer;
    use super::super::split::{Local, split};
    use super::*;
    use crate::compile::tests::facts;
    use crate::last_good::EncryptionKey;
    use serde_json::json;
    use shared::secret::Secret;

    fn reading(is_sealing: bool) -> Reading {
        let key = EncryptionKey::new(Secret::new("a-key-of-at-least-thirty-two-characters")).unwrap();
        let sealer = is_sealing.then(|| Arc::new(Sealer::new(&key)));
        Reading { local: Local::default(), sealer, facts: Arc::new(facts()) }
    }

    fn file() -> Entities {
        let document = json!({"providers": {"openai": {
            "keys": [{"name": "a", "value": "sk-a"}, {"name": "p", "value": "env.PATH"}],
            "network_config": {"base_url": "https://one.example/v1", "extra_headers": {"x-token": "t"}}
        }}});
        split(&document.to_string()).unwrap().entities
    }

    /// The file's entities, as they are kept.
    fn kept(reading: &Reading) -> Read {
        let changes = file().into_iter().map(|(id, value)| Change { id, value: Some((*value).clone()) }).collect();
        let none = Arc::new(Entities::new());
        prepare(reading, &Allowed::default(), &none, None, changes, By::File).ok().unwrap().read
    }

    fn change(id: &str, value: Value) -> Change {
        Change { id: id.parse().unwrap(), value: (!value.is_null()).then_some(value) }
    }

    fn written(changes: Vec<Change>) -> Result<Prepared, Vec<String>> {
        let reading = reading(true);
        let before = kept(&reading);
        let allowed = Allowed::new(&["file:/run/keys/*".to_owned()], &file());
        prepare(&reading, &allowed, &before.entities, Some(&before), changes, By::Writer).map_err(|faults| {
            faults.iter().map(|fault| format!("{}{}", fault.id.as_ref().unwrap(), fault.pointer)).collect()
        })
    }

    #[test]
    fn the_same_again_changes_nothing_and_secrets_are_sealed() {
        let prepared = written(vec![change("key/openai/a", json!({"name": "a", "value": "sk-a"}))]).ok().unwrap();
        assert_eq!(prepared.changes.len(), 0);
        let prepared = written(vec![change("key/openai/a", json!({"name": "a", "value": "sk-planted"}))]).ok().unwrap();
        let [Change { value: Some(value), .. }] = prepared.changes.as_slice() else { panic!("one change") };
        assert!(value["value"].as_str().unwrap().starts_with("sealed:"));
        assert_eq!(prepared.read.config.provider("openai").unwrap().keys[0].value.expose(), "sk-planted");
    }

    #[test]
    fn a_secret_without_a_key_is_refused_with_the_remedy() {
        let none = Arc::new(Entities::new());
        let changes = vec![change("key/openai/a", json!({"name": "a", "value": "sk-a"}))];
        let faults = prepare(&reading(false), &Allowed::default(), &none, None, changes, By::File).err().unwrap();
        assert!(faults[0].expected.contains("DEEPINTSHIELD_ENCRYPTION_KEY"));
    }

    #[test]
    fn writers_name_references_that_the_file_allows() {
        let key = |value: &str| vec![change("key/openai/b", json!({"name": "b", "value": value}))];
        assert!(written(key("env.PATH")).is_ok(), "it stands in the file");
        for refused in ["env.HOME", "file:/etc/shadow", "file:/run/keys/../../etc/shadow"] {
            assert_eq!(written(key(refused)).err().unwrap(), ["key/openai/b/value"], "{refused}");
        }
        let anywhere = vec![change("client", json!({"allowed_origins": ["env.HOME"]}))];
        assert_eq!(written(anywhere).err().unwrap(), ["client/allowed_origins/0"]);
    }

    #[test]
    fn keys_do_not_follow_their_provider_to_another_host() {
        let moved = |host: &str, token: &str| {
            let network = json!({"base_url": format!("https://{host}"), "extra_headers": {"x-token": token}});
            change("provider/openai", json!({"network_config": network}))
        };
        assert!(written(vec![moved("one.example/v2", "t")]).is_ok(), "the same host");
        assert_eq!(
            written(vec![moved("two.example", "t")]).err().unwrap(),
            ["key/openai/a/value", "key/openai/p/value"]
        );
        let entered = vec![
            moved("two.example", "u"),
            change("key/openai/a", json!({"name": "a", "value": "sk-a"})),
            change("key/openai/p", Value::Null),
        ];
        assert!(written(entered).is_ok());
        let reading = reading(true);
        let sealed = kept(&reading).entities[&"key/openai/a".parse().unwrap()].clone();
        let not_entered = vec![moved("two.example", "u"), change("key/openai/a", (*sealed).clone())];
        assert_eq!(written(not_entered).err().unwrap(), ["key/openai/a/value", "key/openai/p/value"]);
    }

    #[test]
    fn an_entity_is_changed_once() {
        let limit = || change("rate_limit/r", json!({"id": "r", "concurrent_max_limit": 3}));
        assert_eq!(written(vec![limit(), limit()]).err().unwrap(), ["rate_limit/r"]);
    }
}
