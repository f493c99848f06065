//! `/api/cluster/gossip-keys`: a rotation of gossip keys while the cluster runs, step by step.
//!
//! ```text
//! GET    /api/cluster/gossip-keys             ids, which one sends, who accepts which
//! POST   /api/cluster/gossip-keys             {"key": "BASE64"}: accept one more
//! POST   /api/cluster/gossip-keys/ID/send     send with it from now on
//! DELETE /api/cluster/gossip-keys/ID          accept it no longer
//! ```
//!
//! `?force=true` does the last two although a live node would be cut off. What is refused is
//! refused with 409 and the nodes in question, and changes nothing. A key itself is never shown.
//!
//! There are no accounts yet, so nothing is changed unless the listener is on loopback and the
//! request was made there on purpose.

use super::routes::{ask, fault, no_answer};
use super::{Question, QuestionSender, from_here};
use crate::gossip::rotation::{KeyStatus, RotationRefused};
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use shared::secret::Secret;
use zeroize::Zeroizing;

/// A key and some JSON around it.
const BODY_BYTES_MAX: usize = 1024;

/// What to do.
pub enum KeyStep {
    /// Nothing but look.
    Show,
    /// Accept one more key, base64 of 32 bytes.
    Add(Secret),
    /// Send with this one.
    SendWith {
        /// The key.
        id: String,
        /// Although a live node does not accept it.
        is_forced: bool,
    },
    /// Accept this one no longer.
    Drop {
        /// The key.
        id: String,
        /// Although a live node sends with it.
        is_forced: bool,
    },
}

/// How the keys stand after a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeysStatus {
    /// All of them, the one that sends first.
    pub keys: Vec<KeyStatus>,
    /// What an operator should know.
    pub note: &'static str,
}

/// Why a step was not done. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// There is no gossip.
    #[error("this node is not part of a cluster: cluster_config.enabled is not true")]
    NoCluster,
    /// The text is none.
    #[error("not a gossip key: it is base64 of 32 bytes; make one with `openssl rand -base64 32`")]
    NotAKey,
    /// The cluster's state does not allow it.
    #[error(transparent)]
    Refused(#[from] RotationRefused),
}

pub(super) fn routes(on_loopback: bool) -> Router<QuestionSender> {
    const PATH: &str = "/api/cluster/gossip-keys";
    // Said before anything is read of the request, so that no answer tells more.
    let may_write = move |headers: &HeaderMap| match from_here::refusal(headers) {
        Some(why) => Some(fault(StatusCode::FORBIDDEN, why)),
        None if !on_loopback => Some(fault(
            StatusCode::FORBIDDEN,
            "the admin listener is not on a loopback address and has no accounts: it changes nothing; set \
             server.admin_host to 127.0.0.1",
        )),
        None => None,
    };
    Router::new()
        .route(
            PATH,
            get(async |State(questions), headers: HeaderMap| match from_here::refusal(&headers) {
                Some(why) => fault(StatusCode::FORBIDDEN, why),
                None => step(&questions, KeyStep::Show).await,
            })
            .post(async move |State(questions), headers: HeaderMap, body: Body| {
                if let Some(refused) = may_write(&headers) {
                    return refused;
                }
                match read_key(&headers, body).await {
                    Ok(key) => step(&questions, KeyStep::Add(key)).await,
                    Err(refused) => refused,
                }
            }),
        )
        .route(
            &format!("{PATH}/{{id}}/send"),
            post(async move |State(questions), Path(id): Path<String>, uri: Uri, headers: HeaderMap| {
                match may_write(&headers) {
                    Some(refused) => refused,
                    None => step(&questions, KeyStep::SendWith { id, is_forced: is_forced(&uri) }).await,
                }
            }),
        )
        .route(
            &format!("{PATH}/{{id}}"),
            delete(
                async move |State(questions), Path(id): Path<String>, uri: Uri, headers: HeaderMap| match may_write(
                    &headers,
                ) {
                    Some(refused) => refused,
                    None => step(&questions, KeyStep::Drop { id, is_forced: is_forced(&uri) }).await,
                },
            ),
        )
}

fn is_forced(uri: &Uri) -> bool {
    uri.query() == Some("force=true")
}

/// The key of a body; a form or a text, as any page may send without asking, is none.
async fn read_key(headers: &HeaderMap, body: Body) -> Result<Secret, Response> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Added {
        key: Zeroized,
    }
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media_type.split(';').next().map(str::trim) != Some("application/json") {
        return Err(fault(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body has to be application/json"));
    }
    let Ok(bytes) = to_bytes(body, BODY_BYTES_MAX).await else {
        return Err(fault(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than a key"));
    };
    match serde_json::from_slice::<Added>(&bytes) {
        Ok(added) => Ok(Secret::new(&added.key.0)),
        // What serde says could hold a part of the key.
        Err(_) => Err(fault(StatusCode::BAD_REQUEST, "the body has to be {\"key\": \"BASE64\"} and nothing else")),
    }
}

/// A text that is wiped.
struct Zeroized(Zeroizing<String>);

impl<'de> Deserialize<'de> for Zeroized {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(Zeroizing::new(text)))
    }
}

async fn step(questions: &QuestionSender, step: KeyStep) -> Response {
    match ask(questions, |answer| Question::GossipKeys(step, answer)).await {
        Some(Ok(status)) => Json(status).into_response(),
        Some(Err(refused)) => refusal(&refused),
        None => no_answer(),
    }
}

fn refusal(fault: &KeyFault) -> Response {
    let none: &[String] = &[];
    let (status, nodes) = match fault {
        KeyFault::NoCluster | KeyFault::Refused(RotationRefused::Unknown(_)) => (StatusCode::NOT_FOUND, none),
        KeyFault::NotAKey => (StatusCode::BAD_REQUEST, none),
        KeyFault::Refused(RotationRefused::NotAccepted { nodes, .. } | RotationRefused::StillSent { nodes, .. }) => {
            (StatusCode::CONFLICT, nodes.as_slice())
        }
        KeyFault::Refused(RotationRefused::NoKeys | RotationRefused::Full | RotationRefused::Sending(_)) => {
            (StatusCode::CONFLICT, none)
        }
    };
    (status, Json(json!({"error": {"message": fault.to_string(), "nodes": nodes}}))).into_response()
}

#[cfg(test)]
mod tests;
