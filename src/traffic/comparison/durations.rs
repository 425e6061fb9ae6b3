//! A histogram of durations that is fine enough for ratios: four cells an octave.

use std::time::Duration;

use serde::Serialize;

/// Cells: what is below a microsecond, four for each octave from there to 67 s, and what is above.
pub const CELLS: usize = 2 + 4 * OCTAVES;

const OCTAVES: usize = 26;

/// The cell of a duration. Constant time.
#[must_use]
pub fn cell(duration: Duration) -> usize {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let micros = nanos / 1000;
    if micros == 0 {
        return 0;
    }
    let octave = micros.ilog2();
    // Which quarter of the octave, of the nanoseconds, so that small ones are told apart as well.
    let quarter = (u128::from(nanos) * 4 / (1000_u128 << octave)) as usize - 4;
    (1 + 4 * octave as usize + quarter.min(3)).min(CELLS - 1)
}

/// Where a cell ends, in seconds; infinite for the last one.
#[must_use]
pub fn upper(cell: usize) -> f64 {
    match cell {
        0 => 1e-6,
        cell if cell >= CELLS - 1 => f64::INFINITY,
        cell => {
            let (octave, quarter) = ((cell - 1) / 4, (cell - 1) % 4);
            1e-6 * 2_f64.powi(octave as i32) * (1.0 + (quarter as f64 + 1.0) / 4.0)
        }
    }
}

/// Counted durations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durations {
    /// By [`cell`].
    pub cells: Box<[u64]>,
    /// Their sum, in nanoseconds.
    pub sum_ns: u64,
}

impl Default for Durations {
    fn default() -> Self {
        Self { cells: vec![0; CELLS].into(), sum_ns: 0 }
    }
}

impl Durations {
    /// Counts one.
    pub fn record(&mut self, duration: Duration) {
        self.cells[cell(duration)] += 1;
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns = self.sum_ns.saturating_add(nanos);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.cells.iter().sum()
    }

    /// The upper end, in seconds, of the cell that holds the quantile; nothing of no durations.
    /// Right to a quarter of an octave.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        let rank = ((count as f64 * share).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let reached = self.cells.iter().position(|&cell| {
            seen += cell;
            seen >= rank
        });
        reached.filter(|_| count > 0).map(upper)
    }

    /// What was counted since `before`, an earlier state of the same histogram.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let cells = self.cells.iter().zip(&before.cells);
        Self {
            cells: cells.map(|(now, before)| now.saturating_sub(*before)).collect(),
            sum_ns: self.sum_ns.saturating_sub(before.sum_ns),
        }
    }
}

/// As people read it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct DurationSummary {
    /// How many.
    pub count: u64,
    /// In seconds.
    pub mean: Option<f64>,
    /// In seconds, right to a quarter of an octave; so are the others.
    pub p50: Option<f64>,
    /// In seconds.
    pub p90: Option<f64>,
    /// In seconds.
    pub p99: Option<f64>,
}

impl From<&Durations> for DurationSummary {
    fn from(durations: &Durations) -> Self {
        let count = durations.count();
        // Beyond the last cell there is no number that JSON could hold.
        let quantile = |share| durations.quantile(share).filter(|seconds| seconds.is_finite());
        Self {
            count,
            mean: (count > 0).then(|| durations.sum_ns as f64 / 1e9 / count as f64),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_within_a_quarter_of_an_octave_of_its_cell() {
        let mut nanos = 1_000_u64;
        while nanos < 60_000_000_000 {
            let cell = cell(Duration::from_nanos(nanos));
            let (low, high) = (upper(cell - 1), upper(cell));
            let seconds = nanos as f64 / 1e9;
            assert!(low <= seconds * 1.000_001 && seconds < high * 1.000_001, "{nanos}: {cell}");
            assert!(high / low <= 1.26, "{cell}");
            nanos += nanos / 7;
        }
        assert_eq!(cell(Duration::from_nanos(999)), 0);
        assert_eq!(cell(Duration::MAX), CELLS - 1);
    }

    #[test]
    fn quantiles_and_differences() {
        let mut durations = Durations::default();
        assert_eq!(durations.quantile(0.5), None);
        for micros in 1..=100 {
            durations.record(Duration::from_micros(micros));
        }
        let before = durations.clone();
        let p50 = durations.quantile(0.5).unwrap();
        assert!((50e-6..=64e-6).contains(&p50), "{p50}");
        durations.record(Duration::from_secs(1));
        let since = durations.since(&before);
        assert_eq!((since.count(), since.sum_ns), (1, 1_000_000_000));
    }
}
