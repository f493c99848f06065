//! Adaptive weights (`load_balancer_config`): which part of its configured weight a key or a
//! provider has, by its errors and its latency on all healthy nodes. Pure.
//!
//! A part is compared with its siblings only: keys with those of the same provider, providers
//! with each other. It moves by a fifth of the way a second, and never below a tenth, so that
//! what got better is noticed.

use crate::gossip::values::{ProviderTraffic, TrafficRow};
use crate::member::{Health, Member};
use shared::published::{KeyWeight, ProviderShare};
use shared::report::{KeyLabels, LATENCY_BOUNDS_US};
use std::collections::{BTreeMap, BTreeSet};

/// Least part of the configured weight.
const PART_MIN: f64 = 0.1;
/// How far a part moves towards where it should be, a second.
const PACE: f64 = 0.2;
/// Requests in ten seconds below which nothing is said of a key or provider.
const REQUESTS_MIN: u64 = 5;
/// Parts are told in steps of this many permille, so that noise alone publishes nothing.
const STEP_PERMILLE: f64 = 20.0;

/// See the module.
#[derive(Default)]
pub(super) struct Weights {
    keys: BTreeMap<KeyLabels, f64>,
    providers: BTreeMap<String, f64>,
}

/// What is known of one key or provider.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    requests: u64,
    errors: u64,
    /// Sum over requests, and how many it is of.
    wait_us: f64,
    waits: f64,
}

impl Measured {
    fn wait(self) -> Option<f64> {
        (self.waits >= REQUESTS_MIN as f64 && self.wait_us > 0.0).then(|| self.wait_us / self.waits)
    }

    /// Where its part should be, given the shortest wait among its siblings.
    fn target(self, shortest: Option<f64>) -> f64 {
        if self.requests < REQUESTS_MIN {
            return 1.0;
        }
        let success = 1.0 - (self.errors.min(self.requests) as f64 / self.requests as f64);
        let speed = match (self.wait(), shortest) {
            (Some(wait), Some(shortest)) => (shortest / wait).min(1.0),
            _ => 1.0,
        };
        (success * success * speed).clamp(PART_MIN, 1.0)
    }
}

impl Weights {
    /// Follows what all healthy nodes measured; called once a second.
    pub(super) fn follow(
        &mut self,
        known: &BTreeSet<KeyLabels>,
        providers: &[ProviderTraffic],
        rows: &[TrafficRow],
        members: &[Member],
    ) {
        let healthy = || members.iter().filter(|member| member.health == Health::Healthy);
        let mut by_key: BTreeMap<KeyLabels, Measured> = BTreeMap::new();
        for row in rows.iter().chain(healthy().flat_map(|member| &member.values.traffic)) {
            let labels = KeyLabels { provider: row.provider.clone(), key: row.key.clone() };
            if !known.contains(&labels) {
                continue;
            }
            let measured = by_key.entry(labels).or_default();
            measured.requests = measured.requests.saturating_add(row.requests);
            measured.errors = row.errors.iter().fold(measured.errors, |sum, count| sum.saturating_add(*count));
            for (count, bound) in row.latency.iter().zip(LATENCY_BOUNDS_US.iter().chain(LATENCY_BOUNDS_US.last())) {
                measured.wait_us += *count as f64 * *bound as f64;
                measured.waits += *count as f64;
            }
        }
        let mut by_provider: BTreeMap<String, Measured> = BTreeMap::new();
        for traffic in providers.iter().chain(healthy().flat_map(|member| &member.values.providers)) {
            let first = known.range(first_key(&traffic.provider)..).next();
            if first.is_none_or(|key| key.provider != traffic.provider) {
                continue;
            }
            let measured = by_provider.entry(traffic.provider.clone()).or_default();
            measured.requests = measured.requests.saturating_add(traffic.attempts);
            measured.errors = measured.errors.saturating_add(traffic.failures);
            measured.wait_us += traffic.first_byte_us as f64 * traffic.attempts as f64;
            measured.waits += if traffic.first_byte_us > 0 { traffic.attempts as f64 } else { 0.0 };
        }
        let shortest_of = |provider: &str| {
            let siblings = by_key.range(first_key(provider)..).take_while(|(key, _)| key.provider == provider);
            siblings.filter_map(|(_, measured)| measured.wait()).min_by(f64::total_cmp)
        };
        let targets = by_key.iter().map(|(key, measured)| (key, measured.target(shortest_of(&key.provider))));
        approach(&mut self.keys, targets);
        let shortest = by_provider.values().filter_map(|measured| measured.wait()).min_by(f64::total_cmp);
        approach(&mut self.providers, by_provider.iter().map(|(name, measured)| (name, measured.target(shortest))));
    }

    /// Everything as configured.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keys with less than their weight.
    pub(super) fn keys(&self) -> Vec<KeyWeight> {
        let told = self.keys.iter().filter_map(|(labels, part)| {
            let (provider, key) = (labels.provider.clone(), labels.key.clone());
            Some(KeyWeight { provider, key, model: None, permille: told(*part)? })
        });
        told.collect()
    }

    /// Providers with less than their weight.
    pub(super) fn providers(&self) -> Vec<ProviderShare> {
        let told = self
            .providers
            .iter()
            .filter_map(|(provider, part)| Some(ProviderShare { provider: provider.clone(), permille: told(*part)? }));
        told.collect()
    }
}

fn first_key(provider: &str) -> KeyLabels {
    KeyLabels { provider: provider.to_owned(), key: String::new() }
}

/// Moves parts towards where they should be; those without a word move back to the whole.
fn approach<'t, K: Ord + Clone + 't>(parts: &mut BTreeMap<K, f64>, targets: impl Iterator<Item = (&'t K, f64)>) {
    let mut targets: BTreeMap<&K, f64> = targets.collect();
    parts.retain(|name, part| {
        let target = targets.remove(name).unwrap_or(1.0);
        *part += (target - *part) * PACE;
        *part < 0.995
    });
    for (name, target) in targets {
        if target < 1.0 {
            parts.insert(name.clone(), 1.0 + (target - 1.0) * PACE);
        }
    }
}

fn told(part: f64) -> Option<u16> {
    let permille = (part * 1000.0 / STEP_PERMILLE).round() * STEP_PERMILLE;
    (permille < 1000.0).then_some(permille.max(1.0) as u16)
}

#[cfg(test)]
mod tests {
    use super::super::tests::member;
    use super::*;
    use crate::gossip::values::NodeValues;

    fn known() -> BTreeSet<KeyLabels> {
        [("p", "a"), ("p", "b"), ("q", "c")].map(|(p, k)| KeyLabels { provider: p.into(), key: k.into() }).into()
    }

    fn row(key: &str, requests: u64, limited: u64, bucket: usize) -> TrafficRow {
        let mut latency = vec![0; 19];
        latency[bucket] = requests - limited;
        let errors = [limited, 0, 0, 0, 0, 0];
        TrafficRow { provider: "p".into(), key: key.into(), requests, errors, latency, ..TrafficRow::default() }
    }

    fn permille(weights: &Weights, key: &str) -> u16 {
        weights.keys().iter().find(|weight| weight.key == key).map_or(1000, |weight| weight.permille)
    }

    #[test]
    fn a_key_with_errors_loses_weight_smoothly_and_gets_it_back() {
        let mut weights = Weights::default();
        let rows = [row("a", 100, 50, 9), row("b", 100, 0, 9)];
        let mut seen = vec![1000];
        for _ in 0..30 {
            weights.follow(&known(), &[], &rows, &[]);
            seen.push(permille(&weights, "a"));
        }
        assert!(seen.is_sorted_by(|a, b| a >= b) && seen[1] >= 800, "{seen:?}");
        assert!((240..=260).contains(&seen[30]), "half fail, and the square of that is left: {seen:?}");
        assert_eq!(permille(&weights, "b"), 1000);
        for _ in 0..40 {
            weights.follow(&known(), &[], &[], &[]);
        }
        assert!(weights.keys().is_empty());
    }

    #[test]
    fn the_slower_key_gets_less_and_nobody_less_than_a_tenth() {
        let mut weights = Weights::default();
        // 50 ms and 100 ms; and one that always fails.
        let rows = [row("a", 100, 0, 9), row("b", 100, 0, 8)];
        (0..60).for_each(|_| weights.follow(&known(), &[], &rows, &[]));
        assert_eq!((permille(&weights, "a"), permille(&weights, "b")), (500, 1000));
        let rows = [row("a", 100, 100, 9), row("b", 100, 0, 8)];
        (0..60).for_each(|_| weights.follow(&known(), &[], &rows, &[]));
        assert_eq!(permille(&weights, "a"), 100);
    }

    #[test]
    fn what_healthy_nodes_measured_counts_here() {
        let traffic = vec![row("a", 100, 100, 9), TrafficRow { provider: "x".into(), ..row("y", 100, 100, 9) }];
        for (health, expected) in [(Health::Healthy, 100), (Health::Dead, 1000), (Health::Suspect, 1000)] {
            let mut weights = Weights::default();
            let members = [member("n", health, NodeValues { traffic: traffic.clone(), ..NodeValues::default() })];
            (0..60).for_each(|_| weights.follow(&known(), &[], &[], &members));
            assert_eq!(permille(&weights, "a"), expected);
            assert!(weights.keys().len() <= 1, "keys that nobody configured have no weight");
        }
    }

    #[test]
    fn the_slower_provider_gets_less() {
        let traffic = |provider: &str, first_byte_us| ProviderTraffic {
            provider: provider.into(),
            attempts: 50,
            failures: 0,
            first_byte_us,
        };
        let mut weights = Weights::default();
        let all = [traffic("p", 100_000), traffic("q", 500_000), traffic("unknown", 1)];
        (0..60).for_each(|_| weights.follow(&known(), &all, &[], &[]));
        assert_eq!(weights.providers(), [ProviderShare { provider: "q".into(), permille: 200 }]);
    }
}
