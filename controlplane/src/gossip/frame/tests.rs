use super::*;
use proptest::prelude::*;
use shared::secret::Secret;

const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 10_101);

fn ring(cluster: &str, keys: &[&str]) -> Keyring {
    let secrets: Vec<Secret> = keys.iter().map(|key| Secret::new(key)).collect();
    Keyring::new(cluster, &secrets).unwrap()
}

fn node(name: &str, generation: u64) -> Identity {
    Identity { name: NodeName::new(name).unwrap(), generation }
}

fn letter(to: Identity, kind: Kind, payload: &[u8]) -> Letter<'_> {
    Letter { version: 1, speaks: 1, from: node("a", 5), address: ADDRESS, to, sequence: 9, kind, queued: 0, payload }
}

fn sealed(keyring: &Keyring, letter: &Letter<'_>) -> Vec<u8> {
    seal(keyring.sealing(), letter, [3; NONCE_BYTES]).unwrap()
}

fn frame() -> Vec<u8> {
    sealed(&ring("c", &[ONE]), &letter(node("b", 6), Kind::Gossip, b"hello"))
}

fn open_as(keyring: &Keyring, us: Identity, frame: &[u8]) -> Result<Opened, Refusal> {
    open_speaking(keyring, us, 1, frame)
}

fn open_speaking(keyring: &Keyring, us: Identity, speaks: u8, frame: &[u8]) -> Result<Opened, Refusal> {
    open(keyring, us, speaks, &mut frame.to_vec())
}

#[test]
fn what_is_sealed_for_a_node_is_opened_by_it() {
    let opened = open_as(&ring("c", &[ONE]), node("b", 6), &frame()).unwrap();
    assert_eq!((opened.from, opened.to, opened.sequence), (node("a", 5), node("b", 6), 9));
    assert_eq!((opened.address, opened.kind, opened.payload.as_slice()), (ADDRESS, Kind::Gossip, &b"hello"[..]));
    assert!(!frame().windows(5).any(|bytes| bytes == b"hello"));
}

#[test]
fn a_flip_of_any_bit_is_noticed() {
    for keyring in [ring("c", &[ONE]), ring("c", &[])] {
        let frame = sealed(&keyring, &letter(node("b", 6), Kind::Gossip, b"hello"));
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refusal = open_as(&keyring, node("b", 6), &flipped).unwrap_err();
            assert!(!refusal.is_authentic(), "bit {bit}: {refusal}");
        }
    }
}

#[test]
fn a_cut_at_any_place_is_noticed_and_so_is_what_is_added() {
    for length in 0..frame().len() {
        let refusal = open_as(&ring("c", &[ONE]), node("b", 6), &frame()[..length]).unwrap_err();
        assert!(!refusal.is_authentic(), "{length} bytes: {refusal}");
    }
    let longer = [frame(), vec![0]].concat();
    assert_eq!(open_as(&ring("c", &[ONE]), node("b", 6), &longer), Err(Refusal::Damaged));
}

#[test]
fn a_frame_is_good_for_one_life_of_one_node() {
    let keyring = ring("c", &[ONE]);
    assert_eq!(open_as(&keyring, node("x", 6), &frame()), Err(Refusal::NotForUs), "redirected");
    assert_eq!(open_as(&keyring, node("a", 5), &frame()), Err(Refusal::Reflected), "sent back");
    assert_eq!(
        open_as(&keyring, node("b", 7), &frame()),
        Err(Refusal::ForEarlierUs(ADDRESS)),
        "recorded before a restart"
    );
}

#[test]
fn only_a_ping_may_be_for_nobody_in_particular() {
    let keyring = ring("c", &[ONE]);
    for (kind, is_taken) in [(Kind::Ping, true), (Kind::Pong, false), (Kind::Gossip, false), (Kind::Topic(16), false)] {
        let frame = sealed(&keyring, &letter(Identity::ANYONE, kind, b""));
        assert_eq!(open_as(&keyring, node("b", 6), &frame).is_ok(), is_taken, "{kind:?}");
    }
}

#[test]
fn keys_and_clusters_that_differ_are_told_apart() {
    let us = node("b", 6);
    let id = ring("c", &[ONE]).sealing().id;
    assert_eq!(open_as(&ring("c", &[TWO]), us, &frame()), Err(Refusal::OtherKey(id)));
    assert_eq!(open_as(&ring("c", &[]), us, &frame()), Err(Refusal::OtherKey(id)));
    assert_eq!(open_as(&ring("d", &[ONE]), us, &frame()), Err(Refusal::OtherCluster));
    let plain = sealed(&ring("c", &[]), &letter(us, Kind::Gossip, b"hello"));
    assert_eq!(open_as(&ring("c", &[ONE]), us, &plain), Err(Refusal::WithoutKey));
    assert_eq!(open_as(&ring("d", &[]), us, &plain), Err(Refusal::OtherCluster));
    assert!(open_as(&ring("c", &[]), us, &plain).is_ok());
}

#[test]
fn a_claim_of_another_cluster_without_the_key_is_only_damage() {
    let mut forged = frame();
    forged[7] ^= 1; // the cluster's tag
    assert_eq!(open_as(&ring("c", &[ONE]), node("b", 6), &forged), Err(Refusal::Damaged));
}

#[test]
fn every_step_of_a_rotation_is_understood() {
    // Add the new key everywhere, send with it, take the old one out; each node at its own time.
    let steps = [&[ONE][..], &[ONE, TWO], &[TWO, ONE], &[TWO]];
    for (step, sender) in steps.iter().enumerate() {
        for receiver in &steps[step.saturating_sub(1)..(step + 2).min(steps.len())] {
            let frame = sealed(&ring("c", sender), &letter(node("b", 6), Kind::Gossip, b""));
            assert!(open_as(&ring("c", receiver), node("b", 6), &frame).is_ok());
        }
    }
}

#[test]
fn versions_outside_of_what_is_spoken_are_named() {
    let keyring = ring("c", &[ONE]);
    let two = Letter { version: 2, speaks: 2, queued: 300, ..letter(node("b", 6), Kind::Gossip, b"hello") };
    let frame = sealed(&keyring, &two);
    assert_eq!(open_speaking(&keyring, node("b", 6), 1, &frame), Err(Refusal::OtherVersion(2)));
    let opened = open_speaking(&keyring, node("b", 6), 2, &frame).unwrap();
    assert_eq!((opened.version, opened.queued, opened.payload.as_slice()), (2, Some(300), &b"hello"[..]));
    let opened = open_speaking(&keyring, node("b", 6), 2, &self::frame()).unwrap();
    assert_eq!((opened.version, opened.queued), (1, None));
    let mut none = self::frame();
    none[2] = 0;
    assert_eq!(open_speaking(&keyring, node("b", 6), 2, &none), Err(Refusal::OtherVersion(0)));
}

#[test]
fn a_payload_has_a_bound_and_fills_it() {
    let keyring = ring("c", &[ONE]);
    let long = vec![7; PAYLOAD_BYTES_MAX];
    let two = Letter { version: 2, ..letter(node("b", 6), Kind::Gossip, &long) };
    let frame = sealed(&keyring, &two);
    assert_eq!(frame.len(), FRAME_BYTES_MAX);
    assert_eq!(open_speaking(&keyring, node("b", 6), 2, &frame).unwrap().payload, long);
    let longer = vec![7; PAYLOAD_BYTES_MAX + 1];
    assert!(seal(keyring.sealing(), &letter(node("b", 6), Kind::Gossip, &longer), [3; NONCE_BYTES]).is_none());
    let too_long = [frame, vec![0]].concat();
    assert_eq!(open_speaking(&keyring, node("b", 6), 2, &too_long), Err(Refusal::TooLong));
}

#[test]
fn an_address_that_cannot_be_answered_is_refused() {
    let keyring = ring("c", &[ONE]);
    for address in ["0.0.0.0:10101", "127.0.0.1:0", "224.0.0.251:10101", "[::]:10101"] {
        let letter = Letter { address: address.parse().unwrap(), ..letter(node("b", 6), Kind::Gossip, b"") };
        assert_eq!(open_as(&keyring, node("b", 6), &sealed(&keyring, &letter)), Err(Refusal::Malformed), "{address}");
    }
}

#[test]
fn a_name_has_at_most_twelve_bytes() {
    assert_eq!(NodeName::new("abcdefghijkl").unwrap().to_string(), "abcdefghijkl");
    assert!(NodeName::new("abcdefghijklm").is_none());
    assert!(NodeName::new("a\0b").is_none());
}

#[test]
fn each_refusal_has_a_name_of_its_own() {
    let mut names = Refusal::NAMES.to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Refusal::NAMES.len());
    assert_eq!(Refusal::NAMES[Refusal::TooManySenders.index()], "refused_too_many_senders");
    assert_eq!(Refusal::NAMES[Refusal::OtherKey(KeyId::NONE).index()], "refused_other_key");
}

#[test]
fn generations_from_beyond_all_time_are_not_read() {
    let keyring = ring("c", &[ONE]);
    let from = |generation| Letter { from: node("a", generation), ..letter(node("b", 6), Kind::Gossip, b"") };
    let taken = |letter: &Letter<'_>| open_as(&keyring, node("b", 6), &sealed(&keyring, letter));
    assert!(taken(&from(GENERATION_MAX)).is_ok());
    assert_eq!(taken(&from(GENERATION_MAX + 1)), Err(Refusal::Malformed));
    let to = letter(node("b", u64::MAX), Kind::Gossip, b"");
    assert_eq!(taken(&to), Err(Refusal::Malformed), "of us");
}

proptest! {
    #[test]
    fn any_bytes_are_answered_and_opened_by_nobody(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(open_as(&ring("c", &[ONE]), node("b", 6), &bytes).is_err());
        let with_header = [&frame()[..HEADER_BYTES], &bytes].concat();
        prop_assert!(open_as(&ring("c", &[ONE]), node("b", 6), &with_header).is_err());
    }

    #[test]
    fn any_letter_comes_out_as_it_went_in(
        payload in prop::collection::vec(any::<u8>(), 0..2_000),
        sequence: u64,
        generation in 0..=GENERATION_MAX,
        kind in prop_oneof![Just(Kind::Pong), Just(Kind::Gossip), (16..=255u8).prop_map(Kind::Topic)],
        nonce: [u8; NONCE_BYTES],
    ) {
        let keyring = ring("c", &[ONE]);
        let to = node("b", generation);
        let letter = Letter { sequence, ..letter(to, kind, &payload) };
        let opened = open_as(&keyring, to, &seal(keyring.sealing(), &letter, nonce).unwrap()).unwrap();
        prop_assert_eq!((opened.sequence, opened.kind, opened.to), (sequence, kind, to));
        prop_assert_eq!(opened.payload, payload);
    }
}
