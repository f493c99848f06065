//! What nodes without a common store say to each other about revisions, as bytes.
//!
//! Small things are postcard; revisions are JSON, since they hold it. Everything that comes in is
//! bounded, and a revision is worth what its digest says.

use super::revision::{Change, Digest, Head, Revision};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Bytes of a batch in one message; a message takes a little more.
pub(crate) const PART_BYTES_MAX: usize = 48 * 1024;
/// Bytes of a batch of revisions.
pub(crate) const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A name in a message.
const NAME_BYTES_MAX: usize = 64;

/// One message.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The sender's newest revision.
    Head(HeadOnWire),
    /// What the receiver has above `after`, from this byte of it on.
    Ask { after: u64, from: u64 },
    /// A part of that. Batches of one `of` are the same bytes.
    Part { after: u64, of: [u8; 32], from: u64, total: u64, bytes: Vec<u8> },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeadOnWire {
    number: u64,
    node: String,
    digest: [u8; 32],
}

impl From<&Head> for HeadOnWire {
    fn from(head: &Head) -> Self {
        Self { number: head.number, node: head.node.clone(), digest: head.digest.0 }
    }
}

impl From<HeadOnWire> for Head {
    fn from(head: HeadOnWire) -> Self {
        Self { number: head.number, node: head.node, digest: Digest(head.digest) }
    }
}

impl Message {
    pub(crate) fn write(&self) -> Vec<u8> {
        postcard::to_allocvec(self).unwrap_or_default()
    }

    /// `None` for what is no message, or is larger than one may be.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let message = postcard::from_bytes(bytes).ok()?;
        let is_fit = match &message {
            Self::Head(head) => head.node.len() <= NAME_BYTES_MAX && head.number > 0,
            Self::Ask { from, .. } => *from <= BATCH_BYTES_MAX as u64,
            Self::Part { from, total, bytes, .. } => {
                let end = from.checked_add(bytes.len() as u64);
                *total <= BATCH_BYTES_MAX as u64 && end.is_some_and(|end| end <= *total)
            }
        };
        is_fit.then_some(message)
    }
}

/// Revisions that follow each other, as bytes. As many as fit, one at least.
pub(crate) fn write_batch(revisions: &[Revision], bytes_max: usize) -> Vec<u8> {
    let mut text = String::from("[");
    for revision in revisions {
        let one = revision_text(revision);
        if text.len() > 1 && text.len().saturating_add(one.len()) > bytes_max {
            break;
        }
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&one);
    }
    text.push(']');
    text.into_bytes()
}

fn revision_text(revision: &Revision) -> String {
    let changes = revision.changes.iter().map(|change| match &change.value {
        Some(value) => json!([change.id.to_string(), value]),
        None => json!([change.id.to_string()]),
    });
    json!({
        "number": revision.number,
        "node": revision.node,
        "author": revision.author,
        "at_ms": revision.at_ms,
        "comment": revision.comment,
        "parent": revision.parent.to_string(),
        "changes": changes.collect::<Vec<_>>(),
    })
    .to_string()
}

/// Reads a batch whose revisions follow each other. `None` for anything else.
pub(crate) fn read_batch(bytes: &[u8]) -> Option<Vec<Revision>> {
    let list: Vec<Value> = serde_json::from_slice(bytes).ok()?;
    let revisions: Vec<Revision> = list.into_iter().map(read_revision).collect::<Option<_>>()?;
    let follow = revisions.windows(2).all(|pair| match pair {
        [first, next] => next.parent == first.digest() && Some(next.number) == first.number.checked_add(1),
        _ => false,
    });
    (follow && !revisions.is_empty()).then_some(revisions)
}

fn read_revision(mut value: Value) -> Option<Revision> {
    let text = |value: &Value, field: &str| value.get(field)?.as_str().map(str::to_owned);
    let changes = match value.get_mut("changes")?.take() {
        Value::Array(changes) => changes.into_iter().map(read_change).collect::<Option<_>>()?,
        _ => return None,
    };
    Some(Revision {
        number: value.get("number")?.as_u64()?,
        node: text(&value, "node")?,
        author: text(&value, "author")?,
        at_ms: value.get("at_ms")?.as_u64()?,
        comment: text(&value, "comment")?,
        parent: digest_of(value.get("parent")?.as_str()?)?,
        changes,
    })
}

fn read_change(value: Value) -> Option<Change> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let id = parts.next()?.as_str()?.parse().ok()?;
    let change = Change { id, value: parts.next() };
    parts.next().is_none().then_some(change)
}

/// 64 hexadecimal digits.
pub(crate) fn digest_of(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != digest.0.len() * 2 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, at) in digest.0.iter_mut().zip((0..text.len()).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::{EntityId, EntityKind};

    fn chain(count: u64) -> Vec<Revision> {
        let mut parent = Digest::default();
        let next = |number| {
            let id = EntityId::new(EntityKind::RateLimit, format!("r{number}"));
            let value = (number % 2 == 1).then(|| json!({"id": id.name, "weight": 0.1 + 0.2, "none": null}));
            let revision = Revision {
                number,
                node: "n".into(),
                author: "a\"b".into(),
                at_ms: u64::MAX,
                comment: "ü\n".into(),
                parent,
                changes: vec![Change { id, value }],
            };
            parent = revision.digest();
            revision
        };
        (1..=count).map(next).collect()
    }

    #[test]
    fn revisions_are_read_as_they_were_written() {
        let revisions = chain(4);
        assert!(read_batch(&write_batch(&revisions, usize::MAX)) == Some(revisions.clone()));
        assert!(read_batch(&write_batch(&revisions, 1)) == Some(revisions[..1].to_vec()), "one at least");
    }

    #[test]
    fn what_does_not_follow_is_no_batch() {
        let mut revisions = chain(3);
        revisions.remove(1);
        assert!(read_batch(&write_batch(&revisions, usize::MAX)).is_none());
        for wrong in ["", "[]", "[1]", "{}", "[{\"number\": 1}]"] {
            assert!(read_batch(wrong.as_bytes()).is_none(), "{wrong}");
        }
        let whole = write_batch(&chain(1), usize::MAX);
        assert!((0..whole.len()).all(|cut| read_batch(&whole[..cut]).is_none()));
    }

    #[test]
    fn messages_are_read_as_they_were_written_and_bounded() {
        let head = Head { number: 3, node: "n1".into(), digest: Digest([7; 32]) };
        for message in [
            Message::Head((&head).into()),
            Message::Ask { after: 3, from: 9 },
            Message::Part { after: 3, of: [1; 32], from: 2, total: 4, bytes: vec![1, 2] },
        ] {
            assert_eq!(Message::read(&message.write()), Some(message));
        }
        for wrong in [
            Message::Ask { after: 0, from: u64::MAX },
            Message::Part { after: 0, of: [1; 32], from: 3, total: 4, bytes: vec![1, 2] },
            Message::Part { after: 0, of: [1; 32], from: 0, total: u64::MAX, bytes: vec![] },
            Message::Head((&Head::default()).into()),
        ] {
            assert_eq!(Message::read(&wrong.write()), None);
        }
        assert_eq!(Message::read(&[9, 9]), None);
    }

    #[test]
    fn digests_are_read_as_they_are_shown() {
        let digest = Digest([0xa5; 32]);
        assert_eq!(digest_of(&digest.to_string()), Some(digest));
        assert!(["", "a5", &"g".repeat(64), &"é".repeat(32)].iter().all(|wrong| digest_of(wrong).is_none()));
    }
}
