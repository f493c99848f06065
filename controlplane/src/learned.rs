//! What providers say of their limits, and what follows for ours: for each limit an *effective*
//! amount, never above the configured one. Pure: no sockets, no clock.
//!
//! - **The provider's own limit is lower**: that one is effective, until the provider says otherwise.
//! - **The provider has less left than we believe to have**: somebody else uses the key, or the
//!   provider counts more than we do. The difference is *foreign use* and is taken off until the
//!   provider has all units back, for a window of the limit at most; then it is tried again.
//! - **The provider refused although we believed to have units**: all of them are taken off until
//!   its `retry-after`.
//! - **An amount of `auto`** is as large as can be until the provider says what it allows.
//!
//! One node's word serves all: each publishes the newest it was told for a key and model, and the
//! newest of anybody's counts everywhere ([`figures`]). Which limits it is about: [`belonging`].
//! How it is compared with our own count: [`watched`].
//!
//! Absent: limits of virtual keys, which are no provider's business, and raising anything.

mod belonging;
mod figures;
mod watched;

use crate::gossip::values::ToldRow;
use crate::member::View;
use belonging::{Belonging, belongings};
use figures::Figures;
use serde::Serialize;
use shared::clock::Nanos;
use shared::report::KeyLabels;
use shared::snapshot::SnapshotRecord;
use shared::told::KeyTold;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use watched::Watched;

/// Limits that learn: the first ones of the configuration that belong to a key.
const LIMITS_MAX: usize = 4_096;

/// See the module.
#[derive(Default)]
pub struct Learned {
    limits: Vec<Limit>,
    by_id: HashMap<String, usize, ahash::RandomState>,
    by_key: BTreeMap<KeyLabels, Vec<usize>>,
    figures: Figures,
}

/// A limit that belongs to a key.
struct Limit {
    id: String,
    /// Among the limits of the configuration.
    index: usize,
    belonging: Belonging,
    watched: Watched,
    /// As it was when somebody asked whether anything had changed.
    effective: u64,
}

/// A limit whose effective amount is not the configured one, or that has none of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LearnedLimit {
    /// Limit's id.
    pub id: String,
    /// `requests` or `tokens`.
    pub unit: &'static str,
    /// Units in a window, as configured; `null` for `auto`.
    pub configured: Option<u64>,
    /// Units in a window that the cluster uses.
    pub effective: u64,
    /// What the provider says that it allows; `null` where it does not.
    pub provider_limit: Option<u64>,
    /// Units that somebody else uses, or that the provider counts and we do not.
    pub foreign_use: u64,
    /// What takes most of it: `provider_limit`, `foreign_use` or `refused`; `not_told` where an amount of
    /// `auto` is not known yet.
    pub why: &'static str,
    /// Until it is tried with more; `null`: until the provider says otherwise.
    pub remaining_ms: Option<u64>,
}

impl Learned {
    /// Another configuration. Limits that are as they were keep what was learned.
    pub fn configure(&mut self, record: &SnapshotRecord) {
        let mut before: HashMap<String, Limit> =
            std::mem::take(&mut self.limits).into_iter().map(|limit| (limit.id.clone(), limit)).collect();
        for (index, belonging) in belongings(record).into_iter().take(LIMITS_MAX) {
            let Some(limit) = record.limits.get(index) else { continue };
            let fresh = Watched::new(limit);
            let watched = before
                .remove(&limit.id)
                .filter(|known| known.belonging == belonging)
                .and_then(|known| known.watched.configured_again(&fresh))
                .unwrap_or(fresh);
            self.limits.push(Limit { id: limit.id.clone(), index, belonging, watched, effective: limit.amount });
        }
        self.by_id = self.limits.iter().enumerate().map(|(at, limit)| (limit.id.clone(), at)).collect();
        self.by_key.clear();
        for (at, limit) in self.limits.iter().enumerate() {
            self.by_key.entry(limit.belonging.key.clone()).or_default().push(at);
        }
        let keys: BTreeSet<_> = self.by_key.keys().cloned().collect();
        self.figures.configure(keys.clone());
        for key in &keys {
            self.learn_limits(key);
        }
    }

    /// A core of this node was told something.
    pub fn take(&mut self, told: &KeyTold, now: Nanos) {
        if self.by_key.contains_key(&told.key) && self.figures.take(told, now) {
            self.learn(&told.key, &told.model);
        }
    }

    /// What the other nodes were told, and what they used.
    pub fn hear(&mut self, view: &View, now: Nanos) {
        for (key, model) in self.figures.hear(view, now) {
            self.learn(&key, &model);
        }
        self.hear_use(view);
    }

    /// Limits that compare the provider's count with ours: their index in the configuration, and id.
    pub fn compared(&self) -> impl Iterator<Item = (usize, &str)> {
        let compared = self.limits.iter().filter(|limit| limit.watched.is_told());
        compared.map(|limit| (limit.index, limit.id.as_str()))
    }

    /// Compares, given what this node spent and holds of each limit, by index and id. To be called
    /// several times a second. `true`: some effective amount is another one.
    pub fn compare(&mut self, used: impl Fn(usize, &str) -> Option<u64>, now: Nanos) -> bool {
        let mut is_changed = false;
        for limit in self.limits.iter_mut().filter(|limit| limit.watched.is_told()) {
            if let Some(used) = used(limit.index, &limit.id) {
                limit.watched.compare(used, now);
            }
            let effective = limit.watched.effective(limit.watched.configured(), now);
            is_changed |= effective != limit.effective;
            limit.effective = effective;
        }
        is_changed
    }

    /// Units that all nodes together may use of a limit in a window: `configured` or less.
    pub fn effective(&self, id: &str, unit: &str, configured: u64, now: Nanos) -> u64 {
        let limit = self.by_id.get(id).and_then(|at| self.limits.get(*at));
        match limit.filter(|limit| limit.watched.unit_name() == unit) {
            Some(limit) => limit.watched.effective(configured, now),
            None => configured,
        }
    }

    /// Every limit whose effective amount is not the configured one, or that has none of its own.
    pub fn shown(&self, now: Nanos) -> Vec<LearnedLimit> {
        self.limits.iter().filter_map(|limit| limit.watched.shown(&limit.id, now)).collect()
    }

    /// What this node's cores were told, for the others. `first_number` grows with every start of
    /// the node, so that no number is used twice.
    pub fn published(&mut self, first_number: u64, now: Nanos) -> Vec<ToldRow> {
        self.figures.published(first_number, now)
    }

    /// There is a newer word about a key and model.
    fn learn(&mut self, key: &KeyLabels, model: &str) {
        self.learn_limits(key);
        for at in self.by_key.get(key).into_iter().flatten() {
            let Some(limit) = self.limits.get_mut(*at) else { continue };
            if limit.belonging.is_about(model) {
                let word = self.figures.word(&limit.belonging, model, limit.watched.unit(), limit.watched.window());
                if let Some(word) = word {
                    limit.watched.heard(word);
                }
            }
        }
    }

    /// What the provider allows in a window.
    fn learn_limits(&mut self, key: &KeyLabels) {
        for at in self.by_key.get(key).into_iter().flatten() {
            let Some(limit) = self.limits.get_mut(*at) else { continue };
            let (unit, window) = (limit.watched.unit(), limit.watched.window());
            limit.watched.set_provider_limit(self.figures.limit(&limit.belonging, unit, window));
        }
    }

    fn hear_use(&mut self, view: &View) {
        if self.compared().next().is_none() {
            return;
        }
        for limit in &mut self.limits {
            limit.watched.others_used(0);
        }
        for used in view.members.iter().flat_map(|member| &member.values.limits) {
            let Some(limit) = self.by_id.get(&used.id).and_then(|at| self.limits.get_mut(*at)) else { continue };
            if limit.watched.unit_name() == used.unit {
                limit.watched.others_used(limit.watched.used_by_others().saturating_add(used.used));
            }
        }
    }
}

#[cfg(test)]
mod tests;
