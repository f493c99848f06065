//! Tests that look at the project from outside: its source rules, and (beside them) real sockets.
//!
//! One binary, so that everything links once. Black-box suites that speak through an SDK or
//! through hostile bytes are scripts in `tests/`, run by `tests/run`.

#![forbid(unsafe_code)]

mod cluster_rig;
mod cluster_status;
mod demo;
mod departures;
mod exit_codes;
mod failover;
mod fallbacks;
mod namespaces;
mod node_pages;
mod node_rig;
mod pipelines;
mod provider_faults;
mod restart;
mod rig;
mod slow_clients;
mod source;
mod tidy;
mod uploads;
mod upstream_heads;
