//! One watched stream: all the traffic of a version, or a segment of it. Counts come in, ticks are
//! made, states change, verdicts come out.
//!
//! Cells are numbered through all features, so that counts of a tick are one row of numbers: what
//! is counted is added up exactly, in whatever order rows come.

use std::collections::VecDeque;
use std::sync::Arc;

use super::baseline::Baseline;
use super::compare;
use super::explain;
use super::feature_watch::{FeatureWatch, seasons};
use super::render::CellSnapshot;
use super::state::{Latch, Signs};
use super::verdict::{
    Event, FeatureVerdict, Histogram, History, HistoryPoint, State, Subject, WindowVerdict,
};
use super::windows::{self, Windows};
use crate::config::FalseAlarms;
use crate::stats::detector;

/// Request ids kept of the newest rows, as samples.
const SAMPLES: usize = 8;

/// Ticks whose times are kept one by one; older ones become sparser.
const TIMES: usize = 8192;

/// Rows of a point of a history, at least.
const POINT_ROWS: u64 = 500;

/// Milliseconds of a point of a history, at least, where ticks go by time.
const POINT_MS: u64 = 10_000;

/// How ticks are made and judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) false_alarms: FalseAlarms,
    /// Evidence that means drift.
    pub(super) threshold: f64,
    /// Relative change of a cell's share that is no drift.
    pub(super) tolerance: f64,
    /// Whether each hour of the week is compared with its own.
    pub(super) is_seasonal: bool,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) subject: Subject,
    baseline: Arc<Baseline>,
    terms: Terms,
    features: Vec<FeatureWatch>,
    /// Counts since the last tick, of all cells.
    counts: Vec<u32>,
    /// Rows since the last tick.
    pub(super) tick_rows: u64,
    windows: Windows,
    /// Counts since the last point of the histories.
    point: Vec<u64>,
    point_rows: u64,
    point_began: u64,
    latch: Latch,
    evidence: f64,
    pub(super) rows: u64,
    n_ticks: u64,
    /// Numbers of ticks and when they were, ascending.
    times: VecDeque<(u64, u64)>,
    samples: VecDeque<String>,
}

impl Watch {
    /// A stream against `baseline`, or against that of its segment where the baseline has one.
    pub(super) fn new(subject: Subject, baseline: Arc<Baseline>, terms: Terms, now: u64) -> Self {
        let slice = subject.segment.as_ref().and_then(|segment| {
            let is_it =
                |slice: &&super::baseline::Slice| slice.by == "segment" && slice.value == *segment;
            baseline.slices.iter().find(is_it)
        });
        let mut end = 0;
        let features = baseline.features.iter().enumerate().map(|(index, feature)| {
            let start = end;
            end += feature.counts.len();
            let own = slice.and_then(|slice| slice.counts.get(index));
            let expected = own.unwrap_or(&feature.counts).clone();
            let seasons = seasons(&baseline, index, &expected, terms);
            FeatureWatch::new(feature, start..end, expected, seasons, terms, now)
        });
        let features: Vec<_> = features.collect();
        let n_cells = end;
        Self {
            subject,
            terms,
            features,
            counts: vec![0; n_cells],
            tick_rows: 0,
            windows: Windows::new(n_cells),
            point: vec![0; n_cells],
            point_rows: 0,
            point_began: now,
            latch: Latch::new(State::Ok, now),
            evidence: 0.0,
            rows: 0,
            n_ticks: 0,
            times: VecDeque::new(),
            samples: VecDeque::new(),
            baseline,
        }
    }

    /// The counts of a feature since the last tick, to be added to.
    pub(super) fn counts_mut(&mut self, feature: usize) -> &mut [u32] {
        &mut self.counts[self.features[feature].cells.clone()]
    }

    /// Says that rows were counted.
    pub(super) fn counted(&mut self, rows: u64) {
        self.tick_rows += rows;
        self.rows += rows;
    }

    /// Keeps a request's id as a sample of the newest rows.
    pub(super) fn sample(&mut self, id: &[u8]) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(String::from_utf8_lossy(id).into_owned());
    }

    /// Ends a tick: judges what was counted since the last one. Returns changes of state.
    /// O(features × cells × log ticks).
    pub(super) fn tick(&mut self, now: u64) -> Vec<Event> {
        self.n_ticks += 1;
        self.remember(now);
        for watched in &mut self.features {
            watched.tick(&self.counts[watched.cells.clone()], now);
        }
        self.windows.add(now, &self.counts);
        for (sum, count) in self.point.iter_mut().zip(&mut self.counts) {
            *sum += u64::from(std::mem::take(count));
        }
        self.point_rows += std::mem::take(&mut self.tick_rows);
        let changes = self.judge(now);
        self.maybe_end_point(now);
        changes
    }

    fn remember(&mut self, now: u64) {
        if self.times.len() == TIMES {
            // Every second one of the older half goes: an onset long ago is told less exactly.
            let mut index = 0;
            self.times.retain(|_| {
                index += 1;
                index > TIMES / 2 || index % 2 == 0
            });
        }
        self.times.push_back((self.n_ticks, now));
    }

    /// When that tick was, as far as is known.
    fn time_of(&self, tick: u64) -> Option<u64> {
        let position = self.times.partition_point(|&(number, _)| number < tick);
        self.times.get(position).or(self.times.back()).map(|&(_, at)| at)
    }

    /// All features together by the mean of their sums, and which of them by e-BH.
    fn judge(&mut self, now: u64) -> Vec<Event> {
        let threshold = self.terms.threshold;
        let sums: Vec<f64> = self.features.iter().map(|watched| watched.evidence).collect();
        self.evidence = detector::mean(&sums);
        let mut named = vec![false; sums.len()];
        if self.evidence >= threshold {
            for feature in detector::e_bh(&sums, (-threshold).exp()) {
                named[feature] = true;
            }
            // All together and none by itself: whoever is told wants to know where to look.
            let is_drifted = |watched: &FeatureWatch| watched.latch.state == State::Drifted;
            if !named.contains(&true)
                && !self.features.iter().any(is_drifted)
                && let Some(feature) = self.strongest()
            {
                named[feature] = true;
            }
        }
        let mut changed = Vec::new();
        let n_ticks = self.n_ticks;
        let alone = self.threshold_alone();
        for (index, watched) in self.features.iter_mut().enumerate() {
            // Named together with others, it needs less evidence than alone.
            let evidence =
                if named[index] { watched.evidence.max(alone) } else { watched.evidence };
            let signs = Signs { evidence, threshold: alone, is_back: watched.back };
            if let Some(from) = watched.latch.update(signs, now) {
                changed.push((Some(index), from));
                if watched.latch.state == State::Recovered {
                    watched.forget(n_ticks);
                }
            }
        }
        let all_back = self.features.iter().all(|watched| watched.latch.state != State::Drifted);
        let signs =
            Signs { evidence: self.evidence, threshold, is_back: all_back && self.is_calm() };
        if let Some(from) = self.latch.update(signs, now) {
            changed.insert(0, (None, from));
            if self.latch.state == State::Recovered {
                // Features that drifted together, none of them by itself, too.
                self.features.iter_mut().for_each(|watched| watched.forget(n_ticks));
            }
        }
        changed.into_iter().map(|(feature, from)| self.event(feature, from, now)).collect()
    }

    /// Whether the newest windows of all features are within the tolerance.
    fn is_calm(&self) -> bool {
        self.features.iter().all(|watched| watched.back)
    }

    /// Evidence by which one feature alone is drifted: the mean of all is then beyond the
    /// threshold, whatever the others say.
    fn threshold_alone(&self) -> f64 {
        self.terms.threshold + (self.features.len().max(1) as f64).ln()
    }

    fn event(&self, feature: Option<usize>, from: State, now: u64) -> Event {
        let (latch, evidence, threshold) = match feature {
            Some(index) => {
                let watched = &self.features[index];
                (watched.latch, watched.evidence, self.threshold_alone())
            }
            None => (self.latch, self.evidence, self.terms.threshold),
        };
        let is_change = matches!(latch.state, State::Drifted | State::Suspected);
        let told = feature.or_else(|| self.strongest());
        let onset = told.filter(|_| is_change).and_then(|index| self.onset(index));
        let window = told.filter(|_| is_change).and_then(|index| self.change(index, now));
        let text = match feature {
            Some(index) => {
                let name = &self.baseline.features[index].name;
                explain::feature(name, latch.state, onset, window.as_ref())
            }
            None => self.summary(),
        };
        Event {
            id: 0,
            at: now,
            subject: self.subject.clone(),
            feature: feature.map(|index| self.baseline.features[index].name.clone()),
            detector: "drift".to_owned(),
            from,
            to: latch.state,
            rows: self.rows,
            onset,
            evidence,
            threshold,
            window,
            request_ids: self.samples.iter().cloned().collect(),
            text,
        }
    }

    /// The stream in a sentence.
    fn summary(&self) -> String {
        if self.rows == 0 {
            return "no rows yet".to_owned();
        }
        let features = self.features.iter().zip(&self.baseline.features);
        let drifted = features.filter(|(watched, _)| watched.latch.state == State::Drifted);
        let names: Vec<_> = drifted.map(|(_, baseline)| baseline.name.as_str()).collect();
        explain::stream(self.latch.state, &names)
    }

    /// Findings in sentences: the stream's, then those of features that are not as they were.
    pub(super) fn text(&self, now: u64) -> Vec<String> {
        let mut text = vec![self.summary()];
        for (index, watched) in self.features.iter().enumerate() {
            if matches!(watched.latch.state, State::Drifted | State::Suspected) {
                let name = &self.baseline.features[index].name;
                let (onset, window) = (self.onset(index), self.change(index, now));
                let state = watched.latch.state;
                text.push(explain::feature(name, state, onset, window.as_ref()));
            }
        }
        text
    }

    fn strongest(&self) -> Option<usize> {
        let by_evidence = |a: &usize, b: &usize| {
            self.features[*a].evidence.total_cmp(&self.features[*b].evidence)
        };
        (0..self.features.len()).max_by(by_evidence)
    }

    /// The end of the last tick before the window with the most evidence.
    fn onset(&self, feature: usize) -> Option<u64> {
        let watched = &self.features[feature];
        self.time_of(watched.born + watched.best?.start_tick)
    }

    /// The window with the most evidence against the baseline.
    fn change(&self, feature: usize, now: u64) -> Option<WindowVerdict> {
        let watched = &self.features[feature];
        let counts = watched.detector.counts_since(watched.best?.start_tick);
        Some(self.against(feature, "change", &counts, now))
    }

    fn against(&self, feature: usize, window: &str, live: &[u64], now: u64) -> WindowVerdict {
        let (watched, baseline) = (&self.features[feature], &self.baseline.features[feature]);
        compare::window(baseline, watched.expected_in(window, now), live, window)
    }

    fn maybe_end_point(&mut self, now: u64) {
        let by_time = matches!(self.terms.false_alarms, FalseAlarms::Time(_));
        if self.point_rows < POINT_ROWS
            || by_time && now.saturating_sub(self.point_began) < POINT_MS
        {
            return;
        }
        for (watched, baseline) in self.features.iter_mut().zip(&self.baseline.features) {
            let live = &self.point[watched.cells.clone()];
            let rows: u64 = live.iter().sum();
            let missing = live.get(baseline.cells.missing()).copied().unwrap_or_default();
            watched.points.push(HistoryPoint {
                at: now,
                rows,
                evidence: std::mem::take(&mut watched.peak),
                psi: compare::effects(baseline, &watched.expected, live).psi_debiased,
                missing: missing as f64 / rows.max(1) as f64,
            });
        }
        self.point.fill(0);
        self.point_rows = 0;
        self.point_began = now;
    }

    /// Ends the alerts of drifts, of one feature or of all; returns how many.
    pub(super) fn acknowledge(&mut self, feature: Option<&str>) -> usize {
        let mut n = 0;
        let mut see = |latch: &mut Latch| {
            if latch.state == State::Drifted && !latch.acknowledged {
                latch.acknowledged = true;
                n += 1;
            }
        };
        for (watched, baseline) in self.features.iter_mut().zip(&self.baseline.features) {
            if feature.is_none_or(|feature| feature == baseline.name) {
                see(&mut watched.latch);
            }
        }
        let all_seen = self
            .features
            .iter()
            .all(|watched| watched.latch.state != State::Drifted || watched.latch.acknowledged);
        if all_seen {
            see(&mut self.latch);
        }
        n
    }

    pub(super) fn latch(&self) -> Latch {
        self.latch
    }

    pub(super) fn evidence(&self) -> f64 {
        self.evidence
    }

    pub(super) fn n_ticks(&self) -> u64 {
        self.n_ticks
    }

    /// All features as of `now`, the most evidence first.
    pub(super) fn verdicts(&self, now: u64) -> Vec<FeatureVerdict> {
        let mut verdicts: Vec<_> =
            (0..self.features.len()).map(|index| self.feature(index, now)).collect();
        verdicts.sort_by(|a, b| b.evidence.total_cmp(&a.evidence));
        verdicts
    }

    fn feature(&self, index: usize, now: u64) -> FeatureVerdict {
        let (watched, baseline) = (&self.features[index], &self.baseline.features[index]);
        let is_change = matches!(watched.latch.state, State::Drifted | State::Suspected);
        let mut named: Vec<_> = windows::NAMES
            .iter()
            .filter_map(|&name| {
                let counts = self.windows.counts(name, now, watched.cells.clone())?;
                Some(self.against(index, name, &counts, now))
            })
            .collect();
        named.extend(is_change.then(|| self.change(index, now)).flatten());
        FeatureVerdict {
            name: baseline.name.clone(),
            side: baseline.side,
            kind: baseline.kind,
            state: watched.latch.state,
            evidence: watched.evidence,
            onset: is_change.then(|| self.onset(index)).flatten(),
            variance_factor: baseline.variance_factor.unwrap_or(1.0),
            windows: named,
            recent: watched.recent.iter().copied().collect(),
        }
    }

    /// The counts of all cells since the version went live, beside the baseline's.
    pub(super) fn cells(&self) -> Vec<CellSnapshot> {
        let features = self.features.iter().zip(&self.baseline.features);
        let cells = features.map(|(watched, baseline)| CellSnapshot {
            model: self.subject.model.clone(),
            version: self.subject.version,
            feature: baseline.name.clone(),
            live: self.windows.counts(windows::ALL, 0, watched.cells.clone()).unwrap_or_default(),
            baseline: watched.expected.clone(),
        });
        cells.collect()
    }

    fn position(&self, feature: &str) -> Option<usize> {
        self.baseline.features.iter().position(|baseline| baseline.name == feature)
    }

    pub(super) fn history(&self, feature: &str) -> Option<History> {
        let index = self.position(feature)?;
        let points = self.features[index].points.to_vec();
        Some(History { feature: feature.to_owned(), points })
    }

    pub(super) fn histogram(&self, feature: &str, window: &str, now: u64) -> Option<Histogram> {
        let index = self.position(feature)?;
        let (watched, baseline) = (&self.features[index], &self.baseline.features[index]);
        let live = match window {
            "change" => watched.detector.counts_since(watched.best?.start_tick),
            _ => self.windows.counts(window, now, watched.cells.clone())?,
        };
        Some(Histogram {
            feature: feature.to_owned(),
            window: window.to_owned(),
            cells: (0..baseline.cells.len()).map(|cell| baseline.cells.label(cell)).collect(),
            baseline: watched.expected.clone(),
            live,
        })
    }
}
