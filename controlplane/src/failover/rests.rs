//! Keys that rest: those that this node's cores saw refused or limited, and those that other
//! nodes did. Pure.
//!
//! A rest of another node counts from when its number was first seen here, for no longer than
//! its reason is believed; it ends when its owner takes it back, and runs out by itself when the
//! owner is dead. Nothing here trusts a peer's clock.

use crate::gossip::values::Rest;
use crate::member::{Health, Member, View};
use shared::clock::Nanos;
use shared::published::{KeyWeight, RestReason, RestingKey};
use shared::report::{Denial, KeyLabels};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Keys that may rest at once. A core reports one only after a provider's own answer, so that
/// this many means something is wrong with more than keys; the soonest to wake is forgotten.
pub(crate) const RESTING_KEYS_MAX: usize = 4_096;
/// Rests that one other node is believed.
const HEARD_PER_NODE_MAX: usize = 64;
/// Rests of all other nodes.
const HEARD_MAX: usize = 2_048;
/// Denials that wait for a second virtual key, and how long.
const DENIALS_MAX: usize = 256;
const DENIAL_MEMORY: Duration = Duration::from_secs(60);
/// How long a key rests for a model that it may not use.
const DENIED_RESTS: Duration = Duration::from_secs(60);
/// A rest shorter than this ends without a ramp.
const RAMPED_REST_MIN: Duration = Duration::from_secs(1);
/// Parts of its weight that a key has when its rest is over, one step after the other.
const RAMP_PERMILLE: [u16; 5] = [10, 50, 100, 250, 500];
const RAMP_STEP_MAX: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub(super) struct Rests {
    /// Keys of the configuration; others that peers speak of are none of ours.
    known: BTreeSet<KeyLabels>,
    own: Vec<RestingKey>,
    heard: BTreeMap<HeardId, Heard>,
    /// Keys that rest or have just woken: when the rest is over, and a step's length.
    ramps: BTreeMap<(KeyLabels, Option<String>), Ramp>,
    denials: Vec<(Denial, Nanos)>,
}

/// What a core's word about a key was worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// It was known, or is over already.
    Nothing,
    /// The key rests for longer than was known.
    Longer,
    /// The key did not rest.
    News,
}

/// Which rest of which node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct HeardId {
    member: String,
    generation: u64,
    number: u64,
    key: KeyLabels,
}

struct Heard {
    resting: RestingKey,
    /// Its owner says so still; otherwise it goes when it is over.
    is_said: bool,
}

#[derive(Clone, Copy)]
struct Ramp {
    over: Nanos,
    step: Duration,
}

impl Ramp {
    /// The key's part of its weight; `None`: all of it.
    fn permille(self, now: Nanos) -> Option<u16> {
        let steps = now.since(self.over).as_nanos() / self.step.as_nanos().max(1);
        RAMP_PERMILLE.get(usize::try_from(steps).ok()?).copied()
    }
}

/// The longest rest that is believed.
fn longest(reason: RestReason) -> Duration {
    match reason {
        RestReason::Limited => Duration::from_secs(3_600),
        RestReason::Refused | RestReason::Denied => Duration::from_secs(600),
    }
}

fn labels(resting: &RestingKey) -> KeyLabels {
    KeyLabels { provider: resting.provider.clone(), key: resting.key.clone() }
}

impl Rests {
    /// Keys that are configured from now on.
    pub(super) fn configure(&mut self, known: BTreeSet<KeyLabels>) {
        self.known = known;
    }

    /// A core learned that a key should rest.
    pub(super) fn rest(&mut self, resting: RestingKey, now: Nanos) -> Learned {
        if resting.until <= now {
            return Learned::Nothing;
        }
        let same = |known: &RestingKey| {
            known.provider == resting.provider && known.key == resting.key && known.model == resting.model
        };
        match self.own.iter_mut().find(|known| same(known)) {
            Some(known) if known.until >= resting.until => Learned::Nothing,
            Some(known) => {
                *known = resting;
                Learned::Longer
            }
            None => {
                if self.own.len() >= RESTING_KEYS_MAX {
                    let soonest = self.own.iter().enumerate().min_by_key(|(_, known)| known.until);
                    if let Some((at, _)) = soonest {
                        self.own.swap_remove(at);
                    }
                }
                self.own.push(resting);
                Learned::News
            }
        }
    }

    /// A virtual key was told that a key may not use a model. After a second one was, the key
    /// rests for that model: one client alone cannot take a key from the others.
    pub(super) fn denied(&mut self, denial: Denial, now: Nanos) -> Option<RestingKey> {
        self.denials.retain(|(_, at)| now.since(*at) < DENIAL_MEMORY);
        let same = |known: &Denial| known.key == denial.key && known.model == denial.model;
        let mut met = self.denials.iter().filter(|(known, _)| same(known));
        if met.any(|(known, _)| known.virtual_key != denial.virtual_key) {
            self.denials.retain(|(known, _)| !same(known));
            return Some(RestingKey {
                provider: denial.key.provider,
                key: denial.key.key,
                model: Some(denial.model),
                reason: RestReason::Denied,
                until: now.after(DENIED_RESTS),
            });
        }
        if !self.denials.iter().any(|(known, _)| *known == denial) && self.denials.len() < DENIALS_MAX {
            self.denials.push((denial, now));
        }
        None
    }

    /// What the others say of their rests.
    pub(super) fn hear(&mut self, view: &View, now: Nanos) {
        let alive: BTreeMap<&str, &Member> = view
            .members
            .iter()
            .filter(|member| member.health != Health::Dead)
            .map(|member| (member.id.as_str(), member))
            .collect();
        for (id, heard) in &mut self.heard {
            // Of a dead node it stays as it is, and so of one that was started anew.
            heard.is_said = alive.get(id.member.as_str()).is_none_or(|member| member.generation != id.generation);
        }
        for member in alive.values() {
            for rest in member.values.rests.iter().take(HEARD_PER_NODE_MAX) {
                self.hear_one(member, rest, now);
            }
        }
        self.heard.retain(|_, heard| heard.is_said);
        self.forget_dead(&alive, now);
    }

    fn hear_one(&mut self, member: &Member, rest: &Rest, now: Nanos) {
        let key = KeyLabels { provider: rest.provider.clone(), key: rest.key.clone() };
        let Some(reason) = RestReason::from_name(&rest.reason) else { return };
        if !self.known.contains(&key) || (reason == RestReason::Denied && rest.model.is_none()) {
            return;
        }
        let id = HeardId { member: member.id.clone(), generation: member.generation, number: rest.number, key };
        if let Some(heard) = self.heard.get_mut(&id) {
            heard.is_said = true;
        } else if self.heard.len() < HEARD_MAX {
            let until = now.after(Duration::from_millis(rest.remaining_ms).min(longest(reason)));
            let (provider, key) = (rest.provider.clone(), rest.key.clone());
            let resting = RestingKey { provider, key, model: rest.model.clone(), reason, until };
            self.heard.insert(id, Heard { resting, is_said: true });
        }
    }

    /// What an owner says for longer than it is believed stays known, so that it is not believed
    /// anew; of owners that say nothing any more nothing stays behind its time.
    fn forget_dead(&mut self, alive: &BTreeMap<&str, &Member>, now: Nanos) {
        let says =
            |id: &HeardId| alive.get(id.member.as_str()).is_some_and(|member| member.generation == id.generation);
        self.heard.retain(|id, heard| heard.resting.until > now || says(id));
    }

    /// Forgets what is over. Returns what the cores are told.
    pub(super) fn now(&mut self, now: Nanos) -> (Vec<RestingKey>, Vec<KeyWeight>) {
        self.own.retain(|own| own.until > now);
        if self.own.is_empty() && self.heard.is_empty() && self.ramps.is_empty() {
            return Default::default();
        }
        let resting = self.resting(now);
        self.ramp(&resting, now);
        (resting, self.weights(now))
    }

    /// All keys that rest, sorted.
    pub(super) fn resting(&self, now: Nanos) -> Vec<RestingKey> {
        let mut all: BTreeMap<(KeyLabels, Option<&str>), &RestingKey> = BTreeMap::new();
        let heard = self.heard.values().map(|heard| &heard.resting).filter(|resting| resting.until > now);
        let own = self.own.iter().filter(|resting| resting.until > now);
        for resting in own.chain(heard) {
            let best = all.entry((labels(resting), resting.model.as_deref())).or_insert(resting);
            let rank = |one: &RestingKey| (one.reason != RestReason::Denied, one.until);
            if rank(resting) > rank(best) {
                *best = resting;
            }
        }
        let mut resting: Vec<RestingKey> = all.into_values().cloned().collect();
        if resting.len() > RESTING_KEYS_MAX {
            resting.sort_by_key(|one| std::cmp::Reverse(one.until));
            resting.truncate(RESTING_KEYS_MAX);
            resting.sort_by(|a, b| (&a.provider, &a.key, &a.model).cmp(&(&b.provider, &b.key, &b.model)));
        }
        resting
    }

    /// Notes when keys wake, and forgets those that have come back.
    fn ramp(&mut self, resting: &[RestingKey], now: Nanos) {
        for one in resting.iter().filter(|one| one.reason != RestReason::Denied) {
            let left = one.until.since(now);
            let fresh = Ramp { over: one.until, step: (left / 4).min(RAMP_STEP_MAX) };
            let known = self.ramps.get_mut(&(labels(one), one.model.clone()));
            match known {
                Some(ramp) if ramp.over == one.until => {}
                // Longer than before, or refused again while it came back.
                Some(ramp) => *ramp = Ramp { step: fresh.step.max(ramp.step), ..fresh },
                None if left < RAMPED_REST_MIN => {}
                None => {
                    self.ramps.insert((labels(one), one.model.clone()), fresh);
                }
            }
        }
        self.ramps.retain(|_, ramp| ramp.permille(now).is_some());
    }

    /// Weights of keys that rest (so that the cores have them when the rest ends) or just woke.
    pub(super) fn weights(&self, now: Nanos) -> Vec<KeyWeight> {
        let weights = self.ramps.iter().filter_map(|((labels, model), ramp)| {
            Some(KeyWeight {
                provider: labels.provider.clone(),
                key: labels.key.clone(),
                model: model.clone(),
                permille: ramp.permille(now)?,
            })
        });
        weights.collect()
    }

    /// Those that this node's own cores learned of. Some may be over.
    pub(super) fn own(&self) -> impl Iterator<Item = &RestingKey> {
        self.own.iter()
    }
}

#[cfg(test)]
mod tests;
