//! Hostile and honest messages from a folder of corpora beside the repository, if it is there:
//! what must be refused is refused, what must be accepted is read, and no way of splitting the
//! bytes changes the outcome.

use std::path::PathBuf;

use base64::Engine;
use dataplane::http1::{
    BodyFraming, ChunkDecoder, Framing, Method, Parsed, RequestHead, ResponseHead, parse_request, parse_response,
};
use serde_json::Value;

/// What became of the first message of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Refused(&'static str),
    /// More bytes are needed.
    Unfinished,
    /// Body, whether the connection may go on, and how many bytes belong to the message.
    Read {
        body: Vec<u8>,
        keep_alive: bool,
        len: usize,
    },
}

#[test]
fn request_corpora_are_judged_right() {
    for suite in ["llhttp", "gunicorn", "http-desync-guardian"] {
        let mut wrong = Vec::new();
        for row in rows(&format!("{suite}/requests.jsonl")) {
            let raw = bytes_of(&row, "raw_b64");
            let outcome = read_request(&raw, raw.len());
            let is_right = match row["expect"].as_str() {
                Some("reject") => !matches!(outcome, Outcome::Read { .. }),
                Some("accept") => matches!(outcome, Outcome::Read { .. }),
                _ => true,
            };
            if !is_right {
                wrong.push(format!("{} {}: {outcome:?}", row["id"], row["why"]));
            }
            assert_eq!(read_request(&raw, 1), outcome, "split: {}", row["id"]);
            assert_eq!(read_request(&raw, 7), outcome, "split: {}", row["id"]);
        }
        assert_eq!(wrong, Vec::<String>::new(), "{suite}");
    }
}

#[test]
fn answer_corpus_is_judged_right() {
    let mut wrong = Vec::new();
    for row in rows("answers/responses.jsonl") {
        let raw = match row["parts"].as_array() {
            Some(parts) => parts.iter().flat_map(|part| decode(part.as_str())).collect(),
            None => bytes_of(&row, "raw_b64"),
        };
        let outcome = read_answer(&raw, raw.len().max(1));
        let is_right = match (row["class"].as_str(), &outcome) {
            (Some("ok" | "hop"), Outcome::Read { body, len, .. }) => {
                *len == raw.len() && *body == bytes_of(&row, "body_b64")
            }
            // Bytes behind the answer: the caller sees them and drops the connection.
            (Some("bad" | "extra"), Outcome::Read { len, .. }) => *len < raw.len(),
            (Some("ok" | "hop" | "extra"), _)
            | (Some("bad"), Outcome::Unfinished)
            | (Some("trunc"), Outcome::Read { .. }) => false,
            _ => true,
        };
        if !is_right {
            wrong.push(format!("{} {}: {outcome:?}", row["id"], row["why"]));
        }
        assert_eq!(read_answer(&raw, 1), outcome, "split: {}", row["id"]);
        assert_eq!(read_answer(&raw, 7), outcome, "split: {}", row["id"]);
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn answer_corpus_leaks_no_field_of_one_hop() {
    for row in rows("answers/responses.jsonl").iter().filter(|row| row["class"] == "hop") {
        let raw = bytes_of(row, "raw_b64");
        let mut head = ResponseHead::new();
        parse_response(&raw, Method::Get, &mut head).unwrap();
        for field in head.fields() {
            let name = field.name.of(&raw).to_ascii_lowercase();
            let is_end_to_end = name == b"content-length" || name == b"content-type";
            assert!(is_end_to_end || !field.relays_to_client(), "{}: {field:?}", row["id"]);
        }
    }
}

/// Reads the first message of `raw`, shown `stride` bytes at a time.
fn read_request(raw: &[u8], stride: usize) -> Outcome {
    let mut head = RequestHead::new();
    let found = grow(raw, stride, |buf| parse_request(buf, &mut head));
    match found {
        Err(fault) => Outcome::Refused(fault.code()),
        Ok(Parsed::Partial) => Outcome::Unfinished,
        Ok(Parsed::Complete { head_len }) => {
            let rest = &raw[head_len..];
            match head.framing() {
                Framing::None => read(rest, 0, head.keep_alive(), head_len),
                Framing::Length(length) => read(rest, length, head.keep_alive(), head_len),
                Framing::Chunked => read_chunks(rest, stride, head.keep_alive(), head_len),
            }
        }
    }
}

/// Reads the first answer of `raw` that is not interim. The connection closes behind `raw`.
fn read_answer(raw: &[u8], stride: usize) -> Outcome {
    let mut head = ResponseHead::new();
    let mut start = 0;
    loop {
        let found = grow(&raw[start..], stride, |buf| parse_response(buf, Method::Get, &mut head));
        let head_len = match found {
            Err(fault) => return Outcome::Refused(fault.code()),
            Ok(Parsed::Partial) => return Outcome::Unfinished,
            Ok(Parsed::Complete { head_len }) => head_len,
        };
        start += head_len;
        if head.is_interim() {
            continue;
        }
        let rest = &raw[start..];
        return match head.framing() {
            BodyFraming::None => read(rest, 0, head.keep_alive(), start),
            BodyFraming::Length(length) => read(rest, length, head.keep_alive(), start),
            BodyFraming::Chunked => read_chunks(rest, stride, head.keep_alive(), start),
            BodyFraming::UntilClose => read(rest, rest.len() as u64, head.keep_alive(), start),
        };
    }
}

fn grow<E>(raw: &[u8], stride: usize, mut parse: impl FnMut(&[u8]) -> Result<Parsed, E>) -> Result<Parsed, E> {
    let mut end = 0;
    loop {
        end = (end + stride).min(raw.len());
        match parse(&raw[..end])? {
            Parsed::Partial if end < raw.len() => {}
            found => return Ok(found),
        }
    }
}

fn read(rest: &[u8], length: u64, keep_alive: bool, head_len: usize) -> Outcome {
    match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
        Some(body) => Outcome::Read { body: body.to_vec(), keep_alive, len: head_len + body.len() },
        None => Outcome::Unfinished,
    }
}

fn read_chunks(rest: &[u8], stride: usize, keep_alive: bool, head_len: usize) -> Outcome {
    let mut decoder = ChunkDecoder::new();
    let (mut body, mut len) = (Vec::new(), head_len);
    for piece in rest.chunks(stride) {
        let mut piece = piece.to_vec();
        match decoder.decode_in_place(&mut piece) {
            Err(fault) => return Outcome::Refused(fault.code()),
            Ok(progress) => {
                body.extend_from_slice(progress.payload(&piece));
                len += progress.consumed;
                if progress.done {
                    return Outcome::Read { body, keep_alive, len };
                }
            }
        }
    }
    Outcome::Unfinished
}

/// Lines of one corpus; none, and a word about it, where the folder is absent.
#[expect(clippy::print_stderr, reason = "the one word a test has to say of itself")]
fn rows(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/suites").join(name);
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("absent, so not checked: {}", path.display());
        return Vec::new();
    };
    text.lines().map(|line| serde_json::from_str(line).expect("a corpus line is JSON")).collect()
}

fn bytes_of(row: &Value, key: &str) -> Vec<u8> {
    decode(row[key].as_str())
}

fn decode(text: Option<&str>) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text.unwrap_or_default()).expect("a corpus holds base64")
}
