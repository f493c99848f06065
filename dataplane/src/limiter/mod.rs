//! Admission on one core: is there room in every limit that a request falls under?
//!
//! [`Slices::admit`] asks all of them, all or nothing, and answers with a [`Permit`] for one
//! attempt upstream. `Permit::sent` right before the first byte goes upstream makes it
//! [`Sent`]; `Sent::settle` with the tokens really used ends it. A core ticks
//! [`Slices::tick`] every 10 ms and, when a configuration brings other rings, replaces its
//! slices by [`Slices::following`]. A refused request may wait for its turn: [`Slices::wait`].
//!
//! Absent: the choice of which limits apply and who may wait, the estimate of tokens, and any
//! clock.

mod line;
mod permit;
mod slice;
mod slices;
mod waiting;

#[cfg(test)]
mod simulation;

pub use permit::{Charge, Permit, Refused, Sent, Settled, Standing};
pub use slices::Slices;
pub use waiting::{Patience, Waiting};
