//! Owns a document in memory: takes proposals one after the other, and keeps every revision.

use crate::live::join::{join, orphans};
use crate::live::split::{Local, split};
use crate::live::{
    ASKS_WAITING_MAX, Accepted, Ask, Change, Document, Entities, Head, Live, Proposal, Recorded, Refused, Revision,
    seal,
};
use shared::config::{Sources, load};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

struct Engine {
    document: watch::Sender<Arc<Document>>,
    revisions: Vec<Recorded>,
}

/// Begins with this configuration. `FULL` as a comment finds the store full.
pub(super) fn start(file: &str) -> Live {
    let entities = split(file).expect("a configuration").entities;
    let first = Document { head: Head::default(), entities: Arc::default(), is_writable: Ok(()) };
    let (document, now) = watch::channel(Arc::new(first));
    let (sender, mut asks) = mpsc::channel(ASKS_WAITING_MAX);
    let mut engine = Engine { document, revisions: Vec::new() };
    let changes = entities.into_iter().map(|(id, value)| Change { id, value: Some((*value).clone()) }).collect();
    let import =
        Proposal { expected: None, author: "import".into(), comment: String::new(), changes, is_dry_run: false };
    engine.propose(import).expect("a configuration that loads");
    tokio::spawn(async move {
        while let Some(ask) = asks.recv().await {
            match ask {
                Ask::Propose(proposal, answer) => drop(answer.send(engine.propose(proposal))),
                Ask::History { before, count, answer } => {
                    let below = |recorded: &&Recorded| before.is_none_or(|before| recorded.revision.number < before);
                    let found = engine.revisions.iter().rev().filter(below).take(count as usize).cloned().collect();
                    drop(answer.send(Ok(found)));
                }
                Ask::Revision(digest, answer) => {
                    let found = engine.revisions.iter().find(|recorded| recorded.digest == digest).cloned();
                    drop(answer.send(Ok(found)));
                }
            }
        }
    });
    Live::new(now, sender)
}

impl Engine {
    fn propose(&mut self, proposal: Proposal) -> Result<Accepted, Refused> {
        let document = Arc::clone(&self.document.borrow());
        if proposal.expected.is_some_and(|number| number != document.head.number) {
            return Err(Refused::Conflict(document.head.clone()));
        }
        let mut entities = Entities::clone(&document.entities);
        let mut changes = Vec::new();
        for Change { id, mut value } in proposal.changes {
            let before = entities.get(&id).map(|value| (**value).clone());
            // Stands for sealing: what is kept of a secret is not the secret.
            if let Some(value) = &mut value {
                seal::hide(id.kind, value);
            }
            if before != value {
                match value.clone() {
                    Some(value) => drop(entities.insert(id.clone(), Arc::new(value))),
                    None => drop(entities.remove(&id)),
                }
                changes.push((Change { id, value }, before));
            }
        }
        let mut faults = orphans(&entities);
        let joined = join(&Local::default(), &entities);
        let sources = Sources { env: &|_| Some("sk-of-the-environment".to_owned()), ..Sources::none() };
        let warnings = match load(&joined.text, &sources) {
            Ok(loaded) => loaded.warnings.iter().map(|warning| joined.warning(warning)).collect(),
            Err(found) => {
                faults.extend(found.into_iter().map(|fault| joined.fault(fault)));
                Vec::new()
            }
        };
        if !faults.is_empty() {
            return Err(Refused::Faults(faults));
        }
        if proposal.comment == "FULL" {
            return Err(Refused::Unavailable("the disk is full".to_owned()));
        }
        let effective = changes.len();
        if proposal.is_dry_run || effective == 0 {
            return Ok(Accepted { head: document.head.clone(), warnings, effective });
        }
        let (changes, before) = changes.into_iter().unzip();
        let revision = Revision {
            number: document.head.number + 1,
            node: "n1".to_owned(),
            author: proposal.author,
            at_ms: 0,
            comment: proposal.comment,
            parent: document.head.digest,
            changes,
        };
        let head = revision.head();
        let digest = revision.digest();
        self.revisions.push(Recorded { revision, digest, before, is_superseded: false });
        self.document.send_replace(Arc::new(Document {
            head: head.clone(),
            entities: Arc::new(entities),
            is_writable: Ok(()),
        }));
        Ok(Accepted { head, warnings, effective })
    }
}
