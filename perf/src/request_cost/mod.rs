//! What does a proxied request cost, beside moving its bytes and nothing else?
//!
//! The simulated provider and the load stay on one core, the proxy under test has the
//! other one to itself. Every round measures every proxy once, one after the other, so
//! that a machine that changes its mood changes it for all. A measurement with a single
//! failed request is thrown away and said to be.

pub(crate) mod callgrind;
pub(crate) mod child;
pub(crate) mod counters;
mod peers;

use std::{io, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use clap::ValueEnum;
use thiserror::Error;

use crate::{
    load::{self, Load, LoadResult, Pace, Until},
    ring,
    rows::{Rows, say},
    target::{Target, TargetError, chat_body, loopback},
};
use child::{Child, Scratch};
use counters::{Counted, CpuClock, PerfStat};
pub(crate) use peers::Peer;
use peers::Places;

/// Longest silence of a proxy before a request counts as failed.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Times that a proxy is asked whether it answers yet, and the time between them.
const READY_TRIES_MAX: u32 = 100;
const READY_INTERVAL: Duration = Duration::from_millis(50);
/// Most rounds.
pub(crate) const ROUNDS_MAX: u32 = 50;

/// What to measure.
#[derive(Debug, Clone)]
pub(crate) struct RequestCost {
    /// The `deepintshield` binary: gateway and simulated provider.
    pub(crate) node: PathBuf,
    /// A provider that already runs, instead of the simulated one.
    pub(crate) provider: Option<String>,
    /// The first of a handful of loopback ports that are used.
    pub(crate) port: u16,
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
    /// Length of the request's body.
    pub(crate) body_bytes: usize,
    /// The model that the request names.
    pub(crate) model: String,
    /// What counts.
    pub(crate) count_with: CountWith,
    /// Core of the proxy under test.
    pub(crate) proxy_core: usize,
    /// Core of the load and of the simulated provider.
    pub(crate) load_core: usize,
}

/// What counts instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CountWith {
    /// `perf stat`: the machine's own counters, and CPU time where it has none
    Perf,
    /// valgrind's callgrind: user-space instructions on any machine, slowly, on epoll; no CPU time
    Callgrind,
}

/// Why there is no result. What was started has been stopped.
#[derive(Debug, Error)]
pub(crate) enum RequestCostError {
    /// A process could not be started or came to no answer.
    #[error("{name}: {source}")]
    Child {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// Files, the ring.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A core that cannot be pinned to.
    #[error("core {0} cannot be pinned to; choose others, or measure on a machine that has it")]
    Core(usize),
    /// The address of the provider.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// Measures all rounds and writes them to `rows`, the medians as run 0. Says whether
/// every measurement counts.
pub(crate) fn run(what: &RequestCost, rows: &mut Rows) -> Result<bool, RequestCostError> {
    let scratch = Scratch::new().map_err(io_error("making a folder for configurations"))?;
    let places = Places {
        node: what.node.clone(),
        provider: match &what.provider {
            Some(running) => loopback(running)?,
            None => loopback(&format!("127.0.0.1:{}", what.port))?,
        },
        listen: loopback(&format!("127.0.0.1:{}", what.port.saturating_add(1)))?,
        admin_port: what.port.saturating_add(2),
        scratch: scratch.path().to_owned(),
    };
    let provider = if what.provider.is_none() {
        pin(what.load_core)?;
        let mut command = places.simulated_provider();
        let child = Child::start("simulated provider", &mut command, &places.scratch);
        let mut child = child.map_err(child_error("simulated provider"))?;
        child.wait_for(places.provider).map_err(child_error("simulated provider"))?;
        Some(child)
    } else {
        None
    };
    let mut measured = Vec::new();
    for round in 1..=what.rounds.min(ROUNDS_MAX) {
        for &peer in &what.peers {
            say(&format!("round {round}: {}", peer.name()));
            let cost = match what.count_with {
                CountWith::Perf => measure(what, &places, peer)?,
                CountWith::Callgrind => measure_with_callgrind(what, &places, peer)?,
            };
            rows.set_run(round);
            cost.write(rows, peer.name(), what.requests);
            measured.push((peer, cost));
        }
    }
    if let Some(provider) = provider {
        provider.stop().map_err(child_error("simulated provider"))?;
    }
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
fn measure(what: &RequestCost, places: &Places, peer: Peer) -> Result<Cost, RequestCostError> {
    let name = peer.name();
    let child = start(what, places, name, places.command(peer))?;
    let warm_up = send(what, places.listen, what.warm_up)?;
    let perf = PerfStat::attach(child.pid(), &places.scratch)
        .inspect_err(|error| say(&format!("perf stat: {error}; CPU from /proc only")))
        .ok();
    let clock = CpuClock::start(child.pid()).map_err(child_error(name))?;
    let result = send(what, places.listen, what.requests)?;
    let cpu = clock.used().map_err(child_error(name))?;
    let mut counted = perf.map_or_else(Counted::default, PerfStat::finish);
    counted.cpu.get_or_insert(cpu);
    child.stop().map_err(child_error(name))?;
    Ok(Cost { failures: failures(name, &[warm_up, result]), counted })
}

/// Two lives of the proxy, the second with as many requests again.
fn measure_with_callgrind(what: &RequestCost, places: &Places, peer: Peer) -> Result<Cost, RequestCostError> {
    let name = peer.name();
    let output = callgrind::output(&places.scratch);
    let mut total = [0; 2];
    let mut failed = 0;
    for (requests, total) in [what.requests, 2 * what.requests].into_iter().zip(&mut total) {
        let command = places.command(peer).map(|command| callgrind::under_valgrind(&command, &output));
        let child = start(what, places, name, command)?;
        let warm_up = send(what, places.listen, what.warm_up)?;
        let result = send(what, places.listen, requests)?;
        child.stop().map_err(child_error(name))?;
        failed += failures(name, &[warm_up, result]);
        *total = callgrind::total(&output).map_err(child_error(name))?;
    }
    let [once, twice] = total;
    let user_instructions = Some(twice.saturating_sub(once) as f64);
    Ok(Cost { failures: failed, counted: Counted { user_instructions, ..Counted::default() } })
}

/// Starts a proxy on its core and returns when it answers.
fn start(
    what: &RequestCost,
    places: &Places,
    name: &str,
    command: io::Result<Command>,
) -> Result<Child, RequestCostError> {
    pin(what.proxy_core)?;
    let started = command.and_then(|mut command| Child::start(name, &mut command, &places.scratch));
    // Whatever came of it, this thread's own core is the other one.
    pin(what.load_core)?;
    let mut child = started.map_err(child_error(name))?;
    child.wait_for(places.listen).map_err(child_error(name))?;
    wait_for_answers(what, name, places.listen)?;
    Ok(child)
}

/// Says which requests failed, and counts them.
fn failures(name: &str, results: &[LoadResult]) -> u64 {
    for tally in results.iter().map(|result| &result.tally).filter(|tally| tally.not_ok() > 0) {
        say(&format!("{name}: {}", tally.describe_not_ok()));
    }
    results.iter().map(|result| result.tally.not_ok()).sum()
}

/// A proxy may listen before it is ready.
fn wait_for_answers(what: &RequestCost, name: &str, proxy: SocketAddr) -> Result<(), RequestCostError> {
    let mut last = String::new();
    for _ in 0..READY_TRIES_MAX {
        let tally = send(what, proxy, 1)?.tally;
        if tally.not_ok() == 0 {
            return Ok(());
        }
        last = tally.describe_not_ok();
        std::thread::sleep(READY_INTERVAL);
    }
    Err(child_error(name)(io::Error::other(format!("no request through it is answered with 200 ({last})"))))
}

/// Sends `requests` the same way to every proxy: a closed loop of chat requests with a
/// virtual key, which only the gateway looks at.
fn send(what: &RequestCost, to: SocketAddr, requests: u64) -> Result<LoadResult, RequestCostError> {
    let target = Target::parse(&format!("http://{to}/v1/chat/completions"))?;
    let body = chat_body(&what.model, what.body_bytes);
    let load = Load {
        request: target.post(&[peers::virtual_key_header()], &body),
        target,
        connections: what.connections,
        pace: Pace::Closed,
        until: Until::Requests(requests),
        silence_max: SILENCE_MAX,
        expected_bytes: None,
    };
    ring::run(async |_| load::run(load).await).and_then(|result| result).map_err(io_error("sending load"))
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

/// Of the rounds that count.
#[derive(Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: &mut [f64]) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let upper = *values.get(values.len() / 2)?;
        let lower = *values.get((values.len() - 1) / 2)?;
        Some(Self { median: f64::midpoint(lower, upper), least, most })
    }
}

fn pin(id: usize) -> Result<(), RequestCostError> {
    if core_affinity::set_for_current(core_affinity::CoreId { id }) { Ok(()) } else { Err(RequestCostError::Core(id)) }
}

fn child_error(name: &str) -> impl FnOnce(io::Error) -> RequestCostError + use<> {
    let name = name.to_owned();
    move |source| RequestCostError::Child { name, source }
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> RequestCostError {
    move |source| RequestCostError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = |values: &mut [f64]| Spread::of(values).map(|s| (s.median, s.least, s.most));
        assert_eq!(spread(&mut [3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(spread(&mut [4.0, 1.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(spread(&mut []), None);
    }
}
