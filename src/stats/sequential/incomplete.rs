//! The incomplete beta function, as a logarithm: tails far below 1e-300 are evidence here.

use super::ln_beta;

/// ln I_x(a, b) of positive a and b: the logarithm of the probability that a beta variable is at
/// most x. -∞ at 0 and below, 0 at 1 and above.
///
/// The continued fraction of DLMF 8.17.22 by Lentz' method where it converges quickly, left of the
/// mean; the complement right of it. Takes some √max(a, b) steps at worst.
pub(super) fn ln_lower(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if x >= 1.0 {
        return 0.0;
    }
    if x <= (a + 1.0) / (a + b + 2.0) {
        ln_fraction(x, a, b).min(0.0)
    } else {
        let rest = ln_fraction(1.0 - x, b, a).min(0.0).exp();
        (-rest).ln_1p()
    }
}

/// ln(1 − I_x(a, b)).
pub(super) fn ln_upper(x: f64, a: f64, b: f64) -> f64 {
    ln_lower(1.0 - x, b, a)
}

fn ln_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    const MOST: u32 = 200_000;
    let keep = |value: f64| if value.abs() < TINY { TINY } else { value };
    let front = a * x.ln() + b * (-x).ln_1p() - ln_beta(a, b) - a.ln();
    let (ab, up, down) = (a + b, a + 1.0, a - 1.0);
    let mut c = 1.0;
    let mut d = 1.0 / keep(1.0 - ab * x / up);
    let mut fraction = d;
    for m in 1..MOST {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((down + 2.0 * m) * (a + 2.0 * m));
        d = 1.0 / keep(1.0 + even * d);
        c = keep(1.0 + even / c);
        fraction *= d * c;
        let odd = -(a + m) * (ab + m) * x / ((a + 2.0 * m) * (up + 2.0 * m));
        d = 1.0 / keep(1.0 + odd * d);
        c = keep(1.0 + odd / c);
        let change = d * c;
        fraction *= change;
        if (change - 1.0).abs() <= 4.0 * f64::EPSILON {
            break;
        }
    }
    front + fraction.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_those_of_scipy() {
        // The logarithm of `mpmath.betainc(a, b, 0, x, regularized=True)` of mpmath 1.4.
        for (x, a, b, expected) in [
            (0.5, 1.0, 1.0, -std::f64::consts::LN_2),
            (0.02, 1.0, 49.0, -0.464_581_100_762_586_6),
            (0.3, 4.0, 9.0, -0.678_289_649_209_307),
            (0.9, 4.0, 9.0, -1.658_350_137_506_248e-7),
            (0.1, 30.0, 70.0, -17.782_523_301_290_165),
            (0.05, 12.0, 1000.0, -8.684_989_697_923_821e-12),
            (0.001, 1000.0, 2000.0, -5_004.786_419_216_84),
        ] {
            let value = ln_lower(x, a, b);
            let error = (value - expected).abs() / expected.abs();
            assert!(error < 1e-8, "I({x}, {a}, {b}): {value}, not {expected}");
        }
        for (x, a, b) in [(0.2, 3.5, 17.0), (0.01, 0.5, 900.0), (0.7, 1e6, 4e5)] {
            let total = ln_lower(x, a, b).exp() + ln_upper(x, a, b).exp();
            assert!((total - 1.0).abs() < 1e-9, "{total}");
        }
        assert!(ln_lower(0.01, 1e7, 1e8).is_finite());
        assert_eq!(ln_lower(0.0, 1.0, 1.0), f64::NEG_INFINITY);
        assert_eq!(ln_upper(0.0, 1.0, 1.0), 0.0);
    }
}
