use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::provider::sse::tests::{parts, stream};

fn told(input: u64, output: u64) -> Usage {
    Usage { input, output, saw: Saw::Counts, flagged: false }
}

/// What `reader` makes of `bytes`, which is the same however they are cut.
fn observed(reader: &UsageReader, bytes: &[u8]) -> (Usage, Streamed) {
    let read = |cuts: &[usize]| {
        let mut reader = reader.clone();
        for part in parts(bytes, cuts) {
            reader.observe(part);
        }
        (reader.usage(), reader.streamed())
    };
    let whole = read(&[]);
    for cut in 0..=bytes.len() {
        assert_eq!(read(&[cut]), whole, "cut at {cut}");
    }
    let each: Vec<usize> = (0..bytes.len()).collect();
    assert_eq!(read(&each), whole, "byte by byte");
    whole
}

fn observed_whole(dialect: Dialect, answer: &str) -> (Usage, Streamed) {
    let mut reader = UsageReader::json(dialect);
    let mut form = UsageForm::default();
    reader.observe_whole(answer.as_bytes(), &mut form);
    let first = (reader.usage(), reader.streamed());
    // Again, now that it is known how such an answer is written.
    let mut reader = UsageReader::json(dialect);
    reader.observe_whole(answer.as_bytes(), &mut form);
    assert_eq!((reader.usage(), reader.streamed()), first, "{answer}");
    first
}

fn check_json(dialect: Dialect, answer: &str, expected: Usage) {
    let in_pieces = observed(&UsageReader::json(dialect), answer.as_bytes());
    assert_eq!(in_pieces.0, expected, "{answer}");
    assert_eq!(observed_whole(dialect, answer), in_pieces, "{answer}");
}

fn check_sse(dialect: Dialect, events: &[&str], expected: Usage) {
    let stream: String = events.iter().flat_map(|event| ["data: ", event, "\n\n"]).collect();
    let (usage, streamed) = observed(&UsageReader::sse(dialect), stream.as_bytes());
    assert_eq!((usage, streamed.events), (expected, events.len() as u64), "{stream}");
}

#[test]
fn openai_answers() {
    let chat = r#"{"id":"x","choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":99} [{"}}],
        "usage": { "prompt_tokens" : 12,"completion_tokens":30,"prompt_tokens_details":{"cached_tokens":8},"total_tokens":42},"x":"}"}"#;
    check_json(Dialect::OpenAi, chat, told(12, 30));
    check_json(
        Dialect::OpenAi,
        r#"{"usage":{"input_tokens":5,"output_tokens":6},"output":[{"usage":{"input_tokens":9}}]}"#,
        told(5, 6),
    );
    check_json(
        Dialect::OpenAi,
        r#"{"data":[{"embedding":[0.1,-2e-3]}],"usage":{"prompt_tokens":8,"total_tokens":8}}"#,
        told(8, 0),
    );
    check_json(Dialect::OpenAi, r#"{"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":9}}"#, told(1, 8));
}

#[test]
fn openai_streams() {
    check_sse(
        Dialect::OpenAi,
        &[
            r#"{"choices":[{"delta":{"content":"a \"usage\": b"}}],"usage":null}"#,
            r#"{"choices":[{"delta":{}}],"usage":null}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":30,"total_tokens":42}}"#,
            "[DONE]",
        ],
        told(12, 30),
    );
    check_sse(
        Dialect::OpenAi,
        &[
            r#"{"type":"response.created","response":{"id":"r","usage":null}}"#,
            r#"{"type":"response.completed","response":{"output":[{"a":{}}],"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}}"#,
        ],
        told(3, 4),
    );
}

#[test]
fn anthropic_answers_and_streams() {
    check_json(
        Dialect::Anthropic,
        r#"{"content":[],"usage":{"input_tokens":10,"cache_creation_input_tokens":20,"cache_read_input_tokens":30,"cache_creation":{"input_tokens":7},"output_tokens":5}}"#,
        told(60, 5),
    );
    let start = r#"{"type":"message_start","message":{"id":"m","content":[],"usage":{"input_tokens":25,"cache_read_input_tokens":5,"output_tokens":1}}}"#;
    check_sse(Dialect::Anthropic, &[start], Usage { saw: Saw::Beginning, ..told(30, 1) });
    check_sse(
        Dialect::Anthropic,
        &[
            start,
            r#"{"type":"content_block_delta","delta":{"text":"hi"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":7}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}"#,
            r#"{"type":"message_stop"}"#,
        ],
        told(30, 15),
    );
}

#[test]
fn gemini_answers_lists_and_streams_where_the_last_counts_stand() {
    let chunk = |text: &str, output: u32| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}]}}}}],"usageMetadata":{{"promptTokenCount":4,"candidatesTokenCount":{output},"totalTokenCount":{}}}}}"#,
            4 + output
        )
    };
    let (first, last) = (chunk("a", 1), chunk("b", 9));
    check_json(Dialect::Gemini, &last, told(4, 9));
    check_json(Dialect::Gemini, &format!("[{first}\n,\r\n{last}]"), told(4, 9));
    check_sse(Dialect::Gemini, &[&first, &last], told(4, 9));
    // Thinking is generated and billed; so is the input of tools.
    check_json(
        Dialect::Gemini,
        r#"{"usageMetadata":{"promptTokenCount":4,"toolUsePromptTokenCount":6,"candidatesTokenCount":2,"thoughtsTokenCount":30,"totalTokenCount":42}}"#,
        told(10, 32),
    );
}

#[test]
fn cohere_answers_and_streams() {
    let usage = r#""usage":{"billed_units":{"input_tokens":5,"output_tokens":6},"tokens":{"input_tokens":71,"output_tokens":8}}"#;
    check_json(Dialect::Cohere, &format!(r#"{{"message":{{}},{usage}}}"#), told(71, 8));
    check_json(Dialect::Cohere, r#"{"embeddings":{},"meta":{"billed_units":{"input_tokens":5}}}"#, told(5, 0));
    check_sse(
        Dialect::Cohere,
        &[
            r#"{"type":"content-delta","delta":{"message":{}}}"#,
            &format!(r#"{{"type":"message-end","delta":{{"finish_reason":"COMPLETE",{usage}}}}}"#),
        ],
        told(71, 8),
    );
}

#[test]
fn counts_that_cannot_be_are_clamped_and_flagged() {
    for (count, output) in [
        ("-5", 0),
        ("2.9", 2),
        ("1e3", 1000),
        ("1e999", 1 << 53),
        ("9007199254740993", 1 << 53),
        ("99999999999999999999999999999999999999999999", 1 << 53),
        ("NaN", 0),
        ("Infinity", 0),
        (r#""7""#, 0),
        ("[7]", 0),
        ("true", 0),
    ] {
        let answer = format!(r#"{{"usage":{{"prompt_tokens":1,"completion_tokens":{count}}}}}"#);
        let usage = observed(&UsageReader::json(Dialect::OpenAi), answer.as_bytes()).0;
        assert_eq!((usage.input, usage.output, usage.flagged), (1, output, true), "{count}");
    }
    check_json(Dialect::OpenAi, r#"{"usage":{"prompt_tokens":9007199254740992}}"#, told(1 << 53, 0));
    check_json(Dialect::OpenAi, r#"{"usage":null}"#, Usage::default());
}

#[test]
fn what_is_not_json_or_nested_without_end_tells_nothing() {
    for answer in
        ["", "<html>\"usage\"", "{\"usage\"", "}}}{\"usage\":{\"prompt_tokens\":1}}", "\"usage\"", "{\"a\" 1}"]
    {
        check_json(Dialect::OpenAi, answer, Usage::default());
    }
    let deep = format!(r#"{{"a":{},"usage":{{"prompt_tokens":1}}}}"#, "[".repeat(1000) + &"]".repeat(1000));
    let mut reader = UsageReader::json(Dialect::OpenAi);
    reader.observe(deep.as_bytes());
    assert_eq!(reader.usage(), Usage::default());
}

const HIDDEN: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n";

/// What a client gets of `stream` when usage is hidden, the same however it is cut.
fn filtered(stream: &[u8], cuts: &[usize]) -> (Vec<u8>, Usage) {
    let mut reader = UsageReader::sse_hiding_usage();
    let mut shown = Vec::new();
    for part in parts(stream, cuts) {
        match reader.filter(part) {
            Forward::All => shown.extend_from_slice(part),
            Forward::Parts { held, ranges } => {
                shown.extend_from_slice(held);
                for range in ranges {
                    assert!(!range.is_empty());
                    shown.extend_from_slice(&part[range.clone()]);
                }
            }
        }
    }
    shown.extend_from_slice(reader.finish());
    (shown, reader.usage())
}

fn check_filter(stream: &str, shown: &str) {
    for first in 0..=stream.len() {
        let cuts = [first, first + 40];
        assert_eq!(String::from_utf8_lossy(&filtered(stream.as_bytes(), &cuts).0), shown, "cut at {first}");
    }
    let each: Vec<usize> = (0..stream.len()).collect();
    assert_eq!(String::from_utf8_lossy(&filtered(stream.as_bytes(), &each).0), shown, "byte by byte");
}

#[test]
fn the_usage_event_is_hidden_and_nothing_else() {
    let before = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}],\"usage\":null}\n\n: ping\n\n";
    let after = "data: [DONE]\n\n";
    check_filter(&format!("{before}{HIDDEN}{after}"), &format!("{before}{after}"));
    check_filter(&format!("{before}: ping\r\n{HIDDEN}{after}"), &format!("{before}: ping\r\n{after}"));
    assert_eq!(filtered(HIDDEN.as_bytes(), &[]), (Vec::new(), told(3, 4)));
}

#[test]
fn events_that_only_resemble_it_are_shown() {
    for event in [
        r#"{"choices":[],"prompt_filter_results":[],"usage":null}"#,
        r#"{"choices":[{"delta":{}}],"usage":{"prompt_tokens":3}}"#,
        r#"{"choices":[],"x":{"usage":{"prompt_tokens":3}}}"#,
        r#"{"usage":{"prompt_tokens":3}}"#,
        r#"{"choices":[],"text":"\"usage\":{\"prompt_tokens\":3}"}"#,
    ] {
        let stream = format!("data: {event}\n\ndata: [DONE]\n\n");
        check_filter(&stream, &stream);
    }
}

#[test]
fn an_unfinished_event_is_given_out_at_the_end_unless_it_is_the_usage_event() {
    check_filter("data: a\n\ndata: [DONE]\n", "data: a\n\ndata: [DONE]\n");
    check_filter(&format!("data: a\n\n{}", HIDDEN.trim_end()), "data: a\n\n");
}

#[test]
fn no_more_than_its_bound_is_held_back_and_a_longer_event_is_shown() {
    let long = |pad: usize| {
        format!("data: {{\"choices\":[],\"x\":\"{}\",\"usage\":{{\"prompt_tokens\":3}}}}\n\n", "x".repeat(pad))
    };
    let rest = long(0).len();
    let (fits, too_long) = (long(HELD_EVENT_BYTES_MAX - rest), long(HELD_EVENT_BYTES_MAX - rest + 1));
    for cuts in [&[][..], &[5], &[9_000], &[16_383, 16_384]] {
        assert_eq!(filtered(fits.as_bytes(), cuts).0, b"");
        assert_eq!(filtered(too_long.as_bytes(), cuts).0, too_long.as_bytes());
    }
    let mut reader = UsageReader::sse_hiding_usage();
    for part in vec![b'x'; 100_000].chunks(1000) {
        reader.filter(part);
        assert!(reader.hiding.as_ref().unwrap().held.len() <= HELD_EVENT_BYTES_MAX + 1000);
    }
    assert_eq!(reader.hiding.as_ref().unwrap().held.len(), 0);
}

#[test]
fn a_reader_that_hides_nothing_forwards_all() {
    let mut reader = UsageReader::sse(Dialect::OpenAi);
    assert_eq!(reader.filter(HIDDEN.as_bytes()), Forward::All);
    assert_eq!(reader.usage(), told(3, 4));
}

#[test]
fn the_client_is_between_events_while_a_fragment_is_held_back() {
    for (mut reader, is_between) in
        [(UsageReader::sse(Dialect::OpenAi), false), (UsageReader::sse_hiding_usage(), true)]
    {
        reader.filter(b"data: a\n\n");
        assert!(reader.is_between_events());
        reader.filter(b"data: {\"choi");
        assert_eq!(reader.is_between_events(), is_between);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_stream_is_filtered_the_same_in_any_parts(
        stream in stream(), cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        prop_assert_eq!(filtered(&stream, &cuts), filtered(&stream, &[]));
    }

    #[test]
    fn any_bytes_tell_the_same_in_any_parts(
        bytes in prop::collection::vec(prop::sample::select(br#"{}[]",:\ 1e-."usage""choices""#.to_vec()), 0..80),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        for dialect in [Dialect::OpenAi, Dialect::Anthropic, Dialect::Gemini, Dialect::Cohere] {
            let read = |cuts: &[usize]| {
                let mut reader = UsageReader::json(dialect);
                for part in parts(&bytes, cuts) {
 reader.observe(part);
}
                reader.usage()
            };
            prop_assert_eq!(read(&cuts), read(&[]));
        }
    }

    #[test]
    fn usage_is_found_wherever_it_stands(
        before in prop::collection::vec("[a-z]{1,8}", 0..4), text in ".{0,40}",
        numbers in prop::collection::vec(any::<f32>(), 0..20),
        input in 0..1_000_000u64, output in 0..1_000_000u64, cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let mut answer = json!({});
        for (place, key) in before.iter().enumerate() {
            answer[format!("{key}{place}")] = json!({"usage": {"prompt_tokens": 1}, "text": text, "list": [numbers, text]});
        }
        answer["usage"] = json!({"x": {"prompt_tokens": 2}, "prompt_tokens": input, "completion_tokens": output});
        answer["text"] = json!(text);
        prop_assert_eq!(observed_whole(Dialect::OpenAi, &answer.to_string()).0, told(input, output));
        let answer = serde_json::to_vec_pretty(&answer).unwrap();
        let mut reader = UsageReader::json(Dialect::OpenAi);
        for part in parts(&answer, &cuts) {
 reader.observe(part);
}
        prop_assert_eq!(reader.usage(), told(input, output));
    }
}
