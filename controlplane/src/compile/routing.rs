//! `governance.routing_rules` → routes in the order in which cores look at them.

use super::{Config, config, index};
use ring::digest;
use shared::snapshot::routing::{
    ConditionRecord, Fits, GroupRecord, HopRecord, NO_KEY, PatternRecord, RouteRecord, RoutingRecord, RuleRecord,
    Subject, TargetRecord,
};
use std::collections::{BTreeMap, HashMap};

/// The routes, and what an operator should know of them. `key_by_id`: index of a key by its
/// provider's index and its id; keys that are switched off are not in it.
pub(super) fn routing(config: &Config, key_by_id: &BTreeMap<(u32, String), u32>) -> (RoutingRecord, Vec<String>) {
    let governance = &config.governance;
    let group = |id: &String, name: &String| GroupRecord { id: id.clone(), name: name.clone() };
    let mut out = Routes {
        providers: config.providers.iter().map(|provider| provider.name.as_str()).zip(0..).collect(),
        key_by_id,
        record: RoutingRecord {
            teams: governance.teams.iter().map(|team| group(&team.id, &team.name)).collect(),
            customers: governance.customers.iter().map(|customer| group(&customer.id, &customer.name)).collect(),
            ..RoutingRecord::default()
        },
        by_model: BTreeMap::new(),
        warnings: Vec::new(),
    };
    let mut rules: Vec<&config::RoutingRule> = governance.routing_rules.iter().filter(|rule| rule.is_enabled).collect();
    rules.sort_by_key(|rule| (rank(&rule.scope), rule.priority, rule.id.as_str()));
    for rule in rules {
        out.rule(rule);
    }
    out.record.by_model = out.by_model.into_iter().map(|(model, routes)| (model.to_owned(), routes)).collect();
    (out.record, out.warnings)
}

/// Positions of teams and customers among those of [`routing`], by their ids.
pub(super) struct Groups<'c> {
    /// With the team's customer.
    teams: HashMap<&'c str, (u32, Option<&'c String>)>,
    customers: HashMap<&'c str, u32>,
}

impl<'c> Groups<'c> {
    pub(super) fn new(config: &'c Config) -> Self {
        let governance = &config.governance;
        let teams = governance.teams.iter().zip(0..);
        let customers = governance.customers.iter().zip(0..);
        Self {
            teams: teams.map(|(team, at)| (team.id.as_str(), (at, team.customer_id.as_ref()))).collect(),
            customers: customers.map(|(customer, at)| (customer.id.as_str(), at)).collect(),
        }
    }

    /// Those of a virtual key. A team's customer is that of its virtual keys.
    pub(super) fn of(&self, key: &'c config::VirtualKey) -> (Option<u32>, Option<u32>) {
        let team = key.team_id.as_ref().and_then(|id| self.teams.get(id.as_str()));
        let customer_id = team.map_or(key.customer_id.as_ref(), |(_, customer)| *customer);
        let customer = customer_id.and_then(|id| self.customers.get(id.as_str()).copied());
        (team.map(|(at, _)| *at), customer)
    }
}

/// The narrower scope comes first.
fn rank(scope: &config::RuleScope) -> u8 {
    match scope {
        config::RuleScope::VirtualKey(_) => 0,
        config::RuleScope::Team(_) => 1,
        config::RuleScope::Customer(_) => 2,
        config::RuleScope::Global => 3,
    }
}

struct Routes<'c> {
    providers: BTreeMap<&'c str, u32>,
    key_by_id: &'c BTreeMap<(u32, String), u32>,
    record: RoutingRecord,
    by_model: BTreeMap<&'c str, Vec<u32>>,
    warnings: Vec<String>,
}

impl<'c> Routes<'c> {
    fn rule(&mut self, rule: &'c config::RoutingRule) {
        let at = index(self.record.rules.len());
        let targets = rule.targets.iter().filter(|target| target.weight > 0.0);
        let record = RuleRecord {
            targets: targets
                .map(|target| TargetRecord { weight: target.weight, hop: self.hop(rule, &target.hop) })
                .collect(),
            fallbacks: rule.fallbacks.iter().map(|hop| self.hop(rule, hop)).collect(),
            sticky_header: rule.sticky.header.as_ref().map(|name| self.header(name)),
            sticks_to_virtual_key: rule.sticky.virtual_key,
            salt: salt(&rule.id),
            id: rule.id.clone(),
        };
        self.record.rules.push(record);
        for alternative in &rule.alternatives {
            let route = index(self.record.routes.len());
            let scope = scope_condition(&rule.scope);
            let own = alternative.iter().map(|condition| self.condition(condition));
            let conditions = scope.into_iter().chain(own.collect::<Vec<_>>()).collect();
            self.record.routes.push(RouteRecord { rule: at, conditions });
            match models_of(alternative) {
                Some(models) => {
                    for model in models {
                        let routes = self.by_model.entry(model).or_default();
                        if routes.last() != Some(&route) {
                            routes.push(route);
                        }
                    }
                }
                None => self.record.any_model.push(route),
            }
        }
    }

    fn condition(&mut self, condition: &config::Condition) -> ConditionRecord {
        let subject = match &condition.subject {
            config::Subject::Model => Subject::Model,
            config::Subject::Provider => Subject::Provider,
            config::Subject::Endpoint => Subject::Endpoint,
            config::Subject::VirtualKeyId => Subject::VirtualKeyId,
            config::Subject::VirtualKeyName => Subject::VirtualKeyName,
            config::Subject::TeamId => Subject::TeamId,
            config::Subject::TeamName => Subject::TeamName,
            config::Subject::CustomerId => Subject::CustomerId,
            config::Subject::CustomerName => Subject::CustomerName,
            config::Subject::Header(name) => Subject::Header(self.header(name)),
        };
        let patterns = condition.patterns.iter().map(pattern).collect();
        ConditionRecord { subject, is_negated: condition.is_negated, patterns }
    }

    fn header(&mut self, name: &str) -> u32 {
        let headers = &mut self.record.headers;
        let at = headers.iter().position(|known| known == name).unwrap_or_else(|| {
            headers.push(name.to_owned());
            headers.len() - 1
        });
        index(at)
    }

    fn hop(&mut self, rule: &config::RoutingRule, hop: &config::Hop) -> HopRecord {
        // Loading has refused providers and keys that do not exist.
        let provider = hop.provider.as_ref().and_then(|name| self.providers.get(name.as_str()).copied());
        let key = hop.key.as_ref().map(|id| {
            let found = provider.and_then(|provider| self.key_by_id.get(&(provider, id.clone())).copied());
            found.unwrap_or_else(|| {
                let provider = hop.provider.as_deref().unwrap_or_default();
                let rule = &rule.id;
                self.warnings.push(format!(
                    "routing rule {rule} wants key {id} of provider {provider}, which is switched off; its fallbacks \
                     are asked instead"
                ));
                NO_KEY
            })
        });
        HopRecord { provider, model: hop.model.clone(), key }
    }
}

fn scope_condition(scope: &config::RuleScope) -> Option<ConditionRecord> {
    let (subject, id) = match scope {
        config::RuleScope::VirtualKey(id) => (Subject::VirtualKeyId, id),
        config::RuleScope::Team(id) => (Subject::TeamId, id),
        config::RuleScope::Customer(id) => (Subject::CustomerId, id),
        config::RuleScope::Global => return None,
    };
    let patterns = vec![PatternRecord { fits: Fits::Whole, text: id.clone() }];
    Some(ConditionRecord { subject, is_negated: false, patterns })
}

fn pattern(pattern: &config::Pattern) -> PatternRecord {
    let (fits, text) = match pattern {
        config::Pattern::Equal(text) => (Fits::Whole, text),
        config::Pattern::Prefix(text) => (Fits::Prefix, text),
        config::Pattern::Suffix(text) => (Fits::Suffix, text),
        config::Pattern::Contains(text) => (Fits::Part, text),
    };
    PatternRecord { fits, text: text.clone() }
}

/// The only models that conditions hold for, where they name them.
fn models_of(conditions: &[config::Condition]) -> Option<Vec<&str>> {
    fn whole(pattern: &config::Pattern) -> Option<&str> {
        match pattern {
            config::Pattern::Equal(text) => Some(text),
            _ => None,
        }
    }
    let about_models = conditions.iter().filter(|one| one.subject == config::Subject::Model && !one.is_negated);
    about_models.map(|condition| condition.patterns.iter().map(whole).collect()).find(Option::is_some).flatten()
}

fn salt(id: &str) -> u64 {
    let digest = digest::digest(&digest::SHA256, id.as_bytes());
    digest.as_ref().first_chunk().copied().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
