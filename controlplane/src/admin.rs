//! The admin listener: metrics and the node's state, over HTTP/1.1, and the steps of a rotation of
//! gossip keys. Shows nothing secret.
//!
//! It does not read the state itself: it asks the control loop, so that an answer also proves
//! that the loop runs. No TLS and no credentials yet; it listens on loopback unless told not to, and
//! where it was told so it changes nothing.

mod from_here;
pub mod gossip_keys;
mod listener;
mod routes;
pub mod status;

pub use listener::serve;
pub use routes::routes;
pub use status::Status;

use gossip_keys::{KeyFault, KeyStep, KeysStatus};
use tokio::sync::{mpsc, oneshot};

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
