//! The ring against an exact log, one thread, with clock readings that disagree by up to J.

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn minute() -> Window {
    Window::new(60 * SECOND).unwrap()
}

fn at(seconds: f64) -> Nanos {
    Nanos((seconds * 1e9) as u64)
}

#[test]
fn what_is_held_or_spent_is_not_free_until_its_slot_expires() {
    let ring = LimitRing::new(minute(), 3, at(100.0));
    assert!(ring.try_hold(2, at(100.0)));
    assert!(!ring.try_hold(2, at(100.0)));
    assert!(ring.try_hold(1, at(100.0)));
    ring.stamp(2, at(101.0));
    ring.release(1);
    assert_eq!(ring.snapshot(), RingSnapshot { amount: 3, entitlement: 3, used: 2, held: 0 });
    assert!(!ring.try_hold(2, at(161.0)), "a minute later the provider may still count it");
    assert!(ring.try_hold(2, at(161.5)), "a minute, a quarter of a second and a slot later it cannot");
}

#[test]
fn a_cap_holds_back_what_was_granted_until_it_is_raised() {
    let ring = LimitRing::new(minute(), 10, at(0.0));
    ring.set_cap(3);
    assert!(ring.try_hold(3, at(0.0)));
    assert!(!ring.try_hold(1, at(0.0)));
    assert_eq!((ring.entitlement(), ring.granted(), ring.unused()), (3, 10, 7));
    assert_eq!(ring.available_at(7, at(1.0)), Some(at(1.2)), "it is about to be raised");
    assert_eq!(ring.available_at(11, at(1.0)), None, "a cap does not stand for what is not granted");
    ring.set_entitlement(8);
    assert_eq!(ring.entitlement(), 3);
    ring.set_cap(u64::MAX);
    assert!(ring.try_hold(5, at(0.0)));
    ring.set_cap(6);
    assert!(!ring.try_hold(1, at(0.0)));
    assert_eq!(ring.entitlement(), 6);
}

#[test]
fn what_is_beyond_the_cap_can_be_given_away() {
    let ring = LimitRing::new(minute(), 10, at(0.0));
    ring.set_cap(3);
    assert!(ring.try_hold(2, at(0.0)));
    assert!(ring.try_lower_entitlement(7));
    assert_eq!((ring.entitlement(), ring.granted()), (3, 3));
    assert!(!ring.try_lower_entitlement(2));
    assert!(ring.try_lower_entitlement(1));
    assert_eq!((ring.entitlement(), ring.granted()), (2, 2));
}

#[test]
fn who_keeps_the_cap_hears_of_refusals_too() {
    let ring = LimitRing::new(minute(), 10, at(0.0));
    ring.count_refused(4);
    assert_eq!(ring.take_refused().largest, 4);
    assert_eq!((ring.take_largest_refused(), ring.take_largest_refused()), (4, 0));
}

#[test]
fn a_lowered_entitlement_admits_nothing_until_it_fits() {
    let ring = LimitRing::new(minute(), 10, at(0.0));
    assert!(ring.try_hold(8, at(0.0)));
    ring.stamp(8, at(0.0));
    ring.set_entitlement(5);
    assert!(!ring.try_hold(1, at(1.0)));
    assert!(!ring.try_lower_entitlement(1), "nothing is free to give away");
    assert_eq!(ring.entitlement(), 5);
    assert!(ring.try_hold(5, at(61.0)));
    ring.set_entitlement(7);
    assert!(ring.try_lower_entitlement(2));
    assert!(!ring.try_lower_entitlement(6));
    assert_eq!((ring.entitlement(), ring.used()), (5, 5));
}

#[test]
fn nothing_is_held_after_a_lease_has_ended() {
    let ring = LimitRing::new(minute(), 10, at(0.0));
    ring.set_valid_until(at(5.0));
    assert!(ring.try_hold(4, at(5.0)));
    assert!(!ring.try_hold(1, Nanos(at(5.0).0 + 1)));
    assert_eq!(ring.available_at(1, at(5.1)), None, "not known");
    ring.stamp(4, at(6.0));
    assert_eq!(ring.used(), 4, "what was held may be spent");
    ring.set_valid_until(at(9.0));
    assert_eq!(ring.available_at(6, at(7.0)), Some(at(7.0)));
    assert!(ring.try_hold(6, at(7.0)));
}

#[test]
fn demand_is_what_an_entitlement_could_admit() {
    let ring = LimitRing::new(minute(), 10, at(0.0));
    ring.set_entitlement(2);
    ring.count_refused(7);
    ring.count_refused(3);
    ring.count_refused(11);
    assert_eq!(ring.take_refused(), Refused { units: 10, requests: 3, largest: 7 });
}

#[test]
fn what_happened_is_counted_even_above_the_entitlement() {
    let ring = LimitRing::new(minute(), 10, at(0.0));
    ring.charge(25, at(0.0));
    assert_eq!(ring.snapshot(), RingSnapshot { amount: 10, entitlement: 10, used: 25, held: 0 });
    assert!(!ring.try_hold(1, at(60.0)));
    assert!(ring.try_hold(10, at(61.0)));
}

#[test]
fn a_refund_goes_back_only_to_the_slot_it_came_from() {
    let ring = LimitRing::new(minute(), 10, at(100.0));
    assert!(ring.try_hold(6, at(100.0)));
    ring.stamp(6, at(100.0));
    assert_eq!(ring.refund(4, at(100.0)), 4);
    assert_eq!(ring.used(), 2);
    assert_eq!(ring.refund(9, at(100.0)), 2, "never more than the slot holds");
    assert!(ring.try_hold(3, at(100.0)));
    ring.stamp(3, at(100.0));
    ring.advance(at(170.0));
    let same_place = Nanos(at(100.0).0 + u64::from(ring.window().slots()) * ring.window().slot_ns());
    assert!(ring.try_hold(5, same_place));
    ring.stamp(5, same_place);
    assert_eq!(ring.refund(3, at(100.0)), 0, "expired, and the place holds other spend");
    assert_eq!(ring.used(), 5);
}

#[test]
fn a_stamp_that_comes_a_lap_late_counts_longer_not_shorter() {
    let ring = LimitRing::new(minute(), 10, at(100.0));
    let lap_ns = u64::from(ring.window().slots()) * ring.window().slot_ns();
    let (late, now) = (at(100.0), Nanos(at(100.0).0 + lap_ns));
    assert!(ring.try_hold(5, late));
    assert!(ring.advance(now));
    ring.stamp(4, late);
    ring.stamp(1, now);
    assert_eq!(ring.used(), 5, "the late one counts with the present one in its place");
    ring.advance(Nanos(now.0 + 60_000_000_000));
    assert_eq!(ring.used(), 5);
    ring.advance(Nanos(now.0 + lap_ns));
    assert_eq!(ring.used(), 0, "but not for ever");
}

#[test]
fn a_ring_that_rested_for_years_starts_empty() {
    let ring = LimitRing::new(Window::new(SECOND).unwrap(), 10, at(5.0));
    assert!(ring.try_hold(10, at(5.0)));
    ring.stamp(10, at(5.0));
    let later = at(5.0 + 3.0 * 365.0 * 86_400.0);
    assert!(ring.try_hold(10, later));
    ring.stamp(10, later);
    assert_eq!(ring.available_at(1, later), Some(ring.window().expires_at(ring.window().slot_of(later))));
}

#[test]
fn amounts_beyond_a_cell_neither_wrap_nor_stay_for_ever() {
    let ring = LimitRing::new(minute(), u64::MAX, at(0.0));
    assert_eq!(ring.entitlement(), UNITS_MAX);
    assert!(!ring.try_hold(u64::MAX, at(0.0)));
    ring.charge(u64::MAX, at(0.0));
    ring.charge(u64::MAX, at(0.0));
    assert_eq!(ring.snapshot(), RingSnapshot { amount: UNITS_MAX, entitlement: UNITS_MAX, used: UNITS_MAX, held: 0 });
    assert_eq!(ring.available_at(UNITS_MAX + 1, at(0.0)), None);
    ring.advance(at(61.0));
    assert_eq!(ring.used(), 0);
}

#[test]
fn availability_names_the_slot_that_frees_enough() {
    let ring = LimitRing::new(minute(), 10, at(0.0));
    for second in 0..10 {
        let now = at(f64::from(second));
        assert!(ring.try_hold(1, now));
        ring.stamp(1, now);
    }
    let now = at(10.0);
    let freed_by = |second: f64| ring.window().expires_at(ring.window().slot_of(at(second)));
    assert_eq!(ring.available_at(1, now), Some(freed_by(0.0)));
    assert_eq!(ring.available_at(4, now), Some(freed_by(3.0)));
    assert_eq!(ring.available_at(10, now), Some(freed_by(9.0)));
    assert_eq!(ring.available_at(11, now), None);
    assert_eq!(ring.empty_at(now), freed_by(9.0));
    assert_eq!(ring.available_at(10, at(100.0)), Some(at(100.0)));
}

#[derive(Clone, Debug)]
enum Step {
    Hold(u64),
    Stamp,
    Release,
    Refund(u64),
    Advance,
    Lower(u64),
    Entitle(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6_u64).prop_map(Step::Hold),
        4 => Just(Step::Stamp),
        1 => Just(Step::Release),
        1 => (1..6_u64).prop_map(Step::Refund),
        1 => Just(Step::Advance),
        1 => (1..6_u64).prop_map(Step::Lower),
        1 => (0..30_u64).prop_map(Step::Entitle),
    ]
}

proptest! {
    /// Time moves on in uneven steps; each reading is late by up to J, as another core's may be.
    #[test]
    fn no_window_of_the_log_holds_more_than_was_ever_entitled(
        steps in proptest::collection::vec((step(), 0..400_u64, 0..=250_u64), 1..400),
    ) {
        let window = Window::new(2 * SECOND).unwrap();
        let mut now_ms = 10_000_u64;
        let ring = LimitRing::new(window, 20, Nanos(now_ms * 1_000_000));
        let mut entitled_max = 20;
        let mut held = Vec::new();
        let mut log: Vec<(u64, u64)> = Vec::new();
        for (step, passed_ms, late_ms) in steps {
            // Long rests now and then, most steps close together.
            now_ms += if passed_ms > 390 { 3_000 } else { passed_ms / 10 };
            let read_ms = now_ms - late_ms;
            let read = Nanos(read_ms * 1_000_000);
            let used_before = ring.used();
            match step {
                Step::Hold(amount) => {
                    if ring.try_hold(amount, read) {
                        assert!(ring.used() <= ring.entitlement());
                        held.push(amount);
                    }
                }
                Step::Stamp => {
                    if let Some(amount) = held.pop() {
                        ring.stamp(amount, read);
                        log.push((read_ms, amount));
                    }
                }
                Step::Release => ring.release(held.pop().unwrap_or(0)),
                Step::Refund(amount) => {
                    if let Some((stamped_ms, logged)) = log.last_mut() {
                        *logged -= ring.refund(amount.min(*logged), Nanos(*stamped_ms * 1_000_000));
                    }
                }
                Step::Advance => { ring.advance(read); }
                Step::Lower(amount) => {
                    let before = ring.entitlement();
                    if ring.try_lower_entitlement(amount) {
                        assert_eq!(ring.entitlement(), before - amount);
                        assert!(ring.used() <= ring.entitlement());
                    } else {
                        assert_eq!(ring.entitlement(), before);
                        assert!(used_before + amount > before);
                    }
                }
                Step::Entitle(entitlement) => {
                    ring.set_entitlement(entitlement);
                    entitled_max = entitled_max.max(entitlement);
                }
            }
            let snapshot = ring.snapshot();
            assert_eq!(snapshot.held, held.iter().sum::<u64>());
            let in_window: u64 =
                log.iter().filter(|(ms, _)| ms + 2_000 > now_ms).map(|(_, amount)| amount).sum();
            assert!(in_window <= entitled_max, "{in_window} in a window, {entitled_max} entitled");
            assert!(snapshot.used >= in_window + snapshot.held);
        }
    }

    /// Wait as long as you were told, and nobody came between: then you are admitted.
    #[test]
    fn who_waits_as_told_is_admitted(
        spent in proptest::collection::vec((0..70_000_u64, 1..5_u64), 0..60),
        amount in 1..=20_u64,
    ) {
        let ring = LimitRing::new(minute(), 20, at(0.0));
        let mut now = Nanos(0);
        for (passed_ms, wanted) in spent {
            now = Nanos(now.0 + passed_ms / 7 * 1_000_000);
            if ring.try_hold(wanted, now) {
                ring.stamp(wanted, now);
            }
        }
        let told = ring.available_at(amount, now).unwrap();
        if told > now {
            assert!(!ring.try_hold(amount, Nanos(told.0 - 1)));
        }
        assert!(ring.try_hold(amount, told));
    }
}
