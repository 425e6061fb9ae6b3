//! The null hypothesis: a box of shares around the reference's, within which nothing is drift.
//!
//! A cell's share may differ from the reference's by a part of itself (the tolerance), and by what
//! the reference, being a sample, may be off.

use super::Settings;

/// Where the tolerance cannot tell how many rows suffice, that many do.
const RECOVERY_ROWS: (f64, f64) = (500.0, 10_000.0);

/// A cell below this share does not decide how many rows recovery takes.
const RECOVERY_SHARE: f64 = 0.02;

/// Steps of the search for the maximiser. Eight suffice as a rule: the function is piecewise
/// linear, and Newton's method ends in the right piece.
const MOST_STEPS: usize = 100;

/// The smallest and the largest share of every cell. They contain a vector of shares: lowest sum to
/// at most 1, highest to at least 1.
#[derive(Debug, Clone)]
pub(super) struct Tolerance {
    pub(super) lowest: Vec<f64>,
    pub(super) highest: Vec<f64>,
}

/// The most likely shares of the box for some counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Nearest {
    /// The counts' own shares: they are within the box.
    Own,
    /// On its surface.
    Surface,
}

impl Tolerance {
    pub(super) fn new(counts: &[u64], shares: &[f64], settings: &Settings) -> Self {
        let total: f64 = counts.iter().map(|&count| count as f64).sum();
        let (tolerance, z) = (settings.tolerance(), settings.z());
        let factor = settings.variance_factor();
        if total <= 0.0 {
            return Self { lowest: vec![0.0; shares.len()], highest: vec![1.0; shares.len()] };
        }
        let mut lowest = Vec::with_capacity(shares.len());
        let mut highest = Vec::with_capacity(shares.len());
        for (&count, &share) in counts.iter().zip(shares) {
            // A correlated reference is worth as many rows fewer.
            let (below, above) = widening(count as f64 / factor, share, z);
            let scale = factor / total;
            // Smoothing must not lift the lower limit: a cell without counts may have no share.
            let counted = if z > 0.0 { count as f64 / total } else { share };
            let low = counted.min(share) - tolerance * share - below * scale;
            let high = counted.max(share) + tolerance * share + above * scale;
            lowest.push(low.clamp(0.0, share));
            highest.push(high.clamp(share, 1.0));
        }
        Self { lowest, highest }
    }

    /// The mixture of several, given by sums over rows of shares, lowest and highest ones.
    ///
    /// It is a null hypothesis as good as they are: if each value's law is in its own box, the mean
    /// of the laws is in the mean of the boxes, and a likelihood ratio against that mean has
    /// expectation at most 1 (by the inequality of arithmetic and geometric means over the values'
    /// factors).
    pub(super) fn mixture(expected: &[f64], rows: f64) -> (Vec<f64>, Self) {
        let mut parts = expected.chunks(expected.len().max(3) / 3);
        let mut next = || -> Vec<f64> {
            parts.next().unwrap_or_default().iter().map(|sum| sum / rows).collect()
        };
        let shares = next();
        (shares, Self { lowest: next(), highest: next() })
    }

    /// Finds p in the box with the largest Σ c ln p, into `nearest`.
    ///
    /// It is p = clip(c u, lowest, highest) with the one u that makes it sum to 1 (the conditions
    /// of Karush, Kuhn and Tucker). Where counted cells cannot reach 1 together, all of them are at
    /// their highest, and what is left is anywhere among the cells not counted.
    pub(super) fn nearest(&self, counts: &[f64], total: f64, nearest: &mut [f64]) -> Nearest {
        let mut u = 1.0 / total;
        let (mut least, mut most) = (0.0, f64::INFINITY);
        for step in 0..MOST_STEPS {
            let (mut sum, mut slope, mut clipped) = (0.0, 0.0, 0_u32);
            for (((share, &count), &lowest), &highest) in
                nearest.iter_mut().zip(counts).zip(&self.lowest).zip(&self.highest)
            {
                let free = count * u;
                let inside = free >= lowest && free <= highest;
                clipped += u32::from(!inside);
                slope += if inside { count } else { 0.0 };
                *share = free.max(lowest).min(highest);
                sum += *share;
            }
            if step == 0 && clipped == 0 {
                return Nearest::Own;
            }
            let excess = sum - 1.0;
            if excess.abs() < 1e-13 {
                break;
            }
            if excess > 0.0 {
                most = u;
            } else {
                least = u;
            }
            let newton = u - excess / slope;
            u = if slope > 0.0 && newton > least && newton < most {
                newton
            } else if most.is_finite() {
                f64::midpoint(least, most)
            } else {
                u * 2.0
            };
            if u > 1e300 || (most.is_finite() && most - least <= most * 1e-16) {
                break;
            }
        }
        Nearest::Surface
    }

    /// Whether these shares are within the box, each give or take its part of `slack`.
    pub(super) fn contains(&self, shares: impl Iterator<Item = (f64, f64)>) -> bool {
        shares.zip(self.lowest.iter().zip(&self.highest)).all(
            |((share, slack), (&lowest, &highest))| {
                share >= lowest - slack && share <= highest + slack
            },
        )
    }

    /// Independent rows whose shares scatter by half of the tolerance (one standard error).
    pub(super) fn recovery_rows(&self, shares: &[f64]) -> f64 {
        let mut rows: f64 = RECOVERY_ROWS.0;
        for ((&share, &lowest), &highest) in shares.iter().zip(&self.lowest).zip(&self.highest) {
            let half = (highest - lowest) / 4.0;
            if share >= RECOVERY_SHARE && half > 0.0 {
                rows = rows.max(share * (1.0 - share) / (half * half));
            }
        }
        rows.min(RECOVERY_ROWS.1)
    }
}

/// How many counts fewer and more than `count` a cell of that true share could have had, at `z`
/// standard deviations.
///
/// The Poisson limits by Wilson and Hilferty's cube root (1931), which are within 4 % of the exact
/// ones (Garwood 1936) from no counts at all, where z √(q (1 - q) m) is much too narrow;
/// for many counts they are that. The factor √(1 - q) makes them binomial.
fn widening(count: f64, share: f64, z: f64) -> (f64, f64) {
    if z <= 0.0 {
        return (0.0, 0.0);
    }
    let limit = |count: f64, z: f64| {
        let root = 1.0 - 1.0 / (9.0 * count) + z / (3.0 * count.sqrt());
        count * root.max(0.0).powi(3)
    };
    let lower = if count > 0.0 { limit(count, -z) } else { 0.0 };
    let upper = limit(count + 1.0, z);
    let binomial = (1.0 - share).max(0.0).sqrt();
    ((count - lower).max(0.0) * binomial, (upper - count).max(0.0) * binomial)
}
