//! What a request costs: which limits it falls under, and how many tokens are reserved in each
//! before it is sent; and what is settled with the usage in the answer.

use crate::answer_sizes::{AnswerSizes, SizeClass};
use crate::core::{Core, Serving};
use crate::identify::Caller;
use crate::limiter::{Charge, Sent, Standing};
use crate::plan::{Grant, Step, grant};
use crate::provider::request_scan::RequestFields;
use crate::rejection::{Cause, Rejection};
use crate::route::Endpoint;
use rkyv::vec::ArchivedVec;
use shared::bounds::LIMITS_PER_REQUEST_MAX;
use shared::limit::{ArchivedChargeRule, ChargeRule, LimitIndex, Unit};
use shared::snapshot::{
    ArchivedCounted, ArchivedLimitRecord, ArchivedModelRecord, ArchivedReserve, ArchivedUnit, Reserve,
};

/// Reserved output where neither the request nor the configuration says how much there can be.
const OUTPUT_TOKENS_UNKNOWN: u64 = 4096;

/// A bound on the input tokens of a body. Tokenisers spend at most a token a byte on text beyond
/// ASCII; on ASCII (prose, code, JSON) less than one for two bytes. Images and files that are
/// only named by an address cost more than their address tells; the excess is charged when the
/// answer says so.
pub(crate) fn input_tokens_bound(fields: &RequestFields) -> u64 {
    let ascii = u64::from(fields.bytes.saturating_sub(fields.non_ascii_bytes));
    ascii.div_ceil(2).saturating_add(u64::from(fields.non_ascii_bytes))
}

/// What a provider takes a prompt for before it has counted it: a quarter of its characters, as
/// `OpenAI` documents it. An estimate and no bound.
fn input_tokens_formula(fields: &RequestFields) -> u64 {
    let ascii = u64::from(fields.bytes.saturating_sub(fields.non_ascii_bytes));
    // Two bytes a character and more.
    let characters = ascii.saturating_add(u64::from(fields.non_ascii_bytes).div_ceil(2));
    characters.div_ceil(4)
}

/// What one attempt is charged, limit by limit.
pub(crate) struct Charges {
    entries: [Charge; LIMITS_PER_REQUEST_MAX],
    len: usize,
    /// Where something of it is estimated from earlier answers: the size that this one belongs to.
    pub(crate) class: Option<SizeClass>,
}

impl Charges {
    pub(crate) fn as_slice(&self) -> &[Charge] {
        self.entries.get(..self.len).unwrap_or_default()
    }

    /// What is taken from a limit.
    pub(crate) fn amount(&self, limit: LimitIndex) -> u64 {
        self.as_slice().iter().find(|charge| charge.limit == limit).map_or(0, |charge| charge.amount)
    }
}

/// Tokens that an attempt may need.
struct Needs<'a> {
    sizes: &'a AnswerSizes,
    model: &'a str,
    prompt_bound: u64,
    prompt_formula: u64,
    /// Of all choices, at most.
    output: u64,
    /// `None` where answers to such requests are not learned from.
    class: Option<SizeClass>,
}

impl Needs<'_> {
    /// What a limit reserves.
    fn tokens(&self, record: &ArchivedLimitRecord) -> u64 {
        let charge = &record.charge;
        let prompt = match charge.reserve {
            ArchivedReserve::Bound | ArchivedReserve::Learned => self.prompt_bound,
            ArchivedReserve::Formula => self.prompt_formula,
        };
        let most = match charge.counted {
            ArchivedCounted::Prompt => prompt,
            ArchivedCounted::PromptAndOutput => prompt.saturating_add(self.output),
        };
        if charge.reserve != Reserve::Learned {
            return most;
        }
        let deviations = record.deviations.to_native();
        let estimate = self.class.and_then(|class| self.sizes.estimate(self.model, class, deviations));
        estimate.map_or(most, |estimate| estimate.min(most))
    }
}

/// Collects the limits of provider, key, model and virtual key for one attempt.
pub(crate) fn charges(
    core: &Core,
    serving: &Serving,
    caller: Caller,
    step: &Step,
    key: Option<usize>,
    endpoint: Endpoint,
    fields: &RequestFields,
) -> Result<Charges, Rejection> {
    let records = serving.records();
    let empty = Charge { limit: LimitIndex(0), unit: Unit::Requests, rule: ChargeRule::Settlement, amount: 0 };
    let mut charges = Charges { entries: [empty; LIMITS_PER_REQUEST_MAX], len: 0, class: None };
    if records.limits.is_empty() {
        return Ok(charges);
    }
    let model = step.model.as_str();
    let mut cap = None;
    for record in models_named(&records.models, model).chain(models_named(&records.models, "*")) {
        if record.provider.as_ref().is_none_or(|only| only.to_native() as usize == step.provider) {
            cap = cap.or(record.max_output_tokens.as_ref().map(|cap| u64::from(cap.to_native())));
        }
    }
    let output = match (endpoint.is_input_only(), fields.output_tokens_max(), cap) {
        (true, ..) => 0,
        (false, Some(asked), Some(cap)) => asked.min(cap),
        (false, Some(one), None) | (false, None, Some(one)) => one,
        (false, None, None) => OUTPUT_TOKENS_UNKNOWN,
    };
    let prompt_bound = input_tokens_bound(fields);
    let needs = Needs {
        sizes: &core.answer_sizes,
        model,
        prompt_bound,
        prompt_formula: input_tokens_formula(fields),
        output: output.saturating_mul(fields.choices()),
        class: (fields.choices() == 1).then(|| SizeClass::of(prompt_bound)),
    };
    let mut add = |limits: &ArchivedVec<rkyv::rend::u32_le>| charges.add(serving, &needs, limits);
    if let Some(provider) = records.providers.get(step.provider) {
        add(&provider.limits)?;
    }
    if let Some(key) = key.and_then(|key| records.keys.get(key)) {
        add(&key.limits)?;
    }
    for record in models_named(&records.models, model).chain(models_named(&records.models, "*")) {
        if record.provider.as_ref().is_none_or(|only| only.to_native() as usize == step.provider) {
            add(&record.limits)?;
        }
    }
    if let Some(virtual_key) = caller.record(serving) {
        add(&virtual_key.limits)?;
    }
    if let Grant::Some(grant) = grant(serving, caller, step.provider) {
        add(&grant.limits)?;
    }
    Ok(charges)
}

fn models_named<'s>(
    models: &'s ArchivedVec<ArchivedModelRecord>,
    name: &str,
) -> impl Iterator<Item = &'s ArchivedModelRecord> {
    let first = models.partition_point(|record| record.model.as_str() < name);
    let count = models[first..].iter().take_while(|record| record.model == *name).count();
    models[first..first + count].iter()
}

impl Charges {
    fn add(
        &mut self,
        serving: &Serving,
        needs: &Needs<'_>,
        limits: &ArchivedVec<rkyv::rend::u32_le>,
    ) -> Result<(), Rejection> {
        for index in limits.iter() {
            let limit = LimitIndex(index.to_native());
            let Some(record) = serving.records().limits.get(limit.0 as usize) else { continue };
            // One limit that several entities refer to counts a request once.
            if self.as_slice().iter().any(|charge| charge.limit == limit) {
                continue;
            }
            let (unit, mut amount) = match record.unit {
                ArchivedUnit::Requests => (Unit::Requests, 1),
                ArchivedUnit::Tokens => (Unit::Tokens, needs.tokens(record)),
                ArchivedUnit::Concurrent => (Unit::Concurrent, 1),
            };
            if unit == Unit::Tokens && record.charge.reserve == Reserve::Learned {
                self.class = needs.class;
            }
            if record.paces.is_some() {
                // A request that is larger than the pace takes all of it, and goes on its own.
                amount = amount.min(serving.slices.ring(limit).map_or(amount, |ring| ring.entitlement().max(1)));
            }
            let Some(entry) = self.entries.get_mut(self.len) else {
                let text = format!("more than {LIMITS_PER_REQUEST_MAX} limits apply to this request");
                return Err(Rejection::new(Cause::Internal, text));
            };
            *entry = Charge { limit, unit, rule: rule(record.charge.rule), amount };
            self.len += 1;
        }
        Ok(())
    }
}

fn rule(rule: ArchivedChargeRule) -> ChargeRule {
    match rule {
        ArchivedChargeRule::Settlement => ChargeRule::Settlement,
        ArchivedChargeRule::Admission => ChargeRule::Admission,
        ArchivedChargeRule::Either => ChargeRule::Either,
        ArchivedChargeRule::AdmissionRefunded => ChargeRule::AdmissionRefunded,
    }
}

/// What an answer told about its tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Tokens of the prompt, as far as they were told.
    pub(crate) prompt: u64,
    /// Tokens of prompt and answer, as far as they were told.
    pub(crate) all: u64,
    /// There will be no more of them; otherwise what was reserved may have been used.
    pub(crate) is_final: bool,
}

/// What one attempt took from the limits.
pub(crate) struct Charged {
    pub(crate) sent: Option<Sent>,
    /// See [`Charges`].
    pub(crate) class: Option<SizeClass>,
    pub(crate) requests: Option<Standing>,
    pub(crate) tokens: Option<Standing>,
}

impl Charged {
    /// Says what was used, and counts what was more than had been reserved.
    pub(crate) fn settle(&mut self, core: &Core, serving: &Serving, model: &str, used: Used) {
        let Some(sent) = self.sent.take() else { return };
        let is_answered = used.is_final && used.all > 0;
        if let Some(class) = self.class.filter(|_| is_answered) {
            core.answer_sizes.learn(model, class, used.all);
        }
        let mut most_beyond = 0;
        let of_charge = |charge: &Charge| {
            let Some(record) = serving.records().limits.get(charge.limit.0 as usize) else { return charge.amount };
            let told = match record.charge.counted {
                ArchivedCounted::Prompt => used.prompt,
                ArchivedCounted::PromptAndOutput => used.all,
            };
            let tokens = if used.is_final { told } else { told.max(charge.amount) };
            let beyond = tokens.saturating_sub(charge.amount);
            // A pace is meant to be met by the mean.
            if record.paces.is_none() {
                most_beyond = most_beyond.max(beyond);
                if record.charge.reserve == Reserve::Learned && is_answered {
                    let ring = serving.slices.ring(charge.limit);
                    let beyond_entitlement = ring.map_or(0, |ring| {
                        let used = ring.used().saturating_add(beyond);
                        used.saturating_sub(ring.granted()).min(beyond)
                    });
                    core.counters.estimated(&record.id, beyond, beyond_entitlement);
                }
            }
            tokens
        };
        sent.settle_each(of_charge, core.now());
        core.counters.reserved_too_little(most_beyond);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer_sizes::SAMPLES_MIN;
    use shared::snapshot::{Counted, Enforcement, LimitRecord, TokenCharge};

    fn needs(sizes: &AnswerSizes) -> Needs<'_> {
        Needs {
            sizes,
            model: "m",
            prompt_bound: 500,
            prompt_formula: 250,
            output: 1_000,
            class: Some(SizeClass::of(500)),
        }
    }

    fn reserved(needs: &Needs<'_>, counted: Counted, reserve: Reserve) -> u64 {
        let record = LimitRecord {
            id: "a/tokens".into(),
            unit: Unit::Tokens,
            amount: 10_000,
            window_ns: 60_000_000_000,
            enforcement: Enforcement::Strict,
            charge: TokenCharge { counted, reserve, rule: ChargeRule::Settlement },
            on_node_loss: None,
            max_wait_ns: 0,
            overshoot_probability: 0.0,
            deviations: 2.0,
            is_learned: false,
            is_part: false,
            paces: None,
        };
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&record).unwrap();
        needs.tokens(rkyv::access::<ArchivedLimitRecord, rkyv::rancor::Error>(&bytes).unwrap())
    }

    #[test]
    fn each_limit_reserves_what_it_counts() {
        let sizes = AnswerSizes::default();
        let reserved = |counted, reserve| reserved(&needs(&sizes), counted, reserve);
        assert_eq!(reserved(Counted::Prompt, Reserve::Bound), 500);
        assert_eq!(reserved(Counted::PromptAndOutput, Reserve::Bound), 1_500);
        assert_eq!(reserved(Counted::Prompt, Reserve::Formula), 250);
        assert_eq!(reserved(Counted::PromptAndOutput, Reserve::Formula), 1_250);
        assert_eq!(reserved(Counted::PromptAndOutput, Reserve::Learned), 1_500, "nothing is learned yet");
    }

    #[test]
    fn what_is_learned_is_reserved_and_never_more_than_the_bound() {
        for (used, expected) in [(300, 300), (9_000, 1_500)] {
            let sizes = AnswerSizes::default();
            (0..SAMPLES_MIN).for_each(|_| sizes.learn("m", SizeClass::of(500), used));
            assert_eq!(reserved(&needs(&sizes), Counted::PromptAndOutput, Reserve::Learned), expected);
            let several = Needs { class: None, ..needs(&sizes) };
            assert_eq!(reserved(&several, Counted::PromptAndOutput, Reserve::Learned), 1_500);
        }
    }

    #[test]
    fn a_prompt_is_taken_for_a_quarter_of_its_characters() {
        let fields = |bytes, non_ascii_bytes| {
            let mut fields = RequestFields::default();
            (fields.bytes, fields.non_ascii_bytes) = (bytes, non_ascii_bytes);
            fields
        };
        assert_eq!(input_tokens_formula(&fields(400, 0)), 100);
        assert_eq!(input_tokens_formula(&fields(401, 0)), 101);
        assert_eq!(input_tokens_formula(&fields(400, 200)), 75);
        assert!(input_tokens_formula(&fields(400, 200)) < input_tokens_bound(&fields(400, 200)));
    }
}
