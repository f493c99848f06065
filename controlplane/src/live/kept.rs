//! The document as it was last, in the state directory: what a node serves while its store cannot
//! be reached, and how it notices that a store has lost what it had.
//!
//! Secrets are in it as they are in the document, sealed or as references.

use super::entity::{Entities, EntityId};
use super::revision::Head;
use super::wire::digest_of;
use crate::state_dir::{StateDir, StateDirError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::clock::Nanos;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Its name in the state directory.
pub(crate) const FILE_NAME: &str = "document.json";
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Two writes are at least so far apart: the store is what keeps a change.
const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize)]
struct File {
    number: u64,
    node: String,
    digest: String,
    entities: BTreeMap<String, Value>,
}

/// Why there is no document from before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    /// It cannot be read.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// It is damaged, or another version's.
    #[error("the kept document {FILE_NAME} cannot be used")]
    Damaged,
}

/// Reads and writes it.
pub(crate) struct Kept {
    dir: Option<Arc<StateDir>>,
    wanted: Option<(Head, Arc<Entities>)>,
    writing: Option<JoinHandle<Result<(), StateDirError>>>,
    next_at: Nanos,
}

impl Kept {
    /// Without a directory nothing is kept.
    pub(crate) fn new(dir: Option<Arc<StateDir>>) -> Self {
        Self { dir, wanted: None, writing: None, next_at: Nanos(0) }
    }

    /// What an earlier process kept; `None` where there is nothing.
    pub(crate) async fn read(&self) -> Result<Option<(Head, Entities)>, KeptError> {
        let Some(dir) = self.dir.clone() else { return Ok(None) };
        let read = move || {
            dir.read(FILE_NAME, FILE_BYTES_MAX)?.map(|bytes| decode(&bytes).ok_or(KeptError::Damaged)).transpose()
        };
        tokio::task::spawn_blocking(read).await.unwrap_or(Err(KeptError::Damaged))
    }

    /// This is to be kept.
    pub(crate) fn want(&mut self, head: &Head, entities: &Arc<Entities>) {
        if self.dir.is_some() && head.number > 0 {
            self.wanted = Some((head.clone(), Arc::clone(entities)));
        }
    }

    /// When [`Kept::write`] has something to do; `None`: nothing is wanted.
    pub(crate) fn next_at(&self) -> Option<Nanos> {
        self.wanted.as_ref().map(|_| self.next_at)
    }

    /// Begins to write where it is time, on the blocking pool.
    pub(crate) async fn write(&mut self, now: Nanos) {
        if now < self.next_at || self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            return;
        }
        self.next_at = now.after(INTERVAL);
        if let Some(Ok(Err(error))) = self.finished().await {
            tracing::warn!(%error, "the configuration could not be kept in the state directory; the one before it stays");
        }
        let (Some(dir), Some((head, entities))) = (self.dir.clone(), self.wanted.take()) else { return };
        self.writing = Some(tokio::task::spawn_blocking(move || dir.replace(FILE_NAME, &encode(&head, &entities))));
    }

    async fn finished(&mut self) -> Option<Result<Result<(), StateDirError>, tokio::task::JoinError>> {
        Some(self.writing.take()?.await)
    }
}

fn encode(head: &Head, entities: &Entities) -> Vec<u8> {
    let file = serde_json::json!({
        "number": head.number,
        "node": head.node,
        "digest": head.digest.to_string(),
        "entities": entities.iter().map(|(id, value)| (id.to_string(), (**value).clone()))
            .collect::<serde_json::Map<_, _>>(),
    });
    file.to_string().into_bytes()
}

fn decode(bytes: &[u8]) -> Option<(Head, Entities)> {
    let file: File = serde_json::from_slice(bytes).ok()?;
    let head = Head { number: file.number, node: file.node, digest: digest_of(&file.digest)? };
    let entity = |(id, value): (String, Value)| Some((id.parse::<EntityId>().ok()?, Arc::new(value)));
    Some((head, file.entities.into_iter().map(entity).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{Digest, EntityKind};

    #[test]
    fn a_document_is_read_as_it_was_kept() {
        let head = Head { number: 3, node: "n".into(), digest: Digest([9; 32]) };
        let id = EntityId::new(EntityKind::Key, "openai/a b");
        let entities = Entities::from([(id, Arc::new(serde_json::json!({"value": "env.A", "weight": 0.7})))]);
        let bytes = encode(&head, &entities);
        assert!(decode(&bytes) == Some((head, entities)));
        assert!((0..bytes.len()).all(|cut| decode(&bytes[..cut]).is_none()));
    }
}
