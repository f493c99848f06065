//! Sums since the start, by provider and by row, and what was added between two of them.

use crate::gossip::values::TrafficRow;
use crate::metrics::Totals;
use shared::report::{AttemptLabels, Histogram, TrafficLabels};
use std::collections::BTreeMap;

/// Provider, key, model; either the key or the model is empty.
pub(super) type RowName = (String, String, String);

/// Classes of errors, in the order of [`TrafficRow::errors`].
const LIMITED: usize = 0;
const REFUSED: usize = 1;
const ERROR: usize = 2;
const UNREACHABLE: usize = 3;
const TIMEOUT: usize = 4;
const CUT: usize = 5;

/// Sums of one provider.
#[derive(Clone, Debug, Default)]
pub(super) struct ProviderTally {
    pub(super) attempts: u64,
    pub(super) failures: u64,
    pub(super) first_byte: Histogram,
}

/// Sums of one row.
#[derive(Clone, Debug, Default)]
pub(super) struct RowTally {
    requests: u64,
    errors: [u64; 6],
    first_byte: Histogram,
}

impl ProviderTally {
    pub(super) fn add(&mut self, other: &Self) {
        self.attempts = self.attempts.saturating_add(other.attempts);
        self.failures = self.failures.saturating_add(other.failures);
        self.first_byte.add(&other.first_byte);
    }

    pub(super) fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self.clone() };
        Self {
            attempts: self.attempts.saturating_sub(before.attempts),
            failures: self.failures.saturating_sub(before.failures),
            first_byte: histogram_since(&self.first_byte, &before.first_byte),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.attempts == 0 && self.failures == 0 && self.first_byte.count() == 0
    }
}

impl RowTally {
    /// What was added; `None` for nothing.
    pub(super) fn row_since(&self, before: Option<&Self>, name: &RowName) -> Option<TrafficRow> {
        let none = Self::default();
        let before = before.unwrap_or(&none);
        let requests = self.requests.checked_sub(before.requests).filter(|requests| *requests > 0)?;
        let mut errors = self.errors;
        errors.iter_mut().zip(before.errors).for_each(|(count, before)| *count = count.saturating_sub(before));
        let buckets = histogram_since(&self.first_byte, &before.first_byte).buckets;
        let used = buckets.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        let (provider, key, model) = name.clone();
        let latency = buckets.into_iter().take(used).collect();
        Some(TrafficRow { provider, key, model, requests, errors, latency })
    }

    fn failed(&mut self, class: usize, count: u64) {
        if let Some(errors) = self.errors.get_mut(class) {
            *errors = errors.saturating_add(count);
        }
    }
}

/// All providers that were tried since the start.
pub(super) fn providers_of(totals: &Totals) -> BTreeMap<String, ProviderTally> {
    let mut tallies: BTreeMap<String, ProviderTally> = BTreeMap::new();
    for (labels, count) in totals.attempts() {
        let tally = tally_of(&mut tallies, &labels.provider);
        tally.attempts = tally.attempts.saturating_add(*count);
        if class_of_outcome(labels).is_some_and(|class| class >= ERROR) {
            tally.failures = tally.failures.saturating_add(*count);
        }
    }
    // An attempt whose answer was cut had begun well, and is counted so.
    for (labels, _, cut) in totals.requests() {
        if cut > 0 && !labels.provider.is_empty() {
            let tally = tally_of(&mut tallies, &labels.provider);
            tally.failures = tally.failures.saturating_add(cut);
        }
    }
    for (provider, _, first_byte) in totals.first_bytes() {
        if !provider.is_empty() {
            tally_of(&mut tallies, provider).first_byte.add(first_byte);
        }
    }
    tallies
}

/// All rows since the start: by model as clients saw it, by key as the provider answered. Requests
/// without a provider were refused by the node itself, and attempts without a key are in
/// [`providers_of`].
pub(super) fn rows_of(totals: &Totals) -> BTreeMap<RowName, RowTally> {
    let mut tallies: BTreeMap<RowName, RowTally> = BTreeMap::new();
    for (labels, requests, cut) in totals.requests() {
        if labels.provider.is_empty() {
            continue;
        }
        let tally = tallies.entry((labels.provider.clone(), String::new(), labels.model.clone())).or_default();
        tally.requests = tally.requests.saturating_add(requests);
        tally.failed(CUT, cut);
        if let Some(class) = class_of_answer(labels) {
            tally.failed(class, requests);
        }
    }
    for (provider, model, first_byte) in totals.first_bytes() {
        if let Some(tally) = tallies.get_mut(&(provider.to_owned(), String::new(), model.to_owned())) {
            tally.first_byte.add(first_byte);
        }
    }
    for (labels, count) in totals.attempts() {
        if labels.key.is_empty() {
            continue;
        }
        let tally = tallies.entry((labels.provider.clone(), labels.key.clone(), String::new())).or_default();
        tally.requests = tally.requests.saturating_add(*count);
        if let Some(class) = class_of_outcome(labels) {
            tally.failed(class, *count);
        }
    }
    for (key, waits) in &totals.waits {
        let tally = tallies.entry((key.provider.clone(), key.key.clone(), String::new())).or_default();
        tally.first_byte.add(waits);
    }
    tallies
}

fn tally_of<'a>(tallies: &'a mut BTreeMap<String, ProviderTally>, provider: &str) -> &'a mut ProviderTally {
    if !tallies.contains_key(provider) {
        tallies.insert(provider.to_owned(), ProviderTally::default());
    }
    tallies.get_mut(provider).expect("it was inserted above")
}

fn class_of_outcome(labels: &AttemptLabels) -> Option<usize> {
    match labels.outcome {
        "limited" => Some(LIMITED),
        "refused" => Some(REFUSED),
        "error" => Some(ERROR),
        "unreachable" => Some(UNREACHABLE),
        "timeout" => Some(TIMEOUT),
        "cut" => Some(CUT),
        _ => None,
    }
}

fn class_of_answer(labels: &TrafficLabels) -> Option<usize> {
    match (labels.status, labels.code) {
        (429, _) => Some(LIMITED),
        // With a code it was this node that refused.
        (401..=403, "") => Some(REFUSED),
        (504, _) => Some(TIMEOUT),
        (_, "provider_unreachable" | "provider_tls_failed" | "provider_unresolved") => Some(UNREACHABLE),
        (500.., _) => Some(ERROR),
        _ => None,
    }
}

fn histogram_since(after: &Histogram, before: &Histogram) -> Histogram {
    let mut since = after.clone();
    since.buckets.iter_mut().zip(before.buckets).for_each(|(count, before)| *count = count.saturating_sub(before));
    since.sum_us = after.sum_us.saturating_sub(before.sum_us);
    since
}
