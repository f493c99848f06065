//! controlplane

#![forbid(unsafe_code)]

pub mod last_good;
pub mod metrics;
pub mod state_dir;
