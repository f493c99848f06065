//! A store for tests: in memory, of one node or shared by clones, and down on demand.

use super::entity::{Entities, Entity};
use super::revision::{Digest, Head, Revision};
use super::store::{Recorded, Store, StoreError};
use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

#[derive(Default)]
struct Rows {
    /// Those that hold, the first at 0.
    chain: Vec<Revision>,
    superseded: Vec<Revision>,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct MemoryStore {
    rows: Arc<Mutex<Rows>>,
    is_down: Arc<AtomicBool>,
    bell: Arc<watch::Sender<u64>>,
    heard: watch::Receiver<u64>,
}

impl MemoryStore {
    pub(crate) fn new() -> Self {
        let (bell, heard) = watch::channel(0);
        Self { rows: Arc::default(), is_down: Arc::default(), bell: Arc::new(bell), heard }
    }

    pub(crate) fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
        self.bell.send_modify(|count| *count += 1);
    }

    /// Loses what came last, as a backup that was restored has.
    pub(crate) fn lose(&self, count: usize) {
        let mut rows = self.rows.lock().unwrap();
        let kept = rows.chain.len() - count;
        rows.chain.truncate(kept);
    }

    pub(crate) fn digests(&self) -> Vec<Digest> {
        self.rows.lock().unwrap().chain.iter().map(Revision::digest).collect()
    }

    fn up(&self) -> Result<std::sync::MutexGuard<'_, Rows>, StoreError> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("it is switched off".into()));
        }
        Ok(self.rows.lock().unwrap())
    }
}

impl Rows {
    fn head(&self) -> Head {
        self.chain.last().map(Revision::head).unwrap_or_default()
    }

    fn recorded(&self) -> Vec<Recorded> {
        let record = |is_superseded: bool| {
            move |revision: &Revision| Recorded {
                digest: revision.digest(),
                before: revision.changes.iter().map(|_| None).collect(),
                revision: revision.clone(),
                is_superseded,
            }
        };
        let mut all: Vec<_> = self.chain.iter().map(record(false)).collect();
        all.extend(self.superseded.iter().map(record(true)));
        all.sort_by_key(|recorded| std::cmp::Reverse(recorded.revision.number));
        all
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn state(&self) -> Result<(Head, Vec<Entity>), StoreError> {
        let rows = self.up()?;
        let mut entities = Entities::new();
        for change in rows.chain.iter().flat_map(|revision| &revision.changes) {
            match &change.value {
                Some(value) => drop(entities.insert(change.id.clone(), Arc::new(value.clone()))),
                None => drop(entities.remove(&change.id)),
            }
        }
        let entities = entities.into_iter().map(|(id, value)| Entity { id, value: (*value).clone() });
        Ok((rows.head(), entities.collect()))
    }

    async fn append(&self, revision: &Revision) -> Result<(), StoreError> {
        let mut rows = self.up()?;
        if rows.head().digest != revision.parent || rows.head().number + 1 != revision.number {
            return Err(StoreError::Conflict(rows.head()));
        }
        rows.chain.push(revision.clone());
        self.bell.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn after(&self, after: u64, count: u32) -> Result<Vec<Revision>, StoreError> {
        let rows = self.up()?;
        Ok(rows.chain.iter().filter(|revision| revision.number > after).take(count as usize).cloned().collect())
    }

    async fn history(&self, before: Option<u64>, count: u32) -> Result<Vec<Recorded>, StoreError> {
        let all = self.up()?.recorded();
        let below = |recorded: &Recorded| before.is_none_or(|before| recorded.revision.number < before);
        Ok(all.into_iter().filter(below).take(count as usize).collect())
    }

    async fn revision(&self, digest: Digest) -> Result<Option<Recorded>, StoreError> {
        Ok(self.up()?.recorded().into_iter().find(|recorded| recorded.digest == digest))
    }

    async fn switch(&self, fork: Digest, revisions: &[Revision]) -> Result<(), StoreError> {
        let mut rows = self.up()?;
        let new = revisions.last().map(Revision::head).unwrap_or_default();
        if new <= rows.head() {
            return Err(StoreError::Conflict(rows.head()));
        }
        let at = rows.chain.iter().position(|revision| revision.digest() == fork).map_or(0, |at| at + 1);
        assert!(at > 0 || fork == Digest::default());
        let gone = rows.chain.split_off(at);
        rows.superseded.extend(gone);
        rows.chain.extend_from_slice(revisions);
        Ok(())
    }

    async fn changed(&self) {
        let _ = self.heard.clone().changed().await;
    }

    fn describe(&self) -> String {
        "memory".into()
    }
}
