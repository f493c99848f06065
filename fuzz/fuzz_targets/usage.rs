//! Are token counts the same wherever an answer is cut and whatever answer came before it, in every
//! dialect, and right where the answer is JSON?
#![no_main]

use dataplane::provider::Dialect;
use dataplane::provider::usage::{Streamed, Usage, UsageForm, UsageReader};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fn told<'s>(mut reader: UsageReader, parts: impl Iterator<Item = &'s [u8]>) -> (Usage, Streamed) {
    for part in parts {
        reader.observe(part);
    }
    (reader.usage(), reader.streamed())
}

/// The counts of a whole answer, which was written in `form` or not.
fn told_whole(dialect: Dialect, answer: &[u8], form: &mut UsageForm) -> (Usage, Streamed) {
    let mut reader = UsageReader::json(dialect);
    reader.observe_whole(answer, form);
    (reader.usage(), reader.streamed())
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, answer)) = data.split_first() else { return };
    let size = usize::from(size % 64) + 1;
    for dialect in [Dialect::OpenAi, Dialect::Anthropic, Dialect::Gemini, Dialect::Cohere] {
        for reader in [UsageReader::json(dialect), UsageReader::sse(dialect)] {
            let whole = told(reader.clone(), std::iter::once(answer));
            assert_eq!(told(reader, answer.chunks(size)), whole);
            assert!(whole.0.input <= 4 << 53 && whole.0.output <= 2 << 53, "not clamped");
        }
        let mut form = UsageForm::default();
        let other: Vec<u8> = answer.iter().map(|byte| if byte.is_ascii_digit() { byte ^ 1 } else { *byte }).collect();
        let shorter = answer.split_last().map_or(answer, |(_, shorter)| shorter);
        for answer in [answer, &other, answer, shorter, answer, answer] {
            let alone = told_whole(dialect, answer, &mut UsageForm::default());
            assert_eq!(told_whole(dialect, answer, &mut form), alone);
        }
    }

    // A tree keeps the last of two members, as we do; escaped keys are not recognised here.
    if answer.contains(&b'\\') {
        return;
    }
    let Ok(value) = serde_json::from_slice::<Value>(answer) else { return };
    let count = |value: &Value| value["usage"]["output_tokens"].as_u64();
    let usage = told(UsageReader::json(Dialect::Anthropic), std::iter::once(answer)).0;
    if let (Some(output), true) = (count(&value), value["message"].is_null())
        && output <= 1 << 53
        && answer.windows(8).filter(|window| window == b"\"usage\":").count() == 1
        && answer.windows(15).filter(|window| window == b"\"output_tokens\"").count() == 1
    {
        assert_eq!(usage.output, output);
    }
});
