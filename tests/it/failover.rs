//! Keys and providers that fail: what the node does about it, seen from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

use crate::rig::{ANSWER, KEY, Node, Provider, Wire, chat, chat_with, wait_for};

/// What the second key of a provider is.
const OTHER_KEY: &str = "another-key-of-test";
const ASK: &str = r#"{"model":"m","messages":[]}"#;

/// A provider's entry with two keys: the first is drawn a million million times as often.
fn two_keys(provider: &Provider, first: &str, second: &str) -> String {
    let other = format!(r#"{{ "name": "two", "value": "{OTHER_KEY}", "models": ["*"], {second} "weight": 0.000001 }}"#);
    provider.entry("").replacen(r#""weight": 1.0 }]"#, &format!(r#"{first} "weight": 1000000 }}, {other}]"#), 1)
}

/// A provider that answers whoever asks, until it is dropped.
struct Answering {
    asked: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    entry: String,
}

impl Answering {
    /// `answer` is given the head of each request.
    fn start(answer: impl Fn(&str) -> Vec<u8> + Clone + Send + 'static) -> Self {
        let provider = Provider::start();
        let (asked, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let entry = provider.entry("");
        let (count, over) = (Arc::clone(&asked), Arc::clone(&is_over));
        let thread = Builder::new().spawn(move || {
            let mut serving = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let Some(mut wire) = provider.accepted() else {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    continue;
                };
                let (count, answer) = (Arc::clone(&count), answer.clone());
                let started = Builder::new().spawn(move || {
                    while let Some(head) = wire.next_head() {
                        count.fetch_add(1, Ordering::Relaxed);
                        if !wire.try_send(answer(&head)) {
                            return;
                        }
                    }
                });
                serving.push(started.expect("a thread"));
            }
            // The node has gone, and its connections with it.
            for one in serving {
                one.join().expect("it answers or ends");
            }
        });
        Self { asked, is_over, thread: Some(thread.expect("a thread")), entry }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take().filter(|_| !std::thread::panicking()) {
            drop(thread.join());
        }
    }
}

/// One request, and the head of its answer.
fn ask(client: &mut Wire, body: &str) -> String {
    client.send(chat(body));
    client.message().0
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

#[test]
fn a_provider_that_fails_is_asked_after_the_others_and_tried_now_and_then() {
    let failing = Answering::start(|_| b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops".to_vec());
    let well = Answering::start(|_| ANSWER.to_vec());
    let providers = format!("{}, {}", failing.entry, well.entry.replacen("openai", "groq", 1));
    let node = Node::start("demotion", &providers, "");
    let mut client = node.connect();
    let with_fallback = r#"{"model":"openai/m","messages":[],"fallbacks":["groq/n"]}"#;
    wait_for("the provider that fails is behind the other", || {
        let before = failing.asked();
        let head = ask(&mut client, with_fallback);
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("\r\nx-bifrost-fallback-index: 1\r\n"), "{head}");
        (failing.asked() == before).then_some(())
    });
    let before = failing.asked();
    for _ in 0..110 {
        let head = ask(&mut client, with_fallback);
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("\r\nx-bifrost-provider: groq\r\n"), "{head}");
    }
    let tried = failing.asked() - before;
    assert!((1..10).contains(&tried), "one of a hundred, or somewhat more when this took long: {tried}");
    let before = failing.asked();
    assert!(ask(&mut client, r#"{"model":"openai/m","messages":[]}"#).starts_with("HTTP/1.1 500 "));
    assert_eq!(failing.asked(), before + 1, "who has nobody else is not refused");
    drop(client);
    node.stop();
}

#[test]
fn a_key_of_the_own_region_comes_first_and_the_others_when_none_is_left() {
    let provider = Provider::start();
    let keys = two_keys(&provider, r#""region": "us","#, r#""region": "eu","#);
    let node = Node::start("region", &keys, r#""cluster_config": { "region": "eu" },"#);
    let mut client = node.connect();
    client.send(chat(ASK));
    let mut upstream = provider.accept();
    assert!(upstream.message().0.contains(OTHER_KEY), "the near one, however little it weighs");
    upstream.send("HTTP/1.1 429 Slow down\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n");
    drop(upstream);
    let mut upstream = provider.accept();
    for _ in 0..2 {
        assert!(upstream.message().0.contains(KEY));
        upstream.send(ANSWER);
        assert!(client.message().0.starts_with("HTTP/1.1 200 "));
        client.send(chat(ASK));
    }
    upstream.message();
    upstream.send(ANSWER);
    client.message();
    drop((client, upstream));
    node.stop();
}

#[test]
fn an_overloaded_node_turns_some_requests_away_and_says_when_to_come_back() {
    let provider = Answering::start(|_| ANSWER.to_vec());
    // Every machine has more than a hundredth of its memory in use.
    let node = Node::start_with("shed", &provider.entry, "", r#""overload": { "memory_percent": 1 },"#);
    let page = |path: &str| {
        let mut wire = node.connect();
        wire.send(format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n"));
        wire.rest()
    };
    wait_for("it is not ready", || {
        let answer = page("/ready");
        answer.starts_with("HTTP/1.1 503 ").then(|| assert!(answer.contains("overloaded: its memory"), "{answer}"))
    });
    let mut client = node.connect();
    let refused = wait_for("a request is turned away", || {
        let head = ask(&mut client, ASK);
        (!head.starts_with("HTTP/1.1 200 ")).then_some(head)
    });
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("\r\nretry-after: 2\r\n"), "{refused}");
    assert!(!refused.contains("connection: close"), "{refused}");
    let before = provider.asked();
    wait_for("another one is served on the same connection", || {
        ask(&mut client, ASK).starts_with("HTTP/1.1 200 ").then_some(())
    });
    assert_eq!(provider.asked(), before + 1, "what was turned away reached nobody");
    assert!(page("/health").starts_with("HTTP/1.1 200 "));
    assert!(page("/cluster/status").contains(r#""ready":false"#));
    drop(client);
    node.stop();
}

#[test]
fn one_client_cannot_take_a_key_away_from_the_others() {
    let provider = Answering::start(|head| {
        let denied = b"HTTP/1.1 404 No such model\r\ncontent-length: 0\r\n\r\n".to_vec();
        if head.contains(KEY) { denied } else { ANSWER.to_vec() }
    });
    let keys = provider.entry.replacen(
        r#""weight": 1.0 }]"#,
        &format!(
            r#""weight": 1000000 }}, {{ "name": "two", "value": "{OTHER_KEY}", "models": ["*"], "weight": 0.000001 }}]"#
        ),
        1,
    );
    let virtual_keys = r#""governance": { "virtual_keys": [
        { "id": "a", "name": "a", "value": "sk-bf-a" }, { "id": "b", "name": "b", "value": "sk-bf-b" }] },"#;
    let node = Node::start("denied", &keys, virtual_keys);
    let mut client = node.connect();
    let mut ask_as = |virtual_key: &str| {
        client.send(chat_with(&format!("x-bf-vk: {virtual_key}\r\n"), ASK));
        client.message().0
    };
    for _ in 0..5 {
        assert!(ask_as("sk-bf-a").starts_with("HTTP/1.1 404 "));
    }
    // The control thread has heard of all five.
    node.shows("deepintshield_attempts_total{provider=\"openai\",key=\"one\",outcome=\"ok\"}", 5);
    assert!(ask_as("sk-bf-a").starts_with("HTTP/1.1 404 "), "it may be this client's fault");
    assert!(ask_as("sk-bf-b").starts_with("HTTP/1.1 404 "));
    wait_for("the key rests for this model", || ask_as("sk-bf-a").starts_with("HTTP/1.1 200 ").then_some(()));
    assert!(ask_as("sk-bf-b").starts_with("HTTP/1.1 200 "));
    drop(client);
    node.stop();
}
