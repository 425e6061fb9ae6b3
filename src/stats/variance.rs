//! The long-run variance of counts: how much more they vary than those of independent rows.
//!
//! Correlated traffic (one user's rows together, a slow sensor) makes counts of long windows
//! scatter more than multinomial ones, and a detector that takes rows as independent alarms at
//! once. The detector divides counts by the factor measured here.

use super::detector::scores::Scores;

/// Windows that a level needs to count.
const FEWEST_WINDOWS: f64 = 24.0;

/// Values that a cell needs to have a factor of its own, or a part in that of all cells.
const FEWEST_VALUES: f64 = 32.0;

/// Levels of windows: 1, 2, 4, ... ticks.
const LEVELS: usize = 24;

/// Standard errors by which a longer window's factor must exceed a shorter one's to count, and the
/// same for single cells, of which there are many.
const SURE: (f64, f64) = (3.0, 4.5);

/// The counts of consecutive ticks in time order, in bounded memory (kilobytes a feature).
///
/// Ticks may be short: eight rows of a baseline make a good one.
#[derive(Debug, Clone)]
pub struct LongRun {
    n_cells: usize,
    /// Scores by cell: location and scale where cells are ordered, then each cell's own share.
    directions: Vec<Vec<f64>>,
    n_scores: usize,
    counts: Vec<f64>,
    levels: Vec<Level>,
}

/// Windows of one length.
#[derive(Debug, Clone)]
struct Level {
    /// The first half of a window, where it waits for the second.
    waiting: Option<Sums>,
    windows: f64,
    total: Sums,
    rows_squared: f64,
    /// A direction each: Σ n y and Σ y² over windows.
    products: Vec<f64>,
    squares: Vec<f64>,
}

/// Rows, and the sum of their scores in each direction.
#[derive(Debug, Clone)]
struct Sums {
    rows: f64,
    scores: Vec<f64>,
}

/// A factor, and its relative standard error.
#[derive(Debug, Clone, Copy)]
struct Estimate {
    factor: f64,
    error: f64,
}

impl LongRun {
    /// For a feature with these counts by cell, of which the first `n_ordered` are ordered by
    /// value. The counts only set the directions looked at: those of a sample will do.
    #[must_use]
    pub fn new(counts: &[u64], n_ordered: usize) -> Self {
        let n_cells = counts.len();
        let shares = super::effect::smoothed(counts);
        let mut directions = Vec::new();
        if n_ordered >= 3 {
            let scores = Scores::new(&shares, n_ordered.min(n_cells));
            directions.extend([scores.location, scores.scale]);
        }
        let n_scores = directions.len();
        directions.extend((0..n_cells).map(|cell| {
            let mut score = vec![0.0; n_cells];
            score[cell] = 1.0;
            score
        }));
        Self { n_cells, directions, n_scores, counts: vec![0.0; n_cells], levels: Vec::new() }
    }

    /// Takes the counts of the next tick, by cell. A tick without rows is left out.
    pub fn push(&mut self, counts: &[u32]) {
        let counts: Vec<f64> = counts.iter().take(self.n_cells).map(|&c| f64::from(c)).collect();
        let rows: f64 = counts.iter().sum();
        if rows <= 0.0 {
            return;
        }
        self.counts.iter_mut().zip(&counts).for_each(|(sum, count)| *sum += count);
        let scores = self.directions.iter().map(|score| product(score, &counts)).collect();
        let mut window = Sums { rows, scores };
        for level in 0..LEVELS {
            if self.levels.len() == level {
                self.levels.push(Level::new(self.directions.len()));
            }
            self.levels[level].add(&window);
            match self.levels[level].waiting.take() {
                Some(first) => window.add(&first),
                None => {
                    self.levels[level].waiting = Some(window);
                    return;
                }
            }
        }
    }

    /// The factor, at least 1: the largest over directions of what the lengths of windows say.
    ///
    /// Directions are location and scale, all cells together, and each cell. Lengths count that
    /// have at least 24 windows; a longer one counts if its factor is larger by three standard
    /// deviations of chance (four and a half for a single cell), plus one standard error for what
    /// chance may hide. Where the longest still grows, the limit is extrapolated by the law f(L) =
    /// f - C / L that summable correlations obey: twice the factor of the longest less that of half
    /// its length.
    #[must_use]
    pub fn factor(&self) -> f64 {
        let cells = self.n_scores..self.directions.len();
        let single = |direction| self.limit(SURE.1, |level| self.estimate(level, direction));
        let score = |direction| self.limit(SURE.0, |level| self.estimate(level, direction));
        let pooled = self.limit(SURE.0, |level| self.pooled(level));
        (0..self.n_scores)
            .map(score)
            .chain(cells.map(single))
            .fold(pooled, f64::max)
            .clamp(1.0, 1e6)
    }

    /// What the lengths say together.
    fn limit(&self, sure: f64, estimate: impl Fn(&Level) -> Option<Estimate>) -> f64 {
        let (mut limit, mut best, mut before) = (1.0_f64, 1.0_f64, 1.0_f64);
        let mut stopped = false;
        for level in &self.levels {
            let Some(Estimate { factor, error }) = estimate(level) else { break };
            if factor > best * chance(sure, error) {
                // It grows: how far, nobody knows before a longer length says that it stops.
                best = factor;
                let further = if stopped { factor } else { 2.0 * factor - before };
                limit = factor.max(further) * (1.0 + error);
            } else if best > 1.0 && !stopped {
                stopped = true;
                limit = best.max(factor) * (1.0 + error);
            }
            before = factor;
        }
        limit
    }

    /// The factor of windows of one length in one direction.
    fn estimate(&self, level: &Level, direction: usize) -> Option<Estimate> {
        if level.windows < FEWEST_WINDOWS {
            return None;
        }
        let rows: f64 = self.counts.iter().sum();
        let score = &self.directions[direction];
        let mean = product(score, &self.counts) / rows;
        let square: f64 = score.iter().zip(&self.counts).map(|(s, c)| s * s * c).sum();
        let variance = square / rows - mean * mean;
        let mut error = 2.0 / (level.windows - 1.0);
        if direction >= self.n_scores {
            let values = self.counts[direction - self.n_scores];
            if values < FEWEST_VALUES {
                return None;
            }
            // The kurtosis of a Poisson count.
            error += 1.0 / values;
        }
        if variance <= 1e-12 {
            return None;
        }
        let own = level.total.scores[direction] / level.total.rows;
        let scatter = level.squares[direction] - 2.0 * own * level.products[direction]
            + own * own * level.rows_squared;
        let factor = scatter.max(0.0) / (level.total.rows * variance) * level.windows
            / (level.windows - 1.0);
        Some(Estimate { factor, error: error.sqrt() })
    }

    /// The factor of all cells together: chi-square over its degrees of freedom.
    fn pooled(&self, level: &Level) -> Option<Estimate> {
        let rows: f64 = self.counts.iter().sum();
        let (mut sum, mut freedom) = (0.0, 0.0);
        for cell in 0..self.n_cells {
            if let Some(estimate) = self.estimate(level, self.n_scores + cell) {
                let weight = 1.0 - self.counts[cell] / rows;
                sum += weight * estimate.factor;
                freedom += weight;
            }
        }
        if freedom < 0.5 {
            return None;
        }
        let error = (2.0 / ((level.windows - 1.0) * freedom)).sqrt();
        Some(Estimate { factor: sum / freedom, error })
    }
}

/// By what a factor may be too large at so many standard deviations: of chi-square over its
/// degrees of freedom, by Wilson and Hilferty's cube root (1931).
fn chance(sure: f64, error: f64) -> f64 {
    // With ν degrees of freedom the relative standard error is √(2 / ν).
    let ninth = error * error / 9.0;
    (1.0 - ninth + sure * ninth.sqrt()).powi(3)
}

impl Level {
    fn new(n_directions: usize) -> Self {
        let zeros = || vec![0.0; n_directions];
        let total = Sums { rows: 0.0, scores: zeros() };
        Self {
            waiting: None,
            windows: 0.0,
            total,
            rows_squared: 0.0,
            products: zeros(),
            squares: zeros(),
        }
    }

    fn add(&mut self, window: &Sums) {
        self.windows += 1.0;
        self.rows_squared += window.rows * window.rows;
        for (at, score) in window.scores.iter().enumerate() {
            self.products[at] += window.rows * score;
            self.squares[at] += score * score;
        }
        self.total.add(window);
    }
}

impl Sums {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.scores.iter_mut().zip(&other.scores).for_each(|(sum, score)| *sum += score);
    }
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::super::special::normal_quantile;
    use super::*;

    /// The factor of a first-order autoregression, found from its first `rows` values.
    fn factor(phi: f64, rows: usize, seed: u64) -> f64 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let edges: Vec<f64> = (1..16).map(|k| normal_quantile(f64::from(k) / 16.0)).collect();
        let mut long_run = LongRun::new(&[100; 16], 16);
        let mut x = 0.0;
        for _ in 0..rows / 8 {
            let mut counts = [0; 16];
            for _ in 0..8 {
                let noise = normal_quantile(rng.f64().max(1e-300));
                x = phi * x + (1.0 - phi * phi).sqrt() * noise;
                counts[edges.partition_point(|&edge| edge < x)] += 1;
            }
            long_run.push(&counts);
        }
        long_run.factor()
    }

    #[test]
    fn independent_rows_have_factor_one() {
        for seed in 0..5 {
            for rows in [1000, 20_000] {
                let factor = factor(0.0, rows, seed);
                assert!(factor < 1.5, "{rows}: {factor}");
            }
        }
    }

    /// The true factor of the mean is (1 + φ) / (1 - φ).
    #[test]
    fn correlation_is_measured() {
        for (phi, expected) in [(0.3, 1.86), (0.7, 5.67), (0.9, 19.0)] {
            let mut factors: Vec<f64> = (0..9).map(|seed| factor(phi, 20_000, seed)).collect();
            factors.sort_by(f64::total_cmp);
            let found = factors[4] / expected;
            assert!((0.8..1.3).contains(&found), "{phi}: {factors:?}");
            assert!(factors[0] > 0.7 * expected, "{phi}: {factors:?}");
        }
    }

    #[test]
    fn bursts_of_one_cell_count() {
        // A hundredth of the rows is missing, in bursts of 40.
        let mut long_run = LongRun::new(&[50, 50, 1], 2);
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..5000 {
            let mut counts = [0; 3];
            (0..40).for_each(|_| counts[usize::from(rng.bool())] += 1);
            if rng.u8(0..100) == 0 {
                counts = [0, 0, 40];
            }
            long_run.push(&counts);
        }
        let factor = long_run.factor();
        assert!((30.0..60.0).contains(&factor), "{factor}");
    }

    #[test]
    fn what_is_too_little_or_odd_is_defined() {
        assert_eq!(LongRun::new(&[], 3).factor(), 1.0);
        assert_eq!(LongRun::new(&[1, 2, 3], 9).factor(), 1.0);
        let mut long_run = LongRun::new(&[0, 0, 0, 0], 4);
        for _ in 0..100 {
            long_run.push(&[]);
            long_run.push(&[0, 0]);
            long_run.push(&[u32::MAX, 0, 0, 0, 7]);
        }
        let factor = long_run.factor();
        assert!(factor >= 1.0 && factor.is_finite());
    }
}
