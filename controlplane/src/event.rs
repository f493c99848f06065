//! Everything that can change what this node believes. Sources only produce these, into one
//! bounded queue; [`crate::state::ClusterState::apply`] is the one place that acts on them.

use crate::compile::Compiled;
use crate::discovery::{Failure, SourceName};
use crate::member::View;
use shared::report::Report;
use std::net::{IpAddr, SocketAddr};

/// Something happened.
pub enum Event {
    /// A configuration was read, from the file or from what was kept of it.
    Configured(Box<Compiled>),
    /// Why the node should not be called ready, whatever else it has; `None`: no more.
    Waiting(Option<String>),
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
    /// A source sees these peers, and no others. Also after it failed, with what it saw before.
    Discovered {
        /// Which one.
        source: SourceName,
        /// Where their gossip is reached; sorted, allowed, without this node.
        peers: Vec<SocketAddr>,
    },
    /// A source could not look; its last list stays in use.
    DiscoveryFailed {
        /// Which one.
        source: SourceName,
        /// Why, and what to do about it.
        failure: Failure,
    },
    /// Gossip has another view of the cluster.
    Gossiped(Box<View>),
    /// Another live node has this node's id: one of them has to go.
    DuplicateNode {
        /// The id.
        id: String,
        /// Where the other one is.
        address: SocketAddr,
    },
    /// A core counted something.
    Report(Box<Report>),
    /// The node is asked to finish. Cannot be taken back.
    Drain,
    /// Time passed; keys that rested long enough are forgotten.
    Tick,
}
