//! What is asked of the database file. Each answer is of one moment.

use super::fault::Fault;
use crate::live::{Digest, Entity, Head, Recorded, Revision};
use crate::store::rows::{self, ChangeRow, RevisionRow};
use crate::store::sql;
use rusqlite::{Connection, OptionalExtension as _, Row, Statement, Transaction, params};

const HEAD: &str = "SELECT number, node, digest FROM deepintshield_head";
const CHANGES: &str = "SELECT kind, name, value, before FROM deepintshield_changes WHERE digest = $1 ORDER BY position";

pub(super) fn head(transaction: &Transaction<'_>) -> Result<Head, Fault> {
    let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let (number, node, digest): (i64, String, Vec<u8>) = transaction.query_row(HEAD, [], row)?;
    Ok(rows::head(number, node, &digest)?)
}

pub(super) fn state(connection: &mut Connection) -> Result<(Head, Vec<Entity>), Fault> {
    let transaction = connection.transaction()?;
    let head = head(&transaction)?;
    let mut statement = transaction.prepare(sql::ENTITIES)?;
    let mut found = statement.query([])?;
    let mut entities = Vec::new();
    while let Some(row) = found.next()? {
        let (kind, value) = (row.get_ref(0)?.as_str(), row.get_ref(2)?.as_str());
        let (kind, value) = (kind.map_err(rusqlite::Error::from)?, value.map_err(rusqlite::Error::from)?);
        entities.push(rows::entity(kind, row.get(1)?, value)?);
    }
    Ok((head, entities))
}

pub(super) fn after(connection: &mut Connection, after: u64, count: u32) -> Result<Vec<Revision>, Fault> {
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let recorded = page(connection, sql::AFTER, after, count)?;
    Ok(recorded.into_iter().map(|recorded| recorded.revision).collect())
}

pub(super) fn history(connection: &mut Connection, before: Option<u64>, count: u32) -> Result<Vec<Recorded>, Fault> {
    let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
    page(connection, sql::HISTORY, before, count)
}

pub(super) fn revision(connection: &mut Connection, digest: Digest) -> Result<Option<Recorded>, Fault> {
    let transaction = connection.transaction()?;
    let row = transaction.query_row(sql::REVISION, [digest.0], revision_row).optional()?;
    let mut statement = transaction.prepare(CHANGES)?;
    row.map(|row| recorded(row, &mut statement)).transpose()
}

fn page(connection: &mut Connection, sql: &str, bound: i64, count: u32) -> Result<Vec<Recorded>, Fault> {
    let transaction = connection.transaction()?;
    let mut revisions = transaction.prepare(sql)?;
    let found = revisions.query_map(params![bound, count], revision_row)?;
    let found = rows::page(found.collect::<Result<_, _>>()?);
    let mut changes = transaction.prepare(CHANGES)?;
    found.into_iter().map(|row| recorded(row, &mut changes)).collect()
}

fn recorded(row: RevisionRow, changes: &mut Statement<'_>) -> Result<Recorded, Fault> {
    let change =
        |row: &Row<'_>| Ok(ChangeRow { kind: row.get(0)?, name: row.get(1)?, value: row.get(2)?, before: row.get(3)? });
    let changes = changes.query_map([&row.digest], change)?.collect::<Result<_, _>>()?;
    Ok(rows::recorded(row, changes)?)
}

fn revision_row(row: &Row<'_>) -> rusqlite::Result<RevisionRow> {
    Ok(RevisionRow {
        digest: row.get(0)?,
        number: row.get(1)?,
        node: row.get(2)?,
        author: row.get(3)?,
        at_ms: row.get(4)?,
        comment: row.get(5)?,
        parent: row.get(6)?,
        is_superseded: row.get(7)?,
        changes: row.get(8)?,
    })
}
