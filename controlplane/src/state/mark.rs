//! Which configuration a node runs, so that nodes which run different ones are seen. Pure.
//!
//! What belongs to one node alone is left out: its name, region, cores, and how it looks up
//! virtual keys; so are addresses and every secret. Nodes of different versions of the program may
//! write the same configuration differently.

use ring::digest;
use shared::snapshot::{Snapshot, SnapshotRecord};
use std::fmt::Write as _;

/// Bytes of the digest that are shown, as twice as many digits.
const HASH_BYTES: usize = 8;

/// First digits of the SHA-256 of what a configuration says about serving requests; empty where it
/// cannot be written.
pub(super) fn hash_of(record: &SnapshotRecord) -> String {
    let mut record = record.clone();
    record.epoch = 0;
    record.local_node.clear();
    record.region.clear();
    record.settings.buffered_bodies_bytes_per_core = 0;
    record.virtual_key_index.clear();
    for provider in &mut record.providers {
        provider.endpoints.clear();
    }
    let Ok(snapshot) = Snapshot::from_record(&record) else { return String::new() };
    let digest = digest::digest(&digest::SHA256, snapshot.as_bytes());
    digest.as_ref().iter().take(HASH_BYTES).fold(String::new(), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("writing to a string does not fail");
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::{FULL, compiled};

    #[test]
    fn what_belongs_to_one_node_changes_nothing() {
        let record = compiled(FULL).record;
        let mut other = record.clone();
        other.epoch = 99;
        other.local_node = "deepintshield-other-1".into();
        other.region = "moon".into();
        other.virtual_key_index.reverse();
        other.providers[0].endpoints.clear();
        assert_eq!(hash_of(&record), hash_of(&other));
        assert_eq!(hash_of(&record).len(), 16);
    }

    #[test]
    fn what_is_served_differently_is_another_configuration() {
        let record = compiled(FULL).record;
        let mut other = record.clone();
        other.keys[0].weight += 1.0;
        assert_ne!(hash_of(&record), hash_of(&other));
        let mut other = record.clone();
        other.settings.enforce_auth = !other.settings.enforce_auth;
        assert_ne!(hash_of(&record), hash_of(&other));
    }
}
