//! A version that has a baseline: its rows to cells, cells to counts, by stream.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::answers::Answers;
use super::baseline::{Baseline, OTHER_SEGMENTS};
use super::feature::FeaturePlan;
use super::labels::{FeedbackCounts, FeedbackRecord};
use super::moments::{Moment, OnFeatures};
use super::performance::{self, Performance, ScoreBaseline};
use super::reader::{CellReader, RowCells, count};
use super::recorder::Request;
use super::rows::Rows;
use super::verdict::{BaselineInfo, Event, State, Subject, Verdict};
use super::watch::{Terms, Watch};
use crate::config::{FalseAlarms, Monitor, Season, Segment};
use crate::tensor::Tensor;

/// Segments that are watched apart, at most; the others are one.
const MOST_SEGMENTS: usize = 16;

/// Predictions and what becomes of them.
#[derive(Debug)]
struct Judged {
    answers: Answers,
    performance: Performance,
}

/// The streams of a version.
#[derive(Debug)]
pub(super) struct Watching {
    baseline: Arc<Baseline>,
    subject: Subject,
    reader: Arc<CellReader>,
    cells: RowCells,
    terms: Terms,
    tick_ms: u64,
    tick_rows: u64,
    /// All the traffic.
    whole: Stream,
    /// Its segments, in the order in which they came.
    segments: Vec<Stream>,
    /// Positions of segments by value.
    by_value: HashMap<Bytes, usize>,
    by: SegmentBy,
    /// One column of cells of a segment's rows.
    gathered: Vec<u8>,
    /// Nothing where no output is known to be a prediction.
    judged: Option<Judged>,
    classical: OnFeatures,
    /// The outlier score beyond which a row is one.
    outlier: f32,
    outliers: u64,
    /// What is to be known of what is not watched.
    notes: Vec<String>,
    /// When performance was last decided on.
    judged_at: u64,
    events: Vec<Event>,
}

#[derive(Debug)]
struct Stream {
    watch: Watch,
    /// When the last tick was.
    ticked: u64,
}

#[derive(Debug)]
enum SegmentBy {
    Nothing,
    Header,
    /// The feature's position.
    Feature(usize),
}

impl Watching {
    pub(super) fn new(
        subject: &Subject,
        settings: &Monitor,
        plan: &FeaturePlan,
        baseline: Arc<Baseline>,
        reader: Arc<CellReader>,
        answers: Option<(Answers, ScoreBaseline)>,
        now: u64,
    ) -> Result<Self, String> {
        let by = match &settings.segment {
            None => SegmentBy::Nothing,
            Some(Segment::Header(_)) => SegmentBy::Header,
            Some(Segment::Feature(name)) => {
                let position = baseline.features.iter().position(|feature| feature.name == *name);
                SegmentBy::Feature(position.ok_or_else(|| {
                    format!("monitor.segment.feature: the baseline has no feature '{name}'")
                })?)
            }
        };
        let terms = Terms {
            false_alarms: settings.false_alarms,
            threshold: super::threshold(settings),
            tolerance: settings.tolerance,
            is_seasonal: settings.season == Season::HourOfWeek,
        };
        let watch = Watch::new(subject.clone(), Arc::clone(&baseline), terms, now);
        let judged = answers.map(|(answers, unlabelled)| {
            let score = baseline.score.clone().unwrap_or(unlabelled);
            let settings = performance::Settings::of(settings);
            let performance = Performance::new(Arc::new(score), &settings, now);
            Judged { answers, performance }
        });
        Ok(Self {
            reader,
            cells: RowCells::default(),
            terms,
            tick_ms: u64::try_from(settings.tick.as_millis()).unwrap_or(u64::MAX),
            tick_rows: settings.tick_rows,
            whole: Stream { watch, ticked: now },
            segments: Vec::new(),
            by_value: HashMap::new(),
            by,
            gathered: Vec::new(),
            judged,
            classical: OnFeatures::new(plan, settings),
            outlier: baseline.outlier.as_ref().map_or(f32::INFINITY, |o| o.threshold as f32),
            outliers: 0,
            notes: notes(plan, settings, &baseline),
            judged_at: now,
            events: Vec::new(),
            subject: subject.clone(),
            baseline,
        })
    }

    pub(super) fn baseline(&self) -> &Arc<Baseline> {
        &self.baseline
    }

    /// Takes what was predicted, for labels that come later.
    pub(super) fn predicted(&mut self, id: &Bytes, at: u64, outputs: &[Tensor]) {
        if let Some(Judged { answers, performance }) = &mut self.judged {
            answers.clear();
            answers.push(outputs, outputs.first().map_or(0, Tensor::rows));
            performance.observe(Some(id), &answers.predictions(), at);
        }
    }

    /// Takes labels; tells what became of them.
    pub(super) fn feedback(&mut self, records: &[FeedbackRecord], now: u64) -> FeedbackCounts {
        match &mut self.judged {
            Some(judged) => judged.performance.feedback(records, now),
            None => FeedbackCounts { unknown: records.len() as u64, ..FeedbackCounts::default() },
        }
    }

    /// Counts `rows`, which came with `requests`, in their order.
    pub(super) fn count(&mut self, rows: &Rows, requests: &[Request], now: u64) {
        self.reader.read(rows, &mut self.cells);
        let scores = self.cells.outlier_scores().iter();
        self.outliers += scores.filter(|&&score| score > self.outlier).count() as u64;
        for request in requests.iter().rev().take(2) {
            self.whole.watch.sample(&request.id);
        }
        let by_rows = matches!(self.terms.false_alarms, FalseAlarms::Rows(_));
        let per_tick = by_rows.then_some(self.tick_rows);
        let columns = (0..self.baseline.features.len()).map(|f| self.cells.column(f));
        let columns: Vec<&[u8]> = columns.collect();
        let n_rows = rows.len();
        self.whole.count(&columns, n_rows, per_tick, now, &mut self.events);
        for moment in self.classical.take(rows) {
            self.events.push(alarm(&self.subject, self.whole.watch.rows, moment, now));
        }
        if matches!(self.by, SegmentBy::Nothing) {
            return;
        }
        let segments = self.segments_of(requests, n_rows, now);
        for (position, stream) in self.segments.iter_mut().enumerate() {
            let is_in = |&row: &usize| segments[row] == position;
            let members: Vec<usize> = (0..n_rows).filter(is_in).collect();
            if members.is_empty() {
                continue;
            }
            let n_features = self.baseline.features.len();
            self.gathered.clear();
            for feature in 0..n_features {
                let column = self.cells.column(feature);
                self.gathered.extend(members.iter().map(|&row| column[row]));
            }
            let columns: Vec<&[u8]> = self.gathered.chunks_exact(members.len()).collect();
            stream.count(&columns, members.len(), per_tick, now, &mut self.events);
        }
    }

    /// The segment of each row, by position.
    fn segments_of(&mut self, requests: &[Request], n_rows: usize, now: u64) -> Vec<usize> {
        let mut segments = Vec::with_capacity(n_rows);
        match self.by {
            SegmentBy::Nothing => {}
            SegmentBy::Header => {
                for request in requests {
                    let value = request.segment.clone().unwrap_or_default();
                    let position = self.segment(value, now);
                    segments.extend(std::iter::repeat_n(position, request.rows));
                }
            }
            SegmentBy::Feature(feature) => {
                // By cell: what is one cell to the baseline is one segment.
                let mut by_cell = [None; 256];
                for row in 0..n_rows {
                    let cell = self.cells.column(feature)[row];
                    let position = match by_cell[usize::from(cell)] {
                        Some(position) => position,
                        None => {
                            let label = self.baseline.features[feature].cells.label(cell.into());
                            self.segment(label.into(), now)
                        }
                    };
                    by_cell[usize::from(cell)] = Some(position);
                    segments.push(position);
                }
            }
        }
        segments.resize(n_rows, 0);
        segments
    }

    /// The position of the segment of that value, which is new or one of the others if need be.
    fn segment(&mut self, value: Bytes, now: u64) -> usize {
        if let Some(&position) = self.by_value.get(&value) {
            return position;
        }
        let is_full = self.segments.len() >= MOST_SEGMENTS;
        let value = if is_full { Bytes::from_static(OTHER_SEGMENTS.as_bytes()) } else { value };
        if let Some(&position) = self.by_value.get(&value) {
            return position;
        }
        let name = match value.is_empty() {
            true => "(none)".to_owned(),
            false => String::from_utf8_lossy(&value).into_owned(),
        };
        let subject = Subject { segment: Some(name), ..self.subject.clone() };
        let watch = Watch::new(subject, Arc::clone(&self.baseline), self.terms, now);
        self.segments.push(Stream { watch, ticked: now });
        self.by_value.insert(value, self.segments.len() - 1);
        self.segments.len() - 1
    }

    /// Makes the ticks that are due by time; returns what changed since it was last asked.
    pub(super) fn tick(&mut self, now: u64) -> Vec<Event> {
        if let FalseAlarms::Time(_) = self.terms.false_alarms {
            for stream in std::iter::once(&mut self.whole).chain(&mut self.segments) {
                let is_due = now.saturating_sub(stream.ticked) >= self.tick_ms;
                if is_due && stream.watch.tick_rows >= self.tick_rows {
                    stream.ticked = now;
                    self.events.extend(stream.watch.tick(now));
                }
            }
        }
        self.judge(now);
        std::mem::take(&mut self.events)
    }

    /// Decides on performance, as often as ticks are made.
    fn judge(&mut self, now: u64) {
        let Some(judged) = &mut self.judged else { return };
        if now.saturating_sub(self.judged_at) < self.tick_ms {
            return;
        }
        self.judged_at = now;
        let (subject, rows) = (&self.subject, self.whole.watch.rows);
        let changes = judged.performance.tick(now).into_iter();
        self.events.extend(changes.map(|change| event(subject, rows, change)));
    }

    /// All the traffic.
    pub(super) fn whole(&self) -> &Watch {
        &self.whole.watch
    }

    pub(super) fn watch(&self, segment: Option<&str>) -> Option<&Watch> {
        match segment {
            None => Some(&self.whole.watch),
            Some(_) => {
                let mut watches = self.segments.iter().map(|stream| &stream.watch);
                watches.find(|watch| watch.subject.segment.as_deref() == segment)
            }
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        segment: Option<&str>,
        feature: Option<&str>,
        now: u64,
    ) -> usize {
        let streams = std::iter::once(&mut self.whole).chain(&mut self.segments);
        let meant = streams.filter(|stream| {
            segment.is_none() || stream.watch.subject.segment.as_deref() == segment
        });
        let n: usize = meant.map(|stream| stream.watch.acknowledge(feature)).sum();
        let performance = match (segment, feature) {
            (None, None) => self.judged.as_mut().and_then(|j| j.performance.acknowledge(now)),
            _ => None,
        };
        n + usize::from(performance.is_some())
    }

    pub(super) fn verdicts(&self, settings: &Monitor, now: u64) -> Vec<Arc<Verdict>> {
        let streams = std::iter::once(&self.whole).chain(&self.segments);
        streams.map(|stream| Arc::new(self.verdict(&stream.watch, settings, now))).collect()
    }

    fn verdict(&self, watch: &Watch, settings: &Monitor, now: u64) -> Verdict {
        let latch = watch.latch();
        // Labels are joined for all the traffic, not by segment.
        let judged = self.judged.as_ref().filter(|_| watch.subject.segment.is_none());
        let performance = judged.map(|judged| judged.performance.verdict(now));
        let mut text = watch.text(now);
        text.extend(self.notes.iter().cloned());
        text.extend(performance.iter().flat_map(|verdict| verdict.text.iter().cloned()));
        Verdict {
            subject: watch.subject.clone(),
            at: now,
            state: latch.state,
            state_since: latch.since,
            acknowledged: latch.acknowledged,
            baseline: BaselineInfo {
                origin: self.baseline.origin,
                rows: self.baseline.rows,
                learning: None,
                created_at: self.baseline.created_at,
            },
            false_alarms: settings.false_alarms.to_string(),
            threshold: self.terms.threshold,
            evidence: watch.evidence(),
            rows: watch.rows,
            ticks: watch.n_ticks(),
            outliers: if watch.subject.segment.is_none() { self.outliers } else { 0 },
            features: watch.verdicts(now),
            performance,
            text,
        }
    }
}

/// What is not watched, or not as one may think, in sentences.
fn notes(plan: &FeaturePlan, settings: &Monitor, baseline: &Baseline) -> Vec<String> {
    let mut notes = Vec::new();
    if settings.sample < 1.0 {
        notes.push(format!("a share of {} of the requests is watched", settings.sample));
    }
    if plan.n_left_out() > 0 {
        notes.push(format!(
            "{} features are not watched: there are more than max_features, {}",
            plan.n_left_out(),
            settings.max_features
        ));
    }
    let has_season = baseline.slices.iter().any(|slice| slice.by == "season");
    if settings.season == Season::HourOfWeek && !has_season {
        notes.push(
            "the baseline has no hours of the week: make it of rows with --timestamp, under this setting"
                .to_owned(),
        );
    }
    notes
}

/// An alarm of a classical detector as an event.
fn alarm(subject: &Subject, rows: u64, moment: Moment, now: u64) -> Event {
    let Moment { feature, detector } = moment;
    let text =
        format!("{detector} found a change of {feature}; it promises no rate of false alarms");
    let change = performance::Change {
        detector: detector.to_owned(),
        at: now,
        from: State::Ok,
        to: State::Drifted,
        onset: None,
        evidence: 0.0,
        threshold: 0.0,
        text,
    };
    Event { feature: Some(feature), ..event(subject, rows, change) }
}

/// A change of performance as an event.
fn event(subject: &Subject, rows: u64, change: performance::Change) -> Event {
    let performance::Change { detector, at, from, to, onset, evidence, threshold, text } = change;
    Event {
        id: 0,
        at,
        subject: subject.clone(),
        feature: None,
        detector,
        from,
        to,
        rows,
        onset,
        evidence,
        threshold,
        window: None,
        request_ids: Vec::new(),
        text,
    }
}

impl Stream {
    /// Counts columns of cells; makes a tick after every `per_tick` rows where that is given.
    fn count(
        &mut self,
        columns: &[&[u8]],
        n_rows: usize,
        per_tick: Option<u64>,
        now: u64,
        events: &mut Vec<Event>,
    ) {
        let mut start = 0;
        while start < n_rows {
            let room = per_tick.map_or(n_rows, |per_tick| {
                usize::try_from(per_tick.saturating_sub(self.watch.tick_rows)).unwrap_or(n_rows)
            });
            let end = n_rows.min(start + room.max(1));
            for (feature, column) in columns.iter().enumerate() {
                count(&column[start..end], self.watch.counts_mut(feature));
            }
            self.watch.counted((end - start) as u64);
            if per_tick.is_some_and(|per_tick| self.watch.tick_rows >= per_tick) {
                self.ticked = now;
                events.extend(self.watch.tick(now));
            }
            start = end;
        }
    }
}
