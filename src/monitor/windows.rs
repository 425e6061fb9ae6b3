//! Counts over windows that a person understands: the last 5 minutes, hour and day, and all since
//! the version went live.
//!
//! Each window is a ring of slots; a slot holds the counts of its share of the time, so that a
//! window's counts are those of its slots added up: exact, but for its far end, which is a slot's
//! start. Memory is 47 counts a cell, however long and busy the traffic is.

use std::collections::VecDeque;

/// The windows with the length of a slot in milliseconds, and their number of slots.
const RINGS: [(&str, u64, usize); 3] =
    [("5m", 30_000, 10), ("1h", 300_000, 12), ("24h", 3_600_000, 24)];

/// The window of everything.
pub(super) const ALL: &str = "all";

/// The windows' names, shortest first.
pub(super) const NAMES: [&str; 4] = ["5m", "1h", "24h", ALL];

/// Counts of all cells of all features by window. Cells are numbered through all features.
#[derive(Debug)]
pub(super) struct Windows {
    rings: [Ring; RINGS.len()],
    all: Box<[u64]>,
}

#[derive(Debug)]
struct Ring {
    slot_ms: u64,
    n_slots: usize,
    /// Oldest first; the last one is being filled.
    slots: VecDeque<Slot>,
}

#[derive(Debug)]
struct Slot {
    /// Its start, a multiple of the slot's length.
    start: u64,
    counts: Box<[u32]>,
}

impl Windows {
    pub(super) fn new(n_cells: usize) -> Self {
        let ring = |(_, slot_ms, n_slots)| Ring { slot_ms, n_slots, slots: VecDeque::new() };
        Self { rings: RINGS.map(ring), all: vec![0; n_cells].into() }
    }

    /// Adds the counts of a tick that ended at `now`. O(cells).
    pub(super) fn add(&mut self, now: u64, counts: &[u32]) {
        for ring in &mut self.rings {
            ring.add(now, counts);
        }
        for (sum, &count) in self.all.iter_mut().zip(counts) {
            *sum += u64::from(count);
        }
    }

    /// Counts of `cells` in the window of that name, as of `now`; nothing where there is no such
    /// window. O(slots × cells).
    pub(super) fn counts(
        &self,
        window: &str,
        now: u64,
        cells: std::ops::Range<usize>,
    ) -> Option<Vec<u64>> {
        if window == ALL {
            return self.all.get(cells).map(<[u64]>::to_vec);
        }
        let index = RINGS.iter().position(|(name, ..)| *name == window)?;
        self.rings[index].counts(now, cells)
    }
}

impl Ring {
    fn add(&mut self, now: u64, counts: &[u32]) {
        let start = now - now % self.slot_ms;
        // A clock that was set back counts into the slot that is being filled.
        let is_new = self.slots.back().is_none_or(|slot| slot.start < start);
        if is_new {
            self.slots.push_back(Slot { start, counts: vec![0; counts.len()].into() });
            while self.slots.len() > self.n_slots {
                self.slots.pop_front();
            }
        }
        if let Some(slot) = self.slots.back_mut() {
            for (sum, &count) in slot.counts.iter_mut().zip(counts) {
                *sum = sum.saturating_add(count);
            }
        }
    }

    fn counts(&self, now: u64, cells: std::ops::Range<usize>) -> Option<Vec<u64>> {
        let oldest =
            (now - now % self.slot_ms).saturating_sub(self.slot_ms * (self.n_slots as u64 - 1));
        let mut sums = vec![0; cells.len()];
        for slot in self.slots.iter().filter(|slot| slot.start >= oldest) {
            for (sum, &count) in sums.iter_mut().zip(slot.counts.get(cells.clone())?) {
                *sum += u64::from(count);
            }
        }
        Some(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_forgets_what_is_older() {
        let mut windows = Windows::new(2);
        let minute = 60_000;
        for tick in 0..120 {
            windows.add(tick * minute, &[1, 2]);
        }
        let now = 119 * minute;
        let counts = |name| windows.counts(name, now, 0..2).unwrap();
        // 5 minutes in slots of half a minute, of which every second one is empty.
        assert_eq!(counts("5m"), [5, 10]);
        assert_eq!(counts("1h"), [60, 120]);
        assert_eq!(counts("24h"), [120, 240]);
        assert_eq!(counts("all"), [120, 240]);
        assert_eq!(windows.counts("all", now, 1..2).unwrap(), [240]);
        assert_eq!(windows.counts("2h", now, 0..2), None);
    }

    #[test]
    fn an_idle_hour_empties_the_short_windows() {
        let mut windows = Windows::new(1);
        windows.add(1_000_000, &[7]);
        let later = 1_000_000 + 3_600_000;
        assert_eq!(windows.counts("5m", later, 0..1).unwrap(), [0]);
        assert_eq!(windows.counts("24h", later, 0..1).unwrap(), [7]);
    }

    #[test]
    fn a_clock_set_back_loses_no_count() {
        let mut windows = Windows::new(1);
        windows.add(10_000_000, &[3]);
        windows.add(9_000_000, &[4]);
        assert_eq!(windows.counts("5m", 10_000_000, 0..1).unwrap(), [7]);
    }
}
