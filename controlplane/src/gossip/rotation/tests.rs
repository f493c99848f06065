use super::*;
use crate::gossip::values::{About, NodeValues};
use crate::member::Member;
use shared::clock::Nanos;

fn key(id: &str) -> NamedKey {
    NamedKey { id: id.into(), secret: Secret::new(id) }
}

fn ring(ids: &[&str]) -> Rotation {
    Rotation::new(ids.iter().map(|id| key(id)).collect())
}

/// Peers by id and health, with what each accepts.
fn view(peers: &[(&str, Health, &[&str])]) -> View {
    let member = |(id, health, keys): &(&str, Health, &[&str])| Member {
        id: (*id).into(),
        generation: 1,
        address: "10.0.0.2:10101".parse().unwrap(),
        health: *health,
        values: NodeValues {
            about: About { gossip_keys: keys.iter().map(ToString::to_string).collect(), ..About::default() },
            ..NodeValues::default()
        },
        heard_at: Nanos(0),
        round_trip: None,
        clock_offset_ms: None,
        is_tcp_only: false,
        speaks_our_key: true,
    };
    View { members: peers.iter().map(member).collect(), ..View::default() }
}

fn sent(rotation: &Rotation) -> Vec<String> {
    rotation.secrets().iter().map(|secret| secret.expose().to_owned()).collect()
}

#[test]
fn a_key_is_added_sent_with_and_the_old_one_dropped() {
    let mut ring = ring(&["old"]);
    let everybody = view(&[("b", Health::Healthy, &["old", "new"]), ("c", Health::Suspect, &["new", "old"])]);
    assert_eq!(ring.add(key("new")), Ok(true));
    assert_eq!(ring.ids(), ["old", "new"], "what is added does not send");
    assert_eq!(ring.send_with("new", &everybody, false), Ok(true));
    assert_eq!(sent(&ring), ["new", "old"]);
    let done = view(&[("b", Health::Healthy, &["new", "old"])]);
    assert_eq!(ring.drop_key("old", &done, false), Ok(()));
    assert_eq!(sent(&ring), ["new"]);
}

#[test]
fn nothing_is_sent_that_a_live_node_does_not_accept_unless_forced() {
    let mut ring = ring(&["old", "new"]);
    let some = view(&[
        ("b", Health::Suspect, &["old"]),
        ("c", Health::Healthy, &["old", "new"]),
        ("d", Health::Healthy, &[]),
        ("e", Health::Dead, &["old"]),
        ("f", Health::Leaving, &["old"]),
    ]);
    let refused = RotationRefused::NotAccepted { id: "new".into(), nodes: vec!["b".into(), "d".into()] };
    assert_eq!(ring.send_with("new", &some, false), Err(refused));
    assert_eq!(ring.ids(), ["old", "new"]);
    assert_eq!(ring.send_with("new", &some, true), Ok(true));
    assert_eq!(ring.send_with("new", &some, true), Ok(false), "it does already");
}

#[test]
fn no_key_is_dropped_that_is_sent_with() {
    let mut ring = ring(&["new", "old"]);
    let late = view(&[("b", Health::Healthy, &["old", "new"])]);
    assert_eq!(ring.drop_key("new", &late, true), Err(RotationRefused::Sending("new".into())));
    let refused = RotationRefused::StillSent { id: "old".into(), nodes: vec!["b".into()] };
    assert_eq!(ring.drop_key("old", &late, false), Err(refused));
    assert_eq!(ring.ids(), ["new", "old"]);
    assert_eq!(ring.drop_key("old", &late, true), Ok(()));
    assert_eq!(ring.drop_key("old", &late, true), Err(RotationRefused::Unknown("old".into())));
}

#[test]
fn a_ring_is_never_begun_by_hand_and_has_an_end() {
    assert_eq!(ring(&[]).add(key("first")), Err(RotationRefused::NoKeys));
    let mut ring = ring(&["a"]);
    for at in 1..KEYS_MAX {
        assert_eq!(ring.add(key(&at.to_string())), Ok(true));
    }
    assert_eq!(ring.add(key("more")), Err(RotationRefused::Full));
    assert_eq!(ring.add(key("a")), Ok(false));
    assert_eq!(ring.send_with("more", &View::default(), true), Err(RotationRefused::Unknown("more".into())));
}

#[test]
fn a_configuration_that_is_read_again_waits_until_everybody_accepts_its_first_key() {
    let mut ring = ring(&["old"]);
    ring.configure(vec![key("new"), key("old")]);
    assert_eq!(ring.ids(), ["old", "new"]);
    assert!(!ring.settle(&view(&[("b", Health::Healthy, &["old"])])));
    assert!(ring.settle(&view(&[("b", Health::Healthy, &["old", "new"])])));
    assert_eq!(ring.ids(), ["new", "old"]);
    assert!(!ring.settle(&View::default()), "once");
}

#[test]
fn a_node_that_starts_sends_with_its_first_key_at_once() {
    let mut ring = ring(&["new", "old"]);
    assert!(!ring.settle(&View::default()));
    assert_eq!(ring.ids(), ["new", "old"]);
}

#[test]
fn keys_that_were_added_outlive_a_configuration_and_those_taken_out_of_it_do_not() {
    let mut ring = ring(&["old"]);
    ring.add(key("extra")).unwrap();
    ring.configure(vec![key("new")]);
    assert_eq!(ring.ids(), ["new", "extra"]);
    // Written into the configuration afterwards, it belongs to it.
    ring.configure(vec![key("new"), key("extra")]);
    assert!(ring.status(&View::default()).iter().all(|key| key.is_configured));
    ring.configure(vec![key("new")]);
    assert_eq!(ring.ids(), ["new"]);
}

#[test]
fn operators_see_who_accepts_and_who_sends_with_each_key() {
    let ring = ring(&["new", "old"]);
    let nodes = view(&[("b", Health::Healthy, &["old", "new"]), ("c", Health::Healthy, &["old"])]);
    let status = ring.status(&nodes);
    let new = KeyStatus {
        id: "new".into(),
        sends: true,
        is_configured: true,
        accepted_by: vec!["b".into()],
        not_accepted_by: vec!["c".into()],
        sent_by: vec![],
    };
    assert_eq!(status[0], new);
    assert_eq!((status[1].sends, status[1].sent_by.as_slice()), (false, &["b".to_owned(), "c".to_owned()][..]));
}

#[test]
fn a_configuration_that_says_what_it_said_before_undoes_no_step_made_by_hand() {
    let mut ring = ring(&["old"]);
    ring.add(key("new")).unwrap();
    ring.send_with("new", &View::default(), false).unwrap();
    ring.configure(vec![key("old")]);
    assert!(!ring.settle(&View::default()));
    assert_eq!(ring.ids(), ["new", "old"]);
}
