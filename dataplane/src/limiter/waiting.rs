//! Requests that wait for units instead of being refused.
//!
//! One line for each core ([`super::line`]): a pass every tick offers those who wait what there
//! is, in the line's order. A limit that has no room for one of them is *wanted* until the next
//! pass: nobody behind it takes of that limit, no smaller request and no newcomer
//! ([`super::slice`] sends them here). Its other limits it holds up for nobody: what it cannot
//! use alone would lie idle.
//!
//! A limit says how long may be waited for it, and the shortest of those without room counts. Who
//! cannot be served within it, whatever comes back, is refused at once. Other nodes may lend what
//! is missing, so that is certain only of a limit that is wholly ours.
//!
//! Absent: an order among cores; they meet at the ring, and who comes when there is room has it.
//! The refusals of a limit are counted by [`Slices::admit`], once for each request: waiting and
//! being offered again counts nothing.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use shared::bounds::{WAITING_PER_CORE_MAX, WAITING_PER_VIRTUAL_KEY_MAX};
use shared::clock::Nanos;

use super::line::{Line, Offered, Ticket};
use super::permit::{Charge, Permit, Refused};
use super::slice::Slice;
use super::slices::Slices;

/// What a limit says of waiting for it.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long; zero: not at all.
    pub max_wait: Duration,
    /// The whole limit as it is configured.
    pub whole: u64,
}

/// A request that waits. Ends with its permit, or with a refusal when there was no room in time;
/// dropping it frees its place.
#[must_use = "dropping it gives the place up"]
pub struct Waiting {
    waiter: Rc<Waiter>,
    ticket: Option<Ticket>,
}

struct Waiter {
    slices: Rc<Slices>,
    charges: Box<[Charge]>,
    /// Of each charge's limit.
    patience: Box<[Patience]>,
    since: Nanos,
    outcome: Cell<Option<Result<Permit, Refused>>>,
    waker: Cell<Option<Waker>>,
}

/// Everybody who waits on one core.
pub(super) struct Queue {
    /// By the id of the virtual key; empty for all without one.
    line: RefCell<Line<Box<str>, Rc<Waiter>>>,
    /// Limits that somebody in the line found without room, since the last pass.
    wanted: RefCell<Vec<Rc<Slice>>>,
}

impl Default for Queue {
    fn default() -> Self {
        let line = Line::new(WAITING_PER_CORE_MAX, WAITING_PER_VIRTUAL_KEY_MAX);
        Self { line: RefCell::new(line), wanted: RefCell::default() }
    }
}

impl Slices {
    /// Waits for what `admit` has refused. `patience` is that of each charge's limit, in their
    /// order. Refused at once where the wait cannot end well or the line has no place.
    pub fn wait(
        self: &Rc<Self>,
        virtual_key: &str,
        charges: &[Charge],
        patience: impl Iterator<Item = Patience>,
        now: Nanos,
    ) -> Result<Waiting, Refused> {
        let waiter = Rc::new(Waiter {
            slices: Rc::clone(self),
            charges: charges.into(),
            patience: patience.collect(),
            since: now,
            outcome: Cell::default(),
            waker: Cell::default(),
        });
        // There may be room by now.
        if let Ok(permit) = self.take_all(charges, now, Slice::take) {
            waiter.outcome.set(Some(Ok(permit)));
            return Ok(Waiting { waiter, ticket: None });
        }
        let queue = self.queue();
        if !waiter.may_be_served(now) {
            return Err(waiter.refusal(now));
        }
        let ticket = queue.line.borrow_mut().join(virtual_key.into(), Rc::clone(&waiter));
        if ticket.is_none() {
            return Err(waiter.refusal(now));
        }
        queue.want(&waiter, now);
        Ok(Waiting { waiter, ticket })
    }

    /// How many requests wait on this core.
    pub fn waiting(&self) -> usize {
        self.queue().line.borrow().len()
    }
}

impl Queue {
    /// Offers what there is to everybody in the line.
    pub(super) fn pass(&self, now: Nanos) {
        for slice in self.wanted.borrow_mut().drain(..) {
            slice.set_wanted(false);
        }
        let mut line = self.line.borrow_mut();
        if line.len() > 0 {
            line.pass(|waiter| self.offer(waiter, now));
        }
    }

    fn offer(&self, waiter: &Rc<Waiter>, now: Nanos) -> Offered {
        if waiter.is_behind_others() {
            if now < waiter.ends_at(|slice, _| slice.is_wanted()) {
                return Offered::Stays;
            }
        } else if let Ok(permit) = waiter.slices.take_all(&waiter.charges, now, Slice::take) {
            waiter.end(Ok(permit));
            return Offered::Served;
        } else if waiter.may_be_served(now) {
            self.want(waiter, now);
            return Offered::Stays;
        }
        waiter.end(Err(waiter.refusal(now)));
        Offered::Leaves
    }

    /// Keeps for `waiter` what it misses, until the next pass.
    fn want(&self, waiter: &Waiter, now: Nanos) {
        let mut wanted = self.wanted.borrow_mut();
        for (slice, ..) in waiter.asked().filter(|(slice, charge, _)| slice.lacks(charge.amount, now)) {
            if slice.set_wanted(true) {
                wanted.push(Rc::clone(slice));
            }
        }
    }
}

impl Waiter {
    fn asked(&self) -> impl Iterator<Item = (&Rc<Slice>, &Charge, &Patience)> {
        let asked = self.charges.iter().zip(&self.patience);
        asked.filter_map(|(charge, patience)| Some((self.slices.slice(charge.limit)?, charge, patience)))
    }

    /// Whether somebody before it in the line has the first claim to one of its limits.
    fn is_behind_others(&self) -> bool {
        self.asked().any(|(slice, ..)| slice.is_wanted())
    }

    /// When its patience ends with the limits that it `lacks`.
    fn ends_at(&self, lacks: impl Fn(&Slice, u64) -> bool) -> Nanos {
        let lacking = self.asked().filter(|(slice, charge, _)| lacks(slice, charge.amount));
        lacking.map(|(.., patience)| self.since.after(patience.max_wait)).min().unwrap_or(Nanos(u64::MAX))
    }

    /// Whether every limit without room may have some before its patience ends.
    fn may_be_served(&self, now: Nanos) -> bool {
        let ends_at = self.ends_at(|slice, amount| slice.lacks(amount, now));
        let mut lacking = self.asked().filter(|(slice, charge, _)| slice.lacks(charge.amount, now));
        now < ends_at
            && lacking.all(|(slice, charge, patience)| slice.may_come_by(ends_at, charge.amount, patience.whole, now))
    }

    fn refusal(&self, now: Nanos) -> Refused {
        self.slices.longest_wait(&self.charges, now)
    }

    fn end(&self, outcome: Result<Permit, Refused>) {
        self.outcome.set(Some(outcome));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Future for Waiting {
    type Output = Result<Permit, Refused>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.waiter.outcome.take() {
            return Poll::Ready(outcome);
        }
        self.waiter.waker.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Nothing happens if it has left the line; a permit that nobody took goes back by itself.
        if let Some(ticket) = self.ticket {
            self.waiter.slices.queue().line.borrow_mut().leave(ticket);
        }
    }
}

#[cfg(test)]
mod tests;
