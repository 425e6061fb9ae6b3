//! What a baseline knows of the model's truthfulness.

use serde::{Deserialize, Serialize};

use super::tally::Tally;
use super::verdict::Measures;
use crate::monitor::labels::{Form, Label};
use crate::stats::confidence::long_run_factor;

/// Classes whose scores are counted, at most; a model of more has its accuracy and F1 by labels,
/// and no estimate.
pub(super) const MOST_SCORED: usize = 32;

/// Classes that are told apart, at most.
pub(super) const MOST_CLASSES: usize = 1024;

/// Cells of one score, at most.
pub(super) const MOST_CELLS: usize = 160;

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// One of two classes; the second of them is the positive one.
    Binary,
    /// One of several classes.
    Multiclass,
    /// A value.
    Regression,
}

/// The loss of a row, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    /// 1 where the class is wrong.
    ZeroOne,
    /// −ln of the true class's probability over its largest value, −ln 1e−7.
    LogLoss,
    /// |prediction − label| over the baseline's scale, at most 1.
    AbsoluteError,
}

/// The score's part of `baseline.json`.
///
/// Where there were no labels, [`ScoreBaseline::unlabelled`] has what is needed to begin live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreBaseline {
    /// What the model does.
    pub task: Task,
    /// The classes' names in the order of the scores; of two classes the second is positive.
    /// Empty for a regression.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub classes: Vec<String>,
    /// The scores' cells: one score where there are two classes, else one a class; none where the
    /// model has no score.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub scores: Vec<ScoreCells>,
    /// The reference's rows by label.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reference: Option<Tally>,
    /// Its losses.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub loss: Option<LossBaseline>,
}

/// The cells of one score and the probability of its class in each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreCells {
    /// Upper bounds, ascending; cells are right-closed, and the last is beyond the last bound.
    pub edges: Vec<f32>,
    /// The class's probability, one a cell.
    pub calibrated: Vec<f64>,
    /// Whether scores needed calibration; otherwise a cell's probability is its mean score.
    pub is_calibrated: bool,
    /// Whether scores are probabilities themselves: all of the reference were from 0 to 1.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub is_probability: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(flag: &bool) -> bool {
    *flag
}

/// Losses of the reference's rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossBaseline {
    /// Which loss.
    pub kind: LossKind,
    /// Rows.
    pub rows: u64,
    /// Their mean loss.
    pub mean: f64,
    /// Its variance (of the population).
    pub variance: f64,
    /// What 1 stands for, in the label's unit or in nats: the error that losses are divided by.
    pub scale: f64,
    /// Factor by which sums of successive losses vary more than those of independent ones; nothing
    /// where the rows' order says nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub variance_factor: Option<f64>,
}

/// Why a baseline's score is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the baseline's score: {0}")]
pub struct ScoreError(pub(super) String);

impl LossBaseline {
    /// Of no rows yet.
    pub(super) fn nothing(kind: LossKind, scale: f64) -> Self {
        Self { kind, rows: 0, mean: 0.0, variance: 0.0, scale, variance_factor: None }
    }

    /// Takes its figures from losses in the order of time.
    pub(super) fn learn(&mut self, losses: &[f64]) {
        let n = losses.len().max(1) as f64;
        let mean = losses.iter().sum::<f64>() / n;
        let squares = losses.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
        self.rows = losses.len() as u64;
        self.mean = mean.clamp(0.0, 1.0);
        self.variance = (squares / n).clamp(0.0, 0.25);
        self.variance_factor = Some(long_run_factor(losses));
    }
}

impl ScoreCells {
    /// Even cells of a probability, of which nothing is known.
    pub(super) fn even(n_cells: usize) -> Self {
        let n = n_cells.max(1);
        let edges: Vec<f32> = (1..n).map(|i| i as f32 / n as f32).collect();
        let calibrated = (0..n).map(|i| (i as f64 + 0.5) / n as f64).collect();
        Self { edges, calibrated, is_calibrated: false, is_probability: true }
    }

    /// How many cells there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.edges.len() + 1
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The cell of a score; nothing of NaN. O(cells), but without a branch: of 128 edges it takes
    /// a fraction of the time of a search.
    #[must_use]
    pub fn cell(&self, score: f32) -> Option<usize> {
        let below = || self.edges.iter().map(|&edge| u32::from(edge < score)).sum::<u32>();
        (!score.is_nan()).then(|| below() as usize)
    }

    /// The probability of the class at a score; nothing of NaN.
    #[must_use]
    pub fn probability(&self, score: f32) -> Option<f64> {
        self.cell(score).and_then(|cell| self.calibrated.get(cell)).copied()
    }
}

impl ScoreBaseline {
    /// For a version whose reference has no labels: nothing is estimated, and the loss is learned
    /// of the first labels that come.
    #[must_use]
    pub fn unlabelled(task: Task, classes: &[String], has_scores: bool) -> Self {
        let n_classes = classes.len();
        let scores = match task {
            Task::Binary if has_scores => vec![ScoreCells::even(cells_of(1))],
            Task::Multiclass if has_scores && n_classes <= MOST_SCORED => {
                vec![ScoreCells::even(cells_of(n_classes)); n_classes]
            }
            _ => Vec::new(),
        };
        let classes = classes.iter().take(MOST_CLASSES).cloned().collect();
        Self { task, classes, scores, reference: None, loss: None }
    }

    /// The measures on the reference, where it had labels.
    #[must_use]
    pub fn measures(&self) -> Option<Measures> {
        self.reference.as_ref().map(|tally| tally.measures(self))
    }

    /// Whether performance can be estimated without labels.
    #[must_use]
    pub fn can_estimate(&self) -> bool {
        self.reference.is_some() && !self.scores.is_empty()
    }

    /// The place of a class by its name, as bytes of an output. O(classes).
    #[must_use]
    pub fn class_of_text(&self, name: &[u8]) -> Option<u32> {
        let found = self.classes.iter().position(|class| class.as_bytes() == name)?;
        u32::try_from(found).ok()
    }

    /// The place of a class by its number: the class of that name, of `true` and `false` where
    /// these are the names, else the class at that place. O(classes).
    #[must_use]
    pub fn class_of_number(&self, number: f64) -> Option<u32> {
        let is_number = |class: &String| class.parse::<f64>().is_ok_and(|name| name == number);
        // Most often the classes are 0, 1, 2, ...
        if self.classes.get(number as usize).is_some_and(is_number) {
            return Some(number as u32);
        }
        if let Some(found) = self.classes.iter().position(is_number) {
            return u32::try_from(found).ok();
        }
        // Names that are no numbers leave numbers free to be places.
        let is_place = number >= 0.0 && number < self.classes.len() as f64 && number.fract() == 0.0;
        let are_names = self.classes.iter().all(|class| class.parse::<f64>().is_err());
        (is_place && are_names).then_some(number as u32)
    }

    /// The place of a class by its label: see the other two. `true` is also `1` and `1` also
    /// `true`.
    #[must_use]
    pub fn class_of(&self, label: &Label) -> Option<u32> {
        match label {
            Label::Number(number) => self.class_of_number(*number),
            Label::Text(name) => {
                let by_number = || self.class_of_number(name.trim().parse().ok()?);
                let by_truth = || match name.trim() {
                    "true" | "True" | "TRUE" => self.class_of_number(1.0),
                    "false" | "False" | "FALSE" => self.class_of_number(0.0),
                    _ => None,
                };
                self.class_of_text(name.as_bytes()).or_else(by_number).or_else(by_truth)
            }
            Label::Bool(truth) => {
                let name: &[u8] = if *truth { b"true" } else { b"false" };
                let by_number = || self.class_of_number(f64::from(u8::from(*truth)));
                self.class_of_text(name).or_else(by_number)
            }
        }
    }

    /// What a label says: the class's place, or the value. Nothing where it is none of the
    /// model's.
    #[must_use]
    pub fn truth_of(&self, label: &Label) -> Option<f64> {
        match (self.task, label) {
            (Task::Regression, Label::Number(value)) => Some(*value).filter(|v| v.is_finite()),
            (Task::Regression, Label::Text(text)) => {
                text.trim().parse().ok().filter(|value: &f64| value.is_finite())
            }
            (Task::Regression, Label::Bool(_)) => None,
            _ => self.class_of(label).map(f64::from),
        }
    }

    /// How predictions are kept while they wait.
    pub(super) fn form(&self) -> Form {
        match self.task {
            Task::Regression => Form::Value,
            _ => Form::Class { n_scores: self.scores.len() },
        }
    }

    /// Whether it can be worked with: it comes from a file.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), ScoreError> {
        let fail = |reason: String| Err(ScoreError(reason));
        let n_classes = self.classes.len();
        let wanted = match self.task {
            Task::Binary => n_classes == 2 && self.scores.len() <= 1,
            Task::Multiclass => {
                (3..=MOST_CLASSES).contains(&n_classes)
                    && (self.scores.is_empty() || self.scores.len() == n_classes)
                    && self.scores.len() <= MOST_SCORED
            }
            Task::Regression => n_classes == 0 && self.scores.is_empty(),
        };
        if !wanted {
            return fail(format!(
                "{n_classes} classes and {} scores do not fit the task {:?}",
                self.scores.len(),
                self.task
            ));
        }
        for (index, cells) in self.scores.iter().enumerate() {
            if cells.len() > MOST_CELLS || cells.calibrated.len() != cells.len() {
                return fail(format!(
                    "score {index} has {} edges and {} probabilities; expected one more than edges, at most {MOST_CELLS}",
                    cells.edges.len(),
                    cells.calibrated.len()
                ));
            }
            let is_ascending = cells.edges.iter().is_sorted_by(|a, b| a < b);
            if !is_ascending || cells.edges.iter().any(|edge| !edge.is_finite()) {
                return fail(format!("the edges of score {index} are not ascending numbers"));
            }
            if cells.calibrated.iter().any(|p| !(0.0..=1.0).contains(p)) {
                return fail(format!("a probability of score {index} is not from 0 to 1"));
            }
        }
        if let Some(tally) = &self.reference
            && !tally.fits(self)
        {
            return fail("the reference's rows do not fit classes and scores".to_owned());
        }
        if let Some(loss) = &self.loss {
            let is_share = |x: f64| (0.0..=1.0).contains(&x);
            let is_sane = is_share(loss.mean) && is_share(loss.variance);
            let is_fitting =
                (loss.kind == LossKind::AbsoluteError) == (self.task == Task::Regression);
            let is_sane = is_sane
                && loss.variance_factor.is_none_or(|factor| factor.is_finite() && factor >= 1.0);
            let is_scale = loss.scale.is_finite() && loss.scale > 0.0;
            if !(is_sane && is_fitting && is_scale) {
                return fail("the loss is none of the task's, or not from 0 to 1".to_owned());
            }
        }
        Ok(())
    }
}

/// Cells of a score, where there are so many scores: memory is bounded by their product.
pub(super) fn cells_of(n_scores: usize) -> usize {
    (1024 / n_scores.max(1)).clamp(24, 128)
}
