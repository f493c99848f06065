//! The tables of a store and how they came to be: numbered migrations, for both databases.
//!
//! A store remembers the version of its tables and the oldest one whose programs may still use
//! them (`compatible_from`). Programs of both versions then run side by side; an older one stops
//! only where it would do harm.
//!
//! Absent: ways back. A program that is too old says so.

use crate::live::StoreError;

/// One step. It stays as it is once it was released: stores have taken it.
pub(super) struct Migration {
    /// The tables' version afterwards; one more than the one before.
    pub(super) version: i64,
    /// The oldest version whose programs can use these tables.
    pub(super) compatible_from: i64,
    /// Statements for `SQLite`.
    pub(super) sqlite: &'static str,
    /// Statements for `PostgreSQL`.
    pub(super) postgres: &'static str,
}

/// What the tables say of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) version: i64,
    pub(super) compatible_from: i64,
}

/// Every step there is, the oldest first.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    compatible_from: 1,
    sqlite: "
CREATE TABLE deepintshield_schema (version INTEGER NOT NULL, compatible_from INTEGER NOT NULL) STRICT;
INSERT INTO deepintshield_schema VALUES (0, 0);
CREATE TABLE deepintshield_revisions (
    digest     BLOB PRIMARY KEY NOT NULL,
    number     INTEGER NOT NULL,
    node       TEXT NOT NULL,
    author     TEXT NOT NULL,
    at_ms      INTEGER NOT NULL,
    comment    TEXT NOT NULL,
    parent     BLOB NOT NULL,
    superseded INTEGER NOT NULL,
    changes    INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX deepintshield_holding ON deepintshield_revisions (number) WHERE NOT superseded;
CREATE INDEX deepintshield_numbers ON deepintshield_revisions (number, digest);
CREATE TABLE deepintshield_changes (
    digest   BLOB NOT NULL,
    position INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    name     TEXT NOT NULL,
    value    TEXT,
    before   TEXT,
    PRIMARY KEY (digest, position)
) STRICT;
CREATE TABLE deepintshield_entities (
    kind  TEXT NOT NULL,
    name  TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;
CREATE TABLE deepintshield_head (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    number   INTEGER NOT NULL,
    node     TEXT NOT NULL,
    digest   BLOB NOT NULL
) STRICT;
INSERT INTO deepintshield_head VALUES (1, 0, '', zeroblob(32));",
    postgres: r"
CREATE TABLE deepintshield_schema (version bigint NOT NULL, compatible_from bigint NOT NULL);
INSERT INTO deepintshield_schema VALUES (0, 0);
CREATE TABLE deepintshield_revisions (
    digest     bytea PRIMARY KEY,
    number     bigint NOT NULL,
    node       text NOT NULL,
    author     text NOT NULL,
    at_ms      bigint NOT NULL,
    comment    text NOT NULL,
    parent     bytea NOT NULL,
    superseded boolean NOT NULL,
    changes    bigint NOT NULL
);
CREATE UNIQUE INDEX deepintshield_holding ON deepintshield_revisions (number) WHERE NOT superseded;
CREATE INDEX deepintshield_numbers ON deepintshield_revisions (number, digest);
CREATE TABLE deepintshield_changes (
    digest   bytea NOT NULL,
    position bigint NOT NULL,
    kind     text NOT NULL,
    name     text NOT NULL,
    value    text,
    before   text,
    PRIMARY KEY (digest, position)
);
CREATE TABLE deepintshield_entities (
    kind  text NOT NULL,
    name  text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE TABLE deepintshield_head (
    only_row bigint PRIMARY KEY CHECK (only_row = 1),
    number   bigint NOT NULL,
    node     text NOT NULL,
    digest   bytea NOT NULL
);
INSERT INTO deepintshield_head VALUES (1, 0, '', decode(repeat('00', 32), 'hex'));",
}];

/// The steps of `known` that tables of this state still need; `None`: there are no tables.
pub(super) fn missing(found: Option<Found>, known: &[Migration]) -> Result<&[Migration], StoreError> {
    let Some(found) = found else { return Ok(known) };
    let newest = known.last().map_or(0, |migration| migration.version);
    if found.compatible_from > newest {
        return Err(too_new(found, newest));
    }
    let first = known.iter().position(|migration| migration.version > found.version);
    Ok(first.and_then(|first| known.get(first..)).unwrap_or_default())
}

/// Refuses tables that only newer programs can use.
pub(super) fn usable(compatible_from: i64) -> Result<(), StoreError> {
    let newest = MIGRATIONS.last().map_or(0, |migration| migration.version);
    let found = Found { version: compatible_from, compatible_from };
    if compatible_from > newest { Err(too_new(found, newest)) } else { Ok(()) }
}

fn too_new(found: Found, newest: i64) -> StoreError {
    StoreError::Unusable(format!(
        "a newer program has changed its tables (version {} of them; programs that know version {} or later can use \
         them, this one knows {newest}): update this node to the version of the others",
        found.version, found.compatible_from
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn step(version: i64, compatible_from: i64) -> Migration {
        Migration { version, compatible_from, sqlite: "", postgres: "" }
    }

    const KNOWN: &[Migration] = &[step(1, 1), step(2, 1), step(3, 3)];

    fn versions(found: Option<(i64, i64)>) -> Result<Vec<i64>, String> {
        let found = found.map(|(version, compatible_from)| Found { version, compatible_from });
        let steps = missing(found, KNOWN).map_err(|error| error.to_string())?;
        Ok(steps.iter().map(|step| step.version).collect())
    }

    #[test]
    fn tables_get_the_steps_that_they_lack() {
        assert_eq!(versions(None), Ok(vec![1, 2, 3]));
        assert_eq!(versions(Some((1, 1))), Ok(vec![2, 3]));
        assert_eq!(versions(Some((3, 3))), Ok(vec![]));
    }

    #[test]
    fn newer_tables_are_used_as_long_as_they_allow_it() {
        assert_eq!(versions(Some((5, 3))), Ok(vec![]));
        let refused = versions(Some((5, 4))).unwrap_err();
        assert!(refused.contains("update this node"), "{refused}");
        let newest = MIGRATIONS.last().unwrap().version;
        assert!(usable(newest).is_ok() && usable(newest + 1).is_err());
    }

    #[test]
    fn steps_are_numbered_without_a_gap_and_say_whom_they_shut_out() {
        for (expected, migration) in (1..).zip(MIGRATIONS) {
            assert_eq!(migration.version, expected);
            assert!((1..=migration.version).contains(&migration.compatible_from));
        }
        assert!(MIGRATIONS.iter().map(|migration| migration.compatible_from).is_sorted());
    }
}
