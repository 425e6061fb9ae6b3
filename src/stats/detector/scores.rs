//! Directions in which a numeric feature moves.

use super::super::special::normal_quantile;

/// Scores of the ordered cells: functions of the value's rank, with mean 0 and variance 1 under the
/// reference's shares, each uncorrelated with those before it. Other cells score 0 before that.
pub(in super::super) struct Scores {
    pub(in super::super) location: Vec<f64>,
    pub(in super::super) scale: Vec<f64>,
    pub(super) skew: Vec<f64>,
    pub(super) tails: Vec<f64>,
}

impl Scores {
    /// Location and scale are the means over each cell of z and of z² - 1, z the value's normal
    /// score, so that a tilt by θ of a normal feature is its shift by θ deviations. The shapes are
    /// Legendre's polynomials of degree 3 and 4 of the rank (Neyman's smooth test, 1937), which are
    /// bounded.
    pub(in super::super) fn new(shares: &[f64], n_ordered: usize) -> Self {
        let ordered: f64 = shares[..n_ordered].iter().sum();
        let density = |z: f64| (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let times_density = |z: f64| if z.is_finite() { z * density(z) } else { 0.0 };
        let mut scores = [const { Vec::new() }; 4];
        let (mut below, mut from) = (0.0, f64::NEG_INFINITY);
        for (cell, &share) in shares.iter().enumerate() {
            if cell >= n_ordered {
                scores.iter_mut().for_each(|score| score.push(0.0));
                continue;
            }
            let part = share / ordered;
            let to =
                if cell + 1 == n_ordered { f64::INFINITY } else { normal_quantile(below + part) };
            scores[0].push((density(from) - density(to)) / part);
            scores[1].push((times_density(from) - times_density(to)) / part);
            let x = 2.0 * (below + part / 2.0) - 1.0;
            scores[2].push(x * (5.0 * x * x - 3.0) / 2.0);
            scores[3].push((35.0 * x.powi(4) - 30.0 * x * x + 3.0) / 8.0);
            below += part;
            from = to;
        }
        for at in 0..scores.len() {
            let (before, rest) = scores.split_at_mut(at);
            standardise(&mut rest[0], before, shares);
        }
        let [location, scale, skew, tails] = scores;
        Self { location, scale, skew, tails }
    }
}

/// Gram and Schmidt's step under the reference's shares; a score with nothing left becomes 0.
fn standardise(score: &mut [f64], before: &[Vec<f64>], shares: &[f64]) {
    let product = |a: &[f64], b: &[f64]| -> f64 {
        a.iter().zip(b).zip(shares).map(|((a, b), share)| a * b * share).sum()
    };
    let mean: f64 = score.iter().zip(shares).map(|(score, share)| score * share).sum();
    score.iter_mut().for_each(|score| *score -= mean);
    for other in before {
        let along = product(score, other);
        score.iter_mut().zip(other).for_each(|(score, other)| *score -= along * other);
    }
    let deviation = product(score, score).sqrt();
    let scale = if deviation > 1e-9 { 1.0 / deviation } else { 0.0 };
    score.iter_mut().for_each(|score| *score *= scale);
}
