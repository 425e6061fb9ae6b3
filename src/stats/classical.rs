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

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden indices by river 0.26.1: `load-tests/drift/golden_performance.py` prints them.
    const N: u64 = 20_000;

    fn uniform(i: u64) -> f64 {
        (i * 7919 % 100_003) as f64 / 100_003.0
    }

    fn bits() -> impl Iterator<Item = f64> {
        (0..N).map(|i| {
            let share = match i {
                0..5_000 => 0.1,
                5_000..9_000 => 0.3,
                9_000..14_000 => 0.15,
                _ => 0.5,
            };
            f64::from(u8::from(uniform(i) < share))
        })
    }

    fn waves() -> impl Iterator<Item = f64> {
        (0..N).map(|i| (i as f64 / 900.0).sin() * 3.0 + 4.0 * uniform(i) + (i / 6_000) as f64 * 2.0)
    }

    fn alarms(
        stream: impl Iterator<Item = f64>,
        mut update: impl FnMut(f64) -> bool,
    ) -> Vec<usize> {
        stream.enumerate().filter_map(|(index, x)| update(x).then_some(index)).collect()
    }

    #[test]
    fn adwin_alarms_where_rivers_does() {
        let mut adwin = Adwin::default();
        assert_eq!(alarms(bits(), |x| adwin.update(x)), ADWIN_BITS);
        let mut adwin = Adwin::default();
        assert_eq!(alarms(waves(), |x| adwin.update(x)), ADWIN_WAVES);
    }

    #[test]
    fn page_hinkley_alarms_where_rivers_does() {
        let mut detector = PageHinkley::default();
        assert_eq!(alarms(bits(), |x| detector.update(x)), PAGE_HINKLEY_BITS);
        let mut detector = PageHinkley::default();
        assert_eq!(alarms(waves(), |x| detector.update(x)), PAGE_HINKLEY_WAVES);
    }

    #[test]
    fn strange_values_are_survived() {
        let (mut adwin, mut detector) = (Adwin::default(), PageHinkley::default());
        for i in 0..10_000 {
            let x = [f64::NAN, f64::INFINITY, f64::MIN, 0.0, f64::NEG_INFINITY, 1.0][i % 6];
            adwin.update(x);
            detector.update(x);
        }
        let mut adwin = Adwin::default();
        assert!((0..100_000).all(|_| !adwin.update(1.0)));
        assert!(adwin.levels.len() < 20 && adwin.mean() == 1.0);
        let state = serde_json::to_string(&adwin).unwrap();
        assert_eq!(serde_json::from_str::<Adwin>(&state).unwrap(), adwin);
    }

    const ADWIN_BITS: [usize; 3] = [5119, 9279, 14047];
    const PAGE_HINKLEY_BITS: [usize; 3] = [5257, 9344, 14145];
    const ADWIN_WAVES: [usize; 39] = [
        351, 767, 1599, 2175, 2559, 2911, 3295, 3775, 4895, 5311, 5695, 6015, 6431, 7263, 7807,
        8191, 8575, 8959, 9439, 10559, 10975, 11327, 11711, 12031, 12703, 13407, 13823, 14175,
        14527, 14943, 16223, 16639, 17023, 17407, 17855, 18047, 19007, 19423, 19807,
    ];
    const PAGE_HINKLEY_WAVES: [usize; 70] = [
        176, 377, 605, 871, 1123, 1900, 2188, 2430, 2654, 2885, 3111, 3336, 3614, 3955, 4721, 4975,
        5190, 5391, 5606, 5783, 5971, 6033, 6288, 6515, 6857, 7555, 7834, 8062, 8276, 8490, 8717,
        8945, 9184, 9487, 9992, 10418, 10657, 10897, 11125, 11314, 11503, 11718, 11958, 12019,
        12325, 12704, 13213, 13492, 13732, 13948, 14159, 14400, 14640, 14895, 15184, 16061, 16353,
        16568, 16757, 16946, 17161, 17362, 17591, 17830, 18016, 18871, 19148, 19388, 19639, 19870,
    ];
}
