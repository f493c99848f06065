//! What a provider that counts what reached it would say. Three models, each exact:
//!
//! - a log: what came in any window, however it lies, is at most the limit;
//! - a bucket: it holds the limit, refills at limit / window, and never lacks what is asked of it. In
//!   any time d at most limit × ⌈d / window⌉ is admitted, which is at most limit × (d / window + 1), a
//!   full bucket and what flows in: so the bound on what it lacks is zero too. (One that holds less
//!   than the limit is a second, shorter limit, and is configured as such.)
//! - slices: a window is so many whole seconds, counted by the clock, the running one among them.
//!
//! The limit may have changed while the log was written: what counts is the largest amount that any
//! node still went by within the window and what may run behind it.

use super::scenario::Terms;

/// Slices of a second.
const SLICE_NS: u64 = 1_000_000_000;

/// Something that the provider counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Counted {
    pub(crate) at_ns: u64,
    pub(crate) cost: u64,
}

/// More than the limit allows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Excess {
    pub(crate) model: &'static str,
    /// When it was first seen.
    pub(crate) at_ns: u64,
    /// The most by which the limit was exceeded.
    pub(crate) units: u64,
    pub(crate) amount: u64,
}

/// Amounts that hold from an instant on, in order of time; the first from the beginning.
pub(crate) type Bounds = [(u64, u64)];

fn bound_at(bounds: &Bounds, at_ns: u64) -> u64 {
    let next = bounds.partition_point(|(from_ns, _)| *from_ns <= at_ns);
    bounds.get(next.saturating_sub(1)).map_or(0, |(_, amount)| *amount)
}

/// What all three models have against the log, which is in order of time.
pub(crate) fn judge(log: &[Counted], terms: Terms, bounds: &Bounds) -> Vec<Excess> {
    let models = [sliding_log(log, terms, bounds), bucket(log, terms, bounds), slices(log, terms, bounds)];
    models.into_iter().flatten().collect()
}

fn sliding_log(log: &[Counted], terms: Terms, bounds: &Bounds) -> Option<Excess> {
    let mut worst = None;
    let (mut first, mut sum) = (0, 0_u64);
    for counted in log {
        while log[first].at_ns + terms.window_ns <= counted.at_ns {
            sum -= log[first].cost;
            first += 1;
        }
        sum += counted.cost;
        note(&mut worst, "log", counted.at_ns, sum, bound_at(bounds, counted.at_ns));
    }
    worst
}

fn bucket(log: &[Counted], terms: Terms, bounds: &Bounds) -> Option<Excess> {
    let mut worst = None;
    // In units × window, so that it is exact: what has been taken out and not flowed in again.
    let window_ns = u128::from(terms.window_ns);
    let (mut taken, mut at_ns) = (0_u128, 0_u64);
    for counted in log {
        // What was taken under a larger amount flows back within a window.
        let amount =
            bound_at(bounds, counted.at_ns).max(bound_at(bounds, counted.at_ns.saturating_sub(terms.window_ns)));
        taken = taken.saturating_sub(u128::from(counted.at_ns - at_ns) * u128::from(amount));
        at_ns = counted.at_ns;
        taken += u128::from(counted.cost) * window_ns;
        let units = u64::try_from(taken.div_ceil(window_ns)).unwrap_or(u64::MAX);
        note(&mut worst, "bucket", counted.at_ns, units, amount);
    }
    worst
}

fn slices(log: &[Counted], terms: Terms, bounds: &Bounds) -> Option<Excess> {
    let mut worst = None;
    let whole = (terms.window_ns / SLICE_NS).max(1);
    let (mut first, mut sum) = (0, 0_u64);
    for counted in log {
        while log[first].at_ns / SLICE_NS + whole <= counted.at_ns / SLICE_NS {
            sum -= log[first].cost;
            first += 1;
        }
        sum += counted.cost;
        note(&mut worst, "slices", counted.at_ns, sum, bound_at(bounds, counted.at_ns));
    }
    worst
}

fn note(worst: &mut Option<Excess>, model: &'static str, at_ns: u64, used: u64, amount: u64) {
    let Some(units) = used.checked_sub(amount).filter(|units| *units > 0) else { return };
    match worst {
        Some(excess) if excess.units >= units => {}
        Some(excess) => (excess.units, excess.amount) = (units, amount),
        None => *worst = Some(Excess { model, at_ns, units, amount }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { amount: 10, window_ns: 5 * SLICE_NS };

    fn log(entries: &[(u64, u64)]) -> Vec<Counted> {
        entries.iter().map(|(tenths, cost)| Counted { at_ns: tenths * SLICE_NS / 10, cost: *cost }).collect()
    }

    fn models(entries: &[(u64, u64)]) -> Vec<&'static str> {
        judge(&log(entries), TERMS, &[(0, 10)]).into_iter().map(|excess| excess.model).collect()
    }

    #[test]
    fn a_whole_limit_every_window_is_within_every_model() {
        assert_eq!(models(&[(0, 10), (50, 10), (100, 4), (149, 6), (150, 4)]), [""; 0]);
    }

    #[test]
    fn a_unit_too_many_in_a_window_is_seen() {
        assert_eq!(models(&[(0, 10), (49, 1)]), ["log", "slices"], "the bucket has got nearly all back");
        assert_eq!(models(&[(9, 10), (50, 10)]), ["log", "bucket"], "slices have forgotten the first");
        assert_eq!(models(&[(10, 6), (11, 5)]), ["log", "bucket", "slices"]);
    }

    #[test]
    fn the_bound_of_the_time_counts() {
        let found = judge(&log(&[(0, 8), (100, 8)]), TERMS, &[(0, 8), (90 * SLICE_NS / 10, 5)]);
        assert_eq!(found[0], Excess { model: "log", at_ns: 10 * SLICE_NS, units: 3, amount: 5 });
    }
}
