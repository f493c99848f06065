//! The JSON Schema of a configuration file, found out from the reader of configurations itself: it is
//! shown small documents until nothing new is asked for, and what it asked for is the schema.
//!
//! There is no second description that could say something else. What only the reader knows (which
//! fields go together, what refers to what, how a duration is written) is not in the schema; it is
//! stricter than the reader where a section is switched off, whose fields the reader passes unread. What
//! is asked for only where several fields beside each other have certain values is open:
//! `config_store.type` and `config_store.config`.

use serde_json::{Map, Value, json};
use shared::config::{What, asked_of};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::LazyLock;

/// Documents that are shown to the reader at most. A few thousand are enough.
const DOCUMENTS_MAX: usize = 50_000;

/// Everything that was asked for at one place.
#[derive(Default)]
struct Seen {
    whats: Vec<What>,
    fields: BTreeSet<&'static str>,
    /// How often it was read as an object, and how often each field had to be there.
    objects: usize,
    required: BTreeMap<&'static str, usize>,
    /// Sets of fields that were asked for together: each is a case of its own.
    cases: BTreeSet<BTreeSet<&'static str>>,
}

/// A place in a document where something is to be put.
struct Task {
    document: Value,
    /// The place, as the reader names it.
    place: String,
}

/// What the reader knows.
pub struct Known(BTreeMap<String, Seen>);

/// What the reader knows, found out at the first call, which takes some tenths of a second.
pub fn known() -> &'static Known {
    static KNOWN: LazyLock<Known> = LazyLock::new(Known::find_out);
    &KNOWN
}

impl Known {
    fn find_out() -> Self {
        let mut seen = BTreeMap::new();
        let mut tasks = VecDeque::new();
        let mut shown = 0_usize;
        show(&json!({}), &mut seen, &mut tasks);
        while let Some(Task { document, place }) = tasks.pop_front() {
            let mut values = candidates();
            let mut tried = BTreeSet::new();
            while let Some(value) = values.pop() {
                shown = shown.saturating_add(1);
                if shown > DOCUMENTS_MAX {
                    return Self(seen);
                }
                let mut document = document.clone();
                if put(&mut document, &place, value) {
                    show(&document, &mut seen, &mut tasks);
                }
                for what in seen.get(&place).into_iter().flat_map(|seen| &seen.whats) {
                    let What::Choice(words) = what else { continue };
                    let new = words.iter().filter(|word| tried.insert(**word));
                    values.extend(new.map(|word| Value::from(*word)));
                }
            }
        }
        Self(seen)
    }

    /// The schema of a whole file.
    pub fn schema(&self) -> Value {
        let mut schema = self.at("");
        if let Some(fields) = schema.as_object_mut() {
            fields.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
            fields.insert("title".to_owned(), "DeepIntShield configuration".into());
        }
        schema
    }

    /// The schema of what stands at this place, such as `governance.rate_limits[]`.
    pub fn at(&self, place: &str) -> Value {
        let Some(seen) = self.0.get(place) else { return json!({}) };
        let has_words = seen.whats.iter().any(|what| matches!(what, What::Choice(_)));
        let mut ways = Vec::new();
        let mut may_be_reference = false;
        for what in &seen.whats {
            match what {
                What::Object => ways.push(self.object(place, seen)),
                What::Map => ways.push(json!({
                    "type": "object", "additionalProperties": self.at(&below(place, "*")),
                })),
                What::List => ways.push(json!({"type": "array", "items": self.at(&format!("{place}[]"))})),
                What::Text if has_words => may_be_reference = true,
                What::Text => ways.push(json!({"type": "string"})),
                What::Choice(words) => ways.push(json!({"enum": words})),
                What::Boolean => {
                    may_be_reference = true;
                    ways.push(json!({"type": "boolean"}));
                }
                What::Integer(range) => {
                    may_be_reference = true;
                    ways.push(whole_number(*range.start(), *range.end()));
                }
                What::Number(range) => {
                    ways.push(json!({"type": "number", "minimum": range.start(), "maximum": range.end()}));
                }
                What::Reading | What::Field(_) | What::Required(_) => {}
            }
        }
        let takes_text = ways.iter().any(|way| way["type"] == "string");
        if may_be_reference && !takes_text {
            ways.push(json!({"type": "string", "pattern": "^(env\\.[A-Za-z_][A-Za-z0-9_]*|file:.+)$"}));
        }
        match ways.len() {
            0 => json!({}),
            1 => ways.pop().unwrap_or_default(),
            _ => json!({"anyOf": ways}),
        }
    }

    fn object(&self, place: &str, seen: &Seen) -> Value {
        let mut fields = Map::new();
        for name in &seen.fields {
            fields.insert((*name).to_owned(), or_null(self.at(&below(place, name))));
        }
        let required: Vec<&str> =
            seen.required.iter().filter(|(_, count)| **count == seen.objects).map(|(name, _)| *name).collect();
        json!({"type": "object", "properties": fields, "required": required, "additionalProperties": false})
    }
}

/// One of each kind. The names are one of a provider that is known and one of a provider that is not.
fn candidates() -> Vec<Value> {
    vec![
        json!({}),
        json!([]),
        json!(1),
        json!("x"),
        json!(false),
        json!(true),
        json!([{}]),
        json!(["x"]),
        json!({"openai": {}}),
        json!({"x": {}}),
        json!({"x": "x"}),
        json!({"x": ["x"]}),
    ]
}

/// Shows a document to the reader. Objects that it takes in a way that is new are to be filled.
fn show(document: &Value, seen: &mut BTreeMap<String, Seen>, tasks: &mut VecDeque<Task>) {
    let mut cases: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
    for asked in asked_of(&document.to_string()) {
        let here = seen.entry(asked.place.clone()).or_default();
        match asked.what {
            What::Field(name) => {
                here.fields.insert(name);
                cases.entry(asked.place).or_default().insert(name);
            }
            What::Required(name) => {
                let count = here.required.entry(name).or_default();
                *count = count.saturating_add(1);
            }
            What::Reading => here.objects = here.objects.saturating_add(1),
            what => {
                if !here.whats.contains(&what) {
                    here.whats.push(what);
                }
            }
        }
    }
    for (place, fields) in cases {
        let known = &mut seen.entry(place.clone()).or_default().cases;
        if known.insert(fields.clone()) {
            let task = |name: &&'static str| Task { document: document.clone(), place: below(&place, name) };
            tasks.extend(fields.iter().map(task));
        }
    }
}

/// Puts a value at a place, whose steps lead through what is there; `false` where they do not.
fn put(document: &mut Value, place: &str, value: Value) -> bool {
    let mut here = document;
    for step in place.split('.') {
        let (name, lists) = step.split_at(step.find("[]").unwrap_or(step.len()));
        let next = match (here, name) {
            (Value::Object(fields), "*") => fields.values_mut().next(),
            (Value::Object(fields), name) => Some(fields.entry(name).or_insert(Value::Null)),
            _ => None,
        };
        let Some(next) = next else { return false };
        here = next;
        for _ in 0..lists.len() / 2 {
            let Some(next) = here.get_mut(0) else { return false };
            here = next;
        }
    }
    *here = value;
    true
}

fn below(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

fn whole_number(least: u64, most: u64) -> Value {
    let mut schema = json!({"type": "integer", "minimum": least});
    if most < u64::MAX {
        schema["maximum"] = most.into();
    }
    schema
}

/// `null` is the same as leaving a field out.
fn or_null(schema: Value) -> Value {
    match schema {
        Value::Object(mut fields) if fields.is_empty() => Value::Object(std::mem::take(&mut fields)),
        mut schema if schema["type"].is_string() => {
            schema["type"] = json!([schema["type"], "null"]);
            schema
        }
        Value::Object(mut fields) if fields.contains_key("anyOf") => {
            if let Some(ways) = fields.get_mut("anyOf").and_then(Value::as_array_mut) {
                ways.push(json!({"type": "null"}));
            }
            Value::Object(fields)
        }
        schema => json!({"anyOf": [schema, {"type": "null"}]}),
    }
}

#[cfg(test)]
mod tests;
