//! Connections that have had one answer and do nothing: what one costs the other side in memory.

use std::{cell::RefCell, io, rc::Rc, time::Duration};

use crate::{
    clock, connection::Connection, counters::CpuClock, node_memory::Memory, target::Target, watchdog::Watchdog,
};

/// Bytes that one read may take.
const READ_BYTES: usize = 4 * 1024;
/// Longest silence before an answer.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Idle {
    /// Whom to ask.
    pub(crate) target: Target,
    /// The one request of each connection.
    pub(crate) request: Vec<u8>,
    /// Connections at a time.
    pub(crate) connections: usize,
    /// Connections opened a second.
    pub(crate) ramp_rate: f64,
    /// How long all of them do nothing.
    pub(crate) rest: Duration,
    /// The process whose memory is looked at.
    pub(crate) pid: u32,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdleResult {
    /// Connections with a good answer, open at the end of the rest.
    pub(crate) open: usize,
    /// Before the first connection.
    pub(crate) before: Memory,
    /// At the end of the rest.
    pub(crate) during: Memory,
    /// CPU time in the rest.
    pub(crate) cpu: Duration,
}

/// Runs it to its end, inside a monoio runtime with timers.
///
/// # Errors
/// The process could not be looked at.
pub(crate) async fn run(run: Idle) -> io::Result<IdleResult> {
    let before = Memory::sample(run.pid)?;
    let watchdog = Watchdog::start(run.connections);
    let started = clock::now();
    let open = Rc::new(RefCell::new(Vec::with_capacity(run.connections)));
    let tasks: Vec<_> = (0..run.connections)
        .map(|lane| {
            let turn = started + Duration::from_secs_f64(lane as f64 / run.ramp_rate.max(1.0));
            let (watchdog, open) = (Rc::clone(&watchdog), Rc::clone(&open));
            let (address, request) = (run.target.address, run.request.clone());
            monoio::spawn(async move {
                monoio::time::sleep(turn.saturating_duration_since(clock::now())).await;
                let connected = Connection::open(address, &watchdog, lane, READ_BYTES, SILENCE_MAX).await;
                let Ok(mut connection) = connected else { return };
                let (answer, _) = connection.exchange(request, |_, _| ()).await;
                if answer.is_ok_and(|answer| answer.status == 200 && answer.keeps_alive) {
                    open.borrow_mut().push(connection);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    let clock = CpuClock::start(run.pid)?;
    monoio::time::sleep(run.rest).await;
    let result = IdleResult { open: open.borrow().len(), before, during: Memory::sample(run.pid)?, cpu: clock.used()? };
    watchdog.stop();
    Ok(result)
}
