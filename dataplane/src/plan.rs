//! Which providers a request may go to, in order. Decides from the snapshot and the newest advice;
//! which of them answers is not known here, and which key is used neither.

use crate::core::{Core, Serving};
use crate::identify::Caller;
use crate::known_model::{Model, ModelNumber, allows, key_serves};
use crate::name::Name;
use crate::provider::Dialect;
use crate::rejection::{Cause, Rejection};
use crate::route::{Endpoint, Target};
use crate::routing::Routed;
use crate::upstream::dialect_of;
use shared::snapshot::routing::{ArchivedHopRecord, NO_KEY};
use shared::snapshot::{ArchivedGrantRecord, ArchivedProviderRecord};

/// One provider and the model to ask it for.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) provider: usize,
    /// Its place in the plan before providers that fail were put behind the others.
    pub(crate) place: u8,
    /// As clients say it, without the provider; empty for requests without a model.
    pub(crate) model: Name,
    /// The same, for the lists of keys.
    pub(crate) number: ModelNumber,
    /// Index of the only key that may be used, where a routing rule says so.
    pub(crate) key: Option<u32>,
}

/// A step that nobody keeps yet: without a copy of the model's name, which is long.
struct Lead<'m> {
    provider: usize,
    model: Model<'m>,
    key: Option<u32>,
}

impl Lead<'_> {
    #[inline]
    fn step(&self) -> Step {
        let Self { provider, ref model, key } = *self;
        Step { provider, place: 0, model: model.to_name(), number: model.number, key }
    }
}

/// Providers to try, in this order. Fallbacks are kept in room of the core's, which gets it back.
pub(crate) struct Plan<'c> {
    core: &'c Core,
    first: Step,
    fallbacks: Vec<Step>,
}

impl Drop for Plan<'_> {
    fn drop(&mut self) {
        self.core.give_steps(std::mem::take(&mut self.fallbacks));
    }
}

impl<'c> Plan<'c> {
    /// The step number `index`.
    pub(crate) fn step(&self, index: usize) -> Option<&Step> {
        match index {
            0 => Some(&self.first),
            _ => self.fallbacks.get(index - 1),
        }
    }

    /// Plans a request for `model` (as the body or path says it) with the client's `fallbacks`,
    /// unless a rule says otherwise.
    pub(crate) fn new<'a>(
        core: &'c Core,
        serving: &Serving,
        target: &Target,
        caller: Caller,
        model: Option<&str>,
        fallbacks: impl Iterator<Item = &'a str>,
        routed: Option<Routed<'_>>,
    ) -> Result<Self, Rejection> {
        let mut planner = Planner { core, serving, target, caller, others: Vec::new(), let_through: None };
        let first = match routed {
            Some(routed) => planner.hop(routed.hop, model).map_err(|refusal| refusal.by_rule(&routed.rule.id))?,
            None => planner.step(model)?,
        };
        let mut others = Vec::new();
        // Those of a rule are for many callers: where this one may not go is left out.
        for hop in routed.iter().flat_map(|routed| routed.rule.fallbacks.iter()) {
            if let Ok(lead) = planner.hop(hop, model) {
                push(core, &mut others, &lead);
            }
        }
        let is_ruled = routed.is_some_and(|routed| !routed.rule.fallbacks.is_empty());
        for fallback in fallbacks.filter(|_| !is_ruled) {
            // A fallback that leads nowhere is the client's mistake, and better said now.
            let lead = planner.step(Some(fallback))?;
            push(core, &mut others, &lead);
        }
        if others.is_empty() && !is_ruled {
            others = planner.others;
        }
        for (step, place) in others.iter_mut().zip(1..) {
            step.place = place;
        }
        let is_cautious = core.advice.are_providers_demoted() && !others.is_empty();
        let let_through = planner.let_through;
        // Made where the caller will have it, since moving a name costs as much as a look-up.
        let mut plan = Ok(Self { core, first: first.step(), fallbacks: others });
        if is_cautious && let Ok(plan) = &mut plan {
            plan.put_behind(|step| Some(step.provider) != let_through && is_passed_over(core, serving, step.provider));
        }
        plan
    }

    /// Moves steps behind the others; each group keeps its order.
    fn put_behind(&mut self, mut is_behind: impl FnMut(&Step) -> bool) {
        self.fallbacks.insert(0, self.first);
        let (mut behind, before): (Vec<Step>, Vec<Step>) = self.fallbacks.drain(..).partition(|step| is_behind(step));
        self.fallbacks.extend(before);
        self.fallbacks.append(&mut behind);
        self.first = self.fallbacks.remove(0);
    }
}

/// In room of the core's.
fn push(core: &Core, fallbacks: &mut Vec<Step>, lead: &Lead<'_>) {
    if fallbacks.capacity() == 0 {
        *fallbacks = core.take_steps();
    }
    fallbacks.push(lead.step());
}

/// Whether a provider that fails is not to have this request, as long as there are others.
fn is_passed_over(core: &Core, serving: &Serving, provider: usize) -> bool {
    let Some(record) = serving.records().providers.get(provider) else { return false };
    let Some(permille) = core.advice.provider_share(&record.name) else { return false };
    !serving.provider(provider).is_some_and(|state| state.share.takes(permille))
}

struct Planner<'s> {
    core: &'s Core,
    serving: &'s Serving,
    target: &'s Target,
    caller: Caller,
    /// The other providers that a virtual key's weights name for the same model.
    others: Vec<Step>,
    /// A provider that fails and is to have this request all the same.
    let_through: Option<usize>,
}

impl Planner<'_> {
    /// Where a client's own words lead.
    fn step<'m>(&mut self, model: Option<&'m str>) -> Result<Lead<'m>, Rejection> {
        let (named, model) = model.map_or((None, ""), |text| named_provider(self.serving, text));
        self.lead(named, model, None)
    }

    /// Where a rule leads a request for `asked`.
    fn hop<'m>(&mut self, hop: &'m ArchivedHopRecord, asked: Option<&'m str>) -> Result<Lead<'m>, Rejection> {
        let (named, own) = asked.map_or((None, ""), |text| named_provider(self.serving, text));
        let provider = hop.provider.as_ref().map(|at| at.to_native() as usize);
        let model = hop.model.as_ref().map_or(own, |model| model.as_str());
        self.lead(provider.or(named), model, hop.key.as_ref().map(|key| key.to_native()))
    }

    fn lead<'m>(&mut self, named: Option<usize>, model: &'m str, key: Option<u32>) -> Result<Lead<'m>, Rejection> {
        let model = Model::new(self.serving, model)
            .ok_or_else(|| Rejection::new(Cause::NoRoute, "the model's name is longer than any model here has"))?;
        let provider = if let Some(provider) = named.or(self.target.provider) {
            self.may_use(provider, model)?;
            provider
        } else if model.is_empty() {
            self.any_provider()?
        } else {
            self.search(model)?
        };
        if let Some(key) = key {
            self.may_use_key(provider, key)?;
        }
        Ok(Lead { provider, model, key })
    }

    /// Whether the caller may use the only key that a rule leaves. One that is switched off is for
    /// the attempt to miss: fallbacks come after it.
    fn may_use_key(&self, provider: usize, key: u32) -> Result<(), Rejection> {
        match self.grant(provider) {
            Grant::Some(grant) if key != NO_KEY => match &grant.keys.as_ref() {
                Some(keys) if keys.binary_search_by_key(&key, |one| one.to_native()).is_err() => {
                    let text = "this virtual key may not use the key that this request is led to";
                    Err(Rejection::new(Cause::KeyBlocked, text))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether the provider speaks what the path speaks, the caller may use it, and a key of it serves
    /// the model.
    fn may_use(&self, provider: usize, model: Model<'_>) -> Result<(), Rejection> {
        let record = self.may_ask(provider, model)?;
        let has_key = || record.keys.iter().any(|key| self.serves(key.to_native() as usize, model.number));
        if record.is_key_less || self.caller == Caller::Direct || model.is_empty() || has_key() {
            return Ok(());
        }
        let text = format!("no key of provider {} serves this model", record.name);
        Err(Rejection::new(Cause::NoRoute, text).about("model"))
    }

    /// As [`Self::may_use`], of a provider that is known to have such a key.
    fn may_ask(&self, provider: usize, model: Model<'_>) -> Result<&ArchivedProviderRecord, Rejection> {
        let Some(record) = self.serving.records().providers.get(provider) else {
            return Err(Rejection::new(Cause::Internal, "a route leads to no provider"));
        };
        if !self.speaks(provider) {
            let text = format!("provider {} does not speak the dialect of this path", record.name);
            return Err(Rejection::new(Cause::NoRoute, text));
        }
        match self.grant(provider) {
            Grant::All => {}
            Grant::None => {
                let text = format!("this virtual key may not use provider {}", record.name);
                return Err(Rejection::new(Cause::ProviderBlocked, text));
            }
            Grant::Some(grant) => {
                if !model.is_empty() && !allows(grant.models.as_ref(), model.number) {
                    let text = format!("this virtual key may not use this model at provider {}", record.name);
                    return Err(Rejection::new(Cause::ModelBlocked, text).about("model"));
                }
            }
        }
        Ok(record)
    }

    fn speaks(&self, provider: usize) -> bool {
        let Some(record) = self.serving.records().providers.get(provider) else { return false };
        speaks(record, self.target.dialect)
    }

    fn grant(&self, provider: usize) -> Grant<'_> {
        grant(self.serving, self.caller, provider)
    }

    fn serves(&self, key: usize, model: ModelNumber) -> bool {
        self.serving.records().keys.get(key).is_some_and(|key| key_serves(key, model))
    }

    /// The provider for a model that names none: one whose keys list it, else the vendor it is
    /// known by, else the first one that takes every model.
    fn search(&mut self, model: Model<'_>) -> Result<usize, Rejection> {
        if let Some(chosen) = self.by_weight(model) {
            return Ok(chosen);
        }
        let records = self.serving.records();
        let is_cautious = self.core.advice.are_providers_demoted();
        let (mut refusal, mut passed_over) = (None, None);
        for provider in model.number.record(self.serving).iter().flat_map(|known| known.providers.iter()) {
            let provider = provider.to_native() as usize;
            // One of its keys lists the model.
            match self.may_ask(provider, model) {
                Ok(_) if is_cautious && is_passed_over(self.core, self.serving, provider) => {
                    passed_over = passed_over.or(Some(provider));
                }
                Ok(_) => {
                    self.let_through = Some(provider);
                    return Ok(provider);
                }
                Err(rejection) => refusal = refusal.or(Some(rejection)),
            }
        }
        if let Some(provider) = passed_over {
            // Nobody else lists the model. What the client names as fallbacks comes before it.
            return Ok(provider);
        }
        let vendor = vendor_of(model.as_str());
        let mut first: Option<(u8, usize)> = None;
        for (at, record) in records.providers.iter().enumerate() {
            if record.relay_all {
                continue;
            }
            match self.may_use(at, model) {
                Ok(()) if vendor.is_some_and(|vendor| record.name == *vendor) => return Ok(at),
                Ok(()) if first.is_none_or(|(distance, _)| record.distance < distance) => {
                    first = Some((record.distance, at));
                }
                Err(rejection) if rejection.cause != Cause::NoRoute => refusal = refusal.or(Some(rejection)),
                Ok(()) | Err(_) => {}
            }
        }
        first.map(|(_, at)| at).ok_or_else(|| {
            refusal
                .unwrap_or_else(|| Rejection::new(Cause::NoRoute, "no provider here serves this model").about("model"))
        })
    }

    /// A virtual key's own weights come first; the providers not drawn follow as fallbacks.
    fn by_weight(&mut self, model: Model<'_>) -> Option<usize> {
        let grants = self.caller.record(self.serving)?.grants.as_ref()?;
        let records = self.serving.records();
        let settings = &records.settings;
        let weight = |grant: &ArchivedGrantRecord| {
            let configured = grant.weight.as_ref().map_or(0.0, |weight| f64::from(weight.to_native()));
            match records.providers.get(grant.provider.to_native() as usize) {
                Some(record) if settings.follows_load => configured * self.core.advice.provider_weight(&record.name),
                _ => configured,
            }
        };
        let fits = |grant: &&ArchivedGrantRecord| {
            weight(grant) > 0.0 && self.may_use(grant.provider.to_native() as usize, model).is_ok()
        };
        let distance = |provider: usize| records.providers.get(provider).map_or(u8::MAX, |record| record.distance);
        let distance_of = |grant: &ArchivedGrantRecord| distance(grant.provider.to_native() as usize);
        let nearest = if settings.has_regions { grants.iter().filter(fits).map(distance_of).min() } else { None };
        let is_near =
            |grant: &&ArchivedGrantRecord| nearest.is_none_or(|nearest| distance_of(grant) == nearest) && fits(grant);
        let total: f64 = grants.iter().filter(is_near).map(weight).sum();
        let mut left = fraction(self.core.random()) * total;
        let mut chosen = None;
        for grant in grants.iter().filter(is_near) {
            left -= weight(grant);
            if left <= 0.0 || chosen.is_none() {
                chosen = Some(grant.provider.to_native() as usize);
            }
            if left <= 0.0 {
                break;
            }
        }
        let chosen = chosen?;
        let name = model.to_name();
        let mut others: Vec<&ArchivedGrantRecord> = grants.iter().filter(fits).collect();
        others.retain(|grant| grant.provider.to_native() as usize != chosen);
        others.sort_by_key(|grant| (nearest.map(|_| distance_of(grant)), grant.place.to_native()));
        let step = |grant: &ArchivedGrantRecord| Step {
            provider: grant.provider.to_native() as usize,
            place: 0,
            model: name,
            number: model.number,
            key: None,
        };
        self.others = others.into_iter().map(step).collect();
        Some(chosen)
    }

    /// For requests without a model: the first provider that speaks the dialect.
    fn any_provider(&self) -> Result<usize, Rejection> {
        let records = self.serving.records();
        let speaks = |at: &usize| {
            records.providers.get(*at).is_some_and(|record| {
                dialect_of(record) == self.target.dialect
                    && self.may_use(*at, Model::NONE).is_ok()
                    && (!record.relay_all || self.target.endpoint == Endpoint::Relay)
            })
        };
        (0..records.providers.len())
            .find(speaks)
            .ok_or_else(|| Rejection::new(Cause::NoRoute, "no provider here answers this path"))
    }
}

/// The provider that a model is named with, as in `openai/gpt-4o`, and the model without it.
pub(crate) fn named_provider<'m>(serving: &Serving, text: &'m str) -> (Option<usize>, &'m str) {
    let named = text
        .split_once('/')
        .filter(|(_, rest)| !rest.is_empty())
        .and_then(|(prefix, rest)| Some((Some(serving.provider_named(prefix.as_bytes())?), rest)));
    named.unwrap_or((None, text))
}

/// Whether a provider answers paths of a dialect.
pub(crate) fn speaks(provider: &ArchivedProviderRecord, dialect: Dialect) -> bool {
    match dialect {
        // Every vendor offers the OpenAI dialect beside its own.
        Dialect::OpenAi => true,
        dialect => dialect_of(provider) == dialect,
    }
}

/// What a caller may do at a provider.
pub(crate) enum Grant<'s> {
    All,
    None,
    Some(&'s ArchivedGrantRecord),
}

/// What the caller may do at a provider.
pub(crate) fn grant(serving: &Serving, caller: Caller, provider: usize) -> Grant<'_> {
    let Some(grants) = caller.record(serving).and_then(|record| record.grants.as_ref()) else { return Grant::All };
    let found = grants.binary_search_by_key(&provider, |grant| grant.provider.to_native() as usize);
    found.ok().and_then(|at| grants.get(at)).map_or(Grant::None, Grant::Some)
}

/// Vendors by how their models are called, for names that no key lists.
fn vendor_of(model: &str) -> Option<&'static str> {
    const FAMILIES: [(&str, &str); 16] = [
        ("gpt-", "openai"),
        ("chatgpt-", "openai"),
        ("o1", "openai"),
        ("o3", "openai"),
        ("o4", "openai"),
        ("text-embedding-", "openai"),
        ("claude-", "anthropic"),
        ("gemini-", "gemini"),
        ("mistral-", "mistral"),
        ("codestral", "mistral"),
        ("ministral", "mistral"),
        ("command", "cohere"),
        ("embed-", "cohere"),
        ("grok-", "xai"),
        ("deepseek-", "deepseek"),
        ("sonar", "perplexity"),
    ];
    FAMILIES.iter().find(|(family, _)| model.starts_with(family)).map(|(_, vendor)| *vendor)
}

pub(crate) fn fraction(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::clock::Clock;
    use shared::phase::SharedPhase;

    #[test]
    fn a_fraction_is_below_one() {
        assert!(fraction(u64::MAX) < 1.0);
        assert!(fraction(0) >= 0.0);
    }

    #[test]
    fn providers_that_fail_go_behind_the_others_and_keep_their_order() {
        for (behind, order) in [
            (&[][..], [0, 1, 2, 3]),
            (&[0], [1, 2, 3, 0]),
            (&[0, 2], [1, 3, 0, 2]),
            (&[3], [0, 1, 2, 3]),
            (&[0, 1, 2, 3], [0, 1, 2, 3]),
        ] {
            let step = |provider: u8| Step {
                provider: provider.into(),
                place: provider,
                model: Name::new("m").unwrap(),
                number: ModelNumber::Unknown,
                key: None,
            };
            let core = Core::new(0, Clock::start(), SharedPhase::new());
            let mut plan = Plan { core: &core, first: step(0), fallbacks: [1, 2, 3].map(step).into() };
            plan.put_behind(|step| behind.contains(&step.provider));
            let found: Vec<_> = (0..4).filter_map(|at| plan.step(at)).map(|step| step.place).collect();
            assert_eq!(found, order, "{behind:?}");
        }
    }

    #[test]
    fn a_model_is_known_by_its_family() {
        assert_eq!(vendor_of("claude-sonnet-4"), Some("anthropic"));
        assert_eq!(vendor_of("llama-3"), None);
    }
}
