//! How much of a limit a node needs, may ask for, and can do without. Plain arithmetic on what its
//! ring says.

use shared::clock::Nanos;
use shared::limit::{LimitRing, Refused};
use std::time::Duration;

/// What was asked of this node is looked at this often.
const LOOK: Duration = Duration::from_millis(100);
/// A node stocks what it needs in this time: several ways to a peer and back.
const STOCK_SECONDS: f64 = 1.0;
/// And keeps no more than this back from one that has to refuse: one way there and back. What lies
/// about while another refuses is what a cluster loses against a single node.
const SHORT_SECONDS: f64 = 0.3;
/// Averages the rate.
const SMOOTHING_SECONDS: f64 = 1.0;
/// Below this rate, units a second, nothing is stocked.
const RATE_MIN: f64 = 0.02;
/// Between two wishes.
const ASK_PAUSE: Duration = Duration::from_millis(200);
/// Between two wishes of a node that has to refuse.
const URGENT_PAUSE: Duration = Duration::from_millis(50);
/// One that had to refuse counts as short for this long, so that it asks before it is empty again.
const SHORT_AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// A node at rest sees to it that it has this part of an even share, for a burst to begin with.
const REST_PARTS: u64 = 4;
/// And asks for it this often.
const REST_PAUSE: Duration = Duration::from_secs(2);
/// Who was refused and told when units will be free is waited for so long after that time.
const PROMISE_KEPT: Duration = Duration::from_millis(2_500);
/// Requests of a size are remembered for about this long.
const GRAIN_SECONDS: f64 = 10.0;

/// Of one limit.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// Units a second that were asked of this node.
    rate: f64,
    /// The largest request that had to be refused lately, units.
    grain: f64,
    /// Units that come free by themselves in the two times above, as their windows end.
    expiring: f64,
    expiring_soon: f64,
    /// Refused since the last look, and since the last wish.
    refused: u64,
    is_refusing: bool,
    refused_at: Option<Nanos>,
    /// What this node was entitled to when it asked last.
    entitled: u64,
    looked_at: Nanos,
    asked_at: Option<Nanos>,
    rested_at: Option<Nanos>,
    returned_at: Nanos,
    promise: Option<Promise>,
}

/// Clients that were refused come back then, and want so much.
#[derive(Clone, Copy, Debug)]
struct Promise {
    at: Nanos,
    units: u64,
}

/// What to ask of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) units: u64,
    pub(super) least: u64,
    pub(super) is_refusing: bool,
}

/// What a node at rest keeps, where `even` is an even share.
pub(super) fn rest(even: u64) -> u64 {
    even / REST_PARTS
}

impl Demand {
    pub(super) fn new(now: Nanos) -> Self {
        Self {
            rate: 0.0,
            grain: 1.0,
            expiring: 0.0,
            expiring_soon: 0.0,
            refused: 0,
            is_refusing: false,
            refused_at: None,
            entitled: 0,
            looked_at: now,
            asked_at: None,
            rested_at: None,
            returned_at: now,
            promise: None,
        }
    }

    /// Takes in what happened since the last look.
    pub(super) fn look(&mut self, ring: &LimitRing, now: Nanos) {
        // No core looks at the ring of a limit at rest; what has expired is free to be given away.
        ring.advance(now);
        let Refused { units, requests, largest } = ring.take_refused();
        self.refused = self.refused.saturating_add(units);
        if requests > 0 {
            self.is_refusing = true;
            self.refused_at = Some(now);
        }
        self.grain = self.grain.max(largest as f64);
        if largest > 0 {
            let units = self.promised(now).max(largest);
            self.promise = Some(Promise { at: ring.elsewhere_at().unwrap_or(now).max(now), units });
        }
        self.expiring = ring.expiring_within(now, (STOCK_SECONDS * 1e9) as u64) as f64;
        self.expiring_soon = ring.expiring_within(now, (SHORT_SECONDS * 1e9) as u64) as f64;
        let passed = now.since(self.looked_at);
        if passed < LOOK {
            return;
        }
        let seconds = passed.as_secs_f64();
        let spent = ring.spent_within(now, u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX));
        let seen = (spent.saturating_add(self.refused)) as f64 / seconds;
        self.rate += (seen - self.rate) * (1.0 - (-seconds / SMOOTHING_SECONDS).exp());
        self.grain = 1.0 + (self.grain - 1.0) * (-seconds / GRAIN_SECONDS).exp();
        self.refused = 0;
        self.looked_at = now;
    }

    /// Units a second.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// Size of a request that this node could not serve lately; 1 where there was none.
    pub(super) fn grain(&self) -> u64 {
        self.grain.ceil() as u64
    }

    /// What this node wants to have free at `now`.
    fn stock(&self, now: Nanos) -> u64 {
        let next = if self.rate < RATE_MIN {
            0
        } else {
            (self.rate * STOCK_SECONDS - self.expiring).max(0.0).ceil() as u64 + self.grain()
        };
        if self.is_promise_due(now) { next.max(self.promised(now)) } else { next }
    }

    /// Units that somebody was told of and has not come back for; 0 where there is nobody.
    fn promised(&self, now: Nanos) -> u64 {
        let kept = self.promise.filter(|promise| now.since(promise.at) < PROMISE_KEPT);
        kept.map_or(0, |promise| promise.units)
    }

    fn is_promise_due(&self, now: Nanos) -> bool {
        self.promise.is_some_and(|promise| now >= promise.at)
    }

    /// What it needs until it could get more.
    fn short_stock(&self, now: Nanos) -> u64 {
        let next = (self.rate * SHORT_SECONDS - self.expiring_soon).max(0.0).round() as u64;
        if self.is_promise_due(now) { next.max(self.promised(now)) } else { next }
    }

    /// What to ask for, now that `free` of `entitled` units are left, and `even` would be an even share. Remembers that it
    /// was asked.
    pub(super) fn want(&mut self, (free, entitled): (u64, u64), even: u64, now: Nanos) -> Option<Want> {
        let promised = if self.is_promise_due(now) { self.promised(now) } else { 0 };
        if free < promised {
            self.refused_at = Some(now);
        }
        let stock = self.stock(now);
        let is_short = self.refused_at.is_some_and(|at| now.since(at) < SHORT_AFTER_REFUSAL);
        // One that is short asks for what it will spend at once; one that only runs low, for so much
        // that it need not ask again soon: nobody is short of it.
        let wanted = if is_short { (2 * self.short_stock(now) + self.grain()).max(promised) } else { stock.max(even) };
        let is_low = is_short || free < stock.div_ceil(2);
        // Who got nothing for it asks less often.
        let pause = match (is_short, entitled > self.entitled) {
            (true, true) => URGENT_PAUSE,
            (true, false) => URGENT_PAUSE * 2,
            (false, _) => ASK_PAUSE,
        };
        let units = if is_low { wanted.saturating_sub(free) } else { 0 };
        if units > 0 && self.asked_at.is_none_or(|at| now.since(at) >= pause) {
            let want = Want { units, least: self.grain(), is_refusing: is_short };
            self.asked_at = Some(now);
            self.rested_at = Some(now);
            self.is_refusing = false;
            self.entitled = entitled;
            return Some(want);
        }
        let rest = rest(even);
        if free < rest && self.rested_at.is_none_or(|at| now.since(at) >= REST_PAUSE) {
            self.rested_at = Some(now);
            return Some(Want { units: rest - free, least: 1, is_refusing: false });
        }
        None
    }

    /// What this node can do without, of `free` units, for one that has `theirs` left.
    pub(super) fn spare(&self, free: u64, theirs: u64, wish: Want, now: Nanos) -> u64 {
        let spare = if wish.is_refusing {
            free.saturating_sub(self.short_stock(now))
        } else {
            // Between two that are not short, they end up alike.
            free.saturating_sub(self.stock(now)).min(free.saturating_sub(theirs) / 2)
        };
        spare.min(wish.units)
    }

    /// Too little for any of this node's own requests.
    pub(super) fn is_useless(&self, free: u64) -> bool {
        free < self.grain()
    }

    /// What goes to the holder of a small limit.
    pub(super) fn surplus(&mut self, free: u64, even: u64, now: Nanos) -> u64 {
        let surplus = free.saturating_sub(self.stock(now).max(rest(even)).max(1));
        if surplus == 0 || now.since(self.returned_at) < ASK_PAUSE {
            return 0;
        }
        self.returned_at = now;
        surplus
    }
}
