//! Routing rules as cores read them: alternatives written out, in the order in which they are
//! looked at, and found by the model that a request names.

use rkyv::{Archive, Deserialize, Serialize};

/// Every rule that is on.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct RoutingRecord {
    /// Alternatives of all rules. The first that holds decides.
    pub routes: Vec<RouteRecord>,
    /// Routes that hold for certain models only, ascending, by the name of each; sorted by name.
    pub by_model: Vec<(String, Vec<u32>)>,
    /// All other routes, ascending.
    pub any_model: Vec<u32>,
    /// What routes lead to.
    pub rules: Vec<RuleRecord>,
    /// Names of the headers that are looked at, in small letters.
    pub headers: Vec<String>,
    /// Teams that virtual keys belong to.
    pub teams: Vec<GroupRecord>,
    /// Customers that virtual keys or their teams belong to.
    pub customers: Vec<GroupRecord>,
}

/// Conditions that all have to hold.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct RouteRecord {
    /// Index of the rule.
    pub rule: u32,
    /// None: it always holds.
    pub conditions: Vec<ConditionRecord>,
}

/// What a request has to be like; see the configuration's words of the same names.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ConditionRecord {
    /// What is looked at.
    pub subject: Subject,
    /// None of the patterns may fit.
    pub is_negated: bool,
    /// One of them has to fit; of a header without any, that it is there.
    pub patterns: Vec<PatternRecord>,
}

/// What a condition looks at.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The model, with its provider and without.
    Model,
    /// The provider that is named.
    Provider,
    /// The endpoint's name in metrics.
    Endpoint,
    /// The virtual key's id.
    VirtualKeyId,
    /// The virtual key's name.
    VirtualKeyName,
    /// Its team's id.
    TeamId,
    /// Its team's name.
    TeamName,
    /// Its customer's id.
    CustomerId,
    /// Its customer's name.
    CustomerName,
    /// The header with this index.
    Header(u32),
}

/// Which texts fit.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct PatternRecord {
    /// In which way.
    pub fits: Fits,
    /// What is looked for.
    pub text: String,
}

/// How a text is compared.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq), compare(PartialEq))]
#[repr(u8)]
pub enum Fits {
    /// As a whole.
    Whole,
    /// At its beginning.
    Prefix,
    /// At its end.
    Suffix,
    /// Anywhere.
    Part,
}

/// A rule, once a route of it holds.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct RuleRecord {
    /// Its id in the configuration; safe to log.
    pub id: String,
    /// One of them is drawn. Some weight is above zero.
    pub targets: Vec<TargetRecord>,
    /// Asked after the target, in this order. None: those that the client names.
    pub fallbacks: Vec<HopRecord>,
    /// Index of the header whose value decides the draw, where a request has it.
    pub sticky_header: Option<u32>,
    /// Else the virtual key decides it.
    pub sticks_to_virtual_key: bool,
    /// The same on all nodes and another for each rule: who is drawn by one is not drawn by all.
    pub salt: u64,
}

/// A target of a rule.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct TargetRecord {
    /// Share of the requests, relative to the other targets.
    pub weight: f64,
    /// Where it leads.
    pub hop: HopRecord,
}

/// Where a request goes; what is `None` is as the client asked.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct HopRecord {
    /// Index of the provider.
    pub provider: Option<u32>,
    /// The model as clients say it, without its provider.
    pub model: Option<String>,
    /// Index of the only key that may be used; [`NO_KEY`] where that one is switched off.
    pub key: Option<u32>,
}

/// The index of no key.
pub const NO_KEY: u32 = u32::MAX;

/// A team or a customer.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Its id in the configuration.
    pub id: String,
    /// Its name there.
    pub name: String,
}
