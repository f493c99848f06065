//! What does one limit decision cost: with a slice in hand, without, over four limits, refused?
//!
//! Every case is a whole `admit` and the permit's end (`cancel` unless it says otherwise), on
//! one core with nobody beside it; time is virtual. Two hash map lookups stand beside it for
//! scale. Not here: the price of a cache line that another core wrote last, about as much
//! again for each ring that is touched without a slice.

use std::collections::HashMap;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use dataplane::limiter::{Charge, Slices};
use shared::clock::Nanos;
use shared::limit::{ChargeRule, LimitIndex, LimitRing, LimitRings, Unit, Window};

const MINUTE_NS: u64 = 60_000_000_000;
const NOW: Nanos = Nanos(10 * MINUTE_NS);

fn slices(entitlements: &[u64]) -> (Rc<Slices>, LimitRings) {
    let window = Window::new(MINUTE_NS).expect("a minute is a window");
    let ring = |amount: &u64| Arc::new(LimitRing::new(window, *amount, NOW));
    let rings: LimitRings = entitlements.iter().map(ring).collect();
    (Slices::new(&rings), rings)
}

fn requests(limit: u32) -> Charge {
    Charge { limit: LimitIndex(limit), unit: Unit::Requests, rule: ChargeRule::Settlement, amount: 1 }
}

fn tokens(limit: u32, amount: u64) -> Charge {
    Charge { limit: LimitIndex(limit), unit: Unit::Tokens, rule: ChargeRule::Settlement, amount }
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("limit_decision");

    let (large, _) = slices(&[1_000_000]);
    group.bench_function("slice_in_hand", |bencher| {
        bencher.iter(|| large.admit(black_box(&[requests(0)]), NOW).map(drop));
    });

    let (small, _) = slices(&[100]);
    group.bench_function("small_limit_without_slice", |bencher| {
        bencher.iter(|| small.admit(black_box(&[requests(0)]), NOW).map(drop));
    });

    let (four, _) = slices(&[1_000_000, 100_000_000, 1_000_000, 100_000_000]);
    let charges = [requests(0), tokens(1, 1_500), requests(2), tokens(3, 1_500)];
    group.bench_function("four_limits_slices_in_hand", |bencher| {
        bencher.iter(|| four.admit(black_box(&charges), NOW).map(drop));
    });

    let (four_small, _) = slices(&[100, 100_000, 100, 100_000]);
    group.bench_function("four_limits_without_slices", |bencher| {
        bencher.iter(|| four_small.admit(black_box(&charges), NOW).map(drop));
    });

    // Spent evenly over the last minute, so that a refusal has a ring full of slots to walk.
    let (full, rings) = slices(&[600]);
    for tenth in 0..600 {
        let at = Nanos(NOW.0 - MINUTE_NS + tenth * 100_000_000);
        assert!(rings[0].try_hold(1, at), "600 fit");
        rings[0].stamp(1, at);
    }
    group.bench_function("refused_again_with_retry_after", |bencher| {
        bencher.iter(|| full.admit(black_box(&[requests(0)]), NOW).map(drop));
    });
    let mut amount = 0;
    group.bench_function("refused_after_a_walk_over_the_ring", |bencher| {
        bencher.iter(|| {
            amount = amount % 600 + 1;
            full.admit(black_box(&[tokens(0, amount)]), NOW).map(drop)
        });
    });

    // The mean request of a busy core: a microsecond apart, so a tick for each 10,000 of them.
    let (whole, _) = slices(&[1 << 39]);
    let mut now = NOW;
    group.bench_function("admit_send_settle_and_their_share_of_ticks", |bencher| {
        bencher.iter(|| {
            now.0 += 1_000;
            if now.0.is_multiple_of(10_000_000) {
                whole.tick(now);
            }
            let charges = [requests(0), tokens(0, 1_500)];
            whole.admit(black_box(&charges), now).map(|permit| permit.sent(now).settle(700, now))
        });
    });
    group.finish();
}

fn lookups_for_scale(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("for_scale");
    let names: Vec<String> = (0..10_000).map(|number| format!("virtual-key-{number}")).collect();
    let by_std: HashMap<&str, u64> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let by_ahash: HashMap<&str, u64, ahash::RandomState> = names.iter().map(|name| (name.as_str(), 1)).collect();
    group.bench_function("hash_map_lookup_siphash", |bencher| {
        bencher.iter(|| by_std.get(black_box("virtual-key-7777")));
    });
    group.bench_function("hash_map_lookup_ahash", |bencher| {
        bencher.iter(|| by_ahash.get(black_box("virtual-key-7777")));
    });
    group.finish();
}

criterion_group!(benches, decisions, lookups_for_scale);
criterion_main!(benches);
