//! Whether a frame was here before. Pure; asked only about frames whose tag has verified.
//!
//! Per sender: the highest generation, and which of its last 1,024 sequences were seen. A lower
//! generation is a recording, or a node whose clock and state directory both went back. There is
//! no limit on how far a generation may jump: it has the key's authority.

use super::frame::{Identity, NodeName, Refusal};
use shared::clock::Nanos;
use std::collections::BTreeMap;
use std::time::Duration;

/// Sequences that may arrive out of order: at a hundred frames a second, those of ten seconds.
const WINDOW: u64 = 1_024;
const WORDS: usize = WINDOW as usize / 64;
/// A whole cluster, and the former names of some nodes.
pub(crate) const SENDERS_MAX: usize = 1_024 + 64;
/// Longer than a dead node is remembered by gossip. One that is forgotten sooner would have its
/// old frames taken again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 60);

/// Recordings of an old life must not make us send much.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// What every sender has sent lately.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    senders: BTreeMap<NodeName, Window>,
}

#[derive(Debug)]
struct Window {
    generation: u64,
    highest: u64,
    /// One bit for a sequence, at its remainder.
    seen: [u64; WORDS],
    heard_at: Nanos,
    /// When an older generation was told of this one.
    told_at: Option<Nanos>,
}

impl Windows {
    /// Takes a frame, once.
    pub(crate) fn admit(&mut self, from: Identity, sequence: u64, now: Nanos) -> Result<(), Refusal> {
        if let Some(window) = self.senders.get_mut(&from.name) {
            if from.generation < window.generation {
                return Err(Refusal::OlderGeneration);
            }
            if from.generation > window.generation {
                *window = Window::starting(from.generation, sequence, now);
                return Ok(());
            }
            return window.admit(sequence, now);
        }
        if self.senders.len() >= SENDERS_MAX && !self.forget_one(now) {
            return Err(Refusal::TooManySenders);
        }
        self.senders.insert(from.name, Window::starting(from.generation, sequence, now));
        Ok(())
    }

    /// The newest generation of a sender, for telling an older one of it; not more often than once
    /// in [`TELL_INTERVAL`].
    pub(crate) fn newest_to_tell(&mut self, name: NodeName, now: Nanos) -> Option<u64> {
        let window = self.senders.get_mut(&name)?;
        if window.told_at.is_some_and(|at| now.since(at) < TELL_INTERVAL) {
            return None;
        }
        window.told_at = Some(now);
        Some(window.generation)
    }

    /// Only one that has been silent for long: a flood of new names, which takes the key, must not
    /// make room for recordings of the others.
    fn forget_one(&mut self, now: Nanos) -> bool {
        let oldest = self.senders.iter().min_by_key(|(_, window)| window.heard_at);
        let oldest = oldest.filter(|(_, window)| now.since(window.heard_at) >= FORGOTTEN_AFTER).map(|(name, _)| *name);
        oldest.is_some_and(|name| self.senders.remove(&name).is_some())
    }
}

impl Window {
    fn starting(generation: u64, sequence: u64, now: Nanos) -> Self {
        let mut window = Self { generation, highest: sequence, seen: [0; WORDS], heard_at: now, told_at: None };
        window.mark(sequence);
        window
    }

    fn admit(&mut self, sequence: u64, now: Nanos) -> Result<(), Refusal> {
        let is_too_old = self.highest.checked_sub(sequence).is_some_and(|behind| behind >= WINDOW);
        if is_too_old || sequence <= self.highest && self.is_marked(sequence) {
            return Err(Refusal::Replayed);
        }
        if sequence > self.highest {
            self.advance(sequence);
        }
        self.mark(sequence);
        self.heard_at = now;
        Ok(())
    }

    fn advance(&mut self, to: u64) {
        if to - self.highest >= WINDOW {
            self.seen = [0; WORDS];
        } else {
            for skipped in self.highest + 1..=to {
                let (word, bit) = place(skipped);
                if let Some(word) = self.seen.get_mut(word) {
                    *word &= !bit;
                }
            }
        }
        self.highest = to;
    }

    fn mark(&mut self, sequence: u64) {
        let (word, bit) = place(sequence);
        if let Some(word) = self.seen.get_mut(word) {
            *word |= bit;
        }
    }

    fn is_marked(&self, sequence: u64) -> bool {
        let (word, bit) = place(sequence);
        self.seen.get(word).is_some_and(|word| word & bit != 0)
    }
}

fn place(sequence: u64) -> (usize, u64) {
    let place = sequence % WINDOW;
    (place as usize / 64, 1 << (place % 64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn sender(name: &str, generation: u64) -> Identity {
        Identity { name: NodeName::new(name).unwrap(), generation }
    }

    const NOW: Nanos = Nanos(1);

    #[test]
    fn an_older_life_is_told_of_the_newest_once_a_second() {
        let mut windows = Windows::default();
        let name = NodeName::new("a").unwrap();
        assert_eq!(windows.newest_to_tell(name, NOW), None);
        windows.admit(sender("a", 9), 1, NOW).unwrap();
        assert_eq!(windows.newest_to_tell(name, NOW), Some(9));
        assert_eq!(windows.newest_to_tell(name, NOW), None);
        assert_eq!(windows.newest_to_tell(name, NOW.after(TELL_INTERVAL)), Some(9));
    }

    #[test]
    fn a_sequence_is_taken_once_in_any_order_within_the_window() {
        let mut windows = Windows::default();
        let mut take = |sequence| windows.admit(sender("a", 1), sequence, NOW);
        assert_eq!(take(5), Ok(()));
        assert_eq!(take(5), Err(Refusal::Replayed));
        assert_eq!(take(3), Ok(()));
        assert_eq!(take(3), Err(Refusal::Replayed));
        assert_eq!(take(5 + WINDOW - 1), Ok(()), "everything but its own turn is forgotten");
        assert_eq!(take(5), Err(Refusal::Replayed));
        assert_eq!(take(4), Err(Refusal::Replayed), "behind the window");
        assert_eq!(take(6), Ok(()));
        assert_eq!(take(u64::MAX), Ok(()));
        assert_eq!(take(u64::MAX), Err(Refusal::Replayed));
        assert_eq!(take(u64::MAX - 1), Ok(()));
        assert_eq!(take(0), Err(Refusal::Replayed));
    }

    #[test]
    fn a_new_generation_starts_anew_and_ends_the_old_one_however_far_it_jumps() {
        let mut windows = Windows::default();
        assert_eq!(windows.admit(sender("a", 7), 1_000, NOW), Ok(()));
        assert_eq!(windows.admit(sender("a", u64::MAX), 1, NOW), Ok(()));
        assert_eq!(windows.admit(sender("a", 7), 1_001, NOW), Err(Refusal::OlderGeneration));
        assert_eq!(windows.admit(sender("a", u64::MAX), 1, NOW), Err(Refusal::Replayed));
        assert_eq!(windows.admit(sender("b", 7), 1_000, NOW), Ok(()), "of another sender");
    }

    #[test]
    fn a_flood_of_names_forgets_nobody_who_was_heard_lately() {
        let mut windows = Windows::default();
        assert_eq!(windows.admit(sender("a", 7), 1, NOW), Ok(()));
        let refused = (0..2 * SENDERS_MAX)
            .filter(|number| windows.admit(sender(&format!("x{number}"), 1), 1, NOW).is_err())
            .count();
        assert_eq!(refused, SENDERS_MAX + 1);
        assert_eq!(windows.admit(sender("a", 7), 1, NOW), Err(Refusal::Replayed));
        let later = NOW.after(FORGOTTEN_AFTER);
        assert_eq!(windows.admit(sender("a", 7), 2, later), Ok(()));
        assert_eq!(windows.admit(sender("y", 1), 1, later), Ok(()), "those of the flood are silent by now");
        assert_eq!(windows.admit(sender("a", 7), 1, later), Err(Refusal::Replayed));
    }

    proptest! {
        #[test]
        fn nothing_is_ever_taken_twice(sequences in prop::collection::vec(0..4_000u64, 0..600)) {
            let mut windows = Windows::default();
            let mut taken = BTreeSet::new();
            let mut highest = None;
            for sequence in sequences {
                let is_new = !taken.contains(&sequence);
                let is_within = highest.is_none_or(|highest: u64| highest < sequence + WINDOW);
                let admitted = windows.admit(sender("a", 1), sequence, NOW).is_ok();
                prop_assert_eq!(admitted, is_new && is_within);
                if admitted {
                    taken.insert(sequence);
                    highest = highest.max(Some(sequence));
                }
            }
        }
    }
}
