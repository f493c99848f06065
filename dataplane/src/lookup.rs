//! The look-ups of the request path, callable without a connection: for benches and for tools
//! that ask where a request would go. The code is that of the request path itself.

use crate::core::{Core, Serving};
use crate::identify::{self, Caller};
use crate::key_choice::{KeyWish, choose_key};
use crate::plan::Plan;
use crate::route;
use crate::routing::{self, Asked};
use shared::clock::{Clock, Nanos};
use shared::phase::SharedPhase;
use shared::published::Published;
use std::rc::Rc;
use std::sync::Arc;

/// A configuration, ready to be asked. Belongs to the thread that made it.
pub struct Lookup {
    core: Core,
    serving: Rc<Serving>,
}

/// Where a request would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Index of the provider.
    pub provider: usize,
    /// Index of the key; `None` for providers that need none.
    pub key: Option<usize>,
}

impl Lookup {
    /// Prepares `published` as a core would. `None`: it holds no configuration.
    pub fn new(published: Arc<Published>, clock: Clock) -> Option<Self> {
        let core = Core::new(0, clock, SharedPhase::new());
        core.adopt(published);
        let serving = core.serving()?;
        Some(Self { core, serving })
    }

    /// Which configuration a request would be served from: taken as one takes it, and read in place.
    pub fn epoch(&self) -> Option<u64> {
        Some(self.core.serving()?.records().epoch.to_native())
    }

    /// Index of the virtual key that this text is, as a core finds one that it has not seen since the snapshot.
    pub fn virtual_key(&self, text: &[u8]) -> Option<u32> {
        identify::look_up(&self.serving, text)
    }

    /// Provider and key for a request of nobody in particular. `None`: there is no route.
    pub fn find(&self, path: &[u8], model: &str, now: Nanos) -> Option<Found> {
        let target = route::target(&self.serving, path, 0)?;
        let nothing = std::iter::empty();
        let (core, serving, caller, model) = (&self.core, &self.serving, Caller::Anyone, Some(model));
        let routed = routing::find(core, serving, Asked { target: &target, caller, fields: &[], bytes: b"", model });
        let plan = Plan::new(core, serving, &target, caller, model, nothing, routed);
        let step = plan.as_ref().ok()?.step(0)?;
        let wish = KeyWish::default();
        let chosen = choose_key(&self.core, &self.serving, Caller::Anyone, step, wish, &[], now).ok()?;
        Some(Found { provider: step.provider, key: chosen.key })
    }
}
