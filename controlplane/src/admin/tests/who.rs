//! Who is let in, and what the audit log says of it.

use super::*;
use crate::admin::door::PUBLIC;
use crate::admin::operations::operations;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use shared::config::load;

const AUTH: &str = r#"{"is_enabled": true, "admin_username": "ann", "admin_password": "correct horse",
    "api_tokens": [{"name": "ci", "role": "write", "value": "0123456789abcdef-w"},
                   {"name": "graphs", "role": "read", "value": "0123456789abcdef-r"}]}"#;

fn accounts() -> Accounts {
    let text = format!(r#"{{"governance": {{"auth_config": {AUTH}}}}}"#);
    Accounts::of(&load(&text, &shared::config::Sources::none()).unwrap().config.governance.auth).unwrap()
}

fn node() -> Node {
    Node::new("{}", accounts())
}

fn by(who: &str, mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert("authorization", who.parse().unwrap());
    request
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[tokio::test]
async fn without_credentials_every_path_that_is_not_public_answers_401() {
    let node = node();
    let known = operations().into_iter().map(|operation| operation.path.replace("{*", "{"));
    let known: Vec<String> =
        known.filter(|path| path.starts_with("/api") && !PUBLIC.contains(&path.as_str())).collect();
    assert!(known.len() > 20);
    let unknown = ["/api", "/api/", "/api/nothing", "/api/keys/a/b/c", "/api/config/../version", "/api/%2e"];
    for path in known.iter().map(String::as_str).chain(unknown) {
        let path = path.replace(['{', '}'], "");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "ODD"] {
            let answer = node.ask(request(method, &path, "{}")).await;
            assert_eq!(answer.status, 401, "{method} {path}");
            assert!(answer.headers.contains_key("www-authenticate"));
        }
    }
    for path in PUBLIC.iter().filter(|path| **path != "/ready") {
        assert_eq!(node.get(path).await.status, 200, "{path}");
    }
    assert_eq!(node.live.document().head.number, 0);
}

#[tokio::test]
async fn a_token_does_what_its_role_allows_and_a_password_everything() {
    let node = node();
    for (who, get, put) in [
        ("Bearer 0123456789abcdef-w".to_owned(), 200, 201),
        ("Bearer 0123456789abcdef-r".to_owned(), 200, 403),
        ("Bearer 0123456789abcdef-x".to_owned(), 401, 401),
        (basic("ann:correct horse"), 200, 200),
        (basic("ann:wrong"), 401, 401),
        (basic("0123456789abcdef-w:"), 401, 401),
        ("correct horse".to_owned(), 401, 401),
    ] {
        assert_eq!(node.ask(by(&who, request("GET", "/api/config", ""))).await.status, get, "{who}");
        let limit = r#"{"request_max_limit": 1, "request_reset_duration": "1m"}"#;
        let write = request("PUT", "/api/governance/rate-limits/r", limit);
        assert_eq!(node.ask(by(&who, write)).await.status, put, "{who}");
    }
    assert_eq!(node.ask(by("Bearer 0123456789abcdef-w", request("GET", "/api/nothing", ""))).await.status, 404);
    let wrong_method = node.ask(by("Bearer 0123456789abcdef-w", request("DELETE", "/api/config", ""))).await;
    assert_eq!((wrong_method.status, wrong_method.headers.contains_key("allow")), (405, true));
}

#[tokio::test]
async fn who_guesses_has_to_wait_and_a_right_token_does_not() {
    let node = node();
    for _ in 0..10 {
        assert_eq!(node.ask(by("Bearer guessed-guessed-g", request("GET", "/api/config", ""))).await.status, 401);
    }
    let refused = node.ask(by(&basic("ann:correct horse"), request("GET", "/api/config", ""))).await;
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(node.ask(by("Bearer 0123456789abcdef-w", request("GET", "/api/config", ""))).await.status, 200);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_use_a_password_that_the_browser_knows() {
    let node = node();
    for method in ["GET", "DELETE"] {
        let mut foreign = by("Bearer 0123456789abcdef-w", request(method, "/api/keys/a", ""));
        foreign.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
        assert_eq!(node.ask(foreign).await.status, 403);
    }
    let mut named = by("Bearer 0123456789abcdef-w", request("GET", "/api/config", ""));
    named.headers_mut().insert("host", "gateway.example:8081".parse().unwrap());
    assert_eq!(node.ask(named).await.status, 200);
}

#[tokio::test]
async fn metrics_need_credentials_where_they_are_told_to() {
    for (on_loopback, metrics_auth, status) in
        [(true, None, 503), (false, None, 401), (true, Some(true), 401), (false, Some(false), 503)]
    {
        let accounts = watch::channel(Arc::new(accounts())).1;
        let setup = Setup { accounts, metrics_auth, ..setup(mpsc::channel(1).0, on_loopback) };
        let routes = TowerToHyperService::new(routes(Arc::new(Desk::new(setup))));
        for path in ["/metrics", "/cluster/status"] {
            // Without a control loop, whoever is let in hears that it does not answer.
            let answer = routes.call(request("GET", path, "")).await.unwrap();
            assert_eq!(answer.status(), status, "{on_loopback} {metrics_auth:?} {path}");
        }
    }
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_and_who_was_not_let_in() {
    let node = node();
    let limit = r#"{"request_max_limit": 1, "request_reset_duration": "1m"}"#;
    let put = |who: &str, query: &str| by(who, request("PUT", &format!("/api/governance/rate-limits/r{query}"), limit));
    node.ask(put("Bearer 0123456789abcdef-w", "")).await;
    node.ask(put("Bearer 0123456789abcdef-w", "?dry_run=true")).await;
    node.ask(put("Bearer 0123456789abcdef-r", "")).await;
    node.ask(put(&basic("ann:swordfish"), "")).await;
    let log = node.ask(by("Bearer 0123456789abcdef-r", request("GET", "/api/audit?limit=3", ""))).await;
    let shown: Vec<Value> = log.json()["items"].as_array().unwrap().clone();
    let field = |name: &str| shown.iter().map(|line| line[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("outcome"), ["unauthorized", "forbidden", "done"], "{}", log.text);
    assert_eq!(field("dry_run"), [false, false, true]);
    let next = log.json()["next"].as_str().unwrap().to_owned();
    let log = node.ask(by("Bearer 0123456789abcdef-r", request("GET", &format!("/api/audit?cursor={next}"), ""))).await;
    let first = &log.json()["items"][0];
    assert_eq!((&first["who"], &first["revision"]), (&json!("token:ci"), &json!(1)), "{}", log.text);
    assert_eq!(first["entities"], json!(["rate_limit/r"]));
    assert!(!log.text.contains("swordfish") && !log.text.contains("0123456789abcdef"));
}

#[tokio::test]
async fn without_the_configuration_that_names_them_nobody_is_let_in() {
    let node = Node::new("{}", Accounts::Unknown);
    assert_eq!(node.ask(by(&basic("ann:correct horse"), request("GET", "/api/config", ""))).await.status, 401);
    assert_eq!(node.get("/api/version").await.status, 200);
}
