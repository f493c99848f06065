//! The one place of this program that reads the clock. Measuring is its job, so it has
//! a clock of its own instead of the node's.

use std::time::Instant;

/// The monotonic time now.
#[expect(
    clippy::disallowed_methods,
    reason = "a measuring program needs real time; everything else takes it from here"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
