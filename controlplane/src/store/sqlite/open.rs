//! Opening the database file: who may read it, how it syncs, which tables it has.

use super::fault::Fault;
use crate::live::StoreError;
use crate::store::schema::{self, Found, MIGRATIONS, Migration};
use crate::store::sql;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, TransactionBehavior};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// For the owner only.
const MODE: u32 = 0o600;
const OTHERS: u32 = 0o077;
/// How long another process may hold the file. Another node on it, or an operator with a tool.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Switching to WAL needs the file alone, and does not wait by itself.
const SWITCH_ATTEMPTS: u32 = 100;
const SWITCH_PAUSE: Duration = Duration::from_millis(50);
/// `DIsh` in the file's head: the database is ours.
const APPLICATION_ID: i64 = 0x4449_7368;

/// The database, with today's tables.
pub(super) fn open(path: &Path) -> Result<Connection, Fault> {
    restrict(path)?;
    // Without NOFOLLOW, for files that are mounted; without URI, so that a path is a path.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // What somebody wrote into the file's schema is not run.
    connection.pragma_update(None, "trusted_schema", false)?;
    refuse_foreign(&connection, path)?;
    switch_to_wal(&connection, path)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    migrate(&mut connection, MIGRATIONS)?;
    Ok(connection)
}

/// Makes the file where there is none, or takes others' permissions away. `SQLite` gives the files
/// beside it the same permissions.
///
/// A file that is there is not opened here: closing it would release the locks that other
/// connections of this process have on it.
fn restrict(path: &Path) -> io::Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    match fs::metadata(path) {
        Ok(there) if there.permissions().mode() & OTHERS == 0 => return Ok(()),
        Ok(_) => return fs::set_permissions(path, fs::Permissions::from_mode(MODE)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let make = |path: &OsStr| fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(path).map(drop);
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".new-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    // Of a process with our number that ended just here; that there is none is what is wanted.
    drop(fs::remove_file(&new));
    make(&new)?;
    let linked = fs::hard_link(&new, path);
    fs::remove_file(&new)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A file system without links. Nobody else of this process has the file open yet.
        Err(_) => make(path.as_os_str()),
        Ok(()) => Ok(()),
    }
}

/// A database of somebody else is left alone.
fn refuse_foreign(connection: &Connection, path: &Path) -> Result<(), Fault> {
    // In this order: both come with one commit, which another process may make just here.
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let id: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if id == APPLICATION_ID || tables == 0 {
        return Ok(());
    }
    let problem = format!(
        "{}: it is the database of another program: name another file in config_store.config.path",
        path.display()
    );
    Err(StoreError::Unusable(problem).into())
}

fn switch_to_wal(connection: &Connection, path: &Path) -> Result<(), Fault> {
    let switch = || connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
    let mut mode = switch();
    for _ in 0..SWITCH_ATTEMPTS {
        let Err(error) = &mode else { break };
        if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) {
            break;
        }
        std::thread::sleep(SWITCH_PAUSE);
        mode = switch();
    }
    if mode? == "wal" {
        return Ok(());
    }
    let problem = format!("{}: its file system cannot share memory (WAL): use a local disk", path.display());
    Err(StoreError::Unusable(problem).into())
}

/// Brings the tables up to the newest of `known`. Of several that come at once, one does it and
/// the others find it done.
fn migrate(connection: &mut Connection, known: &[Migration]) -> Result<(), Fault> {
    if schema::missing(found(connection)?, known)?.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in schema::missing(found(&transaction)?, known)? {
        transaction.execute_batch(migration.sqlite)?;
        transaction.execute(sql::SET_SCHEMA, [migration.version, migration.compatible_from])?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.commit()?;
    Ok(())
}

/// What the tables say of themselves; `None`: there are none.
pub(super) fn found(connection: &Connection) -> Result<Option<Found>, Fault> {
    let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'deepintshield_schema'";
    if connection.query_row(table, [], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    let row = |row: &rusqlite::Row<'_>| Ok(Found { version: row.get(0)?, compatible_from: row.get(1)? });
    Ok(Some(connection.query_row(sql::SCHEMA, [], row)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_commit_is_synced() {
        let path = std::env::temp_dir().join(format!("deepintshield-open-{}.db", std::process::id()));
        let connection = open(&path).unwrap();
        let value = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        let full = 2;
        assert_eq!(value("synchronous"), full);
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
        connection.close().unwrap();
        fs::remove_file(path).unwrap();
    }
}
