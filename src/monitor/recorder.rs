//! Who watches one version: takes its answers, learns or reads its baseline, counts, makes ticks.
//!
//! Rows are gathered into micro-batches and counted column by column. All the state is behind one
//! lock that only the monitor's thread and those who ask for verdicts take: no request waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use super::answers::Answers;
use super::baseline::Baseline;
use super::feature::FeaturePlan;
use super::labels::{FeedbackCounts, FeedbackRecord};
use super::learning::{self, Learning};
use super::performance::ScoreBaseline;
use super::predictions;
use super::reader::{CellReader, RowCells};
use super::render::CellSnapshot;
use super::rows::Rows;
use super::rules::{Judge, Judgement};
use super::times::now_ms;
use super::verdict::{Event, Histogram, History, State, Subject, Verdict};
use super::watching::Watching;
use crate::config::{Monitor, Segment};
use crate::stats::hash;
use crate::tensor::{Signature, Tensor};

/// Rows that are counted at once.
const MICRO_BATCH: usize = 512;

/// What a recorder is made for.
#[derive(Debug)]
pub struct Watched<'a> {
    /// The version's inputs and outputs.
    pub signature: &'a Signature,
    /// The model file's own metadata.
    pub metadata: &'a [(String, String)],
    /// Names of classes by output, where they are known.
    pub labels: &'a [Option<Vec<String>>],
    /// The baseline beside the model file.
    pub baseline: Option<Arc<Baseline>>,
}

/// Watches one version.
#[derive(Debug)]
pub struct Recorder {
    subject: Subject,
    settings: Monitor,
    plan: FeaturePlan,
    /// Hashes of ids below this are watched; nothing where all are.
    sampled_below: Option<u64>,
    signature: Signature,
    /// What is known of its predictions without labels.
    unlabelled: Option<ScoreBaseline>,
    /// Who judges rows in the request, once there is a baseline; read by requests, without a lock.
    judge: ArcSwapOption<Judge>,
    /// Who scores rows for others, once there is a baseline; read without the lock.
    scorer: ArcSwapOption<Scorer>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Scorer {
    reader: Arc<CellReader>,
    threshold: f32,
}

#[derive(Debug)]
struct Inner {
    /// Rows that are not counted yet; all rows so far while the baseline is learned.
    rows: Rows,
    requests: Vec<Request>,
    phase: Phase,
    /// What the last verdicts were made at, and they.
    verdicts: Option<(u64, Vec<Arc<Verdict>>)>,
}

/// A request whose rows are not counted yet.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: Bytes,
    pub(super) segment: Option<Bytes>,
    pub(super) rows: usize,
}

#[derive(Debug)]
enum Phase {
    /// The baseline is made of the coming rows.
    Learning(Learning),
    Watching(Box<Watching>),
    /// Something went wrong with the watching; the reason.
    GivenUp(String),
}

impl Recorder {
    /// A recorder for a version; nothing where it is not to be watched: the settings say so, or
    /// there is neither a baseline nor a wish to learn one. Fails where settings, baseline and
    /// model do not go together.
    pub fn new(
        subject: Subject,
        settings: Monitor,
        watched: Watched<'_>,
    ) -> Result<Option<Self>, String> {
        Self::starting(subject, settings, watched, now_ms())
    }

    /// The same, for what is or was seen from `now` on.
    pub fn starting(
        subject: Subject,
        settings: Monitor,
        watched: Watched<'_>,
        now: u64,
    ) -> Result<Option<Self>, String> {
        let Watched { signature, metadata, labels, baseline } = watched;
        if !settings.enabled || baseline.is_none() && settings.learn.is_none() {
            return Ok(None);
        }
        let plan = FeaturePlan::new(signature, &settings, metadata, labels)
            .map_err(|error| error.to_string())?;
        let wanted = settings.learn.unwrap_or_default();
        if baseline.is_none() {
            learning::check(wanted, &plan)
                .map_err(|reason| format!("monitor.baseline.learn: {reason}"))?;
        }
        let sampled_below = hash::sampled_below(settings.sample);
        let rows = Rows::with_names(&plan);
        let phase = Phase::Learning(Learning::new(wanted, now));
        let inner = Inner { rows, requests: Vec::new(), phase, verdicts: None };
        let unlabelled = predictions::unlabelled(&plan, signature, labels);
        let recorder = Self {
            subject,
            settings,
            plan,
            sampled_below,
            unlabelled,
            signature: signature.clone(),
            judge: ArcSwapOption::empty(),
            scorer: ArcSwapOption::empty(),
            inner: Mutex::new(inner),
        };
        if let Some(baseline) = baseline {
            recorder.watch(&mut recorder.lock(), baseline, now)?;
        }
        Ok(Some(recorder))
    }

    /// From now on it watches against `baseline`.
    fn watch(
        &self,
        inner: &mut Inner,
        mut baseline: Arc<Baseline>,
        now: u64,
    ) -> Result<(), String> {
        // What the settings ignore by now may still be in the file.
        Arc::make_mut(&mut baseline).restrict(&self.plan);
        let reader = CellReader::new(&self.plan, &baseline).map_err(|error| error.to_string())?;
        let reader = Arc::new(reader);
        let threshold = baseline.outlier.as_ref().map(|outlier| outlier.threshold as f32);
        let scorer = threshold.map(|threshold| Scorer { reader: Arc::clone(&reader), threshold });
        let judge = Judge::new(
            &self.settings,
            &self.signature,
            &self.plan,
            &baseline,
            Arc::clone(&reader),
        )?;
        let watching = Watching::new(
            &self.subject,
            &self.settings,
            &self.plan,
            baseline,
            reader,
            self.unlabelled.clone().map(|score| (Answers::new(&self.plan), score)),
            now,
        )?;
        inner.rows = Rows::new(&self.plan);
        inner.requests.clear();
        inner.phase = Phase::Watching(Box::new(watching));
        inner.verdicts = None;
        self.judge.store(judge.map(Arc::new));
        self.scorer.store(scorer.map(Arc::new));
        Ok(())
    }

    /// What the model's rules say of a prediction, where there are any. Called by the request.
    #[must_use]
    pub fn judge(&self, inputs: &[Tensor], outputs: &[Tensor]) -> Option<Judgement> {
        let judge = self.judge.load();
        judge.as_ref().map(|judge| judge.judge(&self.plan, inputs, outputs))
    }

    /// How unusual each row of a prediction is, and the score beyond which one is an outlier; nothing
    /// while there is no baseline. O(rows × features).
    #[must_use]
    pub fn outlier_scores(&self, inputs: &[Tensor], outputs: &[Tensor]) -> Option<(Vec<f32>, f32)> {
        let scorer = self.scorer.load();
        let scorer = scorer.as_ref()?;
        let mut rows = Rows::new(&self.plan);
        rows.push(&self.plan, inputs, outputs);
        let mut cells = RowCells::default();
        scorer.reader.read(&rows, &mut cells);
        Some((cells.outlier_scores().to_vec(), scorer.threshold))
    }

    /// Whom it watches.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// How it watches.
    #[must_use]
    pub fn settings(&self) -> &Monitor {
        &self.settings
    }

    /// The header whose value splits the traffic.
    #[must_use]
    pub fn segment_header(&self) -> Option<&str> {
        match &self.settings.segment {
            Some(Segment::Header(name)) => Some(name),
            _ => None,
        }
    }

    /// Whether a request of that id is in the sample. The same everywhere and always, so that a
    /// request, its label and its copies are in or out together.
    #[must_use]
    pub fn takes(&self, id: &[u8]) -> bool {
        self.sampled_below.is_none_or(|below| hash::hash(id) < below)
    }

    /// Takes an answered prediction.
    pub fn observe(
        &self,
        id: Bytes,
        segment: Option<Bytes>,
        at: u64,
        inputs: &[Tensor],
        outputs: &[Tensor],
    ) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        match &mut inner.phase {
            Phase::GivenUp(_) => return,
            Phase::Learning(learning) => {
                let segment = self.segment_header().map(|_| segment.unwrap_or_default());
                learning.take(&mut inner.rows, &self.plan, at, segment, (inputs, outputs));
                return;
            }
            Phase::Watching(watching) => watching.predicted(&id, at, outputs),
        }
        let before = inner.rows.len();
        inner.rows.push(&self.plan, inputs, outputs);
        let rows = inner.rows.len() - before;
        inner.requests.push(Request { id, segment, rows });
        if inner.rows.len() >= MICRO_BATCH {
            inner.count(at);
        }
    }

    /// Takes labels of predictions; tells what became of them.
    pub fn feedback(&self, records: &[FeedbackRecord], now: u64) -> FeedbackCounts {
        let mut inner = self.lock();
        inner.verdicts = None;
        match &mut inner.phase {
            Phase::Watching(watching) => watching.feedback(records, now),
            // Nothing is kept while a baseline is learned.
            _ => FeedbackCounts { unknown: records.len() as u64, ..FeedbackCounts::default() },
        }
    }

    /// Counts what waits, makes the ticks that are due, and returns what changed.
    pub fn tick(&self, now: u64) -> Vec<Event> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if let Phase::Learning(learning) = &inner.phase
            && inner.rows.len() as u64 >= learning.wanted
        {
            return match self.learned(inner, now) {
                Ok(event) => vec![event],
                Err(reason) => {
                    inner.phase = Phase::GivenUp(reason);
                    Vec::new()
                }
            };
        }
        inner.count(now);
        match &mut inner.phase {
            Phase::Watching(watching) => watching.tick(now),
            _ => Vec::new(),
        }
    }

    /// Makes the baseline of the rows so far.
    fn learned(&self, inner: &mut Inner, now: u64) -> Result<Event, String> {
        let Phase::Learning(learning) = &inner.phase else {
            return Err("the baseline is complete already".to_owned());
        };
        let rows = inner.rows.len();
        let baseline =
            learning.finish(&inner.rows, &self.plan, &self.settings, &self.subject, now)?;
        self.watch(inner, Arc::new(baseline), now)?;
        let text = format!("the baseline is learned of {rows} rows of live traffic");
        Ok(self.event(State::Learning, State::Ok, now, text))
    }

    fn event(&self, from: State, to: State, now: u64, text: String) -> Event {
        Event {
            id: 0,
            at: now,
            subject: self.subject.clone(),
            feature: None,
            detector: "drift".to_owned(),
            from,
            to,
            rows: 0,
            onset: None,
            evidence: 0.0,
            threshold: 0.0,
            window: None,
            request_ids: Vec::new(),
            text,
        }
    }

    /// Completes a baseline that is being learned with the rows so far.
    pub fn freeze(&self, now: u64) -> Result<(), String> {
        let mut inner = self.lock();
        match inner.phase {
            Phase::Learning(_) if inner.rows.len() < learning::FEWEST_ROWS => Err(format!(
                "{} rows are too few for a baseline, which takes {} at least",
                inner.rows.len(),
                learning::FEWEST_ROWS
            )),
            Phase::Learning(_) => self.learned(&mut inner, now).map(drop),
            Phase::Watching(_) => Err("the baseline is complete already".to_owned()),
            Phase::GivenUp(ref reason) => Err(reason.clone()),
        }
    }

    /// Learns a new baseline from the coming `rows` rows; as many as the settings say, or as the
    /// present baseline has, where none are given.
    pub fn rebase(&self, rows: Option<u64>, now: u64) -> Result<(), String> {
        let mut inner = self.lock();
        let of_present = match &inner.phase {
            Phase::Watching(watching) => {
                watching.baseline().rows.clamp(learning::FEWEST_ROWS as u64, 20_000)
            }
            _ => 20_000,
        };
        let wanted = rows.or(self.settings.learn).unwrap_or(of_present);
        learning::check(wanted, &self.plan)?;
        inner.rows = Rows::with_names(&self.plan);
        inner.requests.clear();
        inner.phase = Phase::Learning(Learning::new(wanted, now));
        inner.verdicts = None;
        self.judge.store(None);
        self.scorer.store(None);
        Ok(())
    }

    /// Ends the alerts of drifts; returns how many there were.
    pub fn acknowledge(&self, segment: Option<&str>, feature: Option<&str>) -> usize {
        let mut inner = self.lock();
        inner.verdicts = None;
        match &mut inner.phase {
            Phase::Watching(watching) => watching.acknowledge(segment, feature, now_ms()),
            _ => 0,
        }
    }

    /// Watches no more.
    pub fn give_up(&self, reason: &str) {
        let mut inner = self.lock();
        inner.phase = Phase::GivenUp(reason.to_owned());
        inner.rows = Rows::new(&self.plan);
        inner.requests.clear();
        inner.verdicts = None;
        self.judge.store(None);
        self.scorer.store(None);
    }

    /// What is known now: of all the traffic, then by segment.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Arc<Verdict>> {
        let now = now_ms();
        let mut inner = self.lock();
        let inner = &mut *inner;
        let watching = match &inner.phase {
            Phase::Learning(learning) => {
                let rows = inner.rows.len() as u64;
                return vec![Arc::new(learning.verdict(&self.subject, &self.settings, rows, now))];
            }
            Phase::GivenUp(reason) => {
                let nothing = Learning::new(0, now);
                let mut verdict = nothing.verdict(&self.subject, &self.settings, 0, now);
                verdict.text = vec![format!("not watched: {reason}")];
                return vec![Arc::new(verdict)];
            }
            Phase::Watching(watching) => watching,
        };
        // Made anew at most once a second: a page and a scrape at the same time are one.
        let stamp = now / 1000;
        if let Some((made, verdicts)) = &inner.verdicts
            && *made == stamp
        {
            return verdicts.clone();
        }
        let verdicts = watching.verdicts(&self.settings, now);
        inner.verdicts = Some((stamp, verdicts.clone()));
        verdicts
    }

    /// The baseline that it watches against; nothing while there is none.
    #[must_use]
    pub fn baseline(&self) -> Option<Arc<Baseline>> {
        match &self.lock().phase {
            Phase::Watching(watching) => Some(Arc::clone(watching.baseline())),
            _ => None,
        }
    }

    /// The cells of all features, where the settings ask for them as metrics.
    #[must_use]
    pub fn cells(&self) -> Vec<CellSnapshot> {
        match &self.lock().phase {
            Phase::Watching(watching) if self.settings.cell_metrics => watching.whole().cells(),
            _ => Vec::new(),
        }
    }

    /// A feature's statistics over time.
    #[must_use]
    pub fn history(&self, segment: Option<&str>, feature: &str) -> Option<History> {
        match &self.lock().phase {
            Phase::Watching(watching) => watching.watch(segment)?.history(feature),
            _ => None,
        }
    }

    /// A feature's cells over a window.
    #[must_use]
    pub fn histogram(
        &self,
        segment: Option<&str>,
        feature: &str,
        window: &str,
    ) -> Option<Histogram> {
        match &self.lock().phase {
            Phase::Watching(watching) => {
                watching.watch(segment)?.histogram(feature, window, now_ms())
            }
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Counts the rows that wait.
    fn count(&mut self, now: u64) {
        if let Phase::Watching(watching) = &mut self.phase
            && !self.rows.is_empty()
        {
            watching.count(&self.rows, &self.requests, now);
            self.rows.clear();
            self.requests.clear();
        }
    }
}
