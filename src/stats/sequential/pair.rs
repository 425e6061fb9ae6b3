//! The difference of two rates against a limit.

use super::{Count, Evidence, ln_beta};

/// Evidence that `candidate`'s mean is at most `margin` above `primary`'s, or that it is more.
///
/// The counts are of different cases (unpaired). For each pair of rates the product of two
/// beta-binomial mixtures (Jeffreys' prior) over the likelihoods is a martingale; the evidence is
/// the least of these over all pairs of the hypothesis, which lies on its border. 0 where the
/// counts agree with the hypothesis. What it takes for granted, and [`super::rate()`] does not: that
/// rates stand still while it is counted. O(1).
#[must_use]
pub fn difference(primary: Count, candidate: Count, margin: f64) -> Evidence {
    let (Some(primary), Some(candidate)) = (primary.sound(), candidate.sound()) else {
        return Evidence::default();
    };
    if margin.is_nan() {
        return Evidence::default();
    }
    let margin = margin.clamp(-1.0, 1.0);
    let observed = candidate.sum / candidate.n - primary.sum / primary.n;
    let mixtures = mixture(primary) + mixture(candidate);
    let evidence = (mixtures - border(primary, candidate, margin)).max(0.0);
    match observed < margin {
        true => Evidence { within: evidence, beyond: 0.0 },
        false => Evidence { within: 0.0, beyond: evidence },
    }
}

/// The logarithm of the likelihood's mean under Jeffreys' prior.
fn mixture(count: Count) -> f64 {
    ln_beta(count.sum + 0.5, count.n - count.sum + 0.5) - ln_beta(0.5, 0.5)
}

/// The largest log-likelihood of both counts where the candidate's rate is the primary's plus
/// `margin`: concave along that line, so found by golden section.
fn border(primary: Count, candidate: Count, margin: f64) -> f64 {
    const EDGE: f64 = 1e-12;
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let likelihood = |p: f64| {
        let clip = |p: f64| p.clamp(EDGE, 1.0 - EDGE);
        primary.likelihood(clip(p)) + candidate.likelihood(clip(p + margin))
    };
    let (mut low, mut high) = (f64::max(0.0, -margin), f64::min(1.0, 1.0 - margin));
    let mut left = high - GOLDEN * (high - low);
    let mut right = low + GOLDEN * (high - low);
    let (mut at_left, mut at_right) = (likelihood(left), likelihood(right));
    let mut best = at_left.max(at_right).max(likelihood(low)).max(likelihood(high));
    for _ in 0..80 {
        if at_left < at_right {
            (low, left, at_left) = (left, right, at_right);
            right = low + GOLDEN * (high - low);
            at_right = likelihood(right);
        } else {
            (high, right, at_right) = (right, left, at_left);
            left = high - GOLDEN * (high - low);
            at_left = likelihood(left);
        }
        best = best.max(at_left).max(at_right);
    }
    best
}
