//! What the data plane understands of bodies: the few request fields that decide a route,
//! the token counts in an answer, and the bodies the node writes itself; and of the fields in which
//! a provider tells of its limits.
//!
//! Pure: bytes in, values out. No sockets, no clock, no runtime, no configuration. Nothing
//! here decodes JSON into a tree; a body is walked once and changed by splicing its bytes.
//! Bodies are expected in plain text: an answer with a content coding has no usage for us.

pub mod edit;
pub mod error_body;
mod json;
pub mod late_scan;
pub mod model_list;
mod request_fields;
pub mod request_scan;
pub mod sse;
pub mod told;
pub mod usage;
mod usage_finder;
mod usage_form;
mod usage_plans;
mod usage_tail;

pub use shared::snapshot::Dialect;
