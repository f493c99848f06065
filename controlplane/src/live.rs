//! The configuration while the node runs: entities that change in revisions.
//!
//! What all nodes share (providers, keys, virtual keys, limits, …) is a set of [`Entity`]s; a
//! [`Revision`] changes some of them, all or none. What belongs to one node (`server`,
//! `cluster_config`, `config_store`, `auth_config`) stays in its file. A [`Store`] keeps revisions;
//! gossip carries them where nodes have no store in common.
//!
//! Secrets in entities are references (`env.NAME`, `file:PATH`) or sealed; in clear they are only on
//! their way in, from a file or a writer, until they are sealed.

pub(crate) mod engine;
pub mod entity;
pub(crate) mod file_watch;
mod handle;
pub mod join;
mod kept;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod part;
mod proposal;
mod reading;
pub mod revision;
pub mod seal;
pub mod split;
pub mod store;
mod wire;

pub use entity::{Entities, Entity, EntityId, EntityKind};
pub use handle::{ASKS_WAITING_MAX, Accepted, Ask, Document, EntityFault, Live, Proposal, Refused};
pub use revision::{Change, Digest, Head, Revision};
pub use store::{Recorded, Store, StoreError};
