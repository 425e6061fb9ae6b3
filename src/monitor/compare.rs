//! Rows against a baseline, without a server: effect sizes by feature, and the cells that moved.

use serde::{Deserialize, Serialize};

use super::baseline::{Baseline, FeatureBaseline};
use super::feature::{FeaturePlan, Kind, Side};
use super::reader::{CellReader, ReaderError, RowCells, count};
use super::rows::Rows;
use super::verdict::{MovedCell, WindowVerdict};
use crate::stats::effect::{Effects, Order, effects_of_dependent, smoothed};

/// Cells that are named as having moved, at most.
const MOST_MOVED: usize = 5;

/// How far rows are from a baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Rows compared.
    pub rows: u64,
    /// Rows of the baseline.
    pub baseline_rows: u64,
    /// Every feature, the largest debiased PSI first.
    pub features: Vec<FeatureComparison>,
    /// Share of rows whose outlier score is beyond the baseline's threshold, which one in a
    /// thousand of its own rows was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outliers: Option<f64>,
}

/// How far one feature is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureComparison {
    /// Its name.
    pub name: String,
    /// Input, output or derived.
    pub side: Side,
    /// Numbers or categories.
    pub kind: Kind,
    /// All rows against the baseline.
    pub window: WindowVerdict,
}

/// Counts rows in a baseline's cells.
#[derive(Debug)]
pub struct Comparer<'a> {
    baseline: &'a Baseline,
    reader: CellReader,
    cells: RowCells,
    counts: Vec<Vec<u64>>,
    n_rows: u64,
    n_outliers: u64,
}

impl<'a> Comparer<'a> {
    /// For rows of `plan`.
    pub fn new(plan: &FeaturePlan, baseline: &'a Baseline) -> Result<Self, ReaderError> {
        let reader = CellReader::new(plan, baseline)?;
        let counts = baseline.features.iter().map(|feature| vec![0; feature.cells.len()]);
        let counts = counts.collect();
        let cells = RowCells::default();
        Ok(Self { baseline, reader, cells, counts, n_rows: 0, n_outliers: 0 })
    }

    /// Counts rows. O(values × cells).
    pub fn push(&mut self, rows: &Rows) {
        self.reader.read(rows, &mut self.cells);
        self.n_rows += rows.len() as u64;
        for (feature, counts) in self.counts.iter_mut().enumerate() {
            let mut added = [0_u32; 256];
            let n_cells = counts.len().min(added.len());
            count(self.cells.column(feature), &mut added[..n_cells]);
            for (count, added) in counts.iter_mut().zip(added) {
                *count += u64::from(added);
            }
        }
        if let Some(outlier) = &self.baseline.outlier {
            let scores = self.cells.outlier_scores().iter();
            self.n_outliers +=
                scores.filter(|&&score| f64::from(score) > outlier.threshold).count() as u64;
        }
    }

    /// Rows counted.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Comparison {
        let pairs = self.baseline.features.iter().zip(&self.counts);
        let mut features: Vec<FeatureComparison> = pairs
            .map(|(feature, counts)| FeatureComparison {
                name: feature.name.clone(),
                side: feature.side,
                kind: feature.kind,
                window: window(feature, &feature.counts, counts, "all"),
            })
            .collect();
        let size = |feature: &FeatureComparison| feature.window.effects.psi_debiased;
        features.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let outliers = self.baseline.outlier.as_ref().filter(|_| self.n_rows > 0);
        let outliers = outliers.map(|_| self.n_outliers as f64 / self.n_rows as f64);
        Comparison { rows: self.n_rows, baseline_rows: self.baseline.rows, features, outliers }
    }
}

/// Live counts of a feature against reference counts under the same cells, which are the
/// feature's own or those of a slice. O(cells).
#[must_use]
pub fn window(
    feature: &FeatureBaseline,
    reference: &[u64],
    live: &[u64],
    window: &str,
) -> WindowVerdict {
    let rows: u64 = live.iter().sum();
    let share = |cell: usize| match rows {
        0 => 0.0,
        rows => live.get(cell).copied().unwrap_or(0) as f64 / rows as f64,
    };
    WindowVerdict {
        window: window.to_owned(),
        rows,
        effects: effects(feature, reference, live),
        missing: share(feature.cells.missing()),
        new: feature.cells.new_category().map_or(0.0, share),
        out_of_range: feature.cells.out_of_range().into_iter().map(share).sum(),
        moved: moved(feature, reference, live),
    }
}

/// How far live counts of a feature are from reference counts. O(cells).
pub(super) fn effects(feature: &FeatureBaseline, reference: &[u64], live: &[u64]) -> Effects {
    let centres = feature.cells.centres();
    let order = match feature.kind {
        Kind::Categorical => Order::None,
        Kind::Numeric => Order::Numeric {
            n_ordered: feature.cells.n_ordered(),
            centres: &centres,
            deviation: feature.summary.map_or(0.0, |summary| summary.deviation),
        },
    };
    let factor = feature.variance_factor.unwrap_or(1.0);
    effects_of_dependent(reference, live, order, factor)
}

/// The cells with the largest parts in the PSI, the largest first.
fn moved(feature: &FeatureBaseline, reference: &[u64], live: &[u64]) -> Vec<MovedCell> {
    if reference.iter().all(|&count| count == 0) || live.iter().all(|&count| count == 0) {
        return Vec::new();
    }
    let (expected, actual) = (smoothed(reference), smoothed(live));
    let mut parts: Vec<(usize, f64)> = expected
        .iter()
        .zip(&actual)
        .map(|(q, p)| (p - q) * (p / q).ln())
        .enumerate()
        .filter(|&(cell, part)| part > 0.0 && (reference[cell] > 0 || live[cell] > 0))
        .collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let total = |counts: &[u64]| counts.iter().map(|&count| count as f64).sum::<f64>();
    let (n_reference, n_live) = (total(reference), total(live));
    let moved = parts.into_iter().take(MOST_MOVED).map(|(cell, _)| MovedCell {
        cell: feature.cells.label(cell),
        expected: reference[cell] as f64 / n_reference,
        actual: live[cell] as f64 / n_live,
    });
    moved.collect()
}
