//! What is written is read again, and nothing else is.

use super::*;
use crate::compile::tests::{FULL, compiled};
use proptest::prelude::*;

const LOOKUP_KEY: [u8; 32] = [3; 32];

fn key() -> EncryptionKey {
    EncryptionKey::new(Secret::new("a-key-of-at-least-thirty-two-characters")).unwrap()
}

const CLUSTER: &str = r#"{"enabled":true,"gossip":{"encryption_keys":["planted-gossip-key"]}}"#;

/// Nothing of the environment is left.
fn gone(_: &Origin) -> Option<Secret> {
    None
}

fn there(origin: &Origin) -> Option<Secret> {
    match origin {
        Origin::Env(name) => Some(Secret::new(&format!("newer value of {name}"))),
        _ => None,
    }
}

fn written(key: Option<&EncryptionKey>) -> Vec<u8> {
    let mut compiled = compiled(FULL);
    compiled.record.epoch = 7;
    let snapshot = Snapshot::from_record(&compiled.record).unwrap();
    let content = Content {
        snapshot: &snapshot,
        epoch: 7,
        secrets: &compiled.secrets,
        server: &Server::default(),
        cluster: Some(&Secret::new(CLUSTER)),
        lookup_key: &LOOKUP_KEY,
    };
    encode(&content, key, Duration::from_secs(1_700_000_000)).unwrap()
}

fn secrets(last_good: &LastGood) -> Vec<&str> {
    last_good.compiled.secrets.iter().map(|entry| entry.secret.expose()).collect()
}

#[test]
fn records_server_and_time_come_back() {
    let last_good = decode(&written(None), &LOOKUP_KEY, None, &there).unwrap();
    let mut expected = compiled(FULL).record;
    expected.epoch = 7;
    assert_eq!(last_good.compiled.record, expected);
    assert_eq!(last_good.server, Server::default());
    assert_eq!(last_good.written_at, Duration::from_secs(1_700_000_000));
}

#[test]
fn the_cluster_comes_back_with_its_keys_only_where_they_are_sealed() {
    let clear = written(None);
    let contains = |bytes: &[u8]| bytes.windows(18).any(|window| window == b"planted-gossip-key");
    let cluster = |bytes: &[u8], key| decode(bytes, &LOOKUP_KEY, key, &gone).unwrap().cluster;
    let text = cluster(&clear, None).unwrap();
    let instead = r#"{"enabled":true,"gossip":{"encryption_keys":["env.DEEPINTSHIELD_GOSSIP_KEY"]}}"#;
    assert_eq!(text.expose(), instead);
    let sealing = key();
    let sealed = written(Some(&sealing));
    assert_eq!(cluster(&sealed, Some(&sealing)).unwrap().expose(), CLUSTER);
    assert!(cluster(&sealed, None).is_none());
    assert!(!contains(&clear) && !contains(&sealed));
}

#[test]
fn sealed_secrets_open_without_file_and_environment() {
    let last_good = decode(&written(Some(&key())), &LOOKUP_KEY, Some(&key()), &gone).unwrap();
    assert_eq!(secrets(&last_good), ["blue", "value of FIRST", "sk-literal", "value of ANTHROPIC"]);
    assert!(last_good.compiled.warnings.is_empty());
}

#[test]
fn a_reference_that_still_leads_somewhere_is_newer_than_its_seal() {
    let last_good = decode(&written(Some(&key())), &LOOKUP_KEY, Some(&key()), &there).unwrap();
    assert_eq!(secrets(&last_good)[1], "newer value of FIRST");
}

#[test]
fn without_an_encryption_key_only_references_survive_and_the_rest_is_named() {
    let last_good = decode(&written(None), &LOOKUP_KEY, None, &there).unwrap();
    assert_eq!(secrets(&last_good), ["", "newer value of FIRST", "", "newer value of ANTHROPIC"]);
    let warnings = &last_good.compiled.warnings;
    assert_eq!(warnings.len(), 2);
    assert!(warnings[1].contains("key second of provider openai"), "{warnings:?}");
}

#[test]
fn no_secret_is_readable_in_the_file() {
    for bytes in [written(None), written(Some(&key()))] {
        for secret in ["sk-literal", "value of FIRST", "value of ANTHROPIC", "sk-bf-all", "blue"] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret}");
        }
    }
}

#[test]
fn another_lookup_key_or_encryption_key_is_noticed() {
    let bytes = written(Some(&key()));
    assert!(matches!(decode(&bytes, &[4; 32], Some(&key()), &gone), Err(LastGoodError::LookupKey)));
    let other = EncryptionKey::new(Secret::new("another-key-of-thirty-two-characters!")).unwrap();
    let last_good = decode(&bytes, &LOOKUP_KEY, Some(&other), &gone).unwrap();
    assert!(secrets(&last_good).iter().all(|secret| secret.is_empty()));
    assert_eq!(last_good.compiled.warnings.len(), 4);
}

#[test]
fn indices_that_lead_nowhere_are_refused() {
    let changes: [fn(&mut SnapshotRecord); 19] = [
        |record| record.keys[0].secret = 99,
        |record| record.keys[0].provider = 99,
        |record| record.providers[0].keys[0] = 99,
        |record| record.virtual_keys[0].limits[0] = 99,
        |record| record.virtual_key_index[0].1 = 99,
        |record| record.known_models[0].providers = vec![99],
        |record| record.known_models.swap(0, 1),
        |record| record.model_index.salt ^= 1,
        |record| record.model_index.slots[0].at = 99,
        |record| record.model_index.slots.clear(),
        |record| record.provider_index.by_name.push(0),
        |record| record.provider_index.slots.reverse(),
        |record| record.keys[0].models = Some(ModelList::new(vec![99])),
        |record| record.keys[0].models.as_mut().unwrap().bits[0] ^= 1,
        |record| record.keys[0].models.as_mut().unwrap().first = 0,
        |record| record.keys[1].blacklisted_models.numbers.insert(0, 4),
        |record| record.keys[0].aliases = vec![(99, "m".to_owned())],
        |record| record.keys[0].aliases = vec![(1, "m".to_owned()), (0, "m".to_owned())],
        |record| record.virtual_keys[2].grants.as_mut().unwrap()[0].models = Some(ModelList::new(vec![99])),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut record = compiled(FULL).record;
        change(&mut record);
        assert!(check_indices(&record, 4).is_err(), "change {at}");
    }
    assert!(check_indices(&compiled(FULL).record, 4).is_ok());
}

proptest! {
    /// The checksum is made right again, so that what lies behind it is tried: whatever the
    /// content, reading it ends in a value or an error.
    #[test]
    fn garbage_behind_a_right_checksum_never_panics(
        description in prop::collection::vec(any::<u8>(), 0..256),
        snapshot in prop::collection::vec(any::<u8>(), 0..1024),
    ) {
        let bytes = frame::encode(&description, &snapshot);
        prop_assert!(decode(&bytes, &LOOKUP_KEY, None, &gone).is_err());
    }

    #[test]
    fn a_changed_snapshot_behind_a_right_checksum_never_yields_a_secret(at: prop::sample::Index, bit in 0..8_u8) {
        let bytes = written(Some(&key()));
        let (description, snapshot) = frame::decode(&bytes).unwrap();
        let mut snapshot = snapshot.to_vec();
        let at = at.index(snapshot.len());
        snapshot[at] ^= 1 << bit;
        let bytes = frame::encode(description, &snapshot);
        if let Ok(last_good) = decode(&bytes, &LOOKUP_KEY, Some(&key()), &gone) {
            prop_assert!(secrets(&last_good).iter().all(|secret| secret.is_empty()));
        }
    }
}
