//! The ways in which a configuration can have this limit kept, compiled as a node does.

use super::counts::Count;
pub(crate) use controlplane::compile::Compiled;
use controlplane::compile::{NodeFacts, compile};
use shared::config::{Sources, load};

/// One way.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) enforcement: &'static str,
    /// Nothing: left out, for a limit of a provider.
    pub(crate) charge: Option<&'static str>,
    /// Of `statistical`.
    pub(crate) probability: Option<f64>,
    /// What its provider counts.
    pub(crate) count: Count,
}

const fn rule(enforcement: &'static str, charge: Option<&'static str>, count: Count) -> Rule {
    Rule { enforcement, charge, probability: None, count }
}

const fn statistical(probability: f64) -> Rule {
    Rule { probability: Some(probability), ..rule("statistical", Some("produced"), Count::Produced) }
}

/// All that fit what a provider counts.
pub(crate) const RULES: &[Rule] = &[
    rule("strict", Some("produced"), Count::Produced),
    rule("strict", None, Count::Produced),
    statistical(0.01),
    statistical(0.1),
    rule("gossip", Some("produced"), Count::Produced),
    rule("strict", Some("admission"), Count::Door),
    rule("strict", None, Count::Door),
    rule("admission", Some("admission"), Count::Door),
    rule("gossip", Some("admission"), Count::Door),
    rule("strict", Some("input"), Count::Prompt),
    rule("admission", Some("input"), Count::Prompt),
    rule("gossip", Some("input"), Count::Prompt),
];

impl Rule {
    pub(crate) fn named(&self) -> String {
        let charge = self.charge.unwrap_or("left out");
        match self.probability {
            Some(probability) => format!("{}, {probability}", self.enforcement),
            None => format!("{}, {charge}", self.enforcement),
        }
    }

    /// Nodes keep to what they hear of each other.
    pub(crate) fn is_by_news(&self) -> bool {
        self.enforcement == "gossip"
    }

    /// It never exceeds in the count of its provider.
    pub(crate) fn is_firm(&self) -> bool {
        matches!(self.enforcement, "strict" | "admission")
    }
}

/// A limit of so many tokens a minute in a cluster of so many nodes, as cores get it.
pub(crate) fn compiled(rule: &Rule, amount: u64, nodes: usize) -> Compiled {
    let charge = rule.charge.map_or_else(String::new, |charge| format!(r#", "charge": "{charge}""#));
    let probability =
        rule.probability.map_or_else(String::new, |probability| format!(r#", "overshoot_probability": {probability}"#));
    let text = format!(
        r#"{{"version": 1,
            "providers": {{"openai": {{"keys": [{{"name": "first", "value": "sk-1"}}]}}}},
            "governance": {{
                "rate_limits": [{{"id": "trace", "token_max_limit": {amount}, "token_reset_duration": "1m",
                                 "enforcement": "{}"{charge}{probability}}}],
                "providers": [{{"name": "openai", "rate_limit_id": "trace"}}]}},
            "cluster_config": {{"enabled": {}, "peers": ["10.0.0.2:10101"]}}}}"#,
        rule.enforcement,
        nodes > 1,
    );
    let loaded = load(&text, &Sources::none()).unwrap_or_else(|faults| panic!("{faults:?}"));
    let facts = NodeFacts { lookup_key: [0; 32], node_id: "n0".to_owned(), cores: 2 };
    compile(&loaded.config, &facts).expect("a minute can be counted")
}
