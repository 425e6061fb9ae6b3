//! Directed bets: laws that a drifted feature might follow, each against the law of the tolerance
//! nearest to it.

use super::scores::Scores;
use super::tolerance::{Nearest, Tolerance};

/// Weights of the kinds of bets; those that a feature has share the whole in this proportion. They
/// were tuned by simulation (`load-tests/drift`): half a kind's weight is 0.7 nats of evidence of
/// some ten that an alarm takes.
const OMNIBUS: f64 = 0.06;
const LOCATION: f64 = 0.60;
const SCALE: f64 = 0.18;
const SHAPE: f64 = 0.10;
const CELL: f64 = 0.06;

/// Strengths of the tilts, in standard deviations of the score, and weights. Powers of two: a shift
/// between two of them still grows at 0.87 of the best rate or more; a larger one is found at once
/// by the largest.
const STRENGTHS: [(f64, f64); 5] = [(0.05, 0.3), (0.1, 1.0), (0.2, 1.5), (0.4, 1.5), (0.8, 0.3)];
/// Strengths of tilts of the shape.
const SHAPE_STRENGTHS: [(f64, f64); 4] = [(0.1, 1.0), (0.2, 1.0), (0.4, 1.0), (0.8, 1.0)];
/// How many times as frequent as tolerated one of the ordered cells becomes.
const ORDERED_GROWTHS: [f64; 2] = [1.5, 3.0];
/// The same for categories, missing, new: a cell that was all but empty may fill.
const OTHER_GROWTHS: [f64; 4] = [1.5, 4.0, 16.0, 64.0];
/// One cell is bet to take at most this share.
const MOST_SHARE: f64 = 0.8;

/// A bet whose law is that near to the tolerance (in nats a row) wins nothing in a lifetime.
const LEAST_GROWTH: f64 = 1e-7;

/// The directed bets against one reference.
#[derive(Debug, Clone)]
pub(super) struct Bets {
    /// The part of the evidence that the omnibus bets have.
    pub(super) omnibus_weight: f64,
    /// ln of the weights of the directed bets, which have the rest.
    ln_weights: Vec<f64>,
    /// What a value in each cell adds to the logarithm of each bet's evidence: all bets of the
    /// first cell, then all of the second, so that sums over cells are sums of vectors.
    gains: Vec<f64>,
}

impl Bets {
    /// Every bet's factors a cell.
    #[cfg(test)]
    pub(super) fn factors(&self, n_cells: usize) -> Vec<Vec<f64>> {
        let n_bets = self.ln_weights.len();
        let factor = |bet, cell| f64::exp(self.gains[cell * n_bets + bet]);
        (0..n_bets).map(|bet| (0..n_cells).map(|cell| factor(bet, cell)).collect()).collect()
    }

    /// Appends ln of weight times evidence of every bet for these counts.
    pub(super) fn ln_evidence(&self, counts: &[f64], logs: &mut Vec<f64>) {
        let start = logs.len();
        logs.extend_from_slice(&self.ln_weights);
        let logs = &mut logs[start..];
        for (&count, gains) in counts.iter().zip(self.gains.chunks_exact(logs.len().max(1))) {
            if count > 0.0 {
                logs.iter_mut().zip(gains).for_each(|(log, gain)| *log += count * gain);
            }
        }
    }
}

/// All bets of a reference.
pub(super) fn bets(shares: &[f64], n_ordered: usize, tolerance: &Tolerance) -> Bets {
    let mut bets =
        Builder { shares, tolerance, weights: Vec::new(), gains: Vec::new(), law: Vec::new() };
    if n_ordered >= 3 {
        let scores = Scores::new(shares, n_ordered);
        bets.family(LOCATION, |add| tilts(shares, &scores.location, &STRENGTHS, add));
        bets.family(SCALE, |add| tilts(shares, &scores.scale, &STRENGTHS, add));
        bets.family(SHAPE, |add| {
            tilts(shares, &scores.skew, &SHAPE_STRENGTHS, add);
            tilts(shares, &scores.tails, &SHAPE_STRENGTHS, add);
        });
    }
    bets.family(CELL, |add| {
        for (cell, &share) in shares.iter().enumerate() {
            let growths: &[f64] = if cell < n_ordered { &ORDERED_GROWTHS } else { &OTHER_GROWTHS };
            for growth in growths {
                let target = tolerance.highest[cell] * growth;
                if target < MOST_SHARE {
                    let rest = (1.0 - target) / (1.0 - share);
                    let mut law: Vec<f64> = shares.iter().map(|share| share * rest).collect();
                    law[cell] = target;
                    add(&law, 1.0);
                }
            }
        }
    });
    bets.finish()
}

/// Takes a law and its weight within its family.
type Add<'a> = dyn FnMut(&[f64], f64) + 'a;

/// Tilts along a score, both ways.
fn tilts(shares: &[f64], score: &[f64], strengths: &[(f64, f64)], add: &mut Add<'_>) {
    for &(theta, weight) in strengths {
        add(&tilt(shares, score, theta), weight);
        add(&tilt(shares, score, -theta), weight);
    }
}

/// The law p ∝ q exp(θ s).
fn tilt(shares: &[f64], score: &[f64], theta: f64) -> Vec<f64> {
    let law: Vec<f64> =
        shares.iter().zip(score).map(|(share, score)| share * (theta * score).exp()).collect();
    let total: f64 = law.iter().sum();
    law.into_iter().map(|share| share / total).collect()
}

/// Puts bets together: a family's weight is shared by those of its bets that can win.
struct Builder<'a> {
    shares: &'a [f64],
    tolerance: &'a Tolerance,
    weights: Vec<f64>,
    gains: Vec<f64>,
    law: Vec<f64>,
}

impl Builder<'_> {
    fn family(&mut self, weight: f64, make: impl FnOnce(&mut Add<'_>)) {
        let (tolerance, gains) = (self.tolerance, &mut self.gains);
        let nearest = &mut self.law;
        nearest.resize(self.shares.len(), 0.0);
        let mut weights: Vec<f64> = Vec::new();
        make(&mut |law, weight| {
            let total: f64 = law.iter().sum();
            let usable = law.iter().all(|share| *share > 0.0 && share.is_finite());
            if !usable || tolerance.nearest(law, total, nearest) == Nearest::Own {
                return;
            }
            let pairs = || law.iter().zip(nearest.iter());
            let growth: f64 = pairs().map(|(&p, &q)| p * (p / q).ln()).sum();
            if growth > LEAST_GROWTH {
                gains.extend(pairs().map(|(&p, &q)| (p / q).ln()));
                weights.push(weight);
            }
        });
        // Bets that cannot win leave their weight to the others; a family of none, to the families.
        let scale = weight / weights.iter().sum::<f64>();
        self.weights.extend(weights.into_iter().map(|weight| weight * scale));
    }

    fn finish(self) -> Bets {
        let total: f64 = self.weights.iter().sum();
        let scale = 1.0 / (OMNIBUS + total);
        let n_cells = self.shares.len();
        let by_cell = |cell| self.gains.iter().skip(cell).step_by(n_cells).copied();
        Bets {
            omnibus_weight: OMNIBUS * scale,
            ln_weights: self.weights.iter().map(|weight| (weight * scale).ln()).collect(),
            gains: (0..n_cells).flat_map(by_cell).collect(),
        }
    }
}
