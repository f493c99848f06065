//! Routing rules at a node: who is led where, what a virtual key may not reach all the same, what
//! comes after a target that fails, and rules that change while the node runs.

use crate::rig::{ANSWER, KEY, Node, Provider, Wire, chat_with, wait_for};
use std::time::Duration;

const BODY: &str = r#"{"model":"openai/gpt-4o","messages":[]}"#;

/// Long enough to see what has come already.
const GLANCE: Duration = Duration::from_millis(1);

/// Two providers, `openai` and `groq`.
struct Two {
    openai: Provider,
    groq: Provider,
}

impl Two {
    fn start() -> Self {
        Self { openai: Provider::start(), groq: Provider::start() }
    }

    fn entries(&self) -> String {
        format!("{}, {}", self.openai.entry(""), self.groq.entry("").replacen("openai", "groq", 1))
    }

    /// Asks, answers at the provider that is led to, and checks what it was asked for: `groq/MODEL`.
    /// Returns the answer's head.
    fn leads(&self, client: &mut Wire, lines: &str, body: &str, to: &str) -> String {
        client.send(chat_with(lines, body));
        let (provider, model) = to.split_once('/').expect("a provider and a model");
        let asked = if provider == "groq" { &self.groq } else { &self.openai };
        let mut upstream = asked.accept();
        let (_, sent) = upstream.message();
        let sent = String::from_utf8_lossy(&sent).into_owned();
        assert!(sent.contains(&format!("\"model\":\"{model}\"")), "{sent}");
        // Each request has a connection of its own, so that it is known where it came to.
        upstream.send(closing(ANSWER));
        drop(upstream);
        let (head, _) = client.message();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains(&format!("\r\nx-bifrost-provider: {provider}\r\n")), "{head}");
        assert!(head.contains(&format!("\r\nx-bifrost-resolved-model: {model}\r\n")), "{head}");
        head
    }
}

/// The same answer, after which the provider closes.
fn closing(answer: &[u8]) -> Vec<u8> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    [&answer[..end], b"\r\nconnection: close", &answer[end..]].concat()
}

fn rules(rules: &str) -> String {
    format!(
        r#""governance": {{
        "customers": [{{ "id": "c", "name": "Customer" }}],
        "teams": [{{ "id": "t", "name": "Team", "customer_id": "c" }}],
        "virtual_keys": [
            {{ "id": "all", "name": "all", "value": "sk-bf-all" }},
            {{ "id": "own", "name": "own", "value": "sk-bf-own", "team_id": "t" }},
            {{ "id": "team", "name": "team", "value": "sk-bf-team", "team_id": "t" }},
            {{ "id": "keyed", "name": "keyed", "value": "sk-bf-keyed",
               "provider_configs": [{{ "provider": "openai", "allowed_models": ["*"], "key_ids": ["one"] }}] }},
            {{ "id": "few", "name": "few", "value": "sk-bf-few",
               "provider_configs": [{{ "provider": "openai", "allowed_models": ["gpt-4o"] }}] }}],
        "routing_rules": [{rules}] }},"#
    )
}

#[test]
fn a_request_goes_where_the_first_rule_that_holds_leads_it() {
    let two = Two::start();
    let rules = rules(
        r#"{ "name": "own", "scope": "virtual_key", "scope_id": "own", "priority": 9,
             "targets": [{ "provider": "groq", "model": "of-the-key" }] },
           { "name": "team", "scope": "team", "scope_id": "t", "targets": [{ "provider": "groq", "model": "of-the-team" }] },
           { "name": "later", "priority": 2, "match": { "headers": { "x-tier": "*" } }, "targets": [{ "model": "late" }] },
           { "name": "tier", "priority": 1, "match": { "headers": { "X-Tier": ["gold", "plat*"] } },
             "targets": [{ "provider": "groq" }] },
           { "name": "model", "match": { "models": ["smart"] }, "targets": [{ "provider": "groq", "model": "llama/3" }] },
           { "name": "cel", "cel_expression": "model.startsWith(\"old-\") && customer_name != \"Customer\"",
             "targets": [{ "model": "new" }] }"#,
    );
    let node = Node::start("rules", &two.entries(), &rules);
    let mut client = node.connect();
    let head = two.leads(&mut client, "", BODY, "openai/gpt-4o");
    assert!(!head.contains("routing-rule"), "{head}");
    let head = two.leads(&mut client, "x-bf-vk: sk-bf-own\r\n", BODY, "groq/of-the-key");
    assert!(head.contains("\r\nx-deepintshield-routing-rule: own\r\n"), "{head}");
    two.leads(&mut client, "x-bf-vk: sk-bf-team\r\nx-tier: gold\r\n", BODY, "groq/of-the-team");
    two.leads(&mut client, "x-bf-vk: sk-bf-all\r\nx-tier: gold\r\n", BODY, "groq/gpt-4o");
    two.leads(&mut client, "X-TIER: iron\r\nx-tier: platinum\r\n", BODY, "groq/gpt-4o");
    two.leads(&mut client, "x-tier: iron\r\n", BODY, "openai/late");
    two.leads(&mut client, "", r#"{"model":"smart","messages":[]}"#, "groq/llama/3");
    two.leads(&mut client, "", r#"{"model":"openai/old-3","messages":[]}"#, "openai/new");
    drop(client);
    node.shows("deepintshield_routing_rule_requests_total{rule=\"tier\"}", 2);
    node.shows("deepintshield_routing_rule_requests_total{rule=\"own\"}", 1);
    node.stop();
}

#[test]
fn a_header_that_is_matched_reaches_the_provider() {
    let two = Two::start();
    let rule = r#"{ "name": "r", "match": { "headers": { "x-tier": "gold" } }, "targets": [{ "provider": "groq" }] }"#;
    let node = Node::start("matched", &two.entries(), &rules(rule));
    let mut client = node.connect();
    client.send(chat_with("X-Tier: gold\r\n", BODY));
    let mut upstream = two.groq.accept();
    let (head, _) = upstream.message();
    assert!(head.to_ascii_lowercase().contains("\r\nx-tier: gold\r\n"), "{head}");
    upstream.send(ANSWER);
    assert!(client.message().0.starts_with("HTTP/1.1 200 "));
    drop((client, upstream));
    node.stop();
}

#[test]
fn no_rule_leads_to_what_a_virtual_key_may_not_use() {
    let two = Two::start();
    let rules = rules(
        r#"{ "name": "provider", "match": { "headers": { "x-to": "groq" } }, "targets": [{ "provider": "groq" }] },
           { "name": "model", "match": { "headers": { "x-to": "o1" } }, "targets": [{ "model": "o1" }] },
           { "name": "fallback", "match": { "headers": { "x-to": "fallback" } },
             "targets": [{ "model": "gpt-4o" }], "fallbacks": ["groq/x"] }"#,
    );
    let node = Node::start("granted", &two.entries(), &rules);
    let mut client = node.connect();
    for (to, code) in [("groq", "provider_blocked"), ("o1", "model_blocked")] {
        client.send(chat_with(&format!("x-bf-vk: sk-bf-few\r\nx-to: {to}\r\n"), BODY));
        let (head, body) = client.message();
        let body = String::from_utf8_lossy(&body);
        assert!(head.starts_with("HTTP/1.1 403 ") && body.contains(code), "{head}{body}");
        assert!(body.contains("routing rule"), "{body}");
    }
    // A fallback that this caller may not use is left out.
    client.send(chat_with("x-bf-vk: sk-bf-few\r\nx-to: fallback\r\n", BODY));
    let mut upstream = two.openai.accept();
    upstream.message();
    upstream.send("HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n");
    assert!(client.message().0.starts_with("HTTP/1.1 500 "));
    assert!(two.groq.accepted().is_none());
    drop((client, upstream));
    node.stop();
}

#[test]
fn fallbacks_of_a_rule_follow_a_target_that_fails_or_is_not_there() {
    let two = Two::start();
    let gone = Provider::start();
    let dead = gone.entry("").replacen("openai", "mistral", 1);
    drop(gone);
    let rules = rules(
        r#"{ "name": "fails", "match": { "models": ["a"] }, "targets": [{ "provider": "openai", "model": "m" }],
             "fallbacks": ["groq/"] },
           { "name": "refuses", "match": { "models": ["b"] }, "targets": [{ "provider": "mistral" }],
             "fallbacks": ["mistral/again", { "provider": "groq", "model": "n" }] },
           { "name": "client", "match": { "models": ["c"] }, "targets": [{ "provider": "mistral" }] }"#,
    );
    let node = Node::start("rule-fallbacks", &format!("{}, {dead}", two.entries()), &rules);
    let mut client = node.connect();
    client.send(chat_with("", r#"{"model":"a","messages":[],"fallbacks":["openai/not-asked"]}"#));
    let mut upstream = two.openai.accept();
    assert_eq!(upstream.message().1, br#"{"model":"m","messages":[]}"#);
    upstream.send("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n");
    let mut upstream = two.groq.accept();
    assert_eq!(upstream.message().1, br#"{"model":"a","messages":[]}"#, "the model that was asked for");
    upstream.send(ANSWER);
    let (head, _) = client.message();
    assert!(head.contains("\r\nx-bifrost-provider: groq\r\n"), "{head}");
    assert!(head.contains("\r\nx-bifrost-fallback-index: 1\r\n"), "{head}");

    client.send(chat_with("", r#"{"model":"b","messages":[]}"#));
    assert_eq!(upstream.message().1, br#"{"model":"n","messages":[]}"#);
    upstream.send(ANSWER);
    let (head, _) = client.message();
    assert!(head.contains("\r\nx-bifrost-fallback-index: 2\r\n"), "{head}");

    // A rule that names none leaves the client's.
    client.send(chat_with("", r#"{"model":"c","messages":[],"fallbacks":["groq/mine"]}"#));
    assert_eq!(upstream.message().1, br#"{"model":"mine","messages":[]}"#);
    upstream.send(ANSWER);
    assert!(client.message().0.starts_with("HTTP/1.1 200 "));
    drop((client, upstream));
    node.stop();
}

#[test]
fn a_key_of_a_rule_is_the_only_one() {
    let provider = Provider::start();
    let second = r#"{ "name": "two", "value": "another-key-of-test", "models": ["*"], "weight": 0 }"#;
    let keys = provider.entry("").replacen(r#""weight": 1.0 }]"#, &format!(r#""weight": 1.0 }}, {second}]"#), 1);
    let rule =
        r#"{ "name": "r", "match": { "models": ["m"] }, "targets": [{ "provider": "openai", "key_id": "two" }] }"#;
    let node = Node::start("pinned", &keys, &rules(rule));
    let mut client = node.connect();
    let mut ask = |model: &str, key: &str| {
        client.send(chat_with("x-bf-api-key: one\r\n", &format!(r#"{{"model":"{model}","messages":[]}}"#)));
        let mut upstream = provider.accept();
        let (head, _) = upstream.message();
        assert!(head.contains(key), "{model}");
        upstream.send(closing(ANSWER));
        assert!(client.message().0.starts_with("HTTP/1.1 200 "));
    };
    ask("m", "another-key-of-test");
    ask("n", KEY);
    client.send(chat_with("x-bf-vk: sk-bf-keyed\r\n", r#"{"model":"m","messages":[]}"#));
    let (head, body) = client.message();
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert!(String::from_utf8_lossy(&body).contains("key_blocked"));
    drop(client);
    node.stop();
}

/// For each of so many requests, whether it went to groq and not to openai. Connections stay.
fn to_groq(two: &Two, client: &mut Wire, lines: impl Fn(usize) -> String, count: usize) -> Vec<bool> {
    let mut wires: [Option<Wire>; 2] = [None, None];
    let mut led = Vec::new();
    for number in 0..count {
        client.send(chat_with(&lines(number), BODY));
        let answered = wait_for("a provider is asked", || {
            for (at, provider) in [&two.openai, &two.groq].into_iter().enumerate() {
                if let Some(wire) = provider.accepted() {
                    wires[at] = Some(wire);
                }
                if wires[at].as_mut().is_some_and(|wire| !wire.is_quiet_for(GLANCE)) {
                    return Some(at);
                }
            }
            None
        });
        let wire = wires[answered].as_mut().expect("it was just asked");
        wire.message();
        wire.send(ANSWER);
        let (head, _) = client.message();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        led.push(answered == 1);
    }
    led
}

#[test]
fn a_canary_gets_its_part_and_a_sticky_one_the_same_users() {
    let two = Two::start();
    let rules = rules(
        r#"{ "name": "sticky", "priority": 1, "match": { "headers": { "x-user": "*" } },
             "canary": { "provider": "groq", "percent": 50 }, "sticky": { "header": "x-user" } },
           { "name": "drawn", "priority": 2, "targets": [{ "weight": 0.5 }, { "provider": "groq", "weight": 0.5 }] }"#,
    );
    let node = Node::start("canary", &two.entries(), &rules);
    let mut client = node.connect();
    let users = |number: usize| format!("x-user: u{}\r\n", number % 10);
    let led = to_groq(&two, &mut client, users, 30);
    assert_eq!((&led[..10], &led[..10]), (&led[10..20], &led[20..]), "the same users each time");
    assert!(led.contains(&true) && led.contains(&false), "{led:?}");
    // 40 draws of one half: all the same once in 2^39.
    let led = to_groq(&two, &mut client, |_| String::new(), 40);
    assert!(led.contains(&true) && led.contains(&false), "{led:?}");
    drop(client);
    node.stop();
}

#[test]
fn rules_change_while_the_node_runs() {
    let two = Two::start();
    let rule = |to: &str| format!(r#"{{ "name": "r", "targets": [{{ "provider": "{to}", "model": "led" }}] }}"#);
    let node = Node::start("changing-rules", &two.entries(), &rules(&rule("openai")));
    let mut client = node.connect();
    assert_eq!(to_groq(&two, &mut client, |_| String::new(), 2), [false, false]);
    node.reload(|text| text.replace(&rule("openai"), &rule("groq")));
    wait_for("the new rule leads", || to_groq(&two, &mut client, |_| String::new(), 1)[0].then_some(()));
    assert_eq!(to_groq(&two, &mut client, |_| String::new(), 2), [true, true]);
    // One that cannot be read leaves the one that is there.
    node.reload(|text| text.replace(&rule("groq"), &rule("nobody")));
    node.logs("there is no provider \"nobody\"");
    assert_eq!(to_groq(&two, &mut client, |_| String::new(), 2), [true, true]);
    drop(client);
    node.stop();
}

#[test]
fn rules_are_checked_by_field_at_the_admin_interface_and_keep_what_they_name() {
    let two = Two::start();
    let name = "ruled-store";
    let folder = env!("CARGO_TARGET_TMPDIR");
    let store = format!(
        r#""config_store": {{ "enabled": true, "type": "sqlite",
           "config": {{ "path": "{folder}/{name}-{}/config.db" }} }},"#,
        std::process::id()
    );
    let node = Node::start(name, &two.entries(), &format!("{}{store}", rules("")));
    let path = "/api/governance/routing-rules";
    let refused = |body: &str, words: &[&str]| {
        let (status, body) = node.admin("POST", path, body);
        assert_eq!(status, 422, "{body}");
        assert!(words.iter().all(|word| body.contains(word)), "{body}");
    };
    refused(
        r#"{"name": "r", "targets": [{"provider": "grok", "weight": 1}]}"#,
        &[r#""pointer":"/targets/0/provider""#, r#""nearest":"groq""#, r#""entity":"routing_rule/r""#],
    );
    refused(
        r#"{"name": "r", "targets": [{"weight": 0.5}, {"provider": "groq", "weight": 0.4}]}"#,
        &[r#""pointer":"/targets""#, "the weights sum to 0.9"],
    );
    refused(
        r#"{"name": "r", "targets": [{"model": "m"}], "cel_expression": "params['a'] == 'b'"}"#,
        &["/cel_expression"],
    );
    refused(r#"{"targets": [{"model": "m"}]}"#, &["/name"]);

    let rule = r#"{"targets": [{"provider": "groq", "model": "led"}], "scope": "virtual_key", "scope_id": "all"}"#;
    let (status, body) = node.admin("PUT", &format!("{path}/r"), rule);
    assert_eq!(status, 201, "{body}");
    let mut client = node.connect();
    let key = |_: usize| "x-bf-vk: sk-bf-all\r\n".to_owned();
    wait_for("the new rule leads", || to_groq(&two, &mut client, key, 1)[0].then_some(()));

    for named in ["/api/providers/groq", "/api/governance/virtual-keys/all"] {
        let (status, body) = node.admin("DELETE", named, "");
        assert_eq!(status, 422, "{body}");
        assert!(body.contains(r#""entity":"routing_rule/r""#), "{body}");
    }
    // What has nothing to do with the rule changes beside it.
    let (status, body) = node.admin("DELETE", "/api/governance/virtual-keys/few", "");
    assert_eq!(status, 200, "{body}");
    assert_eq!(to_groq(&two, &mut client, key, 1), [true]);
    let (status, body) = node.admin("DELETE", &format!("{path}/r"), "");
    assert_eq!(status, 200, "{body}");
    wait_for("no rule leads", || (!to_groq(&two, &mut client, key, 1)[0]).then_some(()));
    let (status, body) = node.admin("DELETE", "/api/providers/groq", "");
    assert_eq!(status, 200, "{body}");
    drop(client);
    node.stop();
}
