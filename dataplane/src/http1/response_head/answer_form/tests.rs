use super::*;
use proptest::prelude::*;

const WHOLE: &str = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n\
    Content-Length: 1200\r\nConnection: keep-alive\r\nopenai-version: 2020-10-01\r\nx-request-id: req_0123\r\n\
    x-ratelimit-remaining-tokens: 29999000\r\nset-cookie: \r\nServer: x\r\n\r\n";

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-request-id: req_1\r\n\
    connection: close, x-hop\r\nX-Hop:\ta \r\ntransfer-encoding: chunked\r\n\r\n";

/// Heads without a body, of other versions, with little in them, and interim ones.
const OTHERS: &[&str] = &[
    "HTTP/1.1 429 Too Many Requests\r\nretry-after: 5\r\nContent-Length: 2\r\n\r\n",
    "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nA: b\r\n\r\n",
    "HTTP/1.1 304 X\r\nContent-Length: 12\r\nA: b\r\n\r\n",
    "HTTP/1.0 200 OK\r\nA: b\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 200\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n",
];

/// What `form` and [`parse_response`] make of `views` of one growing buffer has to be the same.
fn check(form: &mut AnswerForm, heads: &mut [ResponseHead; 2], asked: Method, views: &[&[u8]]) {
    let [head, plain] = heads;
    head.clear();
    plain.clear();
    for view in views {
        let parsed = form.parse_response(view, asked, head);
        let text = String::from_utf8_lossy(view);
        assert_eq!(parsed, parse_response(view, asked, plain), "{text}");
        assert_eq!(head, plain, "{text}");
        if parsed != Ok(Parsed::Partial) {
            return;
        }
    }
}

fn remembering(text: &str) -> AnswerForm {
    let mut form = AnswerForm::default();
    check(&mut form, &mut <[ResponseHead; 2]>::default(), Method::Post, &[text.as_bytes()]);
    assert_eq!(form.bytes, text.as_bytes());
    form
}

/// Whether `text` has the form; then it is read as it would be without.
fn is_followed(form: &AnswerForm, text: &str) -> bool {
    let (bytes, mut head, mut plain) = (format!("{text}body"), ResponseHead::new(), ResponseHead::new());
    let Some(len) = form.read(bytes.as_bytes(), &mut head) else { return false };
    let parsed = parse_response(bytes.as_bytes(), Method::Post, &mut plain);
    assert_eq!((parsed, &head), (Ok(Parsed::Complete { head_len: len }), &plain), "{text}");
    true
}

#[test]
fn other_values_are_read_and_the_rest_is_remembered() {
    let form = remembering(WHOLE);
    assert!(is_followed(&form, WHOLE));
    for (before, after) in [
        ("1200", "7"),
        ("1200", "12000"),
        (": 1200", ":1200\t"),
        ("req_0123", "req_9876"),
        ("req_0123", ""),
        ("req_0123", "req_0123, and more\tof it \u{fc}"),
        (": 29999000", ":\t 1"),
        ("cookie: ", "cookie:"),
        ("cookie: ", "cookie: a=b"),
        ("Server: x", "Server: x y"),
        ("Thu, 01 Jan 2026 00:00:00", "Fri, 02 Jan 2026 10:00:00"),
    ] {
        assert!(is_followed(&form, &WHOLE.replace(before, after)), "{after:?} for {before:?}");
    }
    let all =
        WHOLE.replace("1200", "99").replace("req_0123", "r").replace("00:00", "1:1").replace("29999000", "123456789");
    assert!(is_followed(&form, &all));
    assert!(is_followed(&remembering(STREAM), &STREAM.replace("req_1", "req_22")));
    assert!(is_followed(&remembering("HTTP/1.1 200\r\n\r\n"), "HTTP/1.1 200\r\n\r\n"));
}

#[test]
fn what_ends_the_answer_or_its_connection_is_read_as_ever() {
    let form = remembering(WHOLE);
    for (before, after) in [
        ("200 OK", "200 Ok"),
        ("1200", "-1"),
        ("keep-alive", "close"),
        ("Server", "server"),
        ("Server: x", "Server : x"),
        ("Server: x\r\n", ""),
        ("Server: x\r\n", "Server: x\r\n y\r\n"),
        ("Server: x\r\n", "Server: x\r\nA: b\r\n"),
        ("Server: x", "Server: x\n"),
        ("Server: x", "Server: \0"),
        ("Server: x", "Server: x\ry"),
        ("Server: x\r\n", "Server: x\r\r\n"),
        ("\r\n\r\n", "\r\n"),
    ] {
        assert!(!is_followed(&form, &WHOLE.replace(before, after)), "{after:?} for {before:?}");
    }
    assert!(!is_followed(&remembering(STREAM), &STREAM.replace("chunked", " chunked")));
    assert!(!is_followed(&remembering(OTHERS[2]), &OTHERS[2].replace("12", "13")));
    assert!(!is_followed(&AnswerForm::default(), ""));
}

#[test]
fn a_value_may_be_as_long_as_a_head_may_be() {
    let form = remembering(WHOLE);
    let around = WHOLE.len() - "req_0123".len();
    let long = |len: usize| WHOLE.replace("req_0123", &"x".repeat(len - around));
    assert!(is_followed(&form, &long(RESPONSE_HEAD_BYTES_MAX)));
    assert!(!is_followed(&form, &long(RESPONSE_HEAD_BYTES_MAX + 1)));
    let mut form = AnswerForm::default();
    let heads = &mut <[ResponseHead; 2]>::default();
    check(&mut form, heads, Method::Get, &[long(HEAD_BYTES_MAX + 1).as_bytes()]);
    assert!(form.bytes.is_empty(), "too long to be remembered");
}

#[test]
fn one_head_of_another_form_changes_nothing_and_a_second_does() {
    let (mut form, heads) = (remembering(WHOLE), &mut <[ResponseHead; 2]>::default());
    check(&mut form, heads, Method::Post, &[WHOLE.as_bytes()]);
    check(&mut form, heads, Method::Post, &[STREAM.as_bytes()]);
    assert!(is_followed(&form, WHOLE), "there was one of its own between them");
    check(&mut form, heads, Method::Post, &[STREAM.as_bytes()]);
    assert!(is_followed(&form, STREAM));
    for unlike in [OTHERS[5], "HTTP/1.1 200 OK\r\n", "HTTP/1.1 2000 OK\r\n"] {
        check(&mut form, heads, Method::Post, &[unlike.as_bytes(), unlike.as_bytes()]);
        check(&mut form, heads, Method::Head, &[WHOLE.as_bytes()]);
    }
    assert!(is_followed(&form, STREAM), "neither interim answers nor those to HEAD have forms");
}

#[test]
fn a_provider_whose_heads_have_no_form_is_tried_again_after_a_while() {
    let (mut form, heads) = (AnswerForm::default(), &mut <[ResponseHead; 2]>::default());
    let mut remembered = Vec::new();
    for at in 0..3 * 256 {
        let text = format!("HTTP/1.1 200 OK\r\nX-{at}: a\r\n\r\n");
        check(&mut form, heads, Method::Post, &[text.as_bytes()]);
        remembered.push(form.bytes == text.as_bytes());
    }
    let count = remembered.iter().filter(|was| **was).count();
    assert!((8..=3 * 10).contains(&count), "{count} of {}", remembered.len());
    assert!(remembered[2 * 256..].contains(&true), "once more");
}

/// What a provider, or somebody between, may do to a head.
#[derive(Clone, Debug)]
enum Change {
    Byte(prop::sample::Index, u8),
    Insert(prop::sample::Index, &'static [u8]),
    InsertAtEnd(prop::sample::Index, &'static [u8], usize),
    Remove(prop::sample::Index),
    Value(prop::sample::Index, Vec<u8>),
    RemoveLine(prop::sample::Index),
    RepeatLine(prop::sample::Index),
    SwapLines(prop::sample::Index, prop::sample::Index),
    Cut(prop::sample::Index),
}

const INSERTED: &[&[u8]] =
    &[b" ", b"\t", b"\r", b"\n", b"\r\n", b"\r\n ", b"\0", b":", b",", b"0", b"a", b"\xe9", b"\x7f"];

/// Values that mean something somewhere.
const VALUES: &[&str] =
    &["", " ", "\t", " 0", " 5", " 0005", "99 ", " 18446744073709551616", " chunked", " close", " x-hop", " a b", ":"];

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    let value = prop_oneof![
        prop::sample::select(VALUES).prop_map(|value| value.as_bytes().to_vec()),
        prop::collection::vec(prop_oneof![4 => 0x20..0x7f_u8, 1 => any::<u8>()], 0..40),
        "[0-9]{1,6}".prop_map(String::into_bytes),
        "[ -~]{0,300}".prop_map(String::into_bytes),
    ];
    prop_oneof![
        1 => (index(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => (index(), prop::sample::select(INSERTED)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (index(), prop::sample::select(INSERTED), 0..4_usize)
            .prop_map(|(line, bytes, before)| Change::InsertAtEnd(line, bytes, before)),
        1 => index().prop_map(Change::Remove),
        9 => (index(), value).prop_map(|(line, value)| Change::Value(line, value)),
        1 => index().prop_map(Change::RemoveLine),
        1 => index().prop_map(Change::RepeatLine),
        1 => (index(), index()).prop_map(|(one, other)| Change::SwapLines(one, other)),
        1 => index().prop_map(Change::Cut),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let count = lines.len();
        match self {
            _ if bytes.is_empty() => {}
            Self::Byte(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Insert(at, inserted) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, inserted.iter().copied());
            }
            Self::InsertAtEnd(line, inserted, before) => {
                let line = &mut lines[line.index(count)];
                let at = line.len().saturating_sub(*before);
                line.splice(at..at, inserted.iter().copied());
                *bytes = lines.concat();
            }
            Self::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Value(line, value) => {
                let line = &mut lines[line.index(count)];
                if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                    line.truncate(colon + 1);
                    line.extend_from_slice(value);
                    line.extend_from_slice(b"\r\n");
                }
                *bytes = lines.concat();
            }
            Self::RemoveLine(line) => {
                lines.remove(line.index(count));
                *bytes = lines.concat();
            }
            Self::RepeatLine(line) => {
                lines.insert(line.index(count), lines[line.index(count)].clone());
                *bytes = lines.concat();
            }
            Self::SwapLines(one, other) => {
                lines.swap(one.index(count), other.index(count));
                *bytes = lines.concat();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// One form reads answers one after the other; each comes whole or in two pieces.
    #[test]
    fn a_head_with_a_form_reads_as_it_does_without(
        seed in prop_oneof![3 => Just(WHOLE), 3 => Just(STREAM), 2 => prop::sample::select(OTHERS)],
        answers in prop::collection::vec((
            prop::collection::vec(change(), 0..4),
            any::<prop::sample::Index>(),
            prop_oneof![8 => Just(Method::Post), 1 => Just(Method::Get), 1 => Just(Method::Head)],
        ), 1..12),
    ) {
        let (mut form, heads) = (AnswerForm::default(), &mut <[ResponseHead; 2]>::default());
        let mut text = seed.as_bytes().to_vec();
        for (changes, split, asked) in answers {
            check(&mut form, heads, asked, &[seed.as_bytes()]);
            for change in changes {
                change.apply(&mut text);
            }
            let split = split.index(text.len() + 1);
            check(&mut form, heads, asked, &[&text[..split], &text]);
            check(&mut form, heads, asked, &[&text]);
            if asked == Method::Post && split % 2 == 0 {
                text = seed.as_bytes().to_vec();
            }
        }
    }

    #[test]
    fn what_two_heads_begin_with(one in "[ab]{0,40}", other in "[ab]{0,40}", both in ".{0,40}") {
        let (one, other) = (format!("{both}{one}"), format!("{both}{other}"));
        let same = one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
        prop_assert_eq!(same_len(one.as_bytes(), other.as_bytes()), same);
    }
}
