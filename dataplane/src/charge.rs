//! What a request costs before it is sent: which limits it falls under, and how many tokens are
//! reserved. Settling is done with the usage in the answer.

use crate::core::Serving;
use crate::identify::Caller;
use crate::limiter::Charge;
use crate::plan::{Grant, Step, grant};
use crate::provider::request_scan::RequestFields;
use crate::rejection::{Cause, Rejection};
use crate::route::Endpoint;
use rkyv::vec::ArchivedVec;
use shared::bounds::LIMITS_PER_REQUEST_MAX;
use shared::limit::{ChargeRule, LimitIndex, Unit};
use shared::snapshot::{ArchivedModelRecord, ArchivedUnit};

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

/// What one attempt is charged, limit by limit.
pub(crate) struct Charges {
    entries: [Charge; LIMITS_PER_REQUEST_MAX],
    len: usize,
    /// Tokens reserved in each limit that counts tokens.
    pub(crate) reserved_tokens: u64,
}

impl Charges {
    pub(crate) fn as_slice(&self) -> &[Charge] {
        self.entries.get(..self.len).unwrap_or_default()
    }
}

/// Collects the limits of provider, key, model and virtual key for one attempt.
pub(crate) fn charges(
    serving: &Serving,
    caller: Caller,
    step: &Step,
    key: Option<usize>,
    endpoint: Endpoint,
    fields: &RequestFields,
) -> Result<Charges, Rejection> {
    let records = serving.records();
    let empty = Charge { limit: LimitIndex(0), unit: Unit::Requests, rule: ChargeRule::Settlement, amount: 0 };
    let mut charges = Charges { entries: [empty; LIMITS_PER_REQUEST_MAX], len: 0, reserved_tokens: 0 };
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
    charges.reserved_tokens = input_tokens_bound(fields).saturating_add(output.saturating_mul(fields.choices()));
    let mut add = |limits: &ArchivedVec<rkyv::rend::u32_le>| charges.add(serving, limits);
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
    fn add(&mut self, serving: &Serving, limits: &ArchivedVec<rkyv::rend::u32_le>) -> Result<(), Rejection> {
        for index in limits.iter() {
            let limit = LimitIndex(index.to_native());
            let Some(record) = serving.records().limits.get(limit.0 as usize) else { continue };
            // One limit that several entities refer to counts a request once.
            if self.as_slice().iter().any(|charge| charge.limit == limit) {
                continue;
            }
            let (unit, amount) = match record.unit {
                ArchivedUnit::Requests => (Unit::Requests, 1),
                ArchivedUnit::Tokens => (Unit::Tokens, self.reserved_tokens),
                ArchivedUnit::Concurrent => (Unit::Concurrent, 1),
            };
            let Some(entry) = self.entries.get_mut(self.len) else {
                let text = format!("more than {LIMITS_PER_REQUEST_MAX} limits apply to this request");
                return Err(Rejection::new(Cause::Internal, text));
            };
            *entry = Charge { limit, unit, rule: ChargeRule::Settlement, amount };
            self.len += 1;
        }
        Ok(())
    }
}
