//! Sends recorded traffic again, at its own moments with time compressed, and compares
//! what a limiter admitted with what an exact one would have.
//!
//! Only time between arrivals is compressed: the limiter's window is not. Prompts are
//! filler of the recorded length, since traces carry none.

pub(crate) mod exact;
pub(crate) mod trace;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    clock,
    connection::Connection,
    load::CONNECTIONS_MAX,
    tally::{Failure, Latency},
    target::{Header, Target},
    watchdog::Watchdog,
};
use trace::Recorded;

/// Bytes of text that count as one token, here and in the simulated provider.
const BYTES_PER_TOKEN: u64 = 4;
/// Bytes that one read may take.
const READ_BYTES: usize = 16 * 1024;
/// Longest answer that is kept to read its usage.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Pause after a connection that could not be opened.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);

/// One replay.
#[derive(Debug, Clone)]
pub(crate) struct Replay {
    /// Whom to send to.
    pub(crate) target: Target,
    /// Sent with every request, the virtual key among them.
    pub(crate) headers: Vec<Header>,
    /// The model that every request names.
    pub(crate) model: String,
    /// What to send, in order of time.
    pub(crate) rows: Vec<Recorded>,
    /// How many times faster than recorded.
    pub(crate) speed: f64,
    /// No request is sent after this time.
    pub(crate) time_max: Duration,
    /// Longer prompts are cut to this many tokens.
    pub(crate) prompt_tokens_max: u64,
    /// `max_tokens` of every request; where absent, what the trace generated.
    pub(crate) max_tokens: Option<u64>,
    /// Requests under way at a time.
    pub(crate) connections: usize,
    /// Longest silence of the gateway.
    pub(crate) silence_max: Duration,
}

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A complete answer with this status.
    Answered(u16),
    /// None.
    Failed(Failure),
}

/// One request that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    /// When, after the start.
    pub(crate) at: Duration,
    /// Prompt and completion tokens that the trace and the caps say.
    pub(crate) tokens: u64,
    /// What the answer's `usage.total_tokens` says, where there is one.
    pub(crate) billed: Option<u64>,
    /// What became of it.
    pub(crate) fate: Fate,
}

/// What came of a replay.
#[derive(Debug, Clone)]
pub(crate) struct ReplayResult {
    /// Every request that was sent, in order of its sending.
    pub(crate) sent: Vec<Sent>,
    /// Rows whose time did not come within the replay.
    pub(crate) not_due: u64,
    /// How late requests left, against the schedule.
    pub(crate) lag: Latency,
    /// From sending to the end of the answer.
    pub(crate) latency: Latency,
}

struct Progress {
    replay: Replay,
    started: Instant,
    next: Cell<usize>,
    sent: RefCell<Vec<Sent>>,
    lag: RefCell<Latency>,
    latency: RefCell<Latency>,
}

/// Replays to the end, inside a monoio runtime with timers.
pub(crate) async fn run(replay: Replay) -> ReplayResult {
    let lanes = replay.connections.clamp(1, CONNECTIONS_MAX);
    let watchdog = Watchdog::start(lanes);
    let progress = Rc::new(Progress {
        sent: RefCell::new(Vec::with_capacity(replay.rows.len())),
        replay,
        started: clock::now(),
        next: Cell::new(0),
        lag: RefCell::new(Latency::new()),
        latency: RefCell::new(Latency::new()),
    });
    let tasks: Vec<_> =
        (0..lanes).map(|lane| monoio::spawn(drive(lane, Rc::clone(&progress), Rc::clone(&watchdog)))).collect();
    for task in tasks {
        task.await;
    }
    watchdog.stop();
    let mut sent = progress.sent.take();
    sent.sort_by_key(|sent| sent.at);
    ReplayResult {
        not_due: progress.replay.rows.len().saturating_sub(sent.len()) as u64,
        sent,
        lag: progress.lag.borrow().clone(),
        latency: progress.latency.borrow().clone(),
    }
}

/// One lane: claim the next row, wait for its moment, send it, note what became of it.
async fn drive(lane: usize, progress: Rc<Progress>, watchdog: Rc<Watchdog>) {
    let replay = &progress.replay;
    let mut connection: Option<Connection> = None;
    while let Some((row, planned)) = progress.claim() {
        let left = planned.saturating_duration_since(clock::now());
        if !left.is_zero() {
            monoio::time::sleep(left).await;
        }
        let shaped = replay.shape(row);
        let request = replay.target.post(&shaped.headers, &shaped.body);
        let sent_at = clock::now();
        let mut billed = None;
        let mut is_reusable = false;
        let mut open = match connection.take() {
            Some(open) => Some(open),
            None => Connection::open(replay.target.address, &watchdog, lane, READ_BYTES, replay.silence_max).await.ok(),
        };
        let fate = match &mut open {
            None => Fate::Failed(Failure::Connect),
            Some(open) => {
                let mut body = Vec::new();
                let (answer, _) = open
                    .exchange(request, |_, part| {
                        if body.len() + part.len() <= ANSWER_BYTES_MAX {
                            body.extend_from_slice(part);
                        }
                    })
                    .await;
                billed = total_tokens(&body);
                is_reusable = answer.is_ok_and(|answer| answer.keeps_alive);
                answer.map_or_else(Fate::Failed, |answer| Fate::Answered(answer.status))
            }
        };
        progress.note(Sent {
            at: sent_at.saturating_duration_since(progress.started),
            tokens: shaped.tokens,
            billed,
            fate,
        });
        progress.lag.borrow_mut().record(sent_at.saturating_duration_since(planned));
        match fate {
            Fate::Answered(_) => {
                let took = clock::now().saturating_duration_since(sent_at);
                progress.latency.borrow_mut().record(took);
                connection = open.filter(|_| is_reusable);
            }
            Fate::Failed(_) => monoio::time::sleep(CONNECT_PAUSE).await,
        }
    }
}

impl Progress {
    /// The next row and its moment, or none when the rows or the time are used up.
    fn claim(&self) -> Option<(Recorded, Instant)> {
        let row = *self.replay.rows.get(self.next.get())?;
        let after = row.at.div_f64(self.replay.speed.max(0.001));
        if after >= self.replay.time_max {
            return None;
        }
        self.next.set(self.next.get() + 1);
        Some((row, self.started + after))
    }

    fn note(&self, sent: Sent) {
        self.sent.borrow_mut().push(sent);
    }
}

/// A recorded request as it is sent.
struct Shaped {
    headers: Vec<Header>,
    body: Vec<u8>,
    tokens: u64,
}

impl Replay {
    fn shape(&self, row: Recorded) -> Shaped {
        let prompt = row.prompt_tokens.clamp(1, self.prompt_tokens_max.max(1));
        let max_tokens = self.max_tokens.unwrap_or(row.completion_tokens.max(1));
        let completion = row.completion_tokens.min(max_tokens);
        let content: String = "tale ".chars().cycle().take((prompt * BYTES_PER_TOKEN) as usize).collect();
        let body = serde_json::json!({
            "model": self.model,
            "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": content}],
        });
        let mut headers = self.headers.clone();
        headers.push(Header::new(crate::simulated::COMPLETION_TOKENS, completion.to_string()));
        Shaped { headers, body: body.to_string().into_bytes(), tokens: prompt + completion }
    }
}

fn total_tokens(body: &[u8]) -> Option<u64> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    json.get("usage")?.get("total_tokens")?.as_u64()
}
