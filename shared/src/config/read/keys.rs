//! `providers.NAME.keys`: credentials with their models, weights and aliases.

use super::governance::read_rate_limit_id;
use super::{EmptyMeans, MODELS_MAX, read_models, read_names};
use crate::config::model::{Key, Origin, Secret};
use crate::config::reader::{Fields, Node, Reader, SecretText};
use crate::config::references::Kind;

/// Keys of one provider.
pub(super) const KEYS_MAX: usize = 1_000;

/// Weights are compared to each other, so their scale is free.
pub(super) const WEIGHT_MAX: f64 = 1_000_000.0;

/// What the keys of one provider have in common.
#[derive(Clone, Copy)]
pub(super) struct Owner<'n> {
    pub(super) provider: &'n str,
    /// Whether a key may do without a value, as servers of one's own allow.
    pub(super) value_is_optional: bool,
    pub(super) empty: EmptyMeans,
}

pub(super) fn read(reader: &mut Reader<'_>, node: &Node<'_>, owner: Owner<'_>) -> Vec<Key> {
    reader.list(node, KEYS_MAX, |reader, node| {
        reader.object(node, |reader, fields| read_key(reader, fields, owner)).flatten()
    })
}

fn read_key(reader: &mut Reader<'_>, fields: &mut Fields<'_>, owner: Owner<'_>) -> Option<Key> {
    let name_node = fields.required(reader, "name", "a name of its own");
    let name = name_node.as_ref().and_then(|node| reader.name(node));
    let id_node = fields.get(reader, "id");
    let id = id_node.as_ref().and_then(|node| reader.name(node));
    let kind = || Kind::Key(owner.provider.to_owned());
    if let (Some(node), Some(name)) = (&name_node, &name) {
        reader.declare(kind(), name, node);
    }
    if let (Some(node), Some(id)) = (&id_node, &id)
        && name.as_ref() != Some(id)
    {
        reader.declare(kind(), id, node);
    }
    let value = read_value(reader, fields, owner);
    let models = read_models(reader, fields, "models", owner.empty);
    let key = Key {
        id: id.or_else(|| name.clone()).unwrap_or_default(),
        name: name.unwrap_or_default(),
        models: models.unwrap_or_default(),
        blacklisted_models: read_names(reader, fields, "blacklisted_models", MODELS_MAX),
        weight: fields.read(reader, "weight", |r, n| r.number(n, 0.0..=WEIGHT_MAX)).unwrap_or(1.0),
        aliases: read_aliases(reader, fields),
        region: fields.read(reader, "region", Reader::name),
        rate_limit_id: read_rate_limit_id(reader, fields),
        is_enabled: fields.read(reader, "enabled", Reader::boolean).unwrap_or(true),
        origin: value.as_ref()?.origin.clone(),
        value: value?.secret,
    };
    (!key.name.is_empty()).then_some(key)
}

fn read_value(reader: &mut Reader<'_>, fields: &mut Fields<'_>, owner: Owner<'_>) -> Option<SecretText> {
    let absent = SecretText { secret: Secret::new(""), origin: Origin::Literal };
    if !owner.value_is_optional {
        let expected = "the provider's key, \"env.NAME\" or \"file:PATH\"";
        let node = fields.required(reader, "value", expected)?;
        return reader.secret(&node);
    }
    match fields.get(reader, "value") {
        Some(node) if !node.is_empty_text() => reader.secret(&node),
        _ => Some(absent),
    }
}

fn read_aliases(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Vec<(String, String)> {
    let mut aliases = Vec::new();
    let Some(node) = fields.get(reader, "aliases") else {
        return aliases;
    };
    reader.map(&node, MODELS_MAX, |reader, from, node| {
        // Newer files write an object around the name.
        let to = if node.is_object() {
            reader
                .object(node, |reader, fields| {
                    let id = fields.required(reader, "model_id", "the provider's name for it")?;
                    reader.name(&id)
                })
                .flatten()
        } else {
            reader.name(node)
        };
        aliases.extend(to.map(|to| (from.to_owned(), to)));
    });
    aliases
}
