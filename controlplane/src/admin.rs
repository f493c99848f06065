//! The admin listener: metrics and the node's state, and the configuration that all nodes share,
//! looked at and changed. Shows nothing secret.
//!
//! ```text
//! listener (TLS, bounds) → door (who) → operations (the one table of paths) → entities, whole, history
//!     → change (worked out, proposed, worked out anew) → live::Live
//! ```
//!
//! Absent: HTTP/2, sessions, accounts beside the admin user and tokens of the configuration file.

pub mod accounts;
mod answer;
mod asked;
mod attempts;
mod audit;
mod change;
mod door;
mod entities;
mod from_here;
pub mod gossip_keys;
mod hidden;
mod history;
mod listener;
mod merge_patch;
mod models;
mod node_pages;
mod openapi;
mod operations;
mod resources;
mod routes;
pub mod status;
mod strict_json;
pub mod tls;
mod whole;

pub use listener::serve;
pub use resources::path_of;
pub use routes::routes;
pub use status::Status;

use crate::live::Live;
use accounts::Accounts;
use audit::Audit;
use door::Door;
use gossip_keys::{KeyFault, KeyStep, KeysStatus};
use shared::clock::Clock;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Questions that may wait for the control loop.
pub const QUESTIONS_IN_FLIGHT_MAX: usize = 64;

/// What the admin listener asks the control loop.
pub enum Question {
    /// The text of `/metrics`.
    Metrics(oneshot::Sender<String>),
    /// The state of node and cluster.
    Status(oneshot::Sender<Box<Status>>),
    /// A step of a rotation of gossip keys.
    GossipKeys(KeyStep, oneshot::Sender<Result<KeysStatus, KeyFault>>),
}

/// The admin listener's end.
pub type QuestionSender = mpsc::Sender<Question>;

/// What the admin listener is told when it starts.
pub struct Setup {
    /// To the control loop.
    pub questions: QuestionSender,
    /// The configuration.
    pub live: Live,
    /// Who is let in, now and later.
    pub accounts: watch::Receiver<Arc<Accounts>>,
    /// Where the listener was opened.
    pub on_loopback: bool,
    /// `server.metrics_auth`.
    pub metrics_auth: Option<bool>,
    /// Where the audit log is kept.
    pub state_dir: Option<PathBuf>,
    /// The node's clock.
    pub clock: Clock,
    /// Version and build.
    pub version: &'static str,
}

/// What every path has at hand.
pub struct Desk {
    questions: QuestionSender,
    live: Live,
    door: Door,
    audit: Audit,
    clock: Clock,
    version: &'static str,
    /// Whole documents that are read at one time.
    documents: Semaphore,
    /// Made when it is first asked for.
    openapi: OnceLock<String>,
}

impl Desk {
    /// For [`routes`].
    pub fn new(setup: Setup) -> Self {
        let Setup { questions, live, accounts, on_loopback, metrics_auth, state_dir, clock, version } = setup;
        Self {
            questions,
            live,
            door: Door::new(accounts, on_loopback, metrics_auth, clock),
            audit: Audit::new(state_dir),
            clock,
            version,
            documents: Semaphore::new(1),
            openapi: OnceLock::new(),
        }
    }
}

#[cfg(test)]
mod tests;
