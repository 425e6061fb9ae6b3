//! The evidence of every window that ends now, and their sum.

use super::reference::{Dirichlet, LEAST_SHARE, Reference};
use super::ring::Ring;
use super::tolerance::{Nearest, Tolerance};
use super::{Tick, Window};

/// Terms of a sum this much (as a logarithm) below the largest are left out.
const NEGLIGIBLE: f64 = -25.0;

/// Terms below exp of this are left out, too: a hundred bets lack at most 0.02 of evidence, where
/// an alarm takes thousands.
const NOTHING: f64 = -9.0;

/// A window whose evidence cannot be above exp of this is not looked at closer: most windows of
/// unchanged traffic are such.
const LEAST_GAIN: f64 = 1.0;

/// Space for one judgement, kept between ticks.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch {
    /// Counts of the window, divided by the variance factor.
    counts: Vec<f64>,
    /// The most likely law of the tolerance.
    nearest: Vec<f64>,
    /// Logarithms of the window's weighted bets.
    bets: Vec<f64>,
    /// Logarithms of the windows' evidence.
    windows: Vec<f64>,
    /// What was expected of the window, where it depends on the season.
    expected: Vec<f64>,
}

impl Scratch {
    pub(super) fn judge(&mut self, reference: &Reference, ring: &Ring) -> Tick {
        let n_cells = ring.n_cells().min(reference.n_cells());
        self.counts.clear();
        self.counts.resize(reference.n_cells(), 0.0);
        self.nearest.resize(reference.n_cells(), 0.0);
        self.windows.clear();
        self.expected.clear();
        let scale = 1.0 / reference.variance_factor;
        let mut best = Window { start_tick: 0, rows: 0, log_evidence: f64::NEG_INFINITY };
        let (mut back, mut rows, mut one_season, mut oldest) = (None, 0_u64, true, 0);
        for part in ring.newest_first() {
            oldest = part.start_tick;
            for (sum, &count) in self.counts.iter_mut().zip(part.counts).take(n_cells) {
                *sum += count as f64 * scale;
                rows = rows.saturating_add(count);
            }
            if let Some(season) = reference.season {
                one_season &= part.season == Some(season);
                self.expected.resize(part.expected.len(), 0.0);
                self.expected.iter_mut().zip(part.expected).for_each(|(sum, share)| *sum += share);
            }
            if rows == 0 {
                continue;
            }
            let mixture = (!one_season).then(|| self.mixture(rows));
            let (shares, tolerance) = match &mixture {
                Some((shares, tolerance)) => (shares, tolerance),
                None => (&reference.shares, &reference.tolerance),
            };
            if back.is_none() && rows as f64 >= reference.recovery_rows {
                back = Some(self.is_back(shares, tolerance));
            }
            let log_evidence = match &mixture {
                Some((shares, tolerance)) => self.mixed_window(reference, shares, tolerance),
                None => self.window(reference),
            };
            if log_evidence > best.log_evidence {
                best = Window { start_tick: part.start_tick, rows, log_evidence };
            }
            self.windows.push(log_evidence);
        }
        if best.log_evidence <= 0.0 {
            // Nothing speaks for a change at any time: all ticks are as good a window as any.
            best = Window { start_tick: oldest, rows, log_evidence: 0.0 };
        }
        Tick {
            log_sum: ln_sum(&self.windows).max(0.0),
            best,
            newest_is_back: back.unwrap_or(false),
        }
    }

    /// ln of the evidence of the window's counts; that of 0 where they are within the tolerance or
    /// nearly so, where no bet wins.
    fn window(&mut self, reference: &Reference) -> f64 {
        let Some((total, ln_likelihood)) = self.ln_likelihood(&reference.tolerance) else {
            return f64::NEG_INFINITY;
        };
        self.bets.clear();
        for dirichlet in &reference.omnibus {
            let ln_probability = dirichlet.ln_probability(&self.counts, total);
            self.bets.push(reference.ln_omnibus_weight + ln_probability - ln_likelihood);
        }
        reference.bets.ln_evidence(&self.counts, &mut self.bets);
        ln_sum(&self.bets)
    }

    /// What a window of several seasons is compared with: shares and tolerance.
    fn mixture(&self, rows: u64) -> (Vec<f64>, Tolerance) {
        let (mut shares, tolerance) = Tolerance::mixture(&self.expected, rows as f64);
        shares.iter_mut().for_each(|share| *share = share.max(LEAST_SHARE));
        (shares, tolerance)
    }

    /// The same as [`window`](Self::window) for a window of several seasons: omnibus bets against
    /// their mixture.
    fn mixed_window(
        &mut self,
        reference: &Reference,
        shares: &[f64],
        tolerance: &Tolerance,
    ) -> f64 {
        if shares.len() != self.counts.len() {
            return f64::NEG_INFINITY;
        }
        let Some((total, ln_likelihood)) = self.ln_likelihood(tolerance) else {
            return f64::NEG_INFINITY;
        };
        self.bets.clear();
        for dirichlet in &reference.omnibus {
            let ln_probability =
                Dirichlet::new(dirichlet.concentration, shares).ln_probability(&self.counts, total);
            self.bets.push(reference.ln_omnibus_weight + ln_probability - ln_likelihood);
        }
        ln_sum(&self.bets)
    }

    /// The window's values, and ln of the largest likelihood that a law of the tolerance gives
    /// them; nothing where no bet can win more than [`LEAST_GAIN`] on them.
    fn ln_likelihood(&mut self, tolerance: &Tolerance) -> Option<(f64, f64)> {
        let total: f64 = self.counts.iter().sum();
        if tolerance.nearest(&self.counts, total, &mut self.nearest) == Nearest::Own {
            return None;
        }
        // No bet wins more than the law of the window's own shares would: Σ c ln(1 + y), y = c / (n
        // p) - 1, which is at most Σ c (y - y²/2 + y³/3).
        let mut most = 0.0;
        for (&count, &nearest) in self.counts.iter().zip(&self.nearest) {
            let y = count / (total * nearest.max(f64::MIN_POSITIVE)) - 1.0;
            most += count * y * (1.0 - y * (0.5 - y / 3.0));
        }
        if most <= LEAST_GAIN {
            return None;
        }
        let counted = self.counts.iter().zip(&self.nearest).filter(|(count, _)| **count > 0.0);
        let ln = counted.map(|(count, nearest)| count * nearest.max(f64::MIN_POSITIVE).ln()).sum();
        Some((total, ln))
    }

    /// Whether the window's shares are within the tolerance, give or take a standard error: more
    /// where the tolerance is narrow, so that an unchanged feature is seldom outside.
    fn is_back(&self, shares: &[f64], tolerance: &Tolerance) -> bool {
        let total: f64 = self.counts.iter().sum();
        let cells = self.counts.iter().zip(shares).enumerate();
        tolerance.contains(cells.map(|(cell, (&count, &share))| {
            let error = (share * (1.0 - share) / total).sqrt();
            let half = (tolerance.highest[cell] - tolerance.lowest[cell]) / 2.0;
            // A cell that is all but empty is allowed a value or two.
            let few = 2.0 / total;
            (count / total, error.max(3.0 * error - half).max(few))
        }))
    }
}

/// ln Σ exp(x), from below; -∞ of none.
fn ln_sum(logs: &[f64]) -> f64 {
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !most.is_finite() {
        return most;
    }
    let least = (most + NEGLIGIBLE).max(NOTHING).min(most);
    let terms = logs.iter().filter(|log| **log >= least).map(|log| (log - most).exp());
    most + terms.sum::<f64>().ln()
}
