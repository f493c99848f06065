use super::*;

const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

fn ring(cluster: &str, keys: &[&str]) -> Keyring {
    let secrets: Vec<Secret> = keys.iter().map(|key| Secret::new(key)).collect();
    Keyring::new(cluster, &secrets).unwrap()
}

#[test]
fn the_first_key_seals_and_all_are_found() {
    let both = ring("a", &[ONE, TWO]);
    let ids: Vec<KeyId> = both.key_ids().collect();
    assert_eq!(both.sealing().id, ids[0]);
    assert_eq!(
        ids,
        [ring("b", &[ONE]).sealing().id, ring("c", &[TWO]).sealing().id],
        "a key is named alike everywhere"
    );
    assert!(ids.iter().all(|id| both.find(*id).is_some()));
    assert!(ring("a", &[TWO]).find(ids[0]).is_none());
}

#[test]
fn a_peer_is_sealed_for_with_the_first_key_that_it_takes() {
    let (one, two) = (ring("a", &[ONE]).sealing().id, ring("a", &[TWO]).sealing().id);
    let both = ring("a", &[ONE, TWO]);
    assert_eq!(both.sealing_for(&[]).id, one);
    assert_eq!(both.sealing_for(&[two]).id, two);
    assert_eq!(both.sealing_for(&[two, one]).id, one);
    assert_eq!(both.sealing_for(&[KeyId([9; 4])]).id, one);
    assert_eq!([0, 1, 2].map(|turn| both.in_turn(turn).id), [one, two, one]);
}

#[test]
fn what_is_no_key_is_refused_with_the_remedy() {
    for text in
        ["", "AQEB", "not base64 not base64 not base64 not base64", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"]
    {
        let error = Keyring::new("a", &[Secret::new(ONE), Secret::new(text)]).unwrap_err();
        assert_eq!(error, KeyringError::NotAKey(2));
        assert!(error.to_string().contains("openssl rand -base64 32"));
    }
    let many: Vec<Secret> = (0..=KEYS_MAX).map(|_| Secret::new(ONE)).collect();
    assert_eq!(Keyring::new("a", &many).unwrap_err(), KeyringError::TooMany);
}

#[test]
fn clusters_of_one_key_have_tags_of_their_own() {
    assert_eq!(ring("a", &[ONE]).sealing().cluster_tag, ring("a", &[ONE]).sealing().cluster_tag);
    assert_ne!(ring("a", &[ONE]).sealing().cluster_tag, ring("b", &[ONE]).sealing().cluster_tag);
    assert_ne!(ring("a", &[ONE]).sealing().cluster_tag, ring("a", &[TWO]).sealing().cluster_tag);
}

#[test]
fn a_ring_without_keys_takes_no_configured_key_and_the_other_way_round() {
    let plain = ring("a", &[]);
    assert!(plain.is_plain() && !ring("a", &[ONE]).is_plain());
    assert!(plain.find(ring("a", &[ONE]).sealing().id).is_none());
    assert!(ring("a", &[ONE]).find(plain.sealing().id).is_none());
}

#[test]
fn a_beacon_is_taken_from_nodes_of_the_same_cluster_and_key_only() {
    let tag = ring("a", &[ONE]).beacon_tag(b"here I am");
    assert!(ring("a", &[TWO, ONE]).verify_beacon(b"here I am", &tag));
    assert!(!ring("a", &[TWO]).verify_beacon(b"here I am", &tag));
    assert!(!ring("b", &[ONE]).verify_beacon(b"here I am", &tag));
    assert!(!ring("a", &[ONE]).verify_beacon(b"here I an", &tag));
    assert!(!ring("a", &[ONE]).verify_beacon(b"here I am", &tag[..31]));
    assert!(!ring("a", &[]).verify_beacon(b"here I am", &tag));
}

#[test]
fn printing_a_ring_shows_no_key() {
    assert_eq!(format!("{:?}", ring("a", &[ONE, TWO])), "Keyring { keys: 2, is_plain: false }");
}
