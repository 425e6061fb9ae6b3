//! Making the score's part of a baseline of reference rows with their labels.

use std::collections::BTreeSet;

use super::baseline::{
    LossBaseline, LossKind, MOST_CLASSES, ScoreBaseline, ScoreCells, Task, cells_of,
};
use super::tally::{self, Row, Tally};
use super::{Predicted, Predictions};
use crate::monitor::labels::{Label, Prediction};
use crate::stats::calibration::{Isotonic, needs_calibration};

/// Distinct whole-number labels beyond which a model without scores is a regression.
const MOST_NUMBERS: usize = 32;

/// Mean absolute errors of the reference that a loss of 1 stands for.
const SCALE: f64 = 4.0;

/// Reference rows, in the order of the file.
///
/// A million rows say all that there is to say; of more, give a uniform sample.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// What the model answered, row by row.
    pub predictions: Predictions<'a>,
    /// What was true; nothing where a row has no label.
    pub labels: &'a [Option<Label>],
    /// The classes' names in the order of the scores, where the model says them; else empty, and
    /// they are the labels in ascending order.
    pub classes: &'a [String],
    /// What the model does, where it is known; else it is found out of scores and labels.
    pub task: Option<Task>,
    /// The loss that is watched; by default the error rate, or the absolute error of values.
    pub loss: Option<LossKind>,
    /// Whether the rows are in the order of time: then their losses tell how far live ones may
    /// depend on each other.
    pub is_ordered: bool,
}

/// Why rows make no baseline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FitError {
    /// No row has a label and a prediction.
    #[error("no row has both a label and a prediction")]
    NoRows,
    /// A label is none of the classes, or no number.
    #[error("the label '{label}' of row {row} is {problem}")]
    Label {
        /// The row, from 0.
        row: usize,
        /// The label.
        label: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The classes do not fit the scores.
    #[error("{0}")]
    Classes(String),
}

impl ScoreBaseline {
    /// Finds out what the model does, how its scores become probabilities and how well it does on
    /// `reference`. O(n log n) in the rows.
    ///
    /// # Errors
    /// Where no row has a label, or labels and scores do not fit each other.
    pub fn fit(reference: &Reference<'_>) -> Result<Self, FitError> {
        let (task, classes) = task_of(reference)?;
        let has_scores = reference.predictions.n_scores > 0;
        let mut baseline = Self::unlabelled(task, &classes, has_scores);
        let rows = labelled(&baseline, reference)?;
        if rows.is_empty() {
            return Err(FitError::NoRows);
        }
        for class in 0..baseline.scores.len() {
            let cells = cells(&baseline, &rows, class);
            if let Some(place) = baseline.scores.get_mut(class) {
                *place = cells;
            }
        }
        let mean_error = |rows: &[(Row, f64)]| {
            let errors = rows.iter().map(|(row, truth)| (row.value - truth).abs());
            errors.sum::<f64>() / rows.len() as f64
        };
        let (kind, scale) = match (task, reference.loss) {
            (Task::Regression, _) => (LossKind::AbsoluteError, SCALE * mean_error(&rows)),
            (_, Some(LossKind::LogLoss)) if !baseline.scores.is_empty() => (LossKind::LogLoss, 1.0),
            _ => (LossKind::ZeroOne, 1.0),
        };
        let scale = if scale.is_finite() && scale > 0.0 { scale } else { 1.0 };
        let mut loss = LossBaseline::nothing(kind, scale);
        let mut tally = Tally::new(&baseline, scale);
        let mut losses = Vec::with_capacity(rows.len());
        for (row, truth) in rows {
            let prediction = Prediction { value: row.value, scores: row.scores };
            tally.count(&baseline, &prediction, truth);
            losses.extend(tally::loss(&baseline, loss, &prediction, truth));
        }
        if !losses.is_empty() {
            loss.learn(&losses);
            let factor = loss.variance_factor;
            loss.variance_factor = factor.filter(|_| reference.is_ordered);
            baseline.loss = Some(loss);
        }
        baseline.reference = Some(tally);
        Ok(baseline)
    }
}

/// A label as a class's name: numbers in one form, whether they came as numbers or as text.
fn name(label: &Label) -> String {
    match label {
        Label::Bool(truth) => truth.to_string(),
        Label::Number(number) => number.to_string(),
        Label::Text(text) => match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => number.to_string(),
            _ => text.to_string(),
        },
    }
}

/// The names that occur, in ascending order: of numbers by their size, else by their letters.
/// At most one more than can be told apart.
fn distinct<'a>(labels: impl Iterator<Item = &'a Label>) -> Vec<String> {
    let mut names = BTreeSet::new();
    for label in labels {
        names.insert(name(label));
        if names.len() > MOST_CLASSES {
            break;
        }
    }
    let mut names: Vec<String> = names.into_iter().collect();
    let number = |name: &String| name.parse::<f64>().ok();
    if names.iter().all(|name| number(name).is_some()) {
        names.sort_by(|a, b| number(a).partial_cmp(&number(b)).unwrap_or(a.cmp(b)));
    }
    names
}

/// What the model does, and the names of its classes.
fn task_of(reference: &Reference<'_>) -> Result<(Task, Vec<String>), FitError> {
    let labels = reference.labels.iter().flatten();
    let mut names = distinct(labels.clone());
    if names.is_empty() {
        return Err(FitError::NoRows);
    }
    let n_scores = reference.predictions.n_scores;
    let are_numbers = labels.clone().all(|label| match label {
        Label::Number(_) => true,
        Label::Text(text) => text.trim().parse::<f64>().is_ok(),
        Label::Bool(_) => false,
    });
    let is_whole = |label: &Label| match label {
        Label::Number(number) => number.fract() == 0.0,
        Label::Text(text) => text.trim().parse::<f64>().is_ok_and(|number| number.fract() == 0.0),
        Label::Bool(_) => true,
    };
    let predicts_fractions = match reference.predictions.predicted {
        Predicted::Numbers(numbers) => numbers.iter().any(|number| number.fract() != 0.0),
        Predicted::Labels(labels) => are_numbers && !labels.iter().all(is_whole),
        Predicted::None | Predicted::Classes(_) => false,
    };
    let is_regression = match reference.task {
        Some(task) => task == Task::Regression,
        None if !reference.classes.is_empty() || !are_numbers || n_scores > 1 => false,
        None if n_scores == 1 => names.len() > 2,
        None => predicts_fractions || names.len() > MOST_NUMBERS || !labels.clone().all(is_whole),
    };
    if is_regression {
        return Ok((Task::Regression, Vec::new()));
    }
    if n_scores == 0
        && let Predicted::Labels(predicted) = reference.predictions.predicted
    {
        names = distinct(labels.clone().chain(predicted));
    }
    let classes = classes_of(reference, names)?;
    match classes.len() {
        2 => Ok((Task::Binary, classes)),
        n if n > MOST_CLASSES => Err(FitError::Classes(format!(
            "the labels have more than {MOST_CLASSES} values: too many classes; is it a regression?"
        ))),
        _ => Ok((Task::Multiclass, classes)),
    }
}

/// The classes' names, where labels have the values `names`.
fn classes_of(reference: &Reference<'_>, names: Vec<String>) -> Result<Vec<String>, FitError> {
    let n_scores = reference.predictions.n_scores;
    let wanted = if n_scores == 1 { 2 } else { n_scores };
    let given = reference.classes;
    if given.len() >= 2 && (wanted == 0 || given.len() == wanted) {
        return Ok(given.to_vec());
    }
    if !given.is_empty() && wanted != 0 {
        return Err(FitError::Classes(format!(
            "the model names {} classes and has {n_scores} scores",
            given.len()
        )));
    }
    if names.len() >= 2 && (wanted == 0 || names.len() == wanted) {
        return Ok(names);
    }
    // A class may be missing among the labels.
    let is_one_of = |pair: [&str; 2]| {
        (wanted == 2 || wanted == 0) && names.iter().all(|name| pair.contains(&name.as_str()))
    };
    for pair in [["0", "1"], ["false", "true"], ["False", "True"]] {
        if is_one_of(pair) {
            return Ok(pair.map(str::to_owned).to_vec());
        }
    }
    let is_place = |name: &String| name.parse::<usize>().is_ok_and(|place| place < wanted);
    if names.iter().all(is_place) {
        return Ok((0..wanted).map(|place| place.to_string()).collect());
    }
    let some = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    Err(FitError::Classes(match wanted {
        0 => format!("all labels are '{some}': at least two classes are needed"),
        _ => format!(
            "the scores are of {wanted} classes, the labels have {} values ({some}, ...): name the classes",
            names.len()
        ),
    }))
}

/// Rows that have a prediction, with what was true of them.
fn labelled(
    baseline: &ScoreBaseline,
    reference: &Reference<'_>,
) -> Result<Vec<(Row, f64)>, FitError> {
    let mut labelled = Vec::new();
    let rows = tally::rows(baseline, &reference.predictions);
    for (index, (row, label)) in rows.zip(reference.labels).enumerate() {
        let Some(label) = label else { continue };
        let Some(truth) = baseline.truth_of(label) else {
            let problem = match baseline.task {
                Task::Regression => "no number".to_owned(),
                _ => {
                    let some = baseline.classes.iter().take(5).cloned().collect::<Vec<_>>();
                    format!("none of the classes: {}", some.join(", "))
                }
            };
            return Err(FitError::Label { row: index, label: name(label), problem });
        };
        if !row.value.is_nan() {
            labelled.push((row, truth));
        }
    }
    Ok(labelled)
}

/// The cells of one class's score, with their probabilities.
fn cells(baseline: &ScoreBaseline, rows: &[(Row, f64)], class: usize) -> ScoreCells {
    let is_binary = baseline.task == Task::Binary;
    let target = if is_binary { 1 } else { class };
    let is_target = |class: f64| class == target as f64;
    let mut points: Vec<(f32, bool, bool)> = rows
        .iter()
        .filter_map(|(row, truth)| {
            let score = *row.scores.get(class)?;
            // Infinite ones are counted in the outermost cells, and tell nothing of the shape.
            score.is_finite().then(|| (score, is_target(*truth), is_target(row.value)))
        })
        .collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    if points.is_empty() {
        return ScoreCells::even(cells_of(baseline.scores.len()));
    }
    let mut edges = quantiles(&points, cells_of(baseline.scores.len()));
    // The threshold of the decision, where there is one, parts cells: rows on its two sides are
    // counted apart.
    let rejected = points.iter().filter(|point| !point.2).map(|point| point.0).next_back();
    let chosen = points.iter().find(|point| point.2).map(|point| point.0);
    if let (Some(rejected), Some(chosen)) = (rejected, chosen)
        && rejected < chosen
    {
        edges.push(rejected);
    }
    let last = points.last().map_or(0.0, |point| point.0);
    edges.retain(|edge| edge.is_finite() && *edge < last);
    edges.sort_by(f32::total_cmp);
    edges.dedup();

    let by_score: Vec<(f64, f64)> =
        points.iter().map(|p| (f64::from(p.0), f64::from(u8::from(p.1)))).collect();
    let are_probabilities = by_score.iter().all(|point| (0.0..=1.0).contains(&point.0));
    let is_calibrated = !are_probabilities || needs_calibration(&by_score);
    let function = is_calibrated.then(|| Isotonic::fit(&by_score));
    let mut sums = vec![(0.0, 0.0); edges.len() + 1];
    let mut cells = ScoreCells {
        edges,
        calibrated: Vec::new(),
        is_calibrated,
        is_probability: are_probabilities,
    };
    for &(score, ..) in &points {
        let score_64 = f64::from(score);
        let p = function.as_ref().map_or(score_64, |function| function.predict(score_64));
        if let Some((sum, n)) = cells.cell(score).and_then(|cell| sums.get_mut(cell)) {
            *sum += p;
            *n += 1.0;
        }
    }
    // Edges are scores of rows, so that no cell is empty.
    let mean = |(sum, n): &(f64, f64)| if *n > 0.0 { (sum / n).clamp(0.0, 1.0) } else { 0.0 };
    cells.calibrated = sums.iter().map(mean).collect();
    cells
}

/// Upper bounds of `n` cells of about equally many rows. A score that fills more than a cell has
/// one of its own.
fn quantiles(points: &[(f32, bool, bool)], n: usize) -> Vec<f32> {
    let mut edges: Vec<f32> = Vec::new();
    let mut last_below = None;
    for i in 1..n {
        let at = (i * points.len() / n).saturating_sub(1);
        let Some(&(edge, ..)) = points.get(at) else { continue };
        if edges.last() == Some(&edge) {
            let below = points.partition_point(|point| point.0 < edge).checked_sub(1);
            if let Some(&(below, ..)) = below.and_then(|below| points.get(below))
                && last_below != Some(below)
            {
                edges.insert(edges.len() - 1, below);
                last_below = Some(below);
            }
        } else {
            edges.push(edge);
        }
    }
    edges
}
