//! Is somebody else running under our id? Pure.
//!
//! An earlier generation of ours stays in the others' memory for minutes, and its last heartbeats
//! may still reach us by several ways. So only a generation that goes on for seconds is a second
//! node. A later generation than ours that is silent is our own, from before a clock was set back:
//! the others listen to that one only, and we have to start above it.

use shared::clock::Nanos;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The newcomer was to go first; what still runs after this is not going.
const OLDER_GIVES_UP_AFTER: Duration = Duration::from_secs(15);
/// The newcomer gives up soonest, so that a wrong new node does not take the old one along.
const NEWER_GIVES_UP_AFTER: Duration = Duration::from_secs(4);
/// The same where the other one answered a ping, which no memory of us does.
const NEWER_GIVES_UP_AFTER_ANSWERS: Duration = Duration::from_secs(2);
/// Answers this far apart are not of one run.
const ANSWERS_GAP_MAX: Duration = Duration::from_secs(5);
/// A gap this long, in which nothing new came, starts the count anew.
const GAP_MAX: Duration = Duration::from_secs(2);
/// Signs of life that a living node gives in that time at least.
const SIGNS_MIN: u32 = 8;
/// Other starts under our id that are kept track of.
const STARTS_MAX: usize = 16;

/// Generation and address: one start of a node.
type Start = (u64, SocketAddr);

/// What follows from the other generations of our id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// We are the only one.
    Alone,
    /// A second node lives under our id.
    Duplicate {
        /// Its generation.
        generation: u64,
        /// Where it is.
        address: SocketAddr,
    },
    /// A later generation is known, and silent.
    Outdated {
        /// The one to start above.
        generation: u64,
    },
}

/// See the module.
#[derive(Default)]
pub(crate) struct Twins {
    by_start: BTreeMap<Start, Signs>,
    answers: Option<Answers>,
}

/// Pings that one start answered.
struct Answers {
    start: Start,
    since: Nanos,
    last_at: Nanos,
}

struct Signs {
    pulse: u64,
    /// When the current run of signs began.
    since: Nanos,
    last_at: Nanos,
    count: u32,
}

impl Twins {
    /// Another start under our id answered a ping then.
    pub(crate) fn answered(&mut self, ours: u64, start: Start, at: Nanos) -> Verdict {
        let begun = Answers { start, since: at, last_at: at };
        let answers = self.answers.get_or_insert(begun);
        if answers.start != start || at.since(answers.last_at) > ANSWERS_GAP_MAX {
            *answers = Answers { start, since: at, last_at: at };
        }
        answers.last_at = answers.last_at.max(at);
        let (generation, address) = start;
        let patience = if ours > generation { NEWER_GIVES_UP_AFTER_ANSWERS } else { OLDER_GIVES_UP_AFTER };
        let is_live = answers.last_at.since(answers.since) >= patience;
        if is_live { Verdict::Duplicate { generation, address } } else { Verdict::Alone }
    }

    /// One round: every other start under our id, with its pulse.
    pub(crate) fn look(&mut self, ours: u64, others: impl IntoIterator<Item = (Start, u64)>, now: Nanos) -> Verdict {
        for (start, pulse) in others {
            if self.by_start.len() >= STARTS_MAX && !self.by_start.contains_key(&start) {
                self.by_start.pop_first();
            }
            let new = Signs { pulse, since: now, last_at: now, count: 0 };
            let signs = self.by_start.entry(start).or_insert(new);
            if pulse > signs.pulse {
                if now.since(signs.last_at) > GAP_MAX {
                    (signs.since, signs.count) = (now, 0);
                }
                signs.pulse = pulse;
                signs.last_at = now;
                signs.count = signs.count.saturating_add(1);
            }
        }
        let mut verdict = Verdict::Alone;
        for (&(generation, address), signs) in &self.by_start {
            let patience = if ours > generation { NEWER_GIVES_UP_AFTER } else { OLDER_GIVES_UP_AFTER };
            if signs.count >= SIGNS_MIN && signs.last_at.since(signs.since) >= patience {
                return Verdict::Duplicate { generation, address };
            }
            if generation > ours && now.since(signs.last_at) > GAP_MAX {
                verdict = Verdict::Outdated { generation };
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_millis(200);

    fn there() -> SocketAddr {
        ([10, 0, 0, 2], 10_101).into()
    }

    /// Rounds of 200 ms in which another generation shows `pulse(round)`.
    fn verdict_after(rounds: u32, ours: u64, other: u64, pulse: impl Fn(u64) -> u64) -> Verdict {
        let mut twins = Twins::default();
        let mut verdict = Verdict::Alone;
        for round in 0..rounds {
            let now = Nanos(1).after(ROUND * round);
            verdict = twins.look(ours, [((other, there()), pulse(u64::from(round)))], now);
            if matches!(verdict, Verdict::Duplicate { .. }) {
                break;
            }
        }
        verdict
    }

    #[test]
    fn our_own_earlier_generation_is_no_second_node() {
        assert_eq!(verdict_after(100, 2, 1, |_| 500), Verdict::Alone);
        assert_eq!(verdict_after(100, 2, 1, |round| 500 + round.min(9)), Verdict::Alone, "late news of it");
        assert_eq!(verdict_after(100, 2, 1, |round| 500 + round / 15), Verdict::Alone, "a partition that heals");
    }

    #[test]
    fn the_newcomer_stops_before_the_older_one() {
        assert_eq!(verdict_after(30, 2, 1, |round| round), Verdict::Duplicate { generation: 1, address: there() });
        assert_eq!(verdict_after(30, 1, 2, |round| round), Verdict::Alone);
        assert_eq!(verdict_after(90, 1, 2, |round| round), Verdict::Duplicate { generation: 2, address: there() });
    }

    #[test]
    fn answers_prove_a_second_node_sooner_and_one_proves_none() {
        let verdict_at = |ours, seconds: &[u64]| {
            let mut twins = Twins::default();
            let answers =
                seconds.iter().map(|second| twins.answered(ours, (5, there()), Nanos(second * 1_000_000_000)));
            answers.last().unwrap()
        };
        let duplicate = Verdict::Duplicate { generation: 5, address: there() };
        assert_eq!(verdict_at(7, &[1, 1, 2]), Verdict::Alone);
        assert_eq!(verdict_at(7, &[1, 2, 3]), duplicate);
        assert_eq!(verdict_at(7, &[1, 60]), Verdict::Alone);
        assert_eq!(verdict_at(3, &[1, 2, 3, 6, 10, 14]), Verdict::Alone);
        assert_eq!(verdict_at(3, &[1, 2, 3, 6, 10, 14, 17]), duplicate);
    }

    #[test]
    fn a_later_generation_that_is_silent_is_to_be_outnumbered() {
        assert_eq!(verdict_after(30, 1, 7, |_| 500), Verdict::Outdated { generation: 7 });
        assert_eq!(verdict_after(5, 1, 7, |_| 500), Verdict::Alone, "it may still speak");
    }
}
