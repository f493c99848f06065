//! What one attempt upstream holds, from admission to settlement.
//!
//! A permit that is dropped gives nothing away: before it was sent, everything goes back, for
//! the provider never saw it; after that its reservation counts as spent in full, as if the
//! answer had been as long as it could be. Only what counts requests that run at once goes back
//! at any end: it is never spent. Tasks of a core are dropped at any await when a
//! client leaves, so this has to happen in `Drop`, which gets neither slices nor a time. The
//! permit therefore holds an `Rc` of the core's slices, whose state is in `Cell`s (everything
//! here stays on one core), and what a dropped permit spent is stamped by the next tick.

use std::mem;
use std::rc::Rc;
use std::time::Duration;

use shared::bounds::LIMITS_PER_REQUEST_MAX;
use shared::clock::Nanos;
use shared::limit::{COUNTING_SPREAD_NS, ChargeRule, LimitIndex, LimitRing, Unit};

use super::slice::Slice;
use super::slices::Slices;

/// How old an admission may be when its request is sent.
const COUNTING_SPREAD: Duration = Duration::from_nanos(COUNTING_SPREAD_NS);
/// When to look again for units whose return nobody can foretell: other nodes have them, or
/// requests that run.
const UNFORETOLD: Duration = Duration::from_secs(1);

/// What a request asks of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The limit, in the rings that came with the request's snapshot.
    pub limit: LimitIndex,
    /// What the limit counts.
    pub unit: Unit,
    /// From when on tokens count.
    pub rule: ChargeRule,
    /// One for requests, the reservation for tokens, one for what runs at once.
    pub amount: u64,
}

/// No room in a limit. Nothing was taken from any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit {} has {remaining} of {amount} left", .limit.0)]
pub struct Refused {
    /// Of the limits without room, the one that has to be waited for longest.
    pub limit: LimitIndex,
    /// What that limit counts.
    pub unit: Unit,
    /// When to come back: then there is room in all of them, if no other request takes it
    /// first. `None` when waiting does not help: more was asked than the whole limit.
    pub retry_after: Option<Duration>,
    /// What all nodes together may use of that limit in a window.
    pub amount: u64,
    /// What is left of it.
    pub remaining: u64,
    /// After what time all that is spent now will have expired.
    pub reset: Duration,
}

/// The tightest limit of a unit, for the headers of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The limit with the smallest part left.
    pub limit: LimitIndex,
    /// What all nodes together may use of it in a window.
    pub amount: u64,
    /// What is left; units that other cores hold in slices or for running requests are not.
    pub remaining: u64,
    /// After what time everything used now is free again, if nothing more is sent: the whole
    /// window, for this very request has only just begun to count. A constant of the limit,
    /// so that no header costs a walk over the ring.
    pub reset: Duration,
}

/// What `settle` found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Tokens used beyond the reservation, of the limit where it was most. They are counted;
    /// but nobody asked whether there was room for them.
    pub overshoot_tokens: u64,
}

/// Everything is held, nothing sent. Dropping or cancelling it gives everything back.
#[must_use = "dropping a permit cancels it"]
pub struct Permit(Holding);

/// Requests are spent; tokens are held or spent, as their rules say; what runs at once is held
/// until the end. Dropping it spends all that can be spent.
#[must_use = "dropping it charges the whole reservation"]
pub struct Sent(Holding);

impl Slices {
    /// Takes what all `charges` ask for, or nothing. At most [`LIMITS_PER_REQUEST_MAX`], each of another
    /// limit; a request with more, or of a limit that these slices do not know, is refused for good.
    pub fn admit(self: &Rc<Self>, charges: &[Charge], now: Nanos) -> Result<Permit, Refused> {
        self.take_all(charges, now, Slice::take).map_err(|refused| self.refuse(charges, refused, now))
    }

    /// The same for a request that had a permit, and cancelled it because it was stale: it comes
    /// before those who wait.
    pub fn admit_again(self: &Rc<Self>, charges: &[Charge], now: Nanos) -> Result<Permit, Refused> {
        self.take_all(charges, now, Slice::take_first).map_err(|refused| self.refuse(charges, refused, now))
    }

    /// Everything by `take`, or the first charge without room.
    #[inline]
    pub(super) fn take_all(
        self: &Rc<Self>,
        charges: &[Charge],
        now: Nanos,
        take: impl Fn(&Slice, u64, Nanos) -> bool,
    ) -> Result<Permit, Charge> {
        let mut holding =
            Holding { slices: Rc::clone(self), admitted_at: now, sent_at: None, entries: self.take_list() };
        for charge in charges {
            let has_room = holding.entries.len() < LIMITS_PER_REQUEST_MAX;
            let slice = self.slice(charge.limit).filter(|slice| has_room && take(slice, charge.amount, now));
            // What was taken so far goes back at once: a slice of it may be missing elsewhere.
            let Some(slice) = slice else { return Err(*charge) };
            self.activate(slice);
            holding.entries.push(*charge);
        }
        Ok(Permit(holding))
    }

    /// Looks at all charges again, so that one answer names the longest wait among them, and
    /// that each limit without room knows what was asked of it.
    #[cold]
    fn refuse(&self, charges: &[Charge], refused: Charge, now: Nanos) -> Refused {
        let worst = self.refused_by(refused, now);
        if charges.len() > LIMITS_PER_REQUEST_MAX {
            // Ours to refuse, whatever room there is: no limit's business.
            return Refused { retry_after: None, ..worst };
        }
        self.count_refused(refused);
        let others = charges.iter().filter(|charge| charge.limit != refused.limit);
        self.longest(worst, others, now, |charge| self.count_refused(charge))
    }

    /// The longest wait among `charges`, which were refused and counted before.
    pub(super) fn longest_wait(&self, charges: &[Charge], now: Nanos) -> Refused {
        let nothing = Charge { limit: LimitIndex(0), unit: Unit::Requests, rule: ChargeRule::Admission, amount: 0 };
        let first = self.refused_by(charges.first().copied().unwrap_or(nothing), now);
        self.longest(first, charges.iter().skip(1), now, drop)
    }

    fn longest<'c>(
        &self,
        mut worst: Refused,
        others: impl Iterator<Item = &'c Charge>,
        now: Nanos,
        lacks: impl Fn(Charge),
    ) -> Refused {
        for charge in others {
            let other = self.refused_by(*charge, now);
            if other.retry_after == Some(Duration::ZERO) {
                continue;
            }
            lacks(*charge);
            if let Some(until) = worst.retry_after
                && other.retry_after.is_none_or(|other| other > until)
            {
                worst = other;
            }
        }
        worst
    }

    fn count_refused(&self, charge: Charge) {
        if let Some(slice) = self.slice(charge.limit) {
            slice.ring().count_refused(charge.amount);
        }
    }

    fn refused_by(&self, charge: Charge, now: Nanos) -> Refused {
        let mut refused = Refused {
            limit: charge.limit,
            unit: charge.unit,
            retry_after: None,
            amount: 0,
            remaining: 0,
            reset: Duration::ZERO,
        };
        let Some(slice) = self.slice(charge.limit) else {
            return refused;
        };
        refused.amount = slice.ring().amount();
        if !slice.ring().is_valid_at(now) {
            // Nothing is ours to give out until the cluster is heard again.
            refused.retry_after = (charge.amount <= refused.amount).then(|| elsewhere(slice.ring(), now));
            return refused;
        }
        // What there is belongs to those who wait for it.
        refused.remaining = if slice.is_wanted() { 0 } else { slice.free() };
        if refused.remaining >= charge.amount {
            refused.retry_after = Some(Duration::ZERO);
            return refused;
        }
        if charge.unit == Unit::Concurrent {
            refused.retry_after = Some(UNFORETOLD);
            return refused;
        }
        refused.reset = slice.ring().empty_at(now).since(now);
        let available_at = slice.available_at(charge.amount, now);
        refused.retry_after = available_at.map(|at| at.since(now));
        if charge.amount <= refused.amount {
            // Other nodes may have what is missing, and have it earlier than it is free here.
            let heard = slice.ring().elsewhere_at().map(|_| elsewhere(slice.ring(), now));
            refused.retry_after = match (refused.retry_after, heard) {
                (Some(here), Some(there)) => Some(here.min(there)),
                (None, None) => Some(UNFORETOLD),
                (here, there) => here.or(there),
            };
        }
        if slice.is_wanted() {
            refused.retry_after = refused.retry_after.map(|after| after.max(UNFORETOLD));
        }
        refused
    }
}

/// After what time units of other nodes can be here. Those that they have now are on their way.
fn elsewhere(ring: &LimitRing, now: Nanos) -> Duration {
    ring.elsewhere_at().map_or(UNFORETOLD, |at| at.since(now).max(UNFORETOLD))
}

impl Permit {
    /// Older than J: the room it was given belongs to another time, and other requests may
    /// wait for it. Cancel it and ask anew.
    pub fn is_stale(&self, now: Nanos) -> bool {
        now.since(self.0.admitted_at) > COUNTING_SPREAD
    }

    /// Call it right before the write that carries the first byte upstream: a task dropped in
    /// the midst of that write must count as having sent.
    pub fn sent(mut self, now: Nanos) -> Sent {
        self.0.mark_sent(now);
        Sent(self.0)
    }

    /// Gives everything back. The same as dropping it, said aloud.
    pub fn cancel(self) {}

    /// The tightest limit of `unit`; `None` when no limit counts it.
    pub fn standing(&self, unit: Unit) -> Option<Standing> {
        self.0.standing(unit)
    }
}

impl Sent {
    /// The answer has ended and used `tokens`. Of a stream that was cut, pass what may have
    /// been produced.
    pub fn settle(self, tokens: u64, now: Nanos) -> Settled {
        self.settle_each(|_| tokens, now)
    }

    /// The same where limits count different tokens: `tokens` says for each charge how many.
    pub fn settle_each(mut self, tokens: impl FnMut(&Charge) -> u64, now: Nanos) -> Settled {
        self.0.settle(tokens, now)
    }

    /// The tightest limit of `unit`; `None` when no limit counts it.
    pub fn standing(&self, unit: Unit) -> Option<Standing> {
        self.0.standing(unit)
    }
}

/// Every entry is taken from its slice and not yet settled.
struct Holding {
    slices: Rc<Slices>,
    admitted_at: Nanos,
    sent_at: Option<Nanos>,
    entries: Vec<Entry>,
}

/// What was charged is what is held.
pub(super) type Entry = Charge;

impl Charge {
    /// Spent when sent, and not when settled.
    fn is_spent_when_sent(&self) -> bool {
        match self.unit {
            Unit::Requests => true,
            Unit::Tokens => !matches!(self.rule, ChargeRule::Settlement | ChargeRule::Either),
            Unit::Concurrent | Unit::MicroUsd => false,
        }
    }
}

impl Holding {
    fn mark_sent(&mut self, now: Nanos) {
        self.sent_at = Some(now);
        for entry in &self.entries {
            let Some(slice) = self.slices.slice(entry.limit) else {
                continue;
            };
            if entry.unit == Unit::Tokens && entry.rule == ChargeRule::AdmissionRefunded {
                // Not in a batch: the refund must find the slot again.
                slice.ring().stamp(entry.amount, now);
            } else if entry.is_spent_when_sent() {
                slice.spend(entry.amount, now);
                self.slices.activate(slice);
            }
        }
    }

    fn settle(&mut self, mut tokens: impl FnMut(&Charge) -> u64, now: Nanos) -> Settled {
        let mut settled = Settled::default();
        let entries = mem::take(&mut self.entries);
        for entry in entries.iter().filter(|entry| entry.unit != Unit::Requests) {
            let Some(slice) = self.slices.slice(entry.limit) else {
                continue;
            };
            if entry.unit == Unit::Concurrent {
                slice.give_back(entry.amount);
                self.slices.activate(slice);
                continue;
            }
            let used = tokens(entry);
            let unused = entry.amount.saturating_sub(used);
            match entry.rule {
                ChargeRule::Settlement => {
                    slice.spend(entry.amount - unused, now);
                    slice.give_back(unused);
                    self.slices.activate(slice);
                }
                ChargeRule::Either => {
                    slice.spend(entry.amount - unused, now);
                    let sent_at = self.sent_at.unwrap_or(now);
                    let window = slice.ring().window();
                    if window.expires_at(window.slot_of(sent_at)) > now {
                        slice.ring().stamp(unused, sent_at);
                    } else {
                        slice.give_back(unused);
                    }
                    self.slices.activate(slice);
                }
                ChargeRule::Admission => {}
                ChargeRule::AdmissionRefunded => {
                    slice.ring().refund(unused, self.sent_at.unwrap_or(now));
                }
            }
            let overshoot = used.saturating_sub(entry.amount);
            if overshoot > 0 {
                slice.ring().charge(overshoot, now);
                settled.overshoot_tokens = settled.overshoot_tokens.max(overshoot);
            }
        }
        self.slices.return_list(entries);
        settled
    }

    fn standing(&self, unit: Unit) -> Option<Standing> {
        let mut tightest: Option<Standing> = None;
        for entry in self.entries.iter().filter(|entry| entry.unit == unit) {
            let Some(slice) = self.slices.slice(entry.limit) else {
                continue;
            };
            let standing = Standing {
                limit: entry.limit,
                amount: slice.ring().amount(),
                remaining: slice.left(),
                reset: Duration::from_nanos(slice.ring().window().counted_ns_max()),
            };
            if tightest.is_none_or(|other| standing.is_tighter_than(other)) {
                tightest = Some(standing);
            }
        }
        tightest
    }
}

impl Standing {
    fn is_tighter_than(self, other: Self) -> bool {
        u128::from(self.remaining) * u128::from(other.amount) < u128::from(other.remaining) * u128::from(self.amount)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        for entry in &self.entries {
            let Some(slice) = self.slices.slice(entry.limit) else { continue };
            if self.sent_at.is_none() || entry.unit == Unit::Concurrent {
                slice.give_back(entry.amount);
            } else if !entry.is_spent_when_sent() {
                slice.abandon(entry.amount);
            } else {
                continue;
            }
            self.slices.activate(slice);
        }
        // Settling took the list already and left one without room.
        if self.entries.capacity() > 0 {
            self.slices.return_list(mem::take(&mut self.entries));
        }
    }
}

#[cfg(test)]
mod tests;
