//! Whether this node has more to do than it can, and which part of the new requests it turns
//! away for that. Pure: one look a second at how the node is.
//!
//! It begins slowly, for a moment's delay is no overload, and ends slowly, for a node that comes
//! back at once is overloaded at once again.

use crate::gossip::values::Load;
use shared::config::model::Overload as Thresholds;
use std::time::Duration;

/// Looks in a row above a threshold before anything is turned away.
const LOOKS_ABOVE: u32 = 3;
/// Looks in a row well below all of them before the node takes everything again.
const LOOKS_BELOW: u32 = 5;
/// By how much the part that is turned away grows and shrinks with each look.
const SHED_STEP_PERMILLE: u16 = 100;
/// Some requests are always served: a node that serves none does not see that it could.
const SHED_MAX_PERMILLE: u16 = 900;

/// See the module.
#[derive(Debug, Default)]
pub struct Overload {
    thresholds: Thresholds,
    reason: Option<&'static str>,
    looks_above: u32,
    looks_below: u32,
    shed_permille: u16,
}

impl Overload {
    /// A node that is not overloaded yet.
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, ..Self::default() }
    }

    /// What is used up; `None` while nothing is.
    pub fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    /// Part of the new requests to turn away.
    pub fn shed_permille(&self) -> u16 {
        self.shed_permille
    }

    /// Looks at how the node is; true where something of the above changed.
    pub fn look(&mut self, load: &Load) -> bool {
        let before = (self.reason, self.shed_permille);
        // One look is one second's longest delay: a single core that comes late is enough, for its
        // clients wait.
        let above = self.above(load, 1_000);
        if let Some(reason) = above {
            self.looks_above = self.looks_above.saturating_add(1);
            self.looks_below = 0;
            if self.looks_above >= LOOKS_ABOVE {
                self.reason.get_or_insert(reason);
                self.shed_permille = (self.shed_permille + SHED_STEP_PERMILLE).min(SHED_MAX_PERMILLE);
            }
        } else {
            self.looks_above = 0;
            if self.above(load, 800).is_none() {
                self.looks_below = self.looks_below.saturating_add(1);
                self.shed_permille = self.shed_permille.saturating_sub(SHED_STEP_PERMILLE);
                if self.looks_below >= LOOKS_BELOW && self.shed_permille == 0 {
                    self.reason = None;
                }
            }
        }
        before != (self.reason, self.shed_permille)
    }

    /// What is above this part of its threshold.
    fn above(&self, load: &Load, permille: u64) -> Option<&'static str> {
        let Thresholds { loop_delay, memory_percent, descriptors_percent } = self.thresholds;
        let delay = load.tick_delay_us.iter().copied().max().map_or(Duration::ZERO, Duration::from_micros);
        let exceeds = |value: u64, percent: u8| value.saturating_mul(1_000) >= u64::from(percent) * 10 * permille;
        let delay_max = loop_delay.as_micros().saturating_mul(u128::from(permille)) / 1_000;
        if delay.as_micros() >= delay_max {
            Some("its cores come late to their work")
        } else if exceeds(load.memory_permille.into(), memory_percent) {
            Some("its memory is used up")
        } else if exceeds(load.descriptors_permille.into(), descriptors_percent) {
            Some("its open files are used up")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(delay_ms: u64, memory_permille: u16, descriptors_permille: u16) -> Load {
        Load { tick_delay_us: vec![0, delay_ms * 1_000], memory_permille, descriptors_permille, ..Load::default() }
    }

    fn looks(overload: &mut Overload, count: usize, load: &Load) -> Vec<u16> {
        (0..count).map(|_| (overload.look(load), overload.shed_permille()).1).collect()
    }

    #[test]
    fn a_moment_is_no_overload_and_three_are() {
        let mut overload = Overload::default();
        for _ in 0..10 {
            assert_eq!(looks(&mut overload, 2, &load(900, 0, 0)), [0, 0]);
            assert_eq!(looks(&mut overload, 1, &load(0, 0, 0)), [0]);
        }
        assert_eq!(overload.reason(), None);
        assert_eq!(looks(&mut overload, 4, &load(900, 0, 0)), [0, 0, 100, 200]);
        assert_eq!(overload.reason(), Some("its cores come late to their work"));
    }

    #[test]
    fn each_threshold_counts_for_itself() {
        for (load, is_overloaded) in
            [(load(249, 949, 949), false), (load(250, 0, 0), true), (load(0, 950, 0), true), (load(0, 0, 950), true)]
        {
            let mut overload = Overload::default();
            looks(&mut overload, 10, &load);
            assert_eq!(overload.reason().is_some(), is_overloaded, "{load:?}");
            assert_eq!(overload.shed_permille() > 0, is_overloaded);
        }
    }

    #[test]
    fn it_ends_only_well_below_the_threshold_and_some_requests_are_always_served() {
        let mut overload = Overload::default();
        assert_eq!(looks(&mut overload, 30, &load(0, 990, 0)).last(), Some(&900));
        assert_eq!(looks(&mut overload, 20, &load(0, 900, 0)), [900; 20], "not above, and not well below");
        let shed = looks(&mut overload, 9, &load(0, 100, 0));
        assert_eq!(shed, [800, 700, 600, 500, 400, 300, 200, 100, 0]);
        assert_eq!(overload.reason(), None);
        assert!(!overload.look(&load(0, 100, 0)), "nothing changes any more");
    }

    #[test]
    fn a_node_that_calmed_down_is_ready_only_after_a_while() {
        let mut overload = Overload::default();
        looks(&mut overload, 3, &load(0, 0, 990));
        assert_eq!(looks(&mut overload, 4, &load(0, 0, 0)), [0; 4]);
        assert!(overload.reason().is_some());
        looks(&mut overload, 1, &load(0, 0, 0));
        assert_eq!(overload.reason(), None);
    }
}
