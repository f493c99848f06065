//! The generations of this node: a start of gossip is a new life, and frames of a lower one are
//! taken by nobody.

use super::{Shared, State};
use crate::gossip::frame::{Identity, Kind, Opened, VERSION_MIN};
use crate::gossip::peers::Via;
use crate::gossip::probe::Ping;
use shared::clock::Nanos;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Shared {
    /// This node in its present life.
    pub(in crate::gossip) fn us(&self) -> Identity {
        Identity { name: self.name, generation: self.generation.load(Ordering::Relaxed) }
    }

    /// Begins a later life; an earlier one changes nothing.
    pub(in crate::gossip) fn live_again(&self, generation: u64) {
        self.generation.fetch_max(generation, Ordering::Relaxed);
        let mut state = self.lock();
        state.later_us = state.later_us.filter(|later| *later > generation);
    }

    /// A node whose clock went back cannot know that we wait for its later life; a frame for that one
    /// tells it.
    pub(super) fn tell_of_later_life(self: &Arc<Self>, state: &mut State, opened: &Opened, via: Via, now: Nanos) {
        let Some(generation) = state.windows.newest_to_tell(opened.from.name, now) else { return };
        let later = Identity { name: opened.from.name, generation };
        let payload = Ping { takes: state.keyring.key_ids().collect() }.write();
        let letter = self.letter(state, later, VERSION_MIN, Kind::Ping, &payload);
        let keyring = state.keyring.clone();
        let key = keyring.find(opened.key).unwrap_or_else(|| keyring.sealing());
        self.send_letter(state, opened.address, key, &letter, Some(via));
    }
}
