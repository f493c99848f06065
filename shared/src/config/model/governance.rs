//! Who may ask for what, and how much of it: virtual keys, limits, budgets.
//!
//! Ids are the file's own strings. Loading has checked that each one exists and is unique.

use core::fmt;
use core::num::{NonZeroU32, NonZeroU64};
use core::time::Duration;
use std::sync::Arc;

use super::provider::is_listed;
use super::{Models, Origin, RoutingRule, Secret, Window};

/// `governance`.
#[derive(Debug, Default, PartialEq)]
pub struct Governance {
    /// Clients' credentials at the gateway. Those that a change leaves alone are the same ones before
    /// and after it.
    pub virtual_keys: Vec<Arc<VirtualKey>>,
    /// Limits that the others refer to.
    pub rate_limits: Vec<RateLimit>,
    /// Money that the others refer to.
    pub budgets: Vec<Budget>,
    /// Limits and caps of models.
    pub model_configs: Vec<ModelConfig>,
    /// Limits of whole providers.
    pub providers: Vec<ProviderLimit>,
    /// Groups of virtual keys.
    pub teams: Vec<Team>,
    /// Groups of teams.
    pub customers: Vec<Customer>,
    /// Where requests go instead of where their model says.
    pub routing_rules: Vec<RoutingRule>,
    /// Who may use the admin interface.
    pub auth: AdminAuth,
}

/// A client's credential at the gateway. It never goes upstream.
#[derive(PartialEq)]
pub struct VirtualKey {
    /// Unique.
    pub id: String,
    /// For people; unique too.
    pub name: String,
    /// What clients send. Unique; a file that leaves it out is refused.
    pub value: Secret,
    /// Where the value's text came from.
    pub origin: Origin,
    /// A key that is not active is answered with 403.
    pub is_active: bool,
    /// Limit over everything this key asks for.
    pub rate_limit_id: Option<String>,
    /// Budgets over everything this key asks for.
    pub budget_ids: Vec<String>,
    /// Group.
    pub team_id: Option<String>,
    /// Group, for keys without a team.
    pub customer_id: Option<String>,
    /// What it may reach. `None`: every provider (files of version 1 only); an empty list: none.
    pub grants: Option<Vec<ProviderGrant>>,
}

impl fmt::Debug for VirtualKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualKey")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("fingerprint", &self.value.fingerprint())
            .field("origin", &self.origin)
            .field("is_active", &self.is_active)
            .field("rate_limit_id", &self.rate_limit_id)
            .field("budget_ids", &self.budget_ids)
            .field("team_id", &self.team_id)
            .field("customer_id", &self.customer_id)
            .field("grants", &self.grants)
            .finish_non_exhaustive()
    }
}

/// One of a virtual key's `provider_configs`.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderGrant {
    /// Name of the provider.
    pub provider: String,
    /// Share of the requests that name no provider. `None`: only when it is named.
    pub weight: Option<f64>,
    /// Models at this provider.
    pub allowed_models: Models,
    /// Exceptions from [`ProviderGrant::allowed_models`]; `*` stands for all.
    pub blacklisted_models: Vec<String>,
    /// Ids of the provider's keys, as in `Key::id`. `None`: all of them.
    pub key_ids: Option<Vec<String>>,
    /// Limit over what this key asks of this provider.
    pub rate_limit_id: Option<String>,
    /// Budgets over what this key asks of this provider.
    pub budget_ids: Vec<String>,
}

impl ProviderGrant {
    /// Whether this grant covers `model` (as clients say it).
    pub fn allows(&self, model: &str) -> bool {
        self.allowed_models.allows(model) && !is_listed(&self.blacklisted_models, model)
    }
}

/// So many requests, tokens or both, in the whole cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimit {
    /// Unique.
    pub id: String,
    /// `request_max_limit` in `request_reset_duration`.
    pub requests: Option<Allowance>,
    /// `token_max_limit` in `token_reset_duration`.
    pub tokens: Option<Allowance>,
    /// `enforcement`.
    pub enforcement: Enforcement,
    /// `concurrent_max_limit`: requests that may run at once.
    pub concurrent: Option<NonZeroU64>,
    /// `overshoot_probability`, of a statistical limit only: the part of the answers that may
    /// need more tokens than were reserved for them.
    pub overshoot_probability: f64,
    /// `on_node_loss`. `None`: reclaim with three or more expected nodes, keep below.
    pub on_node_loss: Option<OnNodeLoss>,
    /// `charge`: what counts as spent tokens, and when. `None`: see [`Charge`].
    pub charge: Option<Charge>,
    /// `sub_window`: the provider's finer grain, e.g. 1 s or 10 s of a minute, in which it allows
    /// its part of the amount and no more.
    pub sub_window: Option<Duration>,
    /// `max_wait`: how long a request may wait for units. Zero: it is refused at once.
    pub max_wait: Duration,
    /// Holds on the nodes of this region only; `None`: everywhere.
    pub region: Option<String>,
}

/// An amount in a sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Units in any window.
    pub max: Amount,
    /// How long a unit stays spent.
    pub window: Window,
}

/// How many units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// As the file says.
    Known(NonZeroU64),
    /// `"auto"`: what the provider's answers say. Nothing is limited before the first of them.
    Learned,
}

impl Amount {
    /// What the file says, where it says it.
    pub fn known(self) -> Option<u64> {
        match self {
            Self::Known(amount) => Some(amount.get()),
            Self::Learned => None,
        }
    }
}

/// How firmly a limit holds across nodes, and what is reserved for tokens that are not known yet.
///
/// Requests cost one each and need no estimate, so that for them `strict`, `admission` and
/// `statistical` are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Enforcement {
    /// `strict`: never exceeded; reserves what a request may use at most.
    #[default]
    Strict,
    /// `admission`: the provider's own formula at the door, a quarter of the prompt's characters
    /// and the most output asked for. What the provider counts, and not a bound on what is used.
    Admission,
    /// `statistical`: reserves a learned amount; an answer may need more with a stated probability.
    Statistical,
    /// `gossip`: own use and the last seen use of the others, each node held to a pace.
    Gossip,
}

/// What becomes of a lost node's part of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNodeLoss {
    /// `keep`: nobody else may spend it.
    Keep,
    /// `reclaim`: the others take it over after its lease.
    Reclaim,
}

/// Which tokens count, and when.
///
/// Providers differ. Those that count at their door count the most that may come and give nothing
/// back; what came counts too late there, or not at all. Those that count what was used go on to
/// count until the answer ends, when a door's count is a minute old. No single one of the rules
/// below is safe for both. So where the file says nothing, it depends on who counts:
///
/// - A limit of virtual keys, and of what they may use of a provider, is counted by nobody but the
///   nodes, and what was used is what its owner means: [`Charge::Produced`].
/// - A limit of a provider, a key or a model stands for what somebody else counts in a way that is
///   not known. There each unit counts as long as either kind would count it, which is never
///   exceeded and never full. Say how the provider counts, and it can be full: 98 % with
///   [`Charge::Admission`], less with [`Charge::Produced`], whose reservations are held while the
///   answer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// `admission`: prompt and possible output, at the door; nothing comes back.
    Admission,
    /// `input`: the prompt only.
    Input,
    /// `produced`: prompt and output as they were used.
    Produced,
}

/// An amount of money in a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Unique.
    pub id: String,
    /// `max_limit`, in millionths of a US dollar.
    pub max_micro_usd: u64,
    /// `reset_duration`.
    pub window: Window,
}

/// What holds for a model whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelConfig {
    /// `model_name`. `None`: `*`, each model.
    pub model: Option<String>,
    /// `None`: at every provider.
    pub provider: Option<String>,
    /// Limit over the model.
    pub rate_limit_id: Option<String>,
    /// Budgets over the model.
    pub budget_ids: Vec<String>,
    /// `max_output_tokens`: what an answer may be at most; reserved where a request says nothing.
    pub max_output_tokens: Option<NonZeroU32>,
    /// `input_cost_per_token` and `output_cost_per_token`: what budgets are charged.
    pub price: Option<Price>,
}

/// What a model costs, in thousand-millionths of a US dollar a token: as many thousandths of a dollar
/// a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// A token of the prompt.
    pub input_nano_usd: u64,
    /// A token of the answer.
    pub output_nano_usd: u64,
}

/// What holds for a provider whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderLimit {
    /// Name of the provider.
    pub provider: String,
    /// Limit over everything that goes there.
    pub rate_limit_id: Option<String>,
    /// Budgets over everything that goes there.
    pub budget_ids: Vec<String>,
}

/// A group of virtual keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// Unique.
    pub id: String,
    /// For people.
    pub name: String,
    /// Whose team it is.
    pub customer_id: Option<String>,
    /// Limit over the group.
    pub rate_limit_id: Option<String>,
    /// Budgets over the group.
    pub budget_ids: Vec<String>,
}

/// A group of teams and virtual keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer {
    /// Unique.
    pub id: String,
    /// For people.
    pub name: String,
    /// Limit over the group.
    pub rate_limit_id: Option<String>,
    /// Budgets over the group.
    pub budget_ids: Vec<String>,
}

/// `auth_config`.
#[derive(Default, PartialEq)]
pub struct AdminAuth {
    /// Whether the admin interface asks for credentials.
    pub is_enabled: bool,
    /// `admin_username`; there when enabled.
    pub username: Option<String>,
    /// `admin_password`; there when enabled. The password itself, or its hash in PHC form
    /// (`$argon2id$…`).
    pub password: Option<Secret>,
    /// Where the password's text came from.
    pub password_origin: Option<Origin>,
    /// Whether inference is open although the admin interface is not.
    pub disable_auth_on_inference: bool,
    /// `api_tokens`: for programs.
    pub tokens: Vec<ApiToken>,
}

/// One of `auth_config.api_tokens`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Unique; stands in the audit log.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// SHA-256 of the token, which is not kept.
    pub digest: [u8; 32],
}

/// What somebody may do at the admin interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `read`: look at everything that is shown.
    Read,
    /// `write`: change it as well.
    Write,
}

impl fmt::Debug for AdminAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminAuth")
            .field("is_enabled", &self.is_enabled)
            .field("username", &self.username)
            .field("password_origin", &self.password_origin)
            .field("disable_auth_on_inference", &self.disable_auth_on_inference)
            .field("tokens", &self.tokens.iter().map(|token| &token.name).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
