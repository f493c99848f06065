use proptest::prelude::*;

use super::*;

/// Payloads of the events of `stream`, read in the parts that `cuts` make of it.
fn payloads(stream: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut reader = SseReader::new();
    let mut events = Vec::new();
    let mut payload = Vec::new();
    for part in parts(stream, cuts) {
        reader.read(part, |piece| match piece {
            Piece::Data { bytes, .. } => payload.extend_from_slice(bytes),
            Piece::NextLine => payload.push(b'\n'),
            Piece::End { has_data, .. } => {
                let payload = std::mem::take(&mut payload);
                if has_data {
                    events.push(payload);
                }
            }
            Piece::Comment { .. } | Piece::LateLineFeed => {}
        });
    }
    events
}

pub(crate) fn parts<'s>(stream: &'s [u8], cuts: &[usize]) -> Vec<&'s [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect()
}

/// The standard's parsing rules, written as they stand there.
fn payloads_by_the_book(stream: &[u8]) -> Vec<Vec<u8>> {
    let text = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let mut lines = Vec::new();
    let mut line = Vec::new();
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'\r' | b'\n' => {
                lines.push(std::mem::take(&mut line));
                at += 1 + usize::from(text[at..].starts_with(b"\r\n"));
            }
            byte => {
                line.push(byte);
                at += 1;
            }
        }
    }
    let (mut events, mut data) = (Vec::new(), None::<Vec<u8>>);
    for line in lines {
        if line.is_empty() {
            events.extend(data.take());
            continue;
        }
        let (name, value) = match line.iter().position(|&byte| byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&line[..], &b""[..]),
        };
        if name == b"data" {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            data = Some(match data {
                None => value.to_vec(),
                Some(before) => [&before[..], b"\n", value].concat(),
            });
        }
    }
    events
}

const STREAM: &[u8] =
    b"\xef\xbb\xbf: hello\r\n\r\nevent: x\ndata: {\"a\":1}\n\ndata:one\ndata\ndata:  two\r\rid: 7\n\n\
    datax: no\ndat: no\n\ndata: [DONE]\r\n\r\ndata: unfinished";

#[test]
fn events_are_read_the_same_cut_at_any_byte() {
    let expected = payloads_by_the_book(STREAM);
    assert_eq!(expected.len(), 3);
    for first in 0..=STREAM.len() {
        for second in first..=STREAM.len() {
            assert_eq!(payloads(STREAM, &[first, second]), expected, "{first} {second}");
        }
    }
}

#[test]
fn a_usual_event_is_one_piece_without_its_field_name() {
    let mut pieces = Vec::new();
    let read = b"data: abc\n\n";
    SseReader::new().read(read, |piece| pieces.push(piece));
    assert_eq!(
        pieces,
        [Piece::Data { bytes: b"abc", is_whole_first_line: true }, Piece::End { end: read.len(), has_data: true }]
    );
}

#[test]
fn a_payload_is_read_up_to_its_bound_and_the_next_from_its_beginning() {
    let long = [b"data: ".as_slice(), &vec![b'x'; EVENT_BYTES_MAX as usize + 10], b"\n\ndata: y\n\n"].concat();
    for cuts in [&[][..], &[1_000_000], &[EVENT_BYTES_MAX as usize + 6]] {
        let lens: Vec<_> = payloads(&long, cuts).iter().map(Vec::len).collect();
        assert_eq!(lens, [EVENT_BYTES_MAX as usize, 1]);
    }
}

#[test]
fn it_knows_when_it_is_between_events() {
    let mut reader = SseReader::new();
    for (read, is_between) in
        [("data: a", false), ("\n", false), ("\n", true), (": ping", false), ("\n", true), ("event: x\n", false)]
    {
        reader.read(read.as_bytes(), |_| {});
        assert_eq!(reader.is_between_events(), is_between, "{read:?}");
    }
}

/// A stream of what matters to the reader, in any order.
pub(crate) fn stream() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop::sample::select(vec![
        &b"data:"[..],
        b"data: ",
        b"data",
        b"dat",
        b"d",
        b" ",
        b":",
        b": ping\n",
        b"event: x\n",
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"\r\n\r\n",
        b"\xef\xbb\xbf",
        b"\xef",
        b"text",
        br#"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
        br#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":6}}"#,
        br#"data: {"choices":[{}],"usage":null}"#,
        br#"data: {"choices":[{}],"usage":{"prompt_tokens":7}}"#,
        b"data: {\"choices\":[],\ndata: \"usage\":{\"total_tokens\":9}}",
        b"data: [DONE]",
    ]);
    prop::collection::vec(fragment, 0..30).prop_map(|fragments| fragments.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_stream_is_read_by_the_book_in_any_parts(
        stream in stream(), cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        prop_assert_eq!(payloads(&stream, &cuts), payloads_by_the_book(&stream));
    }

    #[test]
    fn ends_lie_within_the_read_and_never_go_back(
        stream in prop::collection::vec(prop::sample::select(b"data: x\n\r\xef\xbb\xbf".to_vec()), 0..60),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let mut reader = SseReader::new();
        for part in parts(&stream, &cuts) {
            let mut last = 0;
            reader.read(part, |piece| if let Piece::End { end, .. } | Piece::Comment { end } = piece {
                assert!(last < end && end <= part.len());
                last = end;
            });
        }
    }
}
