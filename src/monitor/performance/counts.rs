//! Performance without labels: CBPE (confidence-based performance estimation, NannyML 0.13.1's
//! definitions) from counts of the score's cells.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Predictions;
use super::baseline::{ScoreBaseline, Task};
use super::tally::Row;
use super::verdict::{Band, Estimated};
use super::windows::Sum;
use crate::stats::performance::{Confusion, roc_auc, roc_auc_deviation};

/// Probabilities are added as multiples of 2⁻²⁴, so that sums are exact in any order. 2⁴⁰ rows
/// fit; beyond them sums stand still.
const UNIT: f64 = 16_777_216.0;

/// Standard errors on either side of an estimate, as NannyML 0.13.1's `SAMPLING_ERROR_RANGE`.
const ERRORS: f64 = 3.0;

/// Rows by score cell, counted live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreCounts {
    /// Rows that had a score.
    pub rows: u64,
    /// Rows that had none, or a NaN.
    pub unscored: u64,
    /// One a score.
    pub classes: Vec<ClassCounts>,
}

/// Rows by cell of one class's score.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCounts {
    /// Rows in each cell.
    pub cells: Vec<u64>,
    /// Their expected rows of the class, in units of 2⁻²⁴.
    pub mass: Vec<u64>,
    /// Rows for which the class was predicted.
    pub chosen: u64,
    /// Their expected rows of the class, in units of 2⁻²⁴.
    pub chosen_mass: u64,
}

impl ScoreCounts {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(baseline: &ScoreBaseline) -> Self {
        let classes = baseline.scores.iter().map(|cells| ClassCounts {
            cells: vec![0; cells.len()],
            mass: vec![0; cells.len()],
            ..ClassCounts::default()
        });
        Self { rows: 0, unscored: 0, classes: classes.collect() }
    }

    /// Counts rows. O(scores × log cells) a row.
    pub fn count(&mut self, baseline: &ScoreBaseline, predictions: &Predictions<'_>) {
        for row in super::tally::rows(baseline, predictions) {
            self.count_row(baseline, &row);
        }
    }

    /// Whether it has the baseline's scores and cells.
    pub(super) fn fits(&self, baseline: &ScoreBaseline) -> bool {
        const MOST: u64 = 1 << 50;
        self.rows.max(self.unscored) <= MOST
            && self.classes.len() == baseline.scores.len()
            && self.classes.iter().zip(&baseline.scores).all(|(class, cells)| {
                class.cells.len() == cells.len()
                    && class.mass.len() == cells.len()
                    && class.cells.iter().chain([&class.chosen]).all(|&rows| rows <= MOST)
            })
    }

    pub(super) fn count_row(&mut self, baseline: &ScoreBaseline, row: &Row) {
        if self.classes.is_empty() {
            return;
        }
        let is_whole = row.scores.len() == self.classes.len()
            && !row.scores.iter().any(|score| score.is_nan());
        let (true, Some(chosen)) = (is_whole, row.class()) else {
            self.unscored += 1;
            return;
        };
        let found = row.scores.iter().zip(&baseline.scores).map(|(&score, cells)| {
            // No score is NaN, and each cell has a probability.
            let cell = cells.cell(score).unwrap_or(0);
            (cell, cells.calibrated.get(cell).copied().unwrap_or(0.0))
        });
        let found: SmallVec<[(usize, f64); 4]> = found.collect();
        // Probabilities of several classes are calibrated one by one and then made to sum to 1.
        let n = self.classes.len();
        let sum = if n == 1 { 1.0 } else { found.iter().map(|(_, p)| p).sum::<f64>() };
        self.rows += 1;
        for (class, (counts, &(cell, p))) in self.classes.iter_mut().zip(&found).enumerate() {
            let p = if sum > 0.0 { p / sum } else { 1.0 / n as f64 };
            let mass = (p * UNIT).round() as u64;
            if let (Some(rows), Some(sum)) = (counts.cells.get_mut(cell), counts.mass.get_mut(cell))
            {
                *rows += 1;
                *sum = sum.saturating_add(mass);
            }
            let is_chosen = if n == 1 { chosen == 1 } else { chosen == class };
            if is_chosen {
                counts.chosen += 1;
                counts.chosen_mass = counts.chosen_mass.saturating_add(mass);
            }
        }
    }
}

impl Sum for ScoreCounts {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.unscored += other.unscored;
        for (own, other) in self.classes.iter_mut().zip(&other.classes) {
            own.cells.iter_mut().zip(&other.cells).for_each(|(a, b)| *a += b);
            own.mass.iter_mut().zip(&other.mass).for_each(|(a, b)| *a = a.saturating_add(*b));
            own.chosen += other.chosen;
            own.chosen_mass = own.chosen_mass.saturating_add(other.chosen_mass);
        }
    }
}

/// Estimates the measures of rows without their labels. Nothing of no rows, and nothing where the
/// baseline had no labels.
///
/// Assumes that the probability of a class given the score is that of the reference (no concept
/// drift). Differs from NannyML's estimate by the binning: rows of one cell have one probability.
/// O(scores × cells).
#[must_use]
pub fn estimate(baseline: &ScoreBaseline, counts: &ScoreCounts) -> Estimated {
    let Some(reference) = baseline.reference.as_ref().filter(|_| counts.rows > 0) else {
        return Estimated::default();
    };
    let rows = counts.rows as f64;
    let (mut confusions, mut areas) = (Vec::new(), Vec::new());
    for class in &counts.classes {
        let positives: Vec<f64> = class.mass.iter().map(|&mass| mass as f64 / UNIT).collect();
        let negatives: Vec<f64> =
            class.cells.iter().zip(&positives).map(|(&n, p)| (n as f64 - p).max(0.0)).collect();
        let actual: f64 = positives.iter().sum();
        let (chosen, both) = (class.chosen as f64, class.chosen_mass as f64 / UNIT);
        confusions.push(Confusion::of(chosen, actual, both, rows));
        areas.push(roc_auc(&negatives, &positives));
    }
    let over_all = |values: Option<Vec<f64>>| {
        values.filter(|v| !v.is_empty()).map(|v| v.iter().sum::<f64>() / v.len() as f64)
    };
    let mean = |of: fn(&Confusion) -> Option<f64>| over_all(confusions.iter().map(of).collect());
    let accuracy = match baseline.task {
        Task::Multiclass => Some(confusions.iter().map(|c| c.true_positives).sum::<f64>() / rows),
        _ => mean(Confusion::accuracy),
    };
    let area = over_all(areas.into_iter().collect());
    let errors = Errors::of(baseline, reference);
    let band = |value: Option<f64>, error: Option<f64>| {
        let half = ERRORS * error? / rows.sqrt();
        let value = value?;
        Some(Band { value, low: (value - half).max(0.0), high: (value + half).min(1.0) })
    };
    Estimated {
        accuracy: band(accuracy, errors.accuracy),
        precision: band(mean(Confusion::precision), errors.precision),
        recall: band(mean(Confusion::recall), errors.recall),
        f1: band(mean(Confusion::f1), errors.f1),
        roc_auc: band(area, errors.roc_auc),
    }
}

/// Standard errors of the measures for one row, from the reference: a window of n rows has them
/// over √n.
#[derive(Debug, Default)]
struct Errors {
    accuracy: Option<f64>,
    precision: Option<f64>,
    recall: Option<f64>,
    f1: Option<f64>,
    roc_auc: Option<f64>,
}

impl Errors {
    fn of(baseline: &ScoreBaseline, reference: &super::tally::Tally) -> Self {
        let rows = reference.rows as f64;
        // The standard deviation of zeros and ones, of which `ones` of `of` are one.
        let deviation = |ones: f64, of: f64| {
            let share = ones / of;
            (of > 0.0).then(|| (share * (1.0 - share)).max(0.0).sqrt())
        };
        let is_binary = baseline.task == Task::Binary;
        // A class's variance over the share of rows that its measure is about; of several classes
        // the mean's, as if they were independent.
        let joined = |of: &dyn Fn(&Confusion) -> Option<(f64, f64)>| -> Option<f64> {
            let mut sum = 0.0;
            for class in &reference.classes {
                let (deviation, relevant) = of(&class.confusion(reference.rows))?;
                sum += deviation * deviation / (relevant / rows);
            }
            let n = reference.classes.len() as f64;
            (n > 0.0 && sum.is_finite()).then(|| sum.sqrt() / n)
        };
        let auc = {
            let mut sum = Some(0.0);
            for class in &reference.classes {
                let as_f64 = |counts: &[u64]| counts.iter().map(|&n| n as f64).collect::<Vec<_>>();
                let (mut negatives, mut positives) =
                    (as_f64(&class.negatives), as_f64(&class.positives));
                let total = |counts: &[f64]| counts.iter().sum::<f64>();
                // The rarer class is the one whose rows are compared with the others.
                if total(&positives) > total(&negatives) {
                    std::mem::swap(&mut negatives, &mut positives);
                    negatives.reverse();
                    positives.reverse();
                }
                let share = total(&positives) / (total(&positives) + total(&negatives));
                sum = sum
                    .zip(roc_auc_deviation(&negatives, &positives))
                    .map(|(sum, deviation)| sum + deviation * deviation / share);
            }
            let n = reference.classes.len() as f64;
            // NannyML's correction for several classes, found by experiment there.
            let correction = if is_binary { 1.0 } else { 1.2 };
            sum.filter(|_| n > 0.0).map(|sum| sum.sqrt() / n * correction)
        };
        Self {
            accuracy: deviation(reference.correct as f64, rows),
            precision: joined(&|c| {
                let relevant = c.true_positives + c.false_positives;
                Some((deviation(c.true_positives, relevant)?, relevant))
            }),
            recall: joined(&|c| {
                let relevant = c.true_positives + c.false_negatives;
                Some((deviation(c.true_positives, relevant)?, relevant))
            }),
            f1: joined(&|c| {
                let wrong = c.false_positives + c.false_negatives;
                let relevant = c.true_positives + wrong;
                // F1 counts half of the wrong rows in its denominator.
                let factor = match is_binary {
                    true => relevant / (0.5 * wrong + c.true_positives),
                    false => 1.0,
                };
                Some((deviation(c.true_positives, relevant)? * factor, relevant))
            }),
            roc_auc: auc,
        }
    }
}
