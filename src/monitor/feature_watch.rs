//! One feature of a stream: what is expected, the detector, the state.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::baseline::{Baseline, FeatureBaseline, hour_of_week};
use super::history::Points;
use super::state::Latch;
use super::verdict::State;
use super::watch::Terms;
use crate::stats::detector::{self, Detector, Reference};

/// Ticks whose evidence is kept for a sparkline.
const RECENT: usize = 60;

const HOURS_OF_WEEK: usize = 168;

/// Expected counts of one hour of the week, and the reference that they make.
type Season = (Vec<u64>, Reference);

/// A feature as it is watched.
#[derive(Debug)]
pub(super) struct FeatureWatch {
    pub(super) cells: Range<usize>,
    /// Its expected counts, where the stream has its own (a segment of the baseline).
    pub(super) expected: Vec<u64>,
    pub(super) reference: Reference,
    /// By hour of the week, where the baseline has these: expected counts and reference.
    pub(super) seasons: Vec<Season>,
    pub(super) detector: Detector,
    /// Ticks of the stream before the detector's first one.
    pub(super) born: u64,
    pub(super) latch: Latch,
    pub(super) evidence: f64,
    pub(super) best: Option<detector::Window>,
    /// Whether its newest windows are within the tolerance.
    pub(super) back: bool,
    /// The largest evidence since the last point.
    pub(super) peak: f64,
    pub(super) points: Points,
    pub(super) recent: VecDeque<f64>,
}

impl FeatureWatch {
    pub(super) fn new(
        baseline: &FeatureBaseline,
        cells: Range<usize>,
        expected: Vec<u64>,
        seasons: Vec<Season>,
        terms: Terms,
        now: u64,
    ) -> Self {
        let reference = reference(baseline, &expected, terms);
        Self {
            detector: Detector::new(expected.len()),
            born: 0,
            reference,
            seasons,
            expected,
            cells,
            latch: Latch::new(State::Ok, now),
            evidence: 0.0,
            best: None,
            back: true,
            peak: 0.0,
            points: Points::default(),
            recent: VecDeque::new(),
        }
    }

    /// Judges the counts of a tick that ends at `now`, against what is expected at that time.
    pub(super) fn tick(&mut self, counts: &[u32], now: u64) {
        let season = self.seasons.get(hour(now));
        let reference = season.map_or(&self.reference, |(_, reference)| reference);
        let tick = self.detector.tick(reference, counts);
        self.evidence = tick.log_sum;
        self.peak = self.peak.max(tick.log_sum);
        self.best = Some(tick.best);
        self.back = tick.newest_is_back;
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(tick.log_sum);
    }

    /// Expected counts for a window that ends at `now`: those of the hour where the window is not
    /// longer than that.
    pub(super) fn expected_in(&self, window: &str, now: u64) -> &[u64] {
        match self.seasons.get(hour(now)) {
            Some((expected, _)) if matches!(window, "5m" | "1h") => expected,
            _ => &self.expected,
        }
    }

    /// Evidence gathers anew.
    pub(super) fn forget(&mut self, n_ticks: u64) {
        self.detector = Detector::new(self.expected.len());
        self.born = n_ticks;
        self.evidence = 0.0;
        self.best = None;
    }
}

fn hour(now: u64) -> usize {
    hour_of_week(i64::try_from(now).unwrap_or(i64::MAX))
}

fn reference(baseline: &FeatureBaseline, expected: &[u64], terms: Terms) -> Reference {
    let settings = detector::Settings {
        tolerance: terms.tolerance,
        variance_factor: baseline.variance_factor.unwrap_or(1.0),
        ..detector::Settings::default()
    };
    Reference::new(expected, baseline.cells.n_ordered(), &settings)
}

/// Expected counts and references by hour of the week; none where the settings do not ask for
/// them or the baseline does not have them. An hour that it has not seen is like all of them.
pub(super) fn seasons(
    baseline: &Baseline,
    feature: usize,
    whole: &[u64],
    terms: Terms,
) -> Vec<Season> {
    let slices: BTreeMap<usize, &Vec<u64>> = baseline
        .slices
        .iter()
        .filter(|slice| slice.by == "season")
        .filter_map(|slice| Some((slice.value.parse().ok()?, slice.counts.get(feature)?)))
        .collect();
    if !terms.is_seasonal || slices.is_empty() {
        return Vec::new();
    }
    let hours = (0..HOURS_OF_WEEK).map(|hour| {
        let expected = slices.get(&hour).map_or(whole, |counts| counts.as_slice());
        let reference =
            reference(&baseline.features[feature], expected, terms).in_season(hour as u64);
        (expected.to_vec(), reference)
    });
    hours.collect()
}
