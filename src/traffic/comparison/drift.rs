//! How far the candidate's numbers are from the primary's as a whole: cells by quantiles of the
//! primary's first values, counted on both sides, and the monitor's effect sizes of the counts.

use serde::Serialize;

use crate::stats::effect::{Effects, Order, effects};

/// Values of the primary of which the cells are made.
const FIRST: usize = 512;

/// Cells between quantiles, at most.
const BINS: usize = 16;

/// One number of a row, on both sides.
#[derive(Debug)]
pub(super) struct Drift {
    name: String,
    /// Pairs before there are cells.
    first: Vec<(f64, f64)>,
    /// Upper bounds, ascending; empty before there are cells.
    edges: Vec<f64>,
    centres: Vec<f64>,
    deviation: f64,
    /// By side: what is up to each edge, above them all, and no finite number.
    counts: [Vec<u64>; 2],
}

/// The same, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct OutputDrift {
    /// What of the output: a column, its largest value, its class.
    pub name: String,
    /// How far the candidate is from the primary.
    pub effects: Effects,
}

impl Drift {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            first: Vec::new(),
            edges: Vec::new(),
            centres: Vec::new(),
            deviation: 0.0,
            counts: [Vec::new(), Vec::new()],
        }
    }

    pub(super) fn count(&mut self, primary: f64, candidate: f64) {
        if self.edges.is_empty() {
            self.first.push((primary, candidate));
            if self.first.len() >= FIRST {
                self.make_cells();
            }
            return;
        }
        let of = cell(&self.edges, primary);
        let own = if primary == candidate { of } else { cell(&self.edges, candidate) };
        self.counts[0][of] += 1;
        self.counts[1][own] += 1;
    }

    fn make_cells(&mut self) {
        let (edges, centres, deviation) = cells(&self.first);
        self.counts = count_all(&edges, &self.first);
        (self.edges, self.centres, self.deviation) = (edges, centres, deviation);
        self.first = Vec::new();
    }

    pub(super) fn report(&self) -> OutputDrift {
        let of_first;
        let (counts, centres, deviation) = if self.edges.is_empty() {
            let (edges, centres, deviation) = cells(&self.first);
            of_first = (count_all(&edges, &self.first), centres);
            (&of_first.0, of_first.1.as_slice(), deviation)
        } else {
            (&self.counts, self.centres.as_slice(), self.deviation)
        };
        let order = Order::Numeric { n_ordered: centres.len(), centres, deviation };
        let effects = effects(&counts[0], &counts[1], order);
        OutputDrift { name: self.name.clone(), effects }
    }
}

/// Edges, a value for each cell between them, and the deviation, of the primary's values.
fn cells(first: &[(f64, f64)]) -> (Vec<f64>, Vec<f64>, f64) {
    let mut values: Vec<f64> = first.iter().map(|(p, _)| *p).filter(|p| p.is_finite()).collect();
    values.sort_unstable_by(f64::total_cmp);
    let (Some(least), Some(largest)) = (values.first().copied(), values.last().copied()) else {
        return (vec![0.0], vec![0.0, 0.0], 0.0);
    };
    let quantile = |n: usize| values[(values.len() * n / BINS).min(values.len() - 1)];
    let mut edges: Vec<f64> = (1..BINS).map(quantile).collect();
    edges.dedup();
    let bounds = [least].into_iter().chain(edges.iter().copied()).chain([largest]);
    let bounds: Vec<f64> = bounds.collect();
    let centres = bounds.windows(2).map(|pair| f64::midpoint(pair[0], pair[1])).collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
    (edges, centres, variance.sqrt())
}

fn count_all(edges: &[f64], pairs: &[(f64, f64)]) -> [Vec<u64>; 2] {
    let mut counts = [vec![0; edges.len() + 2], vec![0; edges.len() + 2]];
    for (primary, candidate) in pairs {
        counts[0][cell(edges, *primary)] += 1;
        counts[1][cell(edges, *candidate)] += 1;
    }
    counts
}

fn cell(edges: &[f64], value: f64) -> usize {
    if !value.is_finite() {
        return edges.len() + 1;
    }
    edges.partition_point(|&edge| edge < value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_do_not_drift_and_moved_ones_do() {
        for rows in [100, 5_000] {
            let mut same = Drift::new("y".to_owned());
            let mut moved = Drift::new("y".to_owned());
            for row in 0..rows {
                let value = f64::from(row * 37 % 101);
                same.count(value, value);
                moved.count(value, value + 50.0);
            }
            let (same, moved) = (same.report().effects, moved.report().effects);
            assert_eq!((same.rows, same.psi, same.ks), (rows as u64, 0.0, Some(0.0)));
            assert!(moved.psi > 0.5 && moved.ks.unwrap() > 0.4, "{moved:?}");
        }
    }

    #[test]
    fn strange_values_have_a_cell() {
        let mut drift = Drift::new("y".to_owned());
        assert_eq!(drift.report().effects.rows, 0);
        for _ in 0..600 {
            drift.count(1.0, f64::NAN);
        }
        assert!(drift.report().effects.total_variation > 0.99);
    }
}
