//! Brings the tables up to date. Of several nodes that come at once, one does it and the others
//! find it done.

use super::fault::Fault;
use super::write::LOCK_HEAD;
use crate::store::schema::{self, Found, MIGRATIONS};
use crate::store::sql;
use tokio_postgres::{Client, GenericClient, IsolationLevel};

/// Who migrates holds this advisory lock of the database: `DIShield`.
const MIGRATION_LOCK: i64 = 0x4449_5368_6965_6c64;
/// Waiting for another's migration may take longer than other waits.
const PATIENCE: &str = "SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = '120s'";

/// Asked for each new connection: the database may have been exchanged or emptied meanwhile.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Fault> {
    if schema::missing(found(client).await?, MIGRATIONS)?.is_empty() {
        return Ok(());
    }
    let transaction = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?;
    transaction.batch_execute(PATIENCE).await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
    let found = found(&transaction).await?;
    if found.is_some() {
        // Nobody appends while tables change.
        transaction.execute(LOCK_HEAD, &[]).await?;
    }
    for migration in schema::missing(found, MIGRATIONS)? {
        transaction.batch_execute(migration.postgres).await?;
        transaction.execute(sql::SET_SCHEMA, &[&migration.version, &migration.compatible_from]).await?;
    }
    Ok(transaction.commit().await?)
}

/// Not `to_regclass`: inside one transaction it may go on answering that there is no such table
/// after somebody else has made it.
const IS_THERE: &str = "SELECT count(*) FROM pg_catalog.pg_class \
     WHERE relname = 'deepintshield_schema' AND pg_catalog.pg_table_is_visible(oid)";

/// What the tables say of themselves; `None`: there are none.
async fn found(client: &impl GenericClient) -> Result<Option<Found>, Fault> {
    if client.query_one(IS_THERE, &[]).await?.try_get::<_, i64>(0)? == 0 {
        return Ok(None);
    }
    let row = client.query_one(sql::SCHEMA, &[]).await?;
    Ok(Some(Found { version: row.try_get(0)?, compatible_from: row.try_get(1)? }))
}
