//! Rows with their labels, counted: what realised measures are made of.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::baseline::{LossBaseline, LossKind, ScoreBaseline, Task};
use super::verdict::Measures;
use super::windows::Sum;
use super::{Predicted, Predictions};
use crate::monitor::labels::Prediction;
use crate::stats::performance::{Confusion, LEAST_PROBABILITY, log_loss, roc_auc};

/// Log losses are added in units of 2⁻²⁰ nats: sums are exact in any order.
const NATS: f64 = 1_048_576.0;

/// Errors are added in units of the scale's 2⁻²⁰.
const ERRORS: f64 = 1_048_576.0;

/// Errors beyond so many scales count as so many: sums of squares of 2³⁸ rows fit.
const MOST_SCALES: f64 = 16_777_216.0;

/// One row as it is counted: scores as the baseline has them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// The class's place or the value; NaN where it is not known.
    pub(super) value: f64,
    pub(super) scores: SmallVec<[f32; 4]>,
}

impl Row {
    /// The predicted class.
    pub(super) fn class(&self) -> Option<usize> {
        (self.value >= 0.0).then_some(self.value as usize)
    }
}

/// The rows of `predictions` as `baseline` has them. A class that was not said is the likeliest.
pub(super) fn rows<'a>(
    baseline: &'a ScoreBaseline,
    predictions: &'a Predictions<'a>,
) -> impl Iterator<Item = Row> + 'a {
    (0..predictions.rows()).map(move |index| {
        let start = index * predictions.n_scores;
        let given = predictions.scores.get(start..start + predictions.n_scores).unwrap_or_default();
        let scores: &[f32] = match (baseline.task, given) {
            _ if baseline.scores.is_empty() => &[],
            // Of two classes the second's is the score.
            (Task::Binary, [_, positive]) => std::slice::from_ref(positive),
            (_, given) if given.len() == baseline.scores.len() => given,
            _ => &[],
        };
        let class = |class: Option<u32>| class.map_or(f64::NAN, f64::from);
        let number = |number: f64| match baseline.task {
            Task::Regression => number,
            _ => class(baseline.class_of_number(number)),
        };
        let value = match predictions.predicted {
            Predicted::Classes(classes) => classes
                .get(index)
                .filter(|&&class| (class as usize) < baseline.classes.len())
                .map_or(f64::NAN, |&class| f64::from(class)),
            Predicted::Numbers(numbers) => numbers.get(index).map_or(f64::NAN, |&n| number(n)),
            Predicted::Labels(labels) => {
                labels.get(index).and_then(|label| baseline.truth_of(label)).unwrap_or(f64::NAN)
            }
            Predicted::None => match baseline.task {
                Task::Regression => given.first().map_or(f64::NAN, |&value| f64::from(value)),
                _ => likeliest(scores, given),
            },
        };
        Row { value, scores: scores.into() }
    })
}

/// The class of the largest score; of one score, whether it is at least a half.
fn likeliest(scores: &[f32], given: &[f32]) -> f64 {
    match scores {
        [positive] if given.len() == 1 => match positive.is_nan() {
            true => f64::NAN,
            false => f64::from(u8::from(*positive >= 0.5)),
        },
        _ => {
            let known = given.iter().enumerate().filter(|(_, score)| !score.is_nan());
            // The first of equal ones, as NumPy's argmax.
            let best = known.reduce(|best, next| if next.1 > best.1 { next } else { best });
            best.map_or(f64::NAN, |(class, _)| class as f64)
        }
    }
}

/// Rows by prediction and label. Whole numbers only: it adds exactly.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Rows.
    pub rows: u64,
    /// Rows whose class is right.
    pub correct: u64,
    /// The positive class where there are two, else one each.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub classes: Vec<ClassTally>,
    /// Rows that had a probability for the true class.
    #[serde(default)]
    pub scored: u64,
    /// Their log losses, in 2⁻²⁰ nats.
    #[serde(default)]
    pub log_loss: u64,
    /// Errors of values.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub errors: Option<ErrorTally>,
}

/// Rows of one class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassTally {
    /// Predicted as it.
    pub predicted: u64,
    /// Being it.
    pub actual: u64,
    /// Both.
    pub both: u64,
    /// Not being it, by score cell.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub negatives: Vec<u64>,
    /// Being it, by score cell.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub positives: Vec<u64>,
}

/// Sums of errors (prediction − label), in units of 2⁻²⁰ of `scale`.
/// Written as text, because readers of JSON may not keep numbers beyond 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorTally {
    /// The scale, in the label's unit.
    pub scale: f64,
    /// Their sum.
    #[serde(with = "as_text")]
    pub sum: i128,
    /// The sum of their amounts.
    #[serde(with = "as_text")]
    pub absolute: i128,
    /// The sum of their squares, in squared units.
    #[serde(with = "as_text")]
    pub squared: i128,
}

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &i128, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i128, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl ClassTally {
    /// The class against the rest, of so many rows.
    #[must_use]
    pub fn confusion(&self, rows: u64) -> Confusion {
        Confusion::of(self.predicted as f64, self.actual as f64, self.both as f64, rows as f64)
    }
}

impl Tally {
    /// Nothing counted yet. `scale` is what errors of a regression are counted in.
    #[must_use]
    pub fn new(baseline: &ScoreBaseline, scale: f64) -> Self {
        let n_classes = match baseline.task {
            Task::Binary => 1,
            Task::Multiclass => baseline.classes.len(),
            Task::Regression => 0,
        };
        let classes = (0..n_classes).map(|class| {
            let n_cells = baseline.scores.get(class).map_or(0, super::ScoreCells::len);
            let cells = vec![0; n_cells];
            ClassTally { negatives: cells.clone(), positives: cells, ..ClassTally::default() }
        });
        let is_regression = baseline.task == Task::Regression;
        let scale = if scale.is_finite() && scale > 0.0 { scale } else { 1.0 };
        let errors = is_regression.then_some(ErrorTally { scale, sum: 0, absolute: 0, squared: 0 });
        Self { classes: classes.collect(), errors, ..Self::default() }
    }

    /// Counts a row. `truth` is the class's place or the value.
    pub fn count(&mut self, baseline: &ScoreBaseline, prediction: &Prediction, truth: f64) {
        if prediction.value.is_nan() || truth.is_nan() {
            return;
        }
        self.rows += 1;
        if let Some(errors) = &mut self.errors {
            let scale = errors.scale;
            let scaled = ((prediction.value - truth) / scale).clamp(-MOST_SCALES, MOST_SCALES);
            let error = (scaled * ERRORS).round() as i128;
            errors.sum += error;
            errors.absolute += error.abs();
            errors.squared += error * error;
            return;
        }
        let (predicted, actual) = (prediction.value as usize, truth as usize);
        self.correct += u64::from(predicted == actual);
        if let Some(p) = truth_probability(baseline, &prediction.scores, actual) {
            self.scored += 1;
            self.log_loss = self.log_loss.saturating_add((log_loss(p) * NATS).round() as u64);
        }
        let is_binary = baseline.task == Task::Binary;
        for (index, tally) in self.classes.iter_mut().enumerate() {
            let class = if is_binary { 1 } else { index };
            let (is_predicted, is_actual) = (predicted == class, actual == class);
            tally.predicted += u64::from(is_predicted);
            tally.actual += u64::from(is_actual);
            tally.both += u64::from(is_predicted && is_actual);
            let score = prediction.scores.get(index);
            let cell = score.zip(baseline.scores.get(index)).and_then(|(&s, cells)| cells.cell(s));
            let counts = if is_actual { &mut tally.positives } else { &mut tally.negatives };
            if let Some(count) = cell.and_then(|cell| counts.get_mut(cell)) {
                *count += 1;
            }
        }
    }

    /// The measures of the rows counted.
    #[must_use]
    pub fn measures(&self, baseline: &ScoreBaseline) -> Measures {
        if self.rows == 0 {
            return Measures::default();
        }
        let rows = self.rows as f64;
        if let Some(errors) = self.errors {
            let unit = errors.scale / ERRORS;
            let mean = |sum: i128| sum as f64 / rows * unit;
            return Measures {
                mae: Some(mean(errors.absolute)),
                rmse: Some((errors.squared as f64 / rows).sqrt() * unit),
                bias: Some(mean(errors.sum)),
                ..Measures::default()
            };
        }
        // Of several classes the mean over those that were predicted or true, as scikit-learn's
        // macro average.
        let seen = |class: &&ClassTally| {
            baseline.task == Task::Binary || class.predicted > 0 || class.actual > 0
        };
        let mean = |of: fn(&Confusion) -> Option<f64>| -> Option<f64> {
            let seen = self.classes.iter().filter(seen);
            let values: Vec<f64> =
                seen.filter_map(|class| of(&class.confusion(self.rows))).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let aucs: Option<Vec<f64>> = self
            .classes
            .iter()
            .map(|class| {
                let as_f64 = |counts: &[u64]| counts.iter().map(|&n| n as f64).collect::<Vec<_>>();
                roc_auc(&as_f64(&class.negatives), &as_f64(&class.positives))
            })
            .collect();
        Measures {
            accuracy: Some(self.correct as f64 / rows),
            precision: mean(Confusion::precision),
            recall: mean(Confusion::recall),
            f1: mean(Confusion::f1),
            log_loss: (self.scored > 0).then(|| self.log_loss as f64 / NATS / self.scored as f64),
            roc_auc: aucs
                .filter(|aucs| !aucs.is_empty())
                .map(|aucs| aucs.iter().sum::<f64>() / aucs.len() as f64),
            ..Measures::default()
        }
    }

    /// Whether it has the baseline's classes and cells, and its sums make sense: it comes from a
    /// file.
    pub(super) fn fits(&self, baseline: &ScoreBaseline) -> bool {
        const MOST: u64 = 1 << 50;
        let like = Self::new(baseline, 1.0);
        let is_class_sane = |class: &ClassTally, like: &ClassTally| {
            let cells = class.negatives.iter().chain(&class.positives);
            class.both <= class.predicted.min(class.actual)
                && class.predicted.max(class.actual) <= self.rows
                && class.negatives.len() == like.negatives.len()
                && class.positives.len() == like.positives.len()
                && cells.into_iter().all(|&n| n <= self.rows)
        };
        let is_error_sane = self.errors.is_none_or(|errors| {
            let scale = errors.scale;
            let most = i128::MAX / 4;
            scale.is_finite()
                && scale > 0.0
                && errors.sum.checked_abs().is_some_and(|sum| sum < most)
                && (0..most).contains(&errors.absolute)
                && (0..most).contains(&errors.squared)
        });
        self.rows <= MOST
            && self.correct <= self.rows
            && self.scored <= self.rows
            && self.classes.len() == like.classes.len()
            && self.errors.is_some() == like.errors.is_some()
            && is_error_sane
            && self.classes.iter().zip(&like.classes).all(|(own, like)| is_class_sane(own, like))
    }
}

impl Sum for Tally {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.correct += other.correct;
        self.scored += other.scored;
        self.log_loss = self.log_loss.saturating_add(other.log_loss);
        for (own, other) in self.classes.iter_mut().zip(&other.classes) {
            own.predicted += other.predicted;
            own.actual += other.actual;
            own.both += other.both;
            own.negatives.iter_mut().zip(&other.negatives).for_each(|(a, b)| *a += b);
            own.positives.iter_mut().zip(&other.positives).for_each(|(a, b)| *a += b);
        }
        if let (Some(own), Some(other)) = (&mut self.errors, &other.errors) {
            own.sum += other.sum;
            own.absolute += other.absolute;
            own.squared += other.squared;
        }
    }
}

/// The probability of the true class: the score where scores are probabilities, else the
/// calibrated one.
fn truth_probability(baseline: &ScoreBaseline, scores: &[f32], actual: usize) -> Option<f64> {
    let is_binary = baseline.task == Task::Binary;
    let index = if is_binary { 0 } else { actual };
    let score = *scores.get(index)?;
    let cells = baseline.scores.get(index)?;
    let p = match cells.is_probability && (0.0..=1.0).contains(&score) {
        true => f64::from(score),
        false => cells.probability(score)?,
    };
    Some(if is_binary && actual == 0 { 1.0 - p } else { p })
}

/// A row's loss, from 0 to 1; nothing where the row has none.
pub(super) fn loss(
    baseline: &ScoreBaseline,
    reference: LossBaseline,
    prediction: &Prediction,
    truth: f64,
) -> Option<f64> {
    if prediction.value.is_nan() || truth.is_nan() {
        return None;
    }
    match reference.kind {
        LossKind::ZeroOne => Some(f64::from(u8::from(prediction.value != truth))),
        LossKind::LogLoss => {
            let p = truth_probability(baseline, &prediction.scores, truth as usize)?;
            Some((log_loss(p) / log_loss(LEAST_PROBABILITY)).clamp(0.0, 1.0))
        }
        LossKind::AbsoluteError => {
            Some(((prediction.value - truth).abs() / reference.scale).min(1.0))
        }
    }
}
