//! A node in virtual time against an exact sliding log, on the same arrivals: no window may
//! hold more than the limit, as stamped here and as a provider counts with its own delays. And
//! how much of what the exact limiter admits is admitted?
//!
//! What `cargo test -p dataplane simulation -- --nocapture` prints: four cores, 70 % of the
//! arrivals on one of them and on another one every 3 s; the lowest of the offered loads 0.5,
//! 1, 1.5, 5 and 50 times the limit over ten windows. `bound` is W / (W + J + q), what is left
//! when a full limit is spent at once again and again. No window was above its limit.
//!
//! ```text
//!   W, s      L  J, ms  utilisation   bound
//!      1      1      0       1.0000  0.9961
//!      1      2      0       1.0000  0.9961
//!      1      5      0       1.0000  0.9961
//!      1     10      0       1.0000  0.9961
//!      1     60      0       0.9982  0.9961
//!      1    600      0       0.9969  0.9961
//!      1   6000      0       0.9965  0.9961
//!      1      1    250       0.8000  0.7975
//!      1      2    250       0.8000  0.7975
//!      1      5    250       0.8000  0.7975
//!      1     10    250       0.8000  0.7975
//!      1     60    250       0.8000  0.7975
//!      1    600    250       0.8000  0.7975
//!      1   6000    250       0.8000  0.7975
//!     20      1    250       1.0000  0.9839
//!     20      2    250       0.9286  0.9839
//!     20      5    250       1.0000  0.9839
//!     20     10    250       1.0000  0.9839
//!     20     60    250       0.9860  0.9839
//!     20    600    250       0.9892  0.9839
//!     20   6000    250       0.9901  0.9839
//!     60      1    250       1.0000  0.9920
//!     60      2    250       1.0000  0.9920
//!     60      5    250       1.0000  0.9920
//!     60     10    250       0.9896  0.9920
//!     60     60    250       0.9932  0.9920
//!     60    600    250       0.9959  0.9920
//!     60   6000    250       0.9956  0.9920
//! ```

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use shared::clock::Nanos;
use shared::limit::{COUNTING_SPREAD_NS, ChargeRule, LimitIndex, LimitRing, LimitRings, Unit, Window};

use super::*;

const SECOND: u64 = 1_000_000_000;
const TICK_NS: u64 = 10_000_000;

/// Admits while fewer than `limit` units lie in the window before; remembers each.
struct ExactLog {
    window_ns: u64,
    limit: u64,
    sum: u64,
    log: VecDeque<(u64, u64)>,
}

impl ExactLog {
    fn new(window_ns: u64, limit: u64) -> Self {
        Self { window_ns, limit, sum: 0, log: VecDeque::new() }
    }

    fn admit(&mut self, amount: u64, now_ns: u64) -> bool {
        self.forget_before(now_ns);
        let fits = self.sum + amount <= self.limit;
        if fits {
            self.log.push_back((now_ns, amount));
            self.sum += amount;
        }
        fits
    }

    fn forget_before(&mut self, now_ns: u64) {
        while let Some((at_ns, amount)) = self.log.front().copied() {
            if at_ns + self.window_ns > now_ns {
                break;
            }
            self.sum -= amount;
            self.log.pop_front();
        }
    }
}

/// The most units of `log` in any interval of `window_ns`.
fn fullest_window(mut log: Vec<(u64, u64)>, window_ns: u64) -> u64 {
    log.sort_unstable();
    let mut counted = ExactLog::new(window_ns, u64::MAX);
    let fill = |(at_ns, amount)| {
        counted.admit(amount, at_ns);
        counted.sum
    };
    log.into_iter().map(fill).max().unwrap_or(0)
}

/// `SplitMix64`: a few lines, and the same everywhere for a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not zero.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Time to the next of arrivals that come at random, `mean_ns` apart.
    fn pause_ns(&mut self, mean_ns: f64) -> u64 {
        let uniform = ((self.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
        (-uniform.ln() * mean_ns) as u64
    }
}

/// Cores of one node on one ring, each with a tick of its own.
struct Node {
    ring: Arc<LimitRing>,
    cores: Vec<Rc<Slices>>,
    ticked_ns: u64,
}

impl Node {
    fn new(cores: usize, window: Window, limit: u64) -> Self {
        let ring = Arc::new(LimitRing::new(window, limit, Nanos(0)));
        let rings: LimitRings = [Arc::clone(&ring)].into_iter().collect();
        Self { ring, cores: (0..cores).map(|_| Slices::new(&rings)).collect(), ticked_ns: 0 }
    }

    /// All ticks up to an instant; core `i` ticks `i` ms after core 0.
    fn tick_until(&mut self, now_ns: u64) {
        while self.ticked_ns + TICK_NS <= now_ns {
            self.ticked_ns += TICK_NS;
            for (offset_ms, core) in self.cores.iter().enumerate() {
                core.tick(Nanos(self.ticked_ns - TICK_NS + offset_ms as u64 * 1_000_000));
            }
        }
    }

    /// Most arrivals meet one core, as keep-alive connections do; another one every 3 s.
    fn pick(&self, random: &mut Random, now_ns: u64) -> &Rc<Slices> {
        let cores = self.cores.len() as u64;
        let core = if random.below(10) < 7 { now_ns / (3 * SECOND) } else { random.next() };
        &self.cores[(core % cores) as usize]
    }
}

fn charge(unit: Unit, rule: ChargeRule, amount: u64) -> [Charge; 1] {
    [Charge { limit: LimitIndex(0), unit, rule, amount }]
}

/// Requests over ten windows. Returns how many were admitted, and how many exactly would be.
fn offer(cores: usize, window: Window, limit: u64, load: f64, seed: u64) -> (u64, u64) {
    let window_ns = window.window_ns();
    let mut random = Random(seed);
    let mut node = Node::new(cores, window, limit);
    let mut exact = ExactLog::new(window_ns, limit);
    let mut exactly_admitted = 0;
    let (mut stamped, mut counted) = (Vec::new(), Vec::new());
    let mean_ns = window_ns as f64 / (limit as f64 * load);
    let mut now_ns = SECOND;
    let request = charge(Unit::Requests, ChargeRule::Settlement, 1);
    while now_ns < SECOND + 10 * window_ns {
        now_ns += random.pause_ns(mean_ns);
        node.tick_until(now_ns);
        exactly_admitted += u64::from(exact.admit(1, now_ns));
        if let Ok(permit) = node.pick(&mut random, now_ns).admit(&request, Nanos(now_ns)) {
            stamped.push((now_ns, 1));
            counted.push((now_ns + random.below(window.spread_ns() + 1), 1));
            permit.sent(Nanos(now_ns)).settle(0, Nanos(now_ns));
        }
        assert!(node.ring.used() <= limit);
    }
    let admitted = stamped.len() as u64;
    assert!(fullest_window(stamped, window_ns) <= limit);
    assert!(fullest_window(counted, window_ns) <= limit, "as a provider counts, up to J later");
    (admitted, exactly_admitted)
}

#[test]
fn every_window_is_within_the_limit_and_nearly_all_of_it_is_used() {
    println!("  W, s      L  J, ms  utilisation   bound");
    for (seconds, spread_ns) in [(1, 0), (1, COUNTING_SPREAD_NS), (20, COUNTING_SPREAD_NS), (60, COUNTING_SPREAD_NS)] {
        let window = Window::with_spread(seconds * SECOND, spread_ns).unwrap();
        let bound = window.window_ns() as f64 / window.counted_ns_max() as f64;
        for limit in [1, 2, 5, 10, 60, 600, 6_000] {
            let mut lowest = f64::INFINITY;
            for load in [0.5, 1.0, 1.5, 5.0, 50.0] {
                // Bounds the time that the test takes, not what is true.
                if limit as f64 * load <= 30_000.0 {
                    let (admitted, exactly) = offer(4, window, limit, load, seconds * 10_000 + limit);
                    lowest = lowest.min(admitted as f64 / exactly as f64);
                }
            }
            println!("{seconds:6} {limit:6} {:6} {lowest:12.4} {bound:7.4}", spread_ns / 1_000_000);
            assert!(limit < 60 || lowest >= bound * 0.99, "{lowest} of the exact limiter, {bound} expected");
            assert!(limit < 60 || seconds < 20 || lowest >= 0.98, "{lowest} of the exact limiter");
        }
    }
}

#[test]
fn a_window_never_holds_more_than_its_last_admission_was_entitled_to() {
    let window = Window::new(10 * SECOND).unwrap();
    for seed in 0..20 {
        let mut random = Random(seed);
        let mut node = Node::new(3, window, 2_000);
        // (stamped, entitled when admitted), of every unit.
        let mut log: VecDeque<(u64, u64)> = VecDeque::new();
        let mut now_ns = 0;
        let mut entitle_at_ns = 0;
        for _ in 0..10_000 {
            now_ns += random.pause_ns(4e6);
            if random.below(2_000) == 0 {
                // The whole node stands still, longer than a window now and then.
                now_ns += random.below(12 * SECOND);
            }
            if now_ns >= entitle_at_ns {
                entitle_at_ns = now_ns + random.below(4 * SECOND);
                node.ring.set_entitlement([0, 1, 50, 400, 1_500, 2_000, 3_000][random.below(7) as usize]);
            }
            if random.below(3) > 0 {
                node.tick_until(now_ns);
            }
            let request = charge(Unit::Requests, ChargeRule::Settlement, 1);
            let entitlement = node.ring.entitlement();
            if let Ok(permit) = node.pick(&mut random, now_ns).admit(&request, Nanos(now_ns)) {
                drop(permit.sent(Nanos(now_ns)));
                log.push_back((now_ns, entitlement));
                while log.front().is_some_and(|(at_ns, _)| at_ns + window.window_ns() <= now_ns) {
                    log.pop_front();
                }
                assert!(log.len() as u64 <= entitlement, "seed {seed}: {} of {entitlement}", log.len());
            }
        }
    }
}

/// What a request reserved and used, and when it ran.
struct Run {
    sent_ns: u64,
    ended_ns: u64,
    reserved: u64,
    used: u64,
}

/// Streams that reserve up to 2,000 tokens and use 30 % of it in the mean, offered at twice the
/// limit in tokens used.
fn offer_tokens(rule: ChargeRule, limit: u64, window: Window, seed: u64) -> Vec<Run> {
    let mut random = Random(seed);
    let mut node = Node::new(4, window, limit);
    let mut running: Vec<(Sent, Run)> = Vec::new();
    let mut ended = Vec::new();
    let mut now_ns = 0;
    while now_ns < 6 * window.window_ns() {
        now_ns += random.pause_ns(window.window_ns() as f64 / (limit as f64 / 150.0));
        node.tick_until(now_ns);
        while let Some(next) = running.iter().position(|(_, run)| run.ended_ns <= now_ns) {
            let (sent, run) = running.swap_remove(next);
            let settled = sent.settle(run.used, Nanos(run.ended_ns));
            assert_eq!(settled.overshoot_tokens, 0);
            ended.push(run);
        }
        let reserved = 1 + random.below(2_000);
        let share = random.below(100) * random.below(100);
        let used = reserved * share / 9_801;
        let ended_ns = now_ns + 1 + random.below(8 * SECOND);
        let charge = charge(Unit::Tokens, rule, reserved);
        if let Ok(permit) = node.pick(&mut random, now_ns).admit(&charge, Nanos(now_ns)) {
            let run = Run { sent_ns: now_ns, ended_ns, reserved, used };
            running.push((permit.sent(Nanos(now_ns)), run));
        }
        assert!(node.ring.used() <= limit);
    }
    ended
}

#[test]
fn settled_tokens_are_within_the_limit_however_a_provider_counts_them() {
    let window = Window::new(20 * SECOND).unwrap();
    for (seed, limit) in [(1, 4_000), (2, 40_000), (3, 1_000_000)] {
        let runs = offer_tokens(ChargeRule::Settlement, limit, window, seed);
        let mut random = Random(seed);
        let at_the_start = runs.iter().map(|run| (run.sent_ns, run.used)).collect();
        let at_the_end = runs.iter().map(|run| (run.ended_ns, run.used)).collect();
        let somewhere = runs.iter().map(|run| (run.sent_ns + random.below(run.ended_ns - run.sent_ns), run.used));
        let somewhere = somewhere.collect();
        let as_produced = runs.iter().flat_map(|run| {
            (0..8).map(|part| {
                (run.sent_ns + (run.ended_ns - run.sent_ns) * part / 8, run.used * (part + 1) / 8 - run.used * part / 8)
            })
        });
        let as_produced = as_produced.collect();
        for log in [at_the_start, at_the_end, somewhere, as_produced] {
            let fullest = fullest_window(log, window.window_ns());
            assert!(fullest <= limit, "{fullest} of {limit}");
            assert!(fullest > 0);
        }
    }
}

#[test]
fn tokens_charged_at_admission_are_within_the_limit_as_reserved() {
    let window = Window::new(20 * SECOND).unwrap();
    for (seed, limit) in [(1, 4_000), (2, 40_000), (3, 1_000_000)] {
        let runs = offer_tokens(ChargeRule::Admission, limit, window, seed);
        let log = runs.iter().map(|run| (run.sent_ns, run.reserved)).collect();
        let fullest = fullest_window(log, window.window_ns());
        assert!(fullest <= limit && fullest > limit / 2, "{fullest} of {limit}");
    }
}

#[test]
fn tokens_charged_either_way_are_within_the_limit_for_providers_of_both_kinds() {
    let window = Window::new(20 * SECOND).unwrap();
    for (seed, limit) in [(1, 4_000), (2, 40_000), (3, 1_000_000)] {
        let counts = |rule| {
            let runs = offer_tokens(rule, limit, window, seed);
            let at_the_door = runs.iter().map(|run| (run.sent_ns, run.reserved)).collect();
            let at_the_end = runs.iter().map(|run| (run.ended_ns, run.used)).collect();
            [at_the_door, at_the_end].map(|log| fullest_window(log, window.window_ns()))
        };
        let [at_the_door, at_the_end] = counts(ChargeRule::Either);
        assert!(at_the_door <= limit && at_the_end <= limit, "{at_the_door} and {at_the_end} of {limit}");
        assert!(at_the_door > limit / 2);
        let [at_the_door, _] = counts(ChargeRule::Settlement);
        assert!(at_the_door > limit, "what is given back still counts at the door: {at_the_door} of {limit}");
    }
}

/// Every answer uses all that was reserved, and comes when it ends.
#[test]
fn what_is_charged_at_the_door_is_exceeded_by_what_comes_later() {
    let window = Window::new(20 * SECOND).unwrap();
    let fullest = |rule| {
        let node = Node::new(1, window, 1_000);
        let mut counted = Vec::new();
        let charge = charge(Unit::Tokens, rule, 1_000);
        for (sent_ns, ended_ns) in [(SECOND, 18 * SECOND), (22 * SECOND, 23 * SECOND)] {
            let Ok(permit) = node.cores[0].admit(&charge, Nanos(sent_ns)) else { continue };
            permit.sent(Nanos(sent_ns)).settle(1_000, Nanos(ended_ns));
            node.cores[0].tick(Nanos(ended_ns));
            counted.push((ended_ns, 1_000));
        }
        fullest_window(counted, window.window_ns())
    };
    assert_eq!(fullest(ChargeRule::Admission), 2_000);
    assert_eq!(fullest(ChargeRule::Either), 1_000);
}

#[test]
fn refunded_tokens_are_within_the_limit_as_used_by_requests_begun_in_a_window() {
    let window = Window::new(20 * SECOND).unwrap();
    for (seed, limit) in [(1, 4_000), (2, 40_000), (3, 1_000_000)] {
        let runs = offer_tokens(ChargeRule::AdmissionRefunded, limit, window, seed);
        let log = runs.iter().map(|run| (run.sent_ns, run.used)).collect();
        let fullest = fullest_window(log, window.window_ns());
        assert!(fullest <= limit && fullest > limit / 2, "{fullest} of {limit}");
    }
}
