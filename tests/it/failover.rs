//! Keys and providers that fail: what the node does about it, seen from outside.

use crate::rig::{ANSWER, KEY, Node, Provider, chat};

/// What the second key of a provider is.
const OTHER_KEY: &str = "another-key-of-test";
const ASK: &str = r#"{"model":"m","messages":[]}"#;

/// A provider's entry with two keys: the first is drawn a million million times as often.
fn two_keys(provider: &Provider, first: &str, second: &str) -> String {
    let other = format!(r#"{{ "name": "two", "value": "{OTHER_KEY}", "models": ["*"], {second} "weight": 0.000001 }}"#);
    provider.entry("").replacen(r#""weight": 1.0 }]"#, &format!(r#"{first} "weight": 1000000 }}, {other}]"#), 1)
}

#[test]
fn a_key_at_its_limit_is_passed_over_for_another() {
    let provider = Provider::start();
    let limits = r#""governance": { "rate_limits":
        [{ "id": "k", "request_max_limit": 2, "request_reset_duration": "1h" }] },"#;
    let keys = two_keys(&provider, r#""rate_limit_id": "k","#, r#""rate_limit_id": "k2","#);
    let limits =
        limits.replacen("}] }", r#"}, { "id": "k2", "request_max_limit": 1, "request_reset_duration": "1h" }] }"#, 1);
    let node = Node::start("key-limit", &keys, &limits);
    let mut client = node.connect();
    client.send(chat(ASK));
    let mut upstream = provider.accept();
    for key in [KEY, KEY, OTHER_KEY] {
        assert!(upstream.message().0.contains(key), "{key}");
        upstream.send(ANSWER);
        assert!(client.message().0.starts_with("HTTP/1.1 200 "));
        client.send(chat(ASK));
    }
    let (head, body) = client.message();
    assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("\r\nretry-after: "), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("limit k/requests"));
    drop((client, upstream));
    node.shows("deepintshield_limit_used{limit=\"k/requests\",unit=\"requests\"}", 2);
    node.shows("deepintshield_limit_used{limit=\"k2/requests\",unit=\"requests\"}", 1);
    node.stop();
}

#[test]
fn a_key_that_is_limited_for_one_model_is_used_for_another() {
    let provider = Provider::start();
    let node = Node::start("model-limited", &two_keys(&provider, "", ""), "");
    let mut client = node.connect();
    client.send(chat(ASK));
    let mut upstream = provider.accept();
    assert!(upstream.message().0.contains(KEY));
    upstream.send("HTTP/1.1 429 Slow down\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n");
    drop(upstream);
    let mut upstream = provider.accept();
    for (key, next) in [(OTHER_KEY, "n"), (KEY, "m"), (OTHER_KEY, "m")] {
        assert!(upstream.message().0.contains(key), "before {next}");
        upstream.send(ANSWER);
        assert!(client.message().0.starts_with("HTTP/1.1 200 "));
        client.send(chat(&ASK.replace(r#""m""#, &format!("{next:?}"))));
    }
    upstream.message();
    upstream.send(ANSWER);
    client.message();
    drop((client, upstream));
    node.stop();
}

#[test]
fn options_that_no_browser_sent_are_told_the_methods() {
    let provider = Provider::start();
    let node = Node::start("options", &provider.entry(""), "");
    let mut client = node.connect();
    for (path, allow) in [("/v1/chat/completions", "POST"), ("/v1/models", "GET"), ("/health", "GET, HEAD")] {
        client.send(format!("OPTIONS {path} HTTP/1.1\r\nhost: node\r\n\r\n"));
        let (head, _) = client.message();
        assert!(head.starts_with("HTTP/1.1 405 ") && head.contains(&format!("\r\nallow: {allow}\r\n")), "{head}");
    }
    client.send("OPTIONS /v1/models HTTP/1.1\r\nhost: node\r\norigin: https://a.example\r\naccess-control-request-method: GET\r\n\r\n");
    assert!(client.message().0.starts_with("HTTP/1.1 403 "), "a browser's page of an origin that is not allowed");
    drop(client);
    node.stop();
}
