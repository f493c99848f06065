//! Which configuration every core runs: known from the epochs in their reports. Pure.

use shared::clock::Nanos;
use std::collections::VecDeque;
use std::time::Duration;

/// Configurations on their way to the last core; those before them are on their way too.
const WAITING_MAX: usize = 64;

/// What was published, and how far it is.
#[derive(Default)]
pub(crate) struct Adoption {
    waiting: VecDeque<Waiting>,
    revision: u64,
    took: Option<Duration>,
}

struct Waiting {
    epoch: u64,
    revision: u64,
    since: Nanos,
}

impl Adoption {
    /// The snapshot of this epoch is the first one of a revision.
    pub(crate) fn publishes(&mut self, epoch: u64, revision: u64, now: Nanos) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(Waiting { epoch, revision, since: now });
    }

    /// Compares with the epochs that the cores run, of which there should be `cores`. The newest
    /// revision that all of them run, where that is news, and after what time.
    pub(crate) fn look(
        &mut self,
        epochs: impl Iterator<Item = u64>,
        cores: u32,
        now: Nanos,
    ) -> Option<(u64, Duration)> {
        let (mut count, mut lowest) = (0_u32, u64::MAX);
        for epoch in epochs {
            count = count.saturating_add(1);
            lowest = lowest.min(epoch);
        }
        let mut news = None;
        while count >= cores && self.waiting.front().is_some_and(|waiting| waiting.epoch <= lowest) {
            let Some(Waiting { revision, since, .. }) = self.waiting.pop_front() else { break };
            let took = now.since(since);
            (self.revision, self.took) = (revision, Some(took));
            news = Some((revision, took));
        }
        news
    }

    /// The newest revision that every core runs; 0 before the first.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// How long it took from the control loop to the last core, as far as reports tell.
    pub(crate) fn took(&self) -> Option<Duration> {
        self.took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Nanos {
        Nanos(0).after(Duration::from_millis(millis))
    }

    #[test]
    fn the_slowest_core_says_what_all_of_them_run() {
        let mut adoption = Adoption::default();
        adoption.publishes(3, 7, ms(10));
        adoption.publishes(5, 8, ms(20));
        assert_eq!(adoption.look([5].into_iter(), 2, ms(30)), None, "the other one has not reported");
        assert_eq!(adoption.look([5, 2].into_iter(), 2, ms(40)), None);
        assert_eq!(adoption.look([5, 4].into_iter(), 2, ms(50)), Some((7, Duration::from_millis(40))));
        assert_eq!(adoption.look([6, 5].into_iter(), 2, ms(60)), Some((8, Duration::from_millis(40))));
        assert_eq!(adoption.look([6, 5].into_iter(), 2, ms(70)), None);
        assert_eq!(adoption.revision(), 8);
    }
}
