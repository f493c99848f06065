//! The admin listener: metrics and the node's state, over HTTP/1.1. Shows nothing secret and
//! changes nothing.
//!
//! It does not read the state itself: it asks the control loop, so that an answer also proves
//! that the loop runs. No TLS and no credentials yet; it listens on loopback unless told not to.

mod listener;
mod routes;
pub mod status;

pub use listener::serve;
pub use routes::routes;
pub use status::Status;

use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for the control loop.
pub const QUESTIONS_IN_FLIGHT_MAX: usize = 64;

/// What the admin listener asks the control loop.
pub enum Question {
    /// The text of `/metrics`.
    Metrics(oneshot::Sender<String>),
    /// The state of node and cluster.
    Status(oneshot::Sender<Box<Status>>),
}

/// The admin listener's end.
pub type QuestionSender = mpsc::Sender<Question>;
