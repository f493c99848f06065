//! The newest word of every key's provider, for each model, whoever was told it. Pure.
//!
//! Words are ordered by when they were true: by our own clock for our cores, by their age when
//! they were published for the others'. Between nodes that is right up to the time that gossip
//! takes, and nobody's clock is trusted: of two words that may as well have been said the other way
//! around, the one that leaves less stands, and a later one corrects it.
//!
//! **Windows.** No provider names the window of a figure. All of them count minutes at least, and
//! none says `reset` for longer than its window, however it counts. So a figure is good for limits
//! whose window is not longer than a minute, or than the longest `reset` that was seen: who may
//! have so much in the longer window may not have more in the shorter one. A minute's figure never
//! touches the limit of an hour. A bucket of a day is known by how fast it fills.
//!
//! **Models.** Providers count an account's models apart. A limit that counts a whole key gets the
//! sum over its models that were told of; as long as one of them says nothing, neither does the sum.

use super::belonging::Belonging;
use super::watched::Word;
use crate::gossip::values::{ToldFigures, ToldRow};
use crate::member::{Health, View};
use shared::clock::Nanos;
use shared::report::KeyLabels;
use shared::snapshot::Unit;
use shared::told::{KeyTold, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Keys and models that are remembered; the oldest word is forgotten.
const FIGURES_MAX: usize = 1_024;
/// Rows that one other node is believed.
const HEARD_PER_NODE_MAX: usize = 256;
/// Rows of all other nodes that are known, so that none is taken for news twice.
const HEARD_MAX: usize = 16_384;
/// What every provider's window lasts at least.
const WINDOW_MIN: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// How long a word tells what remains. After that it is published without.
const FRESH: Duration = Duration::from_secs(10);
/// What gossip may take. Words of two nodes that are not further apart have no order.
const GOSSIP_MAX: Duration = Duration::from_millis(1_500);
/// The oldest word, and the longest refusal, that another node is believed.
const BELIEVED_MAX: Duration = Duration::from_secs(3_600);

/// See the module.
#[derive(Default)]
pub(super) struct Figures {
    wanted: BTreeSet<KeyLabels>,
    keys: BTreeMap<KeyLabels, BTreeMap<String, Figure>>,
    /// The number of each row of the others that was taken in.
    heard: BTreeMap<Row, u64>,
    /// Rows that were published so far.
    numbered: u64,
}

/// Member, generation, key, model.
type Row = (String, u64, KeyLabels, String);

/// The newest word about one key and model.
#[derive(Clone, Debug)]
struct Figure {
    as_of: Nanos,
    refused_until: Option<Nanos>,
    requests: UnitFigure,
    tokens: UnitFigure,
    /// Set for words of our own cores.
    own: Option<Own>,
}

#[derive(Clone, Copy, Debug)]
struct UnitFigure {
    told: Told,
    /// The provider's, at least.
    window: Duration,
}

#[derive(Clone, Debug)]
struct Own {
    /// As it was published, and whether it was fresh then; `None`: not yet.
    row: Option<(ToldRow, bool)>,
}

impl Figures {
    /// Keys that are wanted from now on; what the others say of further ones is passed over.
    pub(super) fn configure(&mut self, wanted: BTreeSet<KeyLabels>) {
        self.keys.retain(|key, _| wanted.contains(key));
        self.heard.retain(|(_, _, key, _), _| wanted.contains(key));
        self.wanted = wanted;
    }

    /// What a core of ours was told; whether it is the newest word.
    pub(super) fn take(&mut self, told: &KeyTold, now: Nanos) -> bool {
        let figure = Figure {
            as_of: told.as_of.min(now),
            refused_until: told.refused_for.map(|wait| told.as_of.after(wait.min(BELIEVED_MAX))),
            requests: UnitFigure::new(told.limits.requests),
            tokens: UnitFigure::new(told.limits.all_tokens()),
            own: Some(Own { row: None }),
        };
        self.remember(&told.key, &told.model, figure)
    }

    /// What the others were told; the keys and models about which that is the newest word.
    pub(super) fn hear(&mut self, view: &View, now: Nanos) -> Vec<(KeyLabels, String)> {
        let (mut news, mut said) = (Vec::new(), BTreeMap::new());
        for member in view.members.iter().filter(|member| member.health != Health::Dead) {
            for row in member.values.told.iter().take(HEARD_PER_NODE_MAX) {
                let key = KeyLabels { provider: row.provider.clone(), key: row.key.clone() };
                if said.len() >= HEARD_MAX || !self.wanted.contains(&key) {
                    continue;
                }
                let id = (member.id.clone(), member.generation, key.clone(), row.model.clone());
                let is_known = self.heard.get(&id) == Some(&row.number);
                said.insert(id, row.number);
                if !is_known && self.remember(&key, &row.model, Figure::heard(row, now)) {
                    news.push((key, row.model.clone()));
                }
            }
        }
        self.heard = said;
        news
    }

    /// What the provider allows for all that a limit with this window counts.
    pub(super) fn limit(&self, belonging: &Belonging, unit: Unit, window: Duration) -> Option<u64> {
        self.sum(belonging, unit, window, |_, figure| figure.of(unit).told.limit)
    }

    /// What the newest word about `model` says of such a limit; `None`: nothing.
    pub(super) fn word(&self, belonging: &Belonging, model: &str, unit: Unit, window: Duration) -> Option<Word> {
        let newest = self.keys.get(&belonging.key)?.get(model)?;
        let told = newest.of(unit).told;
        let left = self.sum(belonging, unit, window, |name, figure| {
            if name == model { told.remaining } else { figure.left_of(unit, newest.as_of) }
        });
        let until = newest.as_of.after(told.reset_after.unwrap_or(WINDOW_MIN).min(window));
        // Its other models may still be asked.
        let is_refused = self.about(belonging).all(|(_, figure)| figure.is_refused_for(unit, newest.as_of));
        let refused_until = newest.refused_until.filter(|_| is_refused);
        let word = Word { as_of: newest.as_of, left: left.map(|left| (left, until)), refused_until };
        (word.left.is_some() || word.refused_until.is_some()).then_some(word)
    }

    /// Words of our cores that are the newest of all, as the others are to hear them. The text stays
    /// the same while nothing new was said.
    pub(super) fn published(&mut self, first_number: u64, now: Nanos) -> Vec<ToldRow> {
        let mut rows = Vec::new();
        for (key, models) in &mut self.keys {
            for (model, figure) in models {
                let is_fresh = now.since(figure.as_of) < FRESH;
                let row = figure.row(key, model, is_fresh, now);
                let Some(own) = &mut figure.own else { continue };
                let is_same = own.row.as_ref().is_some_and(|(_, was_fresh)| *was_fresh == is_fresh);
                if !is_same {
                    self.numbered = self.numbered.saturating_add(1);
                    let number = first_number.saturating_add(self.numbered);
                    own.row = Some((ToldRow { number, ..row }, is_fresh));
                }
                rows.extend(own.row.iter().map(|(row, _)| row.clone()));
            }
        }
        rows
    }

    /// How many words are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.keys.values().map(BTreeMap::len).sum()
    }

    fn about(&self, belonging: &Belonging) -> impl Iterator<Item = (&str, &Figure)> {
        let models = self.keys.get(&belonging.key).into_iter().flatten();
        models.map(|(model, figure)| (model.as_str(), figure)).filter(|(model, _)| belonging.is_about(model))
    }

    /// Over all models that the limit counts; `None` where one of them says nothing that holds for
    /// such a window.
    fn sum(
        &self,
        belonging: &Belonging,
        unit: Unit,
        window: Duration,
        of: impl Fn(&str, &Figure) -> Option<u64>,
    ) -> Option<u64> {
        let mut sum = None;
        for (model, figure) in self.about(belonging) {
            let units = of(model, figure).filter(|_| figure.of(unit).window >= window)?;
            sum = Some(units.saturating_add(sum.unwrap_or(0)));
        }
        sum
    }

    /// Whether it is the newest word about this key and model.
    fn remember(&mut self, key: &KeyLabels, model: &str, mut figure: Figure) -> bool {
        match self.keys.get(key).and_then(|models| models.get(model)) {
            Some(before) if !figure.stands_before(before) => return false,
            Some(before) => figure.follow(before),
            None => self.make_room(),
        }
        self.keys.entry(key.clone()).or_default().insert(model.to_owned(), figure);
        true
    }

    fn make_room(&mut self) {
        if self.keys.values().map(BTreeMap::len).sum::<usize>() < FIGURES_MAX {
            return;
        }
        let all = self.keys.iter().flat_map(|(key, models)| models.iter().map(move |of| (of.1.as_of, key, of.0)));
        let Some((_, key, model)) = all.min() else { return };
        let (key, model) = (key.clone(), model.clone());
        if let Some(models) = self.keys.get_mut(&key) {
            models.remove(&model);
        }
    }
}

impl Figure {
    /// As another node published it, heard for the first time.
    fn heard(row: &ToldRow, now: Nanos) -> Self {
        let told = |figures: ToldFigures| Told {
            limit: figures.limit.filter(|limit| *limit > 0),
            remaining: figures.remaining,
            reset_after: figures.reset_ms.map(Duration::from_millis),
        };
        let age = Duration::from_millis(row.age_ms).min(BELIEVED_MAX);
        let refused = Some(Duration::from_millis(row.refused_ms).min(BELIEVED_MAX)).filter(|left| !left.is_zero());
        Self {
            as_of: Nanos(now.0.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX))),
            refused_until: refused.map(|left| now.after(left)),
            requests: UnitFigure::new(told(row.requests)),
            tokens: UnitFigure::new(told(row.tokens)),
            own: None,
        }
    }

    /// Whether it is to stand in the place of `before`: it is newer, or may be, and leaves less.
    fn stands_before(&self, before: &Self) -> bool {
        let are_ordered = self.own.is_some() && before.own.is_some();
        let apart = self.as_of.since(before.as_of).max(before.as_of.since(self.as_of));
        if are_ordered || apart > GOSSIP_MAX {
            return self.as_of >= before.as_of;
        }
        let less = |now: &UnitFigure, before: &UnitFigure| {
            now.told.remaining.is_some_and(|left| before.told.remaining.is_none_or(|before| left < before))
        };
        self.refused_until > before.refused_until
            || less(&self.requests, &before.requests)
            || less(&self.tokens, &before.tokens)
    }

    /// What is known of the provider does not end with a word that does not repeat it.
    fn follow(&mut self, before: &Self) {
        for (unit, before) in [(&mut self.requests, &before.requests), (&mut self.tokens, &before.tokens)] {
            unit.told.limit = unit.told.limit.or(before.told.limit);
            unit.window = unit.window.max(before.window);
        }
    }

    fn of(&self, unit: Unit) -> &UnitFigure {
        match unit {
            // No provider tells of the others.
            Unit::Requests | Unit::Concurrent | Unit::MicroUsd => &self.requests,
            Unit::Tokens => &self.tokens,
        }
    }

    /// What can still be had at `at`, as far as was told.
    fn left_of(&self, unit: Unit, at: Nanos) -> Option<u64> {
        let Told { limit, remaining, reset_after } = self.of(unit).told;
        let is_full = reset_after.is_some_and(|after| self.as_of.after(after) <= at);
        if is_full { limit } else { remaining.or(limit) }
    }

    /// Whether it was a refusal, holds at `at`, and was for want of this unit, or nobody knows of which.
    fn is_refused_for(&self, unit: Unit, at: Nanos) -> bool {
        let (requests, tokens) = (self.requests.told.remaining, self.tokens.told.remaining);
        let is_for_requests = requests == Some(0) || (requests.is_none() && tokens.is_none());
        let is_for_tokens = requests != Some(0);
        let is_for = match unit {
            Unit::Requests => is_for_requests,
            Unit::Tokens => is_for_tokens,
            // Nobody tells how many may run at once, or what it costs.
            Unit::Concurrent | Unit::MicroUsd => false,
        };
        is_for && self.refused_until.is_some_and(|until| until > at)
    }

    /// As it is published now, but for its number.
    fn row(&self, key: &KeyLabels, model: &str, is_fresh: bool, now: Nanos) -> ToldRow {
        let figures = |unit: &UnitFigure| ToldFigures {
            limit: unit.told.limit,
            remaining: unit.told.remaining.filter(|_| is_fresh),
            reset_ms: unit.told.reset_after.map(milliseconds),
        };
        ToldRow {
            provider: key.provider.clone(),
            key: key.key.clone(),
            model: model.to_owned(),
            number: 0,
            age_ms: milliseconds(now.since(self.as_of)),
            refused_ms: self.refused_until.filter(|_| is_fresh).map_or(0, |until| milliseconds(until.since(now))),
            requests: figures(&self.requests),
            tokens: figures(&self.tokens),
        }
    }
}

impl UnitFigure {
    fn new(told: Told) -> Self {
        let shown = told.reset_after.unwrap_or_default();
        let window = if shown <= WINDOW_MIN {
            WINDOW_MIN
        } else if fills_in_a_day(told) {
            DAY
        } else {
            shown
        };
        Self { told, window }
    }
}

/// Whether it would take a bucket a day to fill, by how long it takes from here.
fn fills_in_a_day(Told { limit, remaining, reset_after }: Told) -> bool {
    let (Some(limit), Some(remaining), Some(after)) = (limit, remaining, reset_after) else { return false };
    let missing = u128::from(limit.saturating_sub(remaining));
    let (whole, day) = (after.as_millis() * u128::from(limit), DAY.as_millis() * missing);
    missing > 0 && whole.abs_diff(day) <= day / 20
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
