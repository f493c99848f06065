//! Revisions: changes of entities that hold together, each on top of another.

use super::entity::EntityId;
use core::fmt;
use ring::digest;
use serde_json::{Value, json};

/// SHA-256 of a revision; all zeros stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What becomes of one entity.
#[derive(Clone, PartialEq)]
pub struct Change {
    /// Which.
    pub id: EntityId,
    /// What it says from then on; `None`: it is removed. Secrets are references or sealed.
    pub value: Option<Value>,
}

/// Changes that are in force together or not at all.
#[derive(Clone, PartialEq)]
pub struct Revision {
    /// One more than its parent's; the first is 1.
    pub number: u64,
    /// Id of the node that accepted it.
    pub node: String,
    /// Who asked for it, for people.
    pub author: String,
    /// When, in milliseconds since 1970 on that node's clock.
    pub at_ms: u64,
    /// Why, for people.
    pub comment: String,
    /// The revision that it changes.
    pub parent: Digest,
    /// At most one for an entity.
    pub changes: Vec<Change>,
}

impl Revision {
    /// Names this revision and everything before it. SHA-256 of a JSON text, in which `changes` are
    /// in the order of their entities and fields in the order that they have;
    /// what is removed has an id alone.
    pub fn digest(&self) -> Digest {
        let mut changes: Vec<_> = self.changes.iter().collect();
        changes.sort_by(|a, b| a.id.cmp(&b.id));
        // What is removed is a list of one: `null` would be a value.
        let listed = |change: &&Change| match &change.value {
            Some(value) => json!([change.id.to_string(), value]),
            None => json!([change.id.to_string()]),
        };
        let changes: Vec<Value> = changes.iter().map(listed).collect();
        let text = json!([
            "deepintshield revision 1",
            self.number,
            self.node,
            self.author,
            self.at_ms,
            self.comment,
            self.parent.to_string(),
            changes
        ])
        .to_string();
        let mut sum = [0; 32];
        sum.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        Digest(sum)
    }

    /// As a head.
    pub fn head(&self) -> Head {
        Head { number: self.number, node: self.node.clone(), digest: self.digest() }
    }
}

/// The newest revision of a chain. Of two chains the one with the greater head holds: the higher
/// number, then the node's id, then the digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// [`Revision::number`]; 0 before the first.
    pub number: u64,
    /// [`Revision::node`].
    pub node: String,
    /// [`Revision::digest`].
    pub digest: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::EntityKind;

    fn revision() -> Revision {
        let change = |name, value| Change { id: EntityId::new(EntityKind::RateLimit, name), value };
        Revision {
            number: 3,
            node: "n1".into(),
            author: "ann".into(),
            at_ms: 5,
            comment: String::new(),
            parent: Digest([1; 32]),
            changes: vec![change("a", Some(json!({"id": "a"}))), change("b", None)],
        }
    }

    #[test]
    fn a_digest_covers_everything_but_the_order_of_changes() {
        let digest = revision().digest();
        let mut turned = revision();
        turned.changes.reverse();
        assert_eq!(turned.digest(), digest);
        let edits: [fn(&mut Revision); 7] = [
            |revision| revision.number += 1,
            |revision| revision.node.push('x'),
            |revision| revision.author.push('x'),
            |revision| revision.at_ms += 1,
            |revision| revision.comment.push('x'),
            |revision| revision.parent = Digest::default(),
            |revision| revision.changes[1].value = Some(Value::Null),
        ];
        for edit in edits {
            let mut edited = revision();
            edit(&mut edited);
            assert_ne!(edited.digest(), digest);
        }
    }

    #[test]
    fn the_higher_number_is_the_later_head() {
        let head = |number, node: &str| Head { number, node: node.into(), digest: Digest::default() };
        assert!(head(2, "a") > head(1, "b"));
        assert!(head(2, "b") > head(2, "a"));
    }
}
