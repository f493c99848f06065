//! Everything that can change what this node believes. Sources only produce these, into one
//! bounded queue; [`crate::state::ClusterState::apply`] is the one place that acts on them.

use crate::compile::Compiled;
use shared::report::Report;
use std::net::IpAddr;

/// Something happened.
pub enum Event {
    /// A configuration was read, from the file or from what was kept of it.
    Configured(Box<Compiled>),
    /// A look-up answered.
    Resolved {
        /// Name as the configuration has it.
        host: String,
        /// What it stands for; an empty answer changes nothing.
        addresses: Vec<IpAddr>,
    },
    /// A look-up failed; the resolver goes on trying.
    ResolveFailed {
        /// Name as the configuration has it.
        host: String,
        /// Why, for the log.
        reason: String,
    },
    /// A core counted something.
    Report(Box<Report>),
    /// The node is asked to finish. Cannot be taken back.
    Drain,
    /// Time passed; keys that rested long enough are forgotten.
    Tick,
}
