//! The one decision: has a feature drifted?
//!
//! A sequential test on counts by cell, whose false-alarm rate is chosen and holds at every moment
//! however often one looks. `docs/drift.md` has the promise, its assumptions and the figures.
//!
//! - Null hypothesis: every value's law is within a box around the reference's shares
//!   ([`tolerance`]).
//! - Evidence of a window of ticks: a mixture of bets, each a likelihood ratio with expectation at
//!   most 1 under the null hypothesis. Directed bets ([`bets`]) are laws against the law of the box
//!   nearest to them (the reverse information projection: Grünwald, de Heide and Koolen 2024),
//!   which makes them test supermartingales for every law in the box, changing ones included. The
//!   omnibus bets are Dirichlet–multinomial mixtures (Lindon and Malek 2022) over the largest
//!   likelihood in the box (universal inference: Wasserman, Ramdas and Balakrishnan 2020).
//! - Over windows: the Shiryaev–Roberts sum M of the evidence of windows that end now and start at
//!   2^j ticks or so ([`ring`]), an e-detector (Shin, Ramdas and Rinaldo 2023): the alarm M ≥ 1/α
//!   comes at most once in 1/α ticks on average.
//! - Correlated traffic: counts are divided by the long-run variance factor before all that.
//!
//! A tick costs O(log(ticks) · cells · bets).

mod bets;
mod evidence;
mod reference;
mod ring;
pub(super) mod scores;
#[cfg(test)]
mod tests;
mod tolerance;

use serde::{Deserialize, Serialize};

use evidence::Scratch;
pub use reference::Reference;
use ring::Ring;

/// Windows that end at one tick, at most.
pub const MOST_WINDOWS: usize = ring::LEVELS as usize * ring::PER_LEVEL;

/// What is no drift.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Relative change of a cell's share that is no drift: 0.1 is ±10 %. Negative ones and NaN
    /// count as 0.
    pub tolerance: f64,
    /// Standard deviations that the reference's own shares may be off; 0 takes them as exact.
    pub z: f64,
    /// Factor by which counts vary more than those of independent rows ([`super::variance`]), at
    /// least 1.
    pub variance_factor: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tolerance: 0.1, z: 3.5, variance_factor: 1.0 }
    }
}

impl Settings {
    fn tolerance(&self) -> f64 {
        within(self.tolerance, 0.0, 1e6)
    }

    fn z(&self) -> f64 {
        within(self.z, 0.0, 100.0)
    }

    fn variance_factor(&self) -> f64 {
        within(self.variance_factor, 1.0, 1e6)
    }
}

/// NaN is the least.
fn within(value: f64, least: f64, most: f64) -> f64 {
    if value.is_nan() { least } else { value.clamp(least, most) }
}

/// What is known after a tick.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// ln of the Shiryaev–Roberts sum; drift where it reaches the logarithm of the promised number
    /// of ticks between false alarms. Never above the exact value: windows whose evidence is at
    /// most e in any case count as 0, so that the sum itself is below the exact one by at most e
    /// times the number of windows ([`MOST_WINDOWS`]). At least 0.
    pub log_sum: f64,
    /// The window with the most evidence: its start estimates when the change began.
    pub best: Window,
    /// Whether the newest rows, enough of them to tell, are within the tolerance.
    pub newest_is_back: bool,
}

/// A window of ticks that ends now.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Its first tick; ticks are counted from 0.
    pub start_tick: u64,
    /// Values in it.
    pub rows: u64,
    /// ln of its evidence.
    pub log_evidence: f64,
}

/// Watches one feature. At most [`MOST_WINDOWS`] buckets of counts, whatever the number of ticks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Detector {
    n_ticks: u64,
    ring: Ring,
    #[serde(skip)]
    scratch: Scratch,
}

impl Detector {
    /// Of a feature with so many cells.
    #[must_use]
    pub fn new(n_cells: usize) -> Self {
        Self { n_ticks: 0, ring: Ring::new(n_cells), scratch: Scratch::default() }
    }

    /// Ticks so far.
    #[must_use]
    pub fn n_ticks(&self) -> u64 {
        self.n_ticks
    }

    /// Takes the counts since the last tick, by cell, and judges all windows that end now.
    ///
    /// References that change with the season are marked so ([`Reference::in_season`]); otherwise
    /// the one given judges all windows, those of earlier ticks too.
    ///
    /// Counts beyond the detector's cells are left out, those that lack are zero; a reference of
    /// another number of cells is compared in the cells that both have.
    pub fn tick(&mut self, reference: &Reference, counts: &[u32]) -> Tick {
        self.ring.push(self.n_ticks, counts, reference);
        self.n_ticks = self.n_ticks.saturating_add(1);
        self.scratch.judge(reference, &self.ring)
    }

    /// Counts by cell of the window whose start is nearest to a tick.
    #[must_use]
    pub fn counts_since(&self, start_tick: u64) -> Vec<u64> {
        self.ring.since(start_tick)
    }

    /// Adds the counts of a detector that made as many ticks over the same cells, such as another
    /// replica's; false, and nothing is changed, if it did not.
    pub fn merge(&mut self, other: &Self) -> bool {
        let same = self.n_ticks == other.n_ticks && self.ring.matches(&other.ring);
        if same {
            self.ring.add(&other.ring);
        }
        same
    }
}

/// ln of the mean of numbers given by their logarithms: the sum of a whole model's features, valid
/// under any dependence between them. 0 of none.
#[must_use]
pub fn mean(log_sums: &[f64]) -> f64 {
    let most = log_sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !most.is_finite() {
        return if log_sums.is_empty() { 0.0 } else { most };
    }
    let sum: f64 = log_sums.iter().map(|log| (log - most).exp()).sum();
    most + (sum / log_sums.len() as f64).ln()
}

/// The features that drifted, of those whose evidence is given by its logarithm: at most the share
/// `level` of them wrongly, on average, under any dependence (e-BH: Wang and Ramdas 2022). The
/// most evidence first.
///
/// It holds of evidence with expectation at most 1. [`Window::log_evidence`] of the best window is
/// the largest of up to [`MOST_WINDOWS`]: subtract the logarithm of that.
#[must_use]
pub fn e_bh(log_evidence: &[f64], level: f64) -> Vec<usize> {
    let mut order: Vec<usize> =
        (0..log_evidence.len()).filter(|&at| !log_evidence[at].is_nan()).collect();
    order.sort_by(|&a, &b| log_evidence[b].total_cmp(&log_evidence[a]));
    let all = log_evidence.len() as f64;
    let named = (1..=order.len())
        .rev()
        .find(|&k| log_evidence[order[k - 1]] >= (all / (level * k as f64)).ln())
        .unwrap_or(0);
    order.truncate(named);
    order
}
