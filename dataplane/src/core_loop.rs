//! The life of one core: take the first configuration, listen, tick, drain, end.

use crate::core::Core;
use crate::driver::{self, Driver};
use crate::listener;
use shared::bounds::{CORE_TICK, DEADLINE_SWEEP, DRAIN_QUIET_TICKS, DRAIN_TICKS_MAX, REPORT_INTERVAL};
use shared::clock::Clock;
use shared::phase::{Phase, SharedPhase};
use shared::ring::{CoreReceiver, ReportSender};
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

/// How often a core gives back what it keeps for nothing.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Everything a core needs to start.
pub struct Seat {
    /// Its number, from zero.
    pub core: u32,
    /// How it waits for the kernel.
    pub driver: Driver,
    /// Its own listening socket; all cores' share one address (`SO_REUSEPORT`).
    pub listener: TcpListener,
    /// Where configurations come from.
    pub receiver: CoreReceiver,
    /// Where its sums go.
    pub reports: ReportSender,
    /// Where the node's life stands.
    pub phase: SharedPhase,
    /// The node's clock.
    pub clock: Clock,
}

/// Serves on the calling thread until the node stops.
pub fn run(seat: Seat) -> io::Result<()> {
    match seat.driver {
        Driver::Uring { defers } => driver::uring_runtime(defers)?.block_on(live(seat)),
        Driver::Epoll => driver::epoll_runtime()?.block_on(live(seat)),
    }
}

async fn live(seat: Seat) -> io::Result<()> {
    let Seat { core, driver, listener, receiver, reports, phase, clock } = seat;
    let core = Rc::new(Core::new(core, clock, phase));
    crate::upstream::use_driver(driver);
    let listener = listener::adopt(listener, driver)?;
    let mut ticker = Ticker::new(&core, receiver, reports);
    let mut accepting = Vec::new();
    let mut farewell = Farewell::default();
    loop {
        let phase = ticker.tick(&core);
        if accepting.is_empty() && core.serving().is_some() {
            let lane = |_| monoio::spawn(listener::accept_for_ever(Rc::clone(&core), listener.clone()));
            accepting.extend((0..listener.lanes).map(lane));
        }
        let is_over = phase != Phase::Running && farewell.is_over(core.accepts.get());
        core.is_saying_farewell.set(phase == Phase::Draining && !is_over);
        if is_over || phase == Phase::Stopped {
            core.deadlines.end_idle();
            listener::stop(&listener);
        }
        if phase == Phase::Stopped {
            // A ring that goes with an accept pending would hold the address for a while.
            for lane in accepting {
                lane.await;
            }
            return Ok(());
        }
        monoio::time::sleep(CORE_TICK).await;
    }
}

/// How long a draining core still takes connections: until a while passed in which none came. In
/// ticks, not in time, for on a busy machine time passes without a turn to accept anything in.
#[derive(Default)]
struct Farewell {
    accepts: u64,
    ticks: u32,
    quiet_ticks: u32,
}

impl Farewell {
    /// Called once a tick of the drain, with how many connections were accepted so far.
    fn is_over(&mut self, accepts: u64) -> bool {
        self.ticks += 1;
        self.quiet_ticks = if accepts == self.accepts { self.quiet_ticks + 1 } else { 0 };
        self.accepts = accepts;
        self.quiet_ticks >= DRAIN_QUIET_TICKS || self.ticks >= DRAIN_TICKS_MAX
    }
}

/// What a core does on its tick, each thing at its own interval.
struct Ticker {
    receiver: CoreReceiver,
    reports: ReportSender,
    ticked_at: shared::clock::Nanos,
    sweep_at: shared::clock::Nanos,
    report_at: shared::clock::Nanos,
    housekeeping_at: shared::clock::Nanos,
}

impl Ticker {
    fn new(core: &Core, receiver: CoreReceiver, reports: ReportSender) -> Self {
        let now = core.now();
        Self { receiver, reports, ticked_at: now, sweep_at: now, report_at: now, housekeeping_at: now }
    }

    fn tick(&mut self, core: &Core) -> Phase {
        let now = core.now();
        core.counters.ticked(now.since(self.ticked_at).saturating_sub(CORE_TICK));
        self.ticked_at = now;
        // In the reverse order of publishing: who says that the node is ready must have what
        // makes it so.
        let live = self.receiver.newest_live();
        if let Some(published) = self.receiver.newest() {
            core.adopt(published);
            // The control thread counts when the last core has it.
            self.report_at = now;
        }
        if let Some(live) = live {
            core.advice.adopt(live);
        }
        let serving = core.serving();
        if let Some(serving) = &serving {
            serving.slices.tick(now);
        }
        if now >= self.sweep_at {
            self.sweep_at = now.after(DEADLINE_SWEEP);
            core.deadlines.sweep(now);
        }
        if now >= self.housekeeping_at {
            self.housekeeping_at = now.after(HOUSEKEEPING);
            core.shrink();
            if let Some(serving) = &serving {
                serving.providers.drop_stale(now);
            }
        }
        if now >= self.report_at {
            self.report_at = now.after(REPORT_INTERVAL);
            core.counters.report(core, serving.as_deref(), &self.reports);
        }
        core.phase.get()
    }
}
