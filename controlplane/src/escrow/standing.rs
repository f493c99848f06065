//! How things stand, for operators.

use super::account::Account;
use super::ledger::Ledger;
use super::roster::Policy;
use super::shares::{FULL, LimitKey, units};
use super::{Escrow, Side, wait_before_minting};
use shared::clock::Nanos;

/// Why a node may not spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It is not known how many nodes there should be.
    ExpectedUnknown,
    /// Too few of them have met to decide anything.
    NoRoster {
        /// Nodes that could.
        met: usize,
        /// Of them are needed.
        needed: usize,
        /// This node itself takes no part before: it may have granted something and forgotten it.
        votes_at: Option<Nanos>,
    },
    /// Too few members of the roster answer.
    NoLease {
        /// Members that have to.
        needed: usize,
        /// When the last lease ended; `None`: there was none.
        since: Option<Nanos>,
    },
}

/// One policy's roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookStanding {
    /// Whose.
    pub policy: Policy,
    /// Limits that go by it.
    pub limits: usize,
    /// This node's account.
    pub account: Account,
    /// How many nodes there should be; 0: not known.
    pub expected: u16,
    /// 0: there is none.
    pub epoch: u64,
    /// Accounts that may hold shares.
    pub members: Vec<Account>,
    /// Who takes over what nobody has.
    pub heir: Option<Account>,
    /// Until when this node may spend; the end of time where it needs no lease.
    pub spends_until: Option<Nanos>,
    /// What is in the way of spending.
    pub obstacle: Option<Obstacle>,
}

/// One limit, units of its amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitStanding {
    /// Which one.
    pub key: LimitKey,
    /// By which book.
    pub policy: Policy,
    /// Of all nodes.
    pub amount: u64,
    /// Of this node.
    pub entitlement: u64,
    /// Got from members in all, and given to them.
    pub borrowed: u64,
    /// See `borrowed`.
    pub lent: u64,
    /// Rows that whoever should have them has not confirmed.
    pub unconfirmed: u64,
    /// Asked of this node, thousandths of units a second.
    pub rate_milli: u64,
    /// Units of the largest request that it could not serve lately; 1 where there was none.
    pub grain: u64,
    /// When what nobody has comes into being again at the latest; `None`: at once, or nothing is
    /// missing as far as this node can tell.
    pub mints_at: Option<Nanos>,
}

/// What a node's books say of one limit, in shares: for auditors, who add up those of all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Of whom.
    pub account: Account,
    /// Which line of rosters; 0: none.
    pub chain: u64,
    /// What it has, of [`Holdings::WHOLE`].
    pub balance: i128,
    /// Units of the amount that these are.
    pub units: u64,
    /// What it gave in all, and to whom.
    pub given: Vec<(Account, i128)>,
    /// What it got in all, and from whom.
    pub got: Vec<(Account, i128)>,
}

impl Holdings {
    /// A whole limit.
    pub const WHOLE: i128 = FULL;
}

impl Escrow {
    /// What this node has of a limit; `None` for one that is not configured.
    pub fn holdings(&self, key: LimitKey) -> Option<Holdings> {
        let limit = self.limits.get(&key)?;
        let side = self.sides.get(&limit.terms.policy)?;
        let ledger = side.ledgers.get(&key).cloned().unwrap_or_default();
        let (given, got) = ledger.rows();
        let balance = ledger.balance();
        let units = units(balance, limit.terms.amount);
        Some(Holdings { account: side.book.me(), chain: side.book.chain(), balance, units, given, got })
    }

    /// Every policy's roster.
    pub fn books(&self, now: Nanos) -> Vec<BookStanding> {
        let limits = |policy| self.limits.values().filter(|limit| limit.terms.policy == policy).count();
        self.sides.values().map(|side| side.standing(limits(side.policy), now)).collect()
    }

    /// Whether nodes hold parts of a limit.
    pub fn has(&self, key: LimitKey) -> bool {
        self.limits.contains_key(&key)
    }

    /// How often this node, as the heir, has taken over what nobody had of a limit.
    pub fn minted(&self) -> u64 {
        self.minted
    }

    /// A limit; `None` for one that is not configured.
    pub fn standing(&self, key: LimitKey, now: Nanos) -> Option<LimitStanding> {
        let limit = self.limits.get(&key)?;
        let (policy, amount) = (limit.terms.policy, limit.terms.amount);
        let side = self.sides.get(&policy)?;
        let (borrowed, lent) = side.ledgers.get(&key).map_or((0, 0), Ledger::flows);
        let first = Account { node: super::NodeName::default(), life: 0 };
        let unconfirmed = side.unconfirmed.range((key, first)..).take_while(|((limit, _), _)| *limit == key).count();
        Some(LimitStanding {
            key,
            policy,
            amount,
            entitlement: limit.terms.ring.entitlement(),
            borrowed: whole(borrowed, amount),
            lent: whole(lent, amount),
            unconfirmed: unconfirmed as u64,
            rate_milli: (limit.demand.rate() * 1_000.0) as u64,
            grain: limit.demand.grain(),
            mints_at: side.book.mints_at(wait_before_minting(side, &limit.terms), now),
        })
    }
}

/// Sums of rows may be many times the limit.
fn whole(shares: i128, amount: u64) -> u64 {
    let times = u64::try_from(shares / FULL).unwrap_or(u64::MAX);
    times.saturating_mul(amount).saturating_add(units(shares % FULL, amount))
}

impl Side {
    fn standing(&self, limits: usize, now: Nanos) -> BookStanding {
        let roster = self.book.roster();
        let spends_until = self.book.spends_until();
        let needed = self.book.needed();
        let obstacle = match roster {
            None if self.book.expected() == 0 => Some(Obstacle::ExpectedUnknown),
            None => {
                let votes_at = self.book.votes_at(now);
                Some(Obstacle::NoRoster { met: self.book.met(now), needed, votes_at })
            }
            Some(_) if spends_until.is_none_or(|until| until < now) => {
                Some(Obstacle::NoLease { needed, since: spends_until })
            }
            Some(_) => None,
        };
        BookStanding {
            policy: self.policy,
            limits,
            account: self.book.me(),
            expected: self.book.expected(),
            epoch: self.book.epoch(),
            members: roster.map(|roster| roster.members.iter().copied().collect()).unwrap_or_default(),
            heir: roster.map(|roster| roster.heir),
            spends_until,
            obstacle,
        }
    }
}
