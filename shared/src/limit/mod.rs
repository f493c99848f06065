//! Limits inside one node: the window's arithmetic and the ring that its cores share.
//!
//! [`Window`] says how long a spent unit counts. [`LimitRing`] counts: one for each limit and
//! node, atomics only. [`LimitTable`] keeps the rings while configurations come and go. A core
//! does not work on the ring for every request; it takes slices (`dataplane::limiter`).
//! A limit on how many requests run at once is held in the same ring and never stamped there.
//!
//! Absent: clocks (time is an argument, of one monotonic clock that all cores of the node
//! read), how an entitlement is shared between nodes, and budgets in money.

mod atomic;
mod refused;
mod ring;
mod table;
mod window;

use rkyv::{Archive, Deserialize, Serialize};

pub use crate::snapshot::Unit;
pub use refused::Refused;
pub use ring::{LimitRing, RingSnapshot, UNITS_MAX};
pub use table::{LIMITS_MAX, LimitDefinition, LimitRings, LimitTable, TableError};
pub use window::{CONCURRENT_WINDOW_NS, COUNTING_SPREAD_NS, WINDOW_MAX_NS, WINDOW_MIN_NS, Window, WindowError};

/// Position of a limit in the [`LimitRings`] of one configuration.
///
/// It means nothing in another configuration: whoever keeps a snapshot keeps its rings too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitIndex(pub u32);

/// From when on, and how many of, the reserved tokens count as spent. Requests always count
/// from the first byte sent upstream, whatever stands here.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq), compare(PartialEq))]
#[repr(u8)]
pub enum ChargeRule {
    /// The reservation is held while the request runs; its real use is stamped at the end.
    ///
    /// Safe for any provider that counts the tokens really used, at whatever instants between
    /// admission and end it does so: at each such instant we count at least as much already
    /// (the reservation), and we stop counting no earlier than a window after the end.
    Settlement,
    /// The whole reservation is stamped when the request is sent and nothing comes back: the
    /// formula of providers that count `max_tokens` at their door. A refund here would admit
    /// what they still count.
    Admission,
    /// Safe for a provider of either kind, where it is not known which it is: what was used counts
    /// from the end of the request as in [`ChargeRule::Settlement`], and what was reserved and not
    /// used goes on to count from the moment it was sent as in [`ChargeRule::Admission`].
    Either,
    /// Stamped when sent; what was reserved and not used returns to the slot it was stamped
    /// in. For limits of our own, defined as the use of requests that began in the window.
    AdmissionRefunded,
}
