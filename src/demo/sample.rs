//! What the demo shows of a node, read out of the text of `/metrics`. Pure.

use shared::clock::Nanos;
use std::collections::BTreeMap;

/// The node at one moment. Counters run from the node's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// When the node was asked.
    pub(super) taken_at: Nanos,
    /// Whether it wants traffic: no while it starts, and while it drains.
    pub(super) is_ready: bool,
    /// Requests answered with a status below 400.
    pub(super) answered: u64,
    /// Requests refused by a limit.
    pub(super) refused: u64,
    /// Requests answered with any other status.
    pub(super) failed: u64,
    /// Requests being served.
    pub(super) in_flight: u64,
    /// Answers being streamed.
    pub(super) streams: u64,
    /// From a request's head to the end of its answer; requests that reached a provider.
    pub(super) whole_answer: Latencies,
    /// From a request's head to the first byte of its answer; the same requests.
    pub(super) first_byte: Latencies,
    /// The node's own part of them.
    pub(super) own_part: Latencies,
    /// By limit id, which ends in what it counts.
    pub(super) limits: BTreeMap<String, LimitUse>,
}

/// How a limit stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LimitUse {
    /// Units allowed in a window.
    pub(super) amount: u64,
    /// Units used, reserved ones included.
    pub(super) used: u64,
    /// Requests it refused.
    pub(super) refused: u64,
}

impl Sample {
    /// Reads the whole answer of `/metrics`. Lines it does not know are passed over.
    pub(super) fn read(text: &str, taken_at: Nanos) -> Self {
        let mut sample = Self { taken_at, ..Self::default() };
        for line in text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            // Only whole numbers are of interest here.
            if let Ok(value) = value.parse() {
                sample.add(name, labels, value);
            }
        }
        sample
    }

    fn add(&mut self, name: &str, labels: &str, value: u64) {
        let limit = || label(labels, "limit").unwrap_or_default().to_owned();
        match name {
            "deepintshield_ready" => self.is_ready = value == 1,
            // The node's own pages are asked for by whoever watches it, this display for one.
            "deepintshield_requests_total" if label(labels, "endpoint") != Some("node") => {
                let of_status = match label(labels, "status").and_then(|status| status.parse::<u16>().ok()) {
                    Some(..=399) => &mut self.answered,
                    Some(429) => &mut self.refused,
                    _ => &mut self.failed,
                };
                *of_status = of_status.saturating_add(value);
            }
            "deepintshield_core_requests_in_flight" => self.in_flight = self.in_flight.saturating_add(value),
            "deepintshield_core_streams" => self.streams = self.streams.saturating_add(value),
            "deepintshield_request_duration_seconds_bucket" => self.whole_answer.add(labels, value),
            "deepintshield_time_to_first_byte_seconds_bucket" => self.first_byte.add(labels, value),
            "deepintshield_overhead_seconds_bucket" => self.own_part.add(labels, value),
            "deepintshield_limit_amount" => self.limits.entry(limit()).or_default().amount = value,
            "deepintshield_limit_used" => self.limits.entry(limit()).or_default().used = value,
            "deepintshield_limit_refusals_total" => self.limits.entry(limit()).or_default().refused = value,
            _ => {}
        }
    }

    /// Adds what another node counted, or this one in an earlier life. Limits stay apart: each
    /// node has its own.
    pub(super) fn add_counts(&mut self, other: &Self) {
        self.answered = self.answered.saturating_add(other.answered);
        self.refused = self.refused.saturating_add(other.refused);
        self.failed = self.failed.saturating_add(other.failed);
        self.whole_answer.add_all(&other.whole_answer);
        self.first_byte.add_all(&other.first_byte);
        self.own_part.add_all(&other.own_part);
    }

    /// Requests finished so far, however they ended.
    pub(super) fn finished(&self) -> u64 {
        self.answered.saturating_add(self.refused).saturating_add(self.failed)
    }
}

/// The value of one label; good for names and numbers, since escapes are not undone.
fn label<'l>(labels: &'l str, name: &str) -> Option<&'l str> {
    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// Counts by upper bound in microseconds, all smaller ones included; `u64::MAX` for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Latencies(BTreeMap<u64, u64>);

impl Latencies {
    fn add(&mut self, labels: &str, count: u64) {
        // What never reached a provider would only show how fast a refusal is.
        if label(labels, "provider").is_none_or(str::is_empty) {
            return;
        }
        let bound_us = match label(labels, "le") {
            Some("+Inf") => u64::MAX,
            Some(seconds) => match seconds.parse::<f64>() {
                Ok(seconds) => (seconds * 1e6).round() as u64,
                Err(_) => return,
            },
            None => return,
        };
        let sum = self.0.entry(bound_us).or_default();
        *sum = sum.saturating_add(count);
    }

    fn add_all(&mut self, other: &Self) {
        for (bound, count) in &other.0 {
            let sum = self.0.entry(*bound).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// What came since `earlier`.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let before = |bound: &u64| earlier.0.get(bound).copied().unwrap_or(0);
        Self(self.0.iter().map(|(bound, count)| (*bound, count.saturating_sub(before(bound)))).collect())
    }

    /// The latency, in microseconds, that `part` (0 to 1) of the requests stayed below. It is
    /// taken as evenly spread within a bucket, so it is as exact as the buckets are narrow. `None`
    /// without requests; beyond the last bound it is that bound.
    pub(super) fn quantile_us(&self, part: f64) -> Option<f64> {
        let all = self.0.get(&u64::MAX).copied().filter(|all| *all > 0)?;
        let rank = part * all as f64;
        let (mut bound_below, mut count_below) = (0, 0);
        for (&bound, &count) in &self.0 {
            if bound == u64::MAX {
                break;
            }
            if count as f64 >= rank && count > count_below {
                let into_bucket = (rank - count_below as f64) / (count - count_below) as f64;
                return Some(bound_below as f64 + into_bucket * (bound - bound_below) as f64);
            }
            (bound_below, count_below) = (bound, count);
        }
        Some(bound_below as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"HTTP/1.1 200 OK
content-type: text/plain

# TYPE deepintshield_requests_total counter
deepintshield_requests_total{provider="",model="",endpoint="chat",status="429",code="token_limited"} 75
deepintshield_requests_total{provider="openai",model="a \"b\" c",endpoint="chat",status="200",code=""} 18
deepintshield_requests_total{provider="openai",model="a",endpoint="chat",status="502",code="x"} 2
deepintshield_requests_total{provider="",model="",endpoint="node",status="200",code=""} 9
deepintshield_overhead_seconds_bucket{provider="",model="",le="+Inf"} 50
deepintshield_overhead_seconds_bucket{provider="openai",model="a",le="0.0001"} 10
deepintshield_overhead_seconds_bucket{provider="openai",model="a",le="0.00025"} 30
deepintshield_overhead_seconds_bucket{provider="openai",model="a",le="+Inf"} 30
deepintshield_overhead_seconds_bucket{provider="openai",model="b",le="0.0001"} 10
deepintshield_overhead_seconds_bucket{provider="openai",model="b",le="0.00025"} 10
deepintshield_overhead_seconds_bucket{provider="openai",model="b",le="+Inf"} 10
deepintshield_limit_refusals_total{limit="demo/tokens"} 75
deepintshield_limit_amount{limit="demo/tokens",unit="tokens"} 5000
deepintshield_limit_used{limit="demo/tokens",unit="tokens"} 4776
deepintshield_core_requests_in_flight{core="0"} 2
deepintshield_core_requests_in_flight{core="1"} 3
deepintshield_core_tick_delay_seconds{core="0"} 0.001226
deepintshield_ready 1
"#;

    #[test]
    fn counts_limits_and_state_are_read() {
        let sample = Sample::read(TEXT, Nanos(7));
        assert!(sample.is_ready);
        assert_eq!((sample.answered, sample.refused, sample.failed, sample.finished()), (18, 75, 2, 95));
        assert_eq!(sample.in_flight, 5);
        let used = LimitUse { amount: 5000, used: 4776, refused: 75 };
        assert_eq!(sample.limits, BTreeMap::from([("demo/tokens".to_owned(), used)]));
    }

    #[test]
    fn quantiles_are_taken_over_the_providers_models_only() {
        // 20 below 100 µs and 20 from there to 250 µs.
        let own_part = Sample::read(TEXT, Nanos(0)).own_part;
        let close = |part: f64, expected: f64| (own_part.quantile_us(part).expect("requests") - expected).abs() < 1e-6;
        assert!(close(0.25, 50.0));
        assert!(close(0.5, 100.0));
        assert!(close(0.75, 175.0));
        assert!(close(1.0, 250.0));
    }

    #[test]
    fn only_what_came_since_counts() {
        let before = Sample::read(TEXT, Nanos(0)).own_part;
        assert_eq!(before.since(&before).quantile_us(0.5), None);
        let more = TEXT.replace(r#"model="a",le="0.00025"} 30"#, r#"model="a",le="0.00025"} 31"#);
        let more = more.replace(r#"model="a",le="+Inf"} 30"#, r#"model="a",le="+Inf"} 31"#);
        let one = Sample::read(&more, Nanos(0)).own_part.since(&before).quantile_us(0.5);
        assert!(one.is_some_and(|us| (us - 175.0).abs() < 1e-6), "{one:?}");
    }

    #[test]
    fn counts_of_two_nodes_add_up() {
        let one = Sample::read(TEXT, Nanos(0));
        let mut both = one.clone();
        both.add_counts(&one);
        assert_eq!((both.answered, both.refused, both.failed), (36, 150, 4));
        assert_eq!(both.own_part.quantile_us(0.5), one.own_part.quantile_us(0.5));
        assert_eq!(both.own_part.since(&one.own_part), one.own_part);
    }

    #[test]
    fn a_latency_beyond_every_bound_is_shown_as_the_last_one() {
        let labels = |le: &str| format!("provider=\"p\",le=\"{le}\"}}");
        let mut latencies = Latencies::default();
        latencies.add(&labels("120"), 0);
        latencies.add(&labels("+Inf"), 1);
        assert_eq!(latencies.quantile_us(0.5), Some(120e6));
    }

    #[test]
    fn text_that_is_no_metrics_reads_as_nothing() {
        for text in [
            "",
            "{",
            "a{b 1",
            "deepintshield_limit_used 3",
            "deepintshield_requests_total{status=\"x\"} 99999999999999999999",
        ] {
            let sample = Sample::read(text, Nanos(0));
            assert_eq!((sample.finished(), sample.is_ready), (0, false), "{text}");
        }
    }
}
