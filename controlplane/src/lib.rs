//! The control thread.

#![forbid(unsafe_code)]

pub mod addresses;
pub mod admin;
pub mod compile;
pub mod event;
pub mod last_good;
pub mod metrics;
pub mod publish;
pub mod resolver;
pub mod sources;
pub mod state;
pub mod state_dir;
