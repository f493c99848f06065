//! What the admin interface says when it does not do what it was asked for: a status, a code for
//! programs, a sentence for people, and the faults, one for each field. No secret.

use super::audit::Outcome;
use crate::live::{EntityFault, Refused};
use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Nothing was changed.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    code: &'static str,
    message: String,
    faults: Vec<Value>,
    /// A field of the answer's head that belongs to this status.
    field: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), faults: Vec::new(), field: None }
    }

    /// The request itself is wrong, whatever the configuration says.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", message)
    }

    pub(super) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    pub(super) fn no_answer() -> Self {
        Self::unavailable("the control thread does not answer")
    }

    /// Credentials are missing or wrong; which of it is not said.
    pub(super) fn unauthorized() -> Self {
        let message = "this needs the admin user's name and password, or an API token (see governance.auth_config)";
        let challenge = HeaderValue::from_static("Basic realm=\"deepintshield\", charset=\"UTF-8\", Bearer");
        Self {
            field: Some(Box::new((header::WWW_AUTHENTICATE, challenge))),
            ..Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
        }
    }

    /// To be tried again after so many seconds.
    pub(super) fn later(status: StatusCode, code: &'static str, message: &str, seconds: u64) -> Self {
        let field = Some(Box::new((header::RETRY_AFTER, seconds.into())));
        Self { field, ..Self::new(status, code, message) }
    }

    pub(super) fn invalid(faults: &[EntityFault]) -> Self {
        let count = faults.len();
        let message = format!("the configuration would have {count} fault{}", if count == 1 { "" } else { "s" });
        let faults = faults.iter().map(shown).collect();
        Self { faults, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message) }
    }

    /// What the owner of the document says; `had_condition`: the request had If-Match.
    pub(super) fn of(refused: Refused, had_condition: bool) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Faults(faults) => Self::invalid(&faults),
            Refused::Conflict(_) if had_condition => Self::stale(message),
            Refused::Conflict(_) => Self::conflict(message),
            Refused::ReadOnly(_) => Self::new(StatusCode::CONFLICT, "read_only", message),
            Refused::Unavailable(_) => Self::unavailable(message),
            Refused::Busy => Self::later(StatusCode::SERVICE_UNAVAILABLE, "busy", &message, 1),
        }
    }

    /// If-Match names another revision.
    pub(super) fn stale(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "stale", message)
    }
}

fn shown(fault: &EntityFault) -> Value {
    json!({
        "entity": fault.id.as_ref().map(ToString::to_string),
        "pointer": fault.pointer,
        "problem": fault.problem,
        "expected": fault.expected,
        "nearest": fault.nearest,
    })
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = json!({"error": {"message": self.message, "code": self.code, "faults": self.faults}});
        let mut response = (self.status, Json(error)).into_response();
        if let Some(field) = self.field {
            let (name, value) = *field;
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(Outcome(self.code));
        response
    }
}
