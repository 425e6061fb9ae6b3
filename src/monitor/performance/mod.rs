//! Live performance: by labels where they come, and estimated from the scores alone.
//!
//! - [`ScoreBaseline`] is what `baseline.json` knows of the model's truthfulness: the score's
//!   cells with the rows of each class, the calibrated probability of each cell, the measures and
//!   the loss on the reference.
//! - [`ScoreCounts`] are counted live and add exactly; [`estimate`] makes measures of them without
//!   labels (CBPE: confidence-based performance estimation).
//! - [`Performance`] is the state of one watched stream: it joins labels with predictions, keeps
//!   windows of both, and decides whether the loss is beyond the baseline's.
//!
//! Invariants: memory is bounded by the settings and the baseline, whatever comes; whole numbers
//! are added everywhere, so that windows are the same in whatever order their parts are added.

mod baseline;
mod counts;
mod fit;
mod live;
mod loss;
mod tally;
mod verdict;
mod windows;
mod words;

#[cfg(test)]
mod figures;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

pub use baseline::{LossBaseline, LossKind, ScoreBaseline, ScoreCells, ScoreError, Task};
pub use counts::{ClassCounts, ScoreCounts, estimate};
pub use fit::{FitError, Reference};
pub use live::{Kept, Performance, Settings};
pub use loss::LossWatch;
pub use tally::Tally;
pub use verdict::{
    Band, Change, ClassicalVerdict, Estimated, EstimatedWindow, LossVerdict, Measures,
    PerformanceVerdict, RealisedWindow,
};
pub use windows::Windows;

use super::labels::Label;

/// What a model answered for some rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predictions<'a> {
    /// Scores row by row, `n_scores` each: one probability (or score) of the positive class, or
    /// one for each class in the order of the classes. Empty where the model has none.
    pub scores: &'a [f32],
    /// Scores of a row.
    pub n_scores: usize,
    /// What was predicted.
    pub predicted: Predicted<'a>,
}

/// Predicted classes or values, one a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Predicted<'a> {
    /// The output is not known: the class is the likeliest by the scores, the value is the score.
    None,
    /// Places in the list of classes; any other number is no class.
    Classes(&'a [u32]),
    /// Values of a regression, or numbers of classes.
    Numbers(&'a [f64]),
    /// Classes by number or name.
    Labels(&'a [Label]),
}

impl Predictions<'_> {
    /// How many rows there are: as many as the shorter of scores and predictions.
    #[must_use]
    pub fn rows(&self) -> usize {
        let by_scores = self.scores.len().checked_div(self.n_scores);
        let predicted = match self.predicted {
            Predicted::None => None,
            Predicted::Classes(classes) => Some(classes.len()),
            Predicted::Numbers(numbers) => Some(numbers.len()),
            Predicted::Labels(labels) => Some(labels.len()),
        };
        match (by_scores, predicted) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b).unwrap_or(0),
        }
    }
}
