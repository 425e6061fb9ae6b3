//! Calibration: from scores to probabilities.

/// Isotonic regression: the non-decreasing function that is nearest to the targets in the
/// weighted least squares, found by pooling adjacent violators (Ayer et al. 1955; Barlow et al.
/// 1972), linear between its points and constant beyond them, as scikit-learn 1.9.1's
/// `IsotonicRegression(out_of_bounds="clip")`.
#[derive(Debug, Clone, PartialEq)]
pub struct Isotonic {
    /// Ascending, without repetition.
    x: Vec<f64>,
    /// Non-decreasing.
    y: Vec<f64>,
}

/// Values of one x, or pooled neighbours.
#[derive(Clone, Copy)]
struct Block {
    first: f64,
    last: f64,
    mean: f64,
    weight: f64,
}

impl Isotonic {
    /// Fits to `points` of score and target, sorted by the score; equal scores are averaged
    /// first. NaNs must have been left out. O(n).
    #[must_use]
    pub fn fit(points: &[(f64, f64)]) -> Self {
        let mut blocks: Vec<Block> = Vec::new();
        let merge = |into: &mut Block, other: Block| {
            let weight = into.weight + other.weight;
            into.mean = (into.mean * into.weight + other.mean * other.weight) / weight;
            into.weight = weight;
            into.last = other.last;
        };
        let mut push = |block: Block| {
            blocks.push(block);
            while let [.., before, last] = blocks.as_mut_slice()
                && before.mean >= last.mean
            {
                let last = *last;
                merge(before, last);
                blocks.pop();
            }
        };
        for equal in points.chunk_by(|a, b| a.0 == b.0) {
            let Some(&(x, _)) = equal.first() else { continue };
            let weight = equal.len() as f64;
            let mean = equal.iter().map(|&(_, y)| y).sum::<f64>() / weight;
            push(Block { first: x, last: x, mean, weight });
        }
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for block in blocks {
            x.push(block.first);
            y.push(block.mean);
            if block.last > block.first {
                x.push(block.last);
                y.push(block.mean);
            }
        }
        Self { x, y }
    }

    /// The function's value; that of the nearer end beyond the points; NaN of NaN or where it was
    /// fitted to nothing. O(log points).
    #[must_use]
    pub fn predict(&self, x: f64) -> f64 {
        if x.is_nan() {
            return f64::NAN;
        }
        let above = self.x.partition_point(|&point| point < x);
        let point = |index: usize| self.x.get(index).copied().zip(self.y.get(index).copied());
        match (above.checked_sub(1).and_then(point), point(above)) {
            (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * ((x - x0) / (x1 - x0)),
            (Some((_, y)), None) | (None, Some((_, y))) => y,
            (None, None) => f64::NAN,
        }
    }
}

/// Expected calibration error: the mean, over `n_bins` bins of about equally many rows by
/// ascending score, of |mean probability − share of positives|, weighted by rows (Naeini et al.
/// 2015, with bins of equal counts as NannyML 0.13.1). `points` are (probability, target), sorted
/// by the score; the last bin takes what the division leaves. 0 of fewer than two points. O(n).
#[must_use]
pub fn expected_calibration_error(points: &[(f64, f64)], n_bins: usize) -> f64 {
    let n = points.len();
    let n_bins = if n <= 2 * n_bins { n / 2 } else { n_bins };
    let Some(width) = n.checked_div(n_bins).filter(|_| n_bins > 0) else { return 0.0 };
    let bin = |index: usize| {
        let end = if index + 1 == n_bins { n } else { (index + 1) * width };
        points.get(index * width..end).unwrap_or_default()
    };
    let gaps = (0..n_bins).map(|index| {
        let bin = bin(index);
        let sum = |of: fn(&(f64, f64)) -> f64| bin.iter().map(of).sum::<f64>();
        (sum(|point| point.0) - sum(|point| point.1)).abs()
    });
    gaps.sum::<f64>() / n as f64
}

/// Whether isotonic calibration brings scores nearer to probabilities: whether it lowers the
/// expected calibration error (10 bins) of rows that it was not fitted to, in ten folds.
/// NannyML 0.13.1's rule, with folds by a hash of the row's place instead of random tenths: no
/// calibration either where there is one class, or where the area under the ROC curve is beyond
/// 0.999. `points` are (score, target 0 or 1), sorted by the score. O(n).
#[must_use]
pub fn needs_calibration(points: &[(f64, f64)]) -> bool {
    const FOLDS: u64 = 10;
    const BINS: usize = 10;
    let n_positive = points.iter().filter(|point| point.1 > 0.5).count();
    if n_positive == 0 || n_positive == points.len() || auc(points) > 0.999 {
        return false;
    }
    let fold = |index: usize| mix(index as u64) % FOLDS;
    let mut calibrated: Vec<(f64, f64)> = points.to_vec();
    let mut train = Vec::with_capacity(points.len());
    for held_out in 0..FOLDS {
        train.clear();
        let kept = points.iter().enumerate().filter(|(index, _)| fold(*index) != held_out);
        train.extend(kept.map(|(_, point)| *point));
        let function = Isotonic::fit(&train);
        for (index, point) in calibrated.iter_mut().enumerate() {
            if fold(index) == held_out {
                point.0 = function.predict(point.0);
            }
        }
    }
    calibrated.retain(|point| !point.0.is_nan());
    calibrated.sort_by(|a, b| a.0.total_cmp(&b.0));
    expected_calibration_error(points, BINS) > expected_calibration_error(&calibrated, BINS)
}

/// Area under the ROC curve of sorted points, ties half.
fn auc(points: &[(f64, f64)]) -> f64 {
    let (mut below, mut wins, mut n_positive) = (0.0, 0.0, 0.0);
    for equal in points.chunk_by(|a, b| a.0 == b.0) {
        let positive: f64 = equal.iter().map(|point| point.1).sum();
        let negative = equal.len() as f64 - positive;
        wins += positive * (below + 0.5 * negative);
        below += negative;
        n_positive += positive;
    }
    wins / (n_positive * below)
}

/// SplitMix64's finalizer (Steele, Lea and Flood 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden values by scikit-learn 1.9.1 and NannyML 0.13.1:
    /// `load-tests/drift/golden_performance.py` prints them.
    fn points(n: u64, round: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        let uniform =
            |i: u64, factor: u64, modulus: u64| (i * factor % modulus) as f64 / modulus as f64;
        let mut points: Vec<(f64, f64)> = (0..n)
            .map(|i| {
                let s = f64::from(uniform(i, 7919, 100_003) as f32);
                let truth = 0.15 + 0.7 * s * s * (3.0 - 2.0 * s);
                (round(s), f64::from(u8::from(uniform(i, 104_729, 99_991) < truth)))
            })
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    }

    #[test]
    fn isotonic_regression_is_scikit_learns() {
        let points = points(2_000, |s| (s * 500.0).round_ties_even() / 500.0);
        let model = Isotonic::fit(&points);
        let golden = [
            (-0.1, 0.1),
            (0.0, 0.1),
            (0.05, 0.15555555555555556),
            (0.1234, 0.19444444444444445),
            (0.333, 0.2898550724637681),
            (0.5, 0.52),
            (0.7501, 0.776536312849162),
            (0.9, 0.8222222222222222),
            (1.0, 1.0),
            (1.2, 1.0),
        ];
        for (x, expected) in golden {
            let found = model.predict(x);
            assert!((found - expected).abs() < 1e-12, "at {x}: {found}, not {expected}");
        }
        let sum: f64 = points.iter().map(|point| model.predict(point.0)).sum();
        assert!((sum - 999.0).abs() < 1e-9, "{sum}");
        assert!(model.predict(f64::NAN).is_nan() && Isotonic::fit(&[]).predict(0.5).is_nan());
        assert_eq!(Isotonic::fit(&[(1.0, 3.0)]).predict(7.0), 3.0);
    }

    #[test]
    fn calibration_error_is_nannymls() {
        let found = expected_calibration_error(&points(2_000, |s| s), 10);
        assert!((found - 0.035596792116906736).abs() < 1e-12, "{found}");
        assert_eq!(expected_calibration_error(&[], 10), 0.0);
        assert_eq!(expected_calibration_error(&[(0.5, 1.0)], 10), 0.0);
        assert_eq!(expected_calibration_error(&[(0.5, 1.0), (0.7, 1.0)], 0), 0.0);
    }

    #[test]
    fn only_untrue_scores_need_calibration() {
        assert!(needs_calibration(&points(20_000, |s| s)));
        // As true as can be: the share of positives is the score.
        let true_scores: Vec<(f64, f64)> = (0..20_000)
            .map(|i| {
                let s = (i / 100) as f64 / 200.0 + 0.0025;
                (s, f64::from(u8::from(((i % 100) as f64 + 0.5) / 100.0 < s)))
            })
            .collect();
        assert!(!needs_calibration(&true_scores));
        assert!(!needs_calibration(&[(0.1, 1.0), (0.2, 1.0)]));
        assert!(!needs_calibration(&[(0.1, 0.0), (0.2, 1.0)]));
        assert!(!needs_calibration(&[]));
    }
}
