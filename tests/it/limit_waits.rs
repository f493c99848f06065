//! Requests that wait for units of a limit at a node instead of being refused.

use crate::rig::{ANSWER, Node, Provider, Wire, chat_with};

/// The share of one virtual key, and of everybody without one, of the requests that may wait.
const SHARE: u64 = 256;

const WAITING: &str = "deepintshield_core_waiting{core=\"0\"}";

/// `governance` with this rate limit for the provider `openai`, and virtual keys `a` and `b`.
fn governance(rate_limit: &str) -> String {
    let keys = ["a", "b"].map(|name| format!(r#"{{ "id": "{name}", "name": "{name}", "value": "sk-bf-{name}" }}"#));
    format!(
        r#""governance": {{ "rate_limits": [{{ "id": "l", {rate_limit} }}], "virtual_keys": [{}],
            "providers": [{{ "name": "openai", "rate_limit_id": "l" }}] }},"#,
        keys.join(",")
    )
}

/// One request at once, which may be waited for as long as a test lasts.
const ONE_AT_ONCE: &str = r#""concurrent_max_limit": 1, "max_wait": "60s""#;

fn ask_as(client: &mut Wire, virtual_key: &str, user: &str) {
    let line = if virtual_key.is_empty() { String::new() } else { format!("x-bf-vk: sk-bf-{virtual_key}\r\n") };
    client.send(chat_with(&line, &format!(r#"{{"model":"openai/m","messages":[],"user":"{user}"}}"#)));
}

fn ask(client: &mut Wire) {
    ask_as(client, "", "somebody");
}

/// The next request that reaches the provider, on a connection of its own; and whose it is.
fn next(provider: &Provider) -> (Wire, String) {
    let mut upstream = provider.accept();
    let body = String::from_utf8_lossy(&upstream.message().1).into_owned();
    let (_, rest) = body.split_once(r#""user":""#).expect("one of ours");
    let user = rest.split('"').next().unwrap_or_default().to_owned();
    (upstream, user)
}

fn answer(upstream: &mut Wire) {
    let answer = String::from_utf8_lossy(ANSWER);
    upstream.send(answer.replacen("\r\n", "\r\nconnection: close\r\n", 1));
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

fn counted(name: &str, unit: &str) -> String {
    format!("deepintshield_limit_{name}_total{{limit=\"l/{unit}\"}}")
}

#[test]
fn what_a_window_has_no_room_for_goes_out_when_it_has_moved() {
    let provider = Provider::start();
    let limit = r#""request_max_limit": 3, "request_reset_duration": "2s", "max_wait": "15s""#;
    let node = Node::start("wait-for-window", &provider.entry(""), &governance(limit));
    let mut clients: Vec<_> = (0..6).map(|_| node.connect()).collect();
    clients.iter_mut().for_each(ask);
    for _ in 0..clients.len() {
        answer(&mut next(&provider).0);
    }
    clients.iter_mut().for_each(is_answered);
    node.shows(&counted("waits", "requests"), 3);
    node.shows(&counted("waits_given_up", "requests"), 0);
    drop(clients);
    node.stop();
}

#[test]
fn virtual_keys_are_served_by_turns_however_many_one_sends() {
    let provider = Provider::start();
    let node = Node::start("wait-by-turns", &provider.entry(""), &governance(ONE_AT_ONCE));
    let mut clients = Vec::new();
    for (waiting, user) in (0..).zip(["a0", "a1", "a2", "a3", "b1"]) {
        let mut client = node.connect();
        ask_as(&mut client, &user[..1], user);
        clients.push(client);
        // Each is in the line before the next one comes.
        node.shows("deepintshield_core_requests_in_flight{core=\"0\"}", waiting + 1);
        node.shows(WAITING, waiting);
    }
    let order: Vec<String> = (0..clients.len())
        .map(|_| {
            let (mut upstream, user) = next(&provider);
            assert!(provider.accepted().is_none(), "one at once");
            answer(&mut upstream);
            user
        })
        .collect();
    assert_eq!(order, ["a0", "a1", "b1", "a2", "a3"]);
    clients.iter_mut().for_each(is_answered);
    drop(clients);
    node.stop();
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let provider = Provider::start();
    let node = Node::start("wait-and-leave", &provider.entry(""), &governance(ONE_AT_ONCE));
    let [mut first, mut leaving, mut last] = std::array::from_fn(|_| node.connect());
    ask_as(&mut first, "", "first");
    let (mut upstream, _) = next(&provider);
    ask_as(&mut leaving, "", "leaving");
    node.shows(WAITING, 1);
    drop(leaving);
    node.shows(WAITING, 0);
    node.shows(&counted("waits_given_up", "concurrent"), 1);
    ask_as(&mut last, "", "last");
    answer(&mut upstream);
    is_answered(&mut first);
    let (mut upstream, user) = next(&provider);
    assert_eq!(user, "last");
    answer(&mut upstream);
    is_answered(&mut last);
    drop((first, last));
    node.stop();
}

#[test]
fn one_virtual_key_cannot_fill_the_line() {
    let provider = Provider::start();
    let node = Node::start("wait-in-full-line", &provider.entry(""), &governance(ONE_AT_ONCE));
    let mut running = node.connect();
    ask(&mut running);
    let (mut upstream, _) = next(&provider);
    let mut waiting: Vec<_> = (0..SHARE).map(|_| node.connect()).collect();
    waiting.iter_mut().for_each(ask);
    node.shows(WAITING, SHARE);
    let [mut one_more, mut other] = std::array::from_fn(|_| node.connect());
    ask(&mut one_more);
    let told = refusal(&mut one_more);
    assert!(told.contains("concurrency_limited"), "{told}");
    ask_as(&mut other, "b", "other");
    node.shows(WAITING, SHARE + 1);
    drop(waiting);
    node.shows(WAITING, 1);
    answer(&mut upstream);
    is_answered(&mut running);
    let (mut upstream, user) = next(&provider);
    assert_eq!(user, "other");
    answer(&mut upstream);
    is_answered(&mut other);
    drop((running, one_more, other));
    node.stop();
}

#[test]
fn a_wait_that_came_to_nothing_is_refused_and_counted_once() {
    let provider = Provider::start();
    let limit = r#""concurrent_max_limit": 1, "max_wait": "300ms""#;
    let node = Node::start("wait-in-vain", &provider.entry(""), &governance(limit));
    let [mut running, mut second] = std::array::from_fn(|_| node.connect());
    ask(&mut running);
    let (mut upstream, _) = next(&provider);
    ask(&mut second);
    refusal(&mut second);
    for name in ["waits", "waits_given_up", "refusals"] {
        node.shows(&counted(name, "concurrent"), 1);
    }
    answer(&mut upstream);
    is_answered(&mut running);
    drop((running, second));
    node.stop();
}

#[test]
fn nobody_waits_for_what_cannot_come() {
    let provider = Provider::start();
    let limit = r#""request_max_limit": 1, "request_reset_duration": "1h", "max_wait": "300s""#;
    let node = Node::start("wait-for-nothing", &provider.entry(""), &governance(limit));
    let mut client = node.connect();
    ask(&mut client);
    answer(&mut next(&provider).0);
    is_answered(&mut client);
    ask(&mut client);
    // Sooner than its wait would be over: the connection's patience is shorter.
    let told = refusal(&mut client);
    assert!(told.contains("limit l/requests has no room: 0 of 1 requests left"), "{told}");
    node.shows(&counted("refusals", "requests"), 1);
    drop(client);
    node.stop();
}

#[test]
fn nobody_waits_where_another_provider_has_room() {
    let provider = Provider::start();
    let both = format!("{},{}", provider.entry(""), provider.entry("").replacen("openai", "groq", 1));
    let node = Node::start("wait-or-fall-back", &both, &governance(ONE_AT_ONCE));
    let [mut running, mut second] = std::array::from_fn(|_| node.connect());
    ask(&mut running);
    let (mut upstream, _) = next(&provider);
    second.send(chat_with("", r#"{"model":"openai/m","messages":[],"fallbacks":["groq/m"],"user":"second"}"#));
    let (mut other_upstream, user) = next(&provider);
    assert_eq!(user, "second");
    answer(&mut other_upstream);
    is_answered(&mut second);
    answer(&mut upstream);
    is_answered(&mut running);
    drop((running, second));
    node.stop();
}
