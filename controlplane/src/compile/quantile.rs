//! How many standard deviations above the mean a normal value lies with a given probability.
//!
//! The inverse of the normal distribution in the rational approximations of Peter J. Acklam (2000),
//! "An algorithm for computing the inverse normal cumulative distribution function"; relative
//! error below 1.15e-9.

/// Coefficients for the middle, of the numerator and the denominator.
const A: [f64; 6] = [
    -3.969_683_028_665_376e1,
    2.209_460_984_245_205e2,
    -2.759_285_104_469_687e2,
    1.383_577_518_672_69e2,
    -3.066_479_806_614_716e1,
    2.506_628_277_459_239,
];
const B: [f64; 6] = [
    -5.447_609_879_822_406e1,
    1.615_858_368_580_409e2,
    -1.556_989_798_598_866e2,
    6.680_131_188_771_972e1,
    -1.328_068_155_288_572e1,
    1.0,
];

/// And for the tails.
const C: [f64; 6] = [
    -7.784_894_002_430_293e-3,
    -3.223_964_580_411_365e-1,
    -2.400_758_277_161_838,
    -2.549_732_539_343_734,
    4.374_664_141_464_968,
    2.938_163_982_698_783,
];
const D: [f64; 5] =
    [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416, 1.0];

/// Below this probability it is a tail.
const TAIL: f64 = 0.02425;

/// z with P(normal > z) = `probability`, from just above 0 to 0.5.
pub(super) fn deviations(probability: f64) -> f64 {
    let upper = probability.clamp(f64::MIN_POSITIVE, 0.5);
    if upper < TAIL {
        let q = (-2.0 * upper.ln()).sqrt();
        return -polynomial(&C, q) / polynomial(&D, q);
    }
    let q = 0.5 - upper;
    let r = q * q;
    polynomial(&A, r) * q / polynomial(&B, r)
}

/// The highest power first.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantiles_that_tables_have() {
        for (probability, expected) in [
            (0.5, 0.0),
            (0.25, 0.674_489_750_2),
            (0.1, 1.281_551_565_5),
            (0.05, 1.644_853_627_0),
            (0.025, 1.959_963_984_5),
            (0.01, 2.326_347_874_0),
            (0.001, 3.090_232_306_2),
            (1e-4, 3.719_016_485_5),
            (1e-6, 4.753_424_308_8),
        ] {
            let found = deviations(probability);
            assert!((found - expected).abs() < 1e-8, "{probability}: {found} and not {expected}");
        }
    }

    #[test]
    fn the_two_approximations_meet() {
        assert!((deviations(TAIL) - deviations(TAIL - 1e-12)).abs() < 1e-8);
    }

    #[test]
    fn no_probability_is_outside_of_the_numbers() {
        for probability in [0.0, -1.0, 1.0, f64::INFINITY, f64::MIN_POSITIVE] {
            assert!(deviations(probability).is_finite(), "{probability}");
        }
    }
}
