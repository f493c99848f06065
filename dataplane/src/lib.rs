//! dataplane
pub mod limiter;
