//! The head that goes upstream: what a client says never changes where it goes or with which key.

use crate::rig::{ANSWER, CHAT, KEY, Node, Provider, chat};

/// Extra fields that an operator configured, one of which the gateway would write as well.
const EXTRA: &str = r#""extra_headers": { "x-team": "ours", "anthropic-version": "2099-01-01" },"#;
const ALLOWED: &str = r#""client": { "header_filter_config": { "allowlist": ["x-team", "x-trace"] } },"#;

/// The lines of a head, sorted, without those that differ each time.
fn lines(head: &str) -> Vec<&str> {
    let mut lines: Vec<_> = head.trim_end().split("\r\n").filter(|line| !line.starts_with("x-request-id: ")).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_client_chooses_neither_host_nor_credential_nor_our_own_fields() {
    let provider = Provider::start();
    let node = Node::start("upstream-head", &provider.entry(EXTRA), ALLOWED);
    let mut client = node.connect();
    client.send(format!(
        "POST http://evil.example/v1/chat/completions?key=evil&k%65y=evil&%61ccess_token=evil&x=1&api_key=evil HTTP/1.1\r\n\
         host: evil.example\r\ncontent-type: application/json\r\nauthorization: Bearer evil\r\nx-api-key: evil\r\n\
         x_api_key: evil\r\ncookie: evil\r\nforwarded: host=evil\r\nx-forwarded-host: evil\r\nvia: evil\r\n\
         openai-organization: evil\r\nconnection: keep-alive, x-hop\r\nx-hop: evil\r\nproxy-thing: evil\r\n\
         x-bf-eh-x-trace: fine\r\nx-bf-eh-x-team: evil\r\nx-bf-eh-authorization: evil\r\nx-bf-eh-host: evil\r\n\
         x-team: evil\r\norigin: https://evil.example\r\naccept-encoding: gzip\r\nx-own: fine\r\n\
         content-length: {}\r\n\r\n{CHAT}",
        CHAT.len()
    ));
    let mut upstream = provider.accept();
    let (head, body) = upstream.message();
    let host = head.lines().find(|line| line.starts_with("host: 127.0.0.1:")).expect("the provider's own name");
    let wanted = format!(
        "POST /v1/chat/completions?x=1 HTTP/1.1\r\naccept-encoding: identity\r\nanthropic-version: 2099-01-01\r\n\
         authorization: Bearer {KEY}\r\ncontent-length: {}\r\ncontent-type: application/json\r\n{host}\r\n\
         x-own: fine\r\nx-team: ours\r\nx-trace: fine",
        CHAT.len()
    );
    assert_eq!(lines(&head), lines(&wanted));
    assert_eq!(body, CHAT.as_bytes());
    upstream.send(ANSWER);
    client.message();
    drop((client, upstream));
    node.stop();
}

#[test]
fn a_path_that_climbs_goes_nowhere() {
    let provider = Provider::start();
    let node = Node::start("climbs", &provider.entry(""), "");
    for path in ["/v1/../x", "/v1/%2e%2e/x", "/v1/..;/x", "/v1/..;a=b/x", "/v1/.%2E%3b/x", "/v1/a%2fb", "/v1/a%5cb"] {
        let mut client = node.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n"));
        let answer = client.rest();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer}");
    }
    assert!(provider.accepted().is_none());
    node.stop();
}

#[test]
fn what_a_provider_says_of_accounts_and_connections_stays_here() {
    let provider = Provider::start();
    let node = Node::start("answer-head", &provider.entry(""), "");
    let mut client = node.connect();
    client.send(chat(CHAT));
    let mut upstream = provider.accept();
    upstream.message();
    upstream.send(
        "HTTP/1.1 200 OK\r\nset-cookie: evil\r\nalt-svc: evil\r\nopenai-organization: evil\r\nkeep-alive: evil\r\n\
         anthropic-organization-id: evil\r\nstrict-transport-security: evil\r\nproxy-authenticate: evil\r\n\
         connection: x-hop\r\nx-hop: evil\r\nx-bifrost-provider: evil\r\naccess-control-allow-origin: evil\r\n\
         x-own: fine\r\ncontent-length: 0\r\n\r\n",
    );
    let (head, _) = client.message();
    assert!(!head.contains("evil") && head.contains("\r\nx-own: fine\r\n"), "{head}");
    assert!(head.contains("\r\nx-bifrost-provider: openai\r\n"), "{head}");
    drop((client, upstream));
    node.stop();
}
