//! `providers`: known vendors by name, and custom entries.

use super::keys::{self, Owner};
use super::{EmptyMeans, network, read_switch};
use crate::config::model::{CustomProvider, Provider, ProviderKind};
use crate::config::nearest::nearest;
use crate::config::reader::{Fields, Node, Reader, quote};
use crate::config::references::Kind;

/// Providers in one file.
const PROVIDERS_MAX: usize = 1_000;

/// Longest name; it is part of every metric.
const NAME_BYTES_MAX: usize = 64;

/// Vendors whose requests have to be signed or rewritten, which this node does not do.
const NOT_SPOKEN: [&str; 10] = [
    "bedrock",
    "bedrock_mantle",
    "vertex",
    "replicate",
    "elevenlabs",
    "deepgram",
    "runway",
    "runware",
    "sarvam",
    "sapcloud",
];

/// First segments of paths that mean something else at the data port, where a provider is
/// reached under its name.
const TAKEN: [&str; 12] = [
    "api",
    "cluster",
    "genai",
    "health",
    "langchain",
    "litellm",
    "mcp",
    "metrics",
    "pydanticai",
    "ready",
    "v1",
    "v1beta",
];

pub(super) fn read(reader: &mut Reader<'_>, node: &Node<'_>, empty: EmptyMeans) -> Vec<Provider> {
    let mut providers = Vec::new();
    reader.map(node, PROVIDERS_MAX, |reader, name, node| {
        // Declared even if it does not load: what refers to it is not at fault.
        reader.declare(Kind::Provider, name, node);
        if !check_name(reader, name, node) {
            return;
        }
        let provider = reader.object(node, |reader, fields| read_provider(reader, fields, name, empty));
        providers.extend(provider.flatten());
    });
    providers
}

fn check_name(reader: &mut Reader<'_>, name: &str, node: &Node<'_>) -> bool {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !fits {
        let expected = "1 to 64 letters, digits, '-', '_' and '.'";
        reader.fault(&node.place, "does not fit a provider's name", expected);
    }
    if TAKEN.contains(&name) || name.ends_with("_passthrough") {
        let problem = format!("{name} is the beginning of a path of the gateway's own");
        reader.fault(&node.place, problem, "another name");
        return false;
    }
    if NOT_SPOKEN.contains(&name) {
        let problem = format!("{name} is known and not supported");
        let expected = "a provider that speaks the OpenAI, Anthropic, Gemini or Cohere dialect";
        reader.fault(&node.place, problem, expected);
        return false;
    }
    fits
}

fn read_provider(reader: &mut Reader<'_>, fields: &mut Fields<'_>, name: &str, empty: EmptyMeans) -> Option<Provider> {
    let Some(custom) = read_kind(reader, fields, name) else {
        // Without a kind, the other fields have no meaning that could be checked.
        fields.skip_the_rest();
        return None;
    };
    let kind = custom.kind();
    let network = network::read(reader, fields, kind);
    let keys = read_keys(reader, fields, name, &custom, empty);
    let (concurrency_max, queue_max) = fields
        .read(reader, "concurrency_and_buffer_size", |r, n| r.object(n, read_concurrency))
        .unwrap_or((Provider::CONCURRENCY_MAX, Provider::QUEUE_MAX));
    let region = fields.read(reader, "region", Reader::name);
    Some(Provider {
        name: name.to_owned(),
        kind,
        dialect: kind.dialect(),
        region,
        keys,
        network: network?,
        concurrency_max,
        queue_max,
        custom: match custom {
            Kinds::Known(_) => None,
            Kinds::Custom(custom) => Some(custom),
        },
    })
}

/// Which vendor, or which base of a custom entry.
fn read_kind(reader: &mut Reader<'_>, fields: &mut Fields<'_>, name: &str) -> Option<Kinds> {
    let custom = fields.get(reader, "custom_provider_config");
    match (ProviderKind::from_name(name), custom) {
        (Some(kind), None) => Some(Kinds::Known(kind)),
        (Some(_), Some(node)) => {
            let problem = format!("{name} is a known provider");
            reader.fault(&node.place, problem, "another name for a custom provider");
            None
        }
        (None, Some(node)) => {
            let custom = reader.object(&node, read_custom).flatten();
            custom.map(Kinds::Custom)
        }
        (None, None) => {
            let problem = format!("unknown provider {}", quote(name));
            let expected = "a known provider, or custom_provider_config";
            let nearest = nearest(name, ProviderKind::names());
            reader.fault_near(&fields.place, problem, expected, nearest);
            None
        }
    }
}

enum Kinds {
    Known(ProviderKind),
    Custom(CustomProvider),
}

impl Kinds {
    fn kind(&self) -> ProviderKind {
        match self {
            Self::Known(kind) => *kind,
            Self::Custom(custom) => custom.base,
        }
    }

    fn is_keyless(&self) -> bool {
        matches!(self, Self::Custom(custom) if custom.is_keyless)
    }
}

fn read_custom(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<CustomProvider> {
    let is_keyless = read_switch(reader, fields, "is_key_less");
    let relay_all = read_switch(reader, fields, "relay_all");
    let expected = "the known provider whose dialect it speaks, such as \"openai\"";
    let node = fields.required(reader, "base_provider_type", expected)?;
    let text = reader.text(&node)?;
    let Some(base) = ProviderKind::from_name(&text) else {
        let nearest = nearest(&text, ProviderKind::names());
        reader.fault_near(&node.place, "unknown or unsupported provider", expected, nearest);
        return None;
    };
    Some(CustomProvider { base, is_keyless, relay_all })
}

fn read_keys(
    reader: &mut Reader<'_>,
    fields: &mut Fields<'_>,
    name: &str,
    kind: &Kinds,
    empty: EmptyMeans,
) -> Vec<crate::config::model::Key> {
    let can_do_without = kind.is_keyless() || kind.kind().is_self_hosted();
    let keys = fields.get(reader, "keys").map(|node| {
        let owner = Owner { provider: name, value_is_optional: can_do_without, empty };
        keys::read(reader, &node, owner)
    });
    if !can_do_without && keys.is_none() {
        let message = "no keys: only clients that bring their own are served";
        reader.warn(&fields.place, message);
    }
    keys.unwrap_or_default()
}

fn read_concurrency(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> (u32, u32) {
    let concurrency = fields.read(reader, "concurrency", |r, n| r.count(n, 1..=1_000_000));
    let buffer_size = fields.read(reader, "buffer_size", |r, n| r.count(n, 0..=1_000_000));
    (concurrency.unwrap_or(Provider::CONCURRENCY_MAX), buffer_size.unwrap_or(Provider::QUEUE_MAX))
}
