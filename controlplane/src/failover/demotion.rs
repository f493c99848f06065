//! Which providers are put behind others, and how they come back: one that fails for most of the
//! nodes that use it goes behind everywhere, one that fails here alone goes behind here. Pure.
//!
//! A provider that nobody else can stand in for still gets its requests: who has no other step in
//! its plan is not refused. Coming back is gradual, each step held for a while without failures.

use crate::gossip::values::ProviderTraffic;
use crate::member::{Health, Member};
use crate::metrics::Totals;
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

/// Attempts at one provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Attempts {
    all: u64,
    /// Those that failed for the provider's own reasons.
    failed: u64,
}

impl Attempts {
    fn of(traffic: &ProviderTraffic) -> Self {
        Self { all: traffic.attempts, failed: traffic.failures }
    }

    /// All since the start.
    fn total(totals: &Totals, provider: &str) -> Self {
        let mut sum = Self::default();
        for (labels, count) in totals.attempts().filter(|(labels, _)| labels.provider == provider) {
            sum.all = sum.all.saturating_add(*count);
            if matches!(labels.outcome, "error" | "unreachable" | "timeout") {
                sum.failed = sum.failed.saturating_add(*count);
            }
        }
        // An attempt whose answer was cut had begun well, and is counted so.
        for (_, _, cut) in totals.requests().filter(|(labels, _, _)| labels.provider == provider) {
            sum.failed = sum.failed.saturating_add(cut);
        }
        sum
    }

    /// At least half of them failed.
    fn fail(self) -> bool {
        self.failed > 0 && self.failed.saturating_mul(2) >= self.all
    }
}

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
    /// Looks at every provider: at what this node met in the last ten seconds, at what others say
    /// they did, and at the sums since the start for what came since a step began.
    pub(super) fn judge(
        &mut self,
        own: &[ProviderTraffic],
        totals: &Totals,
        members: &[Member],
        now: Nanos,
    ) -> Vec<ProviderNote> {
        let mut notes = Vec::new();
        let mut failing: BTreeMap<&str, bool> = BTreeMap::new();
        for traffic in own {
            if traffic.attempts >= ATTEMPTS_MIN && Attempts::of(traffic).fail() {
                failing.insert(&traffic.provider, true);
            }
        }
        for (provider, (used, failed)) in opinions(own, members) {
            // What one node alone says is that node's own problem.
            if failed >= 2 && failed * 2 > used {
                failing.insert(provider, false);
            }
        }
        for (provider, is_own_problem) in &failing {
            let before = Attempts::total(totals, provider);
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
            let all = Attempts::total(totals, provider);
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
fn opinions<'n>(own: &'n [ProviderTraffic], members: &'n [Member]) -> BTreeMap<&'n str, (u32, u32)> {
    let healthy = members.iter().filter(|member| member.health == Health::Healthy);
    let all = own.iter().chain(healthy.flat_map(|member| &member.values.providers));
    let mut opinions: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for traffic in all.filter(|traffic| traffic.attempts >= ATTEMPTS_MIN) {
        let (used, failed) = opinions.entry(&traffic.provider).or_default();
        *used += 1;
        *failed += u32::from(Attempts::of(traffic).fail());
    }
    opinions
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Cores, at, member};
    use super::*;
    use crate::gossip::values::NodeValues;

    fn saying(id: &str, attempts: u64, failures: u64) -> Member {
        let traffic = ProviderTraffic { provider: "p".into(), attempts, failures, first_byte_us: 0 };
        member(id, Health::Healthy, NodeValues { providers: vec![traffic], ..NodeValues::default() })
    }

    fn judge(demotions: &mut Demotions, cores: &mut Cores, members: &[Member], now: u64) -> Vec<ProviderNote> {
        let own = cores.providers(at(now));
        demotions.judge(&own, &cores.totals, members, at(now))
    }

    fn share(demotions: &Demotions) -> Option<u16> {
        demotions.shares().first().map(|share| share.permille)
    }

    #[test]
    fn a_provider_that_fails_here_goes_behind_here() {
        let (mut demotions, mut cores) = (Demotions::default(), Cores::default());
        cores.did("p", "k", "error", 4);
        assert_eq!(judge(&mut demotions, &mut cores, &[], 0), [], "too few to tell");
        cores.did("p", "k", "timeout", 1);
        let note = ProviderNote::Demoted { provider: "p".into(), is_own_problem: true };
        assert_eq!(judge(&mut demotions, &mut cores, &[saying("a", 100, 0)], 100), [note]);
        assert_eq!(share(&demotions), Some(10));
        cores.did("q", "k", "error", 9);
        cores.did("q", "k", "ok", 10);
        judge(&mut demotions, &mut cores, &[], 200);
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
            let (mut demotions, mut cores) = (Demotions::default(), Cores::default());
            let names = ["a", "b", "c"].into_iter();
            let members: Vec<_> = names.zip(others).map(|(id, (all, failed))| saying(id, *all, *failed)).collect();
            if others.len() == 3 && others[2].1 == 0 && others[2].0 == 100 {
                cores.did("p", "k", "ok", 10);
            }
            judge(&mut demotions, &mut cores, &members, 0);
            assert_eq!(share(&demotions).is_some(), is_behind, "{others:?}");
        }
    }

    #[test]
    fn what_the_dead_said_last_is_no_opinion() {
        let (mut demotions, mut cores) = (Demotions::default(), Cores::default());
        let mut members = vec![saying("a", 100, 100), saying("b", 100, 100)];
        members[1].health = Health::Dead;
        judge(&mut demotions, &mut cores, &members, 0);
        assert_eq!(share(&demotions), None);
    }

    #[test]
    fn a_provider_comes_back_step_by_step_and_falls_back_by_a_failure() {
        let (mut demotions, mut cores) = (Demotions::default(), Cores::default());
        cores.did("p", "k", "error", 10);
        judge(&mut demotions, &mut cores, &[], 0);
        let mut seen = vec![share(&demotions)];
        for second in 1..=60 {
            cores.did("p", "k", "ok", 1);
            if second == 33 {
                cores.did("p", "k", "error", 5);
            }
            judge(&mut demotions, &mut cores, &[], second * 1000);
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
        let (mut demotions, mut cores) = (Demotions::default(), Cores::default());
        cores.did("p", "k", "error", 10);
        for second in 0..=90 {
            let notes = judge(&mut demotions, &mut cores, &[], second * 1000);
            let is_back = notes == [ProviderNote::Restored { provider: "p".into() }];
            // Ten seconds until its failures are forgotten, and five steps of fifteen.
            assert_eq!(is_back, second == 84, "{second}: {notes:?}");
        }
    }
}
