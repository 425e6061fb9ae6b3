//! Counts of all ticks so far in logarithmic space.
//!
//! An exponential histogram (Datar, Gionis, Indyk and Motwani 2002): buckets of 1, 2, 4, ... ticks, at most
//! four of each size, the newest ones the smallest. A suffix of the buckets is a window that ends now.

use serde::{Deserialize, Serialize};

/// Buckets of one size at most.
const PER_LEVEL: usize = 4;

/// Sizes of buckets: the oldest ticks are forgotten after about 4 · 2^20 (48 days of seconds).
const LEVELS: u32 = 20;

/// The buckets, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ring {
    n_cells: usize,
    buckets: Vec<Bucket>,
    /// Counts of the buckets, one bucket after the other.
    counts: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    start_tick: u64,
    level: u32,
}

impl Ring {
    pub(super) fn new(n_cells: usize) -> Self {
        Self { n_cells, buckets: Vec::new(), counts: Vec::new() }
    }

    pub(super) fn n_cells(&self) -> usize {
        self.n_cells
    }

    /// Adds a tick. Counts that are too many are left out, those that lack are zero.
    pub(super) fn push(&mut self, tick: u64, counts: &[u32]) {
        self.buckets.push(Bucket { start_tick: tick, level: 0 });
        let given = counts.iter().map(|&count| u64::from(count));
        self.counts.extend(given.chain(std::iter::repeat(0)).take(self.n_cells));
        self.compact();
    }

    /// Merges the two oldest of a size that has too many, from the smallest size up.
    fn compact(&mut self) {
        let mut end = self.buckets.len();
        for level in 0..LEVELS {
            let start = self.buckets[..end].partition_point(|bucket| bucket.level > level);
            if end - start <= PER_LEVEL {
                return;
            }
            if level + 1 == LEVELS {
                self.buckets.remove(start);
                self.counts.drain(start * self.n_cells..(start + 1) * self.n_cells);
                return;
            }
            let at = start * self.n_cells;
            for cell in at..at + self.n_cells {
                self.counts[cell] =
                    self.counts[cell].saturating_add(self.counts[cell + self.n_cells]);
            }
            self.counts.drain(at + self.n_cells..at + 2 * self.n_cells);
            self.buckets.remove(start + 1);
            self.buckets[start].level = level + 1;
            end = start + 1;
        }
    }

    /// Start tick and counts of the buckets, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (u64, &[u64])> {
        let starts = self.buckets.iter().map(|bucket| bucket.start_tick);
        starts
            .enumerate()
            .rev()
            .map(|(at, start)| (start, &self.counts[at * self.n_cells..(at + 1) * self.n_cells]))
    }

    /// Counts of the window whose start is nearest to a tick.
    pub(super) fn since(&self, tick: u64) -> Vec<u64> {
        let starts = || self.buckets.iter().map(|bucket| bucket.start_tick);
        let nearest = starts().min_by_key(|start| start.abs_diff(tick)).unwrap_or(0);
        let mut sum = vec![0_u64; self.n_cells];
        for (start, counts) in self.newest_first() {
            if start < nearest {
                break;
            }
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
        }
        sum
    }

    /// Whether another ring has the same ticks and cells, so that they can be added.
    pub(super) fn matches(&self, other: &Self) -> bool {
        self.n_cells == other.n_cells && self.buckets == other.buckets
    }

    /// Adds the counts of a ring that [`matches`](Self::matches).
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum = sum.saturating_add(*count);
        }
    }
}
