//! An answer head reads the same however it is split, and one that is accepted and written
//! anew is accepted again as the same answer. One that is compared with a head before it reads as
//! it does alone. What it tells of the provider's limits is within bounds.
#![no_main]

use dataplane::http1::{
    AnswerForm, BodyFraming, Field, HeadWriter, Method, Parsed, ResponseFault, ResponseHead, parse_response,
};
use dataplane::provider::told;
use libfuzzer_sys::fuzz_target;
use std::time::Duration;

fuzz_target!(|data: &[u8]| {
    // The first byte says where to split, and in its lowest bit what was asked.
    let Some((&choice, input)) = data.split_first() else { return };
    let asked = if choice & 1 == 0 { Method::Get } else { Method::Head };
    let mut head = ResponseHead::new();
    let whole = parse_response(input, asked, &mut head);
    let split = usize::from(choice) * input.len() / 256;
    let (pieces, split_head) = parse_pieces(asked, &[&input[..split], input]);
    assert_eq!(pieces, whole);
    if whole.is_ok() {
        assert_eq!(split_head, head);
    }
    if input.len() <= 512 {
        let growing: Vec<&[u8]> = (0..=input.len()).map(|end| &input[..end]).collect();
        assert_eq!(parse_pieces(asked, &growing).0, whole);
    }
    if matches!(whole, Ok(Parsed::Complete { .. })) {
        assert_written_alike(input, asked, &head);
        assert_bounded(input, &head);
    }
    assert_followed(input, split, asked);
});

/// Heads that differ from `input` at `at`, and it again, after it and after one another.
fn assert_followed(input: &[u8], at: usize, asked: Method) {
    let mut form = AnswerForm::default();
    let (begin, end) = input.split_at(at);
    let without = [begin, end.get(1..).unwrap_or_default()].concat();
    let twice = [begin, &end[..end.len().min(1)], end].concat();
    let longer = [begin, b"0 a", end].concat();
    let (one_line, next_line) = ([begin, b"\r\n"].concat(), [begin, b"\r\n", end].concat());
    for other in [end, &without, &twice, &longer, &one_line, &next_line] {
        for bytes in [input, other, input, other, other, input] {
            let (mut head, mut alone) = (ResponseHead::new(), ResponseHead::new());
            assert_eq!(form.parse_response(bytes, asked, &mut head), parse_response(bytes, asked, &mut alone));
            assert_eq!(head, alone);
        }
    }
}

/// 32 days.
const TOLD_TIME_MAX: Duration = Duration::from_secs(32 * 86_400);

fn assert_bounded(input: &[u8], head: &ResponseHead) {
    let fields = || head.fields().iter().map(|field| (field.name.of(input), field.value.of(input)));
    let date = fields().find_map(|(_, value)| told::http_date(value)).unwrap_or_default();
    let limits = told::provider_limits(fields(), date);
    assert!(head.tells_limits() || limits.is_empty());
    for told in [limits.requests, limits.tokens, limits.input_tokens, limits.output_tokens] {
        assert!(told.limit != Some(0));
        assert!(told.reset_after.is_none_or(|after| after <= TOLD_TIME_MAX));
    }
    assert!(told::retry_after(fields()).is_none_or(|after| after <= TOLD_TIME_MAX));
}

fn parse_pieces(asked: Method, views: &[&[u8]]) -> (Result<Parsed, ResponseFault>, ResponseHead) {
    let mut head = ResponseHead::new();
    let mut result = Ok(Parsed::Partial);
    for view in views {
        result = parse_response(view, asked, &mut head);
        if result != Ok(Parsed::Partial) {
            break;
        }
    }
    (result, head)
}

fn assert_written_alike(input: &[u8], asked: Method, head: &ResponseHead) {
    let written = write(input, head);
    if written.len() > input.len() + 64 {
        return; // our reason phrase may carry a head near its bound over it
    }
    let mut copy = ResponseHead::new();
    let again = parse_response(&written, asked, &mut copy).expect("what we write is strict");
    assert_eq!(again, Parsed::Complete { head_len: written.len() });
    assert_eq!(copy.status(), head.status());
    let reframed = match head.framing() {
        BodyFraming::UntilClose => BodyFraming::Chunked,
        framing => framing,
    };
    assert_eq!(copy.framing(), reframed);
    assert_eq!(relayed(&written, &copy), relayed(input, head));
    assert_eq!(write(&written, &copy), written, "written once more, nothing changes");
}

fn write(input: &[u8], head: &ResponseHead) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = HeadWriter::response(&mut out, head.status()).expect("an accepted status");
    for (name, value) in relayed(input, head) {
        writer.field(&name, &value).expect("an accepted field can be written");
    }
    match head.framing() {
        BodyFraming::None => {}
        BodyFraming::Length(length) => writer.content_length(length),
        BodyFraming::Chunked | BodyFraming::UntilClose => writer.chunked(),
    }
    writer.finish();
    out
}

fn relayed(buf: &[u8], head: &ResponseHead) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pair = |field: &Field| (field.name.of(buf).to_ascii_lowercase(), field.value.of(buf).to_vec());
    head.fields().iter().filter(|field| field.relays_to_client()).map(pair).collect()
}
