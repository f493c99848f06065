//! Lists, entities, whole documents, revisions.

use super::*;
use serde_json::json;

const FILE: &str = r#"{
    "providers": {"openai": {"keys": [{"name": "a", "value": "env.A", "models": ["*"]}]}},
    "governance": {
        "rate_limits": [{"id": "r", "request_max_limit": 10, "request_reset_duration": "1m"}],
        "virtual_keys": [{"id": "v", "name": "v", "value": "sk-bf-planted", "provider_configs":
            [{"provider": "openai", "allowed_models": ["*"]}]}]
    }
}"#;

const LIMITS: &str = "/api/governance/rate-limits";

fn node() -> Node {
    Node::new(FILE, Accounts::Off)
}

fn limit(id: &str, max: u64) -> Value {
    json!({"id": id, "request_max_limit": max, "request_reset_duration": "1m"})
}

#[tokio::test]
async fn an_entity_is_made_read_changed_and_removed() {
    let node = node();
    let made = node.send("POST", LIMITS, &limit("s", 5)).await;
    assert_eq!((made.status, made.etag()), (201, "\"2\""), "{}", made.text);
    assert_eq!(made.json()["name"], "s");
    assert_eq!(node.send("POST", LIMITS, &limit("s", 5)).await.status, 409);
    let one = node.get("/api/governance/rate-limits/s").await;
    assert_eq!((one.status, one.etag(), one.json()), (200, "\"2\"", limit("s", 5)));
    let patched = node.send("PATCH", "/api/governance/rate-limits/s", &json!({"request_max_limit": 6})).await;
    assert_eq!(patched.status, 200, "{}", patched.text);
    assert_eq!(node.get("/api/governance/rate-limits/s").await.json(), limit("s", 6));
    let put = node.send("PUT", "/api/governance/rate-limits/s", &limit("s", 7)).await;
    assert_eq!((put.status, put.json()["changes"].as_u64()), (200, Some(1)));
    assert_eq!(node.send("PUT", "/api/governance/rate-limits/s", &limit("s", 7)).await.json()["changes"], 0);
    assert_eq!(node.send("PUT", "/api/governance/rate-limits/t", &limit("t", 7)).await.status, 201);
    assert_eq!(node.send("DELETE", "/api/governance/rate-limits/s", &Value::Null).await.status, 200);
    assert_eq!(node.get("/api/governance/rate-limits/s").await.status, 404);
    assert_eq!(node.send("DELETE", "/api/governance/rate-limits/s", &Value::Null).await.status, 404);
    assert_eq!(node.send("PATCH", "/api/governance/rate-limits/s", &json!({})).await.status, 404);
}

#[tokio::test]
async fn names_with_a_slash_are_names() {
    let node = node();
    for path in ["/api/keys/openai/a", "/api/keys/openai%2Fa", "/api/providers/openai/keys/a"] {
        assert_eq!(node.get(path).await.json()["value"], "env.A", "{path}");
    }
    let config = json!({"model_name": "gpt", "provider": "openai", "rate_limit_id": "r"});
    assert_eq!(node.send("POST", "/api/governance/model-configs", &config).await.json()["name"], "openai/gpt");
    assert_eq!(node.get("/api/governance/model-configs/openai%2Fgpt").await.json(), config);
    assert_eq!(node.get("/api/governance/model-configs/%ff").await.status, 400);
}

#[tokio::test]
async fn pages_follow_each_other_and_end() {
    let node = node();
    for id in ["a", "b", "c"] {
        assert_eq!(node.send("POST", LIMITS, &limit(id, 1)).await.status, 201);
    }
    let mut seen = Vec::new();
    let mut path = format!("{LIMITS}?limit=3");
    loop {
        let page = node.get(&path).await.json();
        seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("{LIMITS}?limit=3&cursor={next}");
    }
    assert_eq!(seen, ["a", "b", "c", "r"]);
    for query in ["limit=0", "limit=x", "limit=9999", "limt=1", "limit=1&limit=2"] {
        assert_eq!(node.get(&format!("{LIMITS}?{query}")).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn faults_name_the_entity_and_the_place_in_it() {
    let node = node();
    let wrong = json!({"id": "s", "request_max_limit": 5, "request_reset_duration": "1x", "enforcment": "strict"});
    let refused = node.send("POST", LIMITS, &wrong).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (422, &json!("invalid")), "{}", refused.text);
    let faults = refused.json()["error"]["faults"].clone();
    let mut places: Vec<_> = faults.as_array().unwrap().iter().map(|fault| fault["pointer"].clone()).collect();
    places.sort_by_key(ToString::to_string);
    assert_eq!(places, ["/enforcment", "/request_reset_duration"]);
    assert!(faults.as_array().unwrap().iter().all(|fault| fault["entity"] == "rate_limit/s"));
    assert!(refused.text.contains("\"nearest\":\"enforcement\""), "{}", refused.text);
    // What others refer to stays.
    let config = json!({"model_name": "m", "rate_limit_id": "r"});
    assert_eq!(node.send("POST", "/api/governance/model-configs", &config).await.status, 201);
    assert_eq!(node.send("DELETE", "/api/governance/rate-limits/r", &Value::Null).await.status, 422);
    assert_eq!(node.live.document().head.number, 2);
}

#[tokio::test]
async fn a_change_for_another_revision_is_not_made() {
    let node = node();
    let with = |tag: &str| {
        let mut request = request("PUT", "/api/governance/rate-limits/r", &limit("r", 99).to_string());
        request.headers_mut().insert("if-match", tag.parse().unwrap());
        request
    };
    for (tag, status) in [("\"7\"", 412), ("\"0\", \"7\"", 412), ("1", 400), ("W/\"1\"", 412), ("\"1\"", 200)] {
        assert_eq!(node.ask(with(tag)).await.status, status, "{tag}");
    }
    assert_eq!(node.ask(with("\"1\"")).await.status, 412);
    assert_eq!(node.ask(with("*")).await.status, 200);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let node = node();
    let path = |query: &str| format!("/api/governance/rate-limits/new?{query}");
    let dry = node.send("PUT", &path("dry_run=true"), &limit("new", 1)).await;
    assert_eq!((dry.status, &dry.json()["dry_run"], &dry.json()["changes"]), (200, &json!(true), &json!(1)));
    assert_eq!(node.send("PUT", &path("dry_run=true"), &json!({"id": "new"})).await.status, 422);
    assert_eq!(node.send("PUT", &path("dryrun=true"), &limit("new", 1)).await.status, 400);
    assert_eq!(node.send("PUT", &path("dry_run=yes"), &limit("new", 1)).await.status, 400);
    assert_eq!(node.live.document().head.number, 1);
}

#[tokio::test]
async fn bodies_that_are_none_are_refused_for_what_they_are() {
    let node = node();
    let with = |body: String, media: &str| {
        let mut request = request("POST", LIMITS, &body);
        request.headers_mut().insert("content-type", media.parse().unwrap());
        request
    };
    let whole = limit("s", 1).to_string();
    for (body, media, status) in [
        (whole.clone(), "text/plain", 415),
        (whole.clone(), "application/x-www-form-urlencoded", 415),
        ("{".to_owned(), "application/json", 400),
        (whole.replacen('{', "{\"id\": \"t\",", 1), "application/json", 400),
        ("[]".to_owned(), "application/json", 422),
        ("7".to_owned(), "application/json", 422),
        (format!("{}{}", "[".repeat(500), "]".repeat(500)), "application/json", 400),
        (" ".repeat(3 * 1024 * 1024), "application/json", 413),
        (format!("// why\n{whole}"), "application/json; charset=utf-8", 201),
    ] {
        let length = body.len();
        assert_eq!(node.ask(with(body, media)).await.status, status, "{length} {media}");
    }
    assert_eq!(node.send("PUT", "/api/governance/rate-limits/r", &limit("q", 1)).await.status, 422);
}

#[tokio::test]
async fn secrets_go_in_and_never_come_out() {
    let node = node();
    let key = json!({"name": "b", "value": "sk-planted-2", "models": ["*"]});
    assert_eq!(node.send("POST", "/api/providers/openai/keys", &key).await.status, 201);
    let token = json!({"network_config": {"extra_headers": {"x-token": "planted-3"}}});
    assert_eq!(node.send("PATCH", "/api/providers/openai", &token).await.status, 200);
    for path in [
        "/api/config",
        "/api/keys",
        "/api/keys/openai/b",
        "/api/providers",
        "/api/providers/openai",
        "/api/governance/virtual-keys",
        "/api/config/history",
        "/api/config/history/1",
        "/api/config/history/2",
        "/api/config/diff?from=0",
        "/api/audit",
    ] {
        let answer = node.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.text.contains("planted"), "{path}: {}", answer.text);
    }
    // What is shown for a secret leaves it as it is.
    let mut shown = node.get("/api/keys/openai/b").await.json();
    shown["weight"] = json!(2);
    assert_eq!(node.send("PUT", "/api/keys/openai/b", &shown).await.status, 200);
    shown["value"] = json!({"origin": "sealed", "fingerprint": "0000000000000000"});
    assert_eq!(node.send("PUT", "/api/keys/openai/b", &shown).await.status, 422);
}

#[tokio::test]
async fn a_provider_may_bring_its_keys_and_takes_them_along() {
    let node = node();
    let groq = json!({"name": "groq", "keys": [{"name": "k", "value": "env.K"}, {"name": "l", "value": "env.L"}]});
    let made = node.send("POST", "/api/providers", &groq).await;
    assert_eq!((made.status, &made.json()["changes"]), (201, &json!(3)), "{}", made.text);
    let fewer = json!({"keys": [{"name": "l", "value": "env.L"}]});
    assert_eq!(node.send("PUT", "/api/providers/groq", &fewer).await.json()["changes"], 1);
    let keys = node.get("/api/providers/groq/keys").await.json();
    assert_eq!((keys["items"].as_array().unwrap().len(), &keys["items"][0]["name"]), (1, &json!("groq/l")));
    assert_eq!(node.send("PUT", "/api/providers/groq", &json!({})).await.json()["changes"], 0, "keys stay");
    assert_eq!(node.send("DELETE", "/api/providers/groq", &Value::Null).await.json()["changes"], 2);
    assert_eq!(node.get("/api/providers/groq/keys").await.status, 404);
}

#[tokio::test]
async fn a_whole_document_takes_the_place_of_the_one_before() {
    let node = node();
    let shown = node.get("/api/config").await.json();
    let same = node.send("PUT", "/api/config", &shown).await;
    assert_eq!((same.status, &same.json()["changes"]), (200, &json!(0)), "{}", same.text);
    let mut other = shown.clone();
    other["governance"]["rate_limits"] = json!([limit("s", 1)]);
    other["server"] = json!({"port": 1});
    let put = node.send("PUT", "/api/config", &other).await;
    assert_eq!((put.status, &put.json()["changes"]), (200, &json!(2)));
    assert!(put.json()["warnings"].to_string().contains("server belongs to each node's own file"), "{}", put.text);
    for (path, wrong) in [("/providers", json!(7)), ("/governance/teams", json!({})), ("/governance", json!([]))] {
        let mut document = shown.clone();
        match document.pointer_mut(path) {
            Some(place) => *place = wrong,
            None => document["governance"]["teams"] = wrong,
        }
        let refused = node.send("PUT", "/api/config", &document).await;
        assert_eq!((refused.status, &refused.json()["error"]["faults"][0]["pointer"]), (422, &json!(path)));
    }
}

#[tokio::test]
async fn history_tells_what_changed_and_leads_back() {
    let node = node();
    for max in 1..=3 {
        let path = format!("/api/governance/rate-limits/r?comment=to%20{max}");
        assert_eq!(node.send("PUT", &path, &limit("r", max)).await.status, 200);
    }
    let list = node.get("/api/config/history?limit=2").await.json();
    assert_eq!((&list["items"][0]["number"], &list["items"][0]["comment"]), (&json!(4), &json!("to 3")));
    assert_eq!((&list["items"][0]["entities"], &list["next"]), (&json!(["rate_limit/r"]), &json!("3")));
    let rest = node.get("/api/config/history?limit=2&cursor=3").await.json();
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (2, &Value::Null));
    let one = node.get("/api/config/history/3").await.json();
    assert_eq!(one["changes"][0]["before"], limit("r", 1));
    assert_eq!(node.get("/api/config/history/9").await.status, 404);
    let diff = node.get("/api/config/diff?from=1&to=3").await.json();
    assert_eq!(diff["changes"], json!([{"entity": "rate_limit/r", "before": limit("r", 10), "after": limit("r", 2)}]));
    let back = node.send("POST", "/api/config/rollback", &json!({"to": 1})).await;
    assert_eq!((back.status, &back.json()["revision"]), (200, &json!(5)), "{}", back.text);
    assert_eq!(node.get("/api/governance/rate-limits/r").await.json(), limit("r", 10));
    assert_eq!(node.send("POST", "/api/config/rollback", &json!({"to": 9})).await.status, 404);
    assert_eq!(node.send("POST", "/api/config/rollback", &json!({"to": -1})).await.status, 400);
}

#[tokio::test]
async fn a_store_that_is_full_is_told_with_the_reason() {
    let node = node();
    let refused = node.send("PUT", "/api/governance/rate-limits/r?comment=FULL", &limit("r", 1)).await;
    assert_eq!((refused.status, &refused.json()["error"]["message"]), (503, &json!("the disk is full")));
}

#[tokio::test]
async fn changes_at_the_same_time_all_come_to_something() {
    let node = Arc::new(node());
    let mut changes = Vec::new();
    for at in 0..8 {
        let node = Arc::clone(&node);
        changes.push(tokio::spawn(
            async move { node.send("POST", LIMITS, &limit(&format!("many-{at}"), 1)).await.status },
        ));
    }
    for change in changes {
        assert_eq!(change.await.unwrap(), 201);
    }
    assert_eq!(node.live.document().head.number, 9);
}
