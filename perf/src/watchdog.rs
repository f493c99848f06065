//! Ends connections whose answer does not come.
//!
//! One sweep for all lanes instead of a timer for each read. A late connection is shut
//! down, so its pending read completes by itself: nothing is cancelled, and no completion
//! is lost.

use std::{
    cell::{Cell, RefCell},
    os::fd::RawFd,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::clock;

/// Time between two sweeps; a deadline may be missed by this much.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
enum Watch {
    Idle,
    Armed { fd: RawFd, deadline: Instant },
    Fired,
}

/// The deadlines of all lanes of a run.
#[derive(Debug)]
pub(crate) struct Watchdog {
    lanes: RefCell<Vec<Watch>>,
    stopped: Cell<bool>,
}

impl Watchdog {
    /// Starts the sweep for `lanes` lanes. It ends when [`Watchdog::stop`] is called.
    pub(crate) fn start(lanes: usize) -> Rc<Self> {
        let watchdog = Rc::new(Self { lanes: RefCell::new(vec![Watch::Idle; lanes]), stopped: Cell::new(false) });
        let swept = Rc::clone(&watchdog);
        monoio::spawn(async move {
            while !swept.stopped.get() {
                monoio::time::sleep(SWEEP_INTERVAL).await;
                swept.sweep(clock::now());
            }
        });
        watchdog
    }

    /// Ends the sweep.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
    }

    /// `fd` is shut down at `deadline`, unless it is armed again or disarmed before.
    pub(crate) fn arm(&self, lane: usize, fd: RawFd, deadline: Instant) {
        self.set(lane, Watch::Armed { fd, deadline });
    }

    /// To be called before the lane's descriptor is closed. Says whether the deadline
    /// had passed.
    pub(crate) fn disarm(&self, lane: usize) -> bool {
        matches!(self.set(lane, Watch::Idle), Some(Watch::Fired))
    }

    fn set(&self, lane: usize, watch: Watch) -> Option<Watch> {
        let mut lanes = self.lanes.borrow_mut();
        let slot = lanes.get_mut(lane)?;
        Some(std::mem::replace(slot, watch))
    }

    fn sweep(&self, now: Instant) {
        for watch in self.lanes.borrow_mut().iter_mut() {
            if let Watch::Armed { fd, deadline } = *watch
                && deadline <= now
            {
                // The peer may have closed first; then there is nothing left to end.
                let _ = nix::sys::socket::shutdown(fd, nix::sys::socket::Shutdown::Both);
                *watch = Watch::Fired;
            }
        }
    }
}
