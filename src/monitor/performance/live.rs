//! The live state of one watched stream.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::baseline::{LossBaseline, LossKind, ScoreBaseline, Task};
use super::counts::{ScoreCounts, estimate};
use super::loss::LossWatch;
use super::tally::{self, Tally};
use super::verdict::{
    Change, ClassicalVerdict, EstimatedWindow, PerformanceVerdict, RealisedWindow,
};
use super::windows::Windows;
use super::{Predictions, words};
use crate::config::{self, Classical, FalseAlarms};
use crate::monitor::labels::{
    FeedbackCounts, FeedbackRecord, Found, Join, JoinCounts, Met, Prediction,
};
use crate::monitor::moments::Detector;
use crate::monitor::verdict::State;

/// Losses that a reference is learned of where the baseline had no labels.
const LEARN: u64 = 2_000;

/// How performance is watched.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Milliseconds that a prediction waits for its label.
    pub wait: u64,
    /// Rows that wait at most.
    pub most: usize,
    /// Relative rise of the reference's mean loss that is no alarm.
    pub tolerance: f64,
    /// Logarithm of the number of ticks (or of labels) that lie between two false alarms, on
    /// average and at least.
    pub threshold: f64,
    /// Whether the promise counts labels; else ticks.
    pub by_label: bool,
    /// Labels that a reference is learned of, where the baseline has none.
    pub learn: u64,
    /// Classical detectors on the losses.
    pub detectors: Vec<Classical>,
}

impl Settings {
    /// What a model's settings say.
    #[must_use]
    pub fn of(monitor: &config::Monitor) -> Self {
        let (between, by_label) = match monitor.false_alarms {
            FalseAlarms::Rows(rows) => (rows as f64, true),
            FalseAlarms::Time(_) => {
                (monitor.false_alarms.ticks(monitor.tick, monitor.tick_rows), false)
            }
        };
        Self {
            wait: u64::try_from(monitor.labels.wait.as_millis()).unwrap_or(u64::MAX),
            most: monitor.labels.most,
            tolerance: monitor.tolerance,
            threshold: between.max(1.0).ln(),
            by_label,
            learn: LEARN,
            detectors: monitor.detectors.clone(),
        }
    }
}

/// What of a [`Performance`] outlives a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    realised: Windows<Tally>,
    estimated: Windows<ScoreCounts>,
    watch: LossWatch,
}

/// A classical detector and what it has said.
#[derive(Debug)]
struct Watcher {
    detector: Detector,
    alarms: u64,
    last: Option<u64>,
    /// Alarms that no tick has told yet.
    is_new: bool,
}

/// Performance of one watched stream: predictions and labels go in, verdicts and changes of state
/// come out. One thread owns it.
#[derive(Debug)]
pub struct Performance {
    baseline: Arc<ScoreBaseline>,
    by_label: bool,
    join: Join,
    realised: Windows<Tally>,
    estimated: Windows<ScoreCounts>,
    watch: LossWatch,
    watchers: Vec<Watcher>,
}

impl Performance {
    /// Begins to watch.
    #[must_use]
    pub fn new(baseline: Arc<ScoreBaseline>, settings: &Settings, now_ms: u64) -> Self {
        let reference = baseline.loss.unwrap_or_else(|| unknown_loss(&baseline));
        let watch = LossWatch::new(
            reference,
            settings.learn,
            settings.tolerance,
            settings.threshold,
            now_ms,
        );
        let watchers = settings.detectors.iter().map(|detector| Watcher {
            detector: Detector::new(*detector),
            alarms: 0,
            last: None,
            is_new: false,
        });
        Self {
            by_label: settings.by_label,
            join: Join::new(baseline.form(), settings.most, settings.wait),
            realised: Windows::new(Tally::new(&baseline, reference.scale)),
            estimated: Windows::new(ScoreCounts::new(&baseline)),
            watch,
            watchers: watchers.collect(),
            baseline,
        }
    }

    /// What the baseline knows: the names of classes, among others.
    #[must_use]
    pub fn baseline(&self) -> &ScoreBaseline {
        &self.baseline
    }

    /// What is worth keeping over a restart. Predictions that wait for their labels are not: their
    /// labels will be unknown.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept {
            realised: self.realised.clone(),
            estimated: self.estimated.clone(),
            watch: self.watch.clone(),
        }
    }

    /// Goes on from what was kept under the same baseline and settings. Tells whether it fits; if
    /// not, nothing changes.
    pub fn restore(&mut self, kept: Kept) -> bool {
        let is_like = |tally: &Tally| tally.fits(&self.baseline);
        let fits = kept.realised.all_are(is_like)
            && kept.estimated.all_are(|counts| counts.fits(&self.baseline));
        if fits {
            (self.realised, self.estimated, self.watch) =
                (kept.realised, kept.estimated, kept.watch);
        }
        fits
    }

    /// Counts what was answered to one request; under its id the rows wait for their labels.
    pub fn observe(&mut self, id: Option<&[u8]>, predictions: &Predictions<'_>, now_ms: u64) {
        let baseline = Arc::clone(&self.baseline);
        let can_estimate = baseline.can_estimate();
        let mut waiting: SmallVec<[Prediction; 1]> = SmallVec::new();
        for row in tally::rows(&baseline, predictions) {
            if can_estimate {
                self.estimated.open(now_ms).count_row(&baseline, &row);
            }
            if id.is_some() {
                waiting.push(Prediction { value: row.value, scores: row.scores });
            }
        }
        let Some(id) = id else { return };
        for Met { prediction, truth } in self.join.predicted(id, waiting.into_iter(), now_ms) {
            self.label(&prediction, truth, now_ms);
        }
    }

    /// Takes labels; tells what became of them.
    pub fn feedback(&mut self, records: &[FeedbackRecord], now_ms: u64) -> FeedbackCounts {
        let mut counts = FeedbackCounts::default();
        for record in records {
            let Some(truth) = self.baseline.truth_of(&record.label) else {
                self.join.count_invalid();
                counts.invalid += 1;
                continue;
            };
            match self.join.labelled(record.id.as_bytes(), record.row, truth, now_ms) {
                Found::Joined(prediction) => {
                    counts.joined += 1;
                    self.label(&prediction, truth, now_ms);
                }
                Found::Waiting => counts.waiting += 1,
                Found::Late => counts.late += 1,
                Found::Unknown => counts.unknown += 1,
                Found::Duplicate => counts.duplicate += 1,
            }
        }
        counts
    }

    /// A prediction and what was true of it.
    fn label(&mut self, prediction: &Prediction, truth: f64, now_ms: u64) {
        self.realised.open(now_ms).count(&self.baseline, prediction, truth);
        let reference = self.watch.reference();
        let Some(loss) = tally::loss(&self.baseline, reference, prediction, truth) else { return };
        if self.by_label {
            self.watch.start();
        }
        self.watch.update(loss, now_ms);
        for watcher in &mut self.watchers {
            if watcher.detector.update(loss) {
                watcher.alarms += 1;
                watcher.last = Some(now_ms);
                watcher.is_new = true;
            }
        }
    }

    /// Decides, and lets go of what waited too long. To be called once a tick.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Change> {
        self.join.expire(now_ms);
        let before = self.watch.decide(now_ms);
        if !self.by_label {
            self.watch.start();
        }
        let mut changes: Vec<Change> = Vec::new();
        changes.extend(before.map(|before| self.change(before, now_ms)));
        for watcher in self.watchers.iter_mut().filter(|watcher| watcher.is_new) {
            watcher.is_new = false;
            let name = watcher.detector.name();
            changes.push(Change {
                detector: name.to_owned(),
                at: now_ms,
                from: State::Ok,
                to: State::Drifted,
                onset: watcher.last,
                evidence: 0.0,
                threshold: 0.0,
                text: format!(
                    "{name} found a change in the {}; it promises no rate of false alarms",
                    self.watch.name()
                ),
            });
        }
        changes
    }

    /// Somebody has seen the alarm.
    pub fn acknowledge(&mut self, now_ms: u64) -> Option<Change> {
        let before = self.watch.acknowledge(now_ms)?;
        Some(self.change(before, now_ms))
    }

    fn change(&self, before: State, now_ms: u64) -> Change {
        let (evidence, threshold) = self.watch.evidence();
        Change {
            detector: "performance".to_owned(),
            at: now_ms,
            from: before,
            to: self.watch.state().0,
            onset: self.watch.verdict().onset,
            evidence,
            threshold,
            text: words::loss(&self.watch),
        }
    }

    /// What became of labels and predictions.
    #[must_use]
    pub fn counts(&self) -> JoinCounts {
        self.join.counts()
    }

    /// The loss's state.
    #[must_use]
    pub fn state(&self) -> State {
        self.watch.state().0
    }

    /// Everything that is known at `now_ms`. O(buckets × classes × cells).
    #[must_use]
    pub fn verdict(&self, now_ms: u64) -> PerformanceVerdict {
        let names = Windows::<Tally>::NAMES.map(str::to_owned);
        let realised = self.realised.sums(now_ms);
        let realised = names.clone().into_iter().zip(realised).map(|(window, tally)| {
            RealisedWindow { window, rows: tally.rows, measures: tally.measures(&self.baseline) }
        });
        let estimated = if self.baseline.can_estimate() {
            let sums = self.estimated.sums(now_ms);
            let windows = names.into_iter().zip(sums).map(|(window, counts)| EstimatedWindow {
                window,
                rows: counts.rows,
                measures: estimate(&self.baseline, &counts),
                assumes_no_concept_drift: true,
            });
            windows.collect()
        } else {
            Vec::new()
        };
        let (state, state_since, acknowledged) = self.watch.state();
        let detectors = self.watchers.iter().map(|watcher| ClassicalVerdict {
            detector: watcher.detector.name().to_owned(),
            alarms: watcher.alarms,
            last: watcher.last,
        });
        let mut verdict = PerformanceVerdict {
            task: self.baseline.task,
            classes: self.baseline.classes.clone(),
            state,
            state_since,
            acknowledged,
            baseline: self.baseline.measures(),
            realised: realised.collect(),
            estimated,
            loss: self.watch.verdict(),
            labels: self.join.counts(),
            detectors: detectors.collect(),
            text: Vec::new(),
        };
        verdict.text = words::verdict(&verdict, words::loss(&self.watch));
        verdict
    }
}

/// A loss of which nothing is known yet.
fn unknown_loss(baseline: &ScoreBaseline) -> LossBaseline {
    let kind = match baseline.task {
        Task::Regression => LossKind::AbsoluteError,
        _ => LossKind::ZeroOne,
    };
    LossBaseline::nothing(kind, 1.0)
}
