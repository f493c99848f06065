//! Counts answers and failures exactly, and keeps latencies in an HDR histogram. Pure.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use crate::rows::Rows;

/// Longest time a histogram tells apart, in nanoseconds (ten minutes); more counts as that.
const NANOS_MAX: u64 = 600_000_000_000;

/// Why a request has no good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// The connection could not be opened.
    Connect,
    /// The connection was reset, or could not be written to.
    Reset,
    /// It ended before the answer did.
    Truncated,
    /// The answer was not HTTP/1.1.
    Malformed,
    /// More bytes came than the answer has.
    Surplus,
    /// The body had another length than the caller asked for.
    WrongLength,
    /// Silence for too long.
    Deadline,
}

impl Failure {
    /// As it is printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "failed_connect",
            Self::Reset => "failed_reset",
            Self::Truncated => "failed_truncated",
            Self::Malformed => "failed_malformed",
            Self::Surplus => "failed_surplus",
            Self::WrongLength => "failed_wrong_length",
            Self::Deadline => "failed_deadline",
        }
    }
}

/// Nanoseconds with three significant digits.
#[derive(Debug, Clone)]
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_max(NANOS_MAX, 3).expect("1..10 minutes at 3 digits is valid"))
    }

    /// Longer than ten minutes counts as ten minutes.
    pub(crate) fn record(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(NANOS_MAX);
        self.0.saturating_record(nanos);
    }

    /// At most this many microseconds for this part of the values.
    pub(crate) fn micros_at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// The longest, in microseconds.
    pub(crate) fn max_micros(&self) -> f64 {
        self.0.max() as f64 / 1_000.0
    }

    /// Which part of all values lies between these times, 0 to 1.
    pub(crate) fn part_between(&self, from: Duration, to: Duration) -> f64 {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(NANOS_MAX);
        self.0.count_between(nanos(from), nanos(to)) as f64 / self.0.len().max(1) as f64
    }

    /// p50, p90, p99, p99.9 and the maximum, in microseconds. Nothing where nothing was recorded.
    pub(crate) fn write(&self, rows: &mut Rows, proxy: &str, metric: &str) {
        if self.0.is_empty() {
            return;
        }
        for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)] {
            rows.add(proxy, &format!("{metric}_{name}"), self.micros_at(quantile), "us");
        }
        rows.add(proxy, &format!("{metric}_max"), self.max_micros(), "us");
    }
}

/// What came of the requests of a run.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Requests with a complete answer, by status.
    pub(crate) by_status: BTreeMap<u16, u64>,
    /// Requests without one, by reason.
    pub(crate) failures: BTreeMap<Failure, u64>,
    /// Of complete answers.
    pub(crate) latency: Latency,
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { by_status: BTreeMap::new(), failures: BTreeMap::new(), latency: Latency::new() }
    }

    /// A complete answer.
    pub(crate) fn answered(&mut self, status: u16, took: Duration) {
        *self.by_status.entry(status).or_default() += 1;
        self.latency.record(took);
    }

    /// No, or no complete answer.
    pub(crate) fn failed(&mut self, failure: Failure, count: u64) {
        if count > 0 {
            *self.failures.entry(failure).or_default() += count;
        }
    }

    /// How many of what was not a complete 200, to read: `status_503: 4, failed_reset: 1`.
    pub(crate) fn describe_not_ok(&self) -> String {
        let answered = self.by_status.iter().filter(|(status, _)| **status != 200);
        let answered = answered.map(|(status, count)| format!("status_{status}: {count}"));
        let failed = self.failures.iter().map(|(failure, count)| format!("{}: {count}", failure.name()));
        answered.chain(failed).collect::<Vec<_>>().join(", ")
    }

    /// Answers of every status.
    pub(crate) fn answers(&self) -> u64 {
        self.by_status.values().sum()
    }

    /// Answers with this status.
    pub(crate) fn with_status(&self, status: u16) -> u64 {
        self.by_status.get(&status).copied().unwrap_or(0)
    }

    /// Requests without a complete answer.
    pub(crate) fn unanswered(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Failures of a load run: everything but a complete 200.
    pub(crate) fn not_ok(&self) -> u64 {
        self.unanswered() + self.answers() - self.with_status(200)
    }

    /// One row for each status and each kind of failure.
    pub(crate) fn write(&self, rows: &mut Rows, proxy: &str) {
        for (status, count) in &self.by_status {
            rows.add(proxy, &format!("status_{status}"), *count as f64, "requests");
        }
        for (failure, count) in &self.failures {
            rows.add(proxy, failure.name(), *count as f64, "requests");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_thousandth() {
        let mut latency = Latency::new();
        for millis in 1..=1_000 {
            latency.record(Duration::from_millis(millis));
        }
        let close = |quantile: f64, millis: f64| {
            let off = latency.micros_at(quantile) / (millis * 1_000.0) - 1.0;
            assert!(off.abs() <= 0.001, "p{quantile} is off by {off}");
        };
        close(0.5, 500.0);
        close(0.99, 990.0);
        close(1.0, 1_000.0);
    }

    #[test]
    fn only_a_complete_200_is_no_failure() {
        let mut tally = Tally::new();
        tally.answered(200, Duration::from_millis(1));
        tally.answered(429, Duration::from_millis(1));
        tally.failed(Failure::Reset, 1);
        tally.failed(Failure::Deadline, 0);
        assert_eq!((tally.answers(), tally.unanswered(), tally.not_ok()), (2, 1, 2));
        assert!(!tally.failures.contains_key(&Failure::Deadline));
    }
}
