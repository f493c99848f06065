use super::*;
use crate::gossip::transport::decode;
use std::net::SocketAddr;

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10_101);

fn id(name: &str) -> ChitchatId {
    ChitchatId::new(name, 1, ADDRESS)
}

fn sieve() -> Sieve {
    Sieve::new(id("us"), "c".to_owned())
}

fn digest(ids: &[ChitchatId]) -> Vec<u8> {
    let mut bytes = (ids.len() as u16).to_le_bytes().to_vec();
    for id in ids {
        id.serialize(&mut bytes);
        bytes.extend([1; DIGEST_NODE_BYTES]);
    }
    bytes
}

fn syn(ids: &[ChitchatId]) -> Vec<u8> {
    [&START[..], &[SYN], &digest(ids), &[1, 0, b'c']].concat()
}

fn node(id: &ChitchatId) -> Vec<u8> {
    [&[Step::NODE], id.serialize_to_vec().as_slice(), &[0; 16]].concat()
}

fn key_value(key: &str, value: &str, version: u64) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_le_bytes(), text.as_bytes()].concat();
    [&[Step::KEY_VALUE], text(key).as_slice(), &text(value), &version.to_le_bytes(), &[0]].concat()
}

fn max_version(version: u64) -> Vec<u8> {
    [&[Step::MAX_VERSION], version.to_le_bytes().as_slice()].concat()
}

/// Packed as chitchat does it.
fn packed(steps: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in steps.chunks(16_384) {
        let packed = zstd::bulk::compress(block, 0).unwrap();
        bytes.push(Block::Packed as u8);
        bytes.extend((packed.len() as u16).to_le_bytes());
        bytes.extend(packed);
    }
    [bytes.as_slice(), &[Block::End as u8]].concat()
}

fn syn_ack(ids: &[ChitchatId], steps: &[Vec<u8>]) -> Vec<u8> {
    [&START[..], &[SYN_ACK], &digest(ids), &packed(&steps.concat())].concat()
}

/// The steps of a delta that passed.
fn passed(message: &[u8], digest_bytes: usize) -> Vec<u8> {
    let mut rest = Cursor(&message[4 + digest_bytes..]);
    let (steps, is_cut) = inflate(&mut rest).unwrap();
    assert!(!is_cut && rest.0.is_empty());
    assert!(decode(message).is_some(), "chitchat takes it");
    steps
}

#[test]
fn what_a_peer_says_that_is_well_passes_as_it_is() {
    let mut sieve = sieve();
    let (a, b) = (id("a"), id("b"));
    let told = syn(&[a.clone(), b.clone(), id("us")]);
    assert_eq!(sieve.pass(&told), Some(told));
    let ids = [a.clone(), b.clone()];
    let steps = [node(&a), key_value("k", "v", 1), key_value("l", "", 7), node(&b), max_version(3)];
    let message = sieve.pass(&syn_ack(&ids, &steps)).unwrap();
    assert_eq!(passed(&message, digest(&ids).len()), steps.concat());
    let ack = [&START[..], &[ACK], &packed(&steps.concat())].concat();
    assert_eq!(passed(&sieve.pass(&ack).unwrap(), 0), steps.concat());
    assert_eq!(sieve.left_out(), LeftOut::default());
}

#[test]
fn nodes_without_a_valid_id_or_address_do_not_pass() {
    let mut sieve = sieve();
    let odd = ["", "a b", "thirteen_long", "é"].map(id);
    let nowhere = ["0.0.0.0:1", "127.0.0.1:0", "[ff02::1]:1"].map(|at| ChitchatId::new("a", 1, at.parse().unwrap()));
    let all = [odd.as_slice(), &nowhere, &[id("b")]].concat();
    assert_eq!(sieve.pass(&syn(&all)), Some(syn(&[id("b")])));
    assert_eq!(sieve.left_out(), LeftOut { invalid_nodes: 7, ..LeftOut::default() });
}

#[test]
fn generations_from_beyond_all_time_do_not_pass_and_those_of_ours_end_sooner() {
    let mut sieve = sieve();
    let of = |name: &str, generation| ChitchatId::new(name, generation, ADDRESS);
    let beyond = [of("a", u64::MAX), of("a", GENERATION_MAX + 1), of("us", LATER_GENERATION_MAX)];
    assert_eq!(sieve.pass(&syn(&beyond)), Some(syn(&[])));
    assert_eq!(sieve.left_out(), LeftOut { invalid_nodes: 3, ..LeftOut::default() });
    let taken = syn(&[of("a", GENERATION_MAX), of("us", LATER_GENERATION_MAX - 1)]);
    assert_eq!(sieve.pass(&taken), Some(taken));
}

#[test]
fn five_thousand_names_fill_the_digest_no_further_than_its_bound_and_those_before_stay() {
    let mut sieve = sieve();
    assert_eq!(sieve.pass(&syn(&[id("a")])), Some(syn(&[id("a")])));
    for begin in (0..5_000).step_by(1_000) {
        let names: Vec<_> = (begin..begin + 1_000).map(|number| id(&format!("x{number:011}"))).collect();
        sieve.pass(&syn(&names)).unwrap();
    }
    let bytes: usize = sieve.known.keys().map(digest_bytes).sum();
    assert!((DIGEST_BYTES_MAX - 100..=DIGEST_BYTES_MAX).contains(&bytes), "{bytes}");
    assert_eq!(sieve.left_out().crowded_nodes as usize, 5_000 + 2 - sieve.known.len());
    assert_eq!(sieve.pass(&syn(&[id("a"), id("late")])), Some(syn(&[id("a")])));
    // chitchat knows none of them, as if all were long dead.
    sieve.newest.clear();
    sieve.follow(&BTreeMap::new());
    assert_eq!(sieve.pass(&syn(&[id("late")])), Some(syn(&[id("late")])));
    sieve.follow(&BTreeMap::new());
    assert_eq!(sieve.known.keys().collect::<Vec<_>>(), [&id("late")], "it is on its way to chitchat");
}

#[test]
fn nobody_speaks_for_us_nor_about_those_who_did_not_pass() {
    let mut sieve = sieve();
    let steps = [node(&id("us")), key_value("k", "v", u64::MAX), node(&id("stranger")), key_value("k", "v", 1)];
    let message = sieve.pass(&syn_ack(&[], &steps)).unwrap();
    assert_eq!(passed(&message, 2), b"");
}

#[test]
fn thousands_of_keys_and_large_values_end_at_their_bounds_and_are_not_asked_for_again() {
    let mut sieve = sieve();
    let a = id("a");
    let keys = (1..=3_000).map(|version| key_value(&format!("key{version}"), "v", version));
    let steps: Vec<_> = std::iter::once(node(&a)).chain(keys).collect();
    let ids = [a.clone()];
    let message = sieve.pass(&syn_ack(&ids, &steps)).unwrap();
    let kept = [&steps[..=KEYS_OF_NODE_MAX], &[max_version(3_000)]].concat();
    assert_eq!(passed(&message, digest(&ids).len()), kept.concat());
    assert_eq!(sieve.left_out().values as usize, 3_000 - KEYS_OF_NODE_MAX);

    let large = "v".repeat(60_000);
    let steps =
        [node(&a), key_value("key1", &large, 3_001), key_value("key2", "w", 3_002), key_value("new", "", 3_003)];
    let message = sieve.pass(&syn_ack(&ids, &steps)).unwrap();
    let kept = [steps[0].clone(), steps[2].clone(), max_version(3_003)];
    assert_eq!(passed(&message, digest(&ids).len()), kept.concat(), "known keys go on");
}

#[test]
fn versions_that_go_back_do_not_pass() {
    let mut sieve = sieve();
    let ids = [id("a")];
    let goes_back = [node(&id("a")), key_value("k", "v", 10), max_version(5)];
    assert_eq!(sieve.pass(&syn_ack(&ids, &goes_back)), None);
    assert_eq!(sieve.pass(&syn_ack(&ids, &[max_version(5)])), None, "of nobody");
}

#[test]
fn a_delta_that_grows_to_two_hundred_megabytes_costs_one_and_what_came_first_is_taken() {
    let mut sieve = sieve();
    let a = id("a");
    let steps = [node(&a), key_value("k", "v", 1)].concat();
    let mut message = [&START[..], &[SYN_ACK], &digest(std::slice::from_ref(&a)), &packed(&steps)].concat();
    message.pop();
    // Values of zeros, as long as a text may be.
    let bomb = zstd::bulk::compress(&vec![0; BLOCK_BYTES_MAX], 19).unwrap();
    while message.len() < 65_000 {
        message.push(Block::Packed as u8);
        message.extend((bomb.len() as u16).to_le_bytes());
        message.extend(&bomb);
    }
    message.push(Block::End as u8);
    let mut rest = Cursor(&message[4 + digest(std::slice::from_ref(&a)).len()..]);
    let (inflated, is_cut) = inflate(&mut rest).unwrap();
    assert!(is_cut && inflated.len() == DELTA_BYTES_MAX && inflated.capacity() <= 2 * DELTA_BYTES_MAX);
    // The zeros name no node: the reading ends there.
    assert_eq!(passed(&sieve.pass(&message).unwrap(), digest(std::slice::from_ref(&a)).len()), steps);
    assert_eq!(sieve.left_out().cut_deltas, 1);
}

#[test]
fn a_true_delta_that_is_longer_than_a_megabyte_passes_in_parts() {
    let mut sieve = sieve();
    let ids: Vec<_> = (0..400).map(|number| id(&format!("n{number}"))).collect();
    let value = "0".repeat(4_000);
    let steps: Vec<_> = ids.iter().flat_map(|id| [node(id), key_value("k", &value, 1)]).collect();
    let message = sieve.pass(&syn_ack(&ids, &steps)).unwrap();
    let taken = passed(&message, digest(&ids).len());
    assert!(taken.len() > DELTA_BYTES_MAX - 4_200, "{}", taken.len());
    assert_eq!(steps.concat().get(..taken.len()), Some(taken.as_slice()));
    assert_eq!(sieve.left_out(), LeftOut { cut_deltas: 1, ..LeftOut::default() });
}

#[test]
fn other_clusters_and_what_is_no_message_do_not_pass() {
    let mut sieve = sieve();
    let other = [&START[..], &[SYN], &digest(&[]), &[1, 0, b'd']].concat();
    let behind = [syn(&[]).as_slice(), &[0]].concat();
    let says_that_we_are = [&START[..], &[3]].concat();
    for message in [other, behind, says_that_we_are, b"".to_vec(), [&[9; 3][..], &[SYN]].concat()] {
        assert_eq!(sieve.pass(&message), None, "{message:?}");
    }
}
