//! What the fields of a limit mean at a node: which tokens count and from when on, parts of
//! windows, requests at once, and estimates that were learned.

use crate::rig::{ANSWER, KEY, Node, Provider, Wire, chat};

/// Tokens of [`ANSWERED`].
const PROMPT: u64 = 7;
const OUTPUT: u64 = 5;
const ANSWERED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 58\r\n\r\n\
    {\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5},\"x\":[]}";

/// A request to a provider by name, for an answer of at most so many tokens.
/// Tokens that count while a request of this body runs, and after it.
type HeldThenSpent = fn(&str) -> [u64; 2];

fn body(provider: &str, max_tokens: u64) -> String {
    format!(r#"{{"model":"{provider}/m","messages":[],"max_tokens":{max_tokens}}}"#)
}

/// A byte of ASCII is at most half a token.
fn bound(body: &str) -> u64 {
    body.len().div_ceil(2) as u64
}

fn used(limit: &str, unit: &str) -> String {
    format!("deepintshield_limit_used{{limit=\"{limit}/{unit}\",unit=\"{unit}\"}}")
}

/// `governance` with these rate limits and one for the provider `openai`.
fn governance(rate_limits: &str) -> String {
    let provider = r#""providers": [{ "name": "openai", "rate_limit_id": "l" }]"#;
    format!(r#""governance": {{ "rate_limits": [{rate_limits}], {provider} }},"#)
}

fn is_answered(client: &mut Wire) {
    let (head, body) = client.message();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}{}", String::from_utf8_lossy(&body));
}

/// What a refusal says, which has to tell when to come back.
fn refusal(client: &mut Wire) -> String {
    let (head, body) = client.message();
    assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("\r\nretry-after: "), "{head}");
    String::from_utf8_lossy(&body).into_owned()
}

#[test]
fn every_way_to_charge_counts_its_own_tokens_and_holds_its_own_until_then() {
    let ways: [(&str, &str, HeldThenSpent); 6] = [
        ("openai", r#""charge": "admission""#, |body| [bound(body) + 100; 2]),
        ("groq", r#""charge": "input""#, |body| [bound(body), PROMPT]),
        ("mistral", r#""charge": "produced""#, |body| [bound(body) + 100, PROMPT + OUTPUT]),
        // How a provider counts is not known: what it may count at its door goes on to count.
        ("cerebras", r#""enforcement": "strict""#, |body| [bound(body) + 100; 2]),
        ("xai", r#""enforcement": "admission""#, |body| [body.len().div_ceil(4) as u64 + 100; 2]),
        ("deepseek", r#""enforcement": "admission", "charge": "input""#, |body| [body.len().div_ceil(4) as u64; 2]),
    ];
    let provider = Provider::start();
    let providers = ways.map(|(name, ..)| provider.entry("").replacen("openai", name, 1)).join(",");
    let limits = ways.map(|(name, fields, _)| {
        format!(r#"{{ "id": "{name}", "token_max_limit": 100000, "token_reset_duration": "1h", {fields} }}"#)
    });
    let limited = ways.map(|(name, ..)| format!(r#"{{ "name": "{name}", "rate_limit_id": "{name}" }}"#));
    let (limits, limited) = (limits.join(","), limited.join(","));
    let governance = format!(r#""governance": {{ "rate_limits": [{limits}], "providers": [{limited}] }},"#);
    let node = Node::start("ways-to-charge", &providers, &governance);
    let mut client = node.connect();
    for (name, fields, expected) in ways {
        let body = body(name, 100);
        let [while_it_runs, afterwards] = expected(&body);
        client.send(chat(&body));
        let mut upstream = provider.accept();
        assert!(upstream.message().0.contains(KEY), "{name}: {fields}");
        node.shows(&used(name, "tokens"), while_it_runs);
        upstream.send(ANSWERED);
        is_answered(&mut client);
        node.shows(&used(name, "tokens"), afterwards);
    }
    drop(client);
    node.stop();
}

#[test]
fn a_limit_of_virtual_keys_counts_what_was_used() {
    let provider = Provider::start();
    let governance = r#""governance": {
        "rate_limits": [{ "id": "own", "token_max_limit": 1000, "token_reset_duration": "1h" }],
        "virtual_keys": [{ "id": "v", "name": "v", "value": "sk-bf-v", "rate_limit_id": "own" }] },"#;
    let node = Node::start("charged-as-used", &provider.entry(""), governance);
    let mut client = node.connect();
    let body = body("openai", 100);
    client.send(crate::rig::chat_with("x-bf-vk: sk-bf-v\r\n", &body));
    let mut upstream = provider.accept();
    upstream.message();
    node.shows(&used("own", "tokens"), bound(&body) + 100);
    upstream.send(ANSWERED);
    is_answered(&mut client);
    node.shows(&used("own", "tokens"), PROMPT + OUTPUT);
    drop((client, upstream));
    node.stop();
}

#[test]
fn a_part_of_a_window_refuses_what_the_whole_of_it_has_room_for() {
    let provider = Provider::start();
    let limit = r#"{ "id": "l", "request_max_limit": 720, "request_reset_duration": "1h", "sub_window": "10s" }"#;
    let node = Node::start("sub-window", &provider.entry(""), &governance(limit));
    let mut client = node.connect();
    client.send(chat(&body("openai", 1)));
    let mut upstream = provider.accept();
    for _ in 0..2 {
        upstream.message();
        upstream.send(ANSWER);
        is_answered(&mut client);
        client.send(chat(&body("openai", 1)));
    }
    let told = refusal(&mut client);
    assert!(told.contains("limit l/requests/10s has no room: 0 of 2 requests left"), "{told}");
    node.shows("deepintshield_limit_used{limit=\"l/requests\",unit=\"requests\"}", 2);
    node.shows("deepintshield_limit_amount{limit=\"l/requests/10s\",unit=\"requests\"}", 2);
    drop((client, upstream));
    node.stop();
}

#[test]
fn a_request_that_ends_makes_room_for_another_at_once() {
    let provider = Provider::start();
    let limit = r#"{ "id": "l", "concurrent_max_limit": 1 }"#;
    let node = Node::start("at-once", &provider.entry(""), &governance(limit));
    let (mut first, mut second) = (node.connect(), node.connect());
    first.send(chat(&body("openai", 1)));
    let mut upstream = provider.accept();
    upstream.message();
    second.send(chat(&body("openai", 1)));
    let told = refusal(&mut second);
    assert!(told.contains("concurrency_limited") && told.contains("limit l/concurrent"), "{told}");
    upstream.send(ANSWER);
    is_answered(&mut first);
    node.shows(&used("l", "concurrent"), 0);
    second.send(chat(&body("openai", 1)));
    upstream.message();
    upstream.send(ANSWER);
    is_answered(&mut second);
    drop((first, second, upstream));
    node.stop();
}

#[test]
fn a_statistical_limit_reserves_what_answers_have_needed_and_counts_those_that_need_more() {
    const ANSWERS: u64 = 30;
    let provider = Provider::start();
    let limit = r#"{ "id": "l", "token_max_limit": 5000, "token_reset_duration": "1h",
                     "enforcement": "statistical", "overshoot_probability": 0.1 }"#;
    let node = Node::start("statistical", &provider.entry(""), &governance(limit));
    let mut client = node.connect();
    let body = body("openai", 1_000);
    client.send(chat(&body));
    let mut upstream = provider.accept();
    node.shows(&used("l", "tokens"), bound(&body) + 1_000);
    for _ in 0..ANSWERS {
        upstream.message();
        upstream.send(ANSWERED);
        is_answered(&mut client);
        client.send(chat(&body));
    }
    // All answers were the same: that is what the next one is expected to be.
    let spent = ANSWERS * (PROMPT + OUTPUT);
    node.shows(&used("l", "tokens"), spent + PROMPT + OUTPUT);
    upstream.message();
    upstream.send(String::from_utf8_lossy(ANSWERED).replace(":5}", ":65}").replace("length: 58", "length: 59"));
    is_answered(&mut client);
    node.shows(&used("l", "tokens"), spent + PROMPT + 65);
    for (name, value) in [("estimates_total", 31), ("estimates_exceeded_total", 1)] {
        node.shows(&format!("deepintshield_limit_{name}{{limit=\"l/tokens\"}}"), value);
    }
    node.shows("deepintshield_limit_estimates_exceeded_tokens_total{limit=\"l/tokens\"}", 60);
    node.shows("deepintshield_limit_beyond_entitlement_tokens_total{limit=\"l/tokens\"}", 0);
    drop((client, upstream));
    node.stop();
}
