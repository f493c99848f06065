//! Paths of the admin listener.

use super::{Question, QuestionSender, Status, gossip_keys};
use crate::metrics::CONTENT_TYPE;
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use std::time::Duration;
use tokio::sync::oneshot;

/// The control loop answers within a step; this long without one means it is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Every path, answered through `questions`. Only a listener `on_loopback` lets itself be told to
/// change anything.
pub fn routes(questions: QuestionSender, version: &'static str, on_loopback: bool) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(async || Json(json!({"status": "ok"}))))
        .route("/ready", get(ready))
        .route("/cluster/status", get(cluster_status))
        .route("/api/version", get(async move || Json(json!({"version": version}))))
        .merge(gossip_keys::routes(on_loopback))
        .fallback(async || fault(StatusCode::NOT_FOUND, "there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            fault(StatusCode::METHOD_NOT_ALLOWED, "this path does not answer that method")
        })
        .with_state(questions)
}

async fn metrics(State(questions): State<QuestionSender>) -> Response {
    match ask(&questions, Question::Metrics).await {
        Some(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        None => no_answer(),
    }
}

async fn ready(State(questions): State<QuestionSender>) -> Response {
    match ask(&questions, Question::Status).await {
        Some(status) if status.state == "ready" => Json(json!({"status": "ready"})).into_response(),
        Some(status) => {
            let Status { state, reason, .. } = *status;
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": state, "reason": reason}))).into_response()
        }
        None => no_answer(),
    }
}

async fn cluster_status(State(questions): State<QuestionSender>) -> Response {
    match ask(&questions, Question::Status).await {
        Some(status) => Json(status).into_response(),
        None => no_answer(),
    }
}

pub(super) async fn ask<T>(
    questions: &QuestionSender,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Option<T> {
    let (sender, answer) = oneshot::channel();
    let asked = async {
        questions.send(question(sender)).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.ok().flatten()
}

pub(super) fn no_answer() -> Response {
    fault(StatusCode::SERVICE_UNAVAILABLE, "the control thread does not answer")
}

pub(super) fn fault(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": {"message": message}}))).into_response()
}
