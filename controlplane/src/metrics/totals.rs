//! Everything the cores reported since the start, added up. Bounded: names beyond the bounds are
//! counted as `other`, so no configuration and no client can make it grow for ever. Rows of
//! providers and models that left the configuration stay until the process ends, as counters must.

use ahash::RandomState;
use shared::report::{
    AttemptLabels, Estimates, Gauges, Histogram, KeyLabels, LimitWaits, Report, Sums, Traffic, TrafficLabels,
};
use std::collections::{BTreeMap, HashMap};

/// Different label sets of requests, attempts and refusals, each.
pub(crate) const ROWS_MAX: usize = 5_000;
/// Different pairs of provider and model that have latency histograms. A histogram is some sixty
/// lines of text, so that these bound the size of `/metrics` rather than the rows.
pub(crate) const HISTOGRAMS_MAX: usize = 500;
/// Cores whose gauges are kept.
pub(crate) const CORES_MAX: usize = 1_024;
/// What stands for everything beyond a bound.
pub(crate) const OTHER: &str = "other";

/// Provider and model of a histogram.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LatencyLabels {
    pub(crate) provider: String,
    pub(crate) model: String,
}

/// The three latencies of a provider's model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    pub(crate) duration: Histogram,
    pub(crate) first_byte: Histogram,
    pub(crate) overhead: Histogram,
}

/// What the cores have reported so far.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Counts by label; the histograms inside are not used, see `latencies`.
    pub(crate) traffic: HashMap<TrafficLabels, Counts, RandomState>,
    pub(crate) latencies: HashMap<LatencyLabels, Latencies, RandomState>,
    pub(crate) attempts: HashMap<AttemptLabels, u64, RandomState>,
    pub(crate) refusals: HashMap<String, u64, RandomState>,
    pub(crate) routed: HashMap<String, u64, RandomState>,
    pub(crate) limit_waits: HashMap<String, LimitWaits, RandomState>,
    pub(crate) estimates: HashMap<String, Estimates, RandomState>,
    /// Times to the answer's head by key, where weights follow them; keys are bounded by the
    /// configurations that there were.
    pub(crate) waits: HashMap<KeyLabels, Histogram, RandomState>,
    pub(crate) sums: Sums,
    pub(crate) cores: BTreeMap<u32, CoreView>,
}

/// A row of traffic without its histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    pub(crate) streams: u64,
    pub(crate) cut: u64,
    pub(crate) abandoned: u64,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) usage_missing: u64,
}

/// What is known of one core.
#[derive(Clone, Debug, Default)]
pub(crate) struct CoreView {
    pub(crate) gauges: Gauges,
    /// Reports received, so that a drain can wait for a core's next word.
    pub(crate) reports: u64,
}

impl Totals {
    /// Requests that a limit refused since the start.
    pub fn refused_by(&self, limit: &str) -> u64 {
        self.refusals.get(limit).copied().unwrap_or(0)
    }

    /// Adds one core's report.
    pub fn add(&mut self, report: &Report) {
        for (labels, traffic) in &report.traffic {
            self.add_traffic(labels, traffic);
        }
        for (labels, count) in &report.attempts {
            let labels = if self.attempts.contains_key(labels) || self.attempts.len() < ROWS_MAX {
                labels.clone()
            } else {
                AttemptLabels { provider: OTHER.into(), key: OTHER.into(), outcome: labels.outcome }
            };
            add(self.attempts.entry(labels).or_default(), *count);
        }
        for (limit, count) in &report.refusals {
            let known = self.refusals.contains_key(limit) || self.refusals.len() < ROWS_MAX;
            let limit = if known { limit.as_str() } else { OTHER };
            add(self.refusals.entry(limit.to_owned()).or_default(), *count);
        }
        for (rule, count) in &report.routed {
            let known = self.routed.contains_key(rule) || self.routed.len() < ROWS_MAX;
            let rule = if known { rule.as_str() } else { OTHER };
            add(self.routed.entry(rule.to_owned()).or_default(), *count);
        }
        for (limit, waits) in &report.limit_waits {
            let known = self.limit_waits.contains_key(limit) || self.limit_waits.len() < ROWS_MAX;
            let limit = if known { limit.as_str() } else { OTHER };
            self.limit_waits.entry(limit.to_owned()).or_default().add(waits);
        }
        for (limit, estimates) in &report.estimates {
            let known = self.estimates.contains_key(limit) || self.estimates.len() < ROWS_MAX;
            let limit = if known { limit.as_str() } else { OTHER };
            self.estimates.entry(limit.to_owned()).or_default().add(estimates);
        }
        for (key, waits) in &report.waits {
            if self.waits.contains_key(key) || self.waits.len() < HISTOGRAMS_MAX {
                self.waits.entry(key.clone()).or_default().add(waits);
            }
        }
        self.add_sums(&report.sums);
        if self.cores.contains_key(&report.core) || self.cores.len() < CORES_MAX {
            let core = self.cores.entry(report.core).or_default();
            core.gauges = report.gauges.clone();
            core.reports = core.reports.saturating_add(1);
        }
    }

    /// Requests being served, by the newest word of every core.
    pub fn requests_in_flight(&self) -> u64 {
        self.cores.values().fold(0, |sum, core| sum.saturating_add(core.gauges.requests_in_flight))
    }

    /// Attempts by provider, key and outcome.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = (&AttemptLabels, &u64)> {
        self.attempts.iter()
    }

    /// Requests, and those whose answer was cut.
    pub(crate) fn requests(&self) -> impl Iterator<Item = (&TrafficLabels, u64, u64)> {
        self.traffic.iter().map(|(labels, row)| (labels, row.requests, row.cut))
    }

    /// Time to the first byte by provider and model.
    pub(crate) fn first_bytes(&self) -> impl Iterator<Item = (&str, &str, &Histogram)> {
        let rows = self.latencies.iter();
        rows.map(|(labels, row)| (labels.provider.as_str(), labels.model.as_str(), &row.first_byte))
    }

    /// The newest word of every core, by its number.
    pub(crate) fn gauges(&self) -> impl Iterator<Item = &Gauges> {
        self.cores.values().map(|core| &core.gauges)
    }

    /// Cores that have reported.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// How many reports each core has sent so far.
    pub(crate) fn reports_by_core(&self) -> BTreeMap<u32, u64> {
        self.cores.iter().map(|(core, view)| (*core, view.reports)).collect()
    }

    fn add_traffic(&mut self, labels: &TrafficLabels, traffic: &Traffic) {
        let row = if self.traffic.contains_key(labels) || self.traffic.len() < ROWS_MAX {
            labels.clone()
        } else {
            TrafficLabels {
                provider: OTHER.into(),
                model: OTHER.into(),
                endpoint: OTHER,
                status: labels.status / 100 * 100,
                code: "",
            }
        };
        let row = self.traffic.entry(row).or_default();
        add(&mut row.requests, traffic.requests);
        add(&mut row.streams, traffic.streams);
        add(&mut row.cut, traffic.cut);
        add(&mut row.abandoned, traffic.abandoned);
        add(&mut row.input_tokens, traffic.input_tokens);
        add(&mut row.output_tokens, traffic.output_tokens);
        add(&mut row.usage_missing, traffic.usage_missing);

        let pair = LatencyLabels { provider: labels.provider.clone(), model: labels.model.clone() };
        let pair = if self.latencies.contains_key(&pair) || self.latencies.len() < HISTOGRAMS_MAX {
            pair
        } else {
            LatencyLabels { provider: OTHER.into(), model: OTHER.into() }
        };
        let latencies = self.latencies.entry(pair).or_default();
        latencies.duration.add(&traffic.duration);
        latencies.first_byte.add(&traffic.first_byte);
        latencies.overhead.add(&traffic.overhead);
    }

    fn add_sums(&mut self, sums: &Sums) {
        // Taken apart by name, so that a new sum cannot be forgotten here.
        let Sums {
            connections_accepted,
            connections_refused,
            upstream_connects,
            upstream_reuses,
            upstream_stale,
            client_bytes_in,
            client_bytes_out,
            reserved_too_little_tokens,
            usage_flagged,
            panics,
        } = sums;
        let mine = &mut self.sums;
        add(&mut mine.connections_accepted, *connections_accepted);
        add(&mut mine.connections_refused, *connections_refused);
        add(&mut mine.upstream_connects, *upstream_connects);
        add(&mut mine.upstream_reuses, *upstream_reuses);
        add(&mut mine.upstream_stale, *upstream_stale);
        add(&mut mine.client_bytes_in, *client_bytes_in);
        add(&mut mine.client_bytes_out, *client_bytes_out);
        add(&mut mine.reserved_too_little_tokens, *reserved_too_little_tokens);
        add(&mut mine.usage_flagged, *usage_flagged);
        add(&mut mine.panics, *panics);
    }
}

fn add(total: &mut u64, more: u64) {
    *total = total.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(model: &str, status: u16) -> TrafficLabels {
        TrafficLabels { provider: "openai".into(), model: model.into(), endpoint: "chat", status, code: "" }
    }

    fn report(core: u32, rows: &[(TrafficLabels, u64)]) -> Report {
        let mut report = Report { core, ..Report::default() };
        for (labels, requests) in rows {
            report.traffic.insert(labels.clone(), Traffic { requests: *requests, ..Traffic::default() });
        }
        report
    }

    #[test]
    fn rows_of_all_cores_are_added_up() {
        let mut totals = Totals::default();
        totals.add(&report(0, &[(labels("a", 200), 2)]));
        totals.add(&report(1, &[(labels("a", 200), 3), (labels("b", 200), 1)]));
        assert_eq!(totals.traffic[&labels("a", 200)].requests, 5);
        assert_eq!(totals.traffic[&labels("b", 200)].requests, 1);
    }

    #[test]
    fn rows_beyond_the_bound_are_counted_as_other_and_nothing_is_lost() {
        let mut totals = Totals::default();
        for index in 0..ROWS_MAX * 2 {
            totals.add(&report(0, &[(labels(&format!("model-{index}"), 429), 1)]));
        }
        assert_eq!(totals.traffic.len(), ROWS_MAX + 1);
        assert_eq!(totals.traffic.values().map(|row| row.requests).sum::<u64>(), ROWS_MAX as u64 * 2);
        assert_eq!(totals.latencies.len(), HISTOGRAMS_MAX + 1);
    }

    #[test]
    fn gauges_are_replaced_by_the_cores_newest_word() {
        let mut totals = Totals::default();
        for in_flight in [7, 2] {
            let mut report = report(0, &[]);
            report.gauges.requests_in_flight = in_flight;
            totals.add(&report);
        }
        totals.add(&Report {
            core: 1,
            gauges: Gauges { requests_in_flight: 1, ..Gauges::default() },
            ..Report::default()
        });
        assert_eq!(totals.requests_in_flight(), 3);
        assert_eq!(totals.reports_by_core(), BTreeMap::from([(0, 2), (1, 1)]));
    }
}
