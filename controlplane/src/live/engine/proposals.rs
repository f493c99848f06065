//! What is asked of the engine: changes, and what was changed before.

use super::{Engine, blocking, in_time};
use crate::live::handle::{Accepted, Ask, EntityFault, Proposal, Refused};
use crate::live::proposal::{By, Prepared, prepare};
use crate::live::revision::{Change, Revision};
use crate::live::store::StoreError;
use std::sync::Arc;

/// How often a proposal is put on top of what somebody else was faster with.
const CONFLICTS_MAX: u32 = 8;
/// Revisions in one answer about history.
const HISTORY_MAX: u32 = 1_000;

impl Engine {
    pub(super) async fn answer(&mut self, ask: Ask) {
        // Whoever asked may be gone by now.
        match ask {
            Ask::Propose(proposal, answer) => {
                let outcome = self.propose(proposal).await;
                let is_new = outcome.as_ref().is_ok_and(|accepted| accepted.effective > 0);
                drop(answer.send(outcome));
                if is_new {
                    self.ring().await;
                }
                self.say_standing().await;
            }
            Ask::History { before, count, answer } => {
                let revisions = in_time(self.store.history(before, count.min(HISTORY_MAX))).await;
                drop(answer.send(revisions.map_err(|error| unavailable(&error))));
            }
            Ask::Revision(digest, answer) => {
                let revision = in_time(self.store.revision(digest)).await;
                drop(answer.send(revision.map_err(|error| unavailable(&error))));
            }
        }
    }

    async fn propose(&mut self, proposal: Proposal) -> Result<Accepted, Refused> {
        if let Some(trouble) = &self.trouble {
            return Err(Refused::Unavailable(trouble.clone()));
        }
        if !self.is_seen || !self.catching_up.is_over() {
            return Err(Refused::Unavailable("this node has not caught up with the others yet".to_owned()));
        }
        let Proposal { expected, author, comment, changes, is_dry_run } = proposal;
        for _ in 0..CONFLICTS_MAX {
            if expected.is_some_and(|expected| expected != self.head.number) {
                return Err(Refused::Conflict(self.head.clone()));
            }
            let prepared = self.prepare(changes.clone(), By::Writer).await?;
            let (effective, warnings) = (prepared.changes.len(), prepared.warnings.clone());
            if effective > 0 && !is_dry_run && !self.keep(prepared, author.clone(), comment.clone()).await? {
                continue;
            }
            return Ok(Accepted { head: self.head.clone(), warnings, effective });
        }
        Err(Refused::Conflict(self.head.clone()))
    }

    pub(super) async fn prepare(&self, changes: Vec<Change>, by: By) -> Result<Prepared, Refused> {
        let (reading, allowed) = (Arc::clone(&self.reading), Arc::clone(&self.allowed));
        let (entities, before) = (Arc::clone(&self.entities), self.read.clone());
        blocking(move || prepare(&reading, &allowed, &entities, before.as_deref(), changes, by))
            .await
            .ok_or_else(|| Refused::Unavailable("reading the change ended in a panic".to_owned()))?
            .map_err(Refused::Faults)
    }

    /// Appends, and hands to the cores. False: somebody else was faster; the document is theirs now.
    pub(super) async fn keep(&mut self, prepared: Prepared, author: String, comment: String) -> Result<bool, Refused> {
        let Prepared { changes, read, compiled, warnings: _ } = prepared;
        let revision = Revision {
            number: self.head.number.saturating_add(1),
            node: self.settings.node.clone(),
            author,
            at_ms: u64::try_from(self.settings.clock.wall().as_millis()).unwrap_or(u64::MAX),
            comment,
            parent: self.head.digest,
            changes,
        };
        let mut kept = in_time(self.store.append(&revision)).await;
        if let Err(StoreError::Uncertain(_)) = &kept {
            // To ask again is safe, and tells.
            kept = in_time(self.store.append(&revision)).await;
        }
        match kept {
            Ok(()) => {}
            Err(StoreError::Conflict(_)) => {
                self.refresh_to_go_on().await;
                return Ok(false);
            }
            Err(StoreError::Invalid(problem)) => {
                let fault =
                    EntityFault { id: None, pointer: String::new(), problem, expected: String::new(), nearest: None };
                return Err(Refused::Faults(vec![fault]));
            }
            Err(error) => {
                self.troubled(error.to_string());
                self.show();
                return Err(unavailable(&error));
            }
        }
        self.head = revision.head();
        self.entities = Arc::clone(&read.entities);
        self.adopt(read, compiled).await;
        self.show();
        Ok(true)
    }
}

fn unavailable(error: &StoreError) -> Refused {
    Refused::Unavailable(error.to_string())
}
