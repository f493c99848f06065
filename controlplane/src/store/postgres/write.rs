//! One revision on top of the newest. The row of the head is the lock: whoever has it is the only
//! one that changes anything.

use super::bell::CHANNEL;
use super::fault::Fault;
use super::read;
use crate::live::Digest;
use crate::store::rows::{Incoming, IncomingChange};
use crate::store::{schema, sql};
use tokio_postgres::{Client, IsolationLevel, Transaction};

pub(super) const LOCK_HEAD: &str = "SELECT number, node, digest FROM deepintshield_head FOR UPDATE";
/// digest, positions, kinds, names, values
const PUT_CHANGES: &str = "INSERT INTO deepintshield_changes (digest, position, kind, name, value, before) \
     SELECT $1::bytea, c.position, c.kind, c.name, c.value, e.value \
     FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[]) AS c (position, kind, name, value) \
     LEFT JOIN deepintshield_entities e ON e.kind = c.kind AND e.name = c.name";
/// kinds, names; by index, unlike a look at the changes' table that nobody has analysed yet.
const REMOVE: &str = "DELETE FROM deepintshield_entities e USING unnest($1::text[], $2::text[]) AS c (kind, name) \
     WHERE e.kind = c.kind AND e.name = c.name";
/// channel, what is said: heard by the others when, and only if, this is committed.
const NOTIFY: &str = "SELECT pg_notify($1, $2)";

/// Changes of one statement.
const CHANGES_AT_ONCE_MAX: usize = 5_000;
/// Their texts, unless a single one is larger.
const BYTES_AT_ONCE_MAX: usize = 4 * 1024 * 1024;

/// See the module.
pub(super) async fn append(client: &mut Client, revision: &Incoming) -> Result<(), Fault> {
    let transaction = begin(client).await?;
    let head = read::head_of(&transaction.query_one(LOCK_HEAD, &[]).await?)?;
    // A newer program may have changed the tables since this connection was made.
    schema::usable(transaction.query_one(sql::SCHEMA, &[]).await?.try_get(1)?)?;
    if holds(&transaction, revision.digest).await? {
        return Ok(transaction.rollback().await?);
    }
    if let Err(error) = revision.follows(&head) {
        transaction.rollback().await?;
        return Err(error.into());
    }
    let digest = revision.digest.0.as_slice();
    let (parent, changes) = (revision.parent.0.as_slice(), revision.changes.len() as i64);
    let Incoming { number, node, author, at_ms, comment, .. } = revision;
    transaction.execute(sql::PUT_REVISION, &[&digest, number, node, author, at_ms, comment, &parent, &changes]).await?;
    let mut position = 0_i64;
    for at_once in at_once(&revision.changes) {
        let positions: Vec<i64> = (position..).take(at_once.len()).collect();
        let kinds: Vec<&str> = at_once.iter().map(|change| change.kind).collect();
        let names: Vec<&str> = at_once.iter().map(|change| change.name.as_str()).collect();
        let values: Vec<Option<&str>> = at_once.iter().map(|change| change.value.as_deref()).collect();
        transaction.execute(PUT_CHANGES, &[&digest, &positions, &kinds, &names, &values]).await?;
        let removed = || at_once.iter().filter(|change| change.value.is_none());
        if removed().next().is_some() {
            let kinds: Vec<&str> = removed().map(|change| change.kind).collect();
            let names: Vec<&str> = removed().map(|change| change.name.as_str()).collect();
            transaction.execute(REMOVE, &[&kinds, &names]).await?;
        }
        position = position.saturating_add(at_once.len() as i64);
    }
    transaction.execute(sql::SET_CHANGED, &[&digest]).await?;
    transaction.execute(sql::SET_HEAD, &[number, node, &digest]).await?;
    transaction.execute(NOTIFY, &[&CHANNEL, &number.to_string()]).await?;
    transaction.commit().await.map_err(Fault::Commit)
}

/// Whether a revision was kept whose commit nobody confirmed. Having the head's row, it knows that
/// the call that was cut off has ended one way or the other.
pub(super) async fn was_kept(client: &mut Client, digest: Digest) -> Result<bool, Fault> {
    let transaction = begin(client).await?;
    transaction.query_one(LOCK_HEAD, &[]).await?;
    let holds = holds(&transaction, digest).await?;
    transaction.rollback().await?;
    Ok(holds)
}

/// Every statement sees what was committed before it, so that the head is the newest one when its
/// lock was waited for.
async fn begin(client: &mut Client) -> Result<Transaction<'_>, Fault> {
    Ok(client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await?)
}

async fn holds(transaction: &Transaction<'_>, digest: Digest) -> Result<bool, Fault> {
    Ok(transaction.query_opt(sql::HOLDS, &[&digest.0.as_slice()]).await?.is_some())
}

/// Cuts `changes` into what one statement may carry.
fn at_once(changes: &[IncomingChange]) -> impl Iterator<Item = &[IncomingChange]> {
    let mut rest = changes;
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fits = |change: &&IncomingChange| {
            let value = change.value.as_ref().map_or(0, String::len);
            bytes = bytes.saturating_add(change.name.len()).saturating_add(value);
            bytes <= BYTES_AT_ONCE_MAX
        };
        let count = rest.iter().take(CHANGES_AT_ONCE_MAX).take_while(fits).count().max(1).min(rest.len());
        let (now, later) = rest.split_at_checked(count)?;
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_are_cut_by_number_and_by_size_and_none_is_lost() {
        let change = |bytes| IncomingChange { kind: "key", name: String::new(), value: Some("x".repeat(bytes)) };
        let sizes = |changes: &[IncomingChange]| at_once(changes).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(&[]), [0; 0]);
        let many: Vec<_> = (0..=CHANGES_AT_ONCE_MAX).map(|_| change(1)).collect();
        assert_eq!(sizes(&many), [CHANGES_AT_ONCE_MAX, 1]);
        let large = [change(BYTES_AT_ONCE_MAX + 1), change(BYTES_AT_ONCE_MAX), change(1), change(1)];
        assert_eq!(sizes(&large), [1, 1, 2]);
    }
}
