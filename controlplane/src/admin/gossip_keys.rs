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
//! Who may do it is said by the door.

use super::answer::Refusal;
use super::asked::Asked;
use super::audit::Outcome;
use super::node_pages::ask;
use super::{Desk, Question};
use crate::gossip::rotation::{KeyStatus, RotationRefused};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
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

pub(super) async fn show(desk: &Desk) -> Result<Response, Refusal> {
    step(desk, KeyStep::Show).await
}

pub(super) async fn add(desk: &Desk, asked: Asked) -> Result<Response, Refusal> {
    let key = read_key(asked).await?;
    step(desk, KeyStep::Add(key)).await
}

pub(super) async fn send_with(desk: &Desk, asked: &Asked) -> Result<Response, Refusal> {
    let is_forced = asked.flag("force")?;
    step(desk, KeyStep::SendWith { id: asked.parameter("id").to_owned(), is_forced }).await
}

pub(super) async fn drop_key(desk: &Desk, asked: &Asked) -> Result<Response, Refusal> {
    let is_forced = asked.flag("force")?;
    step(desk, KeyStep::Drop { id: asked.parameter("id").to_owned(), is_forced }).await
}

/// The key of a body; a form or a text, as any page may send without asking, is none.
async fn read_key(mut asked: Asked) -> Result<Secret, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Added {
        key: Zeroized,
    }
    let bytes = asked.bytes(&["application/json"], BODY_BYTES_MAX).await?;
    match serde_json::from_slice::<Added>(&bytes) {
        Ok(added) => Ok(Secret::new(&added.key.0)),
        // What serde says could hold a part of the key.
        Err(_) => Err(Refusal::malformed("the body has to be {\"key\": \"BASE64\"} and nothing else")),
    }
}

/// A text that is wiped.
struct Zeroized(Zeroizing<String>);

impl<'de> Deserialize<'de> for Zeroized {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(Zeroizing::new(text)))
    }
}

async fn step(desk: &Desk, step: KeyStep) -> Result<Response, Refusal> {
    match ask(desk, |answer| Question::GossipKeys(step, answer)).await? {
        Ok(status) => Ok(Json(status).into_response()),
        Err(refused) => Ok(refusal(&refused)),
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
    let code = match status {
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::BAD_REQUEST => "malformed",
        _ => "conflict",
    };
    let error = json!({"message": fault.to_string(), "code": code, "faults": [], "nodes": nodes});
    let mut response = (status, Json(json!({"error": error}))).into_response();
    response.extensions_mut().insert(Outcome(code));
    response
}

#[cfg(test)]
mod tests;
