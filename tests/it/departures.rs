//! Clients that leave: whatever works for them ends at once, and nobody else notices.

use std::thread::sleep;
use std::time::Duration;

use crate::rig::{ANSWER, CHAT, LIMITS, Node, Provider, body_of, chat, wait_for};

/// Long enough for bytes to cross loopback twice on a busy machine.
const MOMENT: Duration = Duration::from_millis(200);

#[test]
fn who_leaves_while_waiting_ends_the_request_upstream() {
    let provider = Provider::start();
    let node = Node::start("leave-waiting", &provider.entry(""), "");
    let descriptors = node.descriptors();
    // In one write, in two, and streamed.
    for bytes in [100, 20_000, 1_500_000] {
        let body = body_of(bytes);
        let mut client = node.connect();
        client.send(chat(&body));
        let mut upstream = provider.accept();
        assert_eq!(upstream.message().1, body.as_bytes());
        drop(client);
        assert_eq!(upstream.rest(), "");
    }
    node.shows("deepintshield_core_requests_in_flight{core=\"0\"}", 0);
    wait_for("no descriptor is left over", || (node.descriptors() <= descriptors).then_some(()));
    node.stop();
}

#[test]
fn who_leaves_in_the_middle_of_a_stream_ends_it_upstream() {
    let provider = Provider::start();
    let node = Node::start("leave-stream", &provider.entry(""), "");
    for bytes in [100, 1_500_000] {
        let mut client = node.connect();
        client.send(chat(&body_of(bytes)));
        let mut upstream = provider.accept();
        upstream.message();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        upstream.send("9\r\ndata: a\n\n\r\n");
        client.until("data: a\n\n");
        drop(client);
        // It says nothing more, so that no write can tell the node.
        assert_eq!(upstream.rest(), "");
    }
    node.stop();
}

#[test]
fn who_leaves_between_two_attempts_ends_no_connection_but_his_own() {
    let provider = Provider::start();
    let retries = r#""max_retries": 5, "retry_backoff_initial": 3000, "retry_backoff_max": 3000,"#;
    let node = Node::start("leave-pause", &provider.entry(retries), LIMITS);
    let mut client = node.connect();
    client.send(chat(CHAT));
    let mut upstream = provider.accept();
    upstream.message();
    drop(upstream);
    sleep(MOMENT);
    // One of them has the number that the provider's connection had.
    let mut others: Vec<_> = (0..4).map(|_| node.connect()).collect();
    for other in &mut others {
        other.send("GET /health HTTP/1.1\r\nhost: node\r\n\r\n");
        other.until("healthy\n");
    }
    drop(client);
    for other in &mut others {
        assert!(other.is_quiet_for(MOMENT / 4), "somebody else's connection was ended");
    }
    // The pause does not outlive its client, and nothing is asked for him again.
    node.shows("deepintshield_core_requests_in_flight{core=\"0\"}", 0);
    assert!(provider.accepted().is_none());
    node.shows("deepintshield_limit_used{limit=\"l/requests\",unit=\"requests\"}", 1);
    node.shows("deepintshield_limit_held{limit=\"l/tokens\",unit=\"tokens\"}", 0);
    drop(others);
    node.stop();
}

#[test]
fn who_leaves_in_the_middle_of_his_body_leaves_no_request_behind() {
    let provider = Provider::start();
    let node = Node::start("leave-upload", &provider.entry(""), "");
    let request = chat(&body_of(1_500_000));
    for sent in [50, 400, 20_000, 900_000, 1_400_000] {
        let mut client = node.connect();
        client.send(&request[..sent]);
        sleep(MOMENT / 4);
        drop(client);
        let Some(mut upstream) = provider.accepted() else { continue };
        assert!(sent > 1_048_576, "the beginning of a body went upstream before it was known");
        assert!(upstream.rest().len() < 1_500_000);
    }
    let mut client = node.connect();
    client.send(chat(CHAT));
    let mut upstream = provider.accept();
    upstream.message();
    upstream.send(ANSWER);
    assert!(client.until("\"x\":[]}").starts_with("HTTP/1.1 200 "));
    drop((client, upstream));
    node.stop();
}
