//! Rules of the escrow that a test breaks on purpose, to know what would notice. Only with the feature
//! `broken-on-purpose`; without a call of [`break_rule`] nothing is broken.

use std::cell::Cell;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// An heir waits until what those left out have spent is a window old.
    HeirsWait,
    /// A node that starts again knows what it promised and accepted, and grants as if it had just
    /// granted to everybody.
    VotesAreKept,
}

thread_local! {
    static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
}

/// Breaks a rule for everything that this thread does from now on; `None` breaks none.
pub fn break_rule(rule: Option<Rule>) {
    BROKEN.set(rule);
}

pub(super) fn is_broken(rule: Rule) -> bool {
    BROKEN.get() == Some(rule)
}
