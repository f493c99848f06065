//! What does a proxied request cost, beside moving its bytes and nothing else?
//!
//! The simulated provider and the load stay on one core, the proxy under test has the
//! other one to itself. Every round measures every proxy once, one after the other, so
//! that a machine that changes its mood changes it for all. A measurement with a single
//! failed request is thrown away and said to be.

pub(crate) mod callgrind;

use std::process::Command;

use clap::ValueEnum;

use crate::{
    counters::{Counted, CpuClock, PerfStat},
    load::{Load, LoadResult, Until},
    peer::{Peer, Wire},
    rig::{Body, Rig, RigError, RigSettings, Running, child_error, send},
    rows::{Rows, say},
    spread::Spread,
};

/// Most rounds.
pub(crate) const ROUNDS_MAX: u32 = 50;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct RequestCost {
    /// What is started, and where.
    pub(crate) rig: RigSettings,
    /// Who is measured, in this order, in every round.
    pub(crate) peers: Vec<Peer>,
    /// Rounds.
    pub(crate) rounds: u32,
    /// Counted requests of one measurement.
    pub(crate) requests: u64,
    /// Requests before the counting begins.
    pub(crate) warm_up: u64,
    /// Keep-alive connections.
    pub(crate) connections: usize,
    /// What is sent.
    pub(crate) body: Body,
    /// What counts.
    pub(crate) count_with: CountWith,
}

/// What counts instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CountWith {
    /// `perf stat`: the machine's own counters, and CPU time where it has none
    Perf,
    /// valgrind's callgrind: user-space instructions on any machine, slowly, on epoll; no CPU time
    Callgrind,
}

/// Measures all rounds and writes them to `rows`, the medians as run 0. Says whether
/// every measurement counts.
pub(crate) fn run(what: &RequestCost, rows: &mut Rows) -> Result<bool, RigError> {
    let rig = Rig::new(&what.rig)?;
    let mut measured = Vec::new();
    for round in 1..=what.rounds.min(ROUNDS_MAX) {
        for &peer in &what.peers {
            say(&format!("round {round}: {}", peer.name()));
            let cost = match what.count_with {
                CountWith::Perf => measure(what, &rig, peer)?,
                CountWith::Callgrind => measure_with_callgrind(what, &rig, peer)?,
            };
            rows.set_run(round);
            cost.write(rows, peer.name(), what.requests);
            measured.push((peer, cost));
        }
    }
    rig.stop()?;
    rows.set_run(0);
    summarise(rows, what, &measured);
    Ok(measured.iter().all(|(_, cost)| cost.failures == 0))
}

/// One measurement of one proxy.
#[derive(Debug, Clone, Copy)]
struct Cost {
    failures: u64,
    counted: Counted,
}

/// Start, warm up, count, stop.
fn measure(what: &RequestCost, rig: &Rig, peer: Peer) -> Result<Cost, RigError> {
    let name = peer.name();
    let (child, load) = start(what, rig, peer, |command| command)?;
    let warm_up = send(Load { until: Until::Requests(what.warm_up), ..load.clone() })?;
    let perf = PerfStat::attach(child.pid(), &rig.places.scratch)
        .inspect_err(|error| say(&format!("perf stat: {error}; CPU from /proc only")))
        .ok();
    let clock = CpuClock::start(child.pid()).map_err(child_error(name))?;
    let result = send(load)?;
    let cpu = clock.used().map_err(child_error(name))?;
    let mut counted = perf.map_or_else(Counted::default, PerfStat::finish);
    counted.cpu.get_or_insert(cpu);
    child.stop(name)?;
    Ok(Cost { failures: failures(name, &[warm_up, result]), counted })
}

/// Two lives of the proxy, the second with as many requests again.
fn measure_with_callgrind(what: &RequestCost, rig: &Rig, peer: Peer) -> Result<Cost, RigError> {
    let name = peer.name();
    let output = callgrind::output(&rig.places.scratch);
    let mut total = [0; 2];
    let mut failed = 0;
    for (requests, total) in [what.requests, 2 * what.requests].into_iter().zip(&mut total) {
        let (child, load) = start(what, rig, peer, |command| callgrind::under_valgrind(&command, &output))?;
        let warm_up = send(Load { until: Until::Requests(what.warm_up), ..load.clone() })?;
        let result = send(Load { until: Until::Requests(requests), ..load })?;
        child.stop(name)?;
        failed += failures(name, &[warm_up, result]);
        *total = callgrind::total(&output).map_err(child_error(name))?;
    }
    let [once, twice] = total;
    let user_instructions = Some(twice.saturating_sub(once) as f64);
    Ok(Cost { failures: failed, counted: Counted { user_instructions, ..Counted::default() } })
}

/// A proxy that answers, and what is sent to it.
fn start(
    what: &RequestCost,
    rig: &Rig,
    peer: Peer,
    with: impl FnOnce(Command) -> Command,
) -> Result<(Running, Load), RigError> {
    let load = rig.load(Some(peer), &what.body, &[], what.connections, Until::Requests(what.requests))?;
    Ok((rig.start(peer, Wire::default(), &load, with)?, load))
}

/// Says which requests failed, and counts them.
fn failures(name: &str, results: &[LoadResult]) -> u64 {
    for tally in results.iter().map(|result| &result.tally).filter(|tally| tally.not_ok() > 0) {
        say(&format!("{name}: {}", tally.describe_not_ok()));
    }
    results.iter().map(|result| result.tally.not_ok()).sum()
}

/// What is written of a measurement: the name, the unit, and how to get it.
type Figure = (&'static str, &'static str, fn(&Counted) -> Option<f64>);

const FIGURES: [Figure; 4] = [
    ("user_instructions_per_request", "instructions", |counted| counted.user_instructions),
    ("kernel_instructions_per_request", "instructions", |counted| counted.kernel_instructions),
    ("cycles_per_request", "cycles", |counted| counted.cycles),
    ("cpu_per_request", "us", |counted| counted.cpu.map(|cpu| cpu.as_secs_f64() * 1e6)),
];

impl Cost {
    fn write(&self, rows: &mut Rows, proxy: &str, requests: u64) {
        rows.add(proxy, "failures", self.failures as f64, "requests");
        if self.failures > 0 {
            say(&format!("{proxy}: {} failed requests, this measurement does not count", self.failures));
            return;
        }
        for (metric, unit, value) in FIGURES {
            if let Some(value) = value(&self.counted) {
                rows.add(proxy, metric, value / requests.max(1) as f64, unit);
            }
        }
    }
}

/// Median, range, how many times the relay's median, and how much more than the minimal
/// proxy's, for each proxy and figure: as rows, and side by side to read.
fn summarise(rows: &mut Rows, what: &RequestCost, measured: &[(Peer, Cost)]) {
    if measured.iter().all(|(_, cost)| cost.counted.user_instructions.is_none()) {
        say("no instruction counters on this machine: CPU time only");
    }
    for (metric, unit, value) in FIGURES {
        let spread = |peer: Peer| {
            let mut values: Vec<f64> = measured
                .iter()
                .filter(|(measured, cost)| *measured == peer && cost.failures == 0)
                .filter_map(|(_, cost)| value(&cost.counted))
                .map(|value| value / what.requests.max(1) as f64)
                .collect();
            Spread::of(&mut values)
        };
        let floor = |peer| spread(peer).map(|spread| spread.median).filter(|floor| *floor > 0.0);
        let (relay, minimal) = (floor(Peer::Relay), floor(Peer::Minimal));
        for &peer in &what.peers {
            let Some(Spread { median, least, most }) = spread(peer) else { continue };
            rows.add(peer.name(), &format!("{metric}_median"), median, unit);
            rows.add(peer.name(), &format!("{metric}_least"), least, unit);
            rows.add(peer.name(), &format!("{metric}_most"), most, unit);
            let mut line = format!("{metric:<32} {:<10} {median:>12.1} ({least:.1} to {most:.1}) {unit}", peer.name());
            if let Some(relay) = relay {
                rows.add(peer.name(), &format!("{metric}_to_relay"), median / relay, "ratio");
                line = format!("{line}, {:.2} x relay", median / relay);
            }
            if let Some(minimal) = minimal {
                rows.add(peer.name(), &format!("{metric}_above_minimal"), median - minimal, unit);
                line = format!("{line}, {:+.1} to minimal", median - minimal);
            }
            say(&line);
        }
    }
}
