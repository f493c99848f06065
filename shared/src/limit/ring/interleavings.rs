//! Every interleaving (with up to three preemptions) of two or three cores on one ring, by loom:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
//!     cargo test -p shared --lib --release limit::ring::interleavings
//! ```

use std::sync::Arc;

use loom::thread;

use super::*;

/// Five cells: W = 4, J = 1, q = 2, so what is spent at 0 expires at 7, and at 10 another lap
/// takes its place.
fn ring(entitlement: u64) -> Arc<LimitRing> {
    Arc::new(LimitRing::new(Window::with_slot(4, 1, 2), entitlement, Nanos(0)))
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn assert_within(ring: &LimitRing) {
    // The entitlement is fixed wherever this is called.
    assert!(ring.used() <= ring.entitlement());
}

fn assert_at_rest(ring: &LimitRing, held: u64) {
    assert_eq!(ring.snapshot().held, held, "used = held + what is in the cells");
}

#[test]
fn two_cores_never_hold_more_than_there_is() {
    explore(|| {
        let ring = ring(3);
        let take = |ring: &LimitRing| {
            let taken = ring.try_hold(2, Nanos(0));
            assert_within(ring);
            taken
        };
        let other = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || take(&ring))
        };
        let here = take(&ring);
        let there = other.join().unwrap();
        assert!(here != there, "exactly one of them fits");
        assert_at_rest(&ring, 2);
    });
}

#[test]
fn spending_and_releasing_beside_a_core_that_expires() {
    explore(|| {
        let ring = ring(4);
        assert!(ring.try_hold(1, Nanos(0)));
        ring.stamp(1, Nanos(0));
        let spender = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                assert!(ring.try_hold(2, Nanos(10)));
                ring.stamp(1, Nanos(10));
                ring.release(1);
                assert_within(&ring);
            })
        };
        let expirer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.advance(Nanos(10));
                assert_within(&ring);
            })
        };
        spender.join().unwrap();
        expirer.join().unwrap();
        assert_at_rest(&ring, 0);
        assert_eq!(ring.used(), 1, "the first lap has left, the later one counts");
        ring.advance(Nanos(30));
        assert_eq!(ring.used(), 0);
    });
}

#[test]
fn expired_units_are_freed_once_whoever_finds_them() {
    explore(|| {
        let ring = ring(2);
        assert!(ring.try_hold(2, Nanos(0)));
        ring.stamp(2, Nanos(0));
        let take = |ring: &LimitRing| {
            let taken = ring.try_hold(2, Nanos(7));
            assert_within(ring);
            taken
        };
        let other = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || take(&ring))
        };
        let here = take(&ring);
        let there = other.join().unwrap();
        assert!(!(here && there), "two units cannot serve both");
        assert_at_rest(&ring, u64::from(here) * 2 + u64::from(there) * 2);
    });
}

#[test]
fn a_late_stamp_never_shortens_what_counts() {
    explore(|| {
        let ring = ring(4);
        assert!(ring.try_hold(3, Nanos(0)));
        // One core's reading is ten units old by the time it stamps; the other's is not.
        let late = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.stamp(1, Nanos(0)))
        };
        let expirer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.advance(Nanos(10));
            })
        };
        ring.stamp(2, Nanos(10));
        assert!(ring.used() >= 2);
        late.join().unwrap();
        expirer.join().unwrap();
        assert_at_rest(&ring, 0);
        ring.advance(Nanos(16));
        assert!(ring.used() >= 2, "the later lap counts until 17");
        ring.advance(Nanos(17));
        assert_eq!(ring.used(), 0);
    });
}

#[test]
fn a_refund_takes_nothing_from_other_spend() {
    explore(|| {
        let ring = ring(4);
        assert!(ring.try_hold(4, Nanos(0)));
        ring.stamp(2, Nanos(0));
        let refunder = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.refund(2, Nanos(0)))
        };
        let expirer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.advance(Nanos(10));
            })
        };
        ring.stamp(2, Nanos(10));
        refunder.join().unwrap();
        expirer.join().unwrap();
        assert_at_rest(&ring, 0);
        assert_eq!(ring.used(), 2);
    });
}

#[test]
fn what_was_given_away_is_not_held_here_too() {
    explore(|| {
        let ring = ring(4);
        let giver = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.try_lower_entitlement(3))
        };
        let taken = ring.try_hold(2, Nanos(0));
        let given = giver.join().unwrap();
        assert!(!(taken && given), "two held and three given away are more than four");
        assert_eq!(ring.entitlement(), if given { 1 } else { 4 });
        assert_at_rest(&ring, u64::from(taken) * 2);
    });
}

#[test]
fn a_raised_entitlement_is_never_held_twice() {
    explore(|| {
        let ring = ring(1);
        let raiser = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.set_entitlement(3))
        };
        let other = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.try_hold(2, Nanos(0)))
        };
        let here = ring.try_hold(2, Nanos(0));
        raiser.join().unwrap();
        let there = other.join().unwrap();
        assert!(!(here && there), "three units cannot serve both");
        assert_at_rest(&ring, u64::from(here || there) * 2);
        assert!(ring.try_hold(1, Nanos(0)), "what was refused before is free afterwards");
    });
}

#[test]
fn units_that_arrive_while_others_leave_are_held_once() {
    explore(|| {
        let ring = ring(2);
        // The control thread credits two units and then gives three away.
        let control = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.set_entitlement(4);
                ring.try_lower_entitlement(3)
            })
        };
        let taken = ring.try_hold(2, Nanos(0));
        let given = control.join().unwrap();
        assert!(!(taken && given), "two held and three given away are more than four");
        assert_eq!(ring.entitlement(), if given { 1 } else { 4 });
        assert_at_rest(&ring, u64::from(taken) * 2);
    });
}

#[test]
fn a_lease_that_ended_admits_nothing_while_it_is_renewed_for_less() {
    explore(|| {
        let ring = ring(2);
        ring.set_valid_until(Nanos(1));
        let control = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.set_entitlement(1);
                ring.set_valid_until(Nanos(4));
            })
        };
        let other = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.try_hold(1, Nanos(2)))
        };
        assert!(!ring.try_hold(2, Nanos(2)), "of the renewed lease there is only one unit");
        control.join().unwrap();
        let there = other.join().unwrap();
        assert!(ring.try_hold(1, Nanos(4)) != there);
        assert!(!ring.try_hold(1, Nanos(5)));
        assert_at_rest(&ring, 1);
    });
}

#[test]
fn who_sees_a_renewed_lease_sees_its_entitlement() {
    explore(|| {
        let ring = ring(2);
        ring.set_valid_until(Nanos(1));
        let control = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.set_entitlement(0);
                ring.set_valid_until(Nanos(4));
            })
        };
        // A core that has a slice in hand looks at these two and at nothing else.
        if ring.is_valid_at(Nanos(2)) {
            assert_eq!(ring.entitlement(), 0);
        }
        control.join().unwrap();
    });
}
