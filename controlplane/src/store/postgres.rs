//! The store that nodes share: a `PostgreSQL` database, which orders their revisions.
//!
//! A commit that nobody confirmed is asked about before anybody is answered. Texts are read and
//! hashed on tokio's blocking threads.
//!
//! Absent: a pooler between us and the server that hands out connections for one transaction only
//! (`LISTEN` and settings need their own); switching to another chain.

use super::rows::{self, ChangeRow, Incoming, REVISIONS_IN_PAGE_MAX, RevisionRow};
use super::sql;
use crate::live::{Digest, Entity, Head, Recorded, Revision, Store, StoreError};
use async_trait::async_trait;
use bell::Bell;
use connect::Access;
use fault::Fault;
use pool::{Lease, Pool};
use shared::config::model::{Postgres, SslMode};
use std::future::Future;
use std::time::Duration;
use tokio::time::{sleep, timeout};

mod bell;
mod connect;
mod fault;
mod migrate;
mod pool;
mod read;
mod tls;
mod write;

/// One call: an import of 100,000 entities takes a few seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a commit that nobody confirmed is asked about: a server that starts again after a
/// crash is there within it.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
const QUESTION_PAUSE: Duration = Duration::from_millis(200);

/// See the module.
pub struct PostgresStore {
    pool: Pool,
    bell: Bell,
    ssl_mode: SslMode,
}

impl PostgresStore {
    /// Waits for nothing: every call makes the connection that it needs. To be called inside a
    /// tokio runtime, on which it listens for changes of others.
    pub fn new(config: &Postgres) -> Self {
        // One of the connections listens; where there is only one it has to work.
        let listens = config.max_open_conns > 1;
        let pool = Pool::new(Access::of(config), config.max_open_conns - u16::from(listens));
        Self { pool, bell: Bell::new(listens.then(|| Access::of(config))), ssl_mode: config.ssl_mode }
    }

    async fn lease(&self) -> Result<Lease<'_>, StoreError> {
        self.pool.lease().await.map_err(|fault| self.error(fault))
    }

    /// What came of a call; `lease` goes back if nothing is left open on it.
    fn finish<T>(&self, result: Result<T, Fault>, lease: Lease<'_>) -> Result<T, StoreError> {
        if result.as_ref().err().is_none_or(Fault::spares_the_connection) {
            self.pool.give_back(lease);
        }
        result.map_err(|fault| self.error(fault))
    }

    async fn page(&self, sql: &str, bound: i64, count: u32) -> Result<Vec<Recorded>, StoreError> {
        let mut lease = self.lease().await?;
        let count = count.min(REVISIONS_IN_PAGE_MAX);
        let result = bounded(read::page(&mut lease.client, sql, bound, count)).await;
        recorded(self.finish(result, lease)?).await
    }

    /// Whether a revision was kept whose commit nobody confirmed, because of `reason`.
    async fn ask(&self, digest: Digest, reason: Fault) -> Result<(), StoreError> {
        let asking = async {
            loop {
                if let Ok(mut lease) = self.pool.lease().await
                    && let Ok(is_kept) = write::was_kept(&mut lease.client, digest).await
                {
                    self.pool.give_back(lease);
                    return is_kept;
                }
                sleep(QUESTION_PAUSE).await;
            }
        };
        match timeout(QUESTION_TIMEOUT, asking).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.error(reason)),
            Err(_) => {
                Err(StoreError::Uncertain(format!("{}: {reason}: look again when it is back", self.pool.place())))
            }
        }
    }

    fn error(&self, fault: Fault) -> StoreError {
        fault.into_error(&self.pool.place())
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn state(&self) -> Result<(Head, Vec<Entity>), StoreError> {
        let mut lease = self.lease().await?;
        let result = bounded(read::state(&mut lease.client)).await;
        let (head, entities) = self.finish(result, lease)?;
        let read = |(kind, name, value): (String, String, String)| rows::entity(&kind, name, &value);
        let entities = compute(move || entities.into_iter().map(read).collect()).await?;
        Ok((head, entities))
    }

    async fn append(&self, revision: &Revision) -> Result<(), StoreError> {
        let revision = revision.clone();
        let incoming = compute(move || Incoming::of(&revision)).await?;
        let mut lease = self.lease().await?;
        match bounded(write::append(&mut lease.client, &incoming)).await {
            Err(fault @ (Fault::Commit(_) | Fault::Silent(_))) => {
                drop(lease);
                self.ask(incoming.digest, fault).await
            }
            result => self.finish(result, lease),
        }
    }

    async fn after(&self, after: u64, count: u32) -> Result<Vec<Revision>, StoreError> {
        let page = self.page(sql::AFTER, i64::try_from(after).unwrap_or(i64::MAX), count).await?;
        Ok(page.into_iter().map(|recorded| recorded.revision).collect())
    }

    async fn history(&self, before: Option<u64>, count: u32) -> Result<Vec<Recorded>, StoreError> {
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        self.page(sql::HISTORY, before, count).await
    }

    async fn revision(&self, digest: Digest) -> Result<Option<Recorded>, StoreError> {
        let mut lease = self.lease().await?;
        let result = bounded(read::revision(&mut lease.client, digest)).await;
        Ok(recorded(self.finish(result, lease)?).await?.pop())
    }

    async fn switch(&self, _: Digest, _: &[Revision]) -> Result<(), StoreError> {
        Err(StoreError::Invalid("a store that nodes share orders their revisions itself".to_owned()))
    }

    async fn changed(&self) {
        self.bell.wait().await;
    }

    fn describe(&self) -> String {
        let place = format!("{}, TLS: {:?}", self.pool.place(), self.ssl_mode);
        match self.pool.trouble() {
            None => place,
            Some(trouble) => format!("{place}; the last attempt to reach it failed: {trouble}"),
        }
    }
}

/// What the rows say, checked.
async fn recorded(rows: Vec<(RevisionRow, Vec<ChangeRow>)>) -> Result<Vec<Recorded>, StoreError> {
    compute(move || rows.into_iter().map(|(row, changes)| rows::recorded(row, changes)).collect()).await
}

/// Runs `work` on a thread where it holds nobody up.
async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let gone = |_| StoreError::Unavailable("the program is ending".to_owned());
    tokio::task::spawn_blocking(work).await.map_err(gone)?
}

async fn bounded<T>(call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout(CALL_TIMEOUT, call).await.map_err(|_| Fault::Silent(CALL_TIMEOUT))?
}
