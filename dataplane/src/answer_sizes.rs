//! How many tokens requests have needed, by model and size of the prompt: what a statistical
//! limit reserves in place of the most that there may be.
//!
//! Counted is prompt and answer together, as the provider told them: the prompt too is only
//! bounded at the door, by its bytes. Learned by each core alone, of whole answers to requests for
//! one choice, from the last 1,000 to 2,000 of a kind.
//!
//! What is reserved is one of the largest of them. If answers come in no particular order, the next
//! one is as likely to be the largest of all n + 1 as any other, so that it lies above the k-th
//! largest of the n with a probability of k/(n + 1), whatever their distribution is: k is the
//! largest number with which that is no more than was allowed. (Mean and deviations say it for a
//! normal distribution; a few long answers among many short ones are exceeded twice as often.)
//! Where not even the largest of all is rare enough, there is no estimate.
//!
//! Absent: who sends what. Answers that become longer all at once are exceeded more often than
//! allowed until enough of them have ended; so that share is counted and shown.

use std::cell::RefCell;
use std::collections::HashMap;

/// Answers before anything is estimated from them, however much may be exceeded.
pub const SAMPLES_MIN: u32 = 30;

/// Answers after which those before the last as many are forgotten.
const GENERATION: u32 = 1_000;

/// Answers that a mean goes back to.
const MEMORY: u32 = 1_000;

/// Models that are told apart; others have no estimate. A class in use takes 1.2 KiB.
const MODELS_MAX: usize = 512;

/// Prompts of 1, 2 to 3, 4 to 7 tokens and so on; the last class holds all above eight million.
const CLASSES: usize = 24;

/// Sizes are told apart to one part in so many: what is reserved is up to 6 % more than was needed.
const BUCKETS_PER_OCTAVE_LOG2: u32 = 4;
const BUCKETS_PER_OCTAVE: u64 = 1 << BUCKETS_PER_OCTAVE_LOG2;
/// Requests that need more than four million tokens are taken to need as many.
const TOKENS_MAX: u64 = (1 << 22) - 1;
const BUCKETS: usize = bucket(TOKENS_MAX) + 1;

/// The size of a prompt in a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeClass(u8);

impl SizeClass {
    /// Of a prompt of at most so many tokens.
    pub fn of(prompt_tokens: u64) -> Self {
        let class = (prompt_tokens.checked_ilog2().unwrap_or(0) as usize).min(CLASSES - 1);
        Self(class as u8)
    }
}

/// Of a model; those that were never met take no room.
type Classes = [Option<Box<Sizes>>; CLASSES];

/// See the module.
#[derive(Default)]
pub struct AnswerSizes {
    by_model: RefCell<HashMap<Box<str>, Classes, ahash::RandomState>>,
}

impl AnswerSizes {
    /// What the next request needs more than with this probability at most; `None` while too
    /// little is known for that.
    pub fn exceeded_with(&self, probability: f64, model: &str, class: SizeClass) -> Option<u64> {
        self.of(model, class, |sizes| sizes.exceeded_with(probability))
    }

    /// What requests need on the average; `None` while too little is known.
    pub fn mean(&self, model: &str, class: SizeClass) -> Option<u64> {
        // The cast saturates, and what is no number becomes 0.
        self.of(model, class, |sizes| (sizes.seen >= SAMPLES_MIN).then_some(sizes.mean.ceil() as u64))
    }

    fn of(&self, model: &str, class: SizeClass, estimate: impl Fn(&Sizes) -> Option<u64>) -> Option<u64> {
        let by_model = self.by_model.borrow();
        by_model.get(model)?.get(usize::from(class.0))?.as_deref().and_then(estimate)
    }

    /// An answer has ended, and this is what the request needed.
    pub fn learn(&self, model: &str, class: SizeClass, tokens: u64) {
        let mut by_model = self.by_model.borrow_mut();
        if !by_model.contains_key(model) {
            if by_model.len() >= MODELS_MAX {
                return;
            }
            by_model.insert(model.into(), Default::default());
        }
        if let Some(sizes) = by_model.get_mut(model).and_then(|classes| classes.get_mut(usize::from(class.0))) {
            sizes.get_or_insert_default().add(tokens);
        }
    }
}

/// Of one model and class.
#[derive(Default)]
struct Sizes {
    /// Of all so far, or of about the last [`MEMORY`].
    mean: f64,
    seen: u32,
    /// The latest, and the [`GENERATION`] before them.
    latest: Counts,
    before: Counts,
}

impl Sizes {
    fn add(&mut self, tokens: u64) {
        self.seen = self.seen.saturating_add(1);
        self.mean += (tokens as f64 - self.mean) / f64::from(self.seen.min(MEMORY));
        if self.latest.sum >= GENERATION {
            self.before = std::mem::take(&mut self.latest);
        }
        self.latest.add(tokens);
    }

    /// A walk over the buckets, from the largest down: less than a microsecond.
    fn exceeded_with(&self, probability: f64) -> Option<u64> {
        let known = self.latest.sum + self.before.sum;
        let rank = (probability * f64::from(known + 1)) as u32;
        if known < SAMPLES_MIN || rank == 0 {
            return None;
        }
        let mut at_least = 0;
        let counts = self.latest.by_bucket.iter().zip(&self.before.by_bucket).enumerate().rev();
        let found = counts.map(|(place, (latest, before))| (place, u32::from(*latest) + u32::from(*before))).find(
            |(_, count)| {
                at_least += count;
                at_least >= rank
            },
        );
        found.map(|(place, _)| largest_in(place))
    }
}

/// How many answers were of which size.
struct Counts {
    by_bucket: [u16; BUCKETS],
    sum: u32,
}

const _: () = assert!(GENERATION <= u16::MAX as u32, "all of a generation may lie in one bucket");

impl Default for Counts {
    fn default() -> Self {
        Self { by_bucket: [0; BUCKETS], sum: 0 }
    }
}

impl Counts {
    fn add(&mut self, tokens: u64) {
        if let Some(count) = self.by_bucket.get_mut(bucket(tokens)) {
            *count = count.saturating_add(1);
            self.sum += 1;
        }
    }
}

/// Sizes below 32 have a bucket each; of those above, the first five bits count.
const fn bucket(tokens: u64) -> usize {
    let tokens = if tokens > TOKENS_MAX { TOKENS_MAX } else { tokens };
    if tokens < BUCKETS_PER_OCTAVE {
        return tokens as usize;
    }
    let shift = tokens.ilog2() - BUCKETS_PER_OCTAVE_LOG2;
    (shift as u64 * BUCKETS_PER_OCTAVE + (tokens >> shift)) as usize
}

/// The largest size that a bucket counts.
fn largest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * BUCKETS_PER_OCTAVE {
        return bucket;
    }
    let shift = bucket / BUCKETS_PER_OCTAVE - 1;
    let first_bits = BUCKETS_PER_OCTAVE + bucket % BUCKETS_PER_OCTAVE;
    ((first_bits + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: SizeClass = SizeClass(5);

    fn learned(values: impl IntoIterator<Item = u64>) -> AnswerSizes {
        let sizes = AnswerSizes::default();
        values.into_iter().for_each(|value| sizes.learn("m", CLASS, value));
        sizes
    }

    /// Numbers from 0 to below 1 in no particular order, the same every time.
    fn numbers() -> impl Iterator<Item = f64> {
        let mut state = 1_u64;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        })
    }

    #[test]
    fn prompts_are_told_apart_by_powers_of_two() {
        for (tokens, class) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (1_023, 9), (1_024, 10), (u64::MAX, 23)] {
            assert_eq!(SizeClass::of(tokens), SizeClass(class), "{tokens}");
        }
    }

    #[test]
    fn a_bucket_ends_where_the_next_one_begins() {
        for place in 0..BUCKETS {
            let largest = largest_in(place);
            assert_eq!(bucket(largest), place);
            assert_eq!(bucket(largest + 1), (place + 1).min(BUCKETS - 1), "{largest}");
        }
        assert_eq!(largest_in(BUCKETS - 1), TOKENS_MAX);
    }

    #[test]
    fn nothing_is_estimated_from_too_few_answers() {
        let few = learned([100; SAMPLES_MIN as usize - 1]);
        assert_eq!((few.exceeded_with(0.5, "m", CLASS), few.mean("m", CLASS)), (None, None));
        let sizes = learned([100; SAMPLES_MIN as usize]);
        assert_eq!((sizes.exceeded_with(0.5, "m", CLASS), sizes.mean("m", CLASS)), (Some(103), Some(100)));
        assert_eq!(sizes.exceeded_with(0.5, "m", SizeClass(6)), None, "another size");
        assert_eq!(sizes.exceeded_with(0.5, "other", CLASS), None);
    }

    #[test]
    fn what_is_rarer_than_anything_seen_is_not_estimated() {
        for (answers, probability, is_known) in
            [(98, 0.01, false), (99, 0.01, true), (998, 0.001, false), (999, 0.001, true), (50_000, 0.000_1, false)]
        {
            let sizes = learned(std::iter::repeat_n(100, answers));
            assert_eq!(sizes.exceeded_with(probability, "m", CLASS).is_some(), is_known, "{answers}");
        }
    }

    #[test]
    fn the_mean_is_that_of_the_answers() {
        let sizes = learned((0..200).map(|at| if at % 2 == 0 { 60 } else { 140 }));
        // Rounded up, which may be from a hair above.
        assert!(sizes.mean("m", CLASS).is_some_and(|mean| (100..=101).contains(&mean)));
    }

    /// One answer in twenty is up to forty times as long as the others, which mean and deviations
    /// do not see.
    #[test]
    fn no_more_answers_than_allowed_need_more() {
        for probability in [0.1, 0.01, 0.002] {
            let mut numbers = numbers();
            let mut number = || numbers.next().unwrap();
            let sizes = AnswerSizes::default();
            let (mut estimated, mut exceeded) = (0, 0);
            for _ in 0..60_000 {
                let tokens = if number() < 0.05 { 400.0 + 7_600.0 * number() } else { 200.0 + 200.0 * number() };
                if let Some(estimate) = sizes.exceeded_with(probability, "m", CLASS) {
                    estimated += 1;
                    exceeded += u32::from(tokens as u64 > estimate);
                }
                sizes.learn("m", CLASS, tokens as u64);
            }
            let share = f64::from(exceeded) / f64::from(estimated);
            assert!(share <= probability * 1.1, "{share} of {probability}");
            assert!(share >= probability / 4.0, "{share} of {probability}: more is reserved than has to be");
        }
    }

    #[test]
    fn a_model_that_answers_otherwise_now_is_followed() {
        for (before, now) in [(100, 1_000), (1_000, 100)] {
            let sizes = learned((0..50_000).map(|at| if at < 40_000 { before } else { now }));
            assert!(sizes.mean("m", CLASS).is_some_and(|mean| mean.abs_diff(now) < 10));
            assert_eq!(sizes.exceeded_with(0.01, "m", CLASS), Some(largest_in(bucket(now))));
        }
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
        assert_eq!(sizes.mean("0", SizeClass(0)), Some(5));
        assert_eq!(sizes.mean(&MODELS_MAX.to_string(), SizeClass(0)), None);
    }

    #[test]
    fn no_count_breaks_an_estimate() {
        let sizes = learned([u64::MAX, 0].into_iter().cycle().take(60));
        assert_eq!(sizes.exceeded_with(0.1, "m", CLASS), Some(TOKENS_MAX));
        assert!(sizes.mean("m", CLASS).is_some());
        assert_eq!(sizes.exceeded_with(f64::NAN, "m", CLASS), None);
    }

    proptest::proptest! {
        #[test]
        fn of_what_was_seen_no_larger_part_is_above(
            values in proptest::collection::vec(0_u64..100_000, 30..900),
            probability in 0.04_f64..0.5,
        ) {
            let estimate = learned(values.iter().copied()).exceeded_with(probability, "m", CLASS).unwrap();
            let above = values.iter().filter(|value| **value > estimate).count();
            assert!(above as f64 <= probability * (values.len() + 1) as f64);
        }
    }
}
