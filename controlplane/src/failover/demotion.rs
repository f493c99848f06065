//! Which providers are put behind others, and how they come back: one that fails for most of the
//! nodes that use it goes behind everywhere, one that fails here alone goes behind here. Pure.
//!
//! A provider that nobody else can stand in for still gets its requests: who has no other step in
//! its plan is not refused. Coming back is gradual, each step held for a while without failures.

use super::recent::{Attempts, Recent};
use crate::member::{Health, Member};
use shared::clock::Nanos;
use shared::published::ProviderShare;
use std::collections::BTreeMap;
use std::time::Duration;

/// Parts of its requests that a provider gets while it comes back; afterwards all.
const STEPS_PERMILLE: [u16; 5] = [10, 50, 100, 250, 500];
/// How long each step is held after its first good answer.
const STEP_HELD: Duration = Duration::from_secs(5);
/// How long it is held where no request came that could have tried it.
const STEP_HELD_UNTRIED: Duration = Duration::from_secs(15);
/// Attempts in ten seconds below which a node has no opinion.
const ATTEMPTS_MIN: u64 = 5;

/// See the module.
#[derive(Default)]
pub(super) struct Demotions(BTreeMap<String, Demoted>);

struct Demoted {
    step: usize,
    since: Nanos,
    /// All attempts until then.
    before: Attempts,
}

/// A provider was put behind the others, or has all of its requests again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderNote {
    /// It fails.
    Demoted {
        /// Its name.
        provider: String,
        /// For this node alone.
        is_own_problem: bool,
    },
    /// It has come back.
    Restored {
        /// Its name.
        provider: String,
    },
}

impl Demotions {
    /// Looks at every provider.
    pub(super) fn judge(&mut self, recent: &Recent, members: &[Member], now: Nanos) -> Vec<ProviderNote> {
        let mut notes = Vec::new();
        let own = recent.attempts();
        let mut failing: BTreeMap<&str, bool> = BTreeMap::new();
        for (provider, attempts) in &own {
            if attempts.all >= ATTEMPTS_MIN && attempts.fail() {
                failing.insert(provider, true);
            }
        }
        for (provider, (used, failed)) in opinions(&own, members) {
            // What one node alone says is that node's own problem.
            if failed >= 2 && failed * 2 > used {
                failing.insert(provider, false);
            }
        }
        for (provider, is_own_problem) in &failing {
            let before = recent.total(provider);
            let demoted = self.0.entry((*provider).to_owned()).or_insert_with(|| {
                let provider = (*provider).to_owned();
                notes.push(ProviderNote::Demoted { provider, is_own_problem: *is_own_problem });
                Demoted { step: 0, since: now, before }
            });
            // What is told of it may be ten seconds old: it is not new, and the step is not lower.
            if demoted.step == 0 {
                (demoted.since, demoted.before) = (now, before);
            }
        }
        self.0.retain(|provider, demoted| {
            let all = recent.total(provider);
            let since = Attempts {
                all: all.all.saturating_sub(demoted.before.all),
                failed: all.failed.saturating_sub(demoted.before.failed),
            };
            if since.fail() {
                *demoted = Demoted { step: 0, since: now, before: all };
                return true;
            }
            if since.failed > 0 {
                // Few, but the step was not held without failures.
                (demoted.since, demoted.before) = (now, all);
            }
            let held = now.since(demoted.since);
            if (since.all > 0 && held >= STEP_HELD) || held >= STEP_HELD_UNTRIED {
                *demoted = Demoted { step: demoted.step + 1, since: now, before: all };
            }
            let stays = demoted.step < STEPS_PERMILLE.len();
            if !stays {
                notes.push(ProviderNote::Restored { provider: provider.clone() });
            }
            stays
        });
        notes
    }

    /// What the cores are told.
    pub(super) fn shares(&self) -> Vec<ProviderShare> {
        let shares = self.0.iter().filter_map(|(provider, demoted)| {
            Some(ProviderShare { provider: provider.clone(), permille: *STEPS_PERMILLE.get(demoted.step)? })
        });
        shares.collect()
    }
}

/// Of how many nodes each provider is used, and for how many of them it fails. Who was not heard
/// of lately has no opinion.
fn opinions<'n>(own: &BTreeMap<&'n str, Attempts>, members: &'n [Member]) -> BTreeMap<&'n str, (u32, u32)> {
    let healthy = members.iter().filter(|member| member.health == Health::Healthy);
    let others = healthy.flat_map(|member| &member.values.providers).map(|traffic| {
        (traffic.provider.as_str(), Attempts { all: traffic.attempts, failed: traffic.failures })
    });
    let mut opinions: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for (provider, attempts) in own.iter().map(|(provider, attempts)| (*provider, *attempts)).chain(others) {
        if attempts.all >= ATTEMPTS_MIN {
            let (used, failed) = opinions.entry(provider).or_default();
            *used += 1;
            *failed += u32::from(attempts.fail());
        }
    }
    opinions
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, member, report};
    use super::*;
    use crate::gossip::values::{NodeValues, ProviderTraffic};

    fn saying(id: &str, attempts: u64, failures: u64) -> Member {
        let traffic = ProviderTraffic { provider: "p".into(), attempts, failures, first_byte_us: 0 };
        member(id, Health::Healthy, NodeValues { providers: vec![traffic], ..NodeValues::default() })
    }

    fn share(demotions: &Demotions) -> Option<u16> {
        demotions.shares().first().map(|share| share.permille)
    }

    #[test]
    fn a_provider_that_fails_here_goes_behind_here() {
        let (mut demotions, mut recent) = (Demotions::default(), Recent::default());
        recent.add(&report("p", "k", "error", 4), at(0));
        assert_eq!(demotions.judge(&recent, &[], at(0)), [], "too few to tell");
        recent.add(&report("p", "k", "timeout", 1), at(100));
        let note = ProviderNote::Demoted { provider: "p".into(), is_own_problem: true };
        assert_eq!(demotions.judge(&recent, &[saying("a", 100, 0)], at(100)), [note]);
        assert_eq!(share(&demotions), Some(10));
        recent.add(&report("q", "k", "error", 9), at(100));
        recent.add(&report("q", "k", "ok", 10), at(100));
        demotions.judge(&recent, &[], at(200));
        assert_eq!(demotions.shares().len(), 1, "more than half of the other's are well");
    }

    #[test]
    fn what_fails_for_most_goes_behind_everywhere_and_what_fails_for_one_does_not() {
        for (others, is_behind) in [
            (&[(100, 100), (100, 100)][..], true),
            (&[(100, 100), (100, 0)], false),
            (&[(100, 100)], false),
            (&[(100, 60), (100, 50), (100, 0)], false),
            (&[(100, 60), (100, 50), (4, 0)], true),
            (&[(4, 4), (4, 4)], false),
        ] {
            let (mut demotions, mut recent) = (Demotions::default(), Recent::default());
            let names = ["a", "b", "c"].into_iter();
            let members: Vec<_> = names.zip(others).map(|(id, (all, failed))| saying(id, *all, *failed)).collect();
            if others.len() == 3 && others[2].1 == 0 && others[2].0 == 100 {
                recent.add(&report("p", "k", "ok", 10), at(0));
            }
            demotions.judge(&recent, &members, at(0));
            assert_eq!(share(&demotions).is_some(), is_behind, "{others:?}");
        }
    }

    #[test]
    fn what_the_dead_said_last_is_no_opinion() {
        let (mut demotions, recent) = (Demotions::default(), Recent::default());
        let mut members = vec![saying("a", 100, 100), saying("b", 100, 100)];
        members[1].health = Health::Dead;
        demotions.judge(&recent, &members, at(0));
        assert_eq!(share(&demotions), None);
    }

    #[test]
    fn a_provider_comes_back_step_by_step_and_falls_back_by_a_failure() {
        let (mut demotions, mut recent) = (Demotions::default(), Recent::default());
        recent.add(&report("p", "k", "error", 10), at(0));
        demotions.judge(&recent, &[], at(0));
        let mut seen = vec![share(&demotions)];
        for second in 1..=60 {
            recent.add(&report("p", "k", "ok", 1), at(second * 1000));
            if second == 33 {
                recent.add(&report("p", "k", "error", 5), at(second * 1000));
            }
            recent.forget(at(second * 1000));
            demotions.judge(&recent, &[], at(second * 1000));
            if seen.last() != Some(&share(&demotions)) {
                seen.push(share(&demotions));
            }
        }
        let steps = STEPS_PERMILLE.map(Some);
        let expected: Vec<_> = steps.into_iter().chain(steps).chain([None]).collect();
        assert_eq!(seen, expected, "it failed when it had half of its requests, and came back again");
    }

    #[test]
    fn a_provider_that_nobody_asks_for_comes_back_by_itself() {
        let (mut demotions, mut recent) = (Demotions::default(), Recent::default());
        recent.add(&report("p", "k", "error", 10), at(0));
        for second in 0..=90 {
            recent.forget(at(second * 1000));
            let notes = demotions.judge(&recent, &[], at(second * 1000));
            let is_back = notes == [ProviderNote::Restored { provider: "p".into() }];
            // Ten seconds until its failures are forgotten, and five steps of fifteen.
            assert_eq!(is_back, second == 84, "{second}: {notes:?}");
        }
    }
}
