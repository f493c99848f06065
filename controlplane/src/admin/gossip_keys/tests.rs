use super::*;
use crate::admin::tests::desk;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::sync::mpsc;

/// Says what each step was, instead of doing it. `held` is refused.
fn answer(step: KeyStep) -> Result<KeysStatus, KeyFault> {
    let shown = match step {
        KeyStep::Show => "show".to_owned(),
        KeyStep::Add(key) => format!("add {}", key.expose()),
        KeyStep::SendWith { id, .. } if id == "held" => {
            let nodes = vec!["b".to_owned()];
            return Err(RotationRefused::NotAccepted { id, nodes }.into());
        }
        KeyStep::SendWith { id, is_forced } => format!("send {id} {is_forced}"),
        KeyStep::Drop { id, is_forced } => format!("drop {id} {is_forced}"),
    };
    let key = KeyStatus {
        id: shown,
        sends: true,
        is_configured: true,
        accepted_by: vec![],
        not_accepted_by: vec![],
        sent_by: vec![],
    };
    Ok(KeysStatus { keys: vec![key], note: "" })
}

async fn asked(on_loopback: bool, request: Request<Body>) -> (u16, Value) {
    let (questions, mut asked) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(question) = asked.recv().await {
            if let Question::GossipKeys(step, to) = question {
                drop(to.send(answer(step)));
            }
        }
    });
    let routes = crate::admin::routes(desk(questions, on_loopback));
    let response = TowerToHyperService::new(routes).call(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(Body::new(response), 4_096).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn request(method: &str, path: &str, body: &'static str) -> Request<Body> {
    let path = format!("/api/cluster/gossip-keys{path}");
    let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:8081");
    request.header("content-type", "application/json").body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn each_step_reaches_the_control_loop_as_it_was_meant() {
    for (method, path, body, step) in [
        ("GET", "", "", "show"),
        ("POST", "", "{\"key\":\"abc\"}", "add abc"),
        ("POST", "/0a0b/send", "", "send 0a0b false"),
        ("POST", "/0a0b/send?force=true", "", "send 0a0b true"),
        ("POST", "/0a0b/send?force=false", "", "send 0a0b false"),
        ("DELETE", "/0a0b", "", "drop 0a0b false"),
        ("DELETE", "/0a0b?force=true", "", "drop 0a0b true"),
    ] {
        let (status, body) = asked(true, request(method, path, body)).await;
        assert_eq!((status, body["keys"][0]["id"].as_str()), (200, Some(step)), "{method} {path}");
    }
}

#[tokio::test]
async fn a_refused_step_names_the_nodes() {
    let (status, body) = asked(true, request("POST", "/held/send", "")).await;
    assert_eq!((status, &body["error"]["nodes"]), (409, &json!(["b"])));
    assert!(body["error"]["message"].as_str().unwrap().contains("do not accept key held: b"), "{body}");
}

#[tokio::test]
async fn a_listener_that_others_reach_changes_nothing() {
    for (method, path, body) in
        [("POST", "", "{\"key\":\"abc\"}"), ("POST", "/a/send", ""), ("DELETE", "/a?force=true", "")]
    {
        let (status, body) = asked(false, request(method, path, body)).await;
        assert_eq!(status, 403, "{body}");
    }
    assert_eq!(asked(false, request("GET", "", "")).await.0, 200);
}

#[tokio::test]
async fn a_page_in_a_browser_changes_and_sees_nothing() {
    for (method, path) in [("GET", ""), ("POST", ""), ("POST", "/a/send"), ("DELETE", "/a")] {
        let mut rebound = request(method, path, "{\"key\":\"abc\"}");
        rebound.headers_mut().insert("host", "evil.example".parse().unwrap());
        assert_eq!(asked(true, rebound).await.0, 403);
        let mut foreign = request(method, path, "{\"key\":\"abc\"}");
        foreign.headers_mut().insert("origin", "http://evil.example".parse().unwrap());
        assert_eq!(asked(true, foreign).await.0, 403);
    }
}

#[tokio::test]
async fn a_body_that_is_no_key_is_refused_without_repeating_it() {
    for (body, expected) in [("sk-123", 400), ("{\"key\":7}", 400), ("{\"key\":\"sk-123\",\"id\":1}", 400), ("{}", 400)]
    {
        let (status, answer) = asked(true, request("POST", "", body)).await;
        assert_eq!(status, expected);
        assert!(!answer.to_string().contains("sk-123"), "{answer}");
    }
    let mut form = request("POST", "", "{\"key\":\"abc\"}");
    form.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(asked(true, form).await.0, 415);
    let large: &'static str = Box::leak("x".repeat(BODY_BYTES_MAX + 1).into_boxed_str());
    assert_eq!(asked(true, request("POST", "", large)).await.0, 413);
}
