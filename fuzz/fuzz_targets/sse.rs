//! Is a stream of events read and filtered the same wherever it is cut, and is nothing but
//! usage events ever left out?
#![no_main]

use dataplane::provider::sse::{Piece, SseReader};
use dataplane::provider::usage::{Forward, Usage, UsageReader};
use libfuzzer_sys::fuzz_target;

fn payloads<'s>(parts: impl Iterator<Item = &'s [u8]>) -> Vec<Vec<u8>> {
    let mut reader = SseReader::new();
    let (mut events, mut payload) = (Vec::new(), Vec::new());
    for part in parts {
        let mut last_end = 0;
        reader.read(part, |piece| match piece {
            Piece::Data { bytes, .. } => payload.extend_from_slice(bytes),
            Piece::NextLine => payload.push(b'\n'),
            Piece::End { end, has_data } => {
                assert!(last_end < end && end <= part.len());
                last_end = end;
                assert!(has_data || payload.is_empty());
                events.extend(has_data.then(|| std::mem::take(&mut payload)));
            }
            Piece::Comment { end } => assert!(end <= part.len()),
            Piece::LateLineFeed => {}
        });
    }
    events
}

fn filtered<'s>(parts: impl Iterator<Item = &'s [u8]>) -> (Vec<u8>, Usage) {
    let mut reader = UsageReader::sse_hiding_usage();
    let mut shown = Vec::new();
    for part in parts {
        match reader.filter(part) {
            Forward::All => shown.extend_from_slice(part),
            Forward::Parts { held, ranges } => {
                shown.extend_from_slice(held);
                for range in ranges {
                    shown.extend_from_slice(&part[range.clone()]);
                }
            }
        }
    }
    shown.extend_from_slice(reader.finish());
    (shown, reader.usage())
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, stream)) = data.split_first() else { return };
    let size = usize::from(size % 64) + 1;
    assert_eq!(payloads(stream.chunks(size)), payloads(std::iter::once(stream)));
    let (shown, usage) = filtered(std::iter::once(stream));
    assert_eq!(filtered(stream.chunks(size)), (shown.clone(), usage));

    // What was left out is whole events, so the shown payloads are among the sent ones, in order.
    let mut sent = payloads(std::iter::once(stream)).into_iter();
    for payload in payloads(std::iter::once(shown.as_slice())) {
        assert!(sent.any(|other| other == payload), "an event that was never sent");
    }
    if memchr::memmem::find(stream, b"\"usage\"").is_none() {
        assert_eq!(shown, stream, "something without usage was left out");
    }
});
