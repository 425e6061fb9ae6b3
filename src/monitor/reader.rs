//! Rows to cells: what a baseline's features are read from, and the loops over their columns.

use super::baseline::{Baseline, FeatureBaseline, Source};
use super::cells::{Cells, floor_single};
use super::feature::{FeaturePlan, Side, Values};
use super::kernel;
use super::lookup::Lookup;
use super::outlier;
use super::rows::{Column, Rows};

pub use super::kernel::count;

/// Reads the cells of a baseline's features, in the baseline's order. Immutable; O(features ×
/// cells) of memory.
#[derive(Debug, Clone)]
pub struct CellReader {
    features: Vec<Reading>,
    /// By feature, the outlier score of each cell; nothing for features that do not count.
    scores: Vec<Option<Vec<f32>>>,
}

/// Why a baseline's features cannot be read from a version's tensors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReaderError {
    /// The version has no such column.
    #[error(
        "the baseline has feature '{name}' of {source_name}, which the model does not have; make the baseline again"
    )]
    Unknown {
        /// The feature.
        name: String,
        /// Where it came from.
        source_name: String,
    },
    /// The column cannot have such cells.
    #[error("the baseline's feature '{name}': {reason}")]
    Unfit {
        /// The feature.
        name: String,
        /// Why not.
        reason: String,
    },
}

/// How one feature's cells are found.
#[derive(Debug, Clone)]
enum Reading {
    Single { column: usize, edges: Vec<f32>, missing: u8 },
    Double { column: usize, edges: Vec<f64>, missing: u8 },
    Categories { column: usize, lookup: Lookup },
    Product { factors: [Factor; 2], edges: Vec<f32>, missing: u8 },
    Outlier { edges: Vec<f32>, missing: u8 },
}

/// A column that is standardised.
#[derive(Debug, Clone, Copy)]
struct Factor {
    column: usize,
    mean: f64,
    scale: f64,
}

/// Cells of rows, by feature. Kept between micro-batches, so that reading takes no memory.
#[derive(Debug, Clone, Default)]
pub struct RowCells {
    cells: Vec<u8>,
    n_rows: usize,
    scores: Vec<f32>,
    values: Vec<f32>,
}

impl RowCells {
    /// The cells of one feature of the baseline, by row.
    #[must_use]
    pub fn column(&self, feature: usize) -> &[u8] {
        let start = feature * self.n_rows;
        self.cells.get(start..start + self.n_rows).unwrap_or_default()
    }

    /// The outlier score of every row; all 0 where the baseline has no input features.
    #[must_use]
    pub fn outlier_scores(&self) -> &[f32] {
        &self.scores
    }

    /// The number of rows.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }
}

impl CellReader {
    /// A reader of all features of `baseline`, in its order.
    pub fn new(plan: &FeaturePlan, baseline: &Baseline) -> Result<Self, ReaderError> {
        let features = baseline.features.iter().map(|feature| reading(plan, baseline, feature));
        let scored = |feature: &FeatureBaseline| feature.side == Side::Input;
        let scores = baseline.features.iter();
        let scores = scores.map(|feature| scored(feature).then(|| outlier::scores(feature)));
        Ok(Self { features: features.collect::<Result<_, _>>()?, scores: scores.collect() })
    }

    /// The number of features.
    #[must_use]
    pub fn n_features(&self) -> usize {
        self.features.len()
    }

    /// Finds the cell of every value of `rows`, and every row's outlier score. O(values × edges);
    /// takes no memory once `cells` has held as many rows.
    pub fn read(&self, rows: &Rows, cells: &mut RowCells) {
        let n_rows = rows.len();
        cells.n_rows = n_rows;
        cells.cells.resize(n_rows * self.features.len(), 0);
        cells.scores.clear();
        cells.scores.resize(n_rows, 0.0);
        if n_rows == 0 {
            return;
        }
        let columns = cells.cells.chunks_exact_mut(n_rows);
        for ((reading, scores), out) in self.features.iter().zip(&self.scores).zip(columns) {
            match reading {
                Reading::Single { column, edges, missing } => match rows.column(*column) {
                    Some(Column::Single(values)) => {
                        kernel::cells_of_numbers(values, edges, *missing, out);
                    }
                    Some(Column::Text(texts)) => {
                        kernel::cells_of_numbers(&texts.lengths, edges, *missing, out);
                    }
                    _ => out.fill(*missing),
                },
                Reading::Double { column, edges, missing } => match rows.column(*column) {
                    Some(Column::Double(values)) => {
                        kernel::cells_of_numbers(values, edges, *missing, out);
                    }
                    _ => out.fill(*missing),
                },
                Reading::Categories { column, lookup } => match rows.column(*column) {
                    Some(Column::Single(values)) => lookup.singles(values, out),
                    Some(Column::Double(values)) => lookup.doubles(values, out),
                    Some(Column::Text(texts)) => lookup.texts(&texts.hashes, out),
                    None => out.fill(lookup.missing()),
                },
                Reading::Product { factors, edges, missing } => {
                    multiply(rows, factors, &mut cells.values);
                    kernel::cells_of_numbers(&cells.values, edges, *missing, out);
                }
                Reading::Outlier { edges, missing } => {
                    kernel::cells_of_numbers(&cells.scores, edges, *missing, out);
                }
            }
            if let Some(scores) = scores {
                for (sum, &cell) in cells.scores.iter_mut().zip(&*out) {
                    *sum += scores[usize::from(cell)];
                }
            }
        }
    }
}

/// The product of two standardised columns.
fn multiply(rows: &Rows, factors: &[Factor; 2], out: &mut Vec<f32>) {
    out.clear();
    out.resize(rows.len(), 1.0);
    for Factor { column, mean, scale } in factors {
        match rows.column(*column) {
            Some(Column::Single(values)) => {
                for (out, &value) in out.iter_mut().zip(values) {
                    *out *= ((f64::from(value) - mean) * scale) as f32;
                }
            }
            Some(Column::Double(values)) => {
                for (out, &value) in out.iter_mut().zip(values) {
                    *out *= ((value - mean) * scale) as f32;
                }
            }
            _ => out.fill(f32::NAN),
        }
    }
}

fn reading(
    plan: &FeaturePlan,
    baseline: &Baseline,
    feature: &FeatureBaseline,
) -> Result<Reading, ReaderError> {
    let unfit =
        |reason: &str| ReaderError::Unfit { name: feature.name.clone(), reason: reason.to_owned() };
    let find = |source: &str| {
        plan.features().iter().position(|planned| planned.source == source).ok_or_else(|| {
            ReaderError::Unknown { name: feature.name.clone(), source_name: source.to_owned() }
        })
    };
    let missing = u8::try_from(feature.cells.missing()).map_err(|_| unfit("too many cells"))?;
    let edges = match &feature.cells {
        Cells::Numeric { edges } => edges.as_slice(),
        Cells::Categorical { .. } => &[],
    };
    let singles = || edges.iter().map(|&edge| floor_single(edge)).collect::<Vec<f32>>();
    match &feature.source {
        Source::Column(source) => {
            let column = find(source)?;
            let values = plan.features()[column].values;
            if let Cells::Categorical { .. } = feature.cells {
                let lookup =
                    Lookup::new(&feature.cells, values).map_err(|reason| unfit(&reason))?;
                return Ok(Reading::Categories { column, lookup });
            }
            Ok(match values.is_double() {
                true => Reading::Double { column, edges: edges.to_vec(), missing },
                false => Reading::Single { column, edges: singles(), missing },
            })
        }
        Source::Product(factors) => {
            let factor = |source: &String| {
                let column = find(source)?;
                let summary = baseline.column(source).and_then(|feature| feature.summary);
                let summary = summary.ok_or_else(|| unfit("a factor has no summary"))?;
                if plan.features()[column].values == Values::Text {
                    return Err(unfit("a factor is text"));
                }
                // A constant times anything says nothing: its product is always 0.
                let is_spread = summary.deviation > 0.0;
                let scale = if is_spread { 1.0 / summary.deviation } else { 0.0 };
                Ok(Factor { column, mean: summary.mean, scale })
            };
            let [first, second] = factors;
            let factors = [factor(first)?, factor(second)?];
            Ok(Reading::Product { factors, edges: singles(), missing })
        }
        Source::Outlier => Ok(Reading::Outlier { edges: singles(), missing }),
    }
}

/// The values of a product feature of `baseline`, by row.
pub(super) fn products(
    plan: &FeaturePlan,
    baseline: &Baseline,
    feature: usize,
    rows: &Rows,
) -> Result<Vec<f64>, ReaderError> {
    let mut values = Vec::new();
    if let Reading::Product { factors, .. } = reading(plan, baseline, &baseline.features[feature])?
    {
        multiply(rows, &factors, &mut values);
    }
    Ok(values.into_iter().map(f64::from).collect())
}
