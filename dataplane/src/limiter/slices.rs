//! All slices of one core, and its tick.
//!
//! Only slices in use are ticked: ten thousand limits at rest cost nothing. A permit may
//! outlive the configuration that it was admitted under (a stream runs for minutes), so it
//! keeps its `Slices`. Slices of rings that go on are shared between configurations, and what
//! the others still hold reaches their rings through the same tick.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use shared::bounds::LIMITS_PER_REQUEST_MAX;
use shared::clock::Nanos;
use shared::limit::{LimitIndex, LimitRing, LimitRings};

use super::permit::Entry;
use super::slice::Slice;
use super::waiting::Queue;

/// One core's slices of the rings of one configuration.
///
/// Indices mean nothing in another configuration: a request that keeps a snapshot keeps the
/// `Rc<Slices>` that came with it.
pub struct Slices {
    rings: LimitRings,
    by_index: Box<[Rc<Slice>]>,
    core: Rc<Core>,
}

/// What all configurations of a core share.
#[derive(Default)]
struct Core {
    /// Slices that want a tick; also those of earlier configurations, so that what their
    /// permits spend is stamped too. Bounded: a slice is in it at most once.
    active: RefCell<Vec<Rc<Slice>>>,
    /// Lists of ended permits, for new ones: a permit of sixteen entries would cost more to
    /// move about than to decide, and allocating one for each request as much again.
    spare: RefCell<Vec<Vec<Entry>>>,
    queue: Queue,
}

/// Spare lists kept; those of a larger burst of permits are freed when they end.
const SPARE_LISTS_MAX: usize = 1_024;

impl Slices {
    /// The first slices of a core. Nothing is taken before the first request.
    pub fn new(rings: &LimitRings) -> Rc<Self> {
        let by_index = rings.iter().map(|ring| Rc::new(Slice::new(Arc::clone(ring)))).collect();
        Rc::new(Self { rings: Arc::clone(rings), by_index, core: Rc::default() })
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
        Rc::new(Self { rings: Arc::clone(rings), by_index, core: Rc::clone(&self.core) })
    }

    /// Every 10 ms: stamps what was sent since, expires, returns idle units, and gives those who
    /// wait what there is. Costs what the limits used lately cost, not all of them. Serves all
    /// configurations of this core.
    pub fn tick(&self, now: Nanos) {
        self.core.active.borrow_mut().retain(|slice| slice.tick(now));
        self.core.queue.pass(now);
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.core.queue
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
            self.core.active.borrow_mut().push(Rc::clone(slice));
        }
    }

    /// An empty list with room for the most limits of a request.
    pub(super) fn take_list(&self) -> Vec<Entry> {
        let spare = self.core.spare.borrow_mut().pop();
        spare.unwrap_or_else(|| Vec::with_capacity(LIMITS_PER_REQUEST_MAX))
    }

    /// The list of a permit that has ended.
    pub(super) fn return_list(&self, mut list: Vec<Entry>) {
        let mut spare = self.core.spare.borrow_mut();
        if spare.len() < SPARE_LISTS_MAX {
            list.clear();
            spare.push(list);
        }
    }
}
