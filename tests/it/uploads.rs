//! Bodies on their way up: byte for byte at every size where something changes inside, within the
//! memory that was set aside, and never complete when they contradict what was admitted.

use crate::rig::{ANSWER, CHAT, CHAT_HEAD, Node, Provider, Wire, body_of, chat};

/// A body as chunks of `size` bytes.
fn chunked(body: &str, size: usize) -> Vec<u8> {
    let mut request = format!("{CHAT_HEAD}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for piece in body.as_bytes().chunks(size) {
        request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        request.extend_from_slice(piece);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

/// The body of the provider's next request, however it is framed.
fn body_at(upstream: &mut Wire) -> Vec<u8> {
    let head = upstream.until("\r\n\r\n");
    if let Some((_, rest)) = head.split_once("content-length: ") {
        let length = rest.split("\r\n").next().and_then(|digits| digits.parse().ok());
        return upstream.exactly(length.expect("a number"));
    }
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    let mut body = Vec::new();
    loop {
        let line = upstream.until("\r\n");
        let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's size and nothing else");
        body.extend(upstream.exactly(size));
        assert_eq!(upstream.exactly(2), b"\r\n");
        if size == 0 {
            return body;
        }
    }
}

#[test]
fn bodies_arrive_byte_for_byte_at_every_size_of_a_buffer() {
    let provider = Provider::start();
    let node = Node::start("sizes", &provider.entry(""), "");
    let head = chat(CHAT).len() - CHAT.len();
    // Around the pooled buffer (with and without the head), what is joined to the head, what a
    // larger buffer begins with, and what is kept of a body.
    let edges = [16 * 1024 - head, 16 * 1024, 64 * 1024 - head, 64 * 1024, 1024 * 1024];
    let (mut client, mut upstream) = (node.connect(), None);
    for size in edges.into_iter().flat_map(|edge| edge - 3..edge + 4) {
        let body = body_of(size);
        for request in [chat(&body), chunked(&body, 16 * 1024), chunked(&body, 1021)] {
            client.send(request);
            let upstream = upstream.get_or_insert_with(|| provider.accept());
            assert!(body_at(upstream) == body.as_bytes(), "{size} bytes arrived as others");
            upstream.send(ANSWER);
            assert!(client.message().0.starts_with("HTTP/1.1 200 "));
        }
    }
    drop((client, upstream));
    node.stop();
}

#[test]
fn edits_reach_the_beginning_of_a_streamed_body() {
    let provider = Provider::start();
    let node = Node::start("edits", &provider.entry(""), "");
    let text = "x".repeat(1_300_000);
    let sent = format!(r#"{{"stream":true,"stream_options":{{}},"model":"openai/m","messages":[],"user":"{text}"}}"#);
    let wanted = sent.replace("{}", r#"{"include_usage":true}"#).replace("openai/m", "m");
    for request in [chat(&sent), chunked(&sent, 50_000)] {
        let mut client = node.connect();
        client.send(request);
        let mut upstream = provider.accept();
        assert!(body_at(&mut upstream) == wanted.as_bytes());
        upstream.send(ANSWER);
        assert!(client.message().0.starts_with("HTTP/1.1 200 "));
    }
    node.stop();
}

#[test]
fn a_field_that_comes_again_behind_the_buffer_never_completes_a_request() {
    let provider = Provider::start();
    let node = Node::start("again", &provider.entry(""), "");
    let front = body_of(1_200_000).trim_end_matches('}').to_owned();
    let again = [
        (r#","model":"other"}"#, "`model` stands twice"),
        (r#","mod\u0065l":"other"}"#, "`model` stands twice"),
        (r#","Model":"other"}"#, "write this key as `model`"),
        (r#"}{"model":"other"}"#, "bytes follow"),
        ("", "cut off"),
    ];
    for (tail, why) in again {
        let body = format!("{front}{tail}");
        for request in [chat(&body), chunked(&body, 60_000)] {
            let mut client = node.connect();
            client.send(&request);
            let mut upstream = provider.accept();
            let got = upstream.rest();
            assert!(got.len() < request.len() && !got.ends_with("0\r\n\r\n"), "{tail}: it was completed");
            let (head, answer) = client.message();
            assert!(head.starts_with("HTTP/1.1 400 "), "{tail}: {head}");
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.contains(why), "{tail}: {answer}");
        }
    }
    node.stop();
}

#[test]
fn memory_for_bodies_is_given_out_for_what_came() {
    let provider = Provider::start();
    let node = Node::start("announced", &provider.entry(""), "");
    // Together they announce eight times what a core may hold.
    let announcing: Vec<_> = (0..128)
        .map(|_| {
            let mut client = node.connect();
            client.send(format!("{CHAT_HEAD}content-length: 1048576\r\n\r\n{{"));
            client
        })
        .collect();
    node.shows("deepintshield_core_requests_in_flight{core=\"0\"}", 128);
    let mut client = node.connect();
    let body = body_of(500_000);
    client.send(chat(&body));
    let mut upstream = provider.accept();
    assert!(body_at(&mut upstream) == body.as_bytes());
    upstream.send(ANSWER);
    assert!(client.message().0.starts_with("HTTP/1.1 200 "));
    drop((announcing, client, upstream));
    node.stop();
}

#[test]
fn who_expects_to_be_told_is_told_to_go_on_or_why_not() {
    let provider = Provider::start();
    let node = Node::start("expect", &provider.entry(""), "");
    let mut client = node.connect();
    client.send(format!("{CHAT_HEAD}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", CHAT.len()));
    assert_eq!(client.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(CHAT);
    let mut upstream = provider.accept();
    let (head, body) = upstream.message();
    assert!(!head.contains("expect"), "{head}");
    assert_eq!(body, CHAT.as_bytes());
    upstream.send(ANSWER);
    assert!(client.message().0.starts_with("HTTP/1.1 200 "));
    for (lines, status) in [("POST /nowhere", "404"), ("POST /v1/chat/completions", "413")] {
        let mut client = node.connect();
        client.send(format!(
            "{lines} HTTP/1.1\r\nhost: node\r\nexpect: 100-continue\r\ncontent-length: 999999999\r\n\r\n"
        ));
        let answer = client.rest();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    drop((client, upstream));
    node.stop();
}
