//! `/api/config`: everything that all nodes share, as one file has it.
//!
//! A whole document takes the place of what is there: what it does not name is removed. Sections that
//! belong to one node are left alone, and a warning says so.

use super::Desk;
use super::answer::Refusal;
use super::asked::{Asked, etag};
use super::change::{self, Plan, fault, tag};
use super::hidden::restore;
use super::resources::as_file;
use crate::live::split::{LISTS, SINGLES, split};
use crate::live::{Change, Entities};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// Longest document, in bytes; the reader of configurations takes no longer one.
const DOCUMENT_BYTES_MAX: usize = 48 * 1024 * 1024;

/// The document, without secrets.
pub(super) fn get(desk: &Desk) -> Response {
    let document = desk.live.document();
    (tag(&etag(&document.head)), Json(as_file(&document.entities))).into_response()
}

/// This document in the place of the one that is there.
pub(super) async fn put(desk: &Desk, mut asked: Asked) -> Result<Response, Refusal> {
    // One at a time: each needs several times its length.
    let Ok(_turn) = desk.documents.acquire().await else { return Err(Refusal::no_answer()) };
    let body = asked.json(&["application/json"], DOCUMENT_BYTES_MAX).await?;
    let warnings = check_shape(&body)?;
    let Some(parts) = split(&body.to_string()) else {
        return Err(fault(None, "", "this is no object", "a configuration"));
    };
    drop(body);
    change::make(desk, &asked, |document| {
        let changes = changes(&parts.entities, &document.entities)?;
        Ok(Plan { changes, name: None, status: StatusCode::OK, warnings: warnings.clone() })
    })
    .await
}

/// What has to be done so that `now` becomes `wanted`.
fn changes(wanted: &Entities, now: &Entities) -> Result<Vec<Change>, Refusal> {
    let mut changes = Vec::new();
    let mut faults = Vec::new();
    for (id, value) in wanted {
        let current = now.get(id);
        let mut value = (**value).clone();
        if let Err(more) = restore(id, &mut value, current.map(|value| &**value)) {
            faults.extend(more);
        }
        if current.is_none_or(|current| **current != value) {
            changes.push(Change { id: id.clone(), value: Some(value) });
        }
    }
    let gone = now.keys().filter(|id| !wanted.contains_key(id));
    changes.extend(gone.map(|id| Change { id: id.clone(), value: None }));
    if faults.is_empty() { Ok(changes) } else { Err(Refusal::invalid(&faults)) }
}

/// A section of another shape than ours would be no section, and all that is in it removed. Answers
/// with what will be left alone.
fn check_shape(body: &Value) -> Result<Vec<String>, Refusal> {
    let Some(top) = body.as_object() else {
        return Err(fault(None, "", "this is no object", "a configuration"));
    };
    let mut warnings = Vec::new();
    for (name, value) in top {
        match name.as_str() {
            "providers" if !value.is_object() => {
                return Err(fault(None, "/providers", "this is no object", "an object with providers by name"));
            }
            "governance" => check_governance(value, &mut warnings)?,
            "providers" | "$schema" => {}
            name if SINGLES.iter().any(|row| row.0 == name) => {}
            name => warnings.push(local(name)),
        }
    }
    let is_object_with_list = |value: &Value| value.get("keys").is_none_or(|keys| keys.is_array() || keys.is_null());
    for (name, provider) in top.get("providers").and_then(Value::as_object).into_iter().flatten() {
        if !is_object_with_list(provider) {
            let pointer = format!("/providers/{}/keys", name.replace('~', "~0").replace('/', "~1"));
            return Err(fault(None, &pointer, "this is no list", "a list of keys"));
        }
    }
    Ok(warnings)
}

fn check_governance(value: &Value, warnings: &mut Vec<String>) -> Result<(), Refusal> {
    let Some(fields) = value.as_object() else {
        return Err(fault(None, "/governance", "this is no object", "an object"));
    };
    for (name, value) in fields {
        if !LISTS.iter().any(|row| row.0 == name) {
            warnings.push(local(&format!("governance.{name}")));
        } else if !value.is_array() && !value.is_null() {
            return Err(fault(None, &format!("/governance/{name}"), "this is no list", "a list"));
        }
    }
    Ok(())
}

fn local(name: &str) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    format!("{name} belongs to each node's own file and is left alone")
}
