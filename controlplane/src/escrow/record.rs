//! The state of an escrow on disk: a version byte, eight bytes of a hash, and postcard.

use super::account::Account;
use super::book::BookRecord;
use super::ledger::Ledger;
use super::roster::Policy;
use super::shares::LimitKey;
use crate::gossip::frame::NodeName;
use std::collections::BTreeMap;

const VERSION: u8 = 3;
const HASH_BYTES: usize = 8;

/// What was kept cannot be used; the node begins with nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Another version's, cut off, or changed.
    #[error("the record of what this node has of the limits is damaged, or of another version")]
    Damaged,
    /// The folder was another node's.
    #[error("the record of what this node has of the limits is that of node {0}")]
    OtherNode(NodeName),
}

pub(super) type Record = BTreeMap<Policy, (BookRecord, BTreeMap<LimitKey, Ledger>)>;

pub(super) fn write<'r>(sides: impl Iterator<Item = (Policy, BookRecord, &'r BTreeMap<LimitKey, Ledger>)>) -> Vec<u8> {
    let sides: Vec<_> = sides.collect();
    // A map in memory cannot fail to be written.
    let body = postcard::to_allocvec(&sides).unwrap_or_default();
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&hash(&body));
    bytes.extend_from_slice(&body);
    bytes
}

pub(super) fn read(bytes: &[u8], node: NodeName) -> Result<Record, RecordError> {
    let (version, rest) = bytes.split_first().ok_or(RecordError::Damaged)?;
    let (sum, body) = rest.split_first_chunk::<HASH_BYTES>().ok_or(RecordError::Damaged)?;
    if *version != VERSION || *sum != hash(body) {
        return Err(RecordError::Damaged);
    }
    let sides: Vec<(Policy, BookRecord, BTreeMap<LimitKey, Ledger>)> =
        postcard::from_bytes(body).map_err(|_| RecordError::Damaged)?;
    for (_, book, _) in &sides {
        let Account { node: owner, .. } = book.me;
        if owner != node {
            return Err(RecordError::OtherNode(owner));
        }
    }
    Ok(sides.into_iter().map(|(policy, book, ledgers)| (policy, (book, ledgers))).collect())
}

fn hash(body: &[u8]) -> [u8; HASH_BYTES] {
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}
