//! The statements that both databases understand. Only parameters carry values; they stand first in
//! their order, since `SQLite` numbers `$1` by where it is met.

macro_rules! revision_columns {
    ($rest:literal) => {
        concat!(
            "SELECT digest, number, node, author, at_ms, comment, parent, superseded, changes \
             FROM deepintshield_revisions ",
            $rest
        )
    };
}

pub(super) const SCHEMA: &str = "SELECT version, compatible_from FROM deepintshield_schema";
/// version, `compatible_from`
pub(super) const SET_SCHEMA: &str = "UPDATE deepintshield_schema SET version = $1, compatible_from = $2";

pub(super) const ENTITIES: &str = "SELECT kind, name, value FROM deepintshield_entities";
/// after, count
pub(super) const AFTER: &str = revision_columns!("WHERE NOT superseded AND number > $1 ORDER BY number LIMIT $2");
/// before, count; all rows of the last number are among them.
pub(super) const HISTORY: &str = revision_columns!(
    "WHERE number < $1 AND number >= (SELECT min(number) FROM \
     (SELECT number FROM deepintshield_revisions WHERE number < $1 ORDER BY number DESC LIMIT $2) AS newest) \
     ORDER BY number DESC, superseded, digest"
);
/// digest
pub(super) const REVISION: &str = revision_columns!("WHERE digest = $1");
/// digest
pub(super) const HOLDS: &str = "SELECT 1 FROM deepintshield_revisions WHERE digest = $1 AND NOT superseded";

/// digest, number, node, author, time, comment, parent, number of changes
pub(super) const PUT_REVISION: &str = "INSERT INTO deepintshield_revisions \
     (digest, number, node, author, at_ms, comment, parent, superseded, changes) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, false, $8)";
/// digest: puts in what the revision says of entities.
pub(super) const SET_CHANGED: &str = "INSERT INTO deepintshield_entities (kind, name, value) \
     SELECT kind, name, value FROM deepintshield_changes WHERE digest = $1 AND value IS NOT NULL \
     ON CONFLICT (kind, name) DO UPDATE SET value = excluded.value";
/// number, node, digest
pub(super) const SET_HEAD: &str = "UPDATE deepintshield_head SET number = $1, node = $2, digest = $3";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_met_in_their_order() {
        let statements = [SET_SCHEMA, AFTER, HISTORY, REVISION, HOLDS, PUT_REVISION, SET_CHANGED, SET_HEAD];
        for statement in statements {
            let mut met: Vec<&str> = Vec::new();
            for number in statement.split('$').skip(1).map(|rest| &rest[..1]) {
                if !met.contains(&number) {
                    met.push(number);
                }
            }
            assert!(met.is_sorted() && met.first() == Some(&"1"), "{statement}");
        }
    }
}
