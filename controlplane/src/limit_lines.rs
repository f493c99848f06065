//! Changes of who may spend of shared limits, as lines of the log: once each, with what to do where
//! there is anything to do.

use crate::escrow::{BookStanding, Escrow, Obstacle, Policy};
use crate::limit_status::{in_words, policy_name};
use shared::clock::Nanos;
use std::collections::BTreeMap;
use std::mem::{Discriminant, discriminant};
use std::time::Duration;

/// A start takes so long where nothing is wrong; nothing is said before.
const USUAL: Duration = Duration::from_secs(5);

/// What was said last.
#[derive(Default)]
pub(crate) struct LimitLines {
    books: BTreeMap<Policy, Said>,
    minted: u64,
}

#[derive(Default)]
struct Said {
    roster: Option<(u64, usize)>,
    obstacle: Option<Discriminant<Obstacle>>,
    /// Since when there is an obstacle that was not said.
    since: Option<Nanos>,
    has_spent: bool,
}

/// A line that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Roster { epoch: u64, members: usize, heir: String, left_out: usize },
    MaySpend { is_again: bool },
    MayNot { why: String, waits_ms: Option<u64>, is_lease: bool },
}

impl LimitLines {
    /// Compares with the last time and writes what has changed.
    pub(crate) fn look(&mut self, escrow: &Escrow, now: Nanos) {
        for book in escrow.books(now).into_iter().filter(|book| book.limits > 0) {
            let said = self.books.entry(book.policy).or_default();
            let on_node_loss = policy_name(book.policy);
            for line in said.lines(&book, now) {
                write(line, on_node_loss);
            }
        }
        let minted = escrow.minted();
        if minted > self.minted {
            tracing::info!(limits = minted - self.minted, "took over what no node had of shared limits");
        }
        self.minted = minted;
    }
}

impl Said {
    fn lines(&mut self, book: &BookStanding, now: Nanos) -> Vec<Line> {
        let mut lines = Vec::new();
        let roster = (book.epoch > 0).then_some((book.epoch, book.members.len()));
        if roster != self.roster {
            if let Some((epoch, members)) = roster {
                let left_out = self.roster.map_or(0, |(_, before)| before.saturating_sub(members));
                let heir = book.heir.map(|heir| heir.to_string()).unwrap_or_default();
                lines.push(Line::Roster { epoch, members, heir, left_out });
            }
            self.roster = roster;
        }
        match book.obstacle {
            None => {
                if self.obstacle.is_some() || !self.has_spent {
                    lines.push(Line::MaySpend { is_again: self.has_spent });
                }
                (self.obstacle, self.since, self.has_spent) = (None, None, true);
            }
            Some(obstacle) if self.obstacle != Some(discriminant(&obstacle)) => {
                let since = *self.since.get_or_insert(now);
                // Whoever had a lease hears of its end at once.
                if self.has_spent || now.since(since) >= USUAL {
                    self.obstacle = Some(discriminant(&obstacle));
                    let (why, waits_ms) = in_words(obstacle, now);
                    let is_lease = matches!(obstacle, Obstacle::NoLease { .. });
                    lines.push(Line::MayNot { why, waits_ms, is_lease });
                }
            }
            Some(_) => {}
        }
        lines
    }
}

fn write(line: Line, on_node_loss: &'static str) {
    match line {
        Line::Roster { epoch, members, heir, left_out: 0 } => {
            tracing::info!(on_node_loss, epoch, members, heir, "nodes share the limits");
        }
        Line::Roster { epoch, members, heir, left_out } => tracing::warn!(
            on_node_loss,
            epoch,
            members,
            heir,
            left_out,
            "nodes share the limits without those that were lost; what these had comes back when all that they may \
             have spent has expired"
        ),
        Line::MaySpend { is_again: false } => tracing::info!(on_node_loss, "this node may spend of shared limits"),
        Line::MaySpend { is_again: true } => tracing::info!(on_node_loss, "this node may spend of shared limits again"),
        Line::MayNot { why, is_lease: true, .. } => tracing::warn!(
            on_node_loss,
            why,
            "this node may not spend of shared limits: their requests get 429. Look for what keeps it from the others \
             (`deepintshield doctor`)"
        ),
        Line::MayNot { why, waits_ms, is_lease: false } => tracing::warn!(
            on_node_loss,
            why,
            seconds = waits_ms.map(|ms| ms.div_ceil(1_000)),
            "this node may not spend of shared limits yet: their requests get 429. Start the other nodes, or look at \
             cluster_config.expected_nodes; `deepintshield limits` shows how it goes on"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escrow::{Account, NodeName};

    fn account(id: &str) -> Account {
        Account { node: NodeName::new(id).unwrap(), life: 1 }
    }

    fn book(epoch: u64, members: usize, obstacle: Option<Obstacle>) -> BookStanding {
        BookStanding {
            policy: Policy::Reclaim,
            limits: 1,
            account: account("a"),
            expected: 3,
            epoch,
            members: ["a", "b", "c"].map(account)[..members].to_vec(),
            heir: (epoch > 0).then(|| account("a")),
            spends_until: None,
            obstacle,
        }
    }

    fn at(seconds: u64) -> Nanos {
        Nanos(0).after(Duration::from_secs(seconds))
    }

    const ALONE: Option<Obstacle> = Some(Obstacle::NoRoster { met: 1, needed: 2, votes_at: None });
    const LAPSED: Option<Obstacle> = Some(Obstacle::NoLease { needed: 2, since: None });

    #[test]
    fn a_start_that_goes_well_says_two_lines() {
        let mut said = Said::default();
        assert_eq!(said.lines(&book(0, 0, ALONE), at(1)), []);
        let lines = said.lines(&book(1, 3, None), at(3));
        let roster = Line::Roster { epoch: 1, members: 3, heir: "a/0001".into(), left_out: 0 };
        assert_eq!(lines, [roster, Line::MaySpend { is_again: false }]);
        assert_eq!(said.lines(&book(1, 3, None), at(4)), []);
    }

    #[test]
    fn a_node_that_waits_says_so_once() {
        let mut said = Said::default();
        assert_eq!(said.lines(&book(0, 0, ALONE), at(1)), []);
        let lines = said.lines(&book(0, 0, ALONE), at(6));
        let why = "1 of 2 nodes that have to agree have met".to_owned();
        assert_eq!(lines, [Line::MayNot { why, waits_ms: None, is_lease: false }]);
        assert_eq!(said.lines(&book(0, 0, ALONE), at(60)), []);
    }

    #[test]
    fn a_lease_that_is_lost_and_had_again_is_told_at_once() {
        let mut said = Said::default();
        said.lines(&book(1, 3, None), at(1));
        assert!(matches!(said.lines(&book(1, 3, LAPSED), at(2))[..], [Line::MayNot { is_lease: true, .. }]));
        assert_eq!(said.lines(&book(1, 3, None), at(3)), [Line::MaySpend { is_again: true }]);
    }

    #[test]
    fn who_was_left_out_is_counted() {
        let mut said = Said::default();
        said.lines(&book(1, 3, None), at(1));
        assert!(matches!(said.lines(&book(2, 2, None), at(9))[..], [Line::Roster { epoch: 2, left_out: 1, .. }]));
    }
}
