//! The admin interface from its paths to a small engine in memory, which judges with the reader of
//! configurations.

mod engine;
mod paths;
mod who;

use super::accounts::Accounts;
use super::{Desk, QuestionSender, Setup, routes};
use crate::live::Live;
use crate::state_dir::tests::Scratch;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use shared::clock::Clock;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// A listener without accounts and configuration.
pub(in crate::admin) fn desk(questions: QuestionSender, on_loopback: bool) -> Arc<Desk> {
    Arc::new(Desk::new(setup(questions, on_loopback)))
}

fn setup(questions: QuestionSender, on_loopback: bool) -> Setup {
    Setup {
        questions,
        live: engine::start("{}"),
        accounts: watch::channel(Arc::new(Accounts::Off)).1,
        on_loopback,
        metrics_auth: None,
        state_dir: None,
        clock: Clock::start(),
        version: "1.2.3",
    }
}

/// The admin interface of a node.
struct Node {
    routes: Router,
    live: Live,
    /// Holds the audit log.
    _state_dir: Scratch,
}

/// An answer.
struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    fn etag(&self) -> &str {
        self.headers["etag"].to_str().unwrap()
    }
}

impl Node {
    /// With this configuration as its first revision.
    fn new(file: &str, accounts: Accounts) -> Self {
        let live = engine::start(file);
        let state_dir = Scratch::new();
        std::fs::create_dir(&state_dir.0).unwrap();
        let setup = Setup {
            live: live.clone(),
            accounts: watch::channel(Arc::new(accounts)).1,
            state_dir: Some(state_dir.0.clone()),
            ..setup(mpsc::channel(1).0, true)
        };
        Self { routes: routes(Arc::new(Desk::new(setup))), live, _state_dir: state_dir }
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let response = TowerToHyperService::new(self.routes.clone()).call(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = to_bytes(Body::new(response), 8 * 1024 * 1024).await.unwrap();
        Answer { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(request("GET", path, "")).await
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask(request(method, path, &body.to_string())).await
    }
}

fn request(method: &str, path: &str, body: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:8081");
    request.header("content-type", "application/json").body(Body::from(body.to_owned())).unwrap()
}
