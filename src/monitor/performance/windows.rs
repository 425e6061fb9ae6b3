//! Windows of time in bounded buckets.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// What can be added up.
pub trait Sum {
    /// Adds another's counts.
    fn add(&mut self, other: &Self);
}

/// Milliseconds of a short bucket.
const SHORT: u64 = 300_000;

/// Milliseconds of a long one.
const LONG: u64 = 3_600_000;

/// Sums over the last hour, the last day and all time: twelve buckets of five minutes, 24 of an
/// hour, one of all, and the one that is open. A bucket without rows takes no place.
///
/// The last hour is the open five minutes and the twelve before them, the last day the open hour
/// and the 24 before it. Time that goes backwards counts into the open bucket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Windows<T> {
    /// Nothing counted: what a bucket begins as.
    empty: T,
    /// Five minutes each, by their number since 1970, the open one last.
    short: VecDeque<(u64, T)>,
    /// Hours each, of short ones that are closed.
    long: VecDeque<(u64, T)>,
    /// All that are closed.
    all: T,
}

impl<T: Sum + Clone> Windows<T> {
    /// The windows' names, in their order.
    pub const NAMES: [&'static str; 3] = ["1h", "24h", "all"];

    /// No rows yet; `empty` has counted nothing.
    #[must_use]
    pub fn new(empty: T) -> Self {
        Self { all: empty.clone(), short: VecDeque::new(), long: VecDeque::new(), empty }
    }

    /// The bucket that is open at `now_ms`.
    pub fn open(&mut self, now_ms: u64) -> &mut T {
        let slot = (now_ms / SHORT).max(self.short.back().map_or(0, |(slot, _)| *slot));
        if self.short.back().is_none_or(|(last, _)| *last != slot) {
            self.close();
            self.short.push_back((slot, self.empty.clone()));
        }
        while self.short.front().is_some_and(|(first, _)| first + 12 < slot) {
            self.short.pop_front();
        }
        let hour = slot * SHORT / LONG;
        while self.long.front().is_some_and(|(first, _)| first + 24 < hour) {
            self.long.pop_front();
        }
        // Pushed above where there was none.
        match self.short.back_mut() {
            Some((_, open)) => open,
            None => &mut self.all,
        }
    }

    /// Whether all buckets are as `is_like` wants them, and not more than there can be.
    pub(super) fn all_are(&self, is_like: impl Fn(&T) -> bool) -> bool {
        let buckets = self.short.iter().chain(&self.long).map(|(_, bucket)| bucket);
        let mut all = buckets.chain([&self.empty, &self.all]);
        self.short.len() <= 13 && self.long.len() <= 25 && all.all(is_like)
    }

    /// Adds the open bucket to its hour and to all.
    fn close(&mut self) {
        let Some((slot, open)) = self.short.back() else { return };
        let hour = slot * SHORT / LONG;
        match self.long.back_mut() {
            Some((last, sum)) if *last == hour => sum.add(open),
            _ => self.long.push_back((hour, open.clone())),
        }
        self.all.add(open);
    }

    /// The sums of [`Self::NAMES`] at `now_ms`. O(buckets × their size).
    #[must_use]
    pub fn sums(&self, now_ms: u64) -> [T; 3] {
        let slot = now_ms / SHORT;
        let hour = now_ms / LONG;
        let mut sums = [self.empty.clone(), self.empty.clone(), self.all.clone()];
        let [last_hour, last_day, all] = &mut sums;
        for (_, bucket) in self.short.iter().filter(|(at, _)| at + 12 >= slot) {
            last_hour.add(bucket);
        }
        for (_, bucket) in self.long.iter().filter(|(at, _)| at + 24 >= hour) {
            last_day.add(bucket);
        }
        if let Some((at, open)) = self.short.back() {
            if at * SHORT / LONG + 24 >= hour {
                last_day.add(open);
            }
            all.add(open);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Sum for u64 {
        fn add(&mut self, other: &Self) {
            *self += other;
        }
    }

    #[test]
    fn windows_hold_what_came_in_them() {
        let mut windows = Windows::new(0u64);
        let minute = 60_000;
        let start = 1_700_000_000_000 / LONG * LONG;
        for i in 0..30 * 60 {
            *windows.open(start + i * minute) += 1;
        }
        let now = start + (30 * 60 - 1) * minute;
        // The open five minutes and twelve buckets; the open hour and 24.
        assert_eq!(windows.sums(now), [65, 25 * 60, 30 * 60]);
        assert!(windows.short.len() <= 13 && windows.long.len() <= 25);
        // Time passes without rows.
        assert_eq!(windows.sums(now + 2 * LONG), [0, 23 * 60, 30 * 60]);
        assert_eq!(windows.sums(now + 48 * LONG), [0, 0, 30 * 60]);
        // And goes backwards.
        *windows.open(start) += 1;
        assert_eq!(windows.sums(now)[2], 30 * 60 + 1);
    }
}
