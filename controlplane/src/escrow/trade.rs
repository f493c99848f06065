//! Giving and getting: who asks whom for how much, what is given, and rows until they are confirmed.

use super::account::Account;
use super::book::Outbox;
use super::demand::Want;
use super::ledger::Totals;
use super::message::{Item, ROWS_MAX, Row, Wish};
use super::neighbours::{ASKED_MAX, holder, is_small, neighbours};
use super::roster::Policy;
use super::shares::{LimitKey, shares};
use super::{Escrow, Limit, NodeName, Peer, Side};
use shared::clock::Nanos;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Rows that were not confirmed are sent again this often.
const REPEAT: Duration = Duration::from_secs(1);

/// Lists for each receiver, which become items.
type Lists<T> = BTreeMap<Account, Vec<T>>;

fn send<T: Clone>(lists: Lists<T>, item: impl Fn(Vec<T>) -> Item, out: &mut Outbox) {
    for (to, list) in lists {
        out.extend(list.chunks(ROWS_MAX).map(|part| (to, item(part.to_vec()))));
    }
}

impl Side {
    /// After the book has changed: rows of those left out go into the bases, or all is lost. True:
    /// to be kept.
    pub(super) fn follow(&mut self, limits: &BTreeMap<LimitKey, Limit>, out: &mut Outbox) -> bool {
        let changes = self.book.changes();
        if changes.has_lost_all || changes.has_entered {
            // Letters name the epoch that they are sent in. What was said in the one before, such as a
            // base or a promise, is not true of this one.
            out.retain(|(_, item)| matches!(item, Item::Decided(_)));
        }
        if changes.has_lost_all {
            self.ledgers.clear();
            self.unconfirmed.clear();
            self.to_confirm.clear();
            for limit in limits.values().filter(|limit| limit.terms.policy == self.policy) {
                limit.terms.ring.set_entitlement(0);
            }
        }
        if changes.has_entered && self.policy == Policy::Reclaim {
            let members = self.book.roster().map(|roster| roster.members.clone()).unwrap_or_default();
            self.ledgers.values_mut().for_each(|ledger| ledger.fold(|account| members.contains(account)));
            self.ledgers.retain(|_, ledger| !ledger.is_blank());
            self.unconfirmed.retain(|(_, account), _| members.contains(account));
            self.to_confirm.retain(|(_, account)| members.contains(account));
        }
        changes.must_persist
    }

    /// An item about transfers from somebody we trade with. True: something has to be kept.
    pub(super) fn heard(
        &mut self,
        from: Account,
        item: Item,
        limits: &mut BTreeMap<LimitKey, Limit>,
        now: Nanos,
        out: &mut Outbox,
    ) -> bool {
        match item {
            Item::Rows(rows) => {
                // Each one, whether or not the one before changed anything.
                let changed: Vec<bool> = rows.into_iter().map(|row| self.credit(from, row, limits, now)).collect();
                changed.contains(&true)
            }
            Item::Seen(rows) => {
                for row in rows {
                    let sent = self.ledgers.get(&row.limit).map(|ledger| ledger.sent(from)).unwrap_or_default();
                    if row.totals.covers(sent) {
                        self.unconfirmed.remove(&(row.limit, from));
                    }
                }
                false
            }
            Item::Ask(wishes) => {
                let mut rows = Vec::new();
                for wish in wishes {
                    let Some(limit) = limits.get_mut(&wish.limit) else { continue };
                    let given = self.grant(from, wish, limit, now);
                    rows.extend(self.give(from, limit, given, now));
                }
                let has_given = !rows.is_empty();
                send(Lists::from([(from, rows)]), Item::Rows, out);
                has_given
            }
            _ => false,
        }
    }

    /// Rows of a limit that this node does not know yet come again.
    fn credit(&mut self, from: Account, row: Row, limits: &BTreeMap<LimitKey, Limit>, now: Nanos) -> bool {
        let Some(limit) = limits.get(&row.limit).filter(|limit| limit.terms.policy == self.policy) else {
            return false;
        };
        let credit = self.ledgers.entry(row.limit).or_default().credit(from, row.totals);
        if credit.spent > 0 {
            // Before it is entitled to them, so that nothing of it can be spent.
            limit.terms.ring.charge(credit.spent, now);
        }
        self.to_confirm.insert((row.limit, from));
        credit.free > 0 || credit.used > 0
    }

    /// Units that this node can do without.
    fn grant(&self, to: Account, wish: Wish, limit: &Limit, now: Nanos) -> u64 {
        let free = limit.terms.ring.unused();
        let want = Want { units: wish.units, least: wish.least, is_refusing: wish.is_refusing };
        let spare = limit.demand.spare(free, wish.free, want, now);
        // Two with too little each serve nobody: one of them gets all.
        let me = self.book.me();
        let loses = limit.demand.is_useless(free) && wish.limit.weight_of(to) > wish.limit.weight_of(me);
        if spare == 0 && wish.is_refusing && loses { free.min(wish.units.max(wish.least)) } else { spare }
    }

    /// Lowers the ring, then debits; the row to send once it is kept.
    fn give(&mut self, to: Account, limit: &Limit, units: u64, now: Nanos) -> Option<Row> {
        let terms = &limit.terms;
        if units == 0 || terms.policy != self.policy || !terms.ring.try_lower_entitlement(units) {
            return None;
        }
        let ledger = self.ledgers.entry(terms.key).or_default();
        let totals = ledger.give(to, shares(units, terms.amount));
        self.unconfirmed.insert((terms.key, to), Some(now));
        Some(Row { limit: terms.key, totals })
    }

    /// All that is left of a node that ends, spent or not.
    fn give_all(&mut self, to: Account, limit: &Limit, now: Nanos) -> Option<Row> {
        let ledger = self.ledgers.get_mut(&limit.terms.key)?;
        if ledger.balance() <= 0 {
            return None;
        }
        limit.terms.ring.set_entitlement(0);
        // Nothing is held any more from here on.
        let totals = ledger.give_all(to, limit.terms.ring.used());
        self.unconfirmed.insert((limit.terms.key, to), Some(now));
        Some(Row { limit: limit.terms.key, totals })
    }

    /// Accounts that rows may go to, this one included.
    fn partners(&self, healthy: &BTreeSet<NodeName>) -> BTreeSet<Account> {
        let Some(roster) = self.book.roster() else { return BTreeSet::new() };
        match self.policy {
            Policy::Reclaim => roster.members.clone(),
            Policy::Keep => {
                let others = healthy.iter().filter_map(|node| self.book.account_of(*node));
                others.chain([self.book.me()]).collect()
            }
        }
    }

    /// Rows that nobody has confirmed for a while.
    pub(super) fn repeat_rows(&mut self, now: Nanos, out: &mut Outbox) {
        let mut rows = Lists::new();
        for ((limit, to), sent_at) in &mut self.unconfirmed {
            if sent_at.is_some_and(|at| now.since(at) < REPEAT)
                || !self.book.trades_with(*to, (self.book.chain(), self.book.epoch()))
            {
                continue;
            }
            *sent_at = Some(now);
            let totals = self.ledgers.get(limit).map(|ledger| ledger.sent(*to)).unwrap_or_default();
            rows.entry(*to).or_insert_with(Vec::new).push(Row { limit: *limit, totals });
        }
        send(rows, Item::Rows, out);
    }

    /// Says what was credited.
    pub(super) fn confirm(&mut self, out: &mut Outbox) {
        let mut rows = Lists::new();
        for (limit, from) in std::mem::take(&mut self.to_confirm) {
            let totals: Totals = self.ledgers.get(&limit).map(|ledger| ledger.seen(from)).unwrap_or_default();
            rows.entry(from).or_insert_with(Vec::new).push(Row { limit, totals });
        }
        send(rows, Item::Seen, out);
    }
}

/// Whom one side trades with in this step, and whose turn it is.
struct Partners {
    me: Account,
    all: BTreeSet<Account>,
    healthy: BTreeSet<Account>,
    /// Healthy ones that are asked; at least one.
    near: Vec<Account>,
    turn: usize,
}

impl Partners {
    /// `None`: there is nobody.
    fn of(side: &Side, healthy: &BTreeSet<NodeName>, turn: usize) -> Option<Self> {
        let (me, all) = (side.book.me(), side.partners(healthy));
        let is_healthy = |account: &Account| *account == me || healthy.contains(&account.node);
        let near = neighbours(&all, me, is_healthy);
        let healthy = all.iter().copied().filter(is_healthy).collect();
        (!near.is_empty()).then_some(Self { me, all, healthy, near, turn })
    }

    /// Gets what this node has no use for.
    fn next(&self) -> Account {
        self.near.get(self.turn % self.near.len()).copied().unwrap_or(self.me)
    }

    /// Who keeps the units of a limit that is too small to be shared out; `None`: it is not.
    fn holder(&self, limit: &Limit) -> Option<Account> {
        let is_small = is_small(limit.terms.amount, limit.demand.grain(), self.all.len());
        is_small.then(|| holder(limit.terms.key, self.healthy.iter().copied())).flatten()
    }

    /// Who is asked for `want`: the holder first, and more than one where that was not enough.
    fn asked(&self, want: &Want, holder: Option<Account>) -> Vec<Account> {
        if let Some(holder) = holder.filter(|holder| *holder != self.me && !want.is_refusing) {
            return vec![holder];
        }
        let turned = self.near.iter().cycle().skip(self.turn % self.near.len());
        turned.take(self.near.len().min(ASKED_MAX)).copied().collect()
    }
}

/// What leaves a side in this step.
#[derive(Default)]
struct Parcels {
    rows: Lists<Row>,
    wishes: Lists<Wish>,
}

impl Parcels {
    fn give(&mut self, to: Account, row: Option<Row>) {
        if let Some(row) = row {
            self.rows.entry(to).or_default().push(row);
        }
    }
}

impl Side {
    /// Asks for what a limit lacks here, or gives away what only lies about.
    fn balance(&mut self, limit: &mut Limit, partners: &Partners, now: Nanos, parcels: &mut Parcels) {
        let (amount, free) = (limit.terms.amount, limit.terms.ring.unused());
        let even = amount / partners.all.len().max(1) as u64;
        let holder = partners.holder(limit);
        if let Some(want) = limit.demand.want((free, limit.terms.ring.entitlement()), even, now) {
            let asked = partners.asked(&want, holder);
            // Who refuses asks everybody for all of it.
            let parts = if want.is_refusing { 1 } else { asked.len().max(1) as u64 };
            let (units, least, is_refusing) = (want.units.div_ceil(parts), want.least, want.is_refusing);
            let wish = Wish { limit: limit.terms.key, units, least, free, is_refusing };
            for to in asked {
                parcels.wishes.entry(to).or_default().push(wish);
            }
        } else if let Some(holder) = holder.filter(|holder| *holder != partners.me) {
            let surplus = limit.demand.surplus(free, even, now);
            parcels.give(holder, self.give(holder, limit, surplus, now));
        }
    }
}

impl Escrow {
    /// Looks at what is asked of this node, asks the others for more, and gives away what only lies
    /// about.
    pub(super) fn trade(&mut self, peers: &[Peer], now: Nanos, out: &mut BTreeMap<Policy, Outbox>) {
        let healthy: BTreeSet<NodeName> = peers.iter().filter(|peer| peer.is_healthy).map(|peer| peer.node).collect();
        self.turn = self.turn.wrapping_add(1);
        for (policy, side) in &mut self.sides {
            let partners = Partners::of(side, &healthy, self.turn);
            let mut parcels = Parcels::default();
            for limit in self.limits.values_mut().filter(|limit| limit.terms.policy == *policy) {
                limit.demand.look(&limit.terms.ring, now);
                let Some(partners) = &partners else { continue };
                let next = partners.next();
                if self.is_ending {
                    parcels.give(next, side.give_all(next, limit, now));
                } else if self.is_leaving {
                    parcels.give(next, side.give(next, limit, limit.terms.ring.unused(), now));
                } else {
                    side.balance(limit, partners, now, &mut parcels);
                }
            }
            self.must_persist |= !parcels.rows.is_empty();
            let out = out.entry(*policy).or_default();
            send(parcels.rows, Item::Rows, out);
            send(parcels.wishes, Item::Ask, out);
        }
    }
}
