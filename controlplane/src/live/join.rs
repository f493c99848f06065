//! A node's own sections and the shared entities, put together to one text for the one reader of
//! configurations; and its faults, put back to the entities that they are in.
//!
//! Pure. Every entity stands on a line of its own, so that a fault's line tells which one it is in.
//! What is sealed stays sealed; its text gets the name of its place behind it, without which it
//! cannot be opened.

use super::entity::{Entities, EntityId, EntityKind};
use super::handle::EntityFault;
use super::seal::{self, at_each_secret};
use super::split::{LISTS, Local, SINGLES};
use serde_json::Value;
use shared::config::{Fault, Warning};
use std::ops::Bound;
use zeroize::Zeroizing;

/// A configuration as a text, and where in it each entity stands.
pub struct Joined {
    /// May hold secrets of the node's own sections.
    pub text: Zeroizing<String>,
    /// By line, from 0.
    lines: Vec<Option<EntityId>>,
}

/// Puts a configuration together. Keys of providers that are not there are left out; see
/// [`orphans`].
pub fn join(local: &Local, entities: &Entities) -> Joined {
    let mut writer = Writer::default();
    writer.line("{");
    writer.members(&local.top);
    for (field, kind) in SINGLES {
        for (id, value) in of_kind(entities, kind) {
            writer.entity(&format!("\"{field}\":"), id, value, ",");
        }
    }
    writer.line("\"providers\":{");
    for (id, value) in of_kind(entities, EntityKind::Provider) {
        let name = format!("{}:", Value::from(id.name.as_str()));
        let mut keys = keys_of(entities, &id.name).peekable();
        if keys.peek().is_none() || !value.is_object() {
            writer.entity(&name, id, value, ",");
            continue;
        }
        // Its brace comes after its keys.
        writer.open_entity(&name, id, value);
        keys.for_each(|(id, value)| writer.entity("", id, value, ","));
        writer.line("]},");
    }
    writer.line("},");
    writer.line("\"governance\":{");
    writer.members(&local.governance);
    for (field, kind) in LISTS {
        let mut entries = of_kind(entities, kind).peekable();
        if entries.peek().is_some() {
            writer.line(&format!("\"{field}\":["));
            entries.for_each(|(id, value)| writer.entity("", id, value, ","));
            writer.line("],");
        }
    }
    writer.line("}}");
    Joined { text: writer.text, lines: writer.lines }
}

/// Entities that [`join`] leaves out, as what they belong to is not there.
pub fn orphans(entities: &Entities) -> Vec<EntityFault> {
    of_kind(entities, EntityKind::Key)
        .filter_map(|(id, _)| {
            let provider = id.name.split_once('/').map_or("", |(provider, _)| provider);
            let is_there = entities.contains_key(&EntityId::new(EntityKind::Provider, provider));
            (!is_there).then(|| EntityFault {
                id: Some(id.clone()),
                pointer: String::new(),
                problem: format!("there is no provider {provider:?}"),
                expected: "the key to be removed with its provider, or the provider to be there".to_owned(),
                nearest: None,
            })
        })
        .collect()
}

/// All entities of a kind, by name.
pub(super) fn of_kind(entities: &Entities, kind: EntityKind) -> impl Iterator<Item = (&EntityId, &Value)> {
    entities
        .range(EntityId::new(kind, "")..)
        .take_while(move |(id, _)| id.kind == kind)
        .map(|(id, value)| (id, &**value))
}

/// The keys of a provider, by name.
pub(super) fn keys_of<'e>(entities: &'e Entities, provider: &str) -> impl Iterator<Item = (&'e EntityId, &'e Value)> {
    let first = EntityId::new(EntityKind::Key, format!("{provider}/"));
    let prefix = first.name.clone();
    entities
        .range((Bound::Included(first), Bound::Unbounded))
        .take_while(move |(id, _)| id.kind == EntityKind::Key && id.name.starts_with(&prefix))
        .map(|(id, value)| (id, &**value))
}

impl Joined {
    /// The fault, at its entity.
    pub fn fault(&self, fault: Fault) -> EntityFault {
        let (id, pointer) = self.place(fault.line, &fault.path);
        let problem = match &id {
            None if !fault.path.is_empty() => format!("{}: {}", fault.path, fault.problem),
            _ => fault.problem,
        };
        EntityFault { id, pointer, problem, expected: fault.expected, nearest: fault.nearest }
    }

    /// The warning as a sentence that names the entity.
    pub fn warning(&self, warning: &Warning) -> String {
        match self.place(warning.line, &warning.path) {
            (Some(id), pointer) if pointer.is_empty() => format!("{id}: {}", warning.message),
            (Some(id), pointer) => format!("{id}{pointer}: {}", warning.message),
            (None, _) => format!("{}: {}", warning.path, warning.message),
        }
    }

    fn place(&self, line: usize, path: &str) -> (Option<EntityId>, String) {
        let Some(id) = line.checked_sub(1).and_then(|at| self.lines.get(at)).cloned().flatten() else {
            return (None, String::new());
        };
        let steps_before = match id.kind {
            EntityKind::Version | EntityKind::Client | EntityKind::LoadBalancer => 1,
            EntityKind::Provider => 2,
            EntityKind::Key => 4,
            _ => 3,
        };
        let pointer = steps(path).into_iter().skip(steps_before).fold(String::new(), |mut pointer, step| {
            pointer.push('/');
            pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
            pointer
        });
        (Some(id), pointer)
    }
}

/// The steps of a path as the reader shows it: `a."b c"[3].d`.
fn steps(path: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let (step, after) = if rest.starts_with('"') {
            quoted(rest)
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']').unwrap_or((index, ""));
            (index.to_owned(), after)
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (name, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            (name.to_owned(), after)
        };
        steps.push(step);
        rest = after;
    }
    steps
}

/// A quoted name at the beginning of `text`, and what comes behind it.
fn quoted(text: &str) -> (String, &str) {
    let mut is_escaped = false;
    let end = text.char_indices().skip(1).find(|(_, letter)| {
        let is_end = *letter == '"' && !is_escaped;
        is_escaped = *letter == '\\' && !is_escaped;
        is_end
    });
    let end = end.map_or(text.len(), |(at, _)| at.saturating_add(1));
    let (name, after) = text.split_at_checked(end).unwrap_or((text, ""));
    let name = serde_json::from_str(name).unwrap_or_else(|_| name.trim_matches('"').to_owned());
    (name, after.strip_prefix('…').unwrap_or(after))
}

#[derive(Default)]
struct Writer {
    text: Zeroizing<String>,
    lines: Vec<Option<EntityId>>,
}

impl Writer {
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.end_line(None);
    }

    fn members(&mut self, members: &str) {
        if !members.is_empty() {
            // No line of its own for a secret to be left in when the text grows.
            self.text.reserve(members.len().saturating_add(2));
            self.text.push_str(members);
            self.text.push(',');
            self.end_line(None);
        }
    }

    fn entity(&mut self, before: &str, id: &EntityId, value: &Value, after: &str) {
        self.text.push_str(before);
        self.text.push_str(&with_places(id, value));
        self.text.push_str(after);
        self.end_line(Some(id.clone()));
    }

    /// An object that gets a list of `keys` behind what it has.
    fn open_entity(&mut self, before: &str, id: &EntityId, value: &Value) {
        let text = with_places(id, value);
        let fields = text.strip_suffix('}').unwrap_or_default();
        let comma = if fields == "{" { "" } else { "," };
        for part in [before, fields, comma, "\"keys\":["] {
            self.text.push_str(part);
        }
        self.end_line(Some(id.clone()));
    }

    fn end_line(&mut self, of: Option<EntityId>) {
        self.text.push('\n');
        self.lines.push(of);
    }
}

/// As JSON, with the names of their places behind sealed texts.
fn with_places(id: &EntityId, value: &Value) -> String {
    if !seal::has_sealed(id.kind, value) {
        return value.to_string();
    }
    let mut value = value.clone();
    at_each_secret(id.kind, &mut value, &mut |pointer, text| {
        if let Some(placed) = seal::with_place(text, id, pointer) {
            *text = placed;
        }
    });
    value.to_string()
}

#[cfg(test)]
mod tests;
