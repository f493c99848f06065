//! What this node's cores did in the last ten seconds, by provider and by key. Pure.

use crate::gossip::values::{ProviderTraffic, TrafficRow};
use shared::clock::Nanos;
use shared::report::{Histogram, KeyLabels, LATENCY_BOUNDS_US, Report};
use std::collections::{BTreeMap, VecDeque};

/// Length of the window, in slots of a second.
const SLOTS: u64 = 10;
/// Rows of one slot, each; more are left out, for a second.
const ROWS_MAX: usize = 4_096;
/// Keys and models that are told to others, each.
const TOLD_MAX: usize = 24;

/// Sums of attempts at one provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attempts {
    pub(super) all: u64,
    /// Those that failed for the provider's own reasons.
    pub(super) failed: u64,
}

impl Attempts {
    fn add(&mut self, other: Self) {
        self.all = self.all.saturating_add(other.all);
        self.failed = self.failed.saturating_add(other.failed);
    }

    /// At least half of them failed.
    pub(super) fn fail(self) -> bool {
        self.failed > 0 && self.failed.saturating_mul(2) >= self.all
    }
}

#[derive(Default)]
struct Slot {
    second: u64,
    attempts: BTreeMap<String, Attempts>,
    /// Requests, and errors by class, as [`TrafficRow`] has them.
    keys: BTreeMap<KeyLabels, (u64, [u64; 6])>,
    waits: BTreeMap<KeyLabels, Histogram>,
    /// Requests, cut answers and first bytes by provider and model.
    models: BTreeMap<(String, String), (u64, u64, Histogram)>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Recent {
    slots: VecDeque<Slot>,
    /// Since the start, so that whoever remembers a sum knows what came since.
    totals: BTreeMap<String, Attempts>,
}

impl Recent {
    /// Adds what a core did.
    pub(super) fn add(&mut self, report: &Report, now: Nanos) {
        if report.attempts.is_empty() && report.traffic.is_empty() {
            return;
        }
        self.forget(now);
        let second = second(now);
        if self.slots.back().is_none_or(|slot| slot.second != second) {
            self.slots.push_back(Slot { second, ..Slot::default() });
        }
        let Some(slot) = self.slots.back_mut() else { return };
        for (labels, count) in &report.attempts {
            let class = class(labels.outcome);
            let is_failure = class.is_some_and(|class| class >= 2);
            let sum = Attempts { all: *count, failed: if is_failure { *count } else { 0 } };
            for sums in [&mut slot.attempts, &mut self.totals] {
                if let Some(known) = row(sums, &labels.provider) {
                    known.add(sum);
                }
            }
            let key = KeyLabels { provider: labels.provider.clone(), key: labels.key.clone() };
            if let Some((requests, errors)) = row(&mut slot.keys, &key) {
                *requests = requests.saturating_add(*count);
                if let Some(errors) = class.and_then(|class| errors.get_mut(class)) {
                    *errors = errors.saturating_add(*count);
                }
            }
        }
        for (key, waits) in &report.waits {
            if let Some(known) = row(&mut slot.waits, key) {
                known.add(waits);
            }
        }
        for (labels, traffic) in report.traffic.iter().filter(|(labels, _)| !labels.provider.is_empty()) {
            // The attempt was well until its answer was cut.
            let cut = Attempts { all: 0, failed: traffic.cut };
            for sums in [&mut slot.attempts, &mut self.totals] {
                if let Some(known) = row(sums, &labels.provider) {
                    known.add(cut);
                }
            }
            if let Some((requests, cut, first_bytes)) =
                row(&mut slot.models, &(labels.provider.clone(), labels.model.clone()))
            {
                *requests = requests.saturating_add(traffic.requests);
                *cut = cut.saturating_add(traffic.cut);
                first_bytes.add(&traffic.first_byte);
            }
        }
    }

    /// Forgets what is older than the window.
    pub(super) fn forget(&mut self, now: Nanos) {
        let oldest = second(now).saturating_sub(SLOTS - 1);
        while self.slots.front().is_some_and(|slot| slot.second < oldest) {
            self.slots.pop_front();
        }
    }

    /// Attempts at every provider in the window.
    pub(super) fn attempts(&self) -> BTreeMap<&str, Attempts> {
        let mut sums: BTreeMap<&str, Attempts> = BTreeMap::new();
        for (provider, attempts) in self.slots.iter().flat_map(|slot| &slot.attempts) {
            sums.entry(provider).or_default().add(*attempts);
        }
        sums
    }

    /// Attempts at one provider since the start.
    pub(super) fn total(&self, provider: &str) -> Attempts {
        self.totals.get(provider).copied().unwrap_or_default()
    }

    /// As others are told.
    pub(super) fn providers(&self) -> Vec<ProviderTraffic> {
        let mut first_bytes: BTreeMap<&str, Histogram> = BTreeMap::new();
        for ((provider, _), (_, _, histogram)) in self.slots.iter().flat_map(|slot| &slot.models) {
            first_bytes.entry(provider).or_default().add(histogram);
        }
        let told = self.attempts().into_iter().map(|(provider, attempts)| ProviderTraffic {
            provider: provider.to_owned(),
            attempts: attempts.all,
            failures: attempts.failed,
            first_byte_us: first_bytes.get(provider).map_or(0, |all| median_us(&all.buckets)),
        });
        told.collect()
    }

    /// As others are told, the busiest ones: a row for each key without its models, and one for
    /// each model without its keys, since no request is counted by both.
    pub(super) fn rows(&self) -> Vec<TrafficRow> {
        let mut keys: BTreeMap<&KeyLabels, TrafficRow> = BTreeMap::new();
        let mut models: BTreeMap<&(String, String), TrafficRow> = BTreeMap::new();
        for slot in &self.slots {
            for (labels, (requests, errors)) in &slot.keys {
                let row = keys.entry(labels).or_default();
                row.requests = row.requests.saturating_add(*requests);
                for (sum, more) in row.errors.iter_mut().zip(errors) {
                    *sum = sum.saturating_add(*more);
                }
            }
            for (labels, waits) in &slot.waits {
                add_buckets(&mut keys.entry(labels).or_default().latency, &waits.buckets);
            }
            for (labels, (requests, cut, first_bytes)) in &slot.models {
                let row = models.entry(labels).or_default();
                row.requests = row.requests.saturating_add(*requests);
                row.errors[5] = row.errors[5].saturating_add(*cut);
                add_buckets(&mut row.latency, &first_bytes.buckets);
            }
        }
        let keys = keys.into_iter().filter(|(labels, _)| !labels.key.is_empty());
        let keys = keys.map(|(labels, row)| TrafficRow {
            provider: labels.provider.clone(),
            key: labels.key.clone(),
            ..row
        });
        let models = models.into_iter();
        let models = models.map(|((provider, model), row)| TrafficRow {
            provider: provider.clone(),
            model: model.clone(),
            ..row
        });
        let mut told = busiest(keys.collect());
        told.extend(busiest(models.collect()));
        told
    }
}

/// Middle of the values in these buckets, microseconds, as far as buckets tell.
pub(super) fn median_us(buckets: &[u64]) -> u64 {
    let all = buckets.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let mut below = 0_u64;
    for (at, count) in buckets.iter().enumerate() {
        below = below.saturating_add(*count);
        if all > 0 && below.saturating_mul(2) >= all {
            let last = LATENCY_BOUNDS_US.last().copied().unwrap_or_default();
            return LATENCY_BOUNDS_US.get(at).copied().unwrap_or(last);
        }
    }
    0
}

fn busiest(mut rows: Vec<TrafficRow>) -> Vec<TrafficRow> {
    rows.sort_by_key(|row| std::cmp::Reverse(row.requests));
    rows.truncate(TOLD_MAX);
    rows
}

fn add_buckets(sums: &mut Vec<u64>, more: &[u64]) {
    sums.resize(more.len(), 0);
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(*more);
    }
}

/// Place of an outcome among the error classes; from the third on it is the provider's own fault.
fn class(outcome: &str) -> Option<usize> {
    ["limited", "refused", "error", "unreachable", "timeout", "cut"].iter().position(|class| *class == outcome)
}

fn second(now: Nanos) -> u64 {
    now.0 / 1_000_000_000
}

/// The row of `key`, while there is room for it.
fn row<'m, K: Ord + Clone, V: Default>(rows: &'m mut BTreeMap<K, V>, key: &K) -> Option<&'m mut V> {
    if !rows.contains_key(key) {
        if rows.len() >= ROWS_MAX {
            return None;
        }
        rows.insert(key.clone(), V::default());
    }
    rows.get_mut(key)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, report};
    use super::*;

    #[test]
    fn ten_seconds_are_remembered_and_no_more() {
        let mut recent = Recent::default();
        recent.add(&report("p", "k", "ok", 3), at(0));
        recent.add(&report("p", "k", "error", 2), at(9_900));
        recent.add(&report("p", "k", "limited", 1), at(9_950));
        assert_eq!(recent.attempts()["p"], Attempts { all: 6, failed: 2 });
        recent.forget(at(10_000));
        assert_eq!(recent.attempts()["p"], Attempts { all: 3, failed: 2 });
        recent.forget(at(30_000));
        assert!(recent.attempts().is_empty() && recent.providers().is_empty() && recent.rows().is_empty());
        assert_eq!(recent.total("p"), Attempts { all: 6, failed: 2 });
    }

    #[test]
    fn a_key_is_told_with_its_errors_by_class() {
        let mut recent = Recent::default();
        for (outcome, count) in [("ok", 5), ("limited", 2), ("timeout", 1)] {
            recent.add(&report("p", "k", outcome, count), at(0));
        }
        let rows = recent.rows();
        assert_eq!((rows.len(), rows[0].key.as_str(), rows[0].requests), (1, "k", 8));
        assert_eq!(rows[0].errors, [2, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn a_median_is_the_bound_of_its_bucket() {
        let mut histogram = Histogram::default();
        for wait in [90, 300, 400, 600_000, 130_000_000] {
            histogram.record_us(wait);
        }
        assert_eq!(median_us(&histogram.buckets), 500);
        assert_eq!((median_us(&[]), median_us(&[0; 19])), (0, 0));
    }
}
