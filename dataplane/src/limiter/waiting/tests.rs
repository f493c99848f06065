//! One core, a few requests that wait, and its ticks.

use super::*;
use shared::limit::{ChargeRule, LimitIndex, LimitRing, LimitRings, Refused as Demand, Unit, Window};
use std::sync::Arc;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: f64) -> Nanos {
    Nanos((seconds * 1e9) as u64)
}

/// A ring of a minute for each amount.
fn rings(amounts: &[u64]) -> LimitRings {
    let window = Window::new(60_000_000_000).unwrap();
    amounts.iter().map(|amount| Arc::new(LimitRing::new(window, *amount, at(0.0)))).collect()
}

fn tokens(limit: u32, amount: u64) -> Charge {
    Charge { limit: LimitIndex(limit), unit: Unit::Tokens, rule: ChargeRule::Settlement, amount }
}

/// Waits for a minute and more, so that what is spent now may come back.
fn patient() -> impl Iterator<Item = Patience> {
    std::iter::repeat(Patience { max_wait: 90 * SECOND, whole: 100 })
}

fn join(slices: &Rc<Slices>, name: &str, charges: &[Charge], now: Nanos) -> Result<Waiting, Refused> {
    assert!(slices.admit(charges, now).is_err(), "nobody waits who need not");
    slices.wait(name, charges, patient().take(charges.len()), now)
}

/// What has become of it, once.
fn outcome(waiting: &mut Waiting) -> Option<Result<Permit, Refused>> {
    match Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}

/// Its permit, if it has one now.
fn permit(waiting: &mut Waiting) -> Option<Permit> {
    outcome(waiting).map(|outcome| outcome.expect("a permit"))
}

#[test]
fn units_that_come_back_go_to_those_who_wait_in_their_order() {
    let slices = Slices::new(&rings(&[2]));
    let held = slices.admit(&[tokens(0, 2)], at(1.0)).unwrap();
    let [mut first, mut second, mut third] = [1; 3].map(|_| join(&slices, "a", &[tokens(0, 1)], at(1.0)).unwrap());
    slices.tick(at(1.01));
    assert!(outcome(&mut first).is_none());
    held.cancel();
    slices.tick(at(1.02));
    let permits = [permit(&mut first), permit(&mut second)];
    assert!(permits.iter().all(Option::is_some) && outcome(&mut third).is_none());
    assert_eq!(slices.waiting(), 1);
    drop(permits);
    slices.tick(at(1.03));
    assert!(permit(&mut third).is_some_and(|permit| !permit.is_stale(at(1.04))));
}

#[test]
fn virtual_keys_are_served_by_turns() {
    let slices = Slices::new(&rings(&[1]));
    let mut held = slices.admit(&[tokens(0, 1)], at(1.0)).ok();
    let mut waiting: Vec<_> =
        ["a", "a", "a", "b", "b"].map(|name| (name, join(&slices, name, &[tokens(0, 1)], at(1.0)).unwrap())).into();
    let mut order = String::new();
    for tick in 0..5 {
        drop(held.take());
        slices.tick(at(1.1 + f64::from(tick) / 100.0));
        waiting.retain_mut(|(name, waiting)| {
            let Some(permit) = permit(waiting) else { return true };
            order += name;
            held = Some(permit);
            false
        });
    }
    assert_eq!(order, "ababa");
}

#[test]
fn nobody_takes_what_others_wait_for() {
    let slices = Slices::new(&rings(&[10]));
    let held = slices.admit(&[tokens(0, 6)], at(1.0)).unwrap();
    let mut large = join(&slices, "a", &[tokens(0, 5)], at(1.0)).unwrap();
    let refused = slices.admit(&[tokens(0, 1)], at(1.001)).err().unwrap();
    assert_eq!((refused.remaining, refused.retry_after.map(|after| after >= SECOND)), (0, Some(true)));
    let mut small = join(&slices, "b", &[tokens(0, 1)], at(1.001)).unwrap();
    slices.tick(at(1.01));
    assert!(outcome(&mut small).is_none(), "it came later");
    held.cancel();
    assert!(slices.admit(&[tokens(0, 1)], at(1.011)).is_err(), "so did this one, and would not wait");
    slices.tick(at(1.02));
    let permits = [permit(&mut large), permit(&mut small)];
    assert!(permits.iter().all(Option::is_some));
    assert!(slices.admit(&[tokens(0, 1)], at(1.021)).is_ok(), "nobody waits any more");
}

#[test]
fn who_waits_for_one_limit_holds_up_nobody_at_another() {
    let slices = Slices::new(&rings(&[1, 10]));
    let _held = slices.admit(&[tokens(0, 1)], at(1.0)).unwrap();
    let mut both = join(&slices, "a", &[tokens(0, 1), tokens(1, 1)], at(1.0)).unwrap();
    slices.tick(at(1.01));
    assert!(outcome(&mut both).is_none());
    assert!(slices.admit(&[tokens(1, 10)], at(1.02)).is_ok());
}

#[test]
fn a_request_that_had_its_turn_may_have_it_again() {
    let slices = Slices::new(&rings(&[1]));
    let held = slices.admit(&[tokens(0, 1)], at(1.0)).unwrap();
    let mut other = join(&slices, "a", &[tokens(0, 1)], at(1.0)).unwrap();
    held.cancel();
    let _held = slices.admit_again(&[tokens(0, 1)], at(1.3)).unwrap();
    slices.tick(at(1.31));
    assert!(outcome(&mut other).is_none());
}

#[test]
fn a_place_that_is_given_up_is_free_and_so_is_a_permit_that_nobody_took() {
    let rings = rings(&[1]);
    let slices = Slices::new(&rings);
    let held = slices.admit(&[tokens(0, 1)], at(1.0)).unwrap();
    let [first, second] = [1; 2].map(|_| join(&slices, "a", &[tokens(0, 1)], at(1.0)).unwrap());
    drop(first);
    assert_eq!(slices.waiting(), 1);
    held.cancel();
    slices.tick(at(1.01));
    assert_eq!((slices.waiting(), rings[0].used()), (0, 1));
    drop(second);
    assert_eq!(rings[0].used(), 0);
    slices.tick(at(1.02));
    assert!(slices.admit(&[tokens(0, 1)], at(1.03)).is_ok());
}

#[test]
fn the_line_is_bounded_and_so_is_what_one_virtual_key_has_of_it() {
    let slices = Slices::new(&rings(&[1]));
    let _held = slices.admit(&[tokens(0, 1)], at(1.0)).unwrap();
    let mut waiting = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let more = || slices.wait(name, &[tokens(0, 1)], patient().take(1), at(1.0));
        waiting.extend((0..WAITING_PER_VIRTUAL_KEY_MAX).map(|_| more().expect("a place")));
        assert!(more().is_err());
    }
    assert_eq!(waiting.len(), WAITING_PER_CORE_MAX);
    assert!(slices.wait("e", &[tokens(0, 1)], patient().take(1), at(1.0)).is_err());
    waiting.pop();
    assert!(slices.wait("e", &[tokens(0, 1)], patient().take(1), at(1.0)).is_ok());
}

#[test]
fn a_wait_ends_when_its_time_is_over_with_the_time_that_it_would_take() {
    let rings = rings(&[10]);
    let slices = Slices::new(&rings);
    slices.admit(&[tokens(0, 5)], at(1.0)).unwrap().sent(at(1.0)).settle(5, at(1.0));
    let _held = slices.admit(&[tokens(0, 5)], at(31.0)).unwrap();
    let patience = Patience { max_wait: 10 * SECOND, whole: 10 };
    let wait = |amount| slices.wait("a", &[tokens(0, amount)], [patience].into_iter(), at(31.0));
    let mut first = wait(1).expect("what is held may come back");
    let mut behind = wait(1).expect("a place behind it");
    slices.tick(at(40.99));
    assert!(outcome(&mut first).is_none() && outcome(&mut behind).is_none());
    slices.tick(at(41.0));
    for waiting in [&mut first, &mut behind] {
        let refused = outcome(waiting).expect("it is over").err().expect("there was no room");
        let retry_after = refused.retry_after.unwrap().as_secs_f64();
        assert!(retry_after > 20.0 && retry_after < 20.6, "{retry_after}");
    }
}

#[test]
fn nobody_waits_for_what_cannot_come() {
    let rings = rings(&[10]);
    let slices = Slices::new(&rings);
    slices.admit(&[tokens(0, 10)], at(1.0)).unwrap().sent(at(1.0)).settle(10, at(1.0));
    slices.tick(at(1.01));
    let wait = |amount, max_wait, whole| {
        let patience = Patience { max_wait, whole };
        slices.wait("a", &[tokens(0, amount)], [patience].into_iter(), at(2.0)).is_ok()
    };
    assert!(!wait(1, Duration::ZERO, 10), "nobody may");
    assert!(!wait(1, 10 * SECOND, 10), "a minute has to pass");
    assert!(wait(1, 70 * SECOND, 10));
    assert!(!wait(11, 70 * SECOND, 10), "more than the whole limit");
    assert!(wait(1, 10 * SECOND, 20), "other nodes may have some");
    rings[0].set_valid_until(at(1.5));
    assert!(wait(1, 10 * SECOND, 10), "the cluster may be heard again");
}

#[test]
fn the_shortest_patience_of_the_limits_without_room_counts() {
    let rings = rings(&[1, 1]);
    let slices = Slices::new(&rings);
    let charges = [tokens(0, 1), tokens(1, 1)];
    let patience = || [10, 0].map(|seconds| Patience { max_wait: seconds * SECOND, whole: 1 }).into_iter();
    let first = slices.admit(&charges[..1], at(1.0)).unwrap();
    let mut waiting = slices.wait("a", &charges, patience(), at(1.0)).expect("only the first has no room");
    let second = slices.admit(&charges[1..], at(1.0)).unwrap();
    assert!(slices.wait("a", &charges, patience(), at(1.0)).is_err());
    slices.tick(at(1.01));
    assert!(outcome(&mut waiting).is_some_and(|outcome| outcome.is_err()), "now the second has none either");
    drop((first, second));
}

#[test]
fn a_refused_request_is_counted_once_however_long_it_waits() {
    let rings = rings(&[10]);
    let slices = Slices::new(&rings);
    let _held = slices.admit(&[tokens(0, 10)], at(1.0)).unwrap();
    let mut waiting = join(&slices, "a", &[tokens(0, 4)], at(1.0)).unwrap();
    for tick in 0..20 {
        slices.tick(at(1.01 + f64::from(tick) / 100.0));
    }
    slices.tick(at(100.0));
    assert!(outcome(&mut waiting).is_some_and(|outcome| outcome.is_err()));
    assert_eq!(rings[0].take_refused(), Demand { units: 4, requests: 1, largest: 4 });
}

#[test]
fn those_who_wait_are_served_under_another_configuration_too() {
    let before = rings(&[1, 1]);
    let slices = Slices::new(&before);
    let held = slices.admit(&[tokens(1, 1)], at(1.0)).unwrap();
    let mut old = join(&slices, "a", &[tokens(1, 1)], at(1.0)).unwrap();
    let slices = slices.following(&LimitRings::from([Arc::clone(&before[1])]));
    let mut new = join(&slices, "a", &[tokens(0, 1)], at(1.0)).unwrap();
    held.cancel();
    slices.tick(at(1.01));
    let permit = permit(&mut old).expect("it came first");
    assert!(outcome(&mut new).is_none());
    drop(permit);
    slices.tick(at(1.02));
    assert!(outcome(&mut new).is_some_and(|outcome| outcome.is_ok()));
}
