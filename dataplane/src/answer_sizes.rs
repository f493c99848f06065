//! How many tokens requests have needed, by model and size of the prompt: what a statistical
//! limit reserves in place of the most that there may be.
//!
//! Counted is prompt and answer together, as the provider told them: the prompt too is only
//! bounded at the door, by its bytes. Learned by each core alone, of whole answers to requests for
//! one choice. Mean and deviation follow a model that changes: after [`MEMORY`] answers the oldest
//! weigh less and less. Below [`SAMPLES_MIN`] answers there is no estimate.
//!
//! Absent: quantiles. How often an answer needs more than its mean and some deviations is known
//! for a normal distribution; that of answers is skewed, so the share is counted and shown.

use std::cell::RefCell;
use std::collections::HashMap;

/// Answers before anything is estimated from them.
pub(crate) const SAMPLES_MIN: u32 = 30;

/// Answers that an estimate goes back to.
const MEMORY: u32 = 1_000;

/// Models that are told apart; others have no estimate. With the classes 768 bytes each.
const MODELS_MAX: usize = 512;

/// Prompts of 1, 2 to 3, 4 to 7 tokens and so on; the last class holds all above four million.
const CLASSES: usize = 24;

/// The size of a prompt in a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeClass(u8);

impl SizeClass {
    pub(crate) fn of(prompt_tokens: u64) -> Self {
        let class = (prompt_tokens.checked_ilog2().unwrap_or(0) as usize).min(CLASSES - 1);
        Self(class as u8)
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct AnswerSizes {
    by_model: RefCell<HashMap<Box<str>, [Moments; CLASSES], ahash::RandomState>>,
}

impl AnswerSizes {
    /// What a request needs with so many deviations to spare; `None` while too little is known.
    pub(crate) fn estimate(&self, model: &str, class: SizeClass, deviations: f64) -> Option<u64> {
        let by_model = self.by_model.borrow();
        let moments = by_model.get(model)?.get(usize::from(class.0))?;
        moments.above_mean(deviations)
    }

    /// An answer has ended, and this is what the request needed.
    pub(crate) fn learn(&self, model: &str, class: SizeClass, tokens: u64) {
        let mut by_model = self.by_model.borrow_mut();
        if !by_model.contains_key(model) {
            if by_model.len() >= MODELS_MAX {
                return;
            }
            by_model.insert(model.into(), [Moments::default(); CLASSES]);
        }
        if let Some(moments) = by_model.get_mut(model).and_then(|classes| classes.get_mut(usize::from(class.0))) {
            moments.add(tokens as f64);
        }
    }
}

/// Mean and variance of all values so far, or of about the last [`MEMORY`].
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    mean: f64,
    variance: f64,
    count: u32,
}

impl Moments {
    /// Welford's update with a weight that does not fall below that of one in [`MEMORY`]: until
    /// then it is the exact mean and variance, from then on a moving one.
    fn add(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        let weight = 1.0 / f64::from(self.count.min(MEMORY));
        let distance = value - self.mean;
        self.mean += weight * distance;
        self.variance = (1.0 - weight) * (self.variance + weight * distance * distance);
    }

    fn above_mean(&self, deviations: f64) -> Option<u64> {
        let estimate = (self.mean + deviations * self.variance.sqrt()).ceil();
        // The cast saturates, and what is no number becomes 0.
        (self.count >= SAMPLES_MIN).then_some(estimate as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(values: impl IntoIterator<Item = u64>) -> AnswerSizes {
        let sizes = AnswerSizes::default();
        values.into_iter().for_each(|value| sizes.learn("m", SizeClass(5), value));
        sizes
    }

    #[test]
    fn prompts_are_told_apart_by_powers_of_two() {
        for (tokens, class) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (1_023, 9), (1_024, 10), (u64::MAX, 23)] {
            assert_eq!(SizeClass::of(tokens), SizeClass(class), "{tokens}");
        }
    }

    #[test]
    fn nothing_is_estimated_from_too_few_answers() {
        assert_eq!(learned([100; SAMPLES_MIN as usize - 1]).estimate("m", SizeClass(5), 2.0), None);
        let sizes = learned([100; SAMPLES_MIN as usize]);
        assert_eq!(sizes.estimate("m", SizeClass(5), 2.0), Some(100));
        assert_eq!(sizes.estimate("m", SizeClass(6), 2.0), None, "another size");
        assert_eq!(sizes.estimate("other", SizeClass(5), 2.0), None);
    }

    #[test]
    fn mean_and_deviation_are_those_of_the_answers() {
        // As many of 60 as of 140: mean 100, deviation 40.
        let sizes = learned((0..200).map(|at| if at % 2 == 0 { 60 } else { 140 }));
        for (deviations, expected) in [(0.0, 100), (2.0, 180)] {
            // Rounded up, which may be from a hair above.
            let estimate = sizes.estimate("m", SizeClass(5), deviations).unwrap();
            assert!((expected..=expected + 1).contains(&estimate), "{estimate} and not {expected}");
        }
    }

    #[test]
    fn a_model_that_answers_longer_now_is_followed() {
        let sizes = learned((0..50_000).map(|at| if at < 40_000 { 100 } else { 1_000 }));
        assert!(sizes.estimate("m", SizeClass(5), 0.0).is_some_and(|estimate| estimate > 990));
    }

    #[test]
    fn models_beyond_the_bound_have_no_estimate_and_no_memory() {
        let sizes = AnswerSizes::default();
        for model in 0..2 * MODELS_MAX {
            for _ in 0..SAMPLES_MIN {
                sizes.learn(&model.to_string(), SizeClass(0), 5);
            }
        }
        assert_eq!(sizes.by_model.borrow().len(), MODELS_MAX);
        assert_eq!(sizes.estimate("0", SizeClass(0), 0.0), Some(5));
        assert_eq!(sizes.estimate(&MODELS_MAX.to_string(), SizeClass(0), 0.0), None);
    }

    #[test]
    fn no_count_breaks_an_estimate() {
        let sizes = learned([u64::MAX, 0].into_iter().cycle().take(60));
        assert!(sizes.estimate("m", SizeClass(5), 4.0).is_some());
    }

    proptest::proptest! {
        /// Chebyshev: whatever the answers are, at most one in z² + 1 lies z deviations above the
        /// mean; 16.9 % for the 2.33 deviations of one percent of a normal distribution.
        #[test]
        fn few_answers_lie_far_above(values in proptest::collection::vec(0_u64..100_000, 30..900)) {
            let estimate = learned(values.iter().copied()).estimate("m", SizeClass(5), 2.326).unwrap();
            let above = values.iter().filter(|value| **value > estimate).count();
            assert!(above as f64 <= values.len() as f64 / (2.326 * 2.326 + 1.0) + 1.0);
        }
    }
}
