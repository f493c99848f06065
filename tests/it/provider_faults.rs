//! Providers that fail, lie or dawdle: what the client is told, and what the limits count.

use std::time::Duration;

use shared::clock::Clock;

use crate::rig::{ANSWER, CHAT, KEY, LAST, LIMITS, Node, Provider, body_of, chat, chat_with, entry, free_ports};

const USED_REQUESTS: &str = "deepintshield_limit_used{limit=\"l/requests\",unit=\"requests\"}";
const USED_TOKENS: &str = "deepintshield_limit_used{limit=\"l/tokens\",unit=\"tokens\"}";
const HELD_TOKENS: &str = "deepintshield_limit_held{limit=\"l/tokens\",unit=\"tokens\"}";

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

#[test]
fn what_never_reached_a_provider_is_not_counted() {
    let [closed] = free_ports();
    let node = Node::start("unreachable", &entry(closed, ""), LIMITS);
    let mut client = node.connect();
    for _ in 0..3 {
        client.send(chat(CHAT));
        assert!(client.message().0.starts_with("HTTP/1.1 502 "));
    }
    drop(client);
    node.shows(HELD_TOKENS, 0);
    node.shows(USED_REQUESTS, 0);
    node.shows(USED_TOKENS, 0);
    node.stop();
}

#[test]
fn a_refused_attempt_costs_no_tokens_when_another_is_answered() {
    let provider = Provider::start();
    let retries = r#""max_retries": 2, "retry_backoff_initial": 1, "retry_backoff_max": 1,"#;
    let node = Node::start("refused-attempt", &provider.entry(retries), LIMITS);
    let mut client = node.connect();
    client.send(chat(CHAT));
    let mut upstream = provider.accept();
    for _ in 0..2 {
        upstream.message();
        upstream.send("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy");
        drop(upstream);
        upstream = provider.accept();
    }
    upstream.message();
    upstream.send(ANSWER);
    assert!(client.message().0.starts_with("HTTP/1.1 200 "));
    drop((client, upstream));
    node.shows(HELD_TOKENS, 0);
    node.shows(USED_REQUESTS, 3);
    node.shows(USED_TOKENS, 2);
    node.stop();
}

#[test]
fn counts_that_cannot_be_are_not_believed() {
    let provider = Provider::start();
    let node = Node::start("absurd", &provider.entry(""), LIMITS);
    let mut client = node.connect();
    client.send(chat(r#"{"model":"m","max_tokens":100,"messages":[]}"#));
    let mut upstream = provider.accept();
    upstream.message();
    let usage = r#"{"usage":{"prompt_tokens":9223372036854775807,"completion_tokens":-3}}"#;
    upstream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{usage}", usage.len()));
    assert_eq!(client.message().1, usage.as_bytes());
    drop((client, upstream));
    node.shows(HELD_TOKENS, 0);
    // What was reserved: the bound on the prompt and `max_tokens`.
    node.shows(USED_TOKENS, 122);
    node.stop();
}

#[test]
fn a_request_that_is_sent_twice_is_counted_twice() {
    let provider = Provider::start();
    let node = Node::start("sent-twice", &provider.entry(""), LIMITS);
    let mut client = node.connect();
    client.send(chat(CHAT));
    let mut kept = provider.accept();
    kept.message();
    kept.send(ANSWER);
    assert!(client.message().0.starts_with("HTTP/1.1 200 "));
    client.send(chat(CHAT));
    // From outside nobody can tell whether it closed before it had the request, or after.
    kept.message();
    drop(kept);
    let mut upstream = provider.accept();
    upstream.message();
    upstream.send(ANSWER);
    assert!(client.message().0.starts_with("HTTP/1.1 200 "));
    drop((client, upstream));
    node.shows(HELD_TOKENS, 0);
    node.shows(USED_REQUESTS, 3);
    node.stop();
}

#[test]
fn the_last_word_of_a_provider_is_relayed_when_nothing_better_comes() {
    let (provider, [closed]) = (Provider::start(), free_ports());
    // The fallback cannot be reached: the first answer was kept meanwhile.
    let second = entry(closed, "").replacen("openai", "groq", 1);
    let providers = format!("{}, {second}", provider.entry(""));
    let node = Node::start("last-word", &providers, LIMITS);
    let mut client = node.connect();
    client.send(chat(r#"{"model":"openai/m","messages":[],"fallbacks":["groq/m"]}"#));
    let mut upstream = provider.accept();
    upstream.message();
    upstream.send("HTTP/1.1 500 Oops\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nwords");
    let (head, body) = client.message();
    assert!(head.starts_with("HTTP/1.1 500 "), "{head}");
    assert_eq!(body, b"words");
    drop((client, upstream));
    node.shows(HELD_TOKENS, 0);
    node.shows(USED_REQUESTS, 1);
    node.shows(USED_TOKENS, 0);
    node.stop();
}

#[test]
fn the_first_byte_of_a_body_has_a_time_of_its_own() {
    let provider = Provider::start();
    let times = r#""first_body_byte_timeout": "500ms", "stream_idle_timeout_in_seconds": 60,"#;
    let node = Node::start("first-byte", &provider.entry(times), "");
    let mut client = node.connect();
    client.send(chat(CHAT));
    let mut upstream = provider.accept();
    upstream.message();
    let clock = Clock::start();
    let head_at = clock.now();
    upstream.send(STREAM);
    let answer = client.rest();
    assert!(clock.now().since(head_at) < Duration::from_secs(10));
    assert!(answer.contains("provider_cut_stream"), "{answer}");
    assert!(!answer.contains("\r\n0\r\n\r\n"), "{answer}");
    drop(upstream);
    node.stop();
}

#[test]
fn a_client_that_takes_its_time_is_not_the_providers_fault() {
    let provider = Provider::start();
    let node = Node::start("slow-reader", &provider.entry(r#""stream_idle_timeout_in_seconds": 1,"#), "");
    let mut client = node.connect();
    client.send(chat_with("connection: close\r\n", CHAT));
    let mut upstream = provider.accept();
    upstream.message();
    // More than sockets and the node hold between them, so that the node waits for the client.
    let body = vec![b'y'; 24 * 1024 * 1024];
    let sending = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            upstream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()));
            upstream.send(&body);
        });
        client.until("\r\n\r\n");
        std::thread::sleep(Duration::from_millis(2500));
        assert!(client.exactly(body.len()) == body, "the body was changed");
        sending.join()
    });
    sending.expect("all of it was taken");
    drop((client, upstream));
    node.stop();
}

#[test]
fn an_early_answer_does_not_wait_for_the_rest_of_the_request() {
    let provider = Provider::start();
    let node = Node::start("early", &provider.entry(""), LIMITS);
    let request = chat(&body_of(3_000_000));
    for sent in [1_100_000, 2_000_000] {
        let mut client = node.connect();
        client.send(&request[..sent]);
        let mut upstream = provider.accept();
        upstream.until("\r\n\r\n");
        let clock = Clock::start();
        let answered_at = clock.now();
        upstream.send("HTTP/1.1 413 No\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nlarge");
        let (head, body) = client.message();
        assert!(clock.now().since(answered_at) < Duration::from_secs(3), "it waited for the client");
        assert!(head.starts_with("HTTP/1.1 413 ") && head.contains("\r\nconnection: close\r\n"), "{head}");
        assert_eq!(body, b"large");
        // It may go on a little before it sees the answer.
        client.try_send(&request[sent..sent + 100_000]);
        drop(upstream);
    }
    node.shows(HELD_TOKENS, 0);
    node.stop();
}

#[test]
fn an_answer_that_is_broken_from_its_first_byte_is_answered_by_us() {
    let provider = Provider::start();
    let node = Node::start("broken-first", &provider.entry(""), LIMITS);
    let mut client = node.connect();
    client.send([chat(CHAT), LAST.to_vec()].concat());
    let mut upstream = provider.accept();
    upstream.message();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}XX0\r\n\r\n");
    let answers = client.rest();
    assert!(answers.starts_with("HTTP/1.1 502 "), "{answers}");
    assert!(answers.contains("provider_answer_malformed"), "{answers}");
    assert!(answers.ends_with("healthy\n"), "{answers}");
    drop(upstream);
    node.shows(HELD_TOKENS, 0);
    node.stop();
}

#[test]
fn a_cut_answer_never_looks_complete() {
    let provider = Provider::start();
    let node = Node::start("cut", &provider.entry(""), LIMITS);
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    for (answer, is_stream) in [
        (format!("{json}content-length: 100\r\n\r\n{{}}"), false),
        (format!("{json}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n"), false),
        (format!("{json}transfer-encoding: chunked\r\n\r\n9\r\n{{}}"), false),
        (format!("{STREAM}9\r\ndata: a\n\n\r\n"), true),
        (format!("{STREAM}5\r\ndata:\r\n"), true),
    ] {
        let mut client = node.connect();
        client.send([chat(CHAT), LAST.to_vec()].concat());
        let mut upstream = provider.accept();
        upstream.message();
        upstream.send(&answer);
        drop(upstream);
        let relayed = client.rest();
        assert!(!relayed.contains("\r\n0\r\n\r\n") && !relayed.contains("healthy"), "{relayed}");
        assert_eq!(relayed.contains("provider_cut_stream"), is_stream, "{relayed}");
        assert!(!relayed.contains("content-length: 2\r\n"), "{relayed}");
    }
    node.shows(HELD_TOKENS, 0);
    node.stop();
}

/// For HTTP/1.0 the end of the connection ends the body: only a reset tells that it came too early.
#[test]
fn a_cut_answer_does_not_look_complete_to_an_old_client() {
    let provider = Provider::start();
    let node = Node::start("old", &provider.entry(""), "");
    let whole = "2\r\n{}\r\n0\r\n\r\n";
    for (body, is_whole) in [(whole, true), ("2\r\n{}\r\n", false)] {
        let mut client = node.connect();
        client.send(String::from_utf8_lossy(&chat(CHAT)).replace("HTTP/1.1", "HTTP/1.0"));
        let mut upstream = provider.accept();
        upstream.message();
        upstream.send(format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}"));
        client.until("\r\n\r\n{}");
        drop(upstream);
        assert_eq!(client.ends_in_order(), is_whole, "{body}");
    }
    node.stop();
}

#[test]
fn a_key_that_an_error_quotes_is_masked_also_when_it_comes_in_pieces() {
    let provider = Provider::start();
    let node = Node::start("quoted", &provider.entry(""), "");
    let text = format!("no such key: {KEY}, sorry");
    for split in [0, 5, 15, 20, 35, text.len()] {
        let mut client = node.connect();
        client.send(chat(CHAT));
        let mut upstream = provider.accept();
        let (head, _) = upstream.message();
        assert!(head.contains(&format!("authorization: Bearer {KEY}\r\n")), "{head}");
        upstream.send(format!("HTTP/1.1 400 No\r\nx-quote: Bearer {KEY}\r\ncontent-length: {}\r\n\r\n", text.len()));
        let relayed = client.until("\r\n\r\n");
        assert!(!relayed.contains("x-quote"), "{relayed}");
        upstream.send(&text[..split]);
        // Long enough to be read apart, mostly; when it is not, the test is only easier.
        std::thread::sleep(Duration::from_millis(20));
        upstream.send(&text[split..]);
        let body = client.exactly(text.len());
        assert_eq!(String::from_utf8_lossy(&body), text.replace(KEY, &"*".repeat(KEY.len())));
        drop((client, upstream));
    }
    node.stop();
}

#[test]
fn a_burst_opens_no_more_connections_than_are_allowed() {
    let provider = Provider::start();
    let node = Node::start("burst", &provider.entry(r#""max_conns_per_host": 2,"#), LIMITS);
    let mut clients: Vec<_> = (0..6).map(|_| node.connect()).collect();
    for client in &mut clients {
        client.send(chat(CHAT));
    }
    let mut upstream = [provider.accept(), provider.accept()];
    let mut statuses: Vec<String> = Vec::new();
    for client in &mut clients {
        if !client.is_quiet_for(Duration::from_millis(300)) {
            statuses.push(client.message().0.split(' ').nth(1).unwrap_or_default().to_owned());
        }
    }
    assert_eq!(statuses, ["503"; 4]);
    assert!(provider.accepted().is_none());
    for upstream in &mut upstream {
        upstream.message();
        upstream.send(ANSWER);
    }
    drop((clients, upstream));
    node.shows(HELD_TOKENS, 0);
    node.shows(USED_REQUESTS, 2);
    node.stop();
}
