//! The generations of this node: a start of gossip is a new life, and frames of a lower one are
//! taken by nobody.

use super::{Shared, State};
use crate::gossip::frame::{Identity, Kind, Opened, VERSION_MIN};
use crate::gossip::peers::Via;
use crate::gossip::probe::{Ping, Pong};
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

    /// A node whose clock went back cannot know that we wait for its later life, by `above` the newest
    /// one; a frame for that one tells it.
    pub(super) fn tell_of_later_life(
        self: &Arc<Self>,
        state: &mut State,
        opened: &Opened,
        above: u64,
        via: Via,
        now: Nanos,
    ) {
        let Some(generation) = state.windows.newest_to_tell(opened.from.name, now) else { return };
        let later = Identity { name: opened.from.name, generation: generation.saturating_add(above) };
        let payload = Ping { takes: state.keyring.key_ids().collect() }.write();
        let letter = self.letter(state, later, VERSION_MIN, Kind::Ping, &payload);
        let keyring = state.keyring.clone();
        let key = keyring.find(opened.key).unwrap_or_else(|| keyring.sealing());
        self.send_letter(state, opened.address, key, &letter, Some(via));
    }

    /// A frame whose number was used before: a recording, or a node that forgot its generation and
    /// began the same one again, in the same millisecond of a clock that was set back. Only one that
    /// lives can answer a ping, and each ping is answered once; it has to begin above.
    pub(super) fn meet_again(self: &Arc<Self>, state: &mut State, opened: &Opened, via: Via, now: Nanos) {
        if let Some(pong) = Pong::read(&opened.payload).filter(|_| opened.kind == Kind::Pong) {
            if state.peers.answered(opened, &pong, now, self.clock.wall()).is_some() {
                self.tell_of_later_life(state, opened, 1, via, now);
            }
        } else if opened.kind == Kind::Ping {
            self.probe(state, opened.address);
        }
    }
}
