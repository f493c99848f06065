//! Notices a core that is stuck: one that reports no more while the control thread itself runs on
//! time. Pure. Where in the code it is stuck is not known here.

use shared::clock::Nanos;
use std::time::Duration;

/// A core that was silent for this long is complained about. It reports every half second.
const SILENT: Duration = Duration::from_secs(2);
/// A core that was silent for this long will not come back; its connections wait for nothing.
const LOST: Duration = Duration::from_secs(10);
/// A control thread that was late by this much has been stopped itself, with the whole process,
/// and knows nothing about the cores meanwhile.
const OWN_DELAY: Duration = Duration::from_secs(1);

/// What is to be said or done about a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Stuck for two seconds; said once.
    Silent(u32),
    /// It reports again.
    Back(u32),
    /// Stuck for ten seconds: the process has to end, so that its supervisor starts a whole one.
    Lost(u32),
}

/// When each core was heard last.
pub(crate) struct Watch {
    heard: Vec<Nanos>,
    is_silent: Vec<bool>,
    looked_at: Nanos,
}

impl Watch {
    pub(crate) fn new(cores: u32, now: Nanos) -> Self {
        let cores = cores as usize;
        Self { heard: vec![now; cores], is_silent: vec![false; cores], looked_at: now }
    }

    /// A report of `core` came.
    pub(crate) fn heard(&mut self, core: u32, now: Nanos) {
        if let Some(heard) = self.heard.get_mut(core as usize) {
            *heard = now;
        }
    }

    /// Looks at all cores; to be called several times a second.
    pub(crate) fn look(&mut self, now: Nanos) -> Vec<Verdict> {
        if now.since(self.looked_at) > OWN_DELAY {
            self.heard.fill(now);
        }
        self.looked_at = now;
        let mut verdicts = Vec::new();
        for ((heard, is_silent), core) in self.heard.iter().zip(&mut self.is_silent).zip(0..) {
            let silence = now.since(*heard);
            if silence >= LOST {
                verdicts.push(Verdict::Lost(core));
            } else if (silence >= SILENT) != *is_silent {
                *is_silent = !*is_silent;
                verdicts.push(if *is_silent { Verdict::Silent(core) } else { Verdict::Back(core) });
            }
        }
        verdicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every 100 ms up to `until_ms`, with core 1 silent from `from_ms` to `to_ms`.
    fn check(until_ms: u64, from_ms: u64, to_ms: u64) -> Vec<Verdict> {
        let at = |ms: u64| Nanos(ms * 1_000_000);
        let mut watch = Watch::new(2, at(0));
        let mut verdicts = Vec::new();
        for ms in (0..=until_ms).step_by(100) {
            watch.heard(0, at(ms));
            if !(from_ms..to_ms).contains(&ms) {
                watch.heard(1, at(ms));
            }
            verdicts.extend(watch.look(at(ms)));
        }
        verdicts
    }

    #[test]
    fn a_core_that_pauses_is_named_once_and_welcomed_back() {
        assert_eq!(check(8_000, 1_000, 5_000), [Verdict::Silent(1), Verdict::Back(1)]);
    }

    #[test]
    fn a_core_that_never_comes_back_is_lost() {
        let verdicts = check(11_000, 1_000, u64::MAX);
        assert_eq!(verdicts[..2], [Verdict::Silent(1), Verdict::Lost(1)]);
    }

    #[test]
    fn a_stopped_and_continued_process_loses_no_core() {
        let mut watch = Watch::new(2, Nanos(0));
        assert_eq!(watch.look(Nanos(60_000_000_000)), []);
    }
}
