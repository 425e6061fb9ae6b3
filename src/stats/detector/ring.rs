//! Counts of all ticks so far in logarithmic space.
//!
//! An exponential histogram (Datar, Gionis, Indyk and Motwani 2002): buckets of 1, 2, 4, ... ticks,
//! at most four of each size, the newest ones the smallest. A suffix of the buckets is a window
//! that ends now.

use serde::{Deserialize, Serialize};

use super::reference::Reference;

/// Buckets of one size at most.
pub(super) const PER_LEVEL: usize = 4;

/// Sizes of buckets: the oldest ticks are forgotten after about 4 · 2^20 (48 days of seconds).
pub(super) const LEVELS: u32 = 20;

/// The season of a bucket whose ticks are of several.
const MIXED: u64 = u64::MAX;

/// The buckets, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub(super) struct Ring {
    n_cells: usize,
    buckets: Vec<Bucket>,
    /// Counts of the buckets, one bucket after the other.
    counts: Vec<u64>,
    /// Where references change with the season: what they made expect, a bucket at a time
    /// ([`Part::expected`]). Empty where they do not.
    expected: Vec<f64>,
}

/// A ring as it is read back: nothing about it is known to be true.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    n_cells: usize,
    buckets: Vec<Bucket>,
    counts: Vec<u64>,
    expected: Vec<f64>,
}

impl TryFrom<Stored> for Ring {
    type Error = &'static str;

    fn try_from(stored: Stored) -> Result<Self, Self::Error> {
        let Stored { n_cells, buckets, counts, expected } = stored;
        let cells = buckets.len().checked_mul(n_cells).ok_or("too many cells")?;
        if counts.len() != cells {
            return Err("as many counts as buckets and cells make were expected");
        }
        let finite = expected.iter().all(|share| share.is_finite() && *share >= 0.0);
        if !finite || (!expected.is_empty() && Some(expected.len()) != cells.checked_mul(3)) {
            return Err("the expected counts are not three a cell, or not numbers");
        }
        let ordered = buckets
            .windows(2)
            .all(|pair| pair[0].level >= pair[1].level && pair[0].start_tick < pair[1].start_tick);
        let crowded =
            buckets.windows(PER_LEVEL + 1).any(|some| some[0].level == some[PER_LEVEL].level);
        if !ordered || crowded || buckets.iter().any(|bucket| bucket.level >= LEVELS) {
            return Err("the buckets are not in order");
        }
        Ok(Self { n_cells, buckets, counts, expected })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Bucket {
    start_tick: u64,
    level: u32,
    season: u64,
}

/// One bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) start_tick: u64,
    pub(super) counts: &'a [u64],
    /// Its season, if all of it is of one.
    pub(super) season: Option<u64>,
    /// Rows times share, then times the lowest and times the highest share, each a cell; empty
    /// without seasons.
    pub(super) expected: &'a [f64],
}

impl Ring {
    pub(super) fn new(n_cells: usize) -> Self {
        Self { n_cells, buckets: Vec::new(), counts: Vec::new(), expected: Vec::new() }
    }

    pub(super) fn n_cells(&self) -> usize {
        self.n_cells
    }

    /// Adds a tick. Counts that are too many are left out, those that lack are zero.
    pub(super) fn push(&mut self, tick: u64, counts: &[u32], reference: &Reference) {
        let given = counts.iter().map(|&count| u64::from(count));
        self.counts.extend(given.chain(std::iter::repeat(0)).take(self.n_cells));
        // MIXED is no season.
        let season = reference.season.unwrap_or(0).min(MIXED - 1);
        self.buckets.push(Bucket { start_tick: tick, level: 0, season });
        if reference.season.is_some() {
            // Ticks from before there were seasons count as of this one.
            for bucket in self.expected.len() / (3 * self.n_cells.max(1))..self.buckets.len() {
                let at = bucket * self.n_cells;
                let rows: f64 = self.counts[at..at + self.n_cells].iter().map(|&c| c as f64).sum();
                self.expected.extend(reference.expected(self.n_cells).map(|share| rows * share));
            }
        } else {
            self.expected.clear();
        }
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
            let (n_cells, wide) = (self.n_cells, 3 * self.n_cells);
            let seasonal = !self.expected.is_empty();
            if level + 1 == LEVELS {
                self.buckets.remove(start);
                self.counts.drain(start * n_cells..(start + 1) * n_cells);
                if seasonal {
                    self.expected.drain(start * wide..(start + 1) * wide);
                }
                return;
            }
            let at = start * n_cells;
            for cell in at..at + n_cells {
                self.counts[cell] = self.counts[cell].saturating_add(self.counts[cell + n_cells]);
            }
            self.counts.drain(at + n_cells..at + 2 * n_cells);
            if seasonal {
                let at = start * wide;
                for share in at..at + wide {
                    self.expected[share] += self.expected[share + wide];
                }
                self.expected.drain(at + wide..at + 2 * wide);
            }
            let second = self.buckets.remove(start + 1);
            let merged = &mut self.buckets[start];
            merged.level = level + 1;
            if merged.season != second.season {
                merged.season = MIXED;
            }
            end = start + 1;
        }
    }

    /// The buckets, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = Part<'_>> {
        let wide = 3 * self.n_cells;
        self.buckets.iter().enumerate().rev().map(move |(at, bucket)| Part {
            start_tick: bucket.start_tick,
            counts: &self.counts[at * self.n_cells..(at + 1) * self.n_cells],
            season: (bucket.season != MIXED).then_some(bucket.season),
            expected: self.expected.get(at * wide..(at + 1) * wide).unwrap_or_default(),
        })
    }

    /// Counts of the window whose start is nearest to a tick.
    pub(super) fn since(&self, tick: u64) -> Vec<u64> {
        let starts = || self.buckets.iter().map(|bucket| bucket.start_tick);
        let nearest = starts().min_by_key(|start| start.abs_diff(tick)).unwrap_or(0);
        let mut sum = vec![0_u64; self.n_cells];
        for part in self.newest_first().take_while(|part| part.start_tick >= nearest) {
            sum.iter_mut()
                .zip(part.counts)
                .for_each(|(sum, count)| *sum = sum.saturating_add(*count));
        }
        sum
    }

    /// Whether another ring has the same ticks and cells, so that they can be added.
    pub(super) fn matches(&self, other: &Self) -> bool {
        self.n_cells == other.n_cells
            && self.buckets == other.buckets
            && self.expected.len() == other.expected.len()
    }

    /// Adds the counts of a ring that [`matches`](Self::matches).
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum = sum.saturating_add(*count);
        }
        for (sum, share) in self.expected.iter_mut().zip(&other.expected) {
            *sum += share;
        }
    }
}
