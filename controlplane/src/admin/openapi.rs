//! `/api/openapi.json`, made of the table of operations. Pure.

use super::Desk;
use super::answer::Refusal;
use super::door::PUBLIC;
use super::operations::{Gives, Operation, Takes, operations};
use super::resources::RESOURCES;
use crate::config_schema::known;
use crate::live::EntityKind;
use crate::live::split::LISTS;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Made when it is first asked for, on the blocking pool.
pub(super) async fn answer(desk: Arc<Desk>) -> Result<Response, Refusal> {
    let make = move || desk.openapi.get_or_init(|| document(&operations(), desk.version).to_string()).clone();
    let text = tokio::task::spawn_blocking(make).await.map_err(|_| Refusal::no_answer())?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// The document.
pub(super) fn document(operations: &[Operation], version: &str) -> Value {
    let mut paths = Map::new();
    for operation in operations {
        let path = operation.path.replace("{*", "{");
        let methods = paths.entry(path.clone()).or_insert_with(|| json!({}));
        methods[operation.method.as_str().to_ascii_lowercase()] = described(operation, &path);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "DeepIntShield admin interface",
            "version": version,
            "description": "The configuration that all nodes share, and the state of this one. Secrets can be \
                written and not read. A revision's number is the entity tag of everything in it.",
        },
        "paths": paths,
        "components": {"schemas": schemas(), "securitySchemes": {
            "password": {"type": "http", "scheme": "basic"},
            "token": {"type": "http", "scheme": "bearer"},
        }},
    })
}

fn described(operation: &Operation, path: &str) -> Value {
    let Operation { method, query, takes, done, .. } = operation;
    let is_public = PUBLIC.contains(&path);
    let is_change = query.contains(&"dry_run");
    let mut parameters: Vec<Value> = names_in(path)
        .map(|name| {
            let what = if name == "number" { whole_number(0) } else { json!({"type": "string", "minLength": 1}) };
            json!({"name": name, "in": "path", "required": true, "schema": what})
        })
        .collect();
    parameters.extend(query.iter().map(|name| json!({"name": name, "in": "query", "schema": query_schema(name)})));
    if is_change {
        let schema = json!({"type": "string", "pattern": "^([*]|\"[0-9]{1,20}\")$"});
        parameters.push(json!({"name": "If-Match", "in": "header", "schema": schema}));
    }
    let mut responses = Map::new();
    for status in *done {
        let is_tagged = is_change || matches!(operation.gives, Gives::Page);
        responses.insert(status.to_string(), success(operation.gives, is_tagged));
    }
    for status in refusals(operation, is_public) {
        responses.insert(status.to_string(), refusal(status));
    }
    let mut described = json!({
        "operationId": operation_id(method, path),
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
        "security": if is_public { json!([]) } else { json!([{"password": []}, {"token": []}]) },
    });
    if let Some(body) = body(*takes) {
        described["requestBody"] = body;
    }
    described
}

/// Status codes of refusals.
fn refusals(operation: &Operation, is_public: bool) -> Vec<u16> {
    let mut codes = vec![400];
    if !is_public {
        codes.extend([401, 403, 429]);
    }
    codes.extend(operation.refused);
    if operation.takes != Takes::Nothing {
        codes.extend([413, 415]);
    }
    codes.push(503);
    codes
}

fn refusal(status: u16) -> Value {
    let why = match status {
        400 => "The request is malformed.",
        401 => "Credentials are missing or wrong.",
        403 => "These credentials, or this listener, may not do that.",
        404 => "It is not there.",
        409 => "It is there already, or nothing can be changed this way on this node.",
        412 => "If-Match names another revision than the newest.",
        413 => "The body is too long.",
        415 => "The body has another media type.",
        422 => "The configuration would have faults.",
        429 => "Too many wrong passwords came from there.",
        _ => "The node cannot do it now.",
    };
    let schema = match status {
        // A node that is not ready says why in its own words.
        503 => json!({"type": "object"}),
        _ => json!({"$ref": "#/components/schemas/error"}),
    };
    json!({"description": why, "content": {"application/json": {"schema": schema}}})
}

fn success(gives: Gives, is_tagged: bool) -> Value {
    let (media, schema) = match gives {
        Gives::Text => ("text/plain", json!({"type": "string"})),
        Gives::Object => ("application/json", json!({"type": "object"})),
        Gives::Page => ("application/json", json!({"$ref": "#/components/schemas/page"})),
        Gives::Items => ("application/json", json!({"$ref": "#/components/schemas/items"})),
        Gives::Change => ("application/json", json!({"$ref": "#/components/schemas/change"})),
    };
    let mut response = json!({"description": "Done.", "content": {media: {"schema": schema}}});
    if is_tagged {
        response["headers"] = json!({"ETag": {"schema": {"type": "string"}}});
    }
    response
}

fn body(takes: Takes) -> Option<Value> {
    let (media, schema) = match takes {
        Takes::Nothing => return None,
        Takes::Entity { is_part: true, .. } => ("application/merge-patch+json", json!({"type": "object"})),
        Takes::Entity { kind, is_new, .. } => {
            let name = if is_new { format!("new_{}", kind.name()) } else { kind.name().to_owned() };
            ("application/json", json!({"$ref": format!("#/components/schemas/{name}")}))
        }
        Takes::Document => ("application/json", json!({"$ref": "#/components/schemas/configuration"})),
        Takes::Revision => (
            "application/json",
            json!({"type": "object", "required": ["to"], "properties": {"to": whole_number(0)},
                "additionalProperties": false}),
        ),
        Takes::GossipKey => (
            "application/json",
            json!({"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}},
                "additionalProperties": false}),
        ),
    };
    Some(json!({"required": true, "content": {media: {"schema": schema}}}))
}

fn query_schema(name: &str) -> Value {
    match name {
        "limit" => json!({"type": "integer", "minimum": 1, "maximum": 200}),
        "dry_run" | "force" => json!({"type": "boolean"}),
        "from" | "to" => whole_number(0),
        "comment" => json!({"type": "string", "maxLength": 200}),
        _ => json!({"type": "string"}),
    }
}

fn whole_number(least: u64) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": i64::MAX})
}

fn schemas() -> Value {
    let text = || json!({"type": "string"});
    let mut schemas = json!({
        "error": {"type": "object", "required": ["error"], "properties": {"error": {
            "type": "object", "required": ["message", "code", "faults"], "properties": {
                "message": text(), "code": text(),
                "faults": {"type": "array", "items": {"$ref": "#/components/schemas/fault"}},
            },
        }}},
        "fault": {"type": "object", "required": ["pointer", "problem", "expected"], "properties": {
            "entity": {"type": ["string", "null"]}, "pointer": text(), "problem": text(), "expected": text(),
            "nearest": {"type": ["string", "null"]},
        }},
        "page": {"type": "object", "required": ["items", "next", "revision"], "properties": {
            "items": {"type": "array", "items": {"type": "object", "required": ["name", "value"], "properties": {
                "name": text(), "value": {"type": "object"}}}},
            "next": {"type": ["string", "null"]}, "revision": whole_number(0),
        }},
        "items": {"type": "object", "required": ["items", "next"], "properties": {
            "items": {"type": "array", "items": {"type": "object"}}, "next": {"type": ["string", "null"]},
        }},
        "change": {"type": "object", "required": ["revision", "changes", "dry_run", "warnings"], "properties": {
            "revision": whole_number(0), "changes": whole_number(0), "dry_run": {"type": "boolean"},
            "warnings": {"type": "array", "items": text()}, "name": text(),
        }},
    });
    let known = known();
    schemas["configuration"] = known.schema();
    for resource in &RESOURCES {
        let name = resource.kind.name();
        let place = place_of(resource.kind);
        let mut new = known.at(&place);
        let mut whole = new.clone();
        // A new one names itself; one that is there is named by its path.
        new["required"] = json!([resource.named_by]);
        if resource.is_name_apart || resource.kind == EntityKind::Key {
            let field = if resource.is_name_apart { resource.named_by } else { "provider" };
            new["properties"][field] = text();
        }
        if let Some(fields) = whole.as_object_mut() {
            fields.shift_remove("required");
        }
        schemas[name] = whole;
        schemas[format!("new_{name}")] = new;
    }
    schemas
}

/// Where entities of this kind stand in a file, as the reader of configurations names it.
fn place_of(kind: EntityKind) -> String {
    let list = LISTS.iter().find(|row| row.1 == kind).map(|row| format!("governance.{}[]", row.0));
    list.unwrap_or_else(|| match kind {
        EntityKind::Key => "providers.*.keys[]".to_owned(),
        _ => "providers.*".to_owned(),
    })
}

fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn operation_id(method: &Method, path: &str) -> String {
    let words = path.split('/').map(|part| part.trim_matches(['{', '}']).replace(['-', '.'], "_"));
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    format!("{}_{}", method.as_str().to_ascii_lowercase(), words.join("_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::door::WATCHED;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_is_described_once() {
        let operations = operations();
        let document = document(&operations, "1");
        let mut ids = BTreeSet::new();
        for Operation { method, path, .. } in &operations {
            let path = path.replace("{*", "{");
            let described = &document["paths"][&path][method.as_str().to_ascii_lowercase()];
            assert!(described.is_object(), "{method} {path}");
            assert!(ids.insert(described["operationId"].to_string()), "{method} {path}");
        }
        for path in PUBLIC.iter().chain(&WATCHED) {
            assert!(document["paths"][path].is_object(), "{path}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document(&operations(), "1");
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
