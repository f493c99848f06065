//! What the rest of the control thread holds of the live configuration: the document as it is now,
//! and the way to change it. One task owns both; it takes one proposal after the other.
//!
//! Absent: how a proposal is judged (`engine`), who may make one (`admin`).

use super::entity::{Entities, EntityId};
use super::revision::{Change, Digest, Head};
use super::store::Recorded;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// Proposals and questions that wait for the one that is being looked at.
pub const ASKS_WAITING_MAX: usize = 64;

/// The shared part of the configuration as it is in force. Holds no secret in clear.
#[derive(Clone)]
pub struct Document {
    /// The revision that it is.
    pub head: Head,
    /// Every entity.
    pub entities: Arc<Entities>,
    /// `Err`: why nothing can be changed now, for people.
    pub is_writable: Result<(), String>,
}

/// Changes that somebody wants, all or none.
pub struct Proposal {
    /// Only if this is the number of the newest revision.
    pub expected: Option<u64>,
    /// Who wants it, for people.
    pub author: String,
    /// Why, for people.
    pub comment: String,
    /// At most one for an entity. Secrets may be in clear; they are sealed before anybody else
    /// sees them.
    pub changes: Vec<Change>,
    /// Only to learn whether it could be done.
    pub is_dry_run: bool,
}

/// A proposal that is in force, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The newest revision after it; before it where it was a dry run.
    pub head: Head,
    /// What its author should know.
    pub warnings: Vec<String>,
    /// How many of its changes change anything. With 0 there is no new revision.
    pub effective: usize,
}

/// What is wrong with an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityFault {
    /// Which; `None` where it is none in particular.
    pub id: Option<EntityId>,
    /// The place in it, as a JSON pointer; empty for the whole.
    pub pointer: String,
    /// What is there. No secret.
    pub problem: String,
    /// What may be there, or empty.
    pub expected: String,
    /// The name that was probably meant.
    pub nearest: Option<String>,
}

/// Why a proposal changed nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The configuration would be wrong. At least one.
    #[error("the configuration would have {} faults", .0.len())]
    Faults(Vec<EntityFault>),
    /// It was made for another revision than the newest, which is this one.
    #[error("the configuration has changed meanwhile: it is at revision {}", .0.number)]
    Conflict(Head),
    /// Nothing can be changed this way on this node.
    #[error("{0}")]
    ReadOnly(String),
    /// The store cannot be used now.
    #[error("{0}")]
    Unavailable(String),
    /// Too many proposals wait already.
    #[error("too many changes wait to be looked at")]
    Busy,
}

/// A question to the task that owns the document.
pub enum Ask {
    /// See [`Live::propose`].
    Propose(Proposal, oneshot::Sender<Result<Accepted, Refused>>),
    /// See [`Live::history`].
    History {
        /// Numbers below this one.
        before: Option<u64>,
        /// At most so many.
        count: u32,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Vec<Recorded>, Refused>>,
    },
    /// See [`Live::revision`].
    Revision(Digest, oneshot::Sender<Result<Option<Recorded>, Refused>>),
}

/// See the module.
#[derive(Clone)]
pub struct Live {
    document: watch::Receiver<Arc<Document>>,
    asks: mpsc::Sender<Ask>,
}

impl Live {
    /// What was published to `document` last, changed through `asks`.
    pub fn new(document: watch::Receiver<Arc<Document>>, asks: mpsc::Sender<Ask>) -> Self {
        Self { document, asks }
    }

    /// The document as it is now. Never waits.
    pub fn document(&self) -> Arc<Document> {
        Arc::clone(&self.document.borrow())
    }

    /// Changes the configuration everywhere, or nothing. An answer says that it is kept and that
    /// this node has begun to hand it to its cores. Whoever stops waiting may find it done.
    pub async fn propose(&self, proposal: Proposal) -> Result<Accepted, Refused> {
        self.ask(|answer| Ask::Propose(proposal, answer)).await
    }

    /// Revisions with a number below `before`, all where it is `None`; the newest first, `count` at
    /// most. Superseded ones too.
    pub async fn history(&self, before: Option<u64>, count: u32) -> Result<Vec<Recorded>, Refused> {
        self.ask(|answer| Ask::History { before, count, answer }).await
    }

    /// The revision of this digest, where it is known here.
    pub async fn revision(&self, digest: Digest) -> Result<Option<Recorded>, Refused> {
        self.ask(|answer| Ask::Revision(digest, answer)).await
    }

    async fn ask<A>(&self, ask: impl FnOnce(oneshot::Sender<Result<A, Refused>>) -> Ask) -> Result<A, Refused> {
        let (sender, answer) = oneshot::channel();
        self.asks.try_send(ask(sender)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Busy,
            mpsc::error::TrySendError::Closed(_) => ending(),
        })?;
        answer.await.unwrap_or_else(|_| Err(ending()))
    }
}

fn ending() -> Refused {
    Refused::Unavailable("the node is ending".to_owned())
}
