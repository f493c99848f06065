//! How many tokens an attempt may need, and what they cost, what each limit therefore takes at the door, and what it
//! counts in the end. Pure.

use crate::answer_sizes::{AnswerSizes, SizeClass};
use crate::limiter::Charge;
use shared::limit::{ArchivedChargeRule, ChargeRule, LimitIndex, LimitRing, Unit};
use shared::snapshot::{ArchivedCounted, ArchivedLimitRecord, ArchivedPriceRecord, ArchivedReserve, ArchivedUnit};

/// The body of a request, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// All of them.
    pub bytes: u32,
    /// Those of characters beyond ASCII.
    pub non_ascii_bytes: u32,
}

impl Body {
    fn ascii(self) -> u64 {
        u64::from(self.bytes.saturating_sub(self.non_ascii_bytes))
    }

    /// A bound on its tokens. Tokenisers spend at most a token a byte on text beyond ASCII; on
    /// ASCII (prose, code, JSON) less than one for two bytes. Images and files that are only named
    /// by an address cost more than their address tells; the excess is charged when the answer
    /// says so.
    pub fn tokens_bound(self) -> u64 {
        self.ascii().div_ceil(2).saturating_add(u64::from(self.non_ascii_bytes))
    }

    /// What a provider takes it for before it has counted it: a quarter of its characters, as
    /// `OpenAI` documents it. An estimate and no bound.
    pub fn tokens_formula(self) -> u64 {
        // Two bytes a character and more.
        let characters = self.ascii().saturating_add(u64::from(self.non_ascii_bytes).div_ceil(2));
        characters.div_ceil(4)
    }
}

/// What a model costs; as [`shared::snapshot::PriceRecord`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    input_nano_usd: u64,
    output_nano_usd: u64,
}

impl Price {
    /// Of so many tokens, in millionths of a dollar, rounded up.
    pub fn micro_usd(self, prompt: u64, output: u64) -> u64 {
        let input_nano_usd = prompt.saturating_mul(self.input_nano_usd);
        input_nano_usd.saturating_add(output.saturating_mul(self.output_nano_usd)).div_ceil(1_000)
    }
}

impl From<&ArchivedPriceRecord> for Price {
    fn from(record: &ArchivedPriceRecord) -> Self {
        let (input, output) = (record.input_nano_usd.to_native(), record.output_nano_usd.to_native());
        Self { input_nano_usd: input, output_nano_usd: output }
    }
}

/// A budget applies, and nobody knows what the model costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceUnknown;

/// Tokens that an attempt may need.
pub struct Needs<'a> {
    sizes: &'a AnswerSizes,
    model: &'a str,
    prompt_bound: u64,
    prompt_formula: u64,
    output: u64,
    class: Option<SizeClass>,
    price: Option<Price>,
}

impl<'a> Needs<'a> {
    /// Of a request for `choices`, each of `output` tokens at most.
    pub fn new(sizes: &'a AnswerSizes, model: &'a str, body: Body, output: u64, choices: u64) -> Self {
        let prompt_bound = body.tokens_bound();
        Self {
            sizes,
            model,
            prompt_bound,
            prompt_formula: body.tokens_formula(),
            output: output.saturating_mul(choices),
            class: (choices == 1).then(|| SizeClass::of(prompt_bound)),
            price: None,
        }
    }

    /// The same, of a model that costs so much.
    #[must_use]
    pub fn at(self, price: Option<Price>) -> Self {
        Self { price, ..self }
    }

    /// `None` where answers to such requests are not learned from.
    pub fn class(&self) -> Option<SizeClass> {
        self.class
    }

    /// What a limit takes for one attempt. `ring` is the limit's, where there is one.
    pub fn charge(
        &self,
        limit: LimitIndex,
        record: &ArchivedLimitRecord,
        ring: Option<&LimitRing>,
    ) -> Result<Charge, PriceUnknown> {
        let (unit, mut amount) = match record.unit {
            ArchivedUnit::Requests => (Unit::Requests, 1),
            ArchivedUnit::Tokens => (Unit::Tokens, self.tokens(record)),
            ArchivedUnit::Concurrent => (Unit::Concurrent, 1),
            ArchivedUnit::MicroUsd => {
                let price = self.price.ok_or(PriceUnknown)?;
                (Unit::MicroUsd, price.micro_usd(self.prompt_bound, self.output))
            }
        };
        if record.paces.is_some() {
            // A request that is larger than the pace takes all of it, and goes on its own.
            amount = amount.min(ring.map_or(amount, |ring| ring.entitlement().max(1)));
        }
        Ok(Charge { limit, unit, rule: rule(record.charge.rule), amount })
    }

    /// Tokens that a limit reserves.
    pub fn tokens(&self, record: &ArchivedLimitRecord) -> u64 {
        let charge = &record.charge;
        let prompt = match charge.reserve {
            ArchivedReserve::Bound | ArchivedReserve::Learned => self.prompt_bound,
            ArchivedReserve::Formula => self.prompt_formula,
        };
        let most = match charge.counted {
            ArchivedCounted::Prompt => prompt,
            ArchivedCounted::PromptAndOutput => prompt.saturating_add(self.output),
        };
        match charge.reserve {
            ArchivedReserve::Bound | ArchivedReserve::Formula => most,
            ArchivedReserve::Learned => self.learned(record).map_or(most, |estimate| estimate.min(most)),
        }
    }

    fn learned(&self, record: &ArchivedLimitRecord) -> Option<u64> {
        let class = self.class?;
        // A pace is meant to be met by the mean.
        if record.paces.is_some() {
            self.sizes.mean(self.model, class)
        } else {
            self.sizes.exceeded_with(record.overshoot_probability.to_native(), self.model, class)
        }
    }
}

fn rule(rule: ArchivedChargeRule) -> ChargeRule {
    match rule {
        ArchivedChargeRule::Settlement => ChargeRule::Settlement,
        ArchivedChargeRule::Admission => ChargeRule::Admission,
        ArchivedChargeRule::Either => ChargeRule::Either,
        ArchivedChargeRule::AdmissionRefunded => ChargeRule::AdmissionRefunded,
    }
}

/// What an answer told about its tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Tokens of the prompt, as far as they were told.
    pub prompt: u64,
    /// Tokens of prompt and answer, as far as they were told.
    pub all: u64,
    /// There will be no more of them; otherwise what was reserved may have been used.
    pub is_final: bool,
}

impl Used {
    /// Units that a limit counts which took so many at the door.
    pub fn counted(self, record: &ArchivedLimitRecord, reserved: u64, price: Option<Price>) -> u64 {
        let told = match (&record.unit, &record.charge.counted) {
            (ArchivedUnit::MicroUsd, _) => {
                let output = self.all.saturating_sub(self.prompt);
                price.map_or(reserved, |price| price.micro_usd(self.prompt, output))
            }
            (_, ArchivedCounted::Prompt) => self.prompt,
            (_, ArchivedCounted::PromptAndOutput) => self.all,
        };
        if self.is_final { told } else { told.max(reserved) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer_sizes::SAMPLES_MIN;
    use shared::snapshot::{Counted, Enforcement, LimitRecord, Reserve, TokenCharge};

    /// All of them ASCII: at most 500 tokens, 250 by the formula.
    const BODY: Body = Body { bytes: 1_000, non_ascii_bytes: 0 };

    fn needs(sizes: &AnswerSizes, choices: u64) -> Needs<'_> {
        Needs::new(sizes, "m", BODY, 1_000, choices)
    }

    fn reserved(needs: &Needs<'_>, counted: Counted, reserve: Reserve, paces: Option<u32>) -> u64 {
        let record = LimitRecord {
            id: "a/tokens".into(),
            unit: Unit::Tokens,
            amount: 10_000,
            window_ns: 60_000_000_000,
            enforcement: Enforcement::Strict,
            charge: TokenCharge { counted, reserve, rule: ChargeRule::Settlement },
            on_node_loss: None,
            max_wait_ns: 0,
            overshoot_probability: 0.1,
            is_learned: false,
            is_part: false,
            paces,
        };
        let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&record).unwrap();
        needs.tokens(rkyv::access::<ArchivedLimitRecord, rkyv::rancor::Error>(&bytes).unwrap())
    }

    #[test]
    fn each_limit_reserves_what_it_counts() {
        let sizes = AnswerSizes::default();
        let reserved = |counted, reserve| reserved(&needs(&sizes, 1), counted, reserve, None);
        assert_eq!(reserved(Counted::Prompt, Reserve::Bound), 500);
        assert_eq!(reserved(Counted::PromptAndOutput, Reserve::Bound), 1_500);
        assert_eq!(reserved(Counted::Prompt, Reserve::Formula), 250);
        assert_eq!(reserved(Counted::PromptAndOutput, Reserve::Formula), 1_250);
        assert_eq!(reserved(Counted::PromptAndOutput, Reserve::Learned), 1_500, "nothing is learned yet");
    }

    #[test]
    fn what_is_learned_is_reserved_and_never_more_than_the_bound() {
        for (used, expected) in [(300, 303), (9_000, 1_500)] {
            let sizes = AnswerSizes::default();
            (0..SAMPLES_MIN).for_each(|_| sizes.learn("m", SizeClass::of(500), used));
            let reserved =
                |choices| reserved(&needs(&sizes, choices), Counted::PromptAndOutput, Reserve::Learned, None);
            assert_eq!(reserved(1), expected);
            assert_eq!(reserved(2), 2_500, "of several choices nothing is learned");
        }
    }

    #[test]
    fn a_price_is_for_tokens_of_either_kind_and_rounds_up() {
        let price = Price { input_nano_usd: 2_500, output_nano_usd: 10_000 };
        assert_eq!(price.micro_usd(1_000, 100), 2_500 + 1_000);
        assert_eq!(price.micro_usd(1, 0), 3);
        assert_eq!(price.micro_usd(0, 0), 0);
        assert_eq!(price.micro_usd(u64::MAX, u64::MAX), u64::MAX.div_ceil(1_000));
    }

    #[test]
    fn a_pace_takes_the_mean() {
        let sizes = AnswerSizes::default();
        (0..100).for_each(|at| sizes.learn("m", SizeClass::of(500), if at % 2 == 0 { 200 } else { 400 }));
        let reserved = |paces| reserved(&needs(&sizes, 1), Counted::PromptAndOutput, Reserve::Learned, paces);
        assert!((300..=301).contains(&reserved(Some(0))));
        assert!(reserved(None) >= 400);
    }

    #[test]
    fn a_prompt_is_taken_for_a_quarter_of_its_characters() {
        let formula = |bytes, non_ascii_bytes| Body { bytes, non_ascii_bytes }.tokens_formula();
        assert_eq!((formula(400, 0), formula(401, 0), formula(400, 200)), (100, 101, 75));
        assert!(formula(400, 200) < Body { bytes: 400, non_ascii_bytes: 200 }.tokens_bound());
    }
}
