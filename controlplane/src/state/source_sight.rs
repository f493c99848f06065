//! What one discovery source sees, and how it fails. Pure.

use crate::discovery::Failure;
use shared::clock::Nanos;
use std::net::SocketAddr;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceSight {
    /// Its last list; bounded where it is taken in.
    pub peers: Vec<SocketAddr>,
    /// Looks that failed since the start.
    pub failures: u64,
    /// Why the last look failed, and when; `None` if it did not.
    pub failed: Option<(Failure, Nanos)>,
}

impl SourceSight {
    pub(super) fn saw(&mut self, peers: Vec<SocketAddr>) {
        self.peers = peers;
        self.failed = None;
    }

    pub(super) fn failed(&mut self, failure: Failure, now: Nanos) {
        self.failures = self.failures.saturating_add(1);
        self.failed = Some((failure, now));
    }
}
