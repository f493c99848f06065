//! This node's resting keys as it publishes them. Pure.
//!
//! A rest is published with the time that is left of it, since clocks differ. That text has to
//! stay the same while nothing happens, so it is renewed at times only: whoever hears of it late
//! takes it for at most that much too long.

use crate::gossip::values::Rest;
use shared::clock::Nanos;
use shared::published::RestingKey;
use std::collections::HashMap;
use std::time::Duration;

/// How often the time left is written anew.
const RENEWED_EVERY: Duration = Duration::from_secs(10);

/// What tells rests apart: provider, key, model.
type Name = (String, String, Option<String>);

/// See the module.
#[derive(Default)]
pub(super) struct Rests {
    published: HashMap<Name, Published>,
    /// Rests that were numbered so far.
    numbered: u64,
}

struct Published {
    until: Nanos,
    written_at: Nanos,
    rest: Rest,
}

impl Rests {
    /// All rests that are not over, as they are to be published. `first_number` grows with every
    /// start of the node, so that numbers are never used twice.
    pub(super) fn update<'a>(
        &mut self,
        own: impl Iterator<Item = &'a RestingKey>,
        first_number: u64,
        now: Nanos,
    ) -> Vec<Rest> {
        let mut before = std::mem::take(&mut self.published);
        for resting in own.filter(|resting| resting.until > now) {
            let name = (resting.provider.clone(), resting.key.clone(), resting.model.clone());
            let known = before.remove(&name).filter(|known| known.until == resting.until);
            let published = match known {
                Some(known) if now.since(known.written_at) < RENEWED_EVERY => known,
                Some(known) => Published::new(resting, known.rest.number, now),
                None => {
                    self.numbered = self.numbered.saturating_add(1);
                    Published::new(resting, first_number.saturating_add(self.numbered), now)
                }
            };
            self.published.insert(name, published);
        }
        let mut rests: Vec<_> = self.published.values().map(|published| published.rest.clone()).collect();
        rests.sort_unstable_by_key(|rest| rest.number);
        rests
    }
}

impl Published {
    fn new(resting: &RestingKey, number: u64, now: Nanos) -> Self {
        let RestingKey { provider, key, model, reason, until } = resting;
        let rest = Rest {
            provider: provider.clone(),
            key: key.clone(),
            model: model.clone(),
            reason: reason.name().to_owned(),
            remaining_ms: u64::try_from(until.since(now).as_millis()).unwrap_or(u64::MAX),
            number,
        };
        Self { until: *until, written_at: now, rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::published::RestReason;

    const SECOND: u64 = 1_000_000_000;

    fn resting(key: &str, until: u64) -> RestingKey {
        let until = Nanos(until * SECOND);
        RestingKey { provider: "openai".into(), key: key.into(), model: None, reason: RestReason::Limited, until }
    }

    /// Key, seconds left and number of each rest that is published.
    fn published(rests: &mut Rests, own: &[RestingKey], at: u64) -> Vec<(String, u64, u64)> {
        let mut shown: Vec<_> = rests
            .update(own.iter(), 100, Nanos(at * SECOND))
            .into_iter()
            .map(|rest| (rest.key, rest.remaining_ms / 1_000, rest.number))
            .collect();
        shown.sort();
        shown
    }

    #[test]
    fn a_rest_stays_the_same_text_and_its_time_is_renewed_now_and_then() {
        let (mut rests, own) = (Rests::default(), [resting("k", 60)]);
        assert_eq!(published(&mut rests, &own, 0), [("k".to_owned(), 60, 101)]);
        assert_eq!(published(&mut rests, &own, 9), [("k".to_owned(), 60, 101)]);
        assert_eq!(published(&mut rests, &own, 10), [("k".to_owned(), 50, 101)]);
        assert_eq!(published(&mut rests, &own, 60), []);
    }

    #[test]
    fn a_rest_that_became_longer_or_came_again_has_another_number() {
        let mut rests = Rests::default();
        published(&mut rests, &[resting("a", 60), resting("b", 5)], 0);
        let later = published(&mut rests, &[resting("a", 90)], 6);
        assert_eq!(later, [("a".to_owned(), 84, 103)]);
        let again = published(&mut rests, &[resting("a", 90), resting("b", 20)], 7);
        assert_eq!(again, [("a".to_owned(), 84, 103), ("b".to_owned(), 13, 104)]);
    }
}
