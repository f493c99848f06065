//! Who holds shares: a node in one of its lives.

use crate::gossip::frame::NodeName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A node, and a number drawn when it began with nothing. A node that comes back with its state is
/// the same account; one that lost it, or was left out of the roster, is another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Account {
    /// The node's id.
    pub node: NodeName,
    /// Drawn at random; 0 stands for nobody.
    pub life: u64,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:04x}", self.node, self.life & 0xffff)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::escrow) fn account(id: &str) -> Account {
        Account { node: NodeName::new(id).unwrap(), life: 1 }
    }
}
