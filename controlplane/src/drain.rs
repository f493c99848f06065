//! When a draining node may stop. Pure.

use crate::metrics::Totals;
use shared::clock::Nanos;
use std::collections::BTreeMap;
use std::time::Duration;

/// Reports of a core that count after the drain began: the first may have been made before the
/// core knew of it.
const REPORTS_AWAITED: u64 = 2;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Nothing was being served any more.
    Idle,
    /// The drain timeout passed; what still ran was cut.
    TimedOut {
        /// Requests that were being served, by the newest reports.
        requests_in_flight: u64,
    },
    /// It was told to stop at once.
    AtOnce,
    /// A core is stuck and will not end by itself: do not wait for it.
    Stuck {
        /// Which.
        core: u32,
    },
    /// Another live node has this node's id.
    DuplicateNode,
}

/// A drain that was begun.
pub(crate) struct Drain {
    deadline: Nanos,
    /// Core, and the number of its reports that has to be there.
    awaited: BTreeMap<u32, u64>,
}

impl Drain {
    /// Begins now, for a node of `cores` cores.
    pub(crate) fn begin(now: Nanos, timeout: Duration, cores: u32, totals: &Totals) -> Self {
        let so_far = totals.reports_by_core();
        let awaited = (0..cores)
            .map(|core| (core, so_far.get(&core).copied().unwrap_or(0).saturating_add(REPORTS_AWAITED)))
            .collect();
        Self { deadline: now.after(timeout), awaited }
    }

    /// Whether it is over, and how.
    pub(crate) fn finished(&self, now: Nanos, totals: &Totals) -> Option<Finished> {
        let requests_in_flight = totals.requests_in_flight();
        let reports = totals.reports_by_core();
        let have_reported =
            self.awaited.iter().all(|(core, count)| reports.get(core).is_some_and(|sent| sent >= count));
        if have_reported && requests_in_flight == 0 {
            return Some(Finished::Idle);
        }
        (now >= self.deadline).then_some(Finished::TimedOut { requests_in_flight })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::report::{Gauges, Report};

    const SECOND: Duration = Duration::from_secs(1);

    fn report(totals: &mut Totals, core: u32, requests_in_flight: u64) {
        let gauges = Gauges { requests_in_flight, ..Gauges::default() };
        totals.add(&Report { core, gauges, ..Report::default() });
    }

    #[test]
    fn a_node_is_idle_when_every_core_has_said_so_since_the_drain_began() {
        let mut totals = Totals::default();
        report(&mut totals, 0, 0);
        report(&mut totals, 1, 0);
        let now = Nanos(0);
        let drain = Drain::begin(now, SECOND * 30, 2, &totals);
        assert_eq!(drain.finished(now, &totals), None, "what was said before does not count");
        report(&mut totals, 0, 0);
        report(&mut totals, 0, 0);
        report(&mut totals, 1, 0);
        assert_eq!(drain.finished(now, &totals), None, "core 1 may not know yet");
        report(&mut totals, 1, 1);
        assert_eq!(drain.finished(now, &totals), None, "core 1 serves a request");
        report(&mut totals, 1, 0);
        assert_eq!(drain.finished(now, &totals), Some(Finished::Idle));
    }

    #[test]
    fn a_drain_ends_at_its_deadline_whatever_still_runs() {
        let mut totals = Totals::default();
        report(&mut totals, 0, 3);
        let drain = Drain::begin(Nanos(0), SECOND * 30, 1, &totals);
        assert_eq!(drain.finished(Nanos(0).after(SECOND * 29), &totals), None);
        let end = Some(Finished::TimedOut { requests_in_flight: 3 });
        assert_eq!(drain.finished(Nanos(0).after(SECOND * 30), &totals), end);
    }

    #[test]
    fn a_core_that_never_reports_does_not_count_as_idle() {
        let drain = Drain::begin(Nanos(0), SECOND, 1, &Totals::default());
        assert_eq!(drain.finished(Nanos(0), &Totals::default()), None);
    }
}
