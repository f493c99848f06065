//! Rests of several nodes, in virtual time.

use super::super::tests::{at, member};
use super::*;
use crate::gossip::values::NodeValues;
use proptest::prelude::*;

fn labels_of(key: &str) -> KeyLabels {
    KeyLabels { provider: "p".into(), key: key.into() }
}

fn rests() -> Rests {
    let mut rests = Rests::default();
    rests.configure(["a", "b"].map(labels_of).into());
    rests
}

fn own(key: &str, reason: RestReason, until: u64) -> RestingKey {
    RestingKey { provider: "p".into(), key: key.into(), model: None, reason, until: at(until) }
}

fn said(key: &str, reason: &str, remaining_ms: u64, number: u64) -> Rest {
    Rest { provider: "p".into(), key: key.into(), model: None, reason: reason.into(), remaining_ms, number }
}

fn view(id: &str, health: Health, rests: Vec<Rest>) -> View {
    let values = NodeValues { rests, ..NodeValues::default() };
    View { members: vec![member(id, health, values)], ..View::default() }
}

/// Keys that rest, with the end of their rest in milliseconds.
fn resting(rests: &mut Rests, now: u64) -> Vec<(String, u64)> {
    rests.now(at(now)).0.into_iter().map(|one| (one.key, one.until.0 / 1_000_000)).collect()
}

#[test]
fn a_rest_of_another_node_counts_from_when_it_was_first_seen() {
    let mut rests = rests();
    rests.hear(&view("n", Health::Healthy, vec![said("a", "limited", 5_000, 1)]), at(1_000));
    // What is left is told in coarse steps: hearing the same again prolongs nothing.
    rests.hear(&view("n", Health::Healthy, vec![said("a", "limited", 5_000, 1)]), at(4_000));
    assert_eq!(resting(&mut rests, 5_999), [("a".into(), 6_000)]);
    rests.hear(&view("n", Health::Healthy, vec![said("a", "limited", 5_000, 1)]), at(7_000));
    assert_eq!(resting(&mut rests, 7_000), []);
    rests.hear(&view("n", Health::Suspect, vec![said("a", "limited", 5_000, 2)]), at(8_000));
    assert_eq!(resting(&mut rests, 8_000), [("a".into(), 13_000)], "another rest of the same key");
}

#[test]
fn a_rest_ends_when_its_owner_takes_it_back_and_runs_out_when_the_owner_is_dead() {
    let mut rests = rests();
    let two = || vec![said("a", "refused", 60_000, 1), said("b", "refused", 60_000, 2)];
    rests.hear(&view("n", Health::Healthy, two()), at(0));
    rests.hear(&view("n", Health::Healthy, vec![said("b", "refused", 60_000, 2)]), at(1_000));
    assert_eq!(resting(&mut rests, 1_000), [("b".into(), 60_000)]);
    rests.hear(&view("n", Health::Dead, Vec::new()), at(2_000));
    rests.hear(&View::default(), at(3_000));
    assert_eq!(resting(&mut rests, 59_999), [("b".into(), 60_000)]);
    assert_eq!(resting(&mut rests, 60_000), []);
    rests.hear(&View::default(), at(60_000));
    assert!(rests.heard.is_empty());
}

#[test]
fn nobody_is_believed_for_longer_than_the_reason_is_worth() {
    let mut rests = rests();
    let for_ever = vec![said("a", "refused", u64::MAX, 1), said("b", "limited", u64::MAX, 2)];
    rests.hear(&view("n", Health::Healthy, for_ever.clone()), at(0));
    assert_eq!(resting(&mut rests, 0), [("a".into(), 600_000), ("b".into(), 3_600_000)]);
    rests.hear(&view("n", Health::Healthy, for_ever), at(700_000));
    assert_eq!(resting(&mut rests, 700_000), [("b".into(), 3_600_000)], "saying it again makes it no longer");
}

#[test]
fn strange_words_of_a_peer_change_nothing() {
    let mut rests = rests();
    let strange = vec![said("unknown", "limited", 9, 1), said("a", "tired", 9, 2), said("a", "denied", 9_000, 3)];
    rests.hear(&view("n", Health::Healthy, strange), at(0));
    assert!(rests.heard.is_empty());
    let many = |id: &str| view(id, Health::Healthy, (0..10_000).map(|n| said("a", "limited", 1_000, n)).collect());
    for node in 0..100 {
        let mut view = many(&format!("n{node}"));
        view.members.extend((0..node).flat_map(|node| many(&format!("n{node}")).members));
        view.members.truncate(40);
        rests.hear(&view, at(0));
        assert!(rests.heard.len() <= HEARD_MAX);
    }
}

#[test]
fn only_a_second_virtual_key_makes_a_denial_a_rest() {
    let mut rests = rests();
    let denial = |virtual_key: &str, model: &str| Denial {
        key: labels_of("a"),
        model: model.into(),
        virtual_key: virtual_key.into(),
    };
    assert_eq!(rests.denied(denial("one", "m"), at(0)), None);
    assert_eq!(rests.denied(denial("one", "m"), at(1_000)), None, "the same one again");
    assert_eq!(rests.denied(denial("two", "n"), at(1_000)), None, "another model");
    assert_eq!(rests.denied(denial("two", "m"), at(61_000)), None, "too long after the first");
    let rest = rests.denied(denial("one", "m"), at(62_000)).expect("a second one");
    assert_eq!((rest.model.as_deref(), rest.reason, rest.until), (Some("m"), RestReason::Denied, at(122_000)));
    for number in 0..1_000 {
        rests.denied(denial("one", &format!("model-{number}")), at(62_000));
    }
    assert!(rests.denials.len() <= DENIALS_MAX);
}

#[test]
fn a_key_that_wakes_gets_its_share_step_by_step() {
    let mut rests = rests();
    rests.rest(own("a", RestReason::Limited, 60_000), at(0));
    let mut share = |now| rests.now(at(now)).1.first().map(|weight| weight.permille);
    let seen: Vec<_> = [0, 59_999, 60_000, 64_999, 65_000, 70_000, 75_000, 80_000, 85_000].map(&mut share).into();
    let steps = [Some(10), Some(10), Some(10), Some(10), Some(50), Some(100), Some(250), Some(500), None];
    assert_eq!(seen, steps);
    let mut rests = self::rests();
    rests.rest(own("a", RestReason::Limited, 2_000), at(0));
    let mut share = |now| rests.now(at(now)).1.first().map(|weight| weight.permille);
    assert_eq!([0, 2_000, 2_500, 4_499, 4_500].map(&mut share), [Some(10), Some(10), Some(50), Some(500), None]);
}

proptest! {
    /// Whatever nodes say, a key rests no longer than the last word about it allows.
    #[test]
    fn every_rest_is_over_some_time(words in prop::collection::vec((0_u64..4, 0_u64..9, any::<u64>(), 0_u8..4, 0_u64..5_000), 1..60)) {
        let mut rests = rests();
        let mut now = 0;
        for (node, number, remaining, health, pause) in words {
            let health = [Health::Healthy, Health::Suspect, Health::Dead, Health::Leaving][usize::from(health)];
            let said = vec![said("a", "refused", remaining, number), said("b", "limited", remaining, number)];
            rests.hear(&view(&format!("n{node}"), health, said), at(now));
            let sorted = rests.now(at(now)).0;
            prop_assert!(sorted.is_sorted_by(|a, b| (&a.provider, &a.key) <= (&b.provider, &b.key)));
            prop_assert!(sorted.iter().all(|one| one.until > at(now) && one.until <= at(now + 3_600_000)));
            now += pause;
        }
        rests.hear(&View::default(), at(now));
        prop_assert_eq!(resting(&mut rests, now + 3_600_000), vec![]);
    }
}
