//! The distance of two distributions over cells against a limit.

use super::Evidence;
use crate::stats::special::ln_gamma_positive;

/// Evidence that the total variation distance between what `primary` and `candidate` were counted
/// from is within or beyond `limit`. Both have the same cells.
///
/// A mixture of multinomials (Dirichlet, Jeffreys' prior) bounds how far, in Kullback–Leibler
/// divergence, counts ever are from their law; by Pinsker's inequality the same bounds total
/// variation, and the distances of both from their counts add up (the two may be of the same
/// requests and need not be independent). O(cells).
#[must_use]
pub fn distance(primary: &[u64], candidate: &[u64], limit: f64) -> Evidence {
    let total = |counts: &[u64]| counts.iter().map(|&count| count as f64).sum::<f64>();
    let (n0, n1) = (total(primary), total(candidate));
    if primary.len() != candidate.len() || n0 <= 0.0 || n1 <= 0.0 || limit.is_nan() {
        return Evidence::default();
    }
    let apart = |(&a, &b): (&u64, &u64)| (a as f64 / n0 - b as f64 / n1).abs();
    let observed = primary.iter().zip(candidate).map(apart).sum::<f64>() / 2.0;
    let gap = (limit - observed).abs();
    let (regret0, regret1) = (regret(primary, n0), regret(candidate, n1));
    // The largest x at which both radii together stay within the gap.
    let radii = |x: f64| ((x + regret0) / (2.0 * n0)).sqrt() + ((x + regret1) / (2.0 * n1)).sqrt();
    let (mut low, mut high) = (0.0, 2.0 * gap * gap * n0.min(n1));
    if radii(0.0) >= gap {
        return Evidence::default();
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if radii(middle) <= gap { low = middle } else { high = middle }
    }
    // Either of the two bounds may fail, each at half of the rate.
    let evidence = (low - std::f64::consts::LN_2).max(0.0);
    match observed < limit {
        true => Evidence { within: evidence, beyond: 0.0 },
        false => Evidence { within: 0.0, beyond: evidence },
    }
}

/// By how much the best law's log-likelihood exceeds the mixture's.
fn regret(counts: &[u64], n: f64) -> f64 {
    let k = counts.len() as f64;
    let half = ln_gamma_positive(0.5);
    let mut regret = ln_gamma_positive(n + k / 2.0) - ln_gamma_positive(k / 2.0);
    for &count in counts {
        let count = count as f64;
        if count > 0.0 {
            regret += count * (count / n).ln();
        }
        regret -= ln_gamma_positive(count + 0.5) - half;
    }
    regret.max(0.0)
}
