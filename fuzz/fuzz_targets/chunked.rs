//! A chunked body reads the same however it is split; what was read, framed anew, reads as
//! the same payload.
#![no_main]

use dataplane::http1::encode::{CHUNK_END, CHUNK_PREFIX_BYTES, LAST_CHUNK, chunk_prefix};
use dataplane::http1::{ChunkDecoder, ChunkFault};
use libfuzzer_sys::fuzz_target;

/// Payload, bytes consumed, whether the body is over.
type Body = (Vec<u8>, usize, bool);

fuzz_target!(|data: &[u8]| {
    // The first byte is the length of the pieces; the rest is what a peer sends.
    let Some((&stride, input)) = data.split_first() else { return };
    let whole = decode(std::iter::once(input));
    assert_eq!(decode(input.chunks(usize::from(stride).max(1))), whole);
    assert_eq!(steps(input), whole);
    if input.len() <= 512 {
        assert_eq!(decode(input.chunks(1)), whole);
    }
    let Ok((payload, consumed, is_done)) = whole else { return };
    assert!(consumed <= input.len() && (is_done || consumed == input.len()));
    let mut framed = Vec::new();
    for piece in payload.chunks(usize::from(stride).max(1)) {
        let mut headroom = [0; CHUNK_PREFIX_BYTES];
        let start = chunk_prefix(&mut headroom, u32::try_from(piece.len()).expect("under 256"));
        framed.extend_from_slice(&headroom[start..]);
        framed.extend_from_slice(piece);
        framed.extend_from_slice(CHUNK_END);
    }
    framed.extend_from_slice(LAST_CHUNK);
    let len = framed.len();
    assert_eq!(decode(std::iter::once(framed.as_slice())), Ok((payload, len, true)));
});

fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Body, ChunkFault> {
    let mut decoder = ChunkDecoder::new();
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for piece in pieces {
        let mut piece = piece.to_vec();
        let progress = decoder.decode_in_place(&mut piece)?;
        payload.extend_from_slice(progress.payload(&piece));
        consumed += progress.consumed;
    }
    assert_eq!(decoder.payload_total(), payload.len() as u64);
    Ok((payload, consumed, decoder.is_done()))
}

/// The same by ranges, without moving anything.
fn steps(input: &[u8]) -> Result<Body, ChunkFault> {
    let mut decoder = ChunkDecoder::new();
    let (mut payload, mut at) = (Vec::new(), 0);
    while at < input.len() && !decoder.is_done() {
        let step = decoder.step(&input[at..])?;
        at += step.framing_len;
        payload.extend_from_slice(&input[at..at + step.payload_len]);
        at += step.payload_len;
    }
    Ok((payload, at, decoder.is_done()))
}
