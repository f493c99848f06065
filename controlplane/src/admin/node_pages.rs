//! What the admin listener says of the node itself. It asks the control loop, so that an answer also
//! proves that the loop runs.

use super::answer::Refusal;
use super::{Desk, Question, Status};
use crate::metrics::CONTENT_TYPE;
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::time::Duration;
use tokio::sync::oneshot;

/// The control loop answers within a step; this long without one means it is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn metrics(desk: &Desk) -> Result<Response, Refusal> {
    let text = ask(desk, Question::Metrics).await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}

pub(super) fn health() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

pub(super) async fn ready(desk: &Desk) -> Result<Response, Refusal> {
    let status = ask(desk, Question::Status).await?;
    if status.state == "ready" {
        return Ok(Json(json!({"status": "ready"})).into_response());
    }
    let Status { state, reason, .. } = *status;
    Ok((StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": state, "reason": reason}))).into_response())
}

pub(super) async fn cluster_status(desk: &Desk) -> Result<Response, Refusal> {
    Ok(Json(ask(desk, Question::Status).await?).into_response())
}

pub(super) fn version(desk: &Desk) -> Response {
    Json(json!({"version": desk.version})).into_response()
}

pub(super) async fn ask<T>(desk: &Desk, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, Refusal> {
    let (sender, answer) = oneshot::channel();
    let asked = async {
        desk.questions.send(question(sender)).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.ok().flatten().ok_or_else(Refusal::no_answer)
}
