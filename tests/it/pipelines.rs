//! Several requests on one connection: each is answered, and none begins in the middle of another.

use crate::rig::{ANSWER, CHAT, CHAT_HEAD, LAST, Node, Provider, body_of, chat};

#[test]
fn a_request_behind_a_refused_one_is_answered_too() {
    let provider = Provider::start();
    let node = Node::start("behind-refused", &provider.entry(""), "");
    for refused in [
        "GET /nowhere HTTP/1.1\r\nhost: node\r\n\r\n",
        "POST /nowhere HTTP/1.1\r\nhost: node\r\ncontent-length: 0\r\n\r\n",
        "DELETE /health HTTP/1.1\r\nhost: node\r\n\r\n",
        "GET /v1/chat/completions HTTP/1.1\r\nhost: node\r\n\r\n",
        "GET /v1/chat/completions HTTP/1.1\r\nhost: node\r\nx-bf-vk: unknown\r\n\r\n",
    ] {
        let mut client = node.connect();
        client.send([refused.as_bytes(), LAST].concat());
        let answers = client.rest();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{refused}: {answers}");
        assert!(answers.ends_with("healthy\n"), "{refused}: {answers}");
    }
    node.stop();
}

#[test]
fn a_request_behind_a_refused_one_may_come_in_two_pieces() {
    let provider = Provider::start();
    let node = Node::start("two-pieces", &provider.entry(""), "");
    let mut client = node.connect();
    client.send("GET /nowhere HTTP/1.1\r\nhost: node\r\n\r\nGET /health HTTP/1.1\r\nhost: no");
    client.until("model_not_found\"}}");
    // Read on its own this would be a request.
    client.send("de\r\nx-a: b\r\nconnection: close\r\n\r\n");
    assert!(client.rest().ends_with("healthy\n"));
    node.stop();
}

#[test]
fn the_body_of_a_page_request_is_no_request() {
    let provider = Provider::start();
    let node = Node::start("page-body", &provider.entry(""), "");
    for path in ["/health", "/v1/models", "/ready"] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: node\r\ntransfer-encoding: chunked\r\n\r\n");
        let mut client = node.connect();
        client.send(&head);
        client.send(b"0\r\n\r\n");
        client.send(LAST);
        let answers = client.rest();
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{path}: {answers}");
        // A lenient proxy before us could take this for the beginning of a chunk.
        let mut client = node.connect();
        client.send(&head);
        client.send("A / HTTP/1.1\r\nhost: node\r\n\r\n");
        let answers = client.rest();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{path}: {answers}");
        assert!(answers.starts_with("HTTP/1.1 400 "), "{path}: {answers}");
    }
    node.stop();
}

#[test]
fn a_connection_goes_on_after_a_body_that_was_streamed() {
    let provider = Provider::start();
    let node = Node::start("after-streamed", &provider.entry(""), "");
    let body = body_of(1_200_000);
    let mut chunked = format!("{CHAT_HEAD}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for piece in body.as_bytes().chunks(10_000) {
        chunked.extend_from_slice(format!("{:x};a=b\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    for streamed in [chat(&body), chunked] {
        let mut client = node.connect();
        client.send([streamed, chat(CHAT), LAST.to_vec()].concat());
        let mut upstream = provider.accept();
        let head = upstream.until("\r\n\r\n");
        if head.contains("transfer-encoding: chunked\r\n") {
            upstream.until("\r\n0\r\n\r\n");
        } else {
            assert_eq!(upstream.exactly(body.len()), body.as_bytes());
        }
        upstream.send(ANSWER);
        assert_eq!(upstream.message().1, CHAT.as_bytes());
        upstream.send(ANSWER);
        let answers = client.rest();
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
    }
    node.stop();
}
