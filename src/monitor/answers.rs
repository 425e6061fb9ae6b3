//! Scores and predictions of rows, in the form that labels are compared with.

use super::feature::FeaturePlan;
use super::labels::Label;
use super::performance::{Predicted, Predictions};
use super::rows;
use crate::tensor::{Datatype, Tensor};

/// What a model answered for some rows: the score and the prediction among its outputs.
#[derive(Debug, Clone)]
pub struct Answers {
    score: Option<usize>,
    prediction: Option<usize>,
    n_scores: usize,
    scores: Vec<f32>,
    predicted: Vec<Label>,
    n_rows: usize,
    row: Vec<f32>,
}

impl Answers {
    /// None yet.
    #[must_use]
    pub fn new(plan: &FeaturePlan) -> Self {
        let score = plan.score();
        Self {
            score: score.map(|score| score.output),
            prediction: plan.prediction(),
            n_scores: score.map_or(0, |score| score.n_columns),
            scores: Vec::new(),
            predicted: Vec::new(),
            n_rows: 0,
            row: Vec::new(),
        }
    }

    /// Whether there is anything that a label could be compared with.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.score.is_some() || self.prediction.is_some()
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n_rows
    }

    /// True where there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Forgets the rows; memory is kept.
    pub fn clear(&mut self) {
        self.scores.clear();
        self.predicted.clear();
        self.n_rows = 0;
    }

    /// Appends `n_rows` rows of a version's outputs, all of them in the signature's order. An
    /// output that does not have as many rows leaves NaN.
    pub fn push(&mut self, outputs: &[Tensor], n_rows: usize) {
        let output = |index: Option<usize>, width: usize| {
            let output = index.and_then(|index| outputs.get(index));
            output.filter(|output| Some(output.len()) == n_rows.checked_mul(width))
        };
        self.n_rows += n_rows;
        if self.score.is_some() {
            if let Some(scores) = output(self.score, self.n_scores) {
                rows::elements(scores, &mut self.row);
                self.scores.extend_from_slice(&self.row);
            }
            self.scores.resize(self.n_rows * self.n_scores, f32::NAN);
        }
        if self.prediction.is_some() {
            if let Some(predicted) = output(self.prediction, 1) {
                match predicted.datatype() {
                    Datatype::Bytes => {
                        let text = |text: &[u8]| Label::Text(String::from_utf8_lossy(text).into());
                        self.predicted.extend(predicted.elements().map(text));
                    }
                    Datatype::Bool => {
                        let truth = |&byte: &u8| Label::Bool(byte == 1);
                        self.predicted.extend(predicted.data().iter().map(truth));
                    }
                    _ => {
                        let numbers = rows::doubles(predicted);
                        self.predicted.extend(numbers.into_iter().map(Label::Number));
                    }
                }
            }
            self.predicted.resize(self.n_rows, Label::Number(f64::NAN));
        }
    }

    /// Puts row `row` of `other`, which is of the same version, in the place of row `at`, or after
    /// the last one.
    pub(crate) fn put(&mut self, at: Option<usize>, other: &Self, row: usize) {
        let n = self.n_scores;
        let scores = other.scores.get(row * n..(row + 1) * n).unwrap_or_default();
        let predicted = other.predicted.get(row).cloned();
        match at {
            None => {
                self.scores.extend_from_slice(scores);
                self.predicted.extend(predicted);
                self.n_rows += 1;
            }
            Some(at) => {
                if let Some(place) = self.scores.get_mut(at * n..(at + 1) * n) {
                    place.copy_from_slice(scores);
                }
                if let (Some(place), Some(predicted)) = (self.predicted.get_mut(at), predicted) {
                    *place = predicted;
                }
            }
        }
    }

    /// The rows, as performance is made of.
    #[must_use]
    pub fn predictions(&self) -> Predictions<'_> {
        Predictions {
            scores: &self.scores,
            n_scores: self.n_scores,
            predicted: match self.prediction {
                Some(_) => Predicted::Labels(&self.predicted),
                None => Predicted::None,
            },
        }
    }
}
