//! A request head reads the same however it is split, and one that is accepted and written
//! anew is accepted again as the same request.
#![no_main]

use dataplane::http1::{
    Field, Framing, HeadFault, HeadWriter, Known, Parsed, REQUEST_FIELDS_MAX, RequestHead, parse_request,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first byte says where to split; the rest is what a client sends.
    let Some((&split, input)) = data.split_first() else { return };
    let mut head = RequestHead::new();
    let whole = parse_request(input, &mut head);
    let split = usize::from(split) * input.len() / 256;
    let (pieces, split_head) = parse_pieces(&[&input[..split], input]);
    assert_eq!(pieces, whole);
    if whole.is_ok() {
        assert_eq!(split_head, head);
    }
    if input.len() <= 512 {
        let growing: Vec<&[u8]> = (0..=input.len()).map(|end| &input[..end]).collect();
        assert_eq!(parse_pieces(&growing).0, whole);
    }
    if matches!(whole, Ok(Parsed::Complete { .. })) {
        assert_written_alike(input, &head);
    }
});

fn parse_pieces(views: &[&[u8]]) -> (Result<Parsed, HeadFault>, RequestHead) {
    let mut head = RequestHead::new();
    let mut result = Ok(Parsed::Partial);
    for view in views {
        result = parse_request(view, &mut head);
        if result != Ok(Parsed::Partial) {
            break;
        }
    }
    (result, head)
}

fn assert_written_alike(input: &[u8], head: &RequestHead) {
    let written = write(input, head);
    // Encoding a bare byte makes three of it, and an HTTP/1.0 head without Host gets one: a head
    // near a bound may grow over it.
    if written.len() > input.len() + 64 || head.fields().len() >= REQUEST_FIELDS_MAX {
        return;
    }
    let mut copy = RequestHead::new();
    let again = parse_request(&written, &mut copy).expect("what we write is strict");
    assert_eq!(again, Parsed::Complete { head_len: written.len() });
    assert_eq!(copy.method_bytes(&written), head.method_bytes(input));
    assert_eq!(copy.framing(), head.framing());
    assert_eq!(relayed(&written, &copy), relayed(input, head));
    assert!(copy.keep_alive());
    assert_eq!(write(&written, &copy), written, "written once more, nothing changes");
}

fn write(input: &[u8], head: &RequestHead) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = HeadWriter::request(&mut out, head.method_bytes(input), head.path(input), head.query(input))
        .expect("an accepted request line can be written");
    writer.known(Known::Host, head.host(input).unwrap_or(b"none")).expect("a host is a value");
    for (name, value) in relayed(input, head) {
        writer.field(&name, &value).expect("an accepted field can be written");
    }
    match head.framing() {
        Framing::None => {}
        Framing::Length(length) => writer.content_length(length),
        Framing::Chunked => writer.chunked(),
    }
    writer.finish();
    out
}

fn relayed(buf: &[u8], head: &RequestHead) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pair = |field: &Field| (field.name.of(buf).to_ascii_lowercase(), field.value.of(buf).to_vec());
    head.fields().iter().filter(|field| field.relays_to_provider()).map(pair).collect()
}
