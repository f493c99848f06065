//! Revisions and entities as rows of a database, and what is checked on the way in and out. Pure.
//!
//! Values are kept as JSON text, since digests depend on the order of fields and on every digit.

use crate::live::{Change, Digest, Entity, EntityId, EntityKind, Head, Recorded, Revision, StoreError};
use serde_json::Value;
use std::collections::HashSet;

/// Revisions of one answer, whatever was asked for.
pub(super) const REVISIONS_IN_PAGE_MAX: u32 = 1_000;
/// Changes of one answer, unless a single revision has more: about 100 MB of a large installation.
const CHANGES_IN_PAGE_MAX: i64 = 200_000;
/// Changes of one revision: ten times the import of a very large installation.
const CHANGES_IN_REVISION_MAX: usize = 1_000_000;

/// A revision on its way in.
pub(super) struct Incoming {
    pub(super) digest: Digest,
    pub(super) number: i64,
    pub(super) node: String,
    pub(super) author: String,
    pub(super) at_ms: i64,
    pub(super) comment: String,
    pub(super) parent: Digest,
    pub(super) changes: Vec<IncomingChange>,
}

/// One of its changes.
pub(super) struct IncomingChange {
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) value: Option<String>,
}

impl Incoming {
    /// [`StoreError::Invalid`] for what no database can keep, or no reader understand.
    pub(super) fn of(revision: &Revision) -> Result<Self, StoreError> {
        let invalid = |problem: &str| Err(StoreError::Invalid(problem.to_owned()));
        let (Ok(number), Ok(at_ms)) = (i64::try_from(revision.number), i64::try_from(revision.at_ms)) else {
            return invalid("its number or its time is too large");
        };
        if number == 0 {
            return invalid("its number is 0; the first is 1");
        }
        if revision.changes.len() > CHANGES_IN_REVISION_MAX {
            return invalid("it changes more than 1,000,000 entities: make several of it");
        }
        let names = revision.changes.iter().map(|change| &change.id.name);
        if [&revision.node, &revision.author, &revision.comment]
            .into_iter()
            .chain(names)
            .any(|text| text.contains('\0'))
        {
            return invalid("a name or a comment has a NUL character in it");
        }
        let mut seen = HashSet::with_capacity(revision.changes.len());
        if let Some(twice) = revision.changes.iter().find(|change| !seen.insert(&change.id)) {
            return invalid(&format!("it changes {} twice", twice.id));
        }
        let incoming = |change: &Change| IncomingChange {
            kind: change.id.kind.name(),
            name: change.id.name.clone(),
            value: change.value.as_ref().map(Value::to_string),
        };
        Ok(Self {
            digest: revision.digest(),
            number,
            node: revision.node.clone(),
            author: revision.author.clone(),
            at_ms,
            comment: revision.comment.clone(),
            parent: revision.parent,
            changes: revision.changes.iter().map(incoming).collect(),
        })
    }

    /// As a head.
    pub(super) fn head(&self) -> Head {
        Head { number: self.number.unsigned_abs(), node: self.node.clone(), digest: self.digest }
    }

    /// Whether it stands on top of `head`.
    pub(super) fn follows(&self, head: &Head) -> Result<(), StoreError> {
        if self.parent != head.digest {
            return Err(StoreError::Conflict(head.clone()));
        }
        if Some(self.number.unsigned_abs()) != head.number.checked_add(1) {
            return Err(StoreError::Invalid(format!("its number is {}, after {}", self.number, head.number)));
        }
        Ok(())
    }
}

/// A row of the revisions.
pub(super) struct RevisionRow {
    pub(super) digest: Vec<u8>,
    pub(super) number: i64,
    pub(super) node: String,
    pub(super) author: String,
    pub(super) at_ms: i64,
    pub(super) comment: String,
    pub(super) parent: Vec<u8>,
    pub(super) is_superseded: bool,
    /// How many changes it has.
    pub(super) changes: i64,
}

/// A row of the changes.
pub(super) struct ChangeRow {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) value: Option<String>,
    pub(super) before: Option<String>,
}

/// As many of `rows` as one answer may carry, and one number's rows at least. They come ordered by
/// number; those of one number stay together.
pub(super) fn page(mut rows: Vec<RevisionRow>) -> Vec<RevisionRow> {
    let mut changes = 0_i64;
    let mut end = 0;
    for same_number in rows.chunk_by(|a, b| a.number == b.number) {
        changes = same_number.iter().fold(changes, |sum, row| sum.saturating_add(row.changes));
        if end > 0 && changes > CHANGES_IN_PAGE_MAX {
            break;
        }
        end += same_number.len();
    }
    rows.truncate(end);
    rows
}

/// The revision of these rows. [`StoreError::Unusable`] where they are not what was appended.
pub(super) fn recorded(row: RevisionRow, changes: Vec<ChangeRow>) -> Result<Recorded, StoreError> {
    let digest = digest(&row.digest)?;
    let mut before = Vec::with_capacity(changes.len());
    let mut read = Vec::with_capacity(changes.len());
    for change in changes {
        before.push(change.before.as_deref().map(json).transpose()?);
        let value = change.value.as_deref().map(json).transpose()?;
        read.push(Change { id: EntityId::new(kind(&change.kind)?, change.name), value });
    }
    let revision = Revision {
        number: row.number.unsigned_abs(),
        node: row.node,
        author: row.author,
        at_ms: row.at_ms.unsigned_abs(),
        comment: row.comment,
        parent: self::digest(&row.parent)?,
        changes: read,
    };
    if row.number < 1 || row.at_ms < 0 || revision.digest() != digest {
        return Err(damaged(&format!("revision {} is not what was written", row.number)));
    }
    Ok(Recorded { revision, digest, before, is_superseded: row.is_superseded })
}

/// The entity of this row.
pub(super) fn entity(kind_name: &str, name: String, value: &str) -> Result<Entity, StoreError> {
    Ok(Entity { id: EntityId::new(kind(kind_name)?, name), value: json(value)? })
}

/// The head of this row.
pub(super) fn head(number: i64, node: String, of: &[u8]) -> Result<Head, StoreError> {
    let number = u64::try_from(number).map_err(|_| damaged("the number of its head is below 0"))?;
    Ok(Head { number, node, digest: digest(of)? })
}

fn digest(bytes: &[u8]) -> Result<Digest, StoreError> {
    bytes.try_into().map(Digest).map_err(|_| damaged("a digest has not 32 bytes"))
}

fn json(text: &str) -> Result<Value, StoreError> {
    serde_json::from_str(text).map_err(|_| damaged("a value is no JSON"))
}

fn kind(name: &str) -> Result<EntityKind, StoreError> {
    name.parse().map_err(|_| {
        StoreError::Unusable(format!(
            "it holds entities of the kind \"{}\", which this program does not know: update this node to the version \
             of the others",
            name.escape_debug().take(40).collect::<String>()
        ))
    })
}

/// The remedy for rows that somebody else, or a failing disk, has changed.
fn damaged(what: &str) -> StoreError {
    StoreError::Unusable(format!("{what}: something else than this program has changed it; restore a backup"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn revision() -> Revision {
        let change = |name: &str, value| Change { id: EntityId::new(EntityKind::RateLimit, name), value };
        Revision {
            number: 1,
            node: "n1".into(),
            author: "ann".into(),
            at_ms: 5,
            comment: "first".into(),
            parent: Digest::default(),
            changes: vec![
                change("b", Some(json!({"z": 0.1, "a": [1e23, 1e-7, 18_446_744_073_709_551_615_u64]}))),
                change("a", None),
            ],
        }
    }

    fn rows(revision: &Revision) -> (RevisionRow, Vec<ChangeRow>) {
        let incoming = Incoming::of(revision).unwrap();
        let changes = incoming.changes.into_iter();
        let changes: Vec<_> = changes
            .map(|change| ChangeRow { kind: change.kind.into(), name: change.name, value: change.value, before: None })
            .collect();
        let row = RevisionRow {
            digest: incoming.digest.0.to_vec(),
            number: incoming.number,
            node: incoming.node,
            author: incoming.author,
            at_ms: incoming.at_ms,
            comment: incoming.comment,
            parent: incoming.parent.0.to_vec(),
            is_superseded: false,
            changes: 2,
        };
        (row, changes)
    }

    #[test]
    fn a_revision_comes_back_as_it_went_in() {
        let (row, changes) = rows(&revision());
        let recorded = recorded(row, changes).unwrap_or_else(|error| panic!("{error}"));
        assert!(recorded.revision == revision() && recorded.digest == revision().digest());
        assert!(recorded.before == [None, None]);
    }

    #[test]
    fn a_changed_row_is_noticed() {
        let edits: [fn(&mut RevisionRow, &mut Vec<ChangeRow>); 6] = [
            |row, _| row.number += 1,
            |row, _| row.author.push('x'),
            |row, _| row.digest[0] ^= 1,
            |row, _| row.parent.truncate(31),
            |_, changes| changes.truncate(1),
            |_, changes| changes[0].value = Some("{".into()),
        ];
        for edit in edits {
            let (mut row, mut changes) = rows(&revision());
            edit(&mut row, &mut changes);
            assert!(matches!(recorded(row, changes), Err(StoreError::Unusable(_))));
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let edits: [fn(&mut Revision); 5] = [
            |revision| revision.number = 0,
            |revision| revision.number = u64::MAX,
            |revision| revision.comment.push('\0'),
            |revision| revision.changes[0].id.name.push('\0'),
            |revision| revision.changes[1].id = revision.changes[0].id.clone(),
        ];
        for edit in edits {
            let mut edited = revision();
            edit(&mut edited);
            assert!(matches!(Incoming::of(&edited), Err(StoreError::Invalid(_))));
        }
    }

    #[test]
    fn a_kind_of_a_newer_program_is_named() {
        let Err(StoreError::Unusable(words)) = entity("teapot", "x".into(), "{}") else { panic!("refused") };
        assert!(words.contains("\"teapot\"") && words.contains("update this node"), "{words}");
    }

    #[test]
    fn a_page_ends_between_numbers_and_is_never_empty() {
        let sizes = |rows: &[(i64, i64)]| {
            let row = |&(number, changes): &(i64, i64)| RevisionRow { number, changes, ..self::rows(&revision()).0 };
            page(rows.iter().map(row).collect()).len()
        };
        let large = CHANGES_IN_PAGE_MAX;
        assert_eq!(sizes(&[]), 0);
        assert_eq!(sizes(&[(3, 1), (2, 1), (1, 1)]), 3);
        assert_eq!(sizes(&[(3, large + 1), (2, 1)]), 1);
        assert_eq!(sizes(&[(3, large), (3, large), (2, 1)]), 2);
        assert_eq!(sizes(&[(3, 1), (2, 1), (2, large), (1, 1)]), 1);
    }
}
