//! Requests in a closed loop (what one costs) and in an open loop (how long one takes).

use std::time::Duration;

use super::{
    Compare, Trouble,
    results::Figure,
    scenario::{BODY_BYTES, CONNECTIONS, Method, Rate, Scenario},
};
use crate::{
    counters::CpuClock,
    load::{Load, LoadResult, Pace, Until},
    node_memory::Memory,
    peer::Peer,
    rig::{Body, Rig, Running, child_error, io_error, send},
    tally::Latency,
    target::Header,
};

/// Part of a measurement's time that goes before it.
const WARM_UP_PART: f64 = 0.2;
/// From the end of the load to the look at the memory.
const REST: Duration = Duration::from_millis(500);
/// A delayed acknowledgement that waits for Nagle's algorithm takes 40 ms. The answers that took
/// about that long are counted, and those a little faster and a little slower.
const STEP: [u64; 4] = [30, 38, 46, 54];

/// CPU of a request.
pub(super) fn closed(what: &Compare, rig: &Rig, scenario: Scenario, peer: Peer) -> Result<Vec<Figure>, Trouble> {
    let load = closed_load(what, rig, scenario, Some(peer))?;
    let running = start(rig, scenario, peer, &load)?;
    let name = peer.name();
    let idle = Memory::sample(running.pid()).map_err(child_error(name))?;
    let warm_up = send(Load { until: Until::Elapsed(what.seconds.mul_f64(WARM_UP_PART)), ..load.clone() })?;
    let clock = CpuClock::start(running.pid()).map_err(child_error(name))?;
    let result = send(load)?;
    let cpu = clock.used().map_err(child_error(name))?;
    std::thread::sleep(REST);
    let after = Memory::sample(running.pid()).map_err(child_error(name))?;
    running.stop(name)?;
    let answers = all_answered(&warm_up).and(all_answered(&result))?;
    Ok(vec![
        Figure::new("cpu_per_request", cpu.as_secs_f64() * 1e6 / answers, "us"),
        Figure::new("throughput", answers / result.took.as_secs_f64().max(1e-9), "requests/s"),
        Figure::new("latency_p50", result.tally.latency.micros_at(0.5), "us"),
        Figure::new("latency_p99", result.tally.latency.micros_at(0.99), "us"),
        Figure::new("resident_idle", mib(idle.resident), "MiB"),
        Figure::new("resident_after", mib(after.resident), "MiB"),
    ])
}

/// Latency at a fixed schedule, counted from the moment at which a request was to be sent.
pub(super) fn open(
    what: &Compare,
    rig: &Rig,
    scenario: Scenario,
    rate: Rate,
    peer: Option<Peer>,
) -> Result<Vec<Figure>, Trouble> {
    let load = closed_load(what, rig, scenario, peer)?;
    let running = peer.map(|peer| start(rig, scenario, peer, &load)).transpose()?;
    // Warm-up and, where it is asked for, the maximum.
    let closed = send(Load { until: Until::Elapsed(what.seconds.mul_f64(2.0 * WARM_UP_PART)), ..load.clone() })?;
    let rate = match rate {
        Rate::Fixed(rate) => rate,
        Rate::PartOfMaximum(part) => part * all_answered(&closed)? / closed.took.as_secs_f64().max(1e-9),
    };
    let result = send(Load { pace: Pace::Open { rate }, ..load })?;
    if let (Some(running), Some(peer)) = (running, peer) {
        running.stop(peer.name())?;
    }
    let answers = all_answered(&closed).and(all_answered(&result))?;
    let latency = &result.tally.latency;
    let mut figures = vec![
        Figure::new("rate", rate, "requests/s"),
        Figure::new("answered", answers / result.took.as_secs_f64().max(1e-9), "requests/s"),
    ];
    for (metric, quantile) in
        [("latency_p50", 0.5), ("latency_p90", 0.9), ("latency_p99", 0.99), ("latency_p99.9", 0.999)]
    {
        figures.push(Figure::new(metric, latency.micros_at(quantile), "us"));
    }
    figures.push(Figure::new("latency_max", latency.max_micros(), "us"));
    figures.push(Figure::new("step_40ms", step(latency), "part"));
    Ok(figures)
}

/// A proxy that answers. One that cannot be started is absent.
pub(super) fn start(rig: &Rig, scenario: Scenario, peer: Peer, check: &Load) -> Result<Running, Trouble> {
    rig.start(peer, scenario.wire(), check, |command| command).map_err(|error| Trouble::Absent(error.to_string()))
}

/// The scenario's requests in a closed loop, for the length of a measurement; to the provider
/// itself where there is no proxy.
pub(super) fn closed_load(what: &Compare, rig: &Rig, scenario: Scenario, peer: Option<Peer>) -> Result<Load, Trouble> {
    let (connections, bytes, answer_tokens, reconnects) = match scenario.method() {
        Method::Closed { connections, body_bytes, answer_tokens, reconnects } => {
            (connections, body_bytes, answer_tokens, reconnects)
        }
        _ => (CONNECTIONS, BODY_BYTES, None, false),
    };
    let body = Body { model: what.model.clone(), bytes };
    let tokens = answer_tokens.map(|tokens| Header::new(crate::simulated::COMPLETION_TOKENS, tokens.to_string()));
    let load = rig.load(peer, &body, tokens.as_slice(), connections, Until::Elapsed(what.seconds))?;
    let tls = if scenario.wire().clients_tls { rig.tls() } else { None };
    Ok(Load { tls, reconnects, ..load })
}

/// How many; anything but a complete 200 disqualifies.
pub(super) fn all_answered(result: &LoadResult) -> Result<f64, Trouble> {
    match (result.tally.not_ok(), result.tally.answers()) {
        (0, 0) => Err(Trouble::Failed("no request was answered".to_owned())),
        (0, answers) => Ok(answers as f64),
        _ => Err(Trouble::Failed(result.tally.describe_not_ok())),
    }
}

/// Which part of the answers took about 40 ms, beyond what its neighbours would explain.
fn step(latency: &Latency) -> f64 {
    let [before, from, to, after] = STEP.map(Duration::from_millis);
    let neighbours = f64::midpoint(latency.part_between(before, from), latency.part_between(to, after));
    (latency.part_between(from, to) - neighbours).max(0.0)
}

/// Of bytes.
pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

/// An I/O error of the ring, as trouble of the cell.
pub(super) fn trouble(what: &'static str) -> impl FnOnce(std::io::Error) -> Trouble {
    move |error| io_error(what)(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_what_rises_above_its_neighbours() {
        let with = |millis: &[u64]| {
            let mut latency = Latency::new();
            for millis in millis {
                latency.record(Duration::from_millis(*millis));
            }
            step(&latency)
        };
        assert!((with(&[1, 1, 1, 41]) - 0.25).abs() < 1e-9);
        assert!(with(&[1, 34, 41, 50]).abs() < 1e-9, "a slope is no step");
        assert!(with(&[]).abs() < 1e-9);
    }
}
