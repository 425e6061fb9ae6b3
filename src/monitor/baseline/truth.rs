//! Labels of reference rows: what they say of the score.

use crate::monitor::answers::Answers;
use crate::monitor::feature::FeaturePlan;
use crate::monitor::labels::Label;
use crate::monitor::performance::{FitError, Reference, ScoreBaseline};
use crate::tensor::Tensor;

/// Rows that are kept; of more, a uniform sample (algorithm R).
const MOST_ROWS: usize = 200_000;

/// Rows with their labels, of which the score's part of a baseline is made.
#[derive(Debug)]
pub struct Truth {
    answers: Answers,
    labels: Vec<Option<Label>>,
    batch: Answers,
    most: usize,
    /// When the last row was, as long as none came before the one before it.
    last: Option<i64>,
    random: fastrand::Rng,
    n_rows: u64,
}

impl Truth {
    /// No rows yet; at most `most` are kept, or 200,000.
    #[must_use]
    pub fn new(plan: &FeaturePlan, most: Option<usize>) -> Self {
        let answers = Answers::new(plan);
        let batch = answers.clone();
        let random = fastrand::Rng::with_seed(1);
        let most = most.unwrap_or(MOST_ROWS).max(1);
        Self { answers, labels: Vec::new(), batch, most, last: Some(i64::MIN), random, n_rows: 0 }
    }

    /// Takes in rows: the outputs, the labels as text, empty where there is none, and when they
    /// were.
    pub fn push(&mut self, outputs: &[Tensor], labels: &[String], times: Option<&[i64]>) {
        for row in 0..labels.len() {
            let time = times.and_then(|times| times.get(row)).copied();
            self.last = time.filter(|time| self.last.is_some_and(|last| last <= *time));
        }
        self.batch.clear();
        self.batch.push(outputs, labels.len());
        for (row, label) in labels.iter().enumerate() {
            let label = label.trim();
            let label = (!label.is_empty()).then(|| Label::Text(label.into()));
            self.n_rows += 1;
            if self.labels.len() < self.most {
                self.answers.put(None, &self.batch, row);
                self.labels.push(label);
                continue;
            }
            let place = usize::try_from(self.random.u64(..self.n_rows)).unwrap_or(usize::MAX);
            if let Some(kept) = self.labels.get_mut(place) {
                *kept = label;
                self.answers.put(Some(place), &self.batch, row);
            }
        }
    }

    /// Whether the version has a score or a prediction that labels can be compared with.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.answers.is_known()
    }

    /// The score's part of the baseline. `classes` are the names of the score's columns; they
    /// are passed over where the labels are others, such as numbers.
    pub fn fit(&self, classes: &[String]) -> Result<ScoreBaseline, FitError> {
        let is_class = |label: &Label| match label {
            Label::Text(text) => classes.iter().any(|class| *class == **text),
            _ => false,
        };
        let are_classes = self.labels.iter().flatten().all(is_class);
        ScoreBaseline::fit(&Reference {
            predictions: self.answers.predictions(),
            labels: &self.labels,
            classes: if are_classes { classes } else { &[] },
            task: None,
            loss: None,
            // A row that was replaced left its place in the order.
            is_ordered: self.last.is_some() && self.n_rows <= self.most as u64,
        })
    }
}
