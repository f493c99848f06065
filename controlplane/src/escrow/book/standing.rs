//! What a book says of itself, for operators. Decides nothing.

use super::super::heir;
use super::{Book, Policy};
use shared::clock::Nanos;
use std::time::Duration;

impl Book {
    /// How many nodes there should be; 0: not known.
    pub(in crate::escrow) fn expected(&self) -> u16 {
        self.expected
    }

    /// Nodes without a roster that were heard lately and may decide, this one included or not.
    pub(in crate::escrow) fn met(&self, now: Nanos) -> usize {
        self.candidates(now).filter(|account| *account != self.me).count() + usize::from(self.may_vote(now))
    }

    /// Nodes that have to agree for anything to be decided.
    pub(in crate::escrow) fn needed(&self) -> usize {
        self.quorum()
    }

    /// From when on this node takes part in the decision of a first roster; `None`: it does, or
    /// there is one.
    pub(in crate::escrow) fn votes_at(&self, now: Nanos) -> Option<Nanos> {
        let waits = self.roster.is_none() && self.expected > 0 && !self.may_vote(now);
        waits.then(|| self.leases.run_out_at(self.me))
    }

    /// When what nobody has of a limit comes into being again, if that has to be waited for. `wait` is
    /// how long it counts after it was spent. The heir's answer; of others, when it will be at most.
    pub(in crate::escrow) fn mints_at(&self, wait: Duration, now: Nanos) -> Option<Nanos> {
        let roster = self.roster.as_ref()?;
        let at = match (self.policy, self.is_new && roster.epoch == 1) {
            (_, true) => return None,
            (Policy::Keep, false) => self.leases.entered_at().after(wait),
            (Policy::Reclaim, false) => {
                let since = self.inheritance.as_ref().map_or(self.leases.entered_at(), heir::Inheritance::since);
                since.after(wait).after(heir::MARGIN)
            }
        };
        (at > now).then_some(at)
    }
}
