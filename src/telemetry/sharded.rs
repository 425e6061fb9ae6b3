//! Counters that threads bump without meeting.
//!
//! Each thread is given a shard when it first counts; a shard is a row of atomics on cache lines
//! of its own. Reading adds the rows up. Counts are exact, since every bump is atomic; a read
//! while others count may miss the bumps of that moment, never tear one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;

/// Rows of `N` counters, one row for each shard.
#[derive(Debug)]
pub struct Sharded<const N: usize> {
    shards: Box<[Row<N>]>,
}

/// 128 bytes: two cache lines, which adjacent-line prefetch moves together.
#[derive(Debug)]
#[repr(align(128))]
struct Row<const N: usize>([AtomicU64; N]);

/// More shards than this cost memory and scrape time for little: two threads on one shard only
/// meet when they count in the same few nanoseconds.
const MOST_SHARDS: usize = 16;

/// Threads are given their shards in turn, and not only I/O threads count: of fewer shards two I/O
/// threads would often have the same one.
const FEWEST_SHARDS: usize = 8;

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: usize = NEXT_SHARD.fetch_add(1, Ordering::Relaxed);
}

/// Shards that this machine's threads are shared out among: a power of two.
#[must_use]
pub fn n_shards() -> usize {
    let cores = available_parallelism().map_or(1, usize::from);
    cores.next_power_of_two().clamp(FEWEST_SHARDS, MOST_SHARDS)
}

/// The calling thread's shard of `n_shards`, a power of two.
#[must_use]
pub fn shard(n_shards: usize) -> usize {
    SHARD.with(|shard| *shard) & (n_shards - 1)
}

impl<const N: usize> Default for Sharded<N> {
    fn default() -> Self {
        Self { shards: (0..n_shards()).map(|_| Row([const { AtomicU64::new(0) }; N])).collect() }
    }
}

impl<const N: usize> Sharded<N> {
    /// Adds `amount` to the counter at `index`, which is below `N`.
    pub fn add(&self, index: usize, amount: u64) {
        self.shards[shard(self.shards.len())].0[index].fetch_add(amount, Ordering::Relaxed);
    }

    /// Adds each amount to the counter at its index, which is below `N`.
    pub fn add_all<const M: usize>(&self, amounts: [(usize, u64); M]) {
        let Row(counters) = &self.shards[shard(self.shards.len())];
        for (index, amount) in amounts {
            counters[index].fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// All counters, each summed over the shards.
    #[must_use]
    pub fn sums(&self) -> [u64; N] {
        let mut sums = [0_u64; N];
        for shard in &self.shards {
            for (sum, counter) in sums.iter_mut().zip(&shard.0) {
                *sum = sum.wrapping_add(counter.load(Ordering::Relaxed));
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_counters_at_once() {
        let counters = Sharded::<3>::default();
        counters.add_all([(0, 1), (2, 5)]);
        counters.add_all([(2, 1)]);
        assert_eq!(counters.sums(), [1, 0, 6]);
    }

    #[test]
    fn counts_of_many_threads_add_up_exactly() {
        let counters = Sharded::<3>::default();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let counters = &counters;
                scope.spawn(move || (0..10_000).for_each(|_| counters.add(thread % 3, 2)));
            }
        });
        assert_eq!(counters.sums(), [60_000, 60_000, 40_000]);
    }
}
