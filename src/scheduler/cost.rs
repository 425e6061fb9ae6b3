//! What an execution is expected to take: `base + per_row · rows`, kept current.
//!
//! The line is fitted from two runs at warm-up. What runs later show is folded into one factor by
//! an exponentially weighted average, so that a busy machine, a cache gone cold or data unlike
//! the warm-up's zeros are followed without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Weight of one observation: a sixteenth.
const WEIGHT: f64 = 1.0 / 16.0;

/// One observation moves the factor as if it were at most this far off: a run that was
/// interrupted by the operating system says little about the model.
const FURTHEST: f64 = 8.0;

/// The cost model of a version.
#[derive(Debug)]
pub struct Cost {
    base: f64,
    per_row: f64,
    /// The bits of an `f64`.
    factor: AtomicU64,
}

impl Cost {
    /// From the durations of one row and of `rows` rows, `rows` above 1.
    #[must_use]
    pub fn fit(one: Duration, many: Duration, rows: usize) -> Self {
        let (one, many) = (one.as_nanos() as f64, many.as_nanos() as f64);
        let per_row = ((many - one) / (rows as f64 - 1.0)).max(0.0);
        Self { base: (one - per_row).max(0.0), per_row, factor: AtomicU64::new(1_f64.to_bits()) }
    }

    /// Where only one size is known.
    #[must_use]
    pub fn constant(duration: Duration) -> Self {
        Self::fit(duration, duration, 2)
    }

    /// The expected duration for `rows` rows.
    #[must_use]
    pub fn expect(&self, rows: usize) -> Duration {
        let factor = f64::from_bits(self.factor.load(Ordering::Relaxed));
        Duration::from_nanos(((self.base + self.per_row * rows as f64) * factor) as u64)
    }

    /// The most rows that are expected to take no longer than `budget`.
    #[must_use]
    pub fn rows_within(&self, budget: Duration) -> usize {
        let factor = f64::from_bits(self.factor.load(Ordering::Relaxed));
        let left = budget.as_nanos() as f64 / factor - self.base;
        // A quotient that is no number, of nothing by nothing, is no row.
        if left < 0.0 { 0 } else { (left / self.per_row) as usize }
    }

    /// What each run is expected to take beside what its rows take.
    #[must_use]
    pub fn base(&self) -> Duration {
        self.expect(0)
    }

    /// Takes a run of `rows` rows into account.
    pub fn observe(&self, rows: usize, took: Duration) {
        let line = self.base + self.per_row * rows as f64;
        if line <= 0.0 {
            return;
        }
        let factor = f64::from_bits(self.factor.load(Ordering::Relaxed));
        let seen = (took.as_nanos() as f64 / line).clamp(factor / FURTHEST, factor * FURTHEST);
        let factor = factor + (seen - factor) * WEIGHT;
        // Two threads that observe at once may lose one observation, which does no harm.
        self.factor.store(factor.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn the_line_goes_through_both_measurements() {
        let cost = Cost::fit(20 * MICRO, 55 * MICRO, 8);
        assert_eq!(cost.expect(1), 20 * MICRO);
        assert_eq!(cost.expect(8), 55 * MICRO);
        assert_eq!((cost.base(), cost.rows_within(55 * MICRO)), (15 * MICRO, 8));
        assert_eq!((cost.rows_within(20 * MICRO), cost.rows_within(14 * MICRO)), (1, 0));
        // More rows never cost less, whatever noise the measurements hold.
        let cost = Cost::fit(55 * MICRO, 20 * MICRO, 8);
        assert_eq!(cost.expect(100), 55 * MICRO);
        assert_eq!(cost.rows_within(55 * MICRO), 0);
        assert_eq!(cost.rows_within(56 * MICRO), usize::MAX);
    }

    #[test]
    fn observations_move_it_and_one_outlier_moves_it_little() {
        let cost = Cost::constant(10 * MICRO);
        cost.observe(1, Duration::from_secs(1));
        assert!(cost.expect(1) < 15 * MICRO, "{:?}", cost.expect(1));
        for _ in 0..200 {
            cost.observe(1, 30 * MICRO);
        }
        let expected = cost.expect(1);
        assert!(expected > 29 * MICRO && expected < 31 * MICRO, "{expected:?}");
    }
}
