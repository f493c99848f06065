//! The rings of a node, kept while configurations come and go. Owned by the control thread.
//!
//! A limit is the same one when its id, unit and window are: then its ring, with everything
//! spent and held, goes on, and a new amount only changes the entitlement. The ring of a limit
//! that left the configuration is kept until nothing counts in it, so that taking a limit out
//! and putting it back does not reset what was spent.

use std::collections::HashMap;
use std::sync::Arc;

use super::{LimitRing, Unit, Window};
use crate::clock::Nanos;

/// The most limits of one configuration, and the most kept after they left it. A ring takes
/// about 2.5 KiB.
pub const LIMITS_MAX: usize = 65_536;

/// The rings of one configuration by [`super::LimitIndex`]; goes to the cores beside the
/// snapshot that uses its indices.
pub type LimitRings = Arc<[Arc<LimitRing>]>;

/// A limit as the configuration defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitDefinition {
    /// Who is limited; unique for a unit and window.
    pub id: Box<str>,
    /// What is counted.
    pub unit: Unit,
    /// For how long; one of [`super::CONCURRENT_WINDOW_NS`] for [`Unit::Concurrent`].
    pub window: Window,
    /// Units that all nodes together may use in a window.
    pub amount: u64,
    /// Units of them that this node may use. `None`: what it has stays, and a new limit has none;
    /// somebody else says.
    pub entitlement: Option<u64>,
}

/// Why definitions were not applied. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// More than [`LIMITS_MAX`] definitions.
    #[error("{0} limits are more than {LIMITS_MAX}")]
    TooMany(usize),
    /// Two definitions of one limit; one ring cannot have two entitlements.
    #[error("limit {0} is defined twice for the same unit and window")]
    Twice(Box<str>),
}

type Identity = (Box<str>, Unit, Window);

/// See the module.
#[derive(Default)]
pub struct LimitTable {
    by_identity: HashMap<Identity, Arc<LimitRing>, ahash::RandomState>,
    rings: LimitRings,
}

impl LimitTable {
    /// The rings of the latest definitions.
    pub fn rings(&self) -> &LimitRings {
        &self.rings
    }

    /// Makes these the limits, in this order: the ring of `definitions[i]` gets index `i`.
    /// Answers with the rings of before when nothing but amounts changed.
    pub fn apply(&mut self, definitions: &[LimitDefinition], now: Nanos) -> Result<LimitRings, TableError> {
        if definitions.len() > LIMITS_MAX {
            return Err(TableError::TooMany(definitions.len()));
        }
        let mut next = HashMap::with_capacity_and_hasher(definitions.len(), ahash::RandomState::new());
        let mut rings = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let identity = (definition.id.clone(), definition.unit, definition.window);
            let ring = self.by_identity.get(&identity).cloned().unwrap_or_else(|| {
                Arc::new(LimitRing::new(definition.window, definition.entitlement.unwrap_or(0), now))
            });
            rings.push(Arc::clone(&ring));
            if next.insert(identity, ring).is_some() {
                return Err(TableError::Twice(definition.id.clone()));
            }
        }
        for (ring, definition) in rings.iter().zip(definitions) {
            ring.set_amount(definition.amount);
            if let Some(entitlement) = definition.entitlement {
                ring.set_entitlement(entitlement);
                ring.set_valid_until(Nanos(u64::MAX));
            }
        }
        self.keep_what_still_counts(&mut next, now);
        self.by_identity = next;
        if !self.rings.iter().map(Arc::as_ptr).eq(rings.iter().map(Arc::as_ptr)) {
            self.rings = rings.into();
        }
        Ok(Arc::clone(&self.rings))
    }

    /// At most [`LIMITS_MAX`] of them; those beyond are forgotten with their spend, which
    /// takes as many limits to be removed within one window.
    fn keep_what_still_counts(&mut self, next: &mut HashMap<Identity, Arc<LimitRing>, ahash::RandomState>, now: Nanos) {
        let kept_max = next.len() + LIMITS_MAX;
        for (identity, ring) in self.by_identity.drain() {
            ring.advance(now);
            if ring.used() > 0 && next.len() < kept_max {
                next.entry(identity).or_insert(ring);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limit(id: &str, amount: u64) -> LimitDefinition {
        let window = Window::new(60 * SECOND).unwrap();
        LimitDefinition { id: id.into(), unit: Unit::Requests, window, amount, entitlement: Some(amount) }
    }

    #[test]
    fn a_changed_amount_keeps_what_was_spent() {
        let mut table = LimitTable::default();
        let before = table.apply(&[limit("a", 10)], Nanos(0)).unwrap();
        assert!(before[0].try_hold(10, Nanos(0)));
        let after = table.apply(&[limit("a", 12)], Nanos(0)).unwrap();
        assert!(Arc::ptr_eq(&before, &after), "cores need not change their slices");
        assert!(after[0].try_hold(2, Nanos(0)));
        assert!(!after[0].try_hold(1, Nanos(0)));
    }

    #[test]
    fn another_order_keeps_each_limits_ring() {
        let mut table = LimitTable::default();
        let before = table.apply(&[limit("a", 10), limit("b", 20)], Nanos(0)).unwrap();
        let after = table.apply(&[limit("b", 20), limit("c", 30), limit("a", 10)], Nanos(0)).unwrap();
        assert!(Arc::ptr_eq(&before[0], &after[2]));
        assert!(Arc::ptr_eq(&before[1], &after[0]));
        assert_eq!(after[1].entitlement(), 30);
    }

    #[test]
    fn taking_a_limit_out_and_back_does_not_reset_it() {
        let mut table = LimitTable::default();
        let rings = table.apply(&[limit("a", 10)], Nanos(0)).unwrap();
        assert!(rings[0].try_hold(10, Nanos(0)));
        rings[0].stamp(10, Nanos(0));
        assert!(table.apply(&[], Nanos(SECOND)).unwrap().is_empty());
        let rings = table.apply(&[limit("a", 10)], Nanos(2 * SECOND)).unwrap();
        assert!(!rings[0].try_hold(1, Nanos(2 * SECOND)));
        // Long after, nothing is left to remember.
        table.apply(&[], Nanos(3 * SECOND)).unwrap();
        table.apply(&[], Nanos(70 * SECOND)).unwrap();
        assert!(table.by_identity.is_empty());
    }

    #[test]
    fn another_window_is_another_limit() {
        let mut table = LimitTable::default();
        let before = table.apply(&[limit("a", 10)], Nanos(0)).unwrap();
        let hour = LimitDefinition { window: Window::new(3_600 * SECOND).unwrap(), ..limit("a", 10) };
        let after = table.apply(&[hour, limit("a", 10)], Nanos(0)).unwrap();
        assert!(!Arc::ptr_eq(&before[0], &after[0]));
        assert!(Arc::ptr_eq(&before[0], &after[1]));
    }

    #[test]
    fn each_unit_of_an_id_is_a_limit_of_its_own() {
        let units = [Unit::Requests, Unit::Tokens, Unit::Concurrent, Unit::MicroUsd];
        let of = |unit| LimitDefinition { unit, ..limit("a", 10) };
        let mut table = LimitTable::default();
        let before = table.apply(&units.map(of), Nanos(0)).unwrap();
        let reversed = table.apply(&[of(units[3]), of(units[2]), of(units[1]), of(units[0])], Nanos(0)).unwrap();
        assert!((0..4).all(|place| Arc::ptr_eq(&before[place], &reversed[3 - place])));
        assert!(before[0].try_hold(10, Nanos(0)) && before[1].try_hold(10, Nanos(0)));
    }

    #[test]
    fn a_limit_defined_twice_changes_nothing() {
        let mut table = LimitTable::default();
        let before = table.apply(&[limit("a", 10)], Nanos(0)).unwrap();
        let twice = table.apply(&[limit("a", 5), limit("a", 6)], Nanos(0));
        assert_eq!(twice.err(), Some(TableError::Twice("a".into())));
        assert!(Arc::ptr_eq(&before, table.rings()));
        assert_eq!(before[0].entitlement(), 10);
    }
}
