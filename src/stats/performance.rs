//! Measures of performance from counts: checked against scikit-learn 1.9.1.

/// Rows of one class against the rest, counted or expected.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Confusion {
    /// Predicted and true.
    pub true_positives: f64,
    /// Predicted, not true.
    pub false_positives: f64,
    /// True, not predicted.
    pub false_negatives: f64,
    /// Neither.
    pub true_negatives: f64,
}

impl Confusion {
    /// From rows that are predicted, that are true, that are both, and all rows.
    #[must_use]
    pub fn of(predicted: f64, actual: f64, both: f64, rows: f64) -> Self {
        Self {
            true_positives: both,
            false_positives: (predicted - both).max(0.0),
            false_negatives: (actual - both).max(0.0),
            true_negatives: (rows - predicted - actual + both).max(0.0),
        }
    }

    /// All rows.
    #[must_use]
    pub fn rows(&self) -> f64 {
        self.true_positives + self.false_positives + self.false_negatives + self.true_negatives
    }

    /// Share of rows that are right; nothing of no rows.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        let rows = self.rows();
        (rows > 0.0).then(|| (self.true_positives + self.true_negatives) / rows)
    }

    /// Share of predicted rows that are true; 0 where none is predicted, nothing of no rows.
    #[must_use]
    pub fn precision(&self) -> Option<f64> {
        self.share(self.true_positives + self.false_positives)
    }

    /// Share of true rows that are predicted; 0 where none is true, nothing of no rows.
    #[must_use]
    pub fn recall(&self) -> Option<f64> {
        self.share(self.true_positives + self.false_negatives)
    }

    /// Harmonic mean of the two; 0 where nothing is predicted or true, nothing of no rows.
    #[must_use]
    pub fn f1(&self) -> Option<f64> {
        self.share(self.true_positives + 0.5 * (self.false_positives + self.false_negatives))
    }

    fn share(&self, of: f64) -> Option<f64> {
        match of > 0.0 {
            true => Some(self.true_positives / of),
            false => (self.rows() > 0.0).then_some(0.0),
        }
    }
}

/// Area under the ROC curve of binned scores, cells in ascending order: the probability that a
/// positive row's score is above a negative row's, of rows in the same cell half of them (Mann
/// and Whitney 1947). Counts or expected counts. Nothing where a class has no rows. O(cells).
#[must_use]
pub fn roc_auc(negatives: &[f64], positives: &[f64]) -> Option<f64> {
    let (mut below, mut wins, mut n_positive) = (0.0, 0.0, 0.0);
    for (&negative, &positive) in negatives.iter().zip(positives) {
        wins += positive * (below + 0.5 * negative);
        below += negative;
        n_positive += positive;
    }
    let pairs = n_positive * below;
    (pairs > 0.0).then(|| wins / pairs)
}

/// The standard deviation, over positive rows, of the share of negative rows below each: what the
/// sampling error of the area under the ROC curve is made of. Nothing where a class has no rows.
/// O(cells).
#[must_use]
pub fn roc_auc_deviation(negatives: &[f64], positives: &[f64]) -> Option<f64> {
    let n_negative: f64 = negatives.iter().sum();
    let n_positive: f64 = positives.iter().sum();
    if n_negative <= 0.0 || n_positive <= 0.0 {
        return None;
    }
    let (mut below, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for (&negative, &positive) in negatives.iter().zip(positives) {
        // Rows of one cell lie evenly in it: a mean of ½ and a variance of 1/12 of its negatives.
        let share = (below + 0.5 * negative) / n_negative;
        let width = negative / n_negative;
        sum += positive * share;
        squares += positive * (share * share + width * width / 12.0);
        below += negative;
    }
    let mean = sum / n_positive;
    Some((squares / n_positive - mean * mean).max(0.0).sqrt())
}

/// The smallest probability whose logarithm is taken: log losses are at most 16.1 nats.
pub const LEAST_PROBABILITY: f64 = 1e-7;

/// −ln of the true class's probability, in nats, clipped at [`LEAST_PROBABILITY`]. NaN stays NaN.
#[must_use]
pub fn log_loss(probability: f64) -> f64 {
    -probability.clamp(LEAST_PROBABILITY, 1.0).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden values by scikit-learn 1.9.1: `load-tests/drift/golden_performance.py` prints them.
    fn rows() -> impl Iterator<Item = (f64, bool)> {
        let uniform =
            |i: u64, factor: u64, modulus: u64| (i * factor % modulus) as f64 / modulus as f64;
        (0..2_000).map(move |i| {
            let s = f64::from(uniform(i, 7919, 100_003) as f32);
            let truth = 0.15 + 0.7 * s * s * (3.0 - 2.0 * s);
            (s, uniform(i, 104_729, 99_991) < truth)
        })
    }

    fn assert_near(found: Option<f64>, expected: f64) {
        assert!(
            found.is_some_and(|found| (found - expected).abs() < 1e-12),
            "{found:?}, not {expected}"
        );
    }

    #[test]
    fn measures_are_scikit_learns() {
        let count = |of: &dyn Fn(bool, bool) -> bool| {
            rows().filter(|&(s, label)| of(s >= 0.5, label)).count() as f64
        };
        let (predicted, actual) = (count(&|p, _| p), count(&|_, y| y));
        let confusion = Confusion::of(predicted, actual, count(&|p, y| p && y), 2_000.0);
        assert_near(confusion.accuracy(), 0.722);
        assert_near(confusion.precision(), 0.7217217217217218);
        assert_near(confusion.recall(), 0.7217217217217218);
        assert_near(confusion.f1(), 0.7217217217217218);
        let loss = rows().map(|(s, label)| log_loss(if label { s } else { 1.0 - s })).sum::<f64>();
        assert_near(Some(loss / 2_000.0), 0.594932750137079);
    }

    #[test]
    fn area_of_binned_scores_is_scikit_learns_of_tied_ones() {
        let mut counts = [[0.0; 21], [0.0; 21]];
        for (s, label) in rows() {
            counts[usize::from(label)][(s * 20.0).round_ties_even() as usize] += 1.0;
        }
        assert_near(roc_auc(&counts[0], &counts[1]), 0.7797527797527797);
        // Of cells so small that none holds two rows, it is that of the scores.
        let mut sorted: Vec<_> = rows().collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let side = |positive: bool| -> Vec<f64> {
            sorted.iter().map(|row| f64::from(u8::from(row.1 == positive))).collect()
        };
        assert_near(roc_auc(&side(false), &side(true)), 0.7805067805067805);
    }

    #[test]
    fn nothing_counted_has_no_measures() {
        let nothing = Confusion::default();
        assert_eq!((nothing.accuracy(), nothing.f1(), roc_auc(&[], &[])), (None, None, None));
        let all_negative = Confusion::of(0.0, 0.0, 0.0, 10.0);
        assert_eq!((all_negative.precision(), all_negative.f1()), (Some(0.0), Some(0.0)));
        assert_eq!(roc_auc(&[1.0, 2.0], &[0.0, 0.0]), None);
        assert_eq!(roc_auc_deviation(&[0.0], &[3.0]), None);
        assert_eq!(roc_auc(&[5.0], &[5.0]), Some(0.5));
        assert!(log_loss(f64::NAN).is_nan() && log_loss(0.0) < 17.0 && log_loss(2.0) == 0.0);
    }
}
