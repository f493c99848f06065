//! Waiting for units where every provider of a request was passed over for lack of them.
//!
//! A request waits once, before anything of it was sent, and instead of its refusal: another key
//! and the other providers of its plan come first. It then waits for the first that had no room.
//! One whose body is not whole in memory does not wait: until it is read, nobody could tell
//! whether its client is still there.

use super::Request;
use crate::charge::charges;
use crate::key_choice::Chosen;
use crate::limiter::{Patience, Permit};
use crate::rejection::Rejection;
use shared::limit::LimitIndex;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// What a request was refused and may wait for, and then its permit.
pub(super) struct Turn {
    /// The step of the plan.
    pub(super) index: usize,
    /// The limit without room, of several the one that has to be waited for longest.
    pub(super) limit: LimitIndex,
    pub(super) chosen: Chosen,
    pub(super) permit: Option<Permit>,
}

impl Request<'_> {
    /// Waits for the permit of `turn`.
    #[cold]
    pub(super) async fn wait(&self, turn: &mut Turn) -> Result<(), Rejection> {
        let (core, serving) = (self.core, self.serving);
        let Some(step) = self.plan.step(turn.index) else { return Ok(()) };
        let (target, fields) = (self.target, &self.fields);
        let charges = charges(core, serving, self.caller, step, turn.chosen.key, target.endpoint, fields)?;
        let virtual_key = self.caller.record(serving).map_or("", |record| record.id.as_str());
        let limits = &serving.records().limits;
        let patience = charges.as_slice().iter().map(|charge| {
            let record = limits.get(charge.limit.0 as usize);
            record.map_or(Patience { max_wait: Duration::ZERO, whole: 0 }, |record| Patience {
                max_wait: Duration::from_nanos(record.max_wait_ns.to_native()),
                whole: record.amount.to_native(),
            })
        });
        self.may_wait.set(false);
        let began = core.now();
        let waiting = match serving.slices.wait(virtual_key, charges.as_slice(), patience, began) {
            Ok(waiting) => waiting,
            Err(refused) => return Err(self.refusal(&refused, &charges).rejection),
        };
        let mut waiting = pin!(waiting);
        let admitted =
            poll_fn(|cx| if self.link.is_gone() { Poll::Ready(None) } else { waiting.as_mut().poll(cx).map(Some) });
        let admitted = admitted.await;
        let waited = core.now().since(began);
        self.waited.set(waited);
        core.counters.limit_waited(self.limit_id(turn.limit), waited, matches!(admitted, Some(Ok(_))));
        match admitted {
            Some(Ok(permit)) => {
                turn.permit = Some(permit);
                Ok(())
            }
            Some(Err(refused)) => Err(self.refusal(&refused, &charges).rejection),
            None => Err(Rejection::client_left()),
        }
    }
}
