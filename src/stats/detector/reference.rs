//! What live counts are compared with: the reference's shares, how far each may be off without it
//! being drift, and everything that can be computed from them once.

use super::super::special::ln_gamma_positive;
use super::Settings;
use super::bets::{self, Bets};
use super::tolerance::Tolerance;

/// Weights of prior rows of the omnibus bet: small ones find large changes, large ones small.
const CONCENTRATIONS: [f64; 2] = [64.0, 1024.0];

/// The share of a cell that a reference does not have.
pub(super) const LEAST_SHARE: f64 = 1e-12;

/// A feature's reference, ready to judge counts.
#[derive(Debug, Clone)]
pub struct Reference {
    pub(super) variance_factor: f64,
    /// (r + 1/2) / (m + K/2).
    pub(super) shares: Vec<f64>,
    pub(super) tolerance: Tolerance,
    pub(super) bets: Bets,
    pub(super) omnibus: Vec<Dirichlet>,
    /// Logarithm of the weight of each omnibus bet.
    pub(super) ln_omnibus_weight: f64,
    /// Rows that can tell whether the newest counts are back within the tolerance.
    pub(super) recovery_rows: f64,
    /// Which of several references by season it is.
    pub(super) season: Option<u64>,
}

/// A Dirichlet prior around the reference's shares.
#[derive(Debug, Clone)]
pub(super) struct Dirichlet {
    pub(super) concentration: f64,
    pub(super) ln_gamma_concentration: f64,
    /// Concentration times share, a cell.
    prior: Vec<f64>,
    /// ln Γ of these.
    ln_gamma_prior: Vec<f64>,
}

impl Dirichlet {
    pub(super) fn new(concentration: f64, shares: &[f64]) -> Self {
        let prior: Vec<f64> = shares.iter().map(|share| concentration * share).collect();
        let ln_gamma_prior = prior.iter().map(|&prior| ln_gamma_positive(prior)).collect();
        Self {
            concentration,
            ln_gamma_concentration: ln_gamma_positive(concentration),
            prior,
            ln_gamma_prior,
        }
    }

    /// The logarithm of the probability of a sequence with these counts, which need not be whole.
    pub(super) fn ln_probability(&self, counts: &[f64], total: f64) -> f64 {
        let mut sum = self.ln_gamma_concentration - ln_gamma_positive(self.concentration + total);
        for ((&count, &prior), &ln_gamma_prior) in
            counts.iter().zip(&self.prior).zip(&self.ln_gamma_prior)
        {
            if count > 0.0 {
                sum += ln_gamma_positive(prior + count) - ln_gamma_prior;
            }
        }
        sum
    }
}

impl Reference {
    /// From the reference's counts by cell, of which the first `n_ordered` are ordered by value:
    /// the others are categories, or special (missing, infinite, new).
    ///
    /// Of no rows at all, everything is within the tolerance and nothing ever drifts.
    #[must_use]
    pub fn new(counts: &[u64], n_ordered: usize, settings: &Settings) -> Self {
        let n_ordered = n_ordered.min(counts.len());
        let total: f64 = counts.iter().map(|&count| count as f64).sum();
        let smoothed = total + counts.len() as f64 / 2.0;
        let shares: Vec<f64> =
            counts.iter().map(|&count| (count as f64 + 0.5) / smoothed).collect();
        let tolerance = Tolerance::new(counts, &shares, settings);
        let bets = bets::bets(&shares, n_ordered, &tolerance);
        let omnibus: Vec<Dirichlet> =
            CONCENTRATIONS.iter().map(|&a| Dirichlet::new(a, &shares)).collect();
        let variance_factor = settings.variance_factor();
        let recovery_rows = tolerance.recovery_rows(&shares) * variance_factor;
        Self {
            variance_factor,
            ln_omnibus_weight: (bets.omnibus_weight / omnibus.len() as f64).ln(),
            shares,
            tolerance,
            bets,
            omnibus,
            recovery_rows,
            season: None,
        }
    }

    /// The same as one of several that change with the season (an hour of the week): windows of
    /// ticks that were judged by several are compared with the mixture of them, in proportion to
    /// the rows of each.
    ///
    /// Such windows have omnibus bets only. Slots are below `u64::MAX`.
    #[must_use]
    pub fn in_season(self, slot: u64) -> Self {
        Self { season: Some(slot), ..self }
    }

    /// Its shares, then the lowest ones and the highest ones, for so many cells; a cell that it
    /// does not have may have any share.
    pub(super) fn expected(&self, n_cells: usize) -> impl Iterator<Item = f64> {
        let fill = move |shares: &'_ [f64], other: f64| -> Vec<f64> {
            let rest = std::iter::repeat(other);
            shares.iter().copied().chain(rest).take(n_cells).collect()
        };
        let (lowest, highest) = (&self.tolerance.lowest, &self.tolerance.highest);
        [fill(&self.shares, LEAST_SHARE), fill(lowest, 0.0), fill(highest, 1.0)]
            .into_iter()
            .flatten()
    }

    /// Cells.
    #[must_use]
    pub fn n_cells(&self) -> usize {
        self.shares.len()
    }

    /// The shares that it expects, (r + 1/2) / (m + K/2).
    #[must_use]
    pub fn shares(&self) -> &[f64] {
        &self.shares
    }

    /// The smallest and the largest share of a cell that is no drift.
    #[must_use]
    pub fn tolerated(&self, cell: usize) -> Option<(f64, f64)> {
        Some((*self.tolerance.lowest.get(cell)?, *self.tolerance.highest.get(cell)?))
    }
}
