//! What both planes agree on: configuration, snapshot records, limit arithmetic, rings, bounds,
//! clock. No runtime, no sockets, no files.

pub mod allocations;
pub mod bounds;
pub mod clock;
pub mod config;
pub mod foreign;
pub mod limit;
pub mod phase;
pub mod published;
pub mod report;
pub mod ring;
pub mod secret;
pub mod snapshot;
pub mod told;
