//! How every limit stands, on this node and on all of them, and what is in the way where nothing may
//! be spent. Pure; `/cluster/status`, metrics and `deepintshield limits` show it.
//!
//! Figures of other nodes are what they published: a second or two old. While units move, sums of
//! them are near the truth.

use crate::escrow::{BookStanding, Escrow, LimitStanding, Obstacle, Policy};
use crate::gossip::values::LimitUse;
use crate::learned::LearnedLimit;
use crate::member::{Health, View};
use crate::metrics::LimitRow;
use serde::Serialize;
use shared::clock::Nanos;
use shared::limit::UNITS_MAX;
use std::collections::HashMap;

/// Other limits than this node's own that are shown.
const FOREIGN_MAX: usize = 1_000;
/// Rows of nodes that are shown in all, shared out among the limits.
const NODE_ROWS_MAX: usize = 20_000;
/// Nodes of a limit that are shown even so.
const NODE_ROWS_MIN: usize = 8;

/// One limit. Units are those of the limit: requests, tokens, or requests that run at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LimitStatus {
    /// Limit's id.
    pub id: String,
    /// `requests`, `tokens` or `concurrent`.
    pub unit: String,
    /// Units in a window that all nodes may use now.
    pub amount: u64,
    /// The same as configured; `null`: what the provider says, or not configured here.
    pub configured: Option<u64>,
    /// What makes the one less than the other, as in `learned_limits`; `null`: nothing.
    pub reduced_by: Option<&'static str>,
    /// Length of the window.
    pub window_ms: u64,
    /// `strict`, `admission`, `statistical` or `gossip`; empty where it is not configured here.
    pub enforcement: &'static str,
    /// What becomes of a lost node's part: `keep` or `reclaim`; `null`: nodes hold no parts of it.
    pub on_node_loss: Option<&'static str>,
    /// By so much all nodes may exceed it at most.
    pub overshoot_bound: u64,
    /// Part of the answers that may need more than was reserved.
    pub overshoot_probability: f64,

    /// Units in a window that this node may use.
    pub entitlement_here: u64,
    /// Spent and held by this node in the window that ends now.
    pub used_here: u64,
    /// The part of it that is not spent yet: requests that run, and what cores have taken.
    pub held_here: u64,
    /// Requests that this node refused for this limit since its start.
    pub refused_here: u64,
    /// Units got from other nodes, in all.
    pub borrowed: u64,
    /// Units given to other nodes, in all.
    pub lent: u64,
    /// Nodes that have not confirmed what they were given.
    pub unconfirmed: u64,
    /// Units a second that are asked of this node.
    pub demand_per_second: f64,
    /// Why nothing may be spent here now; `null`: it may.
    pub waits_for: Option<String>,
    /// How much longer at most, where that is known.
    pub waits_ms: Option<u64>,

    /// Units that the nodes which can spend hold together; `null` where they hold no parts, or not
    /// every node says what it has.
    pub entitlement: Option<u64>,
    /// Spent and held by all live nodes.
    pub used: u64,
    /// Requests that all live nodes refused since their starts.
    pub refused: u64,
    /// `used`, as a part of `amount`.
    pub utilisation: f64,
    /// Units that nobody can spend: with lost nodes, on their way, or not there yet; `null` as with
    /// `entitlement`.
    pub stranded: Option<u64>,
    /// When what is stranded comes back at the latest; `null`: not known, or when its node does.
    pub stranded_ms: Option<u64>,
    /// Nodes that use it.
    pub nodes: u32,
    /// Every live node that says something of it, this one first.
    pub by_node: Vec<NodeLimit>,
}

/// A limit on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeLimit {
    /// Its id.
    pub node: String,
    /// What it may use in a window; `null` where it does not say so.
    pub entitlement: Option<u64>,
    /// Spent and held.
    pub used: u64,
    /// Requests refused since its start.
    pub refused: u64,
}

/// How nodes share their limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EscrowStatus {
    /// What this node has survives its restart.
    pub is_kept: bool,
    /// How often this node has taken over what nobody had of a limit, since its start.
    pub minted: u64,
    /// One for each value of `on_node_loss` that limits have.
    pub books: Vec<BookStatus>,
}

/// Who holds parts of limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BookStatus {
    /// `keep` or `reclaim`.
    pub on_node_loss: &'static str,
    /// Limits that go by it.
    pub limits: usize,
    /// How many nodes there should be; 0: not known.
    pub expected_nodes: u16,
    /// Number of the roster; 0: there is none.
    pub epoch: u64,
    /// Nodes in it, each with the last digits of a number that tells its lives apart.
    pub members: Vec<String>,
    /// Who takes over what nobody has.
    pub heir: Option<String>,
    /// This node among the members.
    pub account: String,
    /// How much longer this node may spend without hearing from the others; `null`: it needs no
    /// lease, or has none.
    pub lease_ms: Option<u64>,
    /// Why it may not; `null`: it may.
    pub waits_for: Option<String>,
    /// How much longer at most, where that is known.
    pub waits_ms: Option<u64>,
}

/// What all of it is made from.
pub(crate) struct Sight<'a> {
    /// This node's id.
    pub node: &'a str,
    /// Its limits.
    pub rows: &'a [LimitRow],
    /// `None`: this node is alone.
    pub escrow: Option<&'a Escrow>,
    /// What providers leave less of.
    pub learned: &'a [LearnedLimit],
    /// The other nodes.
    pub view: &'a View,
    /// The moment of all this.
    pub now: Nanos,
}

/// A limit, by unit and id, as peers tell of it.
type Told<'a> = HashMap<(&'a str, &'a str), Vec<(&'a str, &'a LimitUse)>, ahash::RandomState>;

/// Every limit of this node, in the order of the configuration, and then those of which only others
/// tell.
pub(crate) fn limits(sight: &Sight<'_>) -> Vec<LimitStatus> {
    let live = || sight.view.members.iter().filter(|member| member.health != Health::Dead);
    let mut told = Told::default();
    for member in live() {
        for used in &member.values.limits {
            told.entry((used.unit.as_str(), used.id.as_str())).or_default().push((member.id.as_str(), used));
        }
    }
    let live = live().count();
    let rows_max = (NODE_ROWS_MAX / (sight.rows.len() + told.len()).max(1)).max(NODE_ROWS_MIN);
    let mut limits: Vec<LimitStatus> = Vec::with_capacity(sight.rows.len());
    for row in sight.rows {
        let others = told.remove(&(row.unit, row.id.as_str())).unwrap_or_default();
        limits.push(own(sight, row, &others, live, rows_max));
    }
    let mut foreign: Vec<_> = told.into_iter().collect();
    foreign.sort_unstable_by_key(|(name, _)| *name);
    for ((unit, id), others) in foreign.into_iter().take(FOREIGN_MAX) {
        let mut limit = LimitStatus { id: id.to_owned(), unit: unit.to_owned(), ..LimitStatus::default() };
        limit.amount = others.iter().map(|(_, used)| used.amount).max().unwrap_or(0);
        limit.add_others(&others, rows_max);
        limits.push(limit);
    }
    limits
}

fn own(sight: &Sight<'_>, row: &LimitRow, others: &[(&str, &LimitUse)], live: usize, rows_max: usize) -> LimitStatus {
    let now = sight.now;
    let standing = sight.escrow.and_then(|escrow| escrow.standing(row.key, now));
    let entitlement = if row.is_valid { row.ring.entitlement } else { 0 };
    let learned = sight.learned.iter().find(|learned| learned.id == row.id && learned.unit == row.unit);
    let waits = sight.escrow.and_then(|escrow| waits_for(row, escrow, standing.as_ref(), now));
    let (waits_for, waits_ms) = waits.unzip();
    let mut limit = LimitStatus {
        id: row.id.clone(),
        unit: row.unit.to_owned(),
        amount: row.ring.amount,
        configured: row.configured,
        reduced_by: learned.map(|learned| learned.why),
        window_ms: row.window_ns / 1_000_000,
        enforcement: row.enforcement,
        on_node_loss: standing.map(|standing| policy_name(standing.policy)),
        overshoot_bound: row.overshoot_bound,
        overshoot_probability: row.overshoot_probability,
        entitlement_here: entitlement,
        used_here: row.ring.used,
        held_here: row.ring.held,
        refused_here: row.refused,
        borrowed: standing.map_or(0, |standing| standing.borrowed),
        lent: standing.map_or(0, |standing| standing.lent),
        unconfirmed: standing.map_or(0, |standing| standing.unconfirmed),
        demand_per_second: standing.map_or(0.0, |standing| standing.rate_milli as f64 / 1e3),
        waits_for,
        waits_ms: waits_ms.flatten(),
        ..LimitStatus::default()
    };
    let node = NodeLimit {
        node: sight.node.to_owned(),
        entitlement: Some(entitlement),
        used: row.ring.used,
        refused: limit.refused_here,
    };
    (limit.used, limit.refused) = (node.used, node.refused);
    limit.nodes = u32::from(node.used > 0);
    limit.by_node.push(node);
    limit.add_others(others, rows_max);
    if let Some(standing) = standing {
        let parts: Vec<u64> = others.iter().filter_map(|(_, used)| used.entitlement).collect();
        if parts.len() == live {
            let sum = parts.into_iter().fold(entitlement, u64::saturating_add);
            let stranded = limit.amount.saturating_sub(sum);
            limit.entitlement = Some(sum);
            limit.stranded = Some(stranded);
            limit.stranded_ms = standing.mints_at.filter(|_| stranded > 0).map(|at| millis(at, now));
        }
    }
    limit
}

impl LimitStatus {
    fn add_others(&mut self, others: &[(&str, &LimitUse)], rows_max: usize) {
        for (node, used) in others {
            self.used = self.used.saturating_add(used.used);
            self.refused = self.refused.saturating_add(used.refused);
            self.nodes = self.nodes.saturating_add(u32::from(used.used > 0));
            if self.by_node.len() < rows_max {
                self.by_node.push(NodeLimit {
                    node: (*node).to_owned(),
                    entitlement: used.entitlement,
                    used: used.used,
                    refused: used.refused,
                });
            }
        }
        self.by_node.sort_by(|a, b| a.node.cmp(&b.node));
        if self.amount > 0 {
            self.utilisation = self.used as f64 / self.amount as f64;
        }
    }
}

/// How the nodes share, by book.
pub(crate) fn escrow(escrow: &Escrow, is_kept: bool, now: Nanos) -> EscrowStatus {
    let books = escrow.books(now).into_iter().filter(|book| book.limits > 0);
    EscrowStatus { is_kept, minted: escrow.minted(), books: books.map(|book| book_status(&book, now)).collect() }
}

fn book_status(book: &BookStanding, now: Nanos) -> BookStatus {
    let lease_end = book.spends_until.filter(|until| *until < Nanos(u64::MAX));
    let (waits_for, waits_ms) = book.obstacle.map(|obstacle| in_words(obstacle, now)).unzip();
    BookStatus {
        on_node_loss: policy_name(book.policy),
        limits: book.limits,
        expected_nodes: book.expected,
        epoch: book.epoch,
        members: book.members.iter().map(ToString::to_string).collect(),
        heir: book.heir.map(|heir| heir.to_string()),
        account: book.account.to_string(),
        lease_ms: lease_end.map(|until| millis(until, now)),
        waits_for,
        waits_ms: waits_ms.flatten(),
    }
}

/// Why nothing of a limit may be spent, and how much longer.
fn waits_for(
    row: &LimitRow,
    escrow: &Escrow,
    standing: Option<&LimitStanding>,
    now: Nanos,
) -> Option<(String, Option<u64>)> {
    let Some(standing) = standing else {
        let is_shared = row.enforcement != "gossip" && row.ring.amount < UNITS_MAX;
        return is_shared.then(|| in_words(Obstacle::ExpectedUnknown, now));
    };
    let book = escrow.books(now).into_iter().find(|book| book.policy == standing.policy)?;
    if let Some(obstacle) = book.obstacle {
        return Some(in_words(obstacle, now));
    }
    let at = standing.mints_at.filter(|_| standing.entitlement == 0)?;
    Some(("what a former process of the cluster may have spent still counts".to_owned(), Some(millis(at, now))))
}

/// What is in the way, and how much longer where that is known.
pub(crate) fn in_words(obstacle: Obstacle, now: Nanos) -> (String, Option<u64>) {
    match obstacle {
        Obstacle::ExpectedUnknown => (
            "it is not known how many nodes there should be before nobody has come or gone for 10 s; \
             cluster_config.expected_nodes says it at once"
                .to_owned(),
            None,
        ),
        Obstacle::NoRoster { votes_at: Some(at), .. } => (
            "this node may have agreed to something before its start that still holds".to_owned(),
            Some(millis(at, now)),
        ),
        Obstacle::NoRoster { met, needed, votes_at: None } => {
            (format!("{met} of {needed} nodes that have to agree have met"), None)
        }
        Obstacle::NoLease { needed, .. } => {
            (format!("fewer than {needed} members, this node included, answer each other"), None)
        }
    }
}

pub(crate) fn policy_name(policy: Policy) -> &'static str {
    match policy {
        Policy::Keep => "keep",
        Policy::Reclaim => "reclaim",
    }
}

fn millis(at: Nanos, now: Nanos) -> u64 {
    u64::try_from(at.since(now).as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
