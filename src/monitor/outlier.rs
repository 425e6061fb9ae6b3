//! How odd a row is: the histogram-based outlier score (HBOS; Goldstein and Dengel 2012, "dynamic
//! bin width" mode), from the cells that the values are counted in anyway.
//!
//! A cell's height is its share of the reference divided by its width; a feature's score is the
//! logarithm of the largest height over the height of the value's cell, and a row's score the sum
//! over its input features. It takes features for independent, which makes it one look-up a value.

use super::baseline::FeatureBaseline;
use super::cells::Cells;

/// The score of each cell of a feature: 0 for the most ordinary one.
///
/// Shares are smoothed, `(c + 1/2) / (n + K/2)`. A cell without an end (below, above) is taken to
/// be as wide as the reference's deviation; one value's cell, and every category, has a height
/// that is its share over the least width of the others. O(cells).
pub(super) fn scores(feature: &FeatureBaseline) -> Vec<f32> {
    let n_cells = feature.counts.len();
    let total: f64 = feature.counts.iter().map(|&count| count as f64).sum();
    let share = |cell: usize| (feature.counts[cell] as f64 + 0.5) / (total + n_cells as f64 / 2.0);
    let widths = widths(feature);
    let heights: Vec<f64> = (0..n_cells).map(|cell| share(cell) / widths[cell]).collect();
    let highest = heights.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    heights.iter().map(|height| (highest / height).ln().clamp(0.0, 50.0) as f32).collect()
}

/// Widths of all cells, in parts of the widest range that a cell covers; at least a thousandth.
fn widths(feature: &FeatureBaseline) -> Vec<f64> {
    let n_cells = feature.counts.len();
    let Cells::Numeric { edges } = &feature.cells else { return vec![1.0; n_cells] };
    let (Some(&first), Some(&last)) = (edges.first(), edges.last()) else {
        return vec![1.0; n_cells];
    };
    // Halves: the range itself may be more than a number can be.
    let range = last / 2.0 - first / 2.0;
    if range <= 0.0 || !range.is_finite() {
        return vec![1.0; n_cells];
    }
    let deviation = feature.summary.map_or(range, |summary| summary.deviation);
    let outer = (deviation / 2.0 / range).clamp(1e-3, 1.0);
    let inner = edges.windows(2).map(|pair| ((pair[1] / 2.0 - pair[0] / 2.0) / range).max(1e-3));
    let mut widths = vec![outer];
    widths.extend(inner);
    // Above, missing and infinite.
    widths.resize(n_cells, outer);
    widths
}
