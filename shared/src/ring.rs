//! The lock-free rings between the control thread and the cores: snapshots and live state down,
//! reports up. No waker crosses a ring: a core looks at its end on a tick, and so does the
//! control thread.

use crate::bounds::{REPORTS_IN_FLIGHT_MAX, SNAPSHOTS_IN_FLIGHT_MAX};
use crate::published::{Live, Published};
use crate::report::Report;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// The control thread's end towards one core.
pub struct CoreSender {
    snapshots: Arc<ArrayQueue<Arc<Published>>>,
    live: Arc<ArrayQueue<Arc<Live>>>,
}

/// A core's end.
pub struct CoreReceiver {
    snapshots: Arc<ArrayQueue<Arc<Published>>>,
    live: Arc<ArrayQueue<Arc<Live>>>,
}

/// A ring pair for one core.
pub fn core_channel() -> (CoreSender, CoreReceiver) {
    let snapshots = Arc::new(ArrayQueue::new(SNAPSHOTS_IN_FLIGHT_MAX));
    let live = Arc::new(ArrayQueue::new(SNAPSHOTS_IN_FLIGHT_MAX));
    (CoreSender { snapshots: Arc::clone(&snapshots), live: Arc::clone(&live) }, CoreReceiver { snapshots, live })
}

impl CoreSender {
    /// Hands a configuration down. When the ring is full the oldest falls out: each is the whole
    /// state, so only the newest counts.
    pub fn publish(&self, published: Arc<Published>) {
        drop(self.snapshots.force_push(published));
    }

    /// Hands the live state down, under the same rule.
    pub fn publish_live(&self, live: Arc<Live>) {
        drop(self.live.force_push(live));
    }
}

impl CoreReceiver {
    /// The newest configuration that arrived since the last call.
    pub fn newest(&self) -> Option<Arc<Published>> {
        newest(&self.snapshots)
    }

    /// The newest live state that arrived since the last call.
    pub fn newest_live(&self) -> Option<Arc<Live>> {
        newest(&self.live)
    }
}

fn newest<T>(ring: &ArrayQueue<T>) -> Option<T> {
    let mut found = None;
    // Bounded: at most what the ring holds, so a fast sender cannot keep a core here.
    for _ in 0..ring.capacity() {
        match ring.pop() {
            Some(item) => found = Some(item),
            None => break,
        }
    }
    found
}

/// The cores' way up. Cheap to clone; each core has one.
#[derive(Clone)]
pub struct ReportSender(Arc<ArrayQueue<Report>>);

/// The control thread's end of all cores' reports.
pub struct ReportReceiver(Arc<ArrayQueue<Report>>);

/// The one ring that all cores report through.
pub fn report_channel() -> (ReportSender, ReportReceiver) {
    let ring = Arc::new(ArrayQueue::new(REPORTS_IN_FLIGHT_MAX));
    (ReportSender(Arc::clone(&ring)), ReportReceiver(ring))
}

impl ReportSender {
    /// Sends a report up, or gives it back when the ring is full: the core keeps counting into
    /// it and nothing is lost.
    #[expect(clippy::result_large_err, reason = "the report goes back to its owner, that is the point")]
    pub fn send(&self, report: Report) -> Result<(), Report> {
        self.0.push(report)
    }
}

impl ReportReceiver {
    /// The next report, if one waits.
    pub fn receive(&self) -> Option<Report> {
        self.0.pop()
    }
}
