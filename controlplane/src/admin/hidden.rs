//! Secrets of entities on their way out and back: what is shown for one tells whether it is the same
//! as before, and means "leave it" when it comes back. Pure.

use crate::live::{EntityFault, EntityId, EntityKind};
use serde_json::{Value, json};
use shared::config::model::Origin;
use shared::secret::Secret;

/// The value as everybody may see it.
pub(super) fn hidden(kind: EntityKind, value: &Value) -> Value {
    let mut value = value.clone();
    for pattern in kind.secrets() {
        walk(&mut value, &segments(pattern), &mut String::new(), &mut |_, secret| *secret = shown(secret));
    }
    value
}

/// Puts the secrets of `current` where `value` holds what is shown for them.
pub(super) fn restore(id: &EntityId, value: &mut Value, current: Option<&Value>) -> Result<(), Vec<EntityFault>> {
    let mut faults = Vec::new();
    for pattern in id.kind.secrets() {
        walk(value, &segments(pattern), &mut String::new(), &mut |pointer, secret| {
            let is_shown = secret.is_object();
            let there = current.and_then(|current| current.pointer(pointer));
            if there == Some(&*secret) {
                // A patch leaves it out.
                return;
            }
            match there.filter(|there| shown(there) == *secret) {
                Some(kept) if is_shown => *secret = kept.clone(),
                _ if is_shown || secret.as_str().is_some_and(|text| Origin::of(text) == Origin::Sealed) => {
                    faults.push(EntityFault {
                        id: Some(id.clone()),
                        pointer: pointer.to_owned(),
                        problem: "this is not what is shown for the secret that is there".to_owned(),
                        expected: "the secret itself, a reference, or what is shown, unchanged".to_owned(),
                        nearest: None,
                    });
                }
                _ => {}
            }
        });
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// References stay as they are.
fn shown(secret: &Value) -> Value {
    let Value::String(text) = secret else {
        return if secret.is_null() { Value::Null } else { json!({"origin": "literal"}) };
    };
    match Origin::of(text) {
        Origin::Env(_) | Origin::File(_) => secret.clone(),
        Origin::Literal if text.is_empty() => secret.clone(),
        Origin::Literal => json!({"origin": "literal"}),
        Origin::Sealed => json!({"origin": "sealed", "fingerprint": Secret::new(text).fingerprint().to_string()}),
    }
}

fn segments(pattern: &str) -> Vec<&str> {
    pattern.split('/').skip(1).collect()
}

/// Every place that the pattern fits, with its pointer.
fn walk(value: &mut Value, rest: &[&str], pointer: &mut String, visit: &mut dyn FnMut(&str, &mut Value)) {
    let Some((first, rest)) = rest.split_first() else {
        visit(pointer, value);
        return;
    };
    let Some(fields) = value.as_object_mut() else { return };
    for (name, value) in fields {
        if *first == "*" || name == first {
            let length = pointer.len();
            pointer.push('/');
            pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
            walk(value, rest, pointer, visit);
            pointer.truncate(length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> EntityId {
        EntityId::new(EntityKind::Key, "openai/a")
    }

    #[test]
    fn no_secret_is_shown_and_references_are() {
        for (secret, is_shown) in [
            ("env.KEY", true),
            ("file:/run/key", true),
            ("", true),
            ("sealed:AAAA", false),
            ("sk-1", false),
            ("env.a-b", false),
        ] {
            let shown = hidden(EntityKind::Key, &json!({"name": "a", "value": secret}));
            assert_eq!(shown["value"] == secret, is_shown, "{secret}");
            assert_eq!(shown["name"], "a");
            assert!(is_shown || !shown.to_string().contains(secret));
        }
        let provider = json!({"network_config": {"extra_headers": {"x-token": "sk-1", "y": 7}}});
        let shown = hidden(EntityKind::Provider, &provider).to_string();
        assert!(!shown.contains("sk-1") && !shown.contains('7'), "{shown}");
    }

    #[test]
    fn what_was_shown_means_the_secret_that_is_there() {
        let current = json!({"name": "a", "value": "sealed:AAAA", "weight": 1});
        let mut back = hidden(EntityKind::Key, &current);
        back["weight"] = json!(2);
        restore(&key(), &mut back, Some(&current)).unwrap();
        assert_eq!(back, json!({"name": "a", "value": "sealed:AAAA", "weight": 2}));
        let mut new = json!({"name": "a", "value": "sk-new"});
        restore(&key(), &mut new, Some(&current)).unwrap();
        assert_eq!(new["value"], "sk-new");
    }

    #[test]
    fn a_patch_leaves_the_secrets_that_it_does_not_name() {
        let current = json!({"name": "a", "value": "sealed:AAAA"});
        let mut patched = json!({"name": "a", "value": "sealed:AAAA", "weight": 2});
        restore(&key(), &mut patched, Some(&current)).unwrap();
        assert_eq!(patched["value"], "sealed:AAAA");
    }

    #[test]
    fn nothing_sealed_can_be_brought_from_elsewhere() {
        let current = json!({"name": "a", "value": "sealed:AAAA"});
        for value in [json!("sealed:BBBB"), json!({"origin": "sealed"}), json!({})] {
            let faults = restore(&key(), &mut json!({"value": value}), Some(&current)).unwrap_err();
            assert_eq!((faults.len(), faults[0].pointer.as_str()), (1, "/value"));
        }
        assert!(restore(&key(), &mut hidden(EntityKind::Key, &current), None).is_err());
    }

    #[test]
    fn pointers_of_odd_names_lead_to_them() {
        let id = EntityId::new(EntityKind::Provider, "p");
        let current = json!({"network_config": {"extra_headers": {"a/b~c": "sealed:AAAA"}}});
        let mut back = hidden(EntityKind::Provider, &current);
        restore(&id, &mut back, Some(&current)).unwrap();
        assert_eq!(back, current);
    }
}
