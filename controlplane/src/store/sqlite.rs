//! The store of one node: an `SQLite` database file.
//!
//! WAL with a sync at every commit, so that what was confirmed survives the machine. The file is
//! for its owner only. Statements run one after the other, on tokio's blocking threads.
//!
//! Absent: network file systems, which cannot share the memory that WAL needs; encryption of the
//! file (secrets in it are references or sealed).

use super::rows::{Incoming, REVISIONS_IN_PAGE_MAX};
use crate::live::{Digest, Entity, Head, Recorded, Revision, Store, StoreError};
use async_trait::async_trait;
use fault::Fault;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Mutex;

mod chain;
mod fault;
mod open;
mod read;

/// See the module.
pub struct SqliteStore {
    path: PathBuf,
    /// Opened by the first call, and again after a fault of the disk.
    connection: Arc<Mutex<Option<Connection>>>,
}

impl SqliteStore {
    /// Touches nothing yet: the first call opens the file, and makes it where there is none.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), connection: Arc::default() }
    }

    /// Runs `work` where it may block. It runs to its end even if nobody waits for it any more.
    async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    {
        let mut slot = Arc::clone(&self.connection).lock_owned().await;
        let path = self.path.clone();
        let run = move || {
            let mut connection = match slot.take() {
                Some(connection) => connection,
                None => open::open(&path).map_err(|fault| fault.into_error(&path))?,
            };
            let result = work(&mut connection);
            if !result.as_ref().is_err_and(Fault::needs_a_new_connection) {
                *slot = Some(connection);
            }
            result.map_err(|fault| fault.into_error(&path))
        };
        let gone = |_| StoreError::Unavailable("the program is ending".to_owned());
        tokio::task::spawn_blocking(run).await.map_err(gone)?
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn state(&self) -> Result<(Head, Vec<Entity>), StoreError> {
        self.run(read::state).await
    }

    async fn append(&self, revision: &Revision) -> Result<(), StoreError> {
        let revision = revision.clone();
        self.run(move |connection| chain::append(connection, &Incoming::of(&revision)?)).await
    }

    async fn after(&self, after: u64, count: u32) -> Result<Vec<Revision>, StoreError> {
        self.run(move |connection| read::after(connection, after, count.min(REVISIONS_IN_PAGE_MAX))).await
    }

    async fn history(&self, before: Option<u64>, count: u32) -> Result<Vec<Recorded>, StoreError> {
        self.run(move |connection| read::history(connection, before, count.min(REVISIONS_IN_PAGE_MAX))).await
    }

    async fn revision(&self, digest: Digest) -> Result<Option<Recorded>, StoreError> {
        self.run(move |connection| read::revision(connection, digest)).await
    }

    async fn switch(&self, fork: Digest, revisions: &[Revision]) -> Result<(), StoreError> {
        let revisions = revisions.to_vec();
        self.run(move |connection| {
            let revisions = revisions.iter().map(Incoming::of).collect::<Result<Vec<_>, _>>()?;
            chain::switch(connection, fork, &revisions)
        })
        .await
    }

    async fn changed(&self) {
        std::future::pending::<()>().await;
    }

    fn describe(&self) -> String {
        format!("sqlite: {}", self.path.display())
    }
}
