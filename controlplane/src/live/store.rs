//! What keeps revisions: an embedded database of one node, or one that all nodes share.

use super::entity::Entity;
use super::revision::{Digest, Head, Revision};
use async_trait::async_trait;
use serde_json::Value;

/// Why a store did not do what it was asked for. Nothing of it was done, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else was faster: the revision is not on top of the newest one.
    #[error("the configuration has changed meanwhile: it is at revision {}", .0.number)]
    Conflict(Head),
    /// It cannot be reached, is full, or is going down. It may work later.
    #[error("the configuration store cannot be used now: {0}")]
    Unavailable(String),
    /// It holds what this program did not write, or was written by a newer one.
    #[error("the configuration store cannot be used: {0}")]
    Unusable(String),
    /// The revision itself is wrong: it would be refused again.
    #[error("the configuration store does not keep this revision: {0}")]
    Invalid(String),
    /// It was cut off while it confirmed. [`Store::revision`] tells later whether it was done;
    /// asking for the same again is safe.
    #[error("it is not known whether the configuration store kept the revision: {0}")]
    Uncertain(String),
}

/// A revision with what the store knows about it.
#[derive(Clone, PartialEq)]
pub struct Recorded {
    /// The revision.
    pub revision: Revision,
    /// Its digest.
    pub digest: Digest,
    /// What each of its changes replaced, in their order; `None`: nothing was there.
    pub before: Vec<Option<Value>>,
    /// Another one of the same number or a later chain holds instead.
    pub is_superseded: bool,
}

/// Keeps entities and their revisions. Every call is all or nothing, and what it has confirmed
/// survives the end of process and machine.
#[async_trait]
pub trait Store: Send + Sync {
    /// The newest revision that holds, and every entity as it is then.
    async fn state(&self) -> Result<(Head, Vec<Entity>), StoreError>;

    /// Puts `revision` on top of its parent. [`StoreError::Conflict`] where that is not the newest.
    /// One that is there already and holds is confirmed again.
    async fn append(&self, revision: &Revision) -> Result<(), StoreError>;

    /// Revisions that hold with a number above `after`, the oldest first, `count` at most; fewer where
    /// they are large, none only where there are none.
    async fn after(&self, after: u64, count: u32) -> Result<Vec<Revision>, StoreError>;

    /// Every revision with a number below `before` (all where it is `None`), superseded ones too, the
    /// newest first. About `count`: fewer where they are large; those of one number are not torn apart,
    /// so that the next page begins below the last number of this one.
    async fn history(&self, before: Option<u64>, count: u32) -> Result<Vec<Recorded>, StoreError>;

    /// The revision of this digest.
    async fn revision(&self, digest: Digest) -> Result<Option<Recorded>, StoreError>;

    /// Takes another chain for the one that holds: `revisions` follow each other on top of `fork`, and
    /// what stood on it before is superseded. [`StoreError::Conflict`] where the new head is not the
    /// greater one. For stores of one node; a shared one orders revisions itself, and refuses.
    async fn switch(&self, fork: Digest, revisions: &[Revision]) -> Result<(), StoreError>;

    /// Waits until somebody else may have appended. May return without a reason, never late by more
    /// than a few seconds. For ever where nobody else can.
    async fn changed(&self);

    /// Where it is and how it does, for operators: without anything secret.
    fn describe(&self) -> String;
}
