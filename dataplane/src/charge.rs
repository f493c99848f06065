//! What a request costs: which limits it falls under, and how many tokens are reserved in each
//! before it is sent; and what is settled with the usage in the answer.

use crate::answer_sizes::SizeClass;
use crate::core::{Core, Serving};
use crate::identify::Caller;
use crate::limiter::{Charge, Sent, Standing};
use crate::plan::{Grant, Step, grant};
use crate::provider::request_scan::RequestFields;
use crate::rejection::{Cause, Rejection};
pub(crate) use crate::reservation::Used;
use crate::reservation::{Body, Needs, Price, PriceUnknown};
use crate::route::Endpoint;
use arrayvec::ArrayVec;
use rkyv::vec::ArchivedVec;
use shared::bounds::LIMITS_PER_REQUEST_MAX;
use shared::limit::{LimitIndex, Unit};
use shared::snapshot::{ArchivedModelRecord, Reserve};

/// Reserved output where neither the request nor the configuration says how much there can be.
const OUTPUT_TOKENS_UNKNOWN: u64 = 4096;

/// What one attempt is charged, limit by limit.
pub(crate) struct Charges {
    entries: ArrayVec<Charge, LIMITS_PER_REQUEST_MAX>,
    /// Where something of it is estimated from earlier answers: the size that this one belongs to.
    pub(crate) class: Option<SizeClass>,
    /// What the model costs.
    pub(crate) price: Option<Price>,
}

impl Charges {
    pub(crate) fn as_slice(&self) -> &[Charge] {
        &self.entries
    }

    /// What is taken from a limit.
    pub(crate) fn amount(&self, limit: LimitIndex) -> u64 {
        self.as_slice().iter().find(|charge| charge.limit == limit).map_or(0, |charge| charge.amount)
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
    let mut charges = Charges { entries: ArrayVec::new(), class: None, price: None };
    if records.limits.is_empty() {
        return Ok(charges);
    }
    let model = step.model.as_str();
    let (mut cap, mut priced) = (None, None);
    for record in models_named(&records.models, model).chain(models_named(&records.models, "*")) {
        if record.provider.as_ref().is_none_or(|only| only.to_native() as usize == step.provider) {
            cap = cap.or(record.max_output_tokens.as_ref().map(|cap| u64::from(cap.to_native())));
            // The nearest price: of the model before that of all models, and of this provider first.
            let nearness = 2 * u8::from(record.model != "*") + u8::from(record.provider.is_some());
            if let Some(own) = record.price.as_ref()
                && priced.is_none_or(|(nearest, _)| nearness > nearest)
            {
                priced = Some((nearness, Price::from(own)));
            }
        }
    }
    let output = match (endpoint.is_input_only(), fields.output_tokens_max(), cap) {
        (true, ..) => 0,
        (false, Some(asked), Some(cap)) => asked.min(cap),
        (false, Some(one), None) | (false, None, Some(one)) => one,
        (false, None, None) => OUTPUT_TOKENS_UNKNOWN,
    };
    let price = priced.map(|(_, price)| price);
    let body = Body { bytes: fields.bytes, non_ascii_bytes: fields.non_ascii_bytes };
    let needs = Needs::new(&core.answer_sizes, model, body, output, fields.choices()).at(price);
    charges.price = price;
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
            let charge = needs.charge(limit, record, serving.slices.ring(limit).map(AsRef::as_ref));
            let charge = charge.map_err(|PriceUnknown| {
                let text = format!(
                    "budget {} applies and the price of this model is not known; governance.model_configs says prices",
                    record.id
                );
                Rejection::new(Cause::PriceUnknown, text).about("model")
            })?;
            if charge.unit == Unit::Tokens && record.charge.reserve == Reserve::Learned {
                self.class = needs.class();
            }
            self.entries.try_push(charge).map_err(|_| {
                let text = format!("more than {LIMITS_PER_REQUEST_MAX} limits apply to this request");
                Rejection::new(Cause::Internal, text)
            })?;
        }
        Ok(())
    }
}

/// What one attempt took from the limits.
pub(crate) struct Charged {
    pub(crate) sent: Option<Sent>,
    /// See [`Charges`].
    pub(crate) class: Option<SizeClass>,
    /// See [`Charges`].
    pub(crate) price: Option<Price>,
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
            let units = used.counted(record, charge.amount, self.price);
            let beyond = units.saturating_sub(charge.amount);
            // A pace is meant to be met by the mean.
            if record.paces.is_none() && charge.unit == Unit::Tokens {
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
            units
        };
        sent.settle_each(of_charge, core.now());
        core.counters.reserved_too_little(most_beyond);
    }
}
