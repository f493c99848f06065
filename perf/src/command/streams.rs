//! `perf streams`.

use clap::Args;

use super::{CommandError, Output, Verdict, doing, seconds};
use crate::{
    node_memory::Memory,
    ring,
    rows::{Rows, say},
    streams::{self, STREAMS_MAX, Streams, StreamsResult},
    target::{Header, Target},
};

/// Most rounds of one command.
const ROUNDS_MAX: u32 = 20;

#[derive(Debug, Args)]
pub(super) struct StreamsArgs {
    /// Whom to ask; a gateway in front of a simulated provider
    #[arg(long, default_value = "http://127.0.0.1:8080/v1/chat/completions")]
    url: String,
    /// Streams at a time, 9,900 at most
    #[arg(long, default_value_t = 1_000)]
    streams: usize,
    /// Content events of each stream
    #[arg(long, default_value_t = 100)]
    events: u32,
    /// Bytes of each event on the wire; JSON takes about 250 of them, the rest is checked text
    #[arg(long, default_value_t = 320)]
    event_bytes: u32,
    /// Milliseconds between two events of a stream
    #[arg(long, default_value_t = 250.0)]
    interval_ms: f64,
    /// Streams opened a second
    #[arg(long, default_value_t = 2_000.0)]
    ramp: f64,
    /// Seed of the first stream's text; the next ones follow
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The model that every request names
    #[arg(long, default_value = "openai/gpt-4o-mini")]
    model: String,
    /// A further header, `name: value`; may be given again
    #[arg(long)]
    header: Vec<Header>,
    /// Longest silence of a stream, in seconds
    #[arg(long, default_value_t = 30.0)]
    silence: f64,
    /// Look at the memory of this process: the node
    #[arg(long)]
    pid: Option<u32>,
    /// After each round wait so many seconds and look at the memory again
    #[arg(long, default_value_t = 0.0, requires = "pid")]
    settle: f64,
    /// Identical rounds, one after the other; the first is the warm-up of the next
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(args: &StreamsArgs) -> Result<Verdict, CommandError> {
    let run = Streams {
        target: Target::parse(&args.url)?,
        headers: args.header.clone(),
        model: args.model.clone(),
        at_once: args.streams,
        events: args.events,
        event_bytes: args.event_bytes,
        interval: seconds(args.interval_ms / 1e3)?,
        ramp_rate: args.ramp,
        seed: args.seed,
        silence_max: seconds(args.silence)?,
        pid: args.pid,
    };
    let settle = seconds(args.settle)?;
    if args.streams == 0 || args.streams > STREAMS_MAX || !(1..=ROUNDS_MAX).contains(&args.rounds) {
        return Err(CommandError::Usage(format!("1 to {STREAMS_MAX} streams, 1 to {ROUNDS_MAX} rounds")));
    }
    let read_memory = || args.pid.map(Memory::read).transpose();
    args.output.pin()?;

    let proxy = args.output.proxy.as_str();
    let rounds = ring::run(async |driver| {
        say(&format!("streams: read over {}", driver.name()));
        let mut rounds = Vec::new();
        for _ in 0..args.rounds {
            let before = read_memory()?;
            let result = streams::run(run.clone()).await;
            let after = read_memory()?;
            monoio::time::sleep(settle).await;
            let settled = read_memory()?;
            rounds.push((before, result, after, settled));
        }
        Ok(rounds)
    })
    .map_err(doing("starting the ring"))?
    .map_err(doing("reading the node's memory"))?;

    let mut rows = Rows::new("streams");
    let mut is_clean = true;
    for (round, (before, result, after, settled)) in (1..).zip(&rounds) {
        rows.set_run(round);
        is_clean &= result.whole == args.streams as u64;
        write(&mut rows, proxy, result);
        write_memory(&mut rows, proxy, "before", *before);
        write_memory(&mut rows, proxy, "peak", result.memory_peak);
        write_memory(&mut rows, proxy, "after", *after);
        write_memory(&mut rows, proxy, "settled", *settled);
        if let (Some(before), Some(peak), 1..) = (before, result.memory_peak, result.concurrent_max) {
            let grown = peak.anonymous.saturating_sub(before.anonymous) as f64;
            let each = grown / result.concurrent_max as f64 / 1024.0;
            rows.add(proxy, "memory_per_stream", each, "KiB");
        }
    }
    if let (Some((.., Some(first))), Some((.., Some(last)))) = (rounds.first(), rounds.last())
        && rounds.len() > 1
    {
        rows.set_run(0);
        let ratio = last.resident as f64 / first.resident.max(1) as f64;
        rows.add(proxy, "settled_resident_last_to_first", ratio, "ratio");
    }
    args.output.finish(&rows)?;
    Ok(Verdict::clean_if(is_clean))
}

fn write(rows: &mut Rows, proxy: &str, result: &StreamsResult) {
    let faults = result.faults;
    for (metric, value, unit) in [
        ("streams_whole", result.whole, "streams"),
        ("streams_at_once_max", result.concurrent_max, "streams"),
        ("events_right", result.events_right, "events"),
        ("events_lost", faults.lost, "events"),
        ("events_doubled", faults.doubled, "events"),
        ("events_corrupt", faults.corrupt, "events"),
        ("streams_without_usage", faults.without_usage, "streams"),
        ("streams_without_end", faults.without_end, "streams"),
    ] {
        rows.add(proxy, metric, value as f64, unit);
    }
    for (status, count) in &result.refused {
        rows.add(proxy, &format!("status_{status}"), *count as f64, "streams");
    }
    for (failure, count) in &result.failures {
        rows.add(proxy, failure.name(), *count as f64, "streams");
    }
    rows.add(proxy, "took", result.took.as_secs_f64(), "s");
    result.first_event.write(rows, proxy, "first_event");
    result.gap.write(rows, proxy, "gap");
    result.jitter.write(rows, proxy, "jitter");
}

fn write_memory(rows: &mut Rows, proxy: &str, moment: &str, memory: Option<Memory>) {
    let Some(memory) = memory else { return };
    for (kind, bytes) in
        [("resident", memory.resident), ("anonymous", memory.anonymous), ("proportional", memory.proportional)]
    {
        if bytes > 0 {
            let metric = format!("memory_{kind}_{moment}");
            rows.add(proxy, &metric, bytes as f64 / 1024.0, "KiB");
        }
    }
}
