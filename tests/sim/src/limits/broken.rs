//! Rules that a simulated cluster breaks on purpose, so that it is known what would notice.

use shared::limit::{COUNTING_SPREAD_NS, Window};

/// What is broken, on every node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Breakage {
    /// Nothing.
    #[default]
    Nothing,
    /// Rows leave before the debit is on disk.
    CreditBeforeDebit,
    /// Cores spend whatever the lease says.
    LeaseIgnored,
    /// Slots expire when the youngest unit in them is a window old, less a slot.
    NoSlotRounding,
    /// The provider's counting is taken to be immediate.
    NoSpread,
}

impl Breakage {
    /// The window by which the nodes count.
    pub(crate) fn window(self, window_ns: u64) -> Window {
        let right = Window::new(window_ns).expect("scenarios have windows that can be");
        let wrong = match self {
            Self::NoSlotRounding => Window::with_spread(window_ns - right.slot_ns(), COUNTING_SPREAD_NS),
            Self::NoSpread => Window::with_spread(window_ns, 0),
            _ => Ok(right),
        };
        wrong.expect("as above")
    }
}
