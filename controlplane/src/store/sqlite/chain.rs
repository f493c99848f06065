//! Moving the head of the database file: on by one revision, or over to another chain.

use super::fault::Fault;
use super::{open, read};
use crate::live::{Digest, StoreError};
use crate::store::rows::Incoming;
use crate::store::{schema, sql};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

/// digest, position, kind, name, value
const PUT_CHANGE: &str = "INSERT INTO deepintshield_changes (digest, position, kind, name, value, before) \
     VALUES ($1, $2, $3, $4, $5, (SELECT value FROM deepintshield_entities WHERE kind = $3 AND name = $4))";
/// number
const NEWEST_ABOVE: &str =
    "SELECT digest FROM deepintshield_revisions WHERE NOT superseded AND number > $1 ORDER BY number DESC LIMIT 1";
/// digest: takes out what it removes.
const CLEAR_CHANGED: &str = "DELETE FROM deepintshield_entities WHERE (kind, name) IN \
     (SELECT kind, name FROM deepintshield_changes WHERE digest = ?1 AND value IS NULL)";
/// digest: takes out what was not there before it.
const CLEAR_NEW: &str = "DELETE FROM deepintshield_entities WHERE (kind, name) IN \
     (SELECT kind, name FROM deepintshield_changes WHERE digest = ?1 AND before IS NULL)";
/// digest: puts back what stood there before it.
const RESTORE_CHANGED: &str = "INSERT INTO deepintshield_entities (kind, name, value) \
     SELECT kind, name, before FROM deepintshield_changes WHERE digest = ?1 AND before IS NOT NULL \
     ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value";
/// digest, whether it is superseded
const SUPERSEDE: &str = "UPDATE deepintshield_revisions SET superseded = ?2 WHERE digest = ?1";
const NUMBER: &str = "SELECT number FROM deepintshield_revisions WHERE digest = $1 AND NOT superseded";

/// One revision on top of the newest.
pub(super) fn append(connection: &mut Connection, revision: &Incoming) -> Result<(), Fault> {
    let transaction = begin(connection)?;
    if transaction.query_row(sql::HOLDS, [revision.digest.0], |_| Ok(())).optional()?.is_some() {
        return Ok(());
    }
    revision.follows(&read::head(&transaction)?)?;
    put(&transaction, revision)?;
    transaction.commit().map_err(Fault::Commit)
}

/// The chain that `revisions` end instead of the one that holds.
pub(super) fn switch(connection: &mut Connection, fork: Digest, revisions: &[Incoming]) -> Result<(), Fault> {
    let transaction = begin(connection)?;
    let head = read::head(&transaction)?;
    let Some(last) = revisions.last() else {
        return Err(StoreError::Invalid("a chain without revisions".to_owned()).into());
    };
    if last.digest == head.digest {
        return Ok(());
    }
    if last.head() < head {
        return Err(StoreError::Conflict(head).into());
    }
    let mut number = if fork == Digest::default() {
        0
    } else {
        let number = transaction.query_row(NUMBER, [fork.0], |row| row.get(0)).optional()?;
        number.ok_or_else(|| StoreError::Invalid(format!("it forks from {fork}, which does not hold here")))?
    };
    undo_down_to(&transaction, number)?;
    let mut parent = fork;
    for revision in revisions {
        if revision.parent != parent || Some(revision.number) != i64::checked_add(number, 1) {
            let problem = format!("revision {} does not stand on the one before it", revision.number);
            return Err(StoreError::Invalid(problem).into());
        }
        put(&transaction, revision)?;
        (parent, number) = (revision.digest, revision.number);
    }
    transaction.commit().map_err(Fault::Commit)
}

/// The write lock comes first, so that what is read stays true until the commit.
fn begin(connection: &mut Connection) -> Result<Transaction<'_>, Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // A newer program may have changed the tables since they were opened.
    schema::usable(open::found(&transaction)?.map_or(0, |found| found.compatible_from))?;
    Ok(transaction)
}

/// Takes every revision above `number` back, the newest first.
fn undo_down_to(transaction: &Transaction<'_>, number: i64) -> Result<(), Fault> {
    let newest = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0);
    while let Some(digest) = transaction.query_row(NEWEST_ABOVE, [number], newest).optional()? {
        transaction.execute(CLEAR_NEW, [&digest])?;
        transaction.execute(RESTORE_CHANGED, [&digest])?;
        if transaction.execute(SUPERSEDE, params![digest, true])? != 1 {
            return Err(StoreError::Unusable("a revision cannot be superseded".to_owned()).into());
        }
    }
    Ok(())
}

/// Keeps the revision and does what it says. One that was superseded before holds again: what it
/// replaced is the same, since its digest names everything before it.
fn put(transaction: &Transaction<'_>, revision: &Incoming) -> Result<(), Fault> {
    let digest = revision.digest.0;
    if transaction.execute(SUPERSEDE, params![digest, false])? == 0 {
        transaction.execute(
            sql::PUT_REVISION,
            params![
                digest,
                revision.number,
                revision.node,
                revision.author,
                revision.at_ms,
                revision.comment,
                revision.parent.0,
                revision.changes.len() as i64,
            ],
        )?;
        let mut put_change = transaction.prepare(PUT_CHANGE)?;
        for (position, change) in (0_i64..).zip(&revision.changes) {
            put_change.execute(params![digest, position, change.kind, change.name, change.value])?;
        }
    }
    transaction.execute(CLEAR_CHANGED, [digest])?;
    transaction.execute(sql::SET_CHANGED, [digest])?;
    transaction.execute(sql::SET_HEAD, params![revision.number, revision.node, digest])?;
    Ok(())
}
