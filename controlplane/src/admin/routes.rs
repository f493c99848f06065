//! Paths of the admin listener: what [`operations`] has, behind the door.

use super::answer::Refusal;
use super::asked::Asked;
use super::operations::{Operation, operations};
use super::{Desk, door};
use axum::Router;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use std::sync::Arc;

/// Every path.
pub fn routes(desk: Arc<Desk>) -> Router {
    let mut router = Router::new();
    for operation in operations() {
        let path = operation.path.clone();
        router = router.route(&path, method_of(operation));
    }
    router
        .fallback(async || Refusal::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            let message = "this path does not answer that method";
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
        })
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&desk), door::guard))
        .with_state(desk)
}

fn method_of(operation: Operation) -> MethodRouter<Arc<Desk>> {
    let filter = match operation.method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::PATCH => MethodFilter::PATCH,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    let Operation { query, act, .. } = operation;
    on(filter, async move |State(desk): State<Arc<Desk>>, request: Request| -> Response {
        let answer = async {
            let asked = Asked::from_request(request, &()).await?;
            asked.check_query(query)?;
            act(desk, asked).await
        };
        answer.await.unwrap_or_else(Refusal::into_response)
    })
}
