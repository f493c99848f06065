//! One core, one or two limits, a few requests.

use std::sync::Arc;

use shared::limit::{LimitRing, LimitRings, Refused as Demand, Window};

use super::*;

fn at(seconds: f64) -> Nanos {
    Nanos((seconds * 1e9) as u64)
}

/// A ring of a minute for each entitlement.
fn rings(entitlements: &[u64]) -> LimitRings {
    let window = Window::new(60_000_000_000).unwrap();
    entitlements.iter().map(|amount| Arc::new(LimitRing::new(window, *amount, at(0.0)))).collect()
}

fn requests(limit: u32) -> Charge {
    Charge { limit: LimitIndex(limit), unit: Unit::Requests, rule: ChargeRule::Settlement, amount: 1 }
}

fn tokens(limit: u32, rule: ChargeRule, amount: u64) -> Charge {
    Charge { limit: LimitIndex(limit), unit: Unit::Tokens, rule, amount }
}

fn at_once(limit: u32) -> Charge {
    Charge { limit: LimitIndex(limit), unit: Unit::Concurrent, rule: ChargeRule::Settlement, amount: 1 }
}

fn held(rings: &LimitRings, limit: usize) -> u64 {
    rings[limit].snapshot().held
}

#[test]
fn all_limits_or_none() {
    let rings = rings(&[10, 1_000, 1]);
    let slices = Slices::new(&rings);
    let charges = [requests(0), tokens(1, ChargeRule::Settlement, 400), requests(2)];
    let permit = slices.admit(&charges, at(1.0)).unwrap();
    let refused = slices.admit(&charges, at(1.0)).err().unwrap();
    assert_eq!((refused.limit, refused.unit), (LimitIndex(2), Unit::Requests));
    assert_eq!((refused.amount, refused.remaining), (1, 0));
    assert_eq!([0, 1, 2].map(|limit| rings[limit].used()), [1, 400, 1], "the first permit and nothing else");
    permit.cancel();
    assert_eq!([0, 1, 2].map(|limit| rings[limit].used()), [0, 0, 0]);
}

#[test]
fn a_refusal_names_the_longest_wait_of_all_limits() {
    let rings = rings(&[1, 1]);
    let slices = Slices::new(&rings);
    slices.admit(&[requests(0)], at(1.0)).unwrap().sent(at(1.0)).settle(0, at(1.0));
    slices.admit(&[requests(1)], at(31.0)).unwrap().sent(at(31.0)).settle(0, at(31.0));
    slices.tick(at(31.01));
    let refused = slices.admit(&[requests(0), requests(1)], at(40.0)).err().unwrap();
    assert_eq!(refused.limit, LimitIndex(1));
    let retry_after = refused.retry_after.unwrap();
    assert!(retry_after.as_secs_f64() > 51.0 && retry_after.as_secs_f64() < 51.5, "{retry_after:?}");
    let told = at(40.0).after(retry_after);
    assert!(slices.admit(&[requests(0), requests(1)], Nanos(told.0 - 1)).is_err());
    assert!(slices.admit(&[requests(0), requests(1)], told).is_ok());
}

#[test]
fn what_never_fits_has_no_retry_after() {
    let rings = rings(&[100]);
    let slices = Slices::new(&rings);
    let too_much = slices.admit(&[tokens(0, ChargeRule::Settlement, 101)], at(1.0));
    assert_eq!(too_much.err().unwrap().retry_after, None);
    let unknown = slices.admit(&[requests(7)], at(1.0));
    assert_eq!(unknown.err().unwrap().retry_after, None);
    let too_many = slices.admit(&[requests(0); LIMITS_PER_REQUEST_MAX + 1], at(1.0));
    assert_eq!(too_many.err().unwrap().retry_after, None);
    assert_eq!(rings[0].used(), 0);
}

#[test]
fn every_limit_without_room_knows_once_what_was_asked_of_it() {
    let rings = rings(&[10, 1_000, 1, 1]);
    let slices = Slices::new(&rings);
    let permit = slices.admit(&[requests(2), requests(3)], at(1.0)).unwrap();
    let charges = [requests(0), tokens(1, ChargeRule::Settlement, 400), requests(2), requests(3)];
    let demand = || [0, 1, 2, 3].map(|limit| rings[limit].take_refused());
    assert!(slices.admit(&charges, at(1.0)).is_err());
    assert!(slices.admit(&charges, at(1.0)).is_err());
    let (none, two) = (Demand::default(), Demand { units: 2, requests: 2, largest: 1 });
    assert_eq!(demand(), [none, none, two, two]);
    permit.cancel();
    assert!(slices.admit(&charges, at(1.0)).is_ok());
    let too_many = vec![requests(0); LIMITS_PER_REQUEST_MAX + 1];
    assert!(slices.admit(&too_many, at(1.0)).is_err());
    assert_eq!(demand(), [none; 4], "admitted, or refused by no limit");
    assert!(slices.admit(&[tokens(1, ChargeRule::Settlement, 1_001)], at(1.0)).is_err());
    assert_eq!(demand()[1], Demand { requests: 1, ..none }, "no entitlement could admit it");
}

#[test]
fn units_of_other_nodes_are_told_of_where_they_come_earlier() {
    let rings = rings(&[1]);
    let slices = Slices::new(&rings);
    rings[0].set_amount(10);
    slices.admit(&[requests(0)], at(1.0)).unwrap().sent(at(1.0)).settle(0, at(1.0));
    slices.tick(at(1.01));
    let told = |amount: u64, now: f64| {
        let charge = Charge { amount, ..tokens(0, ChargeRule::Settlement, amount) };
        slices.admit(&[charge], at(now)).err().unwrap().retry_after.map(|after| after.as_secs_f64().ceil())
    };
    assert_eq!((told(1, 2.0), told(2, 2.0)), (Some(60.0), Some(1.0)), "nobody knows of two");
    rings[0].set_elsewhere_at(Some(at(12.0)));
    assert_eq!((told(1, 2.0), told(2, 2.0)), (Some(10.0), Some(10.0)));
    rings[0].set_elsewhere_at(Some(at(300.0)));
    assert_eq!((told(1, 2.0), told(2, 2.0)), (Some(60.0), Some(298.0)));
    rings[0].set_elsewhere_at(Some(at(1.5)));
    assert_eq!((told(1, 2.0), told(11, 2.0)), (Some(1.0), None), "on their way, and never");
    rings[0].set_valid_until(at(2.5));
    rings[0].set_elsewhere_at(Some(at(7.0)));
    assert_eq!(told(1, 3.0), Some(4.0), "the lease has ended");
    rings[0].set_elsewhere_at(None);
    assert_eq!(told(1, 3.0), Some(1.0));
}

#[test]
fn a_slice_in_hand_is_worth_nothing_after_the_lease() {
    let rings = rings(&[10_000]);
    let slices = Slices::new(&rings);
    rings[0].set_valid_until(at(2.0));
    let permit = slices.admit(&[requests(0)], at(2.0)).unwrap();
    assert_eq!(rings[0].used(), 20, "units in hand");
    let refused = slices.admit(&[requests(0)], at(2.001)).err().unwrap();
    assert_eq!((refused.retry_after, refused.remaining), (Some(Duration::from_secs(1)), 0));
    assert_eq!(rings[0].used(), 1, "they went back");
    assert_eq!(rings[0].take_refused(), Demand { units: 1, requests: 1, largest: 1 });
    permit.sent(at(2.002)).settle(0, at(2.1));
    rings[0].set_valid_until(at(9.0));
    assert!(slices.admit(&[requests(0)], at(2.2)).is_ok());
}

#[test]
fn a_request_counts_from_its_first_byte() {
    let rings = rings(&[1]);
    let slices = Slices::new(&rings);
    let permit = slices.admit(&[requests(0)], at(1.0)).unwrap();
    assert!(!permit.is_stale(at(1.25)));
    assert!(permit.is_stale(at(1.26)));
    slices.tick(at(50.0));
    let sent = permit.sent(at(50.0));
    slices.tick(at(50.01));
    assert_eq!(held(&rings, 0), 0);
    drop(sent);
    assert!(slices.admit(&[requests(0)], at(109.9)).is_err(), "a minute from 50, not from 1");
    assert!(slices.admit(&[requests(0)], at(110.5)).is_ok());
}

#[test]
fn tokens_are_held_until_settled_and_counted_from_then() {
    let rings = rings(&[1_000]);
    let slices = Slices::new(&rings);
    let charge = [tokens(0, ChargeRule::Settlement, 600)];
    let sent = slices.admit(&charge, at(1.0)).unwrap().sent(at(1.0));
    slices.tick(at(30.0));
    assert_eq!(held(&rings, 0), 600);
    assert!(slices.admit(&charge, at(70.0)).is_err(), "still running, so still held");
    assert_eq!(sent.settle(150, at(80.0)), Settled { overshoot_tokens: 0 });
    slices.tick(at(80.01));
    slices.tick(at(80.2));
    assert_eq!((rings[0].used(), held(&rings, 0)), (150, 0));
    slices.tick(at(139.0));
    assert_eq!(rings[0].used(), 150, "a minute from the end");
    rings[0].advance(at(140.6));
    assert_eq!(rings[0].used(), 0);
}

#[test]
fn tokens_beyond_the_reservation_are_counted_and_told() {
    let rings = rings(&[1_000, 1_000]);
    let slices = Slices::new(&rings);
    let charges = [tokens(0, ChargeRule::Settlement, 900), tokens(1, ChargeRule::Admission, 400)];
    let sent = slices.admit(&charges, at(1.0)).unwrap().sent(at(1.0));
    assert_eq!(sent.settle(1_200, at(2.0)), Settled { overshoot_tokens: 800 });
    slices.tick(at(2.01));
    assert_eq!((rings[0].used(), rings[1].used()), (1_200, 1_200));
}

#[test]
fn limits_may_count_different_tokens() {
    let rings = rings(&[1_000, 1_000]);
    let slices = Slices::new(&rings);
    let charges = [tokens(0, ChargeRule::Settlement, 300), tokens(1, ChargeRule::Settlement, 700)];
    let sent = slices.admit(&charges, at(1.0)).unwrap().sent(at(1.0));
    sent.settle_each(|charge| if charge.limit == LimitIndex(0) { 200 } else { 50 }, at(2.0));
    slices.tick(at(2.01));
    assert_eq!((rings[0].used(), rings[1].used()), (200, 50));
}

#[test]
fn the_providers_own_formula_gives_nothing_back() {
    let rings = rings(&[1_000, 1_000]);
    let slices = Slices::new(&rings);
    let charges = [tokens(0, ChargeRule::Admission, 800), tokens(1, ChargeRule::AdmissionRefunded, 800)];
    let sent = slices.admit(&charges, at(1.0)).unwrap().sent(at(1.0));
    slices.tick(at(1.01));
    assert_eq!((held(&rings, 0), held(&rings, 1)), (0, 0), "both are stamped when sent");
    sent.settle(100, at(20.0));
    slices.tick(at(20.01));
    assert_eq!((rings[0].used(), rings[1].used()), (800, 100));
    slices.tick(at(61.0));
    rings.iter().for_each(|ring| _ = ring.advance(at(61.5)));
    assert_eq!((rings[0].used(), rings[1].used()), (0, 0), "a minute from the first byte");
}

#[test]
fn either_way_what_was_used_counts_from_the_end_and_the_rest_from_the_beginning() {
    let rings = rings(&[1_000]);
    let slices = Slices::new(&rings);
    let sent = slices.admit(&[tokens(0, ChargeRule::Either, 800)], at(1.0)).unwrap().sent(at(1.0));
    slices.tick(at(1.01));
    assert_eq!(held(&rings, 0), 800);
    sent.settle(100, at(20.0));
    slices.tick(at(20.01));
    let used_at = |seconds| {
        rings[0].advance(at(seconds));
        rings[0].used()
    };
    assert_eq!((used_at(61.0), used_at(61.6), used_at(80.0), used_at(80.6)), (800, 100, 100, 0));
    let late = slices.admit(&[tokens(0, ChargeRule::Either, 800)], at(90.0)).unwrap().sent(at(90.0));
    late.settle(100, at(200.0));
    slices.tick(at(200.01));
    assert_eq!(rings[0].used(), 100, "a minute after it was sent nobody counts the rest");
}

#[test]
fn a_refund_after_the_window_changes_nothing() {
    let rings = rings(&[1_000]);
    let slices = Slices::new(&rings);
    let charge = [tokens(0, ChargeRule::AdmissionRefunded, 800)];
    let sent = slices.admit(&charge, at(1.0)).unwrap().sent(at(1.0));
    let other = slices.admit(&charge, at(70.0)).unwrap().sent(at(70.0));
    sent.settle(0, at(71.0));
    assert_eq!(rings[0].used(), 800);
    other.settle(800, at(72.0));
}

#[test]
fn a_permit_dropped_before_it_was_sent_never_was() {
    let rings = rings(&[1, 1_000_000]);
    let slices = Slices::new(&rings);
    let charges = [requests(0), tokens(1, ChargeRule::Settlement, 100)];
    drop(slices.admit(&charges, at(1.0)).unwrap());
    assert_eq!(rings[0].used(), 0);
    slices.tick(at(1.2));
    assert_eq!(rings[1].used(), 0);
}

#[test]
fn a_permit_dropped_after_it_was_sent_counts_in_full() {
    let rings = rings(&[10, 1_000]);
    let slices = Slices::new(&rings);
    let charges = [requests(0), tokens(1, ChargeRule::Settlement, 700)];
    drop(slices.admit(&charges, at(1.0)).unwrap().sent(at(1.0)));
    slices.tick(at(1.01));
    assert_eq!([0, 1].map(|limit| (rings[limit].used(), held(&rings, limit))), [(1, 0), (700, 0)]);
    rings.iter().for_each(|ring| _ = ring.advance(at(61.6)));
    assert_eq!((rings[0].used(), rings[1].used()), (0, 0), "and is not held for ever");
}

#[test]
fn what_runs_at_once_is_held_until_its_end_and_no_longer() {
    let rings = rings(&[2, 1_000_000]);
    let slices = Slices::new(&rings);
    let settled = slices.admit(&[at_once(0), at_once(1)], at(1.0)).unwrap().sent(at(1.0));
    let dropped = slices.admit(&[at_once(0), at_once(1)], at(1.0)).unwrap().sent(at(1.0));
    slices.tick(at(300.0));
    let refused = slices.admit(&[at_once(0)], at(300.0)).err().unwrap();
    assert_eq!((refused.limit, refused.unit), (LimitIndex(0), Unit::Concurrent));
    assert_eq!((refused.retry_after, refused.remaining), (Some(Duration::from_secs(1)), 0));
    settled.settle(500, at(300.0));
    assert_eq!(rings[0].used(), 1);
    drop(dropped);
    slices.tick(at(300.01));
    slices.tick(at(301.0));
    assert_eq!((rings[0].used(), rings[1].used()), (0, 0), "nothing is left of them");
    drop(slices.admit(&[at_once(0)], at(302.0)).unwrap());
    assert_eq!(rings[0].used(), 0, "never sent");
}

#[test]
fn a_permit_outlives_the_configuration_it_was_admitted_under() {
    let before = rings(&[1_000, 1_000]);
    let slices = Slices::new(&before);
    let charges = [requests(0), tokens(1, ChargeRule::Settlement, 500)];
    let sent = slices.admit(&charges, at(1.0)).unwrap().sent(at(1.0));
    // The second limit moves to the front, the first is gone.
    let after: LimitRings = [Arc::clone(&before[1])].into_iter().collect();
    let slices = slices.following(&after);
    assert!(slices.admit(&[tokens(0, ChargeRule::Settlement, 600)], at(2.0)).is_err());
    sent.settle(200, at(3.0));
    slices.tick(at(3.01));
    slices.tick(at(3.2));
    assert_eq!((before[0].used(), before[1].used()), (1, 200));
    assert_eq!((held(&before, 0), held(&before, 1)), (0, 0));
    assert!(Rc::ptr_eq(&slices, &slices.following(&after)));
}

#[test]
fn standing_shows_the_tightest_limit_of_each_unit() {
    let rings = rings(&[10, 100, 1_000]);
    let slices = Slices::new(&rings);
    let charges = [requests(0), requests(1), tokens(2, ChargeRule::Settlement, 250)];
    let permit = slices.admit(&charges, at(1.0)).unwrap();
    let standing = permit.standing(Unit::Requests).unwrap();
    assert_eq!((standing.limit, standing.amount, standing.remaining), (LimitIndex(0), 10, 9));
    assert_eq!(standing.reset.as_secs(), 60);
    let sent = permit.sent(at(1.0));
    assert_eq!(sent.standing(Unit::Tokens).unwrap().remaining, 750);
    sent.settle(0, at(1.0));
    assert_eq!(slices.admit(&[requests(0)], at(1.0)).unwrap().standing(Unit::Tokens), None);
}

#[test]
fn a_small_limit_is_whole_for_every_core() {
    for limit in [1, 2, 5, 10] {
        let rings = rings(&[limit]);
        let cores: Vec<_> = (0..4).map(|_| Slices::new(&rings)).collect();
        for core in &cores {
            let permits: Vec<_> = (0..limit).map(|_| core.admit(&[requests(0)], at(1.0)).unwrap()).collect();
            for other in &cores {
                assert!(other.admit(&[requests(0)], at(1.0)).is_err());
            }
            drop(permits);
        }
    }
}

#[test]
fn a_slice_is_small_and_comes_back_when_idle() {
    let rings = rings(&[10_000]);
    let slices = Slices::new(&rings);
    let permits: Vec<_> = (0..5).map(|_| slices.admit(&[requests(0)], at(1.0)).unwrap()).collect();
    assert_eq!(rings[0].used(), 20, "0.2 % at once");
    slices.tick(at(1.05));
    assert_eq!(rings[0].used(), 20);
    slices.tick(at(1.1));
    assert_eq!(rings[0].used(), 5);
    drop(permits);
    slices.tick(at(1.2));
    assert_eq!(rings[0].used(), 0);
}

#[test]
fn a_slice_in_hand_does_not_outlive_a_lowered_entitlement() {
    let rings = rings(&[10_000]);
    let slices = Slices::new(&rings);
    slices.admit(&[requests(0)], at(1.0)).unwrap().sent(at(1.0)).settle(0, at(1.0));
    rings[0].set_entitlement(1);
    assert!(slices.admit(&[requests(0)], at(1.0)).is_err());
    assert_eq!(rings[0].used(), 1);
    rings[0].set_entitlement(2);
    assert!(slices.admit(&[requests(0)], at(1.0)).is_ok());
}

#[test]
fn the_last_units_are_not_locked_in_slices_of_other_cores() {
    let rings = rings(&[5_000]);
    let cores: Vec<_> = (0..8).map(|_| Slices::new(&rings)).collect();
    let mut permits: Vec<_> = cores.iter().map(|core| core.admit(&[requests(0)], at(1.0)).unwrap()).collect();
    while let Ok(permit) = cores[0].admit(&[requests(0)], at(1.0)) {
        permits.push(permit);
    }
    assert_eq!(permits.len(), 5_000 - 7 * 9, "seven cores have nine units left of ten");
    for core in &cores {
        core.tick(at(1.005));
    }
    while let Ok(permit) = cores[0].admit(&[requests(0)], at(1.01)) {
        permits.push(permit);
    }
    assert_eq!(permits.len(), 5_000, "the next tick gives them back, long before they are idle");
}

#[test]
fn slices_shrink_with_what_is_left() {
    let rings = rings(&[5_000]);
    let cores: Vec<_> = (0..32).map(|_| Slices::new(&rings)).collect();
    assert!(rings[0].try_hold(4_900, at(1.0)));
    let permits: Vec<_> = cores.iter().map(|core| core.admit(&[requests(0)], at(1.0)).unwrap()).collect();
    assert!(rings[0].free() > 0, "slices of ten would have left the last cores without a unit");
    drop(permits);
}
