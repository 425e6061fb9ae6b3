//! Times of answers, finer than a scraped histogram has them: rollouts compare quantiles.

use std::time::Duration;

use crate::telemetry::Sharded;

/// Cells of a doubling of time: a bound is at most 12.5 % above the one before.
const PER_DOUBLING: usize = 8;
/// The first cell ends at 2^10 ns.
const FIRST: u32 = 10;
/// The last one begins near 69 s.
const LAST: u32 = 36;

/// Cells of a [`LatencyCounts`].
pub const LATENCY_CELLS: usize = (LAST - FIRST) as usize * PER_DOUBLING + 2;

/// Counts by time.
#[derive(Debug, Default)]
pub(super) struct Latency(Sharded<LATENCY_CELLS>);

/// Answers by their time: of each cell, those above the bound before and up to its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyCounts(pub [u64; LATENCY_CELLS]);

impl Default for LatencyCounts {
    fn default() -> Self {
        Self([0; LATENCY_CELLS])
    }
}

impl Latency {
    /// Counts an answer. One atomic addition.
    pub(super) fn record(&self, took: Duration) {
        self.0.add(cell(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)), 1);
    }

    pub(super) fn counts(&self) -> LatencyCounts {
        LatencyCounts(self.0.sums())
    }
}

fn cell(nanos: u64) -> usize {
    // A value on a bound belongs below it.
    let value = nanos.saturating_sub(1);
    let exponent = value.checked_ilog2().unwrap_or(0);
    if exponent < FIRST {
        return 0;
    }
    if exponent >= LAST {
        return LATENCY_CELLS - 1;
    }
    let eighth = (value >> (exponent - 3)) as usize & (PER_DOUBLING - 1);
    1 + (exponent - FIRST) as usize * PER_DOUBLING + eighth
}

/// The upper bound of a cell in nanoseconds; the last one has none.
#[must_use]
pub fn latency_bound(cell: usize) -> u64 {
    if cell >= LATENCY_CELLS - 1 {
        return u64::MAX;
    }
    let Some(inner) = cell.checked_sub(1) else { return 1 << FIRST };
    let (doubling, eighth) = (inner / PER_DOUBLING, inner % PER_DOUBLING);
    (1 << (FIRST as usize + doubling - 3)) * (PER_DOUBLING + eighth + 1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_cell_whose_bounds_hold_it() {
        for cell_number in 1..LATENCY_CELLS - 1 {
            let (below, bound) = (latency_bound(cell_number - 1), latency_bound(cell_number));
            assert!(below < bound && bound as f64 <= below as f64 * 1.126, "{below} {bound}");
            assert_eq!(cell(bound), cell_number);
            assert_eq!(cell(below + 1), cell_number);
        }
        assert_eq!((cell(0), cell(1), cell(1024), cell(1025)), (0, 0, 0, 1));
        assert_eq!(cell(u64::MAX), LATENCY_CELLS - 1);
        let latency = Latency::default();
        latency.record(Duration::from_micros(30));
        let counts = latency.counts();
        assert_eq!(counts.0.iter().sum::<u64>(), 1);
        assert_eq!(counts.0[cell(30_000)], 1);
    }
}
