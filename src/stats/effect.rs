//! Effect sizes: how far live counts are from the reference's, for people.
//!
//! Nothing here decides anything: an effect size says how much, the detector says whether.

use serde::{Deserialize, Serialize};

/// The rule that [`Effects`] follow, to be printed with the numbers.
pub const RULE: &str = "Cells are fixed by the baseline. PSI is the sum of (p - q) ln(p / q) in \
    nats over shares smoothed as (count + 1/2) / (rows + cells/2); debiased PSI is PSI less \
    (cells - 1)(1/live rows + 1/baseline rows), what chance alone gives, cells with no rows on \
    either side not counted; its 95 % interval takes rows as independent. Jensen-Shannon is the \
    distance (square root, base 2), Hellinger and total variation are distances, all from 0 to 1, \
    of the shares as counted. KS and Wasserstein are of the cells ordered by value, with the others \
    left out: the largest difference of cumulated shares at the cells' bounds, and the area between \
    them, over the baseline's standard deviation.";

/// Standard deviations of a two-sided 95 % interval.
const Z95: f64 = 1.959_963_984_540_054;

/// How far a window is from the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Effects {
    /// Values in the window.
    pub rows: u64,
    /// Population stability index, in nats.
    pub psi: f64,
    /// The same less what chance alone gives; it may be negative.
    pub psi_debiased: f64,
    /// The 95 % interval of the PSI that unlimited rows would show.
    pub psi_interval: (f64, f64),
    /// Jensen–Shannon distance, base 2.
    pub jensen_shannon: f64,
    /// Hellinger distance.
    pub hellinger: f64,
    /// Total variation: the share of values that would have to move.
    pub total_variation: f64,
    /// Kolmogorov–Smirnov, of numbers.
    pub ks: Option<f64>,
    /// Wasserstein over the reference's deviation, of numbers.
    pub wasserstein: Option<f64>,
}

/// Whether cells have an order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order<'a> {
    /// Categories.
    None,
    /// Numbers: the first cells are ordered by value, the others (missing, infinite) are not.
    Numeric {
        /// How many.
        n_ordered: usize,
        /// A value that stands for each of them, ascending.
        centres: &'a [f64],
        /// The reference's standard deviation, in the same unit; Wasserstein is left out where it
        /// is not a positive number, or a centre is infinite.
        deviation: f64,
    },
}

/// Effect sizes of live counts by cell, rows being independent.
///
/// Where either side has no rows, all distances are 0 and the interval is empty at 0.
#[must_use]
pub fn effects(reference: &[u64], live: &[u64], order: Order<'_>) -> Effects {
    effects_of_dependent(reference, live, order, 1.0)
}

/// The same for rows whose counts vary by this factor more than those of independent rows
/// ([`super::variance`]): the debiased PSI and its interval take it into account.
#[must_use]
pub fn effects_of_dependent(
    reference: &[u64],
    live: &[u64],
    order: Order<'_>,
    variance_factor: f64,
) -> Effects {
    let n_cells = reference.len().min(live.len());
    let (reference, live) = (&reference[..n_cells], &live[..n_cells]);
    let rows = live.iter().fold(0_u64, |sum, &count| sum.saturating_add(count));
    let (n, m) = (total(live), total(reference));
    let mut effects = Effects {
        rows,
        psi: 0.0,
        psi_debiased: 0.0,
        psi_interval: (0.0, 0.0),
        jensen_shannon: 0.0,
        hellinger: 0.0,
        total_variation: 0.0,
        ks: None,
        wasserstein: None,
    };
    if n > 0.0 && m > 0.0 {
        let (p, q) = (smoothed(live), smoothed(reference));
        let used = reference.iter().zip(live).filter(|(r, l)| **r > 0 || **l > 0).count();
        let factor = variance_factor.clamp(1.0, 1e6);
        let noise = factor / n + factor / m;
        let freedom = used.saturating_sub(1) as f64;
        effects.psi = psi(&p, &q);
        effects.psi_debiased = effects.psi - freedom * noise;
        effects.psi_interval = psi_interval(&p, &q, n / factor, m / factor, freedom);
        let (p, q) = (shares(live), shares(reference));
        effects.jensen_shannon = jensen_shannon(&p, &q);
        effects.hellinger = hellinger(&p, &q);
        effects.total_variation = total_variation(&p, &q);
    }
    if let Order::Numeric { n_ordered, centres, deviation } = order {
        let n_ordered = n_ordered.min(n_cells);
        let (reference, live) = (&reference[..n_ordered], &live[..n_ordered]);
        let comparable = total(reference) > 0.0 && total(live) > 0.0;
        let (p, q) = (shares(live), shares(reference));
        effects.ks = Some(if comparable { ks(&p, &q) } else { 0.0 });
        let distance = if comparable { wasserstein(&p, &q, centres) / deviation } else { 0.0 };
        effects.wasserstein = (deviation > 0.0 && distance.is_finite()).then_some(distance);
    }
    effects
}

fn total(counts: &[u64]) -> f64 {
    counts.iter().map(|&count| count as f64).sum()
}

/// Shares as counted; zeros of no rows.
#[must_use]
pub fn shares(counts: &[u64]) -> Vec<f64> {
    let total = total(counts);
    let scale = if total > 0.0 { 1.0 / total } else { 0.0 };
    counts.iter().map(|&count| count as f64 * scale).collect()
}

/// (c + 1/2) / (n + K/2): the mean under Jeffreys' prior, so that no share is zero.
#[must_use]
pub fn smoothed(counts: &[u64]) -> Vec<f64> {
    let total = total(counts) + counts.len() as f64 / 2.0;
    counts.iter().map(|&count| (count as f64 + 0.5) / total).collect()
}

/// Population stability index of shares, in nats: Σ (p - q) ln(p / q). Infinite where one is zero
/// and the other is not.
#[must_use]
pub fn psi(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| if p == q { 0.0 } else { (p - q) * (p / q).ln() }).sum()
}

/// The 95 % interval of PSI, from smoothed shares of n and m rows.
///
/// With s = 1/n + 1/m, PSI / s is near to a noncentral chi-square value with K - 1 degrees of
/// freedom k whose noncentrality λ is the true PSI over s: mean k + λ, variance 2 k + 4 λ. Away
/// from no change 4 λ s² is replaced by the variance of the delta method. The limits are those λ
/// for which the value found is 1.96 deviations off its mean. `docs/drift.md` has the coverage as
/// measured: 93 to 96 %.
fn psi_interval(p: &[f64], q: &[f64], n: f64, m: f64, freedom: f64) -> (f64, f64) {
    let noise = 1.0 / n + 1.0 / m;
    let found = psi(p, q) / noise;
    let variance = delta_variance(p, q, n, m) / (noise * noise);
    // What the delta method's variance is to that of the noncentral law.
    let ratio = if found > 0.0 { (variance / (4.0 * found)).clamp(0.25, 4.0) } else { 1.0 };
    // (x - k - λ)² = z² (2 k + 4 r λ), solved for λ.
    let (x, z2) = (found - freedom, Z95 * Z95);
    let half = x + 2.0 * ratio * z2;
    let root = (half * half - x * x + 2.0 * freedom * z2).max(0.0).sqrt();
    let low = (half - root).max(0.0);
    let high = (half + root).max(0.0);
    (low * noise, high * noise)
}

/// Variance of PSI by the delta method: Var_p(ln(p/q) + 1 - q/p) / n + Var_q(ln(q/p) + 1 - p/q) /
/// m.
fn delta_variance(p: &[f64], q: &[f64], n: f64, m: f64) -> f64 {
    let variance = |of: &[f64], other: &[f64]| {
        let slope = |a: f64, b: f64| (a / b).ln() + 1.0 - b / a;
        let pairs = || of.iter().zip(other);
        let mean: f64 = pairs().map(|(&a, &b)| a * slope(a, b)).sum();
        pairs().map(|(&a, &b)| a * (slope(a, b) - mean).powi(2)).sum::<f64>()
    };
    variance(p, q) / n + variance(q, p) / m
}

/// Relative entropy Σ p ln(p / q), in nats. Infinite where q is zero and p is not.
#[must_use]
pub fn entropy(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| if *p > 0.0 { p * (p / q).ln() } else { 0.0 }).sum()
}

/// Jensen–Shannon distance, base 2: the square root of the divergence, from 0 to 1.
#[must_use]
pub fn jensen_shannon(p: &[f64], q: &[f64]) -> f64 {
    let side = |a: f64, middle: f64| if a > 0.0 { a * (a / middle).log2() } else { 0.0 };
    let sum: f64 = p
        .iter()
        .zip(q)
        .map(|(&p, &q)| {
            let middle = f64::midpoint(p, q);
            side(p, middle) + side(q, middle)
        })
        .sum();
    (sum / 2.0).max(0.0).sqrt()
}

/// Hellinger distance: √(Σ (√p - √q)² / 2), from 0 to 1.
#[must_use]
pub fn hellinger(p: &[f64], q: &[f64]) -> f64 {
    let sum: f64 = p.iter().zip(q).map(|(p, q)| (p.sqrt() - q.sqrt()).powi(2)).sum();
    (sum / 2.0).sqrt()
}

/// Total variation: Σ |p - q| / 2, from 0 to 1.
#[must_use]
pub fn total_variation(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0
}

/// The largest difference of a share: max |p - q|.
#[must_use]
pub fn largest_difference(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| (p - q).abs()).fold(0.0, f64::max)
}

/// Kolmogorov–Smirnov of ordered cells: the largest difference of cumulated shares.
#[must_use]
pub fn ks(p: &[f64], q: &[f64]) -> f64 {
    cumulated_differences(p, q).map(f64::abs).fold(0.0, f64::max)
}

/// Wasserstein's distance of ordered cells that stand for one value each: ∫ |F - G|.
#[must_use]
pub fn wasserstein(p: &[f64], q: &[f64], centres: &[f64]) -> f64 {
    let steps = centres.windows(2).map(|pair| pair[1] - pair[0]);
    cumulated_differences(p, q).zip(steps).map(|(difference, step)| difference.abs() * step).sum()
}

fn cumulated_differences(p: &[f64], q: &[f64]) -> impl Iterator<Item = f64> {
    p.iter().zip(q).scan(0.0, |sum, (p, q)| {
        *sum += p - q;
        Some(*sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{value} {expected}");
    }

    #[test]
    fn numbers_have_all_effect_sizes() {
        let centres = [-1.0, 0.0, 2.0];
        let order = Order::Numeric { n_ordered: 3, centres: &centres, deviation: 0.5 };
        let effects = effects(&[10, 20, 10, 0], &[5, 20, 10, 5], order);
        assert_eq!(effects.rows, 40);
        let (p, q) = ([5.5, 20.5, 10.5, 5.5], [10.5, 20.5, 10.5, 0.5]);
        let psi: f64 = p.iter().zip(q).map(|(p, q)| (p - q) / 42.0 * f64::ln(p / q)).sum();
        near(effects.psi, psi);
        near(effects.psi_debiased, psi - 3.0 * (1.0 / 40.0 + 1.0 / 40.0));
        assert!(effects.psi_interval.0 < psi && psi < effects.psi_interval.1);
        near(effects.total_variation, 0.125);
        // The last cell has no order: shares among the ordered ones are 1/7, 4/7, 2/7 and 1/4, 1/2,
        // 1/4.
        near(effects.ks.unwrap(), 0.25 - 1.0 / 7.0);
        let area = (0.25 - 1.0 / 7.0) * 1.0 + (5.0 / 7.0 - 0.75_f64).abs() * 2.0;
        near(effects.wasserstein.unwrap(), area / 0.5);
    }

    #[test]
    fn categories_have_no_order() {
        let effects = effects(&[30, 10], &[10, 30], Order::None);
        assert!(effects.ks.is_none() && effects.wasserstein.is_none());
        near(effects.total_variation, 0.5);
        near(effects.jensen_shannon, (1.0_f64 - 0.811_278_124_459_132_8).sqrt());
        near(effects.hellinger, (1.0 - 2.0 * (0.75_f64 * 0.25).sqrt()).sqrt());
    }

    #[test]
    fn equal_shares_are_no_distance_apart() {
        let effects = effects(&[100, 200, 300], &[1, 2, 3], Order::None);
        near(effects.jensen_shannon, 0.0);
        near(effects.hellinger, 0.0);
        near(effects.total_variation, 0.0);
        assert!(effects.psi < 0.1 && effects.psi_interval.0 == 0.0);
    }

    #[test]
    fn what_is_empty_or_odd_is_defined() {
        let odd = [f64::NEG_INFINITY, f64::NAN];
        let order = Order::Numeric { n_ordered: 9, centres: &odd, deviation: f64::NAN };
        let pairs: [(&[u64], &[u64]); 6] = [
            (&[], &[]),
            (&[1, 2], &[]),
            (&[0, 0], &[1, 2]),
            (&[1, 2], &[0, 0]),
            (&[u64::MAX, u64::MAX], &[u64::MAX, 0]),
            (&[1, 0], &[0, u64::MAX]),
        ];
        for (reference, live) in pairs {
            let effects = effects(reference, live, order);
            let sizes = [
                effects.psi,
                effects.psi_debiased,
                effects.psi_interval.0,
                effects.psi_interval.1,
                effects.jensen_shannon,
                effects.hellinger,
                effects.total_variation,
                effects.ks.unwrap(),
            ];
            assert!(sizes.iter().all(|size| size.is_finite()), "{effects:?}");
            assert!(effects.wasserstein.is_none());
            let empty =
                reference.iter().all(|&count| count == 0) || live.iter().all(|&count| count == 0);
            assert!(!empty || (effects.psi == 0.0 && effects.total_variation == 0.0));
        }
    }

    #[test]
    fn dependent_rows_widen_the_interval() {
        let (reference, live) = ([1000; 10], [70, 130, 100, 80, 120, 100, 100, 60, 140, 100]);
        let one = effects(&reference, &live, Order::None);
        let four = effects_of_dependent(&reference, &live, Order::None, 4.0);
        assert_eq!(one.psi, four.psi);
        assert!(four.psi_debiased < one.psi_debiased);
        assert!(four.psi_interval.1 > one.psi_interval.1);
    }

    /// Of 400 windows, the interval has the true PSI in it in 95 %, give or take three.
    #[test]
    fn the_interval_covers() {
        let laws = [[0.1; 10], [0.15, 0.13, 0.11, 0.1, 0.1, 0.1, 0.1, 0.09, 0.07, 0.05]];
        let mut rng = fastrand::Rng::with_seed(2);
        let mut draw = |law: &[f64; 10], rows: usize| {
            let mut counts = [0_u64; 10];
            for _ in 0..rows {
                let mut left = rng.f64();
                let cell = law.iter().position(|share| {
                    left -= share;
                    left < 0.0
                });
                counts[cell.unwrap_or(9)] += 1;
            }
            counts
        };
        for law in laws {
            let truth = psi(&law, &laws[0]);
            let covered = (0..400)
                .filter(|_| {
                    let (low, high) =
                        effects(&draw(&laws[0], 2000), &draw(&law, 500), Order::None).psi_interval;
                    low <= truth && truth <= high
                })
                .count();
            assert!((368..=396).contains(&covered), "{covered}");
        }
    }
}
