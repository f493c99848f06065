//! Entities by their paths: lists in pages, one, a new one, another in its place, a part of it, none.

use super::Desk;
use super::answer::Refusal;
use super::asked::{Asked, ENTITY_BYTES_MAX, etag};
use super::change::{self, Plan, fault, tag};
use super::hidden::{hidden, restore};
use super::merge_patch::merge;
use super::resources::Resource;
use crate::live::split::{is_called, name_of};
use crate::live::{Change, Document, EntityId, EntityKind};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::Bound;

/// Entities on one page: where nothing is asked for, and at most.
const PAGE: u64 = 100;
pub(super) const PAGE_MAX: u64 = 1_000;

const JSON: &[&str] = &["application/json"];
const PATCH: &[&str] = &["application/merge-patch+json", "application/json"];

/// One page, in the order of names; of a provider's keys where the path names one.
pub(super) fn list(desk: &Desk, resource: &Resource, asked: &Asked) -> Result<Response, Refusal> {
    let document = desk.live.document();
    let count = usize::try_from(asked.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE)).unwrap_or(usize::MAX);
    let prefix = match provider_of(asked) {
        Some(provider) => {
            present(&document, &EntityId::new(EntityKind::Provider, provider))?;
            format!("{provider}/")
        }
        None => String::new(),
    };
    let from = match asked.query("cursor") {
        Some(last) => Bound::Excluded(EntityId::new(resource.kind, last.max(&prefix))),
        None => Bound::Included(EntityId::new(resource.kind, prefix.as_str())),
    };
    let mut found = document
        .entities
        .range((from, Bound::Unbounded))
        .take_while(|(id, _)| id.kind == resource.kind && id.name.starts_with(&prefix));
    let page: Vec<_> = found.by_ref().take(count).collect();
    let next = found.next().and_then(|_| page.last()).map(|(id, _)| id.name.clone());
    let items: Vec<Value> =
        page.iter().map(|(id, value)| json!({"name": id.name, "value": hidden(id.kind, value)})).collect();
    let body = json!({"items": items, "next": next, "revision": document.head.number});
    Ok((tag(&etag(&document.head)), Json(body)).into_response())
}

/// One, as it stands in a file.
pub(super) fn get(desk: &Desk, resource: &Resource, asked: &Asked) -> Result<Response, Refusal> {
    let document = desk.live.document();
    let id = id_of(resource, asked);
    let value = present(&document, &id)?;
    Ok((tag(&etag(&document.head)), Json(hidden(id.kind, value))).into_response())
}

/// A new one, which must not be there yet.
pub(super) async fn post(desk: &Desk, resource: &Resource, mut asked: Asked) -> Result<Response, Refusal> {
    let body = asked.json(JSON, ENTITY_BYTES_MAX).await?;
    let Some((name, value)) = resource.name_new(body, provider_of(&asked)) else {
        let pointer = format!("/{}", resource.named_by);
        let expected = match resource.kind {
            EntityKind::Key => "the key's name or id, and the provider that it belongs to".to_owned(),
            _ => format!("an object with its {}", resource.named_by),
        };
        return Err(fault(None, &pointer, "this has no name", &expected));
    };
    let id = EntityId::new(resource.kind, name);
    change::make(desk, &asked, |document| {
        if document.entities.contains_key(&id) {
            return Err(Refusal::conflict(format!("the {} {:?} is there already", resource.noun, id.name)));
        }
        plan(document, &id, value.clone(), StatusCode::CREATED)
    })
    .await
}

/// This one, whatever was there.
pub(super) async fn put(desk: &Desk, resource: &Resource, mut asked: Asked) -> Result<Response, Refusal> {
    let mut value = asked.json(JSON, ENTITY_BYTES_MAX).await?;
    let id = id_of(resource, &asked);
    name_it(resource, &id, &mut value)?;
    change::make(desk, &asked, |document| {
        let status = if document.entities.contains_key(&id) { StatusCode::OK } else { StatusCode::CREATED };
        plan(document, &id, value.clone(), status)
    })
    .await
}

/// The one that is there, with some fields changed.
pub(super) async fn patch(desk: &Desk, resource: &Resource, mut asked: Asked) -> Result<Response, Refusal> {
    let patch = asked.json(PATCH, ENTITY_BYTES_MAX).await?;
    let id = id_of(resource, &asked);
    change::make(desk, &asked, |document| {
        let mut value = present(document, &id)?.clone();
        merge(&mut value, patch.clone());
        name_it(resource, &id, &mut value)?;
        plan(document, &id, value, StatusCode::OK)
    })
    .await
}

/// No longer there; a provider's keys go with it.
pub(super) async fn delete(desk: &Desk, resource: &Resource, asked: Asked) -> Result<Response, Refusal> {
    let id = id_of(resource, &asked);
    change::make(desk, &asked, |document| {
        present(document, &id)?;
        let mut changes = vec![Change { id: id.clone(), value: None }];
        if id.kind == EntityKind::Provider {
            changes.extend(keys_of(document, &id.name).map(|id| Change { id: id.clone(), value: None }));
        }
        Ok(Plan { changes, name: Some(id.name.clone()), status: StatusCode::OK, warnings: Vec::new() })
    })
    .await
}

fn id_of(resource: &Resource, asked: &Asked) -> EntityId {
    match provider_of(asked) {
        Some(provider) => EntityId::new(resource.kind, format!("{provider}/{}", asked.parameter("key"))),
        None => EntityId::new(resource.kind, asked.parameter("name")),
    }
}

/// Of `/api/providers/{provider}/keys`.
fn provider_of(asked: &Asked) -> Option<&str> {
    Some(asked.parameter("provider")).filter(|name| !name.is_empty())
}

fn present<'d>(document: &'d Document, id: &EntityId) -> Result<&'d Value, Refusal> {
    let value = document.entities.get(id);
    value.map(|value| &**value).ok_or_else(|| Refusal::not_found(format!("there is no {id}")))
}

fn keys_of<'d>(document: &'d Document, provider: &str) -> impl Iterator<Item = &'d EntityId> {
    let prefix = format!("{provider}/");
    document
        .entities
        .range(EntityId::new(EntityKind::Key, prefix.as_str())..)
        .map(|(id, _)| id)
        .take_while(move |id| id.kind == EntityKind::Key && id.name.starts_with(&prefix))
}

/// A body need not repeat the name that its path has, and cannot say another one.
fn name_it(resource: &Resource, id: &EntityId, value: &mut Value) -> Result<(), Refusal> {
    let Some(fields) = value.as_object_mut() else {
        return Err(fault(Some(id.clone()), "", "this is no object", "an object"));
    };
    if resource.is_name_apart {
        if let Some(name) = fields.shift_remove(resource.named_by)
            && name != id.name.as_str()
        {
            return Err(other_name(resource, id));
        }
        return Ok(());
    }
    let own = match id.kind {
        EntityKind::Key => id.name.split_once('/').map_or("", |(_, own)| own),
        EntityKind::ModelConfig => "",
        _ => &id.name,
    };
    if !own.is_empty() && name_of(id.kind, &Value::Object(fields.clone())).is_none() {
        fields.insert(resource.named_by.to_owned(), Value::from(own));
    }
    if is_called(id.kind, &id.name, value) { Ok(()) } else { Err(other_name(resource, id)) }
}

fn other_name(resource: &Resource, id: &EntityId) -> Refusal {
    let problem = format!("this names another {} than the path", resource.noun);
    fault(Some(id.clone()), &format!("/{}", resource.named_by), &problem, "the name in the path, or none")
}

/// One entity; a provider may bring its keys, which then are all that it has.
fn plan(document: &Document, id: &EntityId, mut value: Value, status: StatusCode) -> Result<Plan, Refusal> {
    let mut changes = Vec::new();
    let keys = match (id.kind, value.as_object_mut()) {
        (EntityKind::Provider, Some(fields)) => fields.shift_remove("keys"),
        _ => None,
    };
    let restored = |id: EntityId, mut value: Value| {
        let current = document.entities.get(&id).map(|value| &**value);
        restore(&id, &mut value, current).map_err(|faults| Refusal::invalid(&faults))?;
        Ok(Change { id, value: Some(value) })
    };
    changes.push(restored(id.clone(), value)?);
    match keys {
        None | Some(Value::Null) => {}
        Some(Value::Array(keys)) => {
            let mut named = BTreeSet::new();
            for (at, key) in keys.into_iter().enumerate() {
                let pointer = format!("/keys/{at}");
                let Some(own) = name_of(EntityKind::Key, &key) else {
                    return Err(fault(Some(id.clone()), &pointer, "this key has no name", "an object with its name"));
                };
                let key_id = EntityId::new(EntityKind::Key, format!("{}/{own}", id.name));
                if !named.insert(key_id.clone()) {
                    return Err(fault(Some(id.clone()), &pointer, "a second key of this name", "a name of its own"));
                }
                changes.push(restored(key_id, key)?);
            }
            let gone = keys_of(document, &id.name).filter(|id| !named.contains(id));
            changes.extend(gone.map(|id| Change { id: id.clone(), value: None }));
        }
        Some(_) => return Err(fault(Some(id.clone()), "/keys", "this is no list", "a list of keys")),
    }
    Ok(Plan { changes, name: Some(id.name.clone()), status, warnings: Vec::new() })
}
