//! Event streams, and connections that do nothing: time between events, CPU and memory.

use std::time::Duration;

use super::{
    Compare, Trouble,
    measure::{closed_load, start, trouble},
    results::Figure,
    scenario::{Scenario, Shape},
};
use crate::{
    counters::CpuClock,
    idle::{self, Idle},
    node_memory::Memory,
    peer::Peer,
    rig::{Rig, child_error},
    ring,
    streams::{self, Streams, StreamsResult},
};

/// Bytes of an event on the wire.
const EVENT_BYTES: u32 = 320;
/// Streams and connections opened a second.
const RAMP_RATE: f64 = 2_000.0;
/// Longest silence of a stream.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long idle connections do nothing.
const IDLE_REST: Duration = Duration::from_secs(3);

/// CPU of an event, gaps, and memory of a stream.
pub(super) fn streams(
    what: &Compare,
    rig: &Rig,
    scenario: Scenario,
    shape: Shape,
    peer: Option<Peer>,
) -> Result<Vec<Figure>, Trouble> {
    let check = closed_load(what, rig, scenario, peer)?;
    let running = peer.map(|peer| start(rig, scenario, peer, &check)).transpose()?;
    let pid = running.as_ref().map(crate::rig::Running::pid);
    let name = peer.map_or(super::DIRECT, Peer::name);
    let look = || pid.map(Memory::sample).transpose().map_err(child_error(name));
    let run = Streams {
        target: check.target,
        headers: rig.places.headers(peer),
        model: what.model.clone(),
        at_once: shape.streams,
        events: events(shape, what.seconds),
        event_bytes: EVENT_BYTES,
        interval: shape.interval,
        ramp_rate: RAMP_RATE,
        seed: 1,
        silence_max: SILENCE_MAX,
        pid,
    };
    let before = look()?;
    let clock = pid.map(CpuClock::start).transpose().map_err(child_error(name))?;
    let result = ring::run(async |_| streams::run(run).await).map_err(trouble("reading streams"))?;
    let cpu = clock.map(|clock| clock.used()).transpose().map_err(child_error(name))?;
    std::thread::sleep(if pid.is_some() { what.settle } else { Duration::ZERO });
    let settled = look()?;
    if let Some(running) = running {
        running.stop(name)?;
    }
    if result.whole != shape.streams as u64 {
        return Err(Trouble::Failed(describe(&result, shape)));
    }
    let mut figures = times(&result);
    if let Some(cpu) = cpu {
        figures.push(Figure::new("cpu_per_chunk", cpu.as_secs_f64() * 1e6 / result.events_right.max(1) as f64, "us"));
    }
    if let (Some(before), Some(peak), Some(settled)) = (before, result.memory_peak, settled) {
        let grown = peak.anonymous.saturating_sub(before.anonymous) as f64 / 1024.0;
        figures.push(Figure::new("memory_per_stream", grown / result.concurrent_max.max(1) as f64, "KiB"));
        for (metric, memory) in [("resident_idle", before), ("resident_peak", peak), ("resident_settled", settled)] {
            figures.push(Figure::new(metric, super::measure::mib(memory.resident), "MiB"));
        }
        let ratio = settled.resident as f64 / before.resident.max(1) as f64;
        figures.push(Figure::new("resident_settled_to_idle", ratio, "ratio"));
    }
    Ok(figures)
}

/// Memory of a connection that has had its answer and waits.
pub(super) fn idle(
    what: &Compare,
    rig: &Rig,
    scenario: Scenario,
    connections: usize,
    peer: Peer,
) -> Result<Vec<Figure>, Trouble> {
    let check = closed_load(what, rig, scenario, Some(peer))?;
    let running = start(rig, scenario, peer, &check)?;
    let run = Idle {
        target: check.target,
        request: check.request,
        connections,
        ramp_rate: RAMP_RATE,
        rest: IDLE_REST,
        pid: running.pid(),
    };
    let result = ring::run(async |_| idle::run(run).await).and_then(|result| result);
    let result = result.map_err(trouble("holding connections"))?;
    running.stop(peer.name())?;
    if result.open != connections {
        return Err(Trouble::Failed(format!("{} of {connections} connections were answered and kept", result.open)));
    }
    let grown = result.during.anonymous.saturating_sub(result.before.anonymous) as f64 / 1024.0;
    Ok(vec![
        Figure::new("memory_per_connection", grown / connections as f64, "KiB"),
        Figure::new("cpu_idle", result.cpu.as_secs_f64() * 1e3 / IDLE_REST.as_secs_f64(), "ms/s"),
    ])
}

/// Events of each stream: so many that all are open together for the time of a measurement.
fn events(shape: Shape, seconds: Duration) -> u32 {
    let time = seconds.as_secs_f64() + shape.streams as f64 / RAMP_RATE;
    (time / shape.interval.as_secs_f64()).ceil() as u32
}

fn times(result: &StreamsResult) -> Vec<Figure> {
    let latencies = [
        (&result.first_event, ["first_event_p50", "first_event_p99", "first_event_max"]),
        (&result.gap, ["gap_p50", "gap_p99", "gap_max"]),
        (&result.jitter, ["jitter_p50", "jitter_p99", "jitter_max"]),
    ];
    latencies
        .into_iter()
        .flat_map(|(latency, names)| {
            let values = [latency.micros_at(0.5), latency.micros_at(0.99), latency.max_micros()];
            names.into_iter().zip(values).map(|(name, micros)| Figure::new(name, micros / 1e3, "ms"))
        })
        .collect()
}

fn describe(result: &StreamsResult, shape: Shape) -> String {
    let faults = result.faults;
    let mut text = format!(
        "{} of {} streams whole, events lost {}, doubled {}, corrupt {}",
        result.whole, shape.streams, faults.lost, faults.doubled, faults.corrupt
    );
    for (failure, count) in &result.failures {
        text = format!("{text}, {}: {count}", failure.name());
    }
    for (status, count) in &result.refused {
        text = format!("{text}, status_{status}: {count}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_outlast_the_ramp_by_a_measurement() {
        let shape = Shape { streams: 9_900, interval: Duration::from_millis(250) };
        // 4.95 s of ramp, and ten more.
        assert_eq!(events(shape, Duration::from_secs(10)), 60);
    }
}
