//! The gateway's goals, judged by what was measured. Pure.

use super::{DIRECT, results::Results, scenario::Scenario};
use crate::peer::Peer;

/// Everything on.
const GATEWAY: Peer = Peer::GatewayAll;

/// A goal, and what came of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    /// Where it is measured.
    pub(super) scenario: Scenario,
    /// What was promised, without the bound.
    pub(super) goal: String,
    /// At most this.
    pub(super) bound: f64,
    /// What was measured; none where a part of it was not.
    pub(super) value: Option<f64>,
}

impl Judged {
    /// None where it was not measured.
    pub(super) fn is_met(&self) -> Option<bool> {
        self.value.map(|value| value <= self.bound)
    }
}

/// Every goal, in the order of the scenarios.
pub(super) fn judge(results: &Results) -> Vec<Judged> {
    let look = Look(results);
    let mut judged = Vec::new();
    let mut goal = |scenario, goal: String, bound, value| judged.push(Judged { scenario, goal, bound, value });

    let scenario = Scenario::Throughput;
    for (peer, bound) in [(Peer::Relay, 1.15), (Peer::Haproxy, 0.75), (Peer::Nginx, 0.5), (Peer::Envoy, 0.2)] {
        let value = look.ratio(scenario, "cpu_per_request", peer);
        goal(scenario, format!("CPU a request, times that of {}", peer.name()), bound, value);
    }

    let scenario = Scenario::SystemCalls;
    goal(scenario, "system calls a request".to_owned(), 0.6, look.own(scenario, "system_calls_per_request"));

    let scenario = Scenario::Latency2k;
    for (metric, to_relay) in [("latency_p50", 1.10), ("latency_p99", 1.25)] {
        for (peer, bound) in [(Peer::Relay, to_relay), (Peer::Haproxy, 1.0), (Peer::Nginx, 1.0)] {
            let value = look.added_ratio(scenario, metric, peer);
            goal(scenario, format!("added {metric} at 2,000/s, times that of {}", peer.name()), bound, value);
        }
    }
    for scenario in [Scenario::Latency2k, Scenario::Latency50, Scenario::Latency80] {
        let value = look.own(scenario, "step_40ms");
        goal(scenario, format!("part of a 40 ms step, {}", scenario.name()), 0.001, value);
    }

    let scenario = Scenario::Streams1000;
    for (peer, bound) in [(Peer::Relay, 1.1), (Peer::Haproxy, 0.8)] {
        let value = look.ratio(scenario, "cpu_per_chunk", peer);
        goal(scenario, format!("CPU a chunk of 1,000 streams, times that of {}", peer.name()), bound, value);
    }
    let value = look.ratio(scenario, "gap_p99", Peer::Haproxy);
    goal(scenario, "gap p99 of 1,000 streams, times that of haproxy".to_owned(), 1.0, value);

    // A lost event disqualifies the cell, and then there is no memory either.
    let scenario = Scenario::Streams9900;
    let value = look.own(scenario, "memory_per_stream");
    goal(scenario, "memory of each of 9,900 streams, no event lost, KiB".to_owned(), 4.0, value);
    let value = look.own(scenario, "resident_settled_to_idle");
    goal(scenario, "resident after 9,900 streams, times that before".to_owned(), 1.1, value);

    let scenario = Scenario::Idle9000;
    let value = look.own(scenario, "memory_per_connection");
    goal(scenario, "memory of each of 9,000 idle connections, KiB".to_owned(), 3.0, value);

    let scenario = Scenario::StartUp;
    goal(scenario, "resident, idle, 2 cores, MiB".to_owned(), 20.0, look.own(scenario, "resident_idle_2_cores"));
    let value = look.own(scenario, "snapshot_to_ready");
    goal(scenario, "start to ready from the last good snapshot of 100 providers, ms".to_owned(), 100.0, value);

    let scenario = Scenario::TlsBoth;
    let value = look.ratio(scenario, "cpu_per_request", Peer::Nginx);
    goal(scenario, "CPU a request, TLS both ways, times that of nginx".to_owned(), 1.0, value);
    let scenario = Scenario::TlsHandshakes;
    let value = look.ratio(scenario, "cpu_per_request", Peer::Nginx);
    goal(scenario, "CPU a handshake and its request, times that of nginx".to_owned(), 1.0, value);
    judged
}

struct Look<'a>(&'a Results);

impl Look<'_> {
    fn own(&self, scenario: Scenario, metric: &str) -> Option<f64> {
        self.0.median(scenario, GATEWAY.name(), metric)
    }

    /// The gateway's figure, times that of `peer`.
    fn ratio(&self, scenario: Scenario, metric: &str, peer: Peer) -> Option<f64> {
        let other = self.0.median(scenario, peer.name(), metric).filter(|other| *other > 0.0)?;
        Some(self.own(scenario, metric)? / other)
    }

    /// The same of what each adds to the provider itself. Where `peer` adds nothing that could be
    /// measured there is no ratio.
    fn added_ratio(&self, scenario: Scenario, metric: &str, peer: Peer) -> Option<f64> {
        let direct = self.0.median(scenario, DIRECT, metric)?;
        let other = self.0.median(scenario, peer.name(), metric).map(|other| other - direct)?;
        (other > 0.0).then_some((self.own(scenario, metric)? - direct) / other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::{Figure, Outcome};

    fn results(cells: &[(Scenario, &'static str, &'static str, f64)]) -> Results {
        let mut results = Results::default();
        for &(scenario, proxy, metric, value) in cells {
            results.add(scenario, proxy, Outcome::Measured(vec![Figure::new(metric, value, "us")]));
        }
        results
    }

    fn judged(results: &Results, goal: &str) -> (Option<f64>, Option<bool>) {
        let judged = judge(results).into_iter().find(|judged| judged.goal == goal).expect("a goal");
        (judged.value.map(|value| (value * 1e6).round() / 1e6), judged.is_met())
    }

    #[test]
    fn ratios_are_met_up_to_their_bound() {
        let cpu = |gateway| {
            results(&[
                (Scenario::Throughput, "relay", "cpu_per_request", 10.0),
                (Scenario::Throughput, "gateway-all", "cpu_per_request", gateway),
            ])
        };
        assert_eq!(judged(&cpu(11.5), "CPU a request, times that of relay"), (Some(1.15), Some(true)));
        assert_eq!(judged(&cpu(11.6), "CPU a request, times that of relay"), (Some(1.16), Some(false)));
        assert_eq!(judged(&cpu(11.5), "CPU a request, times that of nginx"), (None, None));
    }

    #[test]
    fn latency_is_what_is_added_to_the_provider() {
        let latency = |relay| {
            results(&[
                (Scenario::Latency2k, "direct", "latency_p50", 100.0),
                (Scenario::Latency2k, "relay", "latency_p50", relay),
                (Scenario::Latency2k, "gateway-all", "latency_p50", 160.0),
            ])
        };
        let goal = "added latency_p50 at 2,000/s, times that of relay";
        assert_eq!(judged(&latency(150.0), goal), (Some(1.2), Some(false)));
        assert_eq!(judged(&latency(99.0), goal), (None, None), "a relay that is faster than no relay is noise");
    }

    #[test]
    fn a_failed_cell_meets_no_goal() {
        let mut results = results(&[(Scenario::Streams9900, "gateway-all", "memory_per_stream", 3.0)]);
        let goal = "memory of each of 9,900 streams, no event lost, KiB";
        assert_eq!(judged(&results, goal), (Some(3.0), Some(true)));
        results.add(Scenario::Streams9900, "gateway-all", Outcome::Failed("events lost 1".to_owned()));
        assert_eq!(judged(&results, goal), (None, None));
    }
}
