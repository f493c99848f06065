//! All slices of one core, and its tick.
//!
//! Only slices in use are ticked: ten thousand limits at rest cost nothing. A permit may
//! outlive the configuration that it was admitted under (a stream runs for minutes), so it
//! keeps its `Slices`, and slices of rings that go on are shared between configurations: a
//! ring has one slice a core, whichever configuration asks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use shared::clock::Nanos;
use shared::limit::{LimitIndex, LimitRing, LimitRings};

use super::slice::Slice;

/// One core's slices of the rings of one configuration.
///
/// Indices mean nothing in another configuration: a request that keeps a snapshot keeps the
/// `Rc<Slices>` that came with it.
pub struct Slices {
    rings: LimitRings,
    by_index: Box<[Rc<Slice>]>,
    active: Rc<Active>,
}

/// Slices that want a tick. Shared by all configurations of a core, so that what permits of
/// an earlier one spend is stamped too. Bounded: a slice is in it at most once.
type Active = RefCell<Vec<Rc<Slice>>>;

impl Slices {
    /// The first slices of a core. Nothing is taken before the first request.
    pub fn new(rings: &LimitRings) -> Rc<Self> {
        let by_index = rings.iter().map(|ring| Rc::new(Slice::new(Arc::clone(ring)))).collect();
        Rc::new(Self { rings: Arc::clone(rings), by_index, active: Rc::default() })
    }

    /// Slices for the rings of another configuration; those of rings that it keeps are shared
    /// with `self`. The same `Rc` when the rings are the same. O(limits) otherwise.
    pub fn following(self: &Rc<Self>, rings: &LimitRings) -> Rc<Self> {
        if Arc::ptr_eq(&self.rings, rings) {
            return Rc::clone(self);
        }
        let mut before: HashMap<*const LimitRing, &Rc<Slice>, ahash::RandomState> =
            self.by_index.iter().map(|slice| (Arc::as_ptr(slice.ring()), slice)).collect();
        let by_index = rings
            .iter()
            .map(|ring| match before.remove(&Arc::as_ptr(ring)) {
                Some(slice) => Rc::clone(slice),
                None => Rc::new(Slice::new(Arc::clone(ring))),
            })
            .collect();
        for slice in before.into_values() {
            slice.return_free();
        }
        Rc::new(Self { rings: Arc::clone(rings), by_index, active: Rc::clone(&self.active) })
    }

    /// Every 10 ms: stamps what was sent since, expires, returns idle units. Costs what the
    /// limits used lately cost, not all of them. Serves all configurations of this core.
    pub fn tick(&self, now: Nanos) {
        self.active.borrow_mut().retain(|slice| slice.tick(now));
    }

    /// The ring of a limit, for figures.
    pub fn ring(&self, limit: LimitIndex) -> Option<&Arc<LimitRing>> {
        self.rings.get(limit.0 as usize)
    }

    pub(super) fn slice(&self, limit: LimitIndex) -> Option<&Rc<Slice>> {
        self.by_index.get(limit.0 as usize)
    }

    #[inline]
    pub(super) fn activate(&self, slice: &Rc<Slice>) {
        if slice.activate() {
            self.active.borrow_mut().push(Rc::clone(slice));
        }
    }
}
