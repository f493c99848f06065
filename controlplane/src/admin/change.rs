//! One change of the configuration, from a request to its answer: what is wanted is worked out on the
//! document as it is, proposed for that very revision, and worked out anew where somebody else was
//! faster, unless the request names its revision itself.

use super::Desk;
use super::answer::Refusal;
use super::asked::{Asked, etag};
use super::audit::Told;
use crate::live::{Accepted, Change, Document, EntityFault, EntityId, Proposal, Refused};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// How often a change is worked out: for a second or more.
const TRIES_MAX: u32 = 200;
/// Longest comment, in bytes.
const COMMENT_BYTES_MAX: usize = 1_024;

/// What the query of every change may hold.
pub(super) const QUERY: [&str; 2] = ["dry_run", "comment"];

/// What a request comes to, on a certain document.
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    /// The entity that the request is about, where it is one.
    pub(super) name: Option<String>,
    /// Of the answer, where something was changed.
    pub(super) status: StatusCode,
    /// What whoever asks should know.
    pub(super) warnings: Vec<String>,
}

/// Does what `plan` says, or nothing.
pub(super) async fn make(
    desk: &Desk,
    asked: &Asked,
    plan: impl Fn(&Document) -> Result<Plan, Refusal> + Send + Sync,
) -> Result<Response, Refusal> {
    let live = &desk.live;
    let is_dry_run = asked.flag("dry_run")?;
    let comment = asked.query("comment").unwrap_or(&asked.what);
    if comment.len() > COMMENT_BYTES_MAX {
        return Err(Refusal::malformed(format!("a comment has {COMMENT_BYTES_MAX} bytes at most")));
    }
    for _ in 0..TRIES_MAX {
        let document = live.document();
        let condition = asked.condition(&document.head)?;
        let Plan { changes, name, status, warnings } = plan(&document)?;
        let ids: Vec<EntityId> = changes.iter().map(|change| change.id.clone()).collect();
        let proposal = Proposal {
            expected: Some(document.head.number),
            author: asked.caller.name.clone(),
            comment: comment.to_owned(),
            changes,
            is_dry_run,
        };
        match live.propose(proposal).await {
            Ok(accepted) => {
                let status = if is_dry_run { StatusCode::OK } else { status };
                return Ok(answer(status, name.as_deref(), is_dry_run, &ids, warnings, accepted));
            }
            Err(Refused::Conflict(_)) if condition.is_none() => {}
            Err(refused) => return Err(Refusal::of(refused, condition.is_some())),
        }
    }
    Err(Refusal::conflict("others change the configuration faster than this change can be worked out; try again"))
}

fn answer(
    status: StatusCode,
    name: Option<&str>,
    is_dry_run: bool,
    ids: &[EntityId],
    mut warnings: Vec<String>,
    accepted: Accepted,
) -> Response {
    warnings.extend(accepted.warnings);
    let mut body = json!({
        "revision": accepted.head.number,
        "changes": accepted.effective,
        "dry_run": is_dry_run,
        "warnings": warnings,
    });
    if let (Some(name), Some(fields)) = (name, body.as_object_mut()) {
        fields.insert("name".to_owned(), Value::from(name));
    }
    let mut response = (status, tag(&etag(&accepted.head)), Json(body)).into_response();
    let revision = (!is_dry_run && accepted.effective > 0).then_some(accepted.head.number);
    response.extensions_mut().insert(Told { entities: Told::names(ids), revision, is_dry_run });
    response
}

/// The field that tells the revision.
pub(super) fn tag(etag: &str) -> [(axum::http::HeaderName, HeaderValue); 1] {
    [(header::ETAG, HeaderValue::from_str(etag).unwrap_or_else(|_| HeaderValue::from_static("\"\"")))]
}

/// A fault that is found before the document is looked at.
pub(super) fn fault(id: Option<EntityId>, pointer: &str, problem: &str, expected: &str) -> Refusal {
    Refusal::invalid(&[EntityFault {
        id,
        pointer: pointer.to_owned(),
        problem: problem.to_owned(),
        expected: expected.to_owned(),
        nearest: None,
    }])
}
