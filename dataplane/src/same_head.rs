//! What was found out for a request, for the next one on its connection that has the same head: where
//! it goes, who sends it, and how its own head begins on the way to a provider. Belongs to one
//! configuration and goes with the head.

use crate::core::Serving;
use crate::identify::Caller;
use crate::route::Target;
use std::cell::{Ref, RefCell};
use std::rc::{Rc, Weak};

/// See the module. Empty until a request has come far enough.
#[derive(Default)]
pub(crate) struct SameHead(RefCell<Option<Found>>);

struct Found {
    /// Not kept alive: a connection that waits must not hold a configuration.
    serving: Weak<Serving>,
    target: Target,
    caller: Caller,
    start: Option<HeadStart>,
}

/// How the head to a provider begins: all that stands before what is each request's own.
pub(crate) struct HeadStart {
    pub(crate) provider: usize,
    pub(crate) key: Option<usize>,
    pub(crate) bytes: Vec<u8>,
    /// The client's request id is in it.
    pub(crate) has_request_id: bool,
}

impl SameHead {
    /// The next head is another.
    pub(crate) fn forget(&self) {
        *self.0.borrow_mut() = None;
    }

    /// Where a request with this head goes in this configuration, and who sends it.
    pub(crate) fn find(&self, serving: &Rc<Serving>) -> Option<(Target, Caller)> {
        let found = self.0.borrow();
        let found = found.as_ref().filter(|found| std::ptr::eq(found.serving.as_ptr(), Rc::as_ptr(serving)))?;
        Some((found.target.clone(), found.caller))
    }

    /// Notes what [`Self::find`] is to tell.
    pub(crate) fn note(&self, serving: &Rc<Serving>, target: &Target, caller: Caller) {
        let serving = Rc::downgrade(serving);
        *self.0.borrow_mut() = Some(Found { serving, target: target.clone(), caller, start: None });
    }

    /// How the head begins for this provider and key.
    pub(crate) fn start(&self, serving: &Serving, provider: usize, key: Option<usize>) -> Option<Ref<'_, HeadStart>> {
        let is_meant = |start: &&HeadStart| start.provider == provider && start.key == key;
        Ref::filter_map(self.0.borrow(), |found| {
            let found = found.as_ref().filter(|found| std::ptr::eq(found.serving.as_ptr(), serving))?;
            found.start.as_ref().filter(is_meant)
        })
        .ok()
    }

    /// Notes what [`Self::start`] is to tell: the first one stays, for keys may take turns.
    pub(crate) fn note_start(&self, serving: &Serving, start: impl FnOnce() -> HeadStart) {
        if let Some(found) = &mut *self.0.borrow_mut()
            && std::ptr::eq(found.serving.as_ptr(), serving)
        {
            found.start.get_or_insert_with(start);
        }
    }
}
