//! Ids that exist and ids that are referred to, compared once everything is read: the order of
//! sections in a file does not matter.

use std::collections::BTreeSet;

use super::nearest::nearest;
use super::reader::{Node, Place, Reader, quote};

/// What an id names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Provider,
    /// A key of the provider of this name.
    Key(String),
    RateLimit,
    Budget,
    Team,
    Customer,
    VirtualKey,
    VirtualKeyName,
    ModelConfig,
    ProviderLimit,
    ApiToken,
    RoutingRule,
}

impl Kind {
    fn noun(&self) -> String {
        match self {
            Self::Provider => "provider".to_owned(),
            Self::Key(provider) => format!("key of {provider}"),
            Self::RateLimit => "rate limit".to_owned(),
            Self::Budget => "budget".to_owned(),
            Self::Team => "team".to_owned(),
            Self::Customer => "customer".to_owned(),
            Self::VirtualKey => "virtual key".to_owned(),
            Self::VirtualKeyName => "virtual key name".to_owned(),
            Self::ModelConfig => "model configuration".to_owned(),
            Self::ProviderLimit => "entry for the provider".to_owned(),
            Self::ApiToken => "API token".to_owned(),
            Self::RoutingRule => "routing rule".to_owned(),
        }
    }
}

/// All ids of a document.
#[derive(Default)]
pub(super) struct Names {
    declared: BTreeSet<(Kind, String)>,
    referred: Vec<Reference>,
}

struct Reference {
    kind: Kind,
    name: String,
    /// The name for messages: empty where it came from a variable or a file.
    shown: String,
    place: Place,
}

impl Reader<'_> {
    /// Notes that `name`, which stands in `node`, exists; a second one is a fault.
    pub(super) fn declare(&mut self, kind: Kind, name: &str, node: &Node<'_>) {
        let noun = kind.noun();
        if !self.names.declared.insert((kind, name.to_owned())) {
            let problem = format!("a second {noun}{}", shown(name, node));
            self.fault(&node.place, problem, "a name of its own");
        }
    }

    /// Notes that `name`, which stands in `node`, has to exist.
    pub(super) fn refer(&mut self, kind: Kind, name: &str, node: &Node<'_>) {
        self.names.referred.push(Reference {
            kind,
            name: name.to_owned(),
            shown: shown(name, node),
            place: node.place.clone(),
        });
    }

    /// A fault for every name that is referred to and does not exist.
    pub(super) fn check_references(&mut self) {
        let Names { declared, referred } = core::mem::take(&mut self.names);
        for reference in referred {
            let target = (reference.kind, reference.name);
            if declared.contains(&target) {
                continue;
            }
            let (kind, name) = target;
            let known: Vec<&str> =
                declared.iter().filter(|(other, _)| *other == kind).map(|(_, name)| name.as_str()).collect();
            let expected = if known.is_empty() {
                format!("the {} to be declared", kind.noun())
            } else {
                format!("one of the {} declared", known.len())
            };
            let nearest = nearest(&name, known);
            let problem = format!("there is no {}{}", kind.noun(), reference.shown);
            self.fault_near(&reference.place, problem, expected, nearest);
        }
    }
}

fn shown(name: &str, node: &Node<'_>) -> String {
    if node.is_reference() { String::new() } else { format!(" {}", quote(name)) }
}
