//! What is asked of the database. Each answer is of one moment. What has to be computed from the
//! rows is for another thread: see `postgres.rs`.

use super::fault::Fault;
use crate::live::{Digest, Head};
use crate::store::rows::{self, ChangeRow, RevisionRow};
use crate::store::sql;
use futures_util::TryStreamExt as _;
use std::collections::HashMap;
use std::pin::pin;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Row, Transaction};

const HEAD: &str = "SELECT number, node, digest FROM deepintshield_head";
/// digests
const CHANGES: &str = "SELECT digest, kind, name, value, before FROM deepintshield_changes \
     WHERE digest = ANY($1) ORDER BY digest, position";

/// Kind, name and value of an entity.
pub(super) type EntityRow = (String, String, String);

pub(super) async fn state(client: &mut Client) -> Result<(Head, Vec<EntityRow>), Fault> {
    let transaction = begin(client).await?;
    let head = head_of(&transaction.query_one(HEAD, &[]).await?)?;
    let none: [&(dyn ToSql + Sync); 0] = [];
    let mut found = pin!(transaction.query_raw(sql::ENTITIES, none).await?);
    let mut entities = Vec::new();
    while let Some(row) = found.try_next().await? {
        entities.push((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    }
    transaction.rollback().await?;
    Ok((head, entities))
}

/// The revisions that `sql` finds between `bound` and `count`, with their changes.
pub(super) async fn page(
    client: &mut Client,
    sql: &str,
    bound: i64,
    count: u32,
) -> Result<Vec<(RevisionRow, Vec<ChangeRow>)>, Fault> {
    let transaction = begin(client).await?;
    let found = transaction.query(sql, &[&bound, &i64::from(count)]).await?;
    let found = rows::page(found.iter().map(revision_row).collect::<Result<_, _>>()?);
    with_changes(transaction, found).await
}

pub(super) async fn revision(client: &mut Client, digest: Digest) -> Result<Vec<(RevisionRow, Vec<ChangeRow>)>, Fault> {
    let transaction = begin(client).await?;
    let found = transaction.query_opt(sql::REVISION, &[&digest.0.as_slice()]).await?;
    let found = found.iter().map(revision_row).collect::<Result<_, _>>()?;
    with_changes(transaction, found).await
}

/// The head in a row of number, node and digest.
pub(super) fn head_of(row: &Row) -> Result<Head, Fault> {
    Ok(rows::head(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)?)
}

/// Everything is read as it is when the first statement runs.
async fn begin(client: &mut Client) -> Result<Transaction<'_>, Fault> {
    Ok(client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await?)
}

async fn with_changes(
    transaction: Transaction<'_>,
    found: Vec<RevisionRow>,
) -> Result<Vec<(RevisionRow, Vec<ChangeRow>)>, Fault> {
    let digests: Vec<&[u8]> = found.iter().map(|row| row.digest.as_slice()).collect();
    let mut changes: HashMap<Vec<u8>, Vec<ChangeRow>> = HashMap::with_capacity(found.len());
    let parameters: [&(dyn ToSql + Sync); 1] = [&digests];
    let mut rows = pin!(transaction.query_raw(CHANGES, parameters).await?);
    while let Some(row) = rows.try_next().await? {
        changes.entry(row.try_get(0)?).or_default().push(ChangeRow {
            kind: row.try_get(1)?,
            name: row.try_get(2)?,
            value: row.try_get(3)?,
            before: row.try_get(4)?,
        });
    }
    transaction.rollback().await?;
    let mut with_changes = |row: RevisionRow| {
        let changes = changes.remove(&row.digest).unwrap_or_default();
        (row, changes)
    };
    Ok(found.into_iter().map(&mut with_changes).collect())
}

fn revision_row(row: &Row) -> Result<RevisionRow, tokio_postgres::Error> {
    Ok(RevisionRow {
        digest: row.try_get(0)?,
        number: row.try_get(1)?,
        node: row.try_get(2)?,
        author: row.try_get(3)?,
        at_ms: row.try_get(4)?,
        comment: row.try_get(5)?,
        parent: row.try_get(6)?,
        is_superseded: row.try_get(7)?,
        changes: row.try_get(8)?,
    })
}
