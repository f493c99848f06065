//! Where the node's life stands: one byte that every thread can read and only moves forward.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// A part of the node's life, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving, or about to.
    Running,
    /// No new connections; what runs may finish.
    Draining,
    /// Everything ends now.
    Stopped,
}

/// The shared byte.
#[derive(Clone, Default)]
pub struct SharedPhase(Arc<AtomicU8>);

impl SharedPhase {
    /// Starts at [`Phase::Running`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the node stands.
    #[inline]
    pub fn get(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }

    /// Moves on to `phase`; a phase that is already past stays past.
    pub fn advance_to(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_node_does_not_drain_again() {
        let phase = SharedPhase::new();
        phase.advance_to(Phase::Stopped);
        phase.advance_to(Phase::Draining);
        assert_eq!(phase.get(), Phase::Stopped);
    }
}
