//! What one node believes of the others, as gossip hands it to the control loop. Values only.

use crate::gossip::values::NodeValues;
use shared::clock::Nanos;
use std::net::SocketAddr;
use std::time::Duration;

/// Everything that gossip knows at one moment; replaces what it said before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// All known members but this node, by id; the highest generation of each.
    pub members: Vec<Member>,
    /// Our own ticks came late, or most peers vanished at once: what looks like their death may
    /// be ours (Lifeguard, Dadgar et al. 2018).
    pub doubts_itself: bool,
    /// Bytes of a whole digest, as each round of gossip carries it.
    pub digest_bytes: u64,
    /// Counted since the start, by name, for metrics.
    pub counters: Vec<(&'static str, u64)>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// At most 12 characters.
    pub id: String,
    /// Grows with every start of that node.
    pub generation: u64,
    /// Where its gossip is reached.
    pub address: SocketAddr,
    /// What the health machine says.
    pub health: Health,
    /// What it published last.
    pub values: NodeValues,
    /// When anything new of it was last heard, from itself or through others.
    pub heard_at: Nanos,
    /// Of the last probe that was answered.
    pub round_trip: Option<Duration>,
    /// Its wall clock minus ours, milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// Only TCP gets through.
    pub is_tcp_only: bool,
    /// Frames it sent under the key that we send with are taken.
    pub speaks_our_key: bool,
}

/// A member's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Heard in time.
    Healthy,
    /// Not heard for `failure_threshold` ticks.
    Suspect,
    /// Not heard for `timeout_seconds`.
    Dead,
    /// Said that it is finishing; counts as departed once it is silent.
    Leaving,
}

impl Health {
    /// As the admin interface and metrics write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Leaving => "leaving",
        }
    }
}
