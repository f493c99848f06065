//! Does a cost grow with a size, and faster than with its logarithm? Pure.

/// Largest ratio of two costs that counts as the same: what such counts differ by from run to run, and some.
const SAME_MAX: f64 = 1.05;

/// How a cost grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    /// Within 5 % over all sizes, or less for larger ones.
    Not,
    /// A line through the logarithms of sizes fits better than one through the sizes.
    Logarithmic,
    /// The other way round.
    Faster,
    /// It is more, and there are too few sizes to say how.
    Unknown,
}

impl Growth {
    /// Whether it is at most logarithmic, as far as one can tell.
    pub(crate) fn is_bounded(self) -> bool {
        self != Self::Faster
    }

    /// As it is printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Not => "does not grow",
            Self::Logarithmic => "grows with the logarithm at most",
            Self::Faster => "grows FASTER than the logarithm",
            Self::Unknown => "is more; two sizes do not say how it grows",
        }
    }
}

/// Judges points of size and cost, in the order of sizes.
pub(crate) fn judge(points: &[(f64, f64)]) -> Growth {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Growth::Not };
    let most = points.iter().map(|point| point.1).fold(first.1, f64::max);
    let least = points.iter().map(|point| point.1).fold(first.1, f64::min);
    if most <= least * SAME_MAX || most <= first.1 || last.1 < first.1 {
        return Growth::Not;
    }
    if points.len() < 3 {
        return Growth::Unknown;
    }
    let by_logarithm: Vec<(f64, f64)> = points.iter().map(|(size, cost)| (size.max(1.0).ln(), *cost)).collect();
    if misfit(points) < misfit(&by_logarithm) { Growth::Faster } else { Growth::Logarithmic }
}

/// Sum of squares that the best straight line leaves.
fn misfit(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let of = |sum: fn(f64, f64) -> f64| points.iter().map(|point| sum(point.0 - x, point.1 - y)).sum::<f64>();
    let (xx, xy, yy) = (of(|dx, _| dx * dx), of(|dx, dy| dx * dy), of(|_, dy| dy * dy));
    if xx == 0.0 { yy } else { yy - xy * xy / xx }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(cost: impl Fn(f64) -> f64) -> Growth {
        let points: Vec<(f64, f64)> = [1.0, 100.0, 10_000.0, 100_000.0].map(|size| (size, cost(size))).to_vec();
        judge(&points)
    }

    #[test]
    fn shapes_are_told_apart() {
        assert_eq!(judged(|size| 28_000.0 + (size as u64 % 7) as f64 * 100.0), Growth::Not);
        assert_eq!(judged(|size| 28_000.0 + 300.0 * size.log2()), Growth::Logarithmic);
        assert_eq!(judged(|size| 28_000.0 + 0.1 * size), Growth::Faster);
        assert_eq!(judged(|size| 28_000.0 + 30.0 * size.sqrt()), Growth::Faster);
        assert_eq!(judged(|size| 40_000.0 - 500.0 * size.log2()), Growth::Not);
        assert!(judged(|_| 1.0).is_bounded() && !judged(|size| size).is_bounded());
    }

    #[test]
    fn two_sizes_do_not_say_how() {
        assert_eq!(judge(&[(1.0, 10.0), (2.0, 12.0)]), Growth::Unknown);
        assert_eq!(judge(&[(1.0, 10.0), (2.0, 10.2)]), Growth::Not);
        assert_eq!(judge(&[]), Growth::Not);
    }
}
