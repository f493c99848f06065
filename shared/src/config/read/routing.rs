//! `governance.routing_rules`.

use core::ops::RangeInclusive;
use std::collections::BTreeSet;

use super::cel;
use super::client::is_token;
use super::read_switch;
use crate::bounds::{FALLBACKS_MAX, ROUTES_MAX, ROUTING_HEADERS_MAX, ROUTING_RULES_MAX};
use crate::config::model::{Condition, Hop, Pattern, RoutingRule, RuleScope, Sticky, Subject, Target};
use crate::config::reader::{Fields, Node, Reader};
use crate::config::references::Kind;

/// Targets of one rule.
const TARGETS_MAX: usize = 64;
/// Names and patterns in one list of a match.
const PATTERNS_MAX: usize = 100;
/// Headers in one match.
const HEADERS_MAX: usize = 16;
const PRIORITIES: RangeInclusive<u64> = 0..=1_000_000;
/// Thirds are written as 0.333.
const WEIGHT_TOLERANCE: f64 = 0.001_000_001;
/// Longest expression.
const EXPRESSION_BYTES_MAX: usize = 4 * 1024;

/// Words of `scope`, with what `scope_id` names there.
const SCOPES: [(&str, Option<Kind>); 4] = [
    ("global", None),
    ("customer", Some(Kind::Customer)),
    ("team", Some(Kind::Team)),
    ("virtual_key", Some(Kind::VirtualKey)),
];

/// Endpoints that name a model, as metrics call them.
const ENDPOINTS: [(&str, &str); 8] = [
    ("chat", "chat"),
    ("completions", "completions"),
    ("embeddings", "embeddings"),
    ("responses", "responses"),
    ("messages", "messages"),
    ("generate", "generate"),
    ("cohere_chat", "cohere_chat"),
    ("other", "other"),
];

pub(super) fn read(reader: &mut Reader<'_>, node: &Node<'_>) -> Vec<RoutingRule> {
    let rules = reader.list(node, ROUTING_RULES_MAX, read_rule);
    let alternatives: usize = rules.iter().map(|rule| rule.alternatives.len()).sum();
    if alternatives > ROUTES_MAX {
        reader.fault(&node.place, format!("come to {alternatives} alternatives"), format!("at most {ROUTES_MAX}"));
    }
    let conditions = rules.iter().flat_map(|rule| rule.alternatives.iter().flatten());
    let matched = conditions.filter_map(|condition| match &condition.subject {
        Subject::Header(name) => Some(name),
        _ => None,
    });
    let headers: BTreeSet<&String> =
        matched.chain(rules.iter().filter_map(|rule| rule.sticky.header.as_ref())).collect();
    if headers.len() > ROUTING_HEADERS_MAX {
        let problem = format!("look at {} different headers", headers.len());
        reader.fault(&node.place, problem, format!("at most {ROUTING_HEADERS_MAX}"));
    }
    rules
}

fn read_rule(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<RoutingRule> {
    reader
        .object(node, |reader, fields| {
            let id = read_id(reader, fields);
            let is_enabled = fields.read(reader, "enabled", Reader::boolean).unwrap_or(true);
            refuse_chains(reader, fields);
            let rule = RoutingRule {
                is_enabled,
                scope: read_scope(reader, fields),
                priority: fields.read(reader, "priority", |r, n| r.count(n, PRIORITIES)).unwrap_or_default(),
                alternatives: read_conditions(reader, fields, is_enabled),
                targets: read_targets(reader, fields),
                fallbacks: read_fallbacks(reader, fields),
                sticky: fields.read(reader, "sticky", read_sticky).unwrap_or_default(),
                id: id?,
            };
            Some(rule)
        })
        .flatten()
}

/// The id, or the name where there is none.
fn read_id(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<String> {
    let id_node = fields.get(reader, "id");
    let name_node = fields.get(reader, "name");
    let name = name_node.as_ref().and_then(|node| reader.name(node));
    let id = id_node.as_ref().map_or(name, |node| reader.name(node));
    match (id_node.or(name_node), &id) {
        (Some(node), Some(id)) => reader.declare(Kind::RoutingRule, id, &node),
        (Some(_), None) => {}
        (None, _) => reader.fault(&fields.place, "\"name\" is missing", "a name of its own, or an id"),
    }
    id
}

/// Taken without its chain, a rule would lead elsewhere than its author means.
fn refuse_chains(reader: &mut Reader<'_>, fields: &mut Fields<'_>) {
    if let Some(node) = fields.get(reader, "chain_rule")
        && reader.boolean(&node) == Some(true)
    {
        let problem = "rules are not chained on this node";
        reader.fault(&node.place, problem, "false, and the targets that the chain ends at");
    }
}

fn read_scope(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> RuleScope {
    let words: Vec<(&'static str, usize)> = SCOPES.iter().map(|(word, _)| *word).zip(0..).collect();
    let at = fields.read(reader, "scope", |r, n| r.choice(n, &words)).unwrap_or_default();
    let kind = SCOPES.get(at).and_then(|(_, kind)| kind.clone());
    let node = fields.get(reader, "scope_id").filter(|node| !node.is_empty_text());
    match (kind, node) {
        (None, None) => RuleScope::Global,
        (None, Some(node)) => {
            reader.fault(&node.place, "belongs to another scope than global", "\"scope\" to say which");
            RuleScope::Global
        }
        (Some(_), None) => {
            reader.fault(&fields.place, "\"scope_id\" is missing", "whose requests this scope is about");
            RuleScope::Global
        }
        (Some(kind), Some(node)) => {
            let id = reader.name(&node).unwrap_or_default();
            if !id.is_empty() {
                reader.refer(kind.clone(), &id, &node);
            }
            match kind {
                Kind::VirtualKey => RuleScope::VirtualKey(id),
                Kind::Team => RuleScope::Team(id),
                _ => RuleScope::Customer(id),
            }
        }
    }
}

fn read_conditions(reader: &mut Reader<'_>, fields: &mut Fields<'_>, is_enabled: bool) -> Vec<Vec<Condition>> {
    let typed = fields.get(reader, "match");
    let expression = fields.get(reader, "cel_expression").filter(|node| !node.is_empty_text());
    match (typed, expression) {
        (None, None) => vec![Vec::new()],
        (Some(node), None) => reader.object(&node, read_match).into_iter().collect(),
        (None, Some(node)) => read_expression(reader, &node, is_enabled),
        (Some(_), Some(node)) => {
            reader.fault(&node.place, "there is a \"match\" as well", "one of them");
            Vec::new()
        }
    }
}

/// What is not understood in a rule that is off is a warning: it came along with the others.
fn read_expression(reader: &mut Reader<'_>, node: &Node<'_>, is_enabled: bool) -> Vec<Vec<Condition>> {
    let Some(text) = reader.text(node) else { return Vec::new() };
    if text.len() > EXPRESSION_BYTES_MAX {
        let expected = format!("{EXPRESSION_BYTES_MAX} bytes at most");
        reader.fault(&node.place, "is too long", expected);
        return Vec::new();
    }
    match cel::alternatives(&text) {
        Ok(alternatives) => {
            for condition in alternatives.iter().flatten() {
                refer_to_names(reader, node, condition);
            }
            alternatives
        }
        Err(fault) if is_enabled => {
            let problem = format!("at character {}: {}", fault.at, fault.problem);
            reader.fault(&node.place, problem, cel::EXPECTED);
            Vec::new()
        }
        Err(fault) => {
            let message =
                format!("this rule is off and could not be switched on: at character {}: {}", fault.at, fault.problem);
            reader.warn(&node.place, message);
            Vec::new()
        }
    }
}

/// Whole names in an expression have to exist, as those of a match.
fn refer_to_names(reader: &mut Reader<'_>, node: &Node<'_>, condition: &Condition) {
    let kind = match &condition.subject {
        Subject::Provider => Kind::Provider,
        Subject::VirtualKeyId => Kind::VirtualKey,
        Subject::VirtualKeyName => Kind::VirtualKeyName,
        Subject::TeamId => Kind::Team,
        Subject::CustomerId => Kind::Customer,
        Subject::Header(name) => return check_header(reader, node, name),
        Subject::Model | Subject::Endpoint | Subject::TeamName | Subject::CustomerName => return,
    };
    for pattern in &condition.patterns {
        if let Pattern::Equal(name) = pattern
            && !name.is_empty()
        {
            reader.refer(kind.clone(), name, node);
        }
    }
}

fn check_header(reader: &mut Reader<'_>, node: &Node<'_>, name: &str) {
    if !is_token(name) || name.len() > 128 {
        reader.fault(&node.place, "not a header name", "a token without blanks");
    }
}

fn read_match(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let mut add = |subject: Subject, patterns: Option<Vec<Pattern>>| {
        conditions.extend(patterns.map(|patterns| Condition { subject, is_negated: false, patterns }));
    };
    let models = fields.get(reader, "models");
    add(Subject::Model, models.map(|node| read_patterns(reader, &node)));
    for (name, subject, kind) in [
        ("providers", Subject::Provider, Kind::Provider),
        ("virtual_keys", Subject::VirtualKeyId, Kind::VirtualKey),
        ("teams", Subject::TeamId, Kind::Team),
        ("customers", Subject::CustomerId, Kind::Customer),
    ] {
        add(subject, fields.read(reader, name, |r, n| Some(read_ids(r, n, &kind))));
    }
    let endpoints = fields.get(reader, "endpoints").map(|node| {
        let words = reader.list(&node, PATTERNS_MAX, |r, n| r.choice(n, &ENDPOINTS));
        some(reader, &node, words.into_iter().map(|word| Pattern::Equal(word.to_owned())).collect())
    });
    add(Subject::Endpoint, endpoints);
    if let Some(node) = fields.get(reader, "headers") {
        reader.map(&node, HEADERS_MAX, |reader, name, node| {
            check_header(reader, node, name);
            let patterns = if node.is_list() {
                read_patterns(reader, node)
            } else {
                reader.name(node).map(|text| Pattern::parse(&text)).into_iter().collect()
            };
            add(Subject::Header(name.to_ascii_lowercase()), Some(patterns));
        });
    }
    conditions
}

fn read_patterns(reader: &mut Reader<'_>, node: &Node<'_>) -> Vec<Pattern> {
    let patterns = reader.list(node, PATTERNS_MAX, |r, n| r.name(n).map(|text| Pattern::parse(&text)));
    some(reader, node, patterns)
}

fn read_ids(reader: &mut Reader<'_>, node: &Node<'_>, kind: &Kind) -> Vec<Pattern> {
    let ids = reader.list(node, PATTERNS_MAX, |reader, node| {
        let id = reader.name(node)?;
        reader.refer(kind.clone(), &id, node);
        Some(Pattern::Equal(id))
    });
    some(reader, node, ids)
}

/// An empty list could mean everything and nothing.
fn some(reader: &mut Reader<'_>, node: &Node<'_>, patterns: Vec<Pattern>) -> Vec<Pattern> {
    if patterns.is_empty() && !reader.has_fault_below(&node.place) {
        reader.fault(&node.place, "an empty list fits nothing", "what is to fit, or the field left out");
    }
    patterns
}

/// The targets, and behind them the one that is tried with a part of the requests.
fn read_targets(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Vec<Target> {
    let node = fields.get(reader, "targets");
    let canary_node = fields.get(reader, "canary");
    let canary = canary_node.as_ref().and_then(|node| reader.object(node, read_canary).flatten());
    let mut targets = match &node {
        Some(node) => reader.list(node, TARGETS_MAX, |r, n| r.object(n, read_target).flatten()),
        None => Vec::new(),
    };
    match (&node, &canary_node) {
        (None, None) => {
            reader.fault(&fields.place, "\"targets\" is missing", "at least one target, or a canary");
        }
        // What is not for the canary goes where the client asks.
        (None, _) => targets.push((Hop::default(), Some(1.0))),
        (Some(node), _) if !reader.has_fault_below(&node.place) => check_weights(reader, node, &targets),
        (Some(_), _) => {}
    }
    let rest = canary.as_ref().map_or(1.0, |canary| 1.0 - canary.weight);
    let targets = targets.into_iter().map(|(hop, weight)| Target { hop, weight: weight.unwrap_or(1.0) * rest });
    targets.chain(canary).collect()
}

fn check_weights(reader: &mut Reader<'_>, node: &Node<'_>, targets: &[(Hop, Option<f64>)]) {
    if targets.is_empty() {
        reader.fault(&node.place, "there is no target", "at least one");
    } else if targets.len() > 1 && targets.iter().any(|(_, weight)| weight.is_none()) {
        reader.fault(&node.place, "a target has no weight", "a weight for each of several targets; they sum to 1");
    } else {
        let sum: f64 = targets.iter().map(|(_, weight)| weight.unwrap_or(1.0)).sum();
        if (sum - 1.0).abs() > WEIGHT_TOLERANCE {
            // Nine digits hide what binary fractions add.
            let sum = (sum * 1e9).round() / 1e9;
            reader.fault(&node.place, format!("the weights sum to {sum}"), "weights that sum to 1");
        }
    }
}

fn read_target(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<(Hop, Option<f64>)> {
    let hop = read_hop(reader, fields);
    let weight = fields.get(reader, "weight").map(|node| reader.number(&node, 0.0..=1.0));
    Some((hop?, weight.map(Option::unwrap_or_default)))
}

fn read_canary(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Target> {
    let hop = read_hop(reader, fields);
    let percent = fields.required(reader, "percent", "a part of the requests, 0 to 100");
    let percent = percent.and_then(|node| reader.number(&node, 0.0..=100.0));
    if hop == Some(Hop::default()) {
        reader.fault(&fields.place, "leads nowhere else", "a provider, a model or both");
    }
    Some(Target { hop: hop?, weight: percent? / 100.0 })
}

/// `None` where a part of it is wrong: what is left would be somewhere else.
fn read_hop(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Option<Hop> {
    let provider_node = fields.get(reader, "provider").filter(|node| !node.is_empty_text());
    let model_node = fields.get(reader, "model").filter(|node| !node.is_empty_text());
    // Files name a key, exports its id; both are looked for.
    let named = fields.get(reader, "provider_key_name").filter(|node| !node.is_empty_text());
    let key_node = fields.get(reader, "key_id").filter(|node| !node.is_empty_text()).or(named);
    let provider = provider_node.as_ref().map(|node| reader.name(node));
    let model = model_node.as_ref().map(|node| reader.name(node));
    let key = key_node.as_ref().map(|node| reader.name(node));
    if let (Some(node), Some(Some(name))) = (&provider_node, &provider) {
        reader.refer(Kind::Provider, name, node);
    }
    if let (Some(node), Some(Some(model)), None) = (&model_node, &model, &provider)
        && model.contains('/')
    {
        let expected = "the model's own name, and \"provider\" beside it";
        reader.fault(&node.place, "a model with a / may name a provider or not", expected);
    }
    match (&key_node, &key, &provider) {
        (Some(node), _, None) => reader.fault(&node.place, "a key of which provider is not said", "\"provider\""),
        (Some(node), Some(Some(key)), Some(Some(provider))) => {
            reader.refer(Kind::Key(provider.clone()), key, node);
        }
        _ => {}
    }
    let is_whole = |part: &Option<Option<String>>| *part != Some(None);
    let is_read = is_whole(&provider) && is_whole(&model) && is_whole(&key);
    is_read.then(|| Hop { provider: provider.flatten(), model: model.flatten(), key: key.flatten() })
}

fn read_fallbacks(reader: &mut Reader<'_>, fields: &mut Fields<'_>) -> Vec<Hop> {
    let Some(node) = fields.get(reader, "fallbacks") else { return Vec::new() };
    reader.list(&node, FALLBACKS_MAX, |reader, node| {
        if node.is_object() {
            let hop = reader.object(node, read_hop).flatten()?;
            if hop.provider.is_none() {
                reader.fault(&node.place, "\"provider\" is missing", "the name of a provider");
            }
            return Some(hop);
        }
        let text = reader.name(node)?;
        let Some((provider, model)) = text.split_once('/') else {
            let expected = "\"PROVIDER/MODEL\", or \"PROVIDER/\" for the model that was asked for";
            reader.fault(&node.place, "names no provider", expected);
            return None;
        };
        reader.refer(Kind::Provider, provider, node);
        let model = Some(model).filter(|model| !model.is_empty()).map(str::to_owned);
        Some(Hop { provider: Some(provider.to_owned()), model, key: None })
    })
}

fn read_sticky(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Sticky> {
    reader.object(node, |reader, fields| {
        let header = fields.get(reader, "header").and_then(|node| {
            let name = reader.name(&node)?.to_ascii_lowercase();
            check_header(reader, &node, &name);
            Some(name)
        });
        let sticky = Sticky { header, virtual_key: read_switch(reader, fields, "virtual_key") };
        if sticky == Sticky::default() && !reader.has_fault_below(&fields.place) {
            reader.fault(&fields.place, "by nothing", "\"header\", \"virtual_key\": true or both");
        }
        sticky
    })
}
