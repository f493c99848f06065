//! Many server-sent event streams at a time, each checked byte for byte.
//!
//! One descriptor and one lane a stream. Streams are opened at a fixed rate, so that the
//! listener's queue is not what is measured.

pub(crate) mod check;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    clock,
    connection::Connection,
    node_memory::Memory,
    simulated,
    sse::SseReader,
    tally::{Failure, Latency},
    target::{Header, Target},
    watchdog::Watchdog,
};
use check::{Faults, StreamCheck};

/// Most streams of one run: one descriptor each, of the usual 20,000 with room to spare.
pub(crate) const STREAMS_MAX: usize = 9_900;
/// Bytes that one read may take.
const READ_BYTES: usize = 4 * 1024;
/// Time between two looks at the node's memory.
const MEMORY_INTERVAL: Duration = Duration::from_millis(500);

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    /// Whom to ask.
    pub(crate) target: Target,
    /// Sent with every request, the virtual key among them.
    pub(crate) headers: Vec<Header>,
    /// The model that every request names.
    pub(crate) model: String,
    /// Streams at a time.
    pub(crate) at_once: usize,
    /// Content events of each.
    pub(crate) events: u32,
    /// Bytes of each event on the wire.
    pub(crate) event_bytes: u32,
    /// Time between two events of a stream.
    pub(crate) interval: Duration,
    /// Streams opened a second.
    pub(crate) ramp_rate: f64,
    /// Seed of the first stream; each has its own.
    pub(crate) seed: u64,
    /// Longest silence of the node.
    pub(crate) silence_max: Duration,
    /// The node whose memory is looked at.
    pub(crate) pid: Option<u32>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct StreamsResult {
    /// Streams that ended properly with every event in place.
    pub(crate) whole: u64,
    /// Content events that were right.
    pub(crate) events_right: u64,
    /// Lost, doubled and corrupt events of all streams.
    pub(crate) faults: Faults,
    /// Streams that came to no proper end, by reason.
    pub(crate) failures: BTreeMap<Failure, u64>,
    /// Streams with another status than 200.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Most streams that were between their first and their last byte at one time.
    pub(crate) concurrent_max: u64,
    /// From the request to the first content event.
    pub(crate) first_event: Latency,
    /// From one content event to the next of the same stream.
    pub(crate) gap: Latency,
    /// How far a gap was from the interval that was asked for, either way.
    pub(crate) jitter: Latency,
    /// From the first stream's connect to the last stream's end.
    pub(crate) took: Duration,
    /// The node's memory with the most streams open, sampled: resident and anonymous.
    pub(crate) memory_peak: Option<Memory>,
}

struct Progress {
    run: Streams,
    started: Instant,
    running: Cell<u64>,
    left: Cell<usize>,
    result: RefCell<StreamsResult>,
}

/// Runs all streams to their end, inside a monoio runtime with timers.
pub(crate) async fn run(run: Streams) -> StreamsResult {
    let count = run.at_once.clamp(1, STREAMS_MAX);
    let watchdog = Watchdog::start(count);
    let progress = Rc::new(Progress {
        started: clock::now(),
        running: Cell::new(0),
        left: Cell::new(count),
        result: RefCell::new(StreamsResult::nothing_yet()),
        run,
    });
    let memory = monoio::spawn(watch_memory(Rc::clone(&progress)));
    let tasks: Vec<_> =
        (0..count).map(|lane| monoio::spawn(drive(lane, Rc::clone(&progress), Rc::clone(&watchdog)))).collect();
    for task in tasks {
        task.await;
    }
    watchdog.stop();
    progress.result.borrow_mut().took = clock::now().saturating_duration_since(progress.started);
    memory.await;
    progress.result.borrow().clone()
}

/// One stream's life.
async fn drive(lane: usize, progress: Rc<Progress>, watchdog: Rc<Watchdog>) {
    let run = &progress.run;
    let turn = progress.started + Duration::from_secs_f64(lane as f64 / run.ramp_rate.max(1.0));
    monoio::time::sleep(turn.saturating_duration_since(clock::now())).await;

    let seed = run.seed.wrapping_add(lane as u64);
    let mut stream = Stream::new(&progress, seed);
    let request = run.request(seed);
    let opened = Connection::open(run.target.address, &watchdog, lane, READ_BYTES, run.silence_max).await;
    let outcome = match opened {
        Err(_) => Err(Failure::Connect),
        Ok(mut open) => {
            stream.asked_at = clock::now();
            open.exchange(request, |status, bytes| {
                if status == 200 {
                    stream.take(bytes);
                }
            })
            .await
            .0
        }
    };
    stream.finish(outcome.map(|answer| answer.status));
    progress.left.set(progress.left.get() - 1);
}

/// What one stream has seen.
struct Stream<'a> {
    progress: &'a Progress,
    reader: SseReader,
    check: StreamCheck,
    asked_at: Instant,
    last_event_at: Option<Instant>,
    is_running: bool,
    is_too_long: bool,
}

impl<'a> Stream<'a> {
    fn new(progress: &'a Progress, seed: u64) -> Self {
        let run = &progress.run;
        Self {
            progress,
            reader: SseReader::default(),
            check: StreamCheck::new(seed, run.events, run.event_bytes),
            asked_at: progress.started,
            last_event_at: None,
            is_running: false,
            is_too_long: false,
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if !self.is_running {
            self.is_running = true;
            self.progress.begin();
        }
        let now = clock::now();
        let mut result = self.progress.result.borrow_mut();
        let read = self.reader.feed(bytes, |data| {
            if !self.check.take(data) {
                return;
            }
            match self.last_event_at.replace(now) {
                None => result.first_event.record(now.saturating_duration_since(self.asked_at)),
                Some(before) => {
                    let gap = now.saturating_duration_since(before);
                    result.gap.record(gap);
                    result.jitter.record(gap.abs_diff(self.progress.run.interval));
                }
            }
        });
        self.is_too_long |= read.is_err();
    }

    fn finish(self, outcome: Result<u16, Failure>) {
        if self.is_running {
            self.progress.end();
        }
        let mut result = self.progress.result.borrow_mut();
        let (right, faults) = self.check.finish();
        result.events_right += u64::from(right);
        match outcome {
            Ok(200) => {
                result.whole += u64::from(faults == Faults::default() && !self.is_too_long);
                result.faults.add(faults);
            }
            Ok(status) => *result.refused.entry(status).or_default() += 1,
            Err(failure) => {
                *result.failures.entry(failure).or_default() += 1;
                result.faults.add(faults);
            }
        }
    }
}

impl Progress {
    fn begin(&self) {
        self.running.set(self.running.get() + 1);
        let mut result = self.result.borrow_mut();
        result.concurrent_max = result.concurrent_max.max(self.running.get());
    }

    fn end(&self) {
        self.running.set(self.running.get() - 1);
    }
}

impl Streams {
    /// A chat request that asks for a stream, and for the usage event itself, so that
    /// nothing has to be hidden from it on the way.
    fn request(&self, seed: u64) -> Vec<u8> {
        let body = serde_json::json!({
            "model": self.model,
            "messages": [{"role": "user", "content": "count"}],
            "stream": true,
            "stream_options": {"include_usage": true},
            "max_tokens": self.events,
        });
        let mut headers = self.headers.clone();
        for (name, value) in [
            // One token an event, so that the time between tokens is that between events.
            (simulated::TOKENS_PER_EVENT, "1".to_owned()),
            (simulated::COMPLETION_TOKENS, self.events.to_string()),
            (simulated::EVENTS, self.events.to_string()),
            (simulated::EVENT_BYTES, self.event_bytes.to_string()),
            (simulated::TOKEN_MILLIS, (self.interval.as_secs_f64() * 1e3).to_string()),
            (simulated::SEED, seed.to_string()),
        ] {
            headers.push(Header::new(name, value));
        }
        self.target.post(&headers, body.to_string().as_bytes())
    }
}

impl StreamsResult {
    fn nothing_yet() -> Self {
        Self {
            whole: 0,
            events_right: 0,
            faults: Faults::default(),
            failures: BTreeMap::new(),
            refused: BTreeMap::new(),
            concurrent_max: 0,
            first_event: Latency::new(),
            gap: Latency::new(),
            jitter: Latency::new(),
            took: Duration::ZERO,
            memory_peak: None,
        }
    }
}

/// Samples the node's memory until the last stream has ended. A node that is gone shows
/// as failed streams, so its missing memory is no error of its own.
async fn watch_memory(progress: Rc<Progress>) {
    let Some(pid) = progress.run.pid else { return };
    while progress.left.get() > 0 {
        if let Ok(now) = Memory::sample(pid) {
            let mut result = progress.result.borrow_mut();
            let peak = result.memory_peak.get_or_insert(now);
            peak.resident = peak.resident.max(now.resident);
            peak.anonymous = peak.anonymous.max(now.anonymous);
        }
        monoio::time::sleep(MEMORY_INTERVAL).await;
    }
}
