//! Promises of the codec over random bytes and mutated messages: how the input is split never
//! matters, nothing panics, and what is accepted and written anew is read as the same message.

use dataplane::http1::encode::{CHUNK_PREFIX_BYTES, LAST_CHUNK, chunk_prefix};
use dataplane::http1::{
    BodyFraming, ChunkDecoder, ChunkFault, Field, Framing, HeadFault, HeadWriter, Known, Method, Parsed, RequestHead,
    ResponseFault, ResponseHead, parse_request, parse_response,
};
use proptest::prelude::*;

/// Pieces that, put together at random, often make something almost right.
const PIECES: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"OPTIONS ",
    b"/",
    b"/a?b=c",
    b"http://h/",
    b"* ",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"Host: a\r\n",
    b"Host: [::1]:8\r\n",
    b"Content-Length: ",
    b"5\r\n",
    b"0",
    b"\r\n",
    b"\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Connection: close, x\r\n",
    b"Expect: 100-continue\r\n",
    b"x: y\r\n",
    b" ",
    b"\t",
    b"\n",
    b"\r",
    b"\0",
    b":",
    b";a=\"b\"",
    b";a",
    b"a\r\n0123456789\r\n",
    b"1\r\nx\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 204 X\r\n",
    b"HTTP/1.1 103 X\r\n\r\n",
    b"Vary: *\r\n",
    b"\xff",
    b"%41",
    b"%",
];

const SEEDS: &[&[u8]] = &[
    b"POST /v1/chat/completions?x=1 HTTP/1.1\r\nHost: gw:1\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n",
    b"GET http://u@h/p?q HTTP/1.1\r\nHost: a\r\nConnection: x-y\r\nX-Y: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"\r\nOPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.0 404\r\nContent-Length: 3\r\nConnection: keep-alive, a\r\nA: \xe9\r\n\r\n",
    b"5;a=\"b c\"\r\nhello\r\n006 ; x\r\n world\r\n0\r\nVary: *\r\n\r\nrest",
    b"1\r\nx\r\n1\r\ny\r\n0\r\n\r\n",
];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::collection::vec(prop::sample::select(PIECES), 0..14).prop_map(|pieces| pieces.concat());
    let mutated =
        (prop::sample::select(SEEDS), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 0..4))
            .prop_map(|(seed, changes)| {
                let mut bytes = seed.to_vec();
                for (at, byte, kind) in changes {
                    let at = at.index(bytes.len().max(1)).min(bytes.len());
                    match kind {
                        0 => bytes.insert(at, byte),
                        1 if at < bytes.len() => bytes[at] = byte,
                        _ if at < bytes.len() => drop(bytes.remove(at)),
                        _ => {}
                    }
                }
                bytes
            });
    prop_oneof![3 => pieces, 6 => mutated, 1 => prop::collection::vec(any::<u8>(), 0..80)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_request_head_reads_the_same_split_at_every_byte(input in bytes()) {
        let (whole, whole_head) = request(&[&input]);
        for at in 0..=input.len() {
            let (split, head) = request(&[&input[..at], &input]);
            prop_assert_eq!(split, whole);
            prop_assert!(whole.is_err() || head == whole_head);
        }
        let growing: Vec<&[u8]> = (0..=input.len()).map(|end| &input[..end]).collect();
        prop_assert_eq!(request(&growing).0, whole);
    }

    #[test]
    fn an_answer_head_reads_the_same_split_at_every_byte(input in bytes()) {
        let (whole, whole_head) = answer(&[&input]);
        for at in 0..=input.len() {
            let (split, head) = answer(&[&input[..at], &input]);
            prop_assert_eq!(split, whole);
            prop_assert!(whole.is_err() || head == whole_head);
        }
        let growing: Vec<&[u8]> = (0..=input.len()).map(|end| &input[..end]).collect();
        prop_assert_eq!(answer(&growing).0, whole);
    }

    #[test]
    fn a_chunked_body_reads_the_same_split_at_every_byte(input in bytes()) {
        let whole = body(&[&input]);
        for at in 0..=input.len() {
            prop_assert_eq!(&body(&[&input[..at], &input[at..]]), &whole);
        }
        let single: Vec<&[u8]> = input.chunks(1).collect();
        prop_assert_eq!(body(&single), whole);
    }

    #[test]
    fn an_accepted_request_is_written_as_the_same_request(input in bytes()) {
        let (result, head) = request(&[&input]);
        let Ok(Parsed::Complete { .. }) = result else { return Ok(()) };
        let relayed = relayed(&input, head.fields(), Field::relays_to_provider);
        let written = write_request(&input, &head, &relayed);
        let (again, copy) = request(&[&written]);
        prop_assert_eq!(again, Ok(Parsed::Complete { head_len: written.len() }));
        prop_assert_eq!(copy.method_bytes(&written), head.method_bytes(&input));
        prop_assert_eq!(copy.framing(), head.framing());
        prop_assert_eq!(self::relayed(&written, copy.fields(), Field::relays_to_provider), relayed);
        // Written once more, nothing is left to encode.
        let relayed = self::relayed(&written, copy.fields(), Field::relays_to_provider);
        prop_assert_eq!(write_request(&written, &copy, &relayed), written);
    }

    #[test]
    fn an_accepted_answer_is_written_as_the_same_answer(input in bytes()) {
        let (result, head) = answer(&[&input]);
        let Ok(Parsed::Complete { .. }) = result else { return Ok(()) };
        let relayed = relayed(&input, head.fields(), Field::relays_to_client);
        let mut written = Vec::new();
        let mut writer = HeadWriter::response(&mut written, head.status()).unwrap();
        for (name, value) in &relayed {
            writer.field(name, value).unwrap();
        }
        match head.framing() {
            BodyFraming::Length(length) => writer.content_length(length),
            BodyFraming::Chunked | BodyFraming::UntilClose => writer.chunked(),
            BodyFraming::None => {}
        }
        writer.finish();
        let (again, copy) = answer(&[&written]);
        prop_assert_eq!(again, Ok(Parsed::Complete { head_len: written.len() }));
        prop_assert_eq!(copy.status(), head.status());
        prop_assert_eq!(self::relayed(&written, copy.fields(), Field::relays_to_client), relayed);
    }

    #[test]
    fn chunks_written_are_the_payload_read(payloads in prop::collection::vec(
        prop::collection::vec(any::<u8>(), 1..300), 0..6,
    )) {
        let mut wire = Vec::new();
        for payload in &payloads {
            let mut headroom = [0; CHUNK_PREFIX_BYTES];
            let start = chunk_prefix(&mut headroom, u32::try_from(payload.len()).unwrap());
            wire.extend_from_slice(&headroom[start..]);
            wire.extend_from_slice(payload);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(LAST_CHUNK);
        let len = wire.len();
        wire.extend_from_slice(b"next");
        prop_assert_eq!(body(&[&wire]), Ok((payloads.concat(), len, true)));
    }
}

/// Parses views of one growing buffer until the head is complete or refused.
fn request(views: &[&[u8]]) -> (Result<Parsed, HeadFault>, RequestHead) {
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

fn answer(views: &[&[u8]]) -> (Result<Parsed, ResponseFault>, ResponseHead) {
    let mut head = ResponseHead::new();
    let mut result = Ok(Parsed::Partial);
    for view in views {
        result = parse_response(view, Method::Get, &mut head);
        if result != Ok(Parsed::Partial) {
            break;
        }
    }
    (result, head)
}

/// Payload, bytes consumed and whether the body ended, for pieces that follow each other.
fn body(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), ChunkFault> {
    let mut decoder = ChunkDecoder::new();
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for piece in pieces {
        let mut piece = piece.to_vec();
        let progress = decoder.decode_in_place(&mut piece)?;
        payload.extend_from_slice(progress.payload(&piece));
        consumed += progress.consumed;
        assert!(progress.done || progress.consumed == piece.len());
    }
    assert_eq!(decoder.payload_total(), payload.len() as u64);
    Ok((payload, consumed, decoder.is_done()))
}

fn relayed(buf: &[u8], fields: &[Field], is_relayed: fn(&Field) -> bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pair = |field: &Field| (field.name.of(buf).to_ascii_lowercase(), field.value.of(buf).to_vec());
    fields.iter().filter(|field| is_relayed(field)).map(pair).collect()
}

fn write_request(buf: &[u8], head: &RequestHead, relayed: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let method = head.method_bytes(buf);
    let mut writer = HeadWriter::request(&mut out, method, head.path(buf), head.query(buf)).unwrap();
    writer.known(Known::Host, head.host(buf).unwrap_or(b"none")).unwrap();
    for (name, value) in relayed {
        writer.field(name, value).unwrap();
    }
    match head.framing() {
        Framing::None => {}
        Framing::Length(length) => writer.content_length(length),
        Framing::Chunked => writer.chunked(),
    }
    writer.finish();
    out
}
