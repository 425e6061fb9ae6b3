//! Distances and tests on samples and on counts, as scipy defines them: for files, and for those
//! who compare with other tools.
//!
//! NaN has no place in an order: it is left out. Infinite values are kept for what only needs
//! ranks.

use std::f64::consts::PI;

use super::kolmogorov;
use super::special::{chi_square_survival, ln_gamma};

/// A test's statistic and its p-value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tested {
    /// The statistic.
    pub statistic: f64,
    /// The probability of one as large or larger where nothing differs.
    pub p_value: f64,
}

/// How a p-value of Kolmogorov and Smirnov's test is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// Counting lattice paths, in O(n m): scipy's `exact`, which it takes up to 10,000 values.
    Exact,
    /// The finite law of one sample of round(n m / (n + m)) values: scipy's `asymp`.
    Finite,
    /// Kolmogorov's limit law.
    Limit,
}

/// `scipy.stats.ks_2samp`, two-sided. Distance 0 and p 1 if a sample is empty.
#[must_use]
pub fn ks(reference: &[f64], live: &[f64], law: Law) -> Tested {
    let (n, m) = (sorted(reference).len() as u64, sorted(live).len() as u64);
    if n == 0 || m == 0 {
        return Tested { statistic: 0.0, p_value: 1.0 };
    }
    let statistic = steps(reference, live).map(|step| (step.f - step.g).abs()).fold(0.0, f64::max);
    let rows = n as f64 * m as f64 / (n as f64 + m as f64);
    let p_value = match law {
        Law::Exact => kolmogorov::two_sample_survival(statistic, n, m),
        // Round half to even, as Python does.
        Law::Finite => kolmogorov::finite_survival(statistic, rows.round_ties_even() as u64),
        Law::Limit => kolmogorov::limit_survival(rows.sqrt() * statistic),
    };
    Tested { statistic, p_value }
}

/// `scipy.stats.wasserstein_distance`: ∫ |F - G|. 0 if a sample is empty; infinite values may make
/// it infinite.
#[must_use]
pub fn wasserstein(reference: &[f64], live: &[f64]) -> f64 {
    integral(reference, live, f64::abs)
}

/// `scipy.stats.energy_distance`: √(2 ∫ (F - G)²). 0 if a sample is empty.
#[must_use]
pub fn energy(reference: &[f64], live: &[f64]) -> f64 {
    (2.0 * integral(reference, live, |difference| difference * difference)).sqrt()
}

/// `scipy.stats.cramervonmises_2samp` with `method="asymptotic"` (Anderson 1962): the statistic T
/// and the limit law's p. Statistic 0 and p 1 if a sample is empty.
#[must_use]
pub fn cramer_von_mises(reference: &[f64], live: &[f64]) -> Tested {
    let (x, y) = (sorted(reference), sorted(live));
    if x.is_empty() || y.is_empty() {
        return Tested { statistic: 0.0, p_value: 1.0 };
    }
    let (n, m) = (x.len() as f64, y.len() as f64);
    let (product, all) = (n * m, n + m);
    // Ranks among both samples together, ties sharing their mean.
    let scatter = |of: &[f64], other: &[f64]| -> f64 {
        let rank = |value: f64, within: &[f64]| {
            let below = within.partition_point(|&x| x < value);
            let up_to = within.partition_point(|&x| x <= value);
            (below, up_to)
        };
        let ranks = of.iter().map(|&value| {
            let ((below, up_to), (other_below, other_up_to)) =
                (rank(value, of), rank(value, other));
            ((below + other_below + 1) as f64 + (up_to + other_up_to) as f64) / 2.0
        });
        ranks.enumerate().map(|(at, rank)| (rank - (at + 1) as f64).powi(2)).sum()
    };
    let u = n * scatter(&x, &y) + m * scatter(&y, &x);
    let statistic = u / (product * all) - (4.0 * product - 1.0) / (6.0 * all);
    let mean = (1.0 + 1.0 / all) / 6.0;
    let variance = (all + 1.0) * (4.0 * product * all - 3.0 * (n * n + m * m) - 2.0 * product)
        / (45.0 * all * all * 4.0 * product);
    let standardised = 1.0 / 6.0 + (statistic - mean) / (45.0 * variance).sqrt();
    let p_value = if standardised < 0.003 {
        1.0
    } else {
        (1.0 - cramer_von_mises_cdf(standardised)).clamp(0.0, 1.0)
    };
    Tested { statistic, p_value }
}

/// The limit law of the Cramér–von Mises statistic (Csörgő and Faraway 1996, equation 1.3).
fn cramer_von_mises_cdf(x: f64) -> f64 {
    let mut sum = 0.0;
    for k in 0..30 {
        let k = f64::from(k);
        let y = 4.0 * k + 1.0;
        let q = y * y / (16.0 * x);
        let scale = (ln_gamma(k + 0.5) - ln_gamma(k + 1.0)).exp() / (PI.powf(1.5) * x.sqrt());
        let term = scale * y.sqrt() * scaled_bessel_quarter(q) * (-2.0 * q).exp();
        sum += term;
        if term < 1e-17 {
            break;
        }
    }
    sum
}

/// exp(q) K(1/4, q), the modified Bessel function: ∫ exp(-q (cosh t - 1)) cosh(t/4) dt over t ≥ 0
/// (DLMF 10.32.9) by the trapezoidal rule, which converges geometrically here.
fn scaled_bessel_quarter(q: f64) -> f64 {
    const STEP: f64 = 1.0 / 64.0;
    let mut sum = 0.5;
    let mut t = STEP;
    loop {
        let term = (-q * (t.cosh() - 1.0)).exp() * (t / 4.0).cosh();
        sum += term;
        t += STEP;
        if term < 1e-18 || t > 700.0 {
            return sum * STEP;
        }
    }
}

/// `numpy.quantile` with `method="linear"` (type 7); NaN if the sample is empty.
#[must_use]
pub fn quantile(sample: &[f64], share: f64) -> f64 {
    let sorted = sorted(sample);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share.clamp(0.0, 1.0) * last as f64;
    let low = at.floor() as usize;
    let (below, above) = (sorted[low], sorted[(low + 1).min(last)]);
    let part = at - low as f64;
    // numpy's own order of operations.
    if part < 0.5 { below + (above - below) * part } else { above - (above - below) * (1.0 - part) }
}

/// Standard deviation over all values (`numpy.std`); NaN if the sample is empty.
#[must_use]
pub fn deviation(sample: &[f64]) -> f64 {
    let values = sorted(sample);
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt()
}

/// `scipy.stats.chi2_contingency` of two rows of counts: Pearson's chi-square of independence, with
/// Yates' correction (if wanted) where there is one degree of freedom. Cells without counts are
/// left out; statistic 0 and p 1 if fewer than two cells or an empty row are left.
#[must_use]
pub fn chi_square_independence(reference: &[u64], live: &[u64], yates: bool) -> Tested {
    independence(reference, live, |count, expected, freedom| {
        let difference = (count - expected).abs();
        let correction = if yates && freedom == 1.0 { difference.min(0.5) } else { 0.0 };
        (difference - correction).powi(2) / expected
    })
}

/// The same by the likelihood ratio (G-test): `lambda_="log-likelihood"` and no correction.
#[must_use]
pub fn g_independence(reference: &[u64], live: &[u64]) -> Tested {
    independence(reference, live, |count, expected, _| {
        if count > 0.0 { 2.0 * count * (count / expected).ln() } else { 0.0 }
    })
}

/// Sums a term of count, expected count and degrees of freedom over both rows.
fn independence(reference: &[u64], live: &[u64], term: impl Fn(f64, f64, f64) -> f64) -> Tested {
    let columns: Vec<[f64; 2]> = reference
        .iter()
        .zip(live)
        .filter(|(r, l)| **r > 0 || **l > 0)
        .map(|(&r, &l)| [r as f64, l as f64])
        .collect();
    let totals = columns.iter().fold([0.0, 0.0], |sum, c| [sum[0] + c[0], sum[1] + c[1]]);
    let all = totals[0] + totals[1];
    if columns.len() < 2 || totals.contains(&0.0) {
        return Tested { statistic: 0.0, p_value: 1.0 };
    }
    let freedom = (columns.len() - 1) as f64;
    let of_column = |column: &[f64; 2]| -> f64 {
        let expected = totals.map(|total| (column[0] + column[1]) * total / all);
        column.iter().zip(expected).map(|(&count, expected)| term(count, expected, freedom)).sum()
    };
    let statistic = columns.iter().map(of_column).sum();
    Tested { statistic, p_value: chi_square_survival(statistic, freedom) }
}

/// `scipy.stats.chisquare` of live counts against the reference's shares, which are taken as exact.
/// Infinite, p 0, where a value is counted that the reference never had.
#[must_use]
pub fn chi_square(reference: &[u64], live: &[u64]) -> Tested {
    let (m, n) = (total(reference), total(live));
    if m == 0.0 || n == 0.0 {
        return Tested { statistic: 0.0, p_value: 1.0 };
    }
    let pairs = reference.iter().zip(live);
    let statistic = pairs.clone().map(|(&r, &l)| {
        let (count, expected) = (l as f64, r as f64 * n / m);
        if count == expected { 0.0 } else { (count - expected).powi(2) / expected }
    });
    let (statistic, freedom) = (statistic.sum(), pairs.count() as f64 - 1.0);
    Tested { statistic, p_value: chi_square_survival(statistic, freedom) }
}

fn total(counts: &[u64]) -> f64 {
    counts.iter().map(|&count| count as f64).sum()
}

fn sorted(sample: &[f64]) -> Vec<f64> {
    let mut values: Vec<f64> = sample.iter().copied().filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    // -0 and 0 are the same value.
    values.iter_mut().filter(|value| **value == 0.0).for_each(|value| *value = 0.0);
    values
}

/// Both distribution functions from a value to the next.
struct Step {
    f: f64,
    g: f64,
    width: f64,
}

fn steps(reference: &[f64], live: &[f64]) -> impl Iterator<Item = Step> {
    let (x, y) = (sorted(reference), sorted(live));
    let mut all: Vec<f64> = x.iter().chain(&y).copied().collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    (0..all.len()).map(move |at| {
        let value = all[at];
        let share = |of: &[f64]| of.partition_point(|&x| x <= value) as f64 / of.len() as f64;
        let width = all.get(at + 1).map_or(0.0, |next| next - value);
        Step { f: share(&x), g: share(&y), width }
    })
}

fn integral(reference: &[f64], live: &[f64], of: impl Fn(f64) -> f64) -> f64 {
    if sorted(reference).is_empty() || sorted(live).is_empty() {
        return 0.0;
    }
    steps(reference, live)
        .filter(|step| step.f != step.g)
        .map(|step| of(step.f - step.g) * step.width)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    use super::super::effect;
    use super::super::special::ln_gamma_positive;

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() <= 1e-9 * expected.abs(), "{value} is not {expected}");
    }

    /// Two samples without a random generator.
    fn samples() -> (Vec<f64>, Vec<f64>) {
        let unit = |i: u64, by: u64, modulo: u64| ((i * by) % modulo) as f64 / modulo as f64;
        let u = (0..2000).map(|i| unit(i, 7919, 2003));
        let v = (0..1000).map(|i| unit(i, 104_729, 1009));
        (
            u.map(|u| 10.0 * u * u + (37.0 * u).sin()).collect(),
            v.map(|v| 10.8 * v * v + (37.0 * v).sin() + 0.15).collect(),
        )
    }

    /// Right-closed cells by the reference's deciles.
    fn deciles() -> ([u64; 10], [u64; 10]) {
        let (reference, live) = samples();
        let edges: Vec<f64> = (1..10).map(|k| quantile(&reference, f64::from(k) / 10.0)).collect();
        let count = |sample: &[f64]| {
            let mut counts = [0; 10];
            sample.iter().for_each(|x| counts[edges.partition_point(|edge| edge < x)] += 1);
            counts
        };
        near(edges[0], -0.013_852_725_455_697_306);
        near(edges[8], 8.482_285_585_231_438);
        (count(&reference), count(&live))
    }

    // The expected values are those of scipy 1.17.1 and numpy 2.4.6.

    #[test]
    fn samples_are_as_far_apart_as_scipy_says() {
        let (reference, live) = samples();
        let exact = ks(&reference, &live, Law::Exact);
        near(exact.statistic, 0.124);
        near(exact.p_value, 2.316_963_477_151_109_8e-9);
        near(ks(&reference, &live, Law::Finite).p_value, 2.134_006_294_499_270_2e-9);
        near(ks(&reference, &live, Law::Limit).p_value, 2.496_974_213_303_006_5e-9);
        near(wasserstein(&reference, &live), 0.412_992_069_164_333_2);
        near(wasserstein(&reference, &live) / deviation(&reference), 0.138_354_054_153_922_32);
        near(energy(&reference, &live), 0.216_955_547_898_451_84);
        let cramer = cramer_von_mises(&reference, &live);
        near(cramer.statistic, 1.583_875_444_444_402);
        near(cramer.p_value, 1.111_163_901_794_665e-4);
    }

    #[test]
    fn ties_are_treated_as_scipy_does() {
        let (a, b) = ([1.0, 1.0, 2.0, 3.0, 3.0, 3.0, 5.0], [1.0, 2.0, 2.0, 4.0, 5.0, 5.0]);
        near(ks(&a, &b, Law::Exact).statistic, 0.357_142_857_142_857_15);
        near(ks(&a, &b, Law::Exact).p_value, 0.711_538_461_538_461_6);
        near(wasserstein(&a, &b), 0.738_095_238_095_238);
        near(energy(&a, &b), 0.605_155_477_482_801_6);
        near(cramer_von_mises(&a, &b).statistic, 0.098_901_098_901_099);
        near(cramer_von_mises(&a, &b).p_value, 0.679_352_702_673_754_7);
    }

    #[test]
    fn counts_are_as_far_apart_as_scipy_says() {
        let (reference, live) = deciles();
        assert_eq!(reference, [200; 10]);
        assert_eq!(live, [67, 109, 93, 77, 111, 97, 130, 42, 132, 142]);
        let (q, p) = (effect::shares(&reference), effect::shares(&live));
        near(effect::psi(&p, &q), 0.103_547_846_219_627_34);
        near(effect::jensen_shannon(&p, &q), 0.135_489_960_518_284_07);
        near(effect::jensen_shannon(&p, &q) * 2_f64.ln().sqrt(), 0.112_802_791_395_071_82);
        near(effect::entropy(&q, &p), 0.055_118_221_451_156_55);
        near(effect::entropy(&p, &q), 0.048_429_624_768_470_805);
        near(effect::hellinger(&p, &q), 0.113_279_234_014_659_39);
        near(effect::total_variation(&p, &q), 0.124);
        near(effect::largest_difference(&p, &q), 0.058);
        let chi = chi_square_independence(&reference, &live, true);
        near(chi.statistic, 63.414_944_418_469_744);
        near(chi.p_value, 2.931_348_423_886_48e-10);
        near(chi_square(&reference, &live).statistic, 89.3);
        near(chi_square(&reference, &live).p_value, 2.249_473_313_013_86e-15);
        near(g_independence(&reference, &live).statistic, 66.576_300_714_380_21);
        near(g_independence(&reference, &live).p_value, 7.114_768_550_166_794e-11);
        let (two, others) = ([900, 100], [450, 70]);
        near(chi_square_independence(&two, &others, true).statistic, 3.785_576_939_835_765_5);
        near(chi_square_independence(&two, &others, true).p_value, 0.051_696_085_540_663_37);
        near(chi_square_independence(&two, &others, false).statistic, 4.126_696_832_579_188);
        near(chi_square_independence(&two, &others, false).p_value, 0.042_211_668_466_854_924);
    }

    #[test]
    fn the_dirichlet_bayes_factor_is_the_closed_form() {
        let (reference, live) = deciles();
        let q = effect::shares(&reference);
        let (a, n) = (128.0, 1000.0);
        let mut sum = ln_gamma_positive(a) - ln_gamma_positive(a + n);
        for (&c, q) in live.iter().zip(&q) {
            let c = c as f64;
            sum += ln_gamma_positive(a * q + c) - ln_gamma_positive(a * q) - c * q.ln();
        }
        near(sum, 32.668_287_254_226_47);
    }

    #[test]
    fn what_is_empty_is_defined() {
        let nothing = Tested { statistic: 0.0, p_value: 1.0 };
        let nan = [f64::NAN];
        assert_eq!(ks(&[], &[1.0], Law::Exact), nothing);
        assert_eq!(ks(&nan, &[1.0], Law::Finite), nothing);
        assert_eq!(cramer_von_mises(&[1.0], &[]), nothing);
        assert_eq!(wasserstein(&[], &[1.0]), 0.0);
        assert_eq!(energy(&[1.0], &nan), 0.0);
        assert!(quantile(&[], 0.5).is_nan() && deviation(&[]).is_nan());
        assert_eq!(chi_square_independence(&[0, 0], &[1, 2], true), nothing);
        assert_eq!(chi_square(&[], &[]), nothing);
        assert_eq!(g_independence(&[1], &[0]), nothing);
        assert_eq!(chi_square(&[1, 0], &[1, 1]).p_value, 0.0);
        assert_eq!(wasserstein(&[0.0, f64::INFINITY], &[0.0]), f64::INFINITY);
        assert_eq!(
            ks(&[1.0, 2.0], &[1.0, 2.0], Law::Exact),
            Tested { statistic: 0.0, p_value: 1.0 }
        );
    }
}
