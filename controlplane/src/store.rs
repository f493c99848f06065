//! What keeps revisions: an `SQLite` file of one node, or a `PostgreSQL` database that nodes share.
//!
//! Both keep every revision with its changes and what they replaced, the entities as they are now,
//! and one row for the head, which every change goes by (compare and set). Digests and parents are
//! verified on the way in and out.
//!
//! Absent: removing old revisions.

use crate::live::Store;
use shared::config::model::ConfigStore;
use std::sync::Arc;

mod postgres;
mod rows;
mod schema;
mod sql;
mod sqlite;

pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

/// The store that the configuration names. Asks nobody yet: each call says what is wrong with it,
/// and the next one tries again. To be called inside a tokio runtime.
pub fn open(config: &ConfigStore) -> Arc<dyn Store> {
    match config {
        ConfigStore::Sqlite { path } => Arc::new(SqliteStore::new(path)),
        ConfigStore::Postgres(postgres) => Arc::new(PostgresStore::new(postgres)),
    }
}
