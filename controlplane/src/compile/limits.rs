//! Rate limits → limit records: one for each unit, one more for each part of a window that the
//! provider counts on its own, and one for the pace of each limit that is kept by news alone.
//! And the table of how tokens are charged.

use super::index;
use crate::entitlements::{Pace, staleness};
use shared::bounds::LIMITS_PER_REQUEST_MAX;
use shared::config::model as config;
use shared::config::model::{Budget, Charge, Config, RateLimit, VirtualKey};
use shared::limit::{CONCURRENT_WINDOW_NS, ChargeRule, UNITS_MAX};
use shared::snapshot::{Counted, Enforcement, LimitRecord, OnNodeLoss, Reserve, TokenCharge, Unit};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Limit records, and which of them the id of a rate limit or a budget stands for.
#[derive(Default)]
pub(super) struct Limits {
    pub(super) records: Vec<LimitRecord>,
    by_id: BTreeMap<String, Vec<u32>>,
    by_budget_id: BTreeMap<String, u32>,
    by_customer_id: BTreeMap<String, Vec<u32>>,
    /// With those of the team's customer.
    by_team_id: BTreeMap<String, Vec<u32>>,
}

impl Limits {
    pub(super) fn new(config: &Config) -> Self {
        let mut limits = Self::default();
        let counted_elsewhere = counted_elsewhere(config);
        let staleness = config.cluster.enabled.then(|| staleness(config.cluster.gossip.interval));
        for limit in &config.governance.rate_limits {
            let is_elsewhere = limit.region.as_ref().is_some_and(|region| *region != config.cluster.region);
            if is_elsewhere && !config.cluster.enabled {
                continue;
            }
            let base = base(limit, counted_elsewhere.contains(limit.id.as_str()));
            let units = [(Unit::Requests, "requests", limit.requests), (Unit::Tokens, "tokens", limit.tokens)];
            for (unit, name, allowance) in units {
                let Some(allowance) = allowance else { continue };
                let whole = LimitRecord {
                    id: format!("{}/{name}", limit.id),
                    unit,
                    amount: allowance.max.known().unwrap_or(UNITS_MAX),
                    window_ns: allowance.window.seconds().saturating_mul(1_000_000_000),
                    is_learned: allowance.max.known().is_none(),
                    ..base.clone()
                };
                if let Some(part) = limit.sub_window.and_then(|length| part(&whole, length)) {
                    limits.add(&limit.id, part, staleness);
                }
                limits.add(&limit.id, whole, staleness);
            }
            if let Some(amount) = limit.concurrent {
                let at_once = LimitRecord {
                    id: format!("{}/concurrent", limit.id),
                    unit: Unit::Concurrent,
                    amount: amount.get(),
                    window_ns: CONCURRENT_WINDOW_NS,
                    ..base
                };
                limits.add(&limit.id, at_once, staleness);
            }
            if is_elsewhere {
                // Nobody here falls under it. It is there all the same, for this node may be the one
                // that what a lost node of that region had comes to.
                limits.by_id.remove(&limit.id);
            }
        }
        for budget in &config.governance.budgets {
            limits.by_budget_id.insert(budget.id.clone(), index(limits.records.len()));
            limits.records.push(money(budget));
        }
        for customer in &config.governance.customers {
            let own = limits.of(customer.rate_limit_id.as_ref(), &customer.budget_ids);
            limits.by_customer_id.insert(customer.id.clone(), own);
        }
        for team in &config.governance.teams {
            let own = limits.of(team.rate_limit_id.as_ref(), &team.budget_ids);
            let customer = team.customer_id.as_ref().and_then(|id| limits.by_customer_id.get(id));
            let all = once_each(own.into_iter().chain(customer.into_iter().flatten().copied()));
            limits.by_team_id.insert(team.id.clone(), all);
        }
        limits
    }

    /// Indices of what an owner refers to.
    pub(super) fn of(&self, rate_limit_id: Option<&String>, budget_ids: &[String]) -> Vec<u32> {
        let rates = rate_limit_id.and_then(|id| self.by_id.get(id)).into_iter().flatten();
        let budgets = budget_ids.iter().filter_map(|id| self.by_budget_id.get(id));
        rates.chain(budgets).copied().collect()
    }

    /// Those of a virtual key, and of the groups that it belongs to.
    pub(super) fn of_client(&self, client: &VirtualKey) -> Vec<u32> {
        let team = client.team_id.as_ref().and_then(|id| self.by_team_id.get(id));
        let customer = client.customer_id.as_ref().and_then(|id| self.by_customer_id.get(id));
        let groups = [team, customer].into_iter().flatten().flatten().copied();
        once_each(self.of(client.rate_limit_id.as_ref(), &client.budget_ids).into_iter().chain(groups))
    }

    /// Sentences about providers whose requests may fall under more limits than a core looks at.
    /// Such a request is refused, so that an operator should know before.
    pub(super) fn crowded(&self, config: &Config) -> Vec<String> {
        let governance = &config.governance;
        let (everywhere, granted) = self.most_of_clients(config);
        let crowded = config.providers.iter().filter_map(|provider| {
            let of_provider = governance.providers.iter().filter(|limit| limit.provider == provider.name);
            let models = || {
                let here = |only: &Option<String>| only.as_ref().is_none_or(|only| *only == provider.name);
                governance.model_configs.iter().filter(move |model| here(&model.provider))
            };
            let of_any_model = models().filter(|model| model.model.is_none());
            let shared: BTreeSet<u32> = of_provider
                .map(|limit| self.of(limit.rate_limit_id.as_ref(), &limit.budget_ids))
                .chain(of_any_model.map(|model| self.of(model.rate_limit_id.as_ref(), &model.budget_ids)))
                .flatten()
                .collect();
            // Of the others one of a kind applies.
            let more = |id: Option<&String>, budgets: &[String]| {
                self.of(id, budgets).iter().filter(|limit| !shared.contains(limit)).count()
            };
            let keys = provider.keys.iter().map(|key| more(key.rate_limit_id.as_ref(), &[])).max();
            let named = models().filter(|model| model.model.is_some());
            let named = named.map(|model| more(model.rate_limit_id.as_ref(), &model.budget_ids)).max();
            let clients = granted.get(provider.name.as_str()).copied().unwrap_or(0).max(everywhere);
            let most = shared.len() + keys.unwrap_or(0) + named.unwrap_or(0) + clients;
            (most > LIMITS_PER_REQUEST_MAX).then(|| {
                format!(
                    "up to {most} limits may apply to one request to provider {}: those to which more than \
                     {LIMITS_PER_REQUEST_MAX} apply are refused; each sub_window and each pace of a gossip limit \
                     is one more",
                    provider.name
                )
            })
        });
        crowded.collect()
    }

    /// The most limits of a virtual key that may use every provider, and at each provider the most
    /// of one that may use it.
    fn most_of_clients<'c>(&self, config: &'c Config) -> (usize, BTreeMap<&'c str, usize>) {
        let (mut everywhere, mut granted) = (0, BTreeMap::new());
        for client in &config.governance.virtual_keys {
            let own = self.of_client(client);
            let Some(grants) = &client.grants else {
                everywhere = everywhere.max(own.len());
                continue;
            };
            for grant in grants {
                let of_grant = self.of(grant.rate_limit_id.as_ref(), &grant.budget_ids);
                let more = of_grant.iter().filter(|limit| !own.contains(limit)).count();
                let most: &mut usize = granted.entry(grant.provider.as_str()).or_default();
                *most = (*most).max(own.len() + more);
            }
        }
        (everywhere, granted)
    }

    /// Adds a record, and its pace where it has one.
    fn add(&mut self, rate_limit_id: &str, record: LimitRecord, staleness: Option<Duration>) {
        let at = index(self.records.len());
        let pace = staleness
            .filter(|_| record.enforcement == Enforcement::Gossip && record.unit != Unit::Concurrent)
            .and_then(|staleness| Pace::of(record.unit, record.amount, record.window_ns, staleness))
            .map(|pace| LimitRecord {
                id: format!("{}/pace", record.id),
                amount: pace.units,
                window_ns: pace.window_ns,
                charge: pace_charge(record.charge),
                is_learned: false,
                paces: Some(at),
                ..record.clone()
            });
        let indices = self.by_id.entry(rate_limit_id.to_owned()).or_default();
        for record in std::iter::once(record).chain(pace) {
            indices.push(index(self.records.len()));
            self.records.push(record);
        }
    }
}

/// Two ways to one limit are one.
fn once_each(limits: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut seen = BTreeSet::new();
    limits.filter(|limit| seen.insert(*limit)).collect()
}

/// A budget: as strict as a limit can be, charged with what prompt and answer cost.
fn money(budget: &Budget) -> LimitRecord {
    LimitRecord {
        id: format!("{}/usd", budget.id),
        unit: Unit::MicroUsd,
        amount: budget.max_micro_usd.min(UNITS_MAX),
        window_ns: budget.window.seconds().saturating_mul(1_000_000_000),
        enforcement: Enforcement::Strict,
        charge: TokenCharge {
            counted: Counted::PromptAndOutput,
            reserve: Reserve::Bound,
            rule: ChargeRule::Settlement,
        },
        on_node_loss: None,
        max_wait_ns: 0,
        overshoot_probability: 0.0,
        is_learned: false,
        is_part: false,
        paces: None,
    }
}

/// What all records of a rate limit share.
fn base(limit: &RateLimit, is_counted_elsewhere: bool) -> LimitRecord {
    let is_statistical = limit.enforcement == config::Enforcement::Statistical;
    let overshoot_probability = if is_statistical { limit.overshoot_probability } else { 0.0 };
    LimitRecord {
        id: String::new(),
        unit: Unit::Requests,
        amount: 0,
        window_ns: 0,
        enforcement: match limit.enforcement {
            config::Enforcement::Strict => Enforcement::Strict,
            config::Enforcement::Admission => Enforcement::Admission,
            config::Enforcement::Statistical => Enforcement::Statistical,
            config::Enforcement::Gossip => Enforcement::Gossip,
        },
        charge: token_charge(limit.enforcement, limit.charge, is_counted_elsewhere),
        on_node_loss: limit.on_node_loss.map(|loss| match loss {
            config::OnNodeLoss::Keep => OnNodeLoss::Keep,
            config::OnNodeLoss::Reclaim => OnNodeLoss::Reclaim,
        }),
        max_wait_ns: nanos(limit.max_wait),
        overshoot_probability,
        is_learned: false,
        is_part: false,
        paces: None,
    }
}

/// The table: how tokens are charged.
///
/// | enforcement | charge | counted | reserved | rule |
/// |---|---|---|---|---|
/// | strict, gossip | left out, by virtual keys only | prompt and output | bound | settlement |
/// | strict, gossip | left out, otherwise | prompt and output | bound | either |
/// | strict, gossip | admission | prompt and output | bound | admission |
/// | strict, gossip | input | prompt | bound | settlement |
/// | strict, gossip | produced | prompt and output | bound | settlement |
/// | admission | left out, admission | prompt and output | formula | admission |
/// | admission | input | prompt | formula | admission |
/// | statistical | left out, produced | prompt and output | learned | settlement |
///
/// What is not in it was refused when the file was read.
fn token_charge(enforcement: config::Enforcement, charge: Option<Charge>, is_counted_elsewhere: bool) -> TokenCharge {
    use config::Enforcement::{Admission, Gossip, Statistical, Strict};
    let all = Counted::PromptAndOutput;
    let (counted, reserve, rule) = match (enforcement, charge) {
        (Strict | Gossip, None) if is_counted_elsewhere => (all, Reserve::Bound, ChargeRule::Either),
        (Strict | Gossip, None | Some(Charge::Produced)) => (all, Reserve::Bound, ChargeRule::Settlement),
        (Strict | Gossip, Some(Charge::Admission)) => (all, Reserve::Bound, ChargeRule::Admission),
        (Strict | Gossip, Some(Charge::Input)) => (Counted::Prompt, Reserve::Bound, ChargeRule::Settlement),
        (Admission, Some(Charge::Input)) => (Counted::Prompt, Reserve::Formula, ChargeRule::Admission),
        (Admission, _) => (all, Reserve::Formula, ChargeRule::Admission),
        (Statistical, _) => (all, Reserve::Learned, ChargeRule::Settlement),
    };
    TokenCharge { counted, reserve, rule }
}

/// How a limit's pace is charged. Only at the door: what runs is part of what the others hear of,
/// and a reservation held for as long as an answer takes would be a pace of answers. So it is the
/// mean that counts, where something else than the reservation itself is charged in the end.
fn pace_charge(charge: TokenCharge) -> TokenCharge {
    match (charge.rule, charge.counted) {
        (ChargeRule::Admission, _) => charge,
        (_, Counted::Prompt) => TokenCharge { rule: ChargeRule::AdmissionRefunded, ..charge },
        (_, Counted::PromptAndOutput) => {
            TokenCharge { reserve: Reserve::Learned, rule: ChargeRule::AdmissionRefunded, ..charge }
        }
    }
}

/// Rate limits that stand for what a provider counts: those of providers, keys and models. Those
/// of virtual keys and their grants alone are counted by nobody else.
fn counted_elsewhere(config: &Config) -> BTreeSet<&str> {
    let governance = &config.governance;
    let providers = governance.providers.iter().map(|provider| &provider.rate_limit_id);
    let models = governance.model_configs.iter().map(|model| &model.rate_limit_id);
    let keys = config.providers.iter().flat_map(|provider| &provider.keys).map(|key| &key.rate_limit_id);
    providers.chain(models).chain(keys).flatten().map(String::as_str).collect()
}

/// The part of an amount that may be used in a part of its window, as a limit of its own. At
/// least one unit; `None` where the window is no longer, or its amount not known.
fn part(whole: &LimitRecord, length: Duration) -> Option<LimitRecord> {
    let window_ns = nanos(length);
    if whole.is_learned || window_ns >= whole.window_ns {
        return None;
    }
    let amount = u128::from(whole.amount) * u128::from(window_ns) / u128::from(whole.window_ns);
    Some(LimitRecord {
        id: format!("{}/{}", whole.id, short(length)),
        // Less than the whole amount, since the window is.
        amount: (amount as u64).max(1),
        window_ns,
        is_part: true,
        ..whole.clone()
    })
}

/// As the file may write it: `10s`, or `1500ms`.
fn short(length: Duration) -> String {
    match length.subsec_nanos() {
        0 => format!("{}s", length.as_secs()),
        _ => format!("{}ms", length.as_millis()),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::{FULL, compiled, configuration};

    /// The records of these rate limits, in a cluster.
    fn records(rate_limits: &str) -> Vec<LimitRecord> {
        let text = format!(
            r#"{{"governance": {{"rate_limits": [{rate_limits}]}},
                "cluster_config": {{"enabled": true, "peers": ["10.0.0.1:10101"]}}}}"#
        );
        compiled(&text).record.limits
    }

    fn shown(records: &[LimitRecord]) -> Vec<(&str, u64, u64)> {
        records.iter().map(|limit| (limit.id.as_str(), limit.amount, limit.window_ns / 1_000_000)).collect()
    }

    #[test]
    fn every_way_to_keep_a_limit_charges_as_the_table_says() {
        use config::Enforcement::{Admission, Gossip, Statistical, Strict};
        let row = |enforcement, charge, is_counted_elsewhere| {
            let TokenCharge { counted, reserve, rule } = token_charge(enforcement, charge, is_counted_elsewhere);
            (counted, reserve, rule)
        };
        let all = Counted::PromptAndOutput;
        for enforcement in [Strict, Gossip] {
            assert_eq!(row(enforcement, None, false), (all, Reserve::Bound, ChargeRule::Settlement));
            assert_eq!(row(enforcement, None, true), (all, Reserve::Bound, ChargeRule::Either));
        }
        for elsewhere in [false, true] {
            for enforcement in [Strict, Gossip] {
                let row = |charge| row(enforcement, Some(charge), elsewhere);
                assert_eq!(row(Charge::Admission), (all, Reserve::Bound, ChargeRule::Admission));
                assert_eq!(row(Charge::Input), (Counted::Prompt, Reserve::Bound, ChargeRule::Settlement));
                assert_eq!(row(Charge::Produced), (all, Reserve::Bound, ChargeRule::Settlement));
            }
            for charge in [None, Some(Charge::Admission)] {
                assert_eq!(row(Admission, charge, elsewhere), (all, Reserve::Formula, ChargeRule::Admission));
            }
            let input = row(Admission, Some(Charge::Input), elsewhere);
            assert_eq!(input, (Counted::Prompt, Reserve::Formula, ChargeRule::Admission));
            for charge in [None, Some(Charge::Produced)] {
                assert_eq!(row(Statistical, charge, elsewhere), (all, Reserve::Learned, ChargeRule::Settlement));
            }
        }
    }

    #[test]
    fn limits_of_providers_keys_and_models_are_counted_elsewhere() {
        let text = FULL
            .replace(r#""providers": [{"name": "openai", "rate_limit_id": "team"}]"#, r#""providers": []"#)
            .replace(r#""value": "sk-literal","#, r#""value": "sk-literal", "rate_limit_id": "key","#)
            .replace(r#""rate_limits": ["#, r#""rate_limits": [{"id": "key", "concurrent_max_limit": 3},"#);
        let config = configuration(&text);
        assert_eq!(counted_elsewhere(&config).into_iter().collect::<Vec<_>>(), ["claude", "key"]);
        let config = configuration(FULL);
        assert!(counted_elsewhere(&config).contains("team"), "of a provider as well as of virtual keys");
    }

    #[test]
    fn a_part_of_a_window_is_a_limit_of_its_own() {
        let limits = records(
            r#"{"id": "a", "request_max_limit": 6000, "request_reset_duration": "1m", "sub_window": "10s",
                "token_max_limit": 500, "token_reset_duration": "5s"},
               {"id": "b", "request_max_limit": 30, "request_reset_duration": "1m", "sub_window": "1500ms",
                "token_max_limit": "auto", "token_reset_duration": "1h"}"#,
        );
        let expected = [
            ("a/requests/10s", 1_000, 10_000),
            ("a/requests", 6_000, 60_000),
            ("a/tokens", 500, 5_000),
            ("b/requests/1500ms", 1, 1_500),
            ("b/requests", 30, 60_000),
            ("b/tokens", UNITS_MAX, 3_600_000),
        ];
        assert_eq!(shown(&limits), expected);
        let learned: Vec<_> = limits.iter().map(|limit| limit.is_learned).collect();
        assert_eq!(learned, [false, false, false, false, false, true]);
    }

    #[test]
    fn what_runs_at_once_is_a_limit_beside_the_others() {
        let limits = records(
            r#"{"id": "a", "concurrent_max_limit": 3, "enforcement": "gossip", "sub_window": "1s",
                "request_max_limit": 5, "request_reset_duration": "1m"}"#,
        );
        let ids: Vec<_> = limits.iter().map(|limit| limit.id.as_str()).collect();
        assert_eq!(ids, ["a/requests/1s", "a/requests", "a/requests/pace", "a/concurrent"]);
        assert_eq!((limits[3].unit, limits[3].amount), (Unit::Concurrent, 3));
        assert_eq!(limits[3].window_ns, CONCURRENT_WINDOW_NS);
    }

    #[test]
    fn a_limit_kept_by_news_has_a_pace_and_no_other_has() {
        let fields = r#""request_max_limit": 6000, "request_reset_duration": "1m""#;
        let limits = records(&format!(r#"{{"id": "a", {fields}, "enforcement": "gossip"}}, {{"id": "b", {fields}}}"#));
        let ids: Vec<_> = limits.iter().map(|limit| (limit.id.as_str(), limit.paces)).collect();
        assert_eq!(ids, [("a/requests", None), ("a/requests/pace", Some(0)), ("b/requests", None)]);
        let pace = Pace::of(Unit::Requests, 6_000, 60_000_000_000, staleness(Duration::from_millis(200))).unwrap();
        assert_eq!((limits[1].amount, limits[1].window_ns), (pace.units, pace.window_ns));
        let charge = limits[1].charge;
        assert_eq!((charge.reserve, charge.rule), (Reserve::Learned, ChargeRule::AdmissionRefunded));
        let definitions = crate::compile::limit_definitions(&limits).unwrap();
        assert_eq!((definitions[0].window.spread_ns() > 0, definitions[1].window.spread_ns()), (true, 0));
    }

    #[test]
    fn more_limits_than_a_core_looks_at_are_told_before() {
        let text = |key: &str| {
            let fields = r#""request_max_limit": 60, "request_reset_duration": "1m", "token_max_limit": 600,
                "token_reset_duration": "1m", "sub_window": "10s", "concurrent_max_limit": 3"#;
            let limits = ["p", "m", "k", "v"].map(|id| format!(r#"{{"id": "{id}", {fields}}}"#)).join(",");
            format!(
                r#"{{"version": 1, "providers": {{"openai": {{"keys": [{{"name": "k", "value": "sk-1", "rate_limit_id": "{key}"}}]}}}},
                "governance": {{"rate_limits": [{limits}],
                "providers": [{{"name": "openai", "rate_limit_id": "p"}}],
                "model_configs": [{{"model_name": "gpt", "rate_limit_id": "m"}}],
                "virtual_keys": [{{"id": "v", "name": "v", "value": "sk-bf-v", "rate_limit_id": "v"}}]}}}}"#
            )
        };
        let warnings = compiled(&text("k")).warnings;
        assert!(warnings[0].contains("up to 20 limits may apply to one request to provider openai"), "{warnings:?}");
        assert_eq!(compiled(&text("p")).warnings, [""; 0], "one limit counts a request once");
    }

    #[test]
    fn a_node_alone_needs_no_pace() {
        let text = r#"{"governance": {"rate_limits": [{"id": "a", "request_max_limit": 6000,
            "request_reset_duration": "1m", "enforcement": "gossip"}]}}"#;
        assert_eq!(compiled(text).record.limits.len(), 1);
    }

    #[test]
    fn how_a_limit_is_kept_reaches_its_records() {
        let limits = records(
            r#"{"id": "a", "request_max_limit": 10, "request_reset_duration": "1m", "max_wait": "2s",
                "on_node_loss": "keep", "enforcement": "statistical", "overshoot_probability": 0.001},
               {"id": "b", "request_max_limit": 10, "request_reset_duration": "1m"}"#,
        );
        assert_eq!((limits[0].max_wait_ns, limits[1].max_wait_ns), (2_000_000_000, 0));
        assert_eq!((limits[0].on_node_loss, limits[1].on_node_loss), (Some(OnNodeLoss::Keep), None));
        assert_eq!((limits[0].enforcement, limits[1].enforcement), (Enforcement::Statistical, Enforcement::Strict));
        for (limit, probability) in [(&limits[0], 0.001), (&limits[1], 0.0)] {
            assert!((limit.overshoot_probability - probability).abs() < 1e-9);
        }
    }
}
