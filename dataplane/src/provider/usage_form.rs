//! How a provider wrote the counts of its last answer: the end of the text, from their key on. The next
//! answer is mostly written alike, all but the numbers, and then these are all that is read of it.

use super::usage_finder::Counts;
use super::usage_plans::Step;
use super::usage_tail::{self, Number, leading_number};

/// A longer end is read each time. With all its details, a usage has 300 bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// See the module. Empty until an answer was read.
#[derive(Clone, Debug, Default)]
pub struct UsageForm {
    plan: &'static [Step],
    text: Vec<u8>,
    /// Those of `text`, in its order.
    numbers: Vec<Number>,
}

impl UsageForm {
    /// What [`usage_tail::read`] finds in `tail`.
    pub(super) fn read(&mut self, plan: &'static [Step], tail: &[u8]) -> Option<Counts> {
        if tail.len() > TEXT_BYTES_MAX {
            // Nor are its numbers kept, of which it may have thousands.
            return usage_tail::read(plan, tail, &mut Vec::new());
        }
        if let Some(counts) = self.read_alike(plan, tail) {
            return Some(counts);
        }
        self.text.clear();
        self.numbers.clear();
        let counts = usage_tail::read(plan, tail, &mut self.numbers)?;
        self.plan = plan;
        self.text.extend_from_slice(tail);
        Some(counts)
    }

    /// `None`: it is written in another way.
    fn read_alike(&self, plan: &'static [Step], tail: &[u8]) -> Option<Counts> {
        if self.text.is_empty() || !std::ptr::eq(self.plan, plan) {
            return None;
        }
        let mut counts = Counts::default();
        let (mut passed, mut rest) = (0, tail);
        for Number { digits, slot } in &self.numbers {
            rest = rest.strip_prefix(self.text.get(passed..digits.start)?)?;
            // Behind it has to be what was there before, and that is no digit.
            let (value, count @ 1..) = leading_number(rest) else { return None };
            if let Some(slot) = *slot {
                counts.set(slot, value);
            }
            (passed, rest) = (digits.end, rest.get(count..)?);
        }
        (rest == self.text.get(passed..)?).then_some(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::usage_plans::{ANTHROPIC, COHERE, GEMINI, OPENAI};
    use super::*;
    use proptest::prelude::*;

    const TAIL: &str = r#""usage":{"prompt_tokens":12,"completion_tokens":345,"total_tokens":357,
        "completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":7}},"fingerprint":"fp_12"}"#;

    fn afresh(plan: &'static [Step], tail: &str) -> Option<Counts> {
        usage_tail::read(plan, tail.as_bytes(), &mut Vec::new())
    }

    fn form_of(tail: &str) -> UsageForm {
        let mut form = UsageForm::default();
        assert!(form.read(OPENAI, tail.as_bytes()).is_some(), "{tail}");
        form
    }

    /// `tail` is read as if nothing were known of others, by its form if it `is_alike`.
    fn check(form: &UsageForm, tail: &str, is_alike: bool) {
        let expected = afresh(OPENAI, tail);
        let alike = form.read_alike(OPENAI, tail.as_bytes());
        assert_eq!(alike, expected.filter(|_| is_alike), "{tail}");
        assert_eq!(form.clone().read(OPENAI, tail.as_bytes()), expected, "{tail}");
    }

    #[test]
    fn other_numbers_in_the_same_words_are_read_by_the_form() {
        let form = form_of(TAIL);
        for number in ["0", "1", "12", "007", "999999999999999"] {
            for old in ["12,", "345,", "357,", "0,", "7}"] {
                let (digits, end) = old.split_at(old.len() - 1);
                check(&form, &TAIL.replacen(&format!(":{digits}{end}"), &format!(":{number}{end}"), 1), true);
            }
        }
    }

    #[test]
    fn what_is_no_number_to_be_believed_is_not() {
        let form = form_of(TAIL);
        for word in ["", "-1", "1.5", "1e3", "null", "\"12\"", "1000000000000000", " 12", "12 ", "{}", "1 2"] {
            check(&form, &TAIL.replacen(":12,", &format!(":{word},"), 1), false);
        }
    }

    #[test]
    fn an_end_that_differs_in_any_byte_that_is_no_digit_is_another() {
        let form = form_of(TAIL);
        for at in 0..TAIL.len() {
            for byte in [b'x', b'"', b'}', b'{', b',', b' ', b'9', b'\\'] {
                let mut bytes = TAIL.as_bytes().to_vec();
                let is_digit_of_number = form.numbers.iter().any(|number| number.digits.contains(&at));
                let is_alike = bytes[at] == byte || byte == b'9' && is_digit_of_number;
                bytes[at] = byte;
                check(&form, std::str::from_utf8(&bytes).unwrap(), is_alike);
            }
            check(&form, &TAIL[..at], false);
        }
        check(&form, &format!("{TAIL} "), false);
    }

    #[test]
    fn a_form_is_for_its_own_dialect() {
        let form = form_of(TAIL);
        for plan in [ANTHROPIC, GEMINI, COHERE] {
            assert_eq!(form.read_alike(plan, TAIL.as_bytes()), None);
            assert_eq!(form.clone().read(plan, TAIL.as_bytes()), afresh(plan, TAIL));
        }
    }

    #[test]
    fn a_long_end_is_not_remembered() {
        let long = TAIL.replacen("12,", &format!("12,{}", "\"other\":1,".repeat(TEXT_BYTES_MAX)), 1);
        let form = form_of(&long);
        assert!(form.text.is_empty() && form.numbers.capacity() == 0);
        check(&form, &long, false);
        let mut form = form_of(TAIL);
        assert!(form.read(OPENAI, long.as_bytes()).is_some());
        check(&form, TAIL, true);
    }

    fn some_tail() -> impl Strategy<Value = String> {
        let value = prop_oneof![
            4 => "[0-9]{1,17}",
            1 => Just("null".to_owned()),
            1 => Just(r#"{"prompt_tokens":3}"#.to_owned()),
            1 => Just("{}".to_owned()),
            1 => Just(r#""a1""#.to_owned()),
        ];
        let key = prop_oneof![Just("prompt_tokens"), Just("completion_tokens"), Just("other1"), Just("usage")];
        proptest::collection::vec((key, value), 1..4).prop_map(|members| {
            let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("\"usage\":{{{}}}}}", members.join(","))
        })
    }

    proptest! {
        #[test]
        fn a_form_never_makes_a_difference(tails in proptest::collection::vec(some_tail(), 1..20)) {
            let mut form = UsageForm::default();
            for tail in tails {
                prop_assert_eq!(form.read(OPENAI, tail.as_bytes()), afresh(OPENAI, &tail), "{}", tail);
            }
        }
    }
}
