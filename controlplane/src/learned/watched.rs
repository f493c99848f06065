//! One limit: what its provider's words, compared with our own count, leave of it. Pure.
//!
//! A word is true for the past: of when its request was sent. It is compared with what the cluster
//! had used *then*: our own use as it was counted at that time, and the others' as it is heard once
//! it had time to arrive. Before that, only what goes beyond all that may be on its way counts. Both may count somewhat too much (slices of cores, requests on their way),
//! so that foreign use comes out too small rather than too large; what is within the noise of the
//! others' news is left alone.

use super::LearnedLimit;
use crate::publish::unit_name;
use shared::clock::Nanos;
use shared::snapshot::{LimitRecord, Unit};
use std::collections::VecDeque;
use std::time::Duration;

/// When the others' use at a time has been heard: they publish once a second.
const HEARD_AFTER: Duration = Duration::from_millis(1_500);
/// How often our own use is remembered, and how often: half a minute. Older words are about
/// requests that were answered that late, and say nothing of now.
const COUNTED_EVERY: Duration = Duration::from_millis(250);
const COUNTS_MAX: usize = 120;
/// A count at most this much later than a word is compared with it.
const COUNT_AFTER_MAX: Duration = Duration::from_secs(1);
/// Words that wait to be compared, and how far they are apart.
const WORDS_MAX: usize = 8;
const WORDS_EVERY: Duration = Duration::from_millis(250);
/// Foreign use below this part of the rest, or below so many units, may be none.
const NOISE_PART: u64 = 50;
const NOISE_UNITS: u64 = 3;

/// While the provider has less than this part of the rest left, foreign use only grows: a bucket that
/// fills a little between two requests has not become larger, and whoever asks for all of it at
/// once is refused again and again.
const EDGE_PART: u64 = 8;

/// What a provider said of all that a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// When it was true.
    pub(super) as_of: Nanos,
    /// Units that the provider would admit, and until when what it has counted may count.
    pub(super) left: Option<(u64, Nanos)>,
    /// It refused, and wants to be left alone until then.
    pub(super) refused_until: Option<Nanos>,
}

/// Units that are taken off for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    units: u64,
    as_of: Nanos,
    until: Nanos,
}

impl Taken {
    fn at(self, now: Nanos) -> u64 {
        if self.until > now { self.units } else { 0 }
    }
}

/// What was used at one time.
#[derive(Clone, Copy, Debug)]
struct Count {
    at: Nanos,
    here: u64,
    by_others: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watched {
    unit: Unit,
    configured: u64,
    /// The amount is the provider's; `configured` is as large as can be.
    is_auto: bool,
    window: Duration,
    provider_limit: Option<u64>,
    foreign: Taken,
    refused: Taken,
    is_told: bool,
    /// Oldest first.
    counts: VecDeque<Count>,
    used_by_others: u64,
    /// Not compared yet, oldest first; with the provider's limit as it was known with them.
    words: VecDeque<(Word, Option<u64>)>,
}

impl Watched {
    pub(super) fn new(record: &LimitRecord) -> Self {
        Self {
            unit: record.unit,
            configured: record.amount,
            is_auto: record.is_learned,
            window: Duration::from_nanos(record.window_ns),
            provider_limit: None,
            foreign: Taken::default(),
            refused: Taken::default(),
            is_told: false,
            counts: VecDeque::new(),
            used_by_others: 0,
            words: VecDeque::new(),
        }
    }

    /// What was learned, with the amount of `fresh`; `None` where that counts something else.
    pub(super) fn configured_again(self, fresh: &Self) -> Option<Self> {
        let is_same = self.unit == fresh.unit && self.window == fresh.window;
        is_same.then_some(Self { configured: fresh.configured, is_auto: fresh.is_auto, ..self })
    }

    pub(super) fn unit(&self) -> Unit {
        self.unit
    }

    pub(super) fn unit_name(&self) -> &'static str {
        unit_name(self.unit)
    }

    pub(super) fn window(&self) -> Duration {
        self.window
    }

    pub(super) fn configured(&self) -> u64 {
        self.configured
    }

    /// Whether its provider has said anything.
    pub(super) fn is_told(&self) -> bool {
        self.is_told
    }

    pub(super) fn used_by_others(&self) -> u64 {
        self.used_by_others
    }

    pub(super) fn others_used(&mut self, used: u64) {
        self.used_by_others = used;
    }

    pub(super) fn set_provider_limit(&mut self, limit: Option<u64>) {
        self.provider_limit = limit;
        self.is_told |= limit.is_some();
    }

    /// Takes in a word; it is compared later. Of those that are close together the last one stays.
    pub(super) fn heard(&mut self, word: Word) {
        self.is_told = true;
        let mut newest = self.words.iter().rev();
        let are_close = newest.next().zip(newest.next()).is_some_and(|((last, _), (before, _))| {
            last.as_of.since(before.as_of) < WORDS_EVERY && last.refused_until.is_none()
        });
        if are_close {
            self.words.pop_back();
        } else if self.words.len() >= WORDS_MAX {
            self.words.pop_front();
        }
        self.words.push_back((word, self.provider_limit));
    }

    /// Takes in what this node uses now, and compares the words whose time has come.
    pub(super) fn compare(&mut self, used: u64, now: Nanos) {
        if self.counts.back().is_none_or(|count| now.since(count.at) >= COUNTED_EVERY) {
            if self.counts.len() >= COUNTS_MAX {
                self.counts.pop_front();
            }
            self.counts.push_back(Count { at: now, here: used, by_others: self.used_by_others });
        }
        for (word, _) in &mut self.words {
            if let Some(until) = word.refused_until.take() {
                let units = left(self.configured, self.provider_limit, used, self.used_by_others);
                self.refused = Taken { units, as_of: word.as_of, until };
            }
        }
        let mut newest = None;
        while let Some(word) = self.words.pop_front_if(|(word, _)| word.as_of.after(HEARD_AFTER) <= now) {
            newest = Some(word);
        }
        if let Some((word, provider_limit)) = newest {
            self.compare_word(word, provider_limit);
        }
        if let Some((word, provider_limit)) = self.words.back().copied() {
            self.compare_early(word, provider_limit, now);
        }
    }

    /// What the others may have used without our having heard of it: as much as came to be known in
    /// the time that news take, and their part of that time in a window where as much has ended.
    fn unheard(&self, now: Nanos) -> u64 {
        let before = self.counts.iter().rev().find(|count| now.since(count.at) >= HEARD_AFTER);
        let risen = self.used_by_others.saturating_sub(before.map_or(0, |count| count.by_others));
        let (time_ms, window_ms) = (HEARD_AFTER.as_millis(), self.window.as_millis().max(1));
        let steady = u128::from(self.used_by_others) * time_ms / window_ms;
        risen.saturating_add(u64::try_from(steady).unwrap_or(u64::MAX))
    }

    /// What is foreign whatever the others did meanwhile; never less than was known.
    fn compare_early(&mut self, word: Word, provider_limit: Option<u64>, now: Nanos) {
        let Some((remaining, until)) = word.left else { return };
        let Some(believed) = self.believed(&word, provider_limit) else { return };
        let units = believed.saturating_sub(remaining).saturating_sub(self.unheard(now));
        let noise = noise(base(self.configured, provider_limit).saturating_sub(units));
        if units > self.foreign.at(now).saturating_add(noise) {
            self.foreign = Taken { units, as_of: word.as_of, until };
        }
    }

    /// What we believed to have left when a word was true; `None` where that is not known any more.
    fn believed(&self, word: &Word, provider_limit: Option<u64>) -> Option<u64> {
        let count = self.counts.iter().find(|count| count.at >= word.as_of)?;
        let is_near = count.at.since(word.as_of) <= COUNT_AFTER_MAX;
        is_near.then(|| left(self.configured, provider_limit, count.here, self.used_by_others))
    }

    fn compare_word(&mut self, word: Word, provider_limit: Option<u64>) {
        let Some((remaining, until)) = word.left else { return };
        if remaining > 0 && word.as_of > self.refused.as_of {
            self.refused = Taken::default();
        }
        let Some(believed) = self.believed(&word, provider_limit) else { return };
        let units = believed.saturating_sub(remaining);
        // Of an amount that is not known, as of one that is: what was used, and what remains.
        let amount = base(self.configured, provider_limit).saturating_sub(units);
        let noise = noise(amount);
        let before = self.foreign.at(word.as_of);
        let units = if remaining < amount / EDGE_PART { units.max(before) } else { units };
        let is_foreign = units > if before > 0 { noise / 2 } else { noise };
        let is_as_before = before.abs_diff(units) <= noise / 2;
        self.foreign = match (is_foreign, is_as_before) {
            (false, _) => Taken::default(),
            (true, true) => Taken { units: before, as_of: word.as_of, until },
            (true, false) => Taken { units, as_of: word.as_of, until },
        };
    }

    /// Units that may be used in a window, of those `configured`.
    pub(super) fn effective(&self, configured: u64, now: Nanos) -> u64 {
        base(configured, self.provider_limit).saturating_sub(self.foreign.at(now).max(self.refused.at(now)))
    }

    /// As operators see it; `None`: as configured.
    pub(super) fn shown(&self, id: &str, now: Nanos) -> Option<LearnedLimit> {
        let (configured, effective) = (self.configured, self.effective(self.configured, now));
        let (foreign, refused) = (self.foreign.at(now), self.refused.at(now));
        let (why, until) = match (foreign, refused) {
            (0, 0) if self.provider_limit.is_none() => ("not_told", None),
            (0, 0) => ("provider_limit", None),
            (foreign, refused) if refused > foreign => ("refused", Some(self.refused.until)),
            _ => ("foreign_use", Some(self.foreign.until)),
        };
        (self.is_auto || effective != configured).then(|| LearnedLimit {
            id: id.to_owned(),
            unit: self.unit_name(),
            configured: (!self.is_auto).then_some(configured),
            effective,
            provider_limit: self.provider_limit,
            foreign_use: foreign,
            why,
            remaining_ms: until.map(|until| u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX)),
        })
    }
}

fn noise(amount: u64) -> u64 {
    (amount / NOISE_PART).max(NOISE_UNITS)
}

/// The lower of what we and the provider allow.
fn base(configured: u64, provider_limit: Option<u64>) -> u64 {
    provider_limit.map_or(configured, |limit| limit.min(configured))
}

/// What we believe to have left.
fn left(configured: u64, provider_limit: Option<u64>, used: u64, used_by_others: u64) -> u64 {
    base(configured, provider_limit).saturating_sub(used).saturating_sub(used_by_others)
}
