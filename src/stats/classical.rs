//! Classical detectors of a change in the mean of a stream, for those who ask for them by name.
//! They alarm at the same places as river 0.26.1's, whose defaults they have.
//!
//! Neither promises a rate of false alarms over time: [`super::confidence`] and
//! [`super::detector`] do.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Adaptive windowing (Bifet and Gavaldà 2007, ADWIN2): keeps the longest window in which no two
/// parts have means that differ by more than chance allows.
///
/// The window is an exponential histogram: level i holds at most `MOST` summaries of 2^i values.
/// O(log n) memory; O(1) a value, O(log n) at every 32nd, where it looks for a cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adwin {
    delta: f64,
    /// By level; the oldest summary of a level stands first, the oldest level last.
    levels: Vec<VecDeque<Summary>>,
    /// Values in the window, their sum and the sum of their squared deviations.
    width: f64,
    total: f64,
    spread: f64,
    n_updates: u64,
    /// Whether the last value made it alarm: the next one begins anew.
    has_alarmed: bool,
}

/// Sum and squared deviations of 2^i values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Summary {
    total: f64,
    spread: f64,
}

impl Default for Adwin {
    fn default() -> Self {
        Self::new(0.002)
    }
}

impl Adwin {
    /// Summaries of a level before two of them become one of the next.
    const MOST: usize = 5;
    /// Values between two looks.
    const CLOCK: u64 = 32;
    /// Values that a part of the window has at least.
    const SHORTEST: f64 = 5.0;
    /// Values before the first look.
    const GRACE: f64 = 10.0;

    /// One with this confidence parameter; 0.002 by default.
    #[must_use]
    pub fn new(delta: f64) -> Self {
        Self {
            delta,
            levels: vec![VecDeque::new()],
            width: 0.0,
            total: 0.0,
            spread: 0.0,
            n_updates: 0,
            has_alarmed: false,
        }
    }

    /// Takes a value; tells whether the mean has changed. NaN is passed over.
    pub fn update(&mut self, x: f64) -> bool {
        if x.is_nan() {
            return false;
        }
        if self.has_alarmed {
            *self = Self::new(self.delta);
        }
        self.insert(x);
        self.n_updates += 1;
        let looks = self.n_updates.is_multiple_of(Self::CLOCK) && self.width > Self::GRACE;
        while looks && self.has_cut() {
            self.has_alarmed = true;
            self.drop_oldest();
        }
        self.has_alarmed
    }

    /// The mean of the window; 0 where it is empty.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.width > 0.0 { self.total / self.width } else { 0.0 }
    }

    fn insert(&mut self, x: f64) {
        if self.width > 0.0 {
            let from_mean = x - self.total / self.width;
            let width = self.width + 1.0;
            self.spread += (width - 1.0) * from_mean * from_mean / width;
        }
        self.width += 1.0;
        self.total += x;
        let mut carried = Some(Summary { total: x, spread: 0.0 });
        let mut level = 0;
        while let Some(summary) = carried.take() {
            if level == self.levels.len() {
                self.levels.push(VecDeque::new());
            }
            let summaries = &mut self.levels[level];
            summaries.push_back(summary);
            if summaries.len() > Self::MOST
                && let (Some(a), Some(b)) = (summaries.pop_front(), summaries.pop_front())
            {
                let n = size(level);
                let between = a.total / n - b.total / n;
                carried = Some(Summary {
                    total: a.total + b.total,
                    spread: a.spread + b.spread + n * 0.5 * between * between,
                });
            }
            level += 1;
        }
    }

    /// Whether some cut parts the window into two whose means differ too much.
    fn has_cut(&self) -> bool {
        let log = (2.0 * self.width.ln() / self.delta).ln();
        let (mut n_old, mut n_new) = (0.0, self.width);
        let (mut old, mut new) = (0.0, self.total);
        for (level, summaries) in self.levels.iter().enumerate().rev() {
            for (index, summary) in summaries.iter().enumerate() {
                n_old += size(level);
                n_new -= size(level);
                old += summary.total;
                new -= summary.total;
                if level == 0 && index + 1 == summaries.len() {
                    return false;
                }
                if n_old < Self::SHORTEST || n_new < Self::SHORTEST {
                    continue;
                }
                let inverse =
                    1.0 / (n_old - Self::SHORTEST + 1.0) + 1.0 / (n_new - Self::SHORTEST + 1.0);
                let allowed = (2.0 * inverse * (self.spread / self.width) * log).sqrt()
                    + 2.0 / 3.0 * log * inverse;
                if (old / n_old - new / n_new).abs() > allowed {
                    return true;
                }
            }
        }
        false
    }

    fn drop_oldest(&mut self) {
        let level = self.levels.len().saturating_sub(1);
        let Some(oldest) = self.levels.get_mut(level).and_then(VecDeque::pop_front) else { return };
        let n = size(level);
        self.width -= n;
        self.total -= oldest.total;
        let between = oldest.total / n - self.total / self.width;
        self.spread -= oldest.spread + n * self.width * between * between / (n + self.width);
        if level > 0 && self.levels[level].is_empty() {
            self.levels.pop();
        }
    }
}

/// Values in a summary of a level.
fn size(level: usize) -> f64 {
    libm::exp2(level as f64)
}

/// Page's test as Hinkley wrote it (Page 1954, Hinkley 1971), two-sided, with river's forgetting:
/// sums of deviations from the running mean, less δ a value, against their extremes.
/// O(1) memory and time a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageHinkley {
    delta: f64,
    threshold: f64,
    n: f64,
    mean: f64,
    rising: f64,
    falling: f64,
    /// Smallest rising sum; infinite before the first value, which is not written.
    lowest: Option<f64>,
    highest: f64,
    has_alarmed: bool,
}

impl Default for PageHinkley {
    fn default() -> Self {
        Self::new(0.005, 50.0)
    }
}

impl PageHinkley {
    /// What a sum keeps of itself at each value.
    const KEPT: f64 = 1.0 - 0.0001;
    /// Values before the first alarm.
    const GRACE: f64 = 30.0;

    /// One that ignores changes below `delta` and alarms where a sum is beyond `threshold`; 0.005
    /// and 50 by default. Neither is free of the values' scale.
    #[must_use]
    pub fn new(delta: f64, threshold: f64) -> Self {
        Self {
            delta,
            threshold,
            n: 0.0,
            mean: 0.0,
            rising: 0.0,
            falling: 0.0,
            lowest: None,
            highest: -1.0,
            has_alarmed: false,
        }
    }

    /// Takes a value; tells whether the mean has changed. NaN is passed over.
    pub fn update(&mut self, x: f64) -> bool {
        if x.is_nan() {
            return false;
        }
        if self.has_alarmed {
            *self = Self::new(self.delta, self.threshold);
        }
        self.n += 1.0;
        self.mean += (1.0 / self.n) * (x - self.mean);
        let deviation = x - self.mean;
        self.rising = Self::KEPT * self.rising + deviation - self.delta;
        self.falling = Self::KEPT * self.falling + deviation + self.delta;
        let lowest = self.lowest.map_or(self.rising, |lowest| lowest.min(self.rising));
        self.lowest = Some(lowest);
        self.highest = self.highest.max(self.falling);
        self.has_alarmed = self.n >= Self::GRACE
            && (self.rising - lowest > self.threshold
                || self.highest - self.falling > self.threshold);
        self.has_alarmed
    }
}
