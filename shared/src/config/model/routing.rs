//! `governance.routing_rules`: which requests go elsewhere than their model says, and where to.

/// One rule. Of those that hold for a request the first one decides.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingRule {
    /// Unique; the name where the file says no id.
    pub id: String,
    /// `enabled`: whether it is looked at.
    pub is_enabled: bool,
    /// Whose requests it is about.
    pub scope: RuleScope,
    /// Within its scope the lower ones come first, and among equals the lower ids.
    pub priority: u32,
    /// It holds where every condition of one of these does.
    pub alternatives: Vec<Vec<Condition>>,
    /// One of them is drawn for each request. Their weights sum to 1, nearly.
    pub targets: Vec<Target>,
    /// Asked in this order after the target. Empty: those that the client names.
    pub fallbacks: Vec<Hop>,
    /// What is to get the same target every time.
    pub sticky: Sticky,
}

/// Whose requests a rule is about. The order is the order in which rules are looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RuleScope {
    /// Those of this virtual key, by its id.
    VirtualKey(String),
    /// Those of the team's virtual keys.
    Team(String),
    /// Those of the customer's virtual keys, and of the virtual keys of its teams.
    Customer(String),
    /// Everybody's.
    Global,
}

/// What a request has to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What is looked at.
    pub subject: Subject,
    /// None of the patterns may fit. A header has to be there all the same.
    pub is_negated: bool,
    /// One of them has to fit. Empty, of a header only: it has to be there.
    pub patterns: Vec<Pattern>,
}

/// What a condition looks at. What a request does not have is empty, except headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The model as the client names it: without its provider, or with it.
    Model,
    /// The provider that is named with the model or by the path.
    Provider,
    /// What kind of request it is, as metrics call it.
    Endpoint,
    /// The virtual key's id.
    VirtualKeyId,
    /// The virtual key's name.
    VirtualKeyName,
    /// The id of the virtual key's team.
    TeamId,
    /// The name of the virtual key's team.
    TeamName,
    /// The id of the customer that the virtual key or its team belongs to.
    CustomerId,
    /// The name of that customer.
    CustomerName,
    /// Each value of the header with this name, in small letters.
    Header(String),
}

/// Which texts fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// This one.
    Equal(String),
    /// Those that begin with it.
    Prefix(String),
    /// Those that end with it.
    Suffix(String),
    /// Those that have it somewhere.
    Contains(String),
}

impl Pattern {
    /// Reads a pattern as a configuration has it: `*` at an end stands for anything there.
    pub fn parse(text: &str) -> Self {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(rest), Some(_)) => Self::Contains(rest.strip_suffix('*').unwrap_or_default().to_owned()),
            (Some(end), None) => Self::Suffix(end.to_owned()),
            (None, Some(start)) => Self::Prefix(start.to_owned()),
            (None, None) => Self::Equal(text.to_owned()),
        }
    }
}

/// Somewhere that a rule may lead.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Where it leads.
    pub hop: Hop,
    /// Share of the requests.
    pub weight: f64,
}

/// Where a request goes. What is left out stays as the client asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hop {
    /// Name of the provider.
    pub provider: Option<String>,
    /// The model as clients say it, without its provider.
    pub model: Option<String>,
    /// Id or name of one of the provider's keys, which then is the only one.
    pub key: Option<String>,
}

/// What decides about the target, so that the same gets the same one while the rule stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sticky {
    /// The value of this header, where a request has it.
    pub header: Option<String>,
    /// Else the virtual key.
    pub virtual_key: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_at_an_end_stands_for_anything_there() {
        let text = || "x".to_owned();
        assert_eq!(Pattern::parse("x"), Pattern::Equal(text()));
        assert_eq!(Pattern::parse("x*"), Pattern::Prefix(text()));
        assert_eq!(Pattern::parse("*x"), Pattern::Suffix(text()));
        assert_eq!(Pattern::parse("*x*"), Pattern::Contains(text()));
        assert_eq!(Pattern::parse("*"), Pattern::Contains(String::new()));
        assert_eq!(Pattern::parse("a*b"), Pattern::Equal("a*b".to_owned()));
    }
}
