//! The families that `/metrics` shows. No secret is among the labels: providers, models and keys
//! appear by name, limits by id.

use super::cluster::{ClusterFacts, cluster};
pub use super::exposition::CONTENT_TYPE;
use super::exposition::Exposition;
use super::limits::limits as shared_limits;
use super::process::Process;
use super::totals::{Counts, Latencies, Totals};
use crate::escrow::LimitKey;
use crate::limit_status::{EscrowStatus, LimitStatus};
use crate::live::engine::Standing;
use shared::limit::RingSnapshot;
use shared::published::Readiness;
use shared::report::{AttemptLabels, Estimates, Gauges, Histogram, LimitWaits, TrafficLabels};
use std::collections::HashMap;
use std::time::Duration;

/// One limit as it stands on this node.
#[derive(Clone, Debug, Default)]
pub struct LimitRow {
    /// The rate limit's id and what it counts.
    pub id: String,
    /// `requests`, `tokens` or `concurrent`.
    pub unit: &'static str,
    /// Its name in the escrow.
    pub key: LimitKey,
    /// Units in a window as configured; `None` where only the provider knows.
    pub configured: Option<u64>,
    /// Length of the window, nanoseconds.
    pub window_ns: u64,
    /// How firmly it holds, as the configuration calls it.
    pub enforcement: &'static str,
    /// Entitlement, use and reservations of this node.
    pub ring: RingSnapshot,
    /// The entitlement may be spent now.
    pub is_valid: bool,
    /// By so much all nodes may exceed it at most.
    pub overshoot_bound: u64,
    /// Part of the answers that may need more than was reserved; 0 where nothing is estimated.
    pub overshoot_probability: f64,
    /// Nodes hold parts of it.
    pub is_shared: bool,
    /// Requests refused for it since the start.
    pub refused: u64,
    /// After what time one unit, half and all of what is used here is free again, milliseconds;
    /// empty while there is plenty.
    pub back_ms: Vec<u64>,
}

/// How far the configuration is on this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct RevisionFacts {
    /// Handed to the cores.
    pub(crate) published: u64,
    /// Run by every core.
    pub(crate) adopted: u64,
    /// How long the last core took.
    pub(crate) adoption_took: Option<Duration>,
    /// `None`: there is no store.
    pub(crate) standing: Option<Standing>,
}

/// What is known besides the counts.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Version and build of the program.
    pub build: &'static str,
    /// Region label of this node.
    pub region: String,
    /// Epoch of the newest snapshot.
    pub epoch: u64,
    /// How far the configuration is.
    pub(crate) revisions: RevisionFacts,
    /// Whether traffic is wanted.
    pub readiness: Readiness,
    /// When the process started, since 1970.
    pub started_at: Duration,
    /// What the operating system says.
    pub process: Process,
    /// How every limit stands, here and on all nodes.
    pub limits: Vec<LimitStatus>,
    /// How nodes share them; `None`: this node is alone.
    pub escrow: Option<EscrowStatus>,
}

/// The whole text. Costs O(rows), which `totals` bounds.
pub fn render(totals: &Totals, limits: &[LimitRow], around: &ClusterFacts<'_>, facts: &Facts) -> String {
    let mut text = Exposition::default();
    traffic(&mut text, totals);
    attempts_and_limits(&mut text, totals, limits);
    shared_limits(&mut text, &facts.limits, facts.escrow.as_ref());
    sums(&mut text, totals);
    cores(&mut text, totals);
    cluster(&mut text, around);
    node(&mut text, facts);
    text.finish()
}

fn traffic(text: &mut Exposition, totals: &Totals) {
    let rows = sorted(&totals.traffic);
    let mut count = |name: &str, help: &str, of: fn(&Counts) -> u64, shows_zero: bool| {
        text.family(name, "counter", help);
        for (labels, row) in &rows {
            let TrafficLabels { provider, model, endpoint, status, code } = labels;
            if shows_zero || of(row) > 0 {
                let labels: [super::exposition::Label<'_>; 5] = [
                    ("provider", provider),
                    ("model", model),
                    ("endpoint", endpoint),
                    ("status", status),
                    ("code", code),
                ];
                text.sample(name, &labels, of(row));
            }
        }
    };
    count("deepintshield_requests_total", "Requests answered.", |row| row.requests, true);
    count("deepintshield_streams_total", "Answers that were streamed.", |row| row.streams, false);
    count("deepintshield_streams_cut_total", "Answers cut by the provider after they had begun.", |row| row.cut, false);
    count(
        "deepintshield_requests_abandoned_total",
        "Requests whose client left before the end.",
        |row| row.abandoned,
        false,
    );
    count(
        "deepintshield_usage_missing_total",
        "Answers without usage although tokens were to be counted.",
        |row| row.usage_missing,
        false,
    );

    let mut tokens: std::collections::BTreeMap<(&str, &str), (u64, u64)> = std::collections::BTreeMap::new();
    for (labels, row) in &rows {
        let sum = tokens.entry((&labels.provider, &labels.model)).or_default();
        sum.0 = sum.0.saturating_add(row.input_tokens);
        sum.1 = sum.1.saturating_add(row.output_tokens);
    }
    let name = "deepintshield_tokens_total";
    text.family(name, "counter", "Tokens as the providers counted them.");
    for ((provider, model), (input, output)) in tokens.iter().filter(|(_, (input, output))| input + output > 0) {
        for (direction, value) in [("input", input), ("output", output)] {
            text.sample(name, &[("provider", provider), ("model", model), ("direction", &direction)], value);
        }
    }

    let latencies = sorted(&totals.latencies);
    let mut histogram = |name: &str, help: &str, of: fn(&Latencies) -> &Histogram| {
        text.family(name, "histogram", help);
        for (labels, row) in &latencies {
            let histogram = of(row);
            if histogram.count() > 0 {
                text.histogram(name, &[("provider", &labels.provider), ("model", &labels.model)], histogram);
            }
        }
    };
    histogram(
        "deepintshield_request_duration_seconds",
        "From the request's head to the last byte of its answer.",
        |row| &row.duration,
    );
    histogram(
        "deepintshield_time_to_first_byte_seconds",
        "From the request's head to the first byte of its answer.",
        |row| &row.first_byte,
    );
    histogram("deepintshield_overhead_seconds", "The node's own part before a request goes upstream.", |row| {
        &row.overhead
    });
}

fn attempts_and_limits(text: &mut Exposition, totals: &Totals, limits: &[LimitRow]) {
    let name = "deepintshield_attempts_total";
    text.family(name, "counter", "Attempts at providers, by key name and outcome.");
    for (labels, count) in sorted(&totals.attempts) {
        let AttemptLabels { provider, key, outcome } = labels;
        text.sample(name, &[("provider", provider), ("key", key), ("outcome", outcome)], count);
    }

    let name = "deepintshield_limit_refusals_total";
    text.family(name, "counter", "Requests refused by a limit.");
    for (limit, count) in sorted(&totals.refusals) {
        text.sample(name, &[("limit", limit)], count);
    }

    let name = "deepintshield_routing_rule_requests_total";
    text.family(name, "counter", "Requests that a routing rule led somewhere.");
    for (rule, count) in sorted(&totals.routed) {
        text.sample(name, &[("rule", rule)], count);
    }

    waits(text, totals);
    estimates(text, totals, limits);

    let mut gauge = |name: &str, help: &str, of: fn(&RingSnapshot) -> u64| {
        text.family(name, "gauge", help);
        for row in limits {
            text.sample(name, &[("limit", &row.id), ("unit", &row.unit)], of(&row.ring));
        }
    };
    gauge("deepintshield_limit_amount", "Units that all nodes together may use in a window.", |ring| ring.amount);
    gauge("deepintshield_limit_entitlement", "Units this node may use in a window.", |ring| ring.entitlement);
    gauge("deepintshield_limit_used", "Units that count as used in the current window.", |ring| ring.used);
    gauge("deepintshield_limit_held", "Units reserved and not settled, slices of the cores included.", |ring| {
        ring.held
    });
}

/// Requests that waited for units, by the end of their wait.
fn waits(text: &mut Exposition, totals: &Totals) {
    let rows = sorted(&totals.limit_waits);
    let mut count = |name: &str, help: &str, of: fn(&LimitWaits) -> f64| {
        text.family(name, "counter", help);
        for (limit, waits) in &rows {
            text.sample(name, &[("limit", limit)], of(waits));
        }
    };
    count("deepintshield_limit_waits_total", "Requests that have waited for units of a limit.", |row| row.waits as f64);
    count("deepintshield_limit_waits_given_up_total", "Those refused after all, or whose client left.", |row| {
        row.given_up as f64
    });
    count("deepintshield_limit_waited_seconds_total", "How long they waited together.", |row| {
        row.waited_us as f64 / 1e6
    });
}

/// What statistical limits promise of their estimates, beside what became of it.
fn estimates(text: &mut Exposition, totals: &Totals, limits: &[LimitRow]) {
    let name = "deepintshield_limit_overshoot_probability";
    text.family(name, "gauge", "Part of the answers that may need more tokens than were reserved, as configured.");
    for row in limits.iter().filter(|row| row.overshoot_probability > 0.0) {
        text.sample(name, &[("limit", &row.id)], row.overshoot_probability);
    }
    let rows = sorted(&totals.estimates);
    let mut count = |name: &str, help: &str, of: fn(&Estimates) -> u64| {
        text.family(name, "counter", help);
        for (limit, estimates) in &rows {
            text.sample(name, &[("limit", limit)], of(estimates));
        }
    };
    count("deepintshield_limit_estimates_total", "Answers whose tokens had been estimated.", |row| row.answers);
    count("deepintshield_limit_estimates_exceeded_total", "Those that needed more than was reserved.", |row| {
        row.exceeded
    });
    count("deepintshield_limit_estimates_exceeded_tokens_total", "How many tokens more.", |row| row.exceeded_tokens);
    count(
        "deepintshield_limit_beyond_entitlement_tokens_total",
        "Those of them that this node had no room for: the limit was exceeded by them.",
        |row| row.beyond_entitlement_tokens,
    );
}

fn sums(text: &mut Exposition, totals: &Totals) {
    let sums = &totals.sums;
    let rows: [(&str, &str, u64); 10] = [
        ("connections_accepted_total", "Client connections accepted.", sums.connections_accepted),
        ("connections_refused_total", "Client connections refused for lack of room.", sums.connections_refused),
        ("upstream_connects_total", "Provider connections made.", sums.upstream_connects),
        ("upstream_reuses_total", "Provider connections reused.", sums.upstream_reuses),
        ("upstream_stale_total", "Idle provider connections thrown away.", sums.upstream_stale),
        ("client_bytes_in_total", "Bytes read from clients.", sums.client_bytes_in),
        ("client_bytes_out_total", "Bytes written to clients.", sums.client_bytes_out),
        (
            "reserved_too_little_tokens_total",
            "Tokens used above what was reserved for them.",
            sums.reserved_too_little_tokens,
        ),
        ("usage_flagged_total", "Usage figures that were not plain counts.", sums.usage_flagged),
        ("panics_total", "Connections closed by a panic that was caught.", sums.panics),
    ];
    for (name, help, value) in rows {
        text.single(&format!("deepintshield_{name}"), "counter", help, value);
    }
}

fn cores(text: &mut Exposition, totals: &Totals) {
    let mut gauge = |name: &str, help: &str, of: fn(&Gauges) -> f64| {
        let name = format!("deepintshield_core_{name}");
        text.family(&name, "gauge", help);
        for (core, view) in &totals.cores {
            text.sample(&name, &[("core", core)], of(&view.gauges));
        }
    };
    gauge("connections", "Open client connections.", |gauges| gauges.connections as f64);
    gauge("requests_in_flight", "Requests being served.", |gauges| gauges.requests_in_flight as f64);
    gauge("streams", "Answers being streamed.", |gauges| gauges.streams as f64);
    gauge("waiting", "Requests that wait for units of limits.", |gauges| gauges.waiting as f64);
    gauge("idle_upstreams", "Provider connections that wait for a request.", |gauges| gauges.idle_upstreams as f64);
    gauge("buffered_body_bytes", "Bytes of request bodies kept in memory.", |gauges| gauges.buffered_body_bytes as f64);
    gauge("tick_delay_seconds", "Longest time between two ticks since the last report.", |gauges| {
        gauges.tick_delay_us as f64 / 1e6
    });
    gauge("config_epoch", "Epoch of the snapshot that the core runs.", |gauges| gauges.epoch as f64);
}

fn revisions(text: &mut Exposition, facts: &RevisionFacts) {
    let help = "Number of the configuration's revision that was handed to the cores.";
    text.single("deepintshield_config_revision", "gauge", help, facts.published);
    let help = "Number of the newest revision that every core runs.";
    text.single("deepintshield_config_adopted_revision", "gauge", help, facts.adopted);
    if let Some(took) = facts.adoption_took {
        let help = "From the control thread to the last core, for the newest revision that every core runs.";
        text.single("deepintshield_config_adoption_seconds", "gauge", help, took.as_secs_f64());
    }
    if let Some(standing) = &facts.standing {
        let help = "Number of the newest revision that this node knows.";
        text.single("deepintshield_config_newest_revision", "gauge", help, standing.newest.number);
        let is_up = u8::from(standing.trouble.is_none());
        text.single("deepintshield_config_store_up", "gauge", "1 while the store can be used.", is_up);
        let is_usable = u8::from(standing.unusable.is_none());
        let help = "0 while this node cannot run the newest revision.";
        text.single("deepintshield_config_usable", "gauge", help, is_usable);
    }
}

fn node(text: &mut Exposition, facts: &Facts) {
    let name = "deepintshield_build_info";
    text.family(name, "gauge", "Version of the program and region of the node.");
    text.sample(name, &[("version", &facts.build), ("region", &facts.region)], 1);
    text.single("deepintshield_config_epoch", "gauge", "Epoch of the newest snapshot.", facts.epoch);
    revisions(text, &facts.revisions);
    let is_ready = u8::from(facts.readiness == Readiness::Ready);
    text.single("deepintshield_ready", "gauge", "1 when the node wants traffic.", is_ready);

    let started_at = facts.started_at.as_secs_f64();
    text.single("process_start_time_seconds", "gauge", "Start of the process since 1970.", started_at);
    let process = &facts.process;
    if let Some(value) = process.cpu_seconds {
        text.single("process_cpu_seconds_total", "counter", "User and system time of all threads.", value);
    }
    let gauges = [
        ("process_resident_memory_bytes", "Memory in RAM.", process.resident_bytes),
        ("process_virtual_memory_bytes", "Address space.", process.virtual_bytes),
        ("process_open_fds", "Open descriptors.", process.open_fds),
        ("process_max_fds", "Descriptors that may be open.", process.max_fds),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            text.single(name, "gauge", help, value);
        }
    }
}

/// In the order of the labels, so that two scrapes compare line by line.
fn sorted<L: Ord, V>(rows: &HashMap<L, V, ahash::RandomState>) -> Vec<(&L, &V)> {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_unstable_by_key(|(labels, _)| *labels);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::SourceName;
    use crate::gossip::values::NodeValues;
    use crate::member::View;
    use crate::state::{ClusterState, SourceSight};
    use shared::clock::Nanos;
    use shared::report::{Report, Traffic};

    fn facts() -> Facts {
        Facts {
            build: "0.1.0",
            region: "eu".into(),
            epoch: 7,
            revisions: RevisionFacts::default(),
            readiness: Readiness::Ready,
            started_at: Duration::from_secs(1_700_000_000),
            process: Process::read(),
            limits: Vec::new(),
            escrow: None,
        }
    }

    fn shown(totals: &Totals, limits: &[LimitRow]) -> String {
        let sight = SourceSight::default();
        let around = ClusterFacts {
            live: ClusterState::default().live(),
            view: &View { counters: vec![("frames_sent", 1), ("frames_dropped", 0)], ..View::default() },
            own: &NodeValues::default(),
            learned: Vec::new(),
            discovered: vec![(SourceName { method: "dns", number: 1 }, &sight)],
            now: Nanos(0),
        };
        render(totals, limits, &around, &facts())
    }

    fn totals() -> Totals {
        let mut report = Report::default();
        let labels = TrafficLabels {
            provider: "openai".into(),
            model: "gpt-4o".into(),
            endpoint: "chat",
            status: 200,
            code: "",
        };
        let mut traffic = Traffic { requests: 3, input_tokens: 10, output_tokens: 20, ..Traffic::default() };
        traffic.duration.record_us(1_500);
        report.traffic.insert(labels, traffic);
        let attempt = AttemptLabels { provider: "openai".into(), key: "main".into(), outcome: "ok" };
        report.attempts.insert(attempt, 4);
        report.refusals.insert("team-a/tokens".into(), 2);
        report.routed.insert("canary".into(), 7);
        let estimates = Estimates { answers: 200, exceeded: 3, exceeded_tokens: 90, beyond_entitlement_tokens: 10 };
        report.estimates.insert("team-a/tokens".into(), estimates);
        let waits = LimitWaits { waits: 5, given_up: 1, waited_us: 1_500_000 };
        report.limit_waits.insert("team-a/tokens".into(), waits);
        report.gauges.waiting = 2;
        report.gauges.tick_delay_us = 2_500;
        let mut totals = Totals::default();
        totals.add(&report);
        totals
    }

    #[test]
    fn what_was_reported_is_shown() {
        let ring = RingSnapshot { amount: 100, entitlement: 100, used: 30, held: 5 };
        let limits = [LimitRow {
            id: "team-a/tokens".into(),
            unit: "tokens",
            ring,
            overshoot_probability: 0.01,
            ..LimitRow::default()
        }];
        let text = shown(&totals(), &limits);
        for line in [
            "deepintshield_requests_total{provider=\"openai\",model=\"gpt-4o\",endpoint=\"chat\",status=\"200\",code=\"\"} 3",
            "deepintshield_tokens_total{provider=\"openai\",model=\"gpt-4o\",direction=\"output\"} 20",
            "deepintshield_attempts_total{provider=\"openai\",key=\"main\",outcome=\"ok\"} 4",
            "deepintshield_limit_refusals_total{limit=\"team-a/tokens\"} 2",
            "deepintshield_routing_rule_requests_total{rule=\"canary\"} 7",
            "deepintshield_limit_used{limit=\"team-a/tokens\",unit=\"tokens\"} 30",
            "deepintshield_core_tick_delay_seconds{core=\"0\"} 0.0025",
            "deepintshield_request_duration_seconds_count{provider=\"openai\",model=\"gpt-4o\"} 1",
            "deepintshield_build_info{version=\"0.1.0\",region=\"eu\"} 1",
            "deepintshield_ready 1",
            "deepintshield_limit_waits_total{limit=\"team-a/tokens\"} 5",
            "deepintshield_limit_waits_given_up_total{limit=\"team-a/tokens\"} 1",
            "deepintshield_limit_waited_seconds_total{limit=\"team-a/tokens\"} 1.5",
            "deepintshield_core_waiting{core=\"0\"} 2",
            "deepintshield_limit_overshoot_probability{limit=\"team-a/tokens\"} 0.01",
            "deepintshield_limit_estimates_total{limit=\"team-a/tokens\"} 200",
            "deepintshield_limit_estimates_exceeded_total{limit=\"team-a/tokens\"} 3",
            "deepintshield_limit_estimates_exceeded_tokens_total{limit=\"team-a/tokens\"} 90",
            "deepintshield_limit_beyond_entitlement_tokens_total{limit=\"team-a/tokens\"} 10",
        ] {
            assert!(text.lines().any(|shown| shown == line), "missing: {line}\nin:\n{text}");
        }
    }

    /// The rules that scrapers rely on: each family declared once, before its samples, and its
    /// samples together.
    #[test]
    fn every_sample_belongs_to_the_family_declared_before_it() {
        let text = shown(&totals(), &[]);
        let mut declared = std::collections::BTreeSet::new();
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
                assert!(declared.insert(family), "{family} is declared twice");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
                assert!(name == family || base == family, "{name} stands under {family}");
            }
        }
        assert!(declared.len() > 30);
    }
}
