//! What is tried after a provider that failed, and what the client sees of it.

use crate::rig::{ANSWER, KEY, LIMITS, Node, Provider, chat};

const ASK: &str = r#"{"model":"openai/m","messages":[],"fallbacks":["groq/n"]}"#;

fn two(first: &Provider, network: &str, second: &Provider) -> String {
    format!("{}, {}", first.entry(network), second.entry("").replacen("openai", "groq", 1))
}

#[test]
fn a_silent_provider_times_out_and_the_fallback_answers() {
    let (first, second) = (Provider::start(), Provider::start());
    let node = Node::start("silent", &two(&first, r#""response_head_timeout": "300ms","#, &second), LIMITS);
    let mut client = node.connect();
    client.send(chat(ASK));
    let mut silent = first.accept();
    assert_eq!(silent.message().1, br#"{"model":"m","messages":[]}"#);
    let mut upstream = second.accept();
    assert_eq!(upstream.message().1, br#"{"model":"n","messages":[]}"#);
    upstream.send(ANSWER);
    let (head, _) = client.message();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("\r\nx-bifrost-provider: groq\r\nx-bifrost-resolved-model: n\r\n"), "{head}");
    assert!(head.contains("\r\nx-bifrost-fallback-index: 1\r\n"), "{head}");
    assert_eq!(silent.rest(), "");
    drop((client, upstream));
    node.shows("deepintshield_limit_held{limit=\"l/tokens\",unit=\"tokens\"}", 0);
    // The fallback has no limit; the silent one may have counted what it was sent.
    node.shows("deepintshield_limit_used{limit=\"l/requests\",unit=\"requests\"}", 1);
    node.stop();
}

#[test]
fn a_limited_key_rests_for_as_long_as_the_provider_says_and_another_is_asked() {
    let provider = Provider::start();
    let second = r#"{ "name": "two", "value": "another-key-of-test", "models": ["*"], "weight": 0.000001 }"#;
    let keys = provider.entry("").replacen(r#""weight": 1.0 }]"#, &format!(r#""weight": 1000000 }}, {second}]"#), 1);
    let node = Node::start("resting", &keys, LIMITS);
    let mut client = node.connect();
    client.send(chat(r#"{"model":"m","messages":[]}"#));
    let mut upstream = provider.accept();
    assert!(upstream.message().0.contains(KEY));
    upstream.send("HTTP/1.1 429 Slow down\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n");
    drop(upstream);
    let mut upstream = provider.accept();
    assert!(upstream.message().0.contains("another-key-of-test"));
    upstream.send(ANSWER);
    assert!(client.message().0.starts_with("HTTP/1.1 200 "));
    // It is not asked again, and when the other one is limited too, the client is told for how long.
    client.send(chat(r#"{"model":"m","messages":[]}"#));
    assert!(upstream.message().0.contains("another-key-of-test"));
    upstream.send("HTTP/1.1 429 Slow down\r\nretry-after: 30\r\ncontent-length: 4\r\n\r\nlate");
    let (head, body) = client.message();
    assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("\r\nretry-after: 30\r\n"), "{head}");
    assert_eq!(body, b"late");
    client.send(chat(r#"{"model":"m","messages":[]}"#));
    let (head, _) = client.message();
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    assert!(head.contains("\r\nretry-after: 30\r\n"), "{head}");
    assert!(provider.accepted().is_none());
    drop((client, upstream));
    node.shows("deepintshield_limit_held{limit=\"l/tokens\",unit=\"tokens\"}", 0);
    node.shows("deepintshield_limit_used{limit=\"l/requests\",unit=\"requests\"}", 3);
    node.stop();
}
