//! Load of one kind of request over a fixed number of keep-alive connections.
//!
//! A closed loop sends the next request when the answer has come: it finds what a request
//! costs, and hides stalls. An open loop sends at fixed moments and counts latency from
//! the moment that was planned, so a stall is paid for by every request that it delays.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    alarm::Alarm,
    clock,
    connection::Connection,
    tally::{Failure, Tally},
    target::Target,
    tls,
    watchdog::Watchdog,
};

/// Most connections of one run.
pub(crate) const CONNECTIONS_MAX: usize = 9_900;
/// Most requests of one run.
pub(crate) const REQUESTS_MAX: u64 = 1_000_000_000;
/// Pause after a connection that could not be opened, so that a dead peer is no busy loop.
const CONNECT_PAUSE: Duration = Duration::from_millis(20);
/// Bytes that one read may take.
const READ_BYTES: usize = 16 * 1024;

/// When the next request is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// When the connection's last answer has come.
    Closed,
    /// At a fixed schedule of so many a second, over all connections.
    Open {
        /// Requests a second.
        rate: f64,
    },
}

/// When the run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// After so many requests.
    Requests(u64),
    /// After this time; what is under way is still awaited.
    Elapsed(Duration),
}

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Whom to send to.
    pub(crate) target: Target,
    /// The whole request, head and body.
    pub(crate) request: Vec<u8>,
    /// Keep-alive connections, each with at most one request under way.
    pub(crate) connections: usize,
    /// Closed or open loop.
    pub(crate) pace: Pace,
    /// The end.
    pub(crate) until: Until,
    /// Longest silence of the peer.
    pub(crate) silence_max: Duration,
    /// Connections are encrypted.
    pub(crate) tls: Option<tls::Client>,
    /// Every request comes over a connection of its own.
    pub(crate) reconnects: bool,
    /// A body of another length is a failure.
    pub(crate) expected_bytes: Option<u64>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct LoadResult {
    /// Answers and failures.
    pub(crate) tally: Tally,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
    /// Connections that were tried: more than asked for where the peer closed some.
    pub(crate) connects: u64,
}

struct Progress {
    load: Load,
    started: Instant,
    claimed: Cell<u64>,
    connects: Cell<u64>,
    tally: RefCell<Tally>,
}

/// Runs the load to its end, inside a monoio runtime with timers.
///
/// # Errors
/// Timers for an open loop could not be made; nothing was sent on the lanes without one.
pub(crate) async fn run(load: Load) -> io::Result<LoadResult> {
    let lanes = load.connections.clamp(1, CONNECTIONS_MAX);
    let watchdog = Watchdog::start(lanes);
    let progress = Rc::new(Progress {
        load,
        started: clock::now(),
        claimed: Cell::new(0),
        connects: Cell::new(0),
        tally: RefCell::new(Tally::new()),
    });
    let tasks: Vec<_> =
        (0..lanes).map(|lane| monoio::spawn(drive(lane, Rc::clone(&progress), Rc::clone(&watchdog)))).collect();
    let mut result = Ok(());
    for task in tasks {
        result = result.and(task.await);
    }
    watchdog.stop();
    result?;
    let tally = progress.tally.borrow().clone();
    Ok(LoadResult {
        tally,
        took: clock::now().saturating_duration_since(progress.started),
        connects: progress.connects.get(),
    })
}

/// One connection's life: claim a request, wait for its moment, send, read, count.
async fn drive(lane: usize, progress: Rc<Progress>, watchdog: Rc<Watchdog>) -> io::Result<()> {
    let load = &progress.load;
    let alarm = match load.pace {
        Pace::Closed => None,
        Pace::Open { .. } => Some(Alarm::new()?),
    };
    let mut connection = None;
    let mut request = load.request.clone();
    while let Some(turn) = progress.claim() {
        let from = match (turn, &alarm) {
            (Turn::At(moment), Some(alarm)) => {
                alarm.wait_until(moment).await?;
                moment
            }
            _ => clock::now(),
        };
        let open = match connection.take() {
            Some(open) => Some(open),
            None => progress.connect(lane, &watchdog).await,
        };
        let Some(mut open) = open else {
            progress.tally.borrow_mut().failed(Failure::Connect, 1);
            monoio::time::sleep(CONNECT_PAUSE).await;
            continue;
        };
        let (answer, given_back) = open.exchange(request, |_, _| ()).await;
        request = given_back;
        let mut tally = progress.tally.borrow_mut();
        match answer {
            Ok(answer) if load.expected_bytes.is_some_and(|n| n != answer.body_bytes) => {
                tally.failed(Failure::WrongLength, 1);
            }
            Ok(answer) => {
                let took = clock::now().saturating_duration_since(from);
                tally.answered(answer.status, took);
                connection = (answer.keeps_alive && !load.reconnects).then_some(open);
            }
            Err(failure) => tally.failed(failure, 1),
        }
    }
    Ok(())
}

/// When a claimed request is to be sent.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Now,
    At(Instant),
}

impl Progress {
    /// Takes the next request. None at the end of the run.
    fn claim(&self) -> Option<Turn> {
        let number = self.claimed.get();
        let turn = match self.load.pace {
            Pace::Closed => Turn::Now,
            Pace::Open { rate } => Turn::At(self.started + offset(number, rate)),
        };
        let is_over = match (self.load.until, turn) {
            (Until::Requests(requests), _) => number >= requests.min(REQUESTS_MAX),
            (Until::Elapsed(time), Turn::At(moment)) => moment >= self.started + time,
            (Until::Elapsed(time), Turn::Now) => clock::now() >= self.started + time,
        };
        if is_over {
            return None;
        }
        self.claimed.set(number + 1);
        Some(turn)
    }

    async fn connect(&self, lane: usize, watchdog: &Rc<Watchdog>) -> Option<Connection> {
        let (address, silence_max) = (self.load.target.address, self.load.silence_max);
        self.connects.set(self.connects.get() + 1);
        let open = match &self.load.tls {
            Some(tls) => Connection::open_tls(address, tls, watchdog, lane, READ_BYTES, silence_max).await,
            None => Connection::open(address, watchdog, lane, READ_BYTES, silence_max).await,
        };
        open.ok()
    }
}

/// The planned moment of request `number` after the start.
fn offset(number: u64, rate: f64) -> Duration {
    Duration::try_from_secs_f64(number as f64 / rate.max(0.001)).unwrap_or(Duration::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_does_not_drift() {
        assert_eq!(offset(0, 2_000.0), Duration::ZERO);
        assert_eq!(offset(1, 2_000.0), Duration::from_micros(500));
        assert_eq!(offset(2_000_000, 2_000.0), Duration::from_secs(1_000));
    }
}
