//! The admin listener: metrics and the node's state, over HTTP/1.1. Shows nothing secret and
//! changes nothing.
//!
//! It does not read the state itself: it asks the control loop, so that an answer also proves
//! that the loop runs. No TLS and no credentials yet; it listens on loopback unless told not to.

mod listener;
mod routes;

pub use listener::serve;
pub use routes::routes;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for the control loop.
pub const QUESTIONS_IN_FLIGHT_MAX: usize = 64;

/// What the admin listener asks the control loop.
pub enum Question {
    /// The text of `/metrics`.
    Metrics(oneshot::Sender<String>),
    /// The state of node and cluster.
    Status(oneshot::Sender<Status>),
}

/// The admin listener's end.
pub type QuestionSender = mpsc::Sender<Question>;

/// `/cluster/status` in full. The data port shows a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// `deepintshield-ID-PORT`.
    pub local_node: String,
    /// Members of the cluster, this node included.
    pub members: u32,
    /// Members that are healthy.
    pub healthy_members: u32,
    /// `HEALTHY` or `NOT HEALTHY`.
    pub cluster_health: &'static str,
    /// `ready`, `starting` or `draining`.
    pub state: &'static str,
    /// Why it is not ready; empty when it is.
    pub reason: String,
    /// Region label of this node.
    pub region: String,
    /// Epoch of the newest snapshot.
    pub epoch: u64,
    /// Cores that have reported.
    pub cores: usize,
    /// Requests being served, by the cores' newest reports.
    pub requests_in_flight: u64,
    /// Version and build of the program.
    pub version: &'static str,
}
