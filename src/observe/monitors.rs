//! What is watched, for those who ask: verdicts, histories, events, commands.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::queue::{Offered, Queues};
use crate::error::{Code, Fault};
use crate::monitor::Recorder;
use crate::monitor::baseline::Baseline;
use crate::monitor::labels::{FeedbackCounts, FeedbackRecord};
use crate::monitor::render::{CellSnapshot, Figures};
use crate::monitor::times::now_ms;
use crate::monitor::verdict::{Event, Histogram, History, Verdict};
use crate::registry::Registry;
use crate::telemetry::Sharded;

/// Events kept for those who ask; older ones are gone.
const MOST_EVENTS: usize = 1000;

/// Batches of feedback that wait for the monitor's thread, at most.
pub(super) const MOST_FEEDBACK: usize = 256;

pub(super) const OBSERVED: usize = 0;
pub(super) const DROPPED: usize = 1;

/// Why a command was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// No such version is watched.
    #[error("{what} is not watched; {known}")]
    NotWatched {
        /// The model and version asked for.
        what: String,
        /// What is watched, or how to make it so.
        known: String,
    },
    /// The version is watched, and cannot do this now.
    #[error("{0}")]
    Refused(String),
    /// The monitor's thread has no room for more feedback, or is gone.
    #[error("the monitor is behind; try again later")]
    Busy,
}

impl Fault for CommandError {
    fn code(&self) -> Code {
        match self {
            Self::NotWatched { .. } => Code::NotFound,
            Self::Refused(_) => Code::Conflict,
            Self::Busy => Code::Overloaded,
        }
    }
}

/// Labels on their way to the recorder.
#[derive(Debug)]
pub(super) struct Labelled {
    pub(super) recorder: Arc<Recorder>,
    pub(super) records: Vec<FeedbackRecord>,
    pub(super) reply: oneshot::Sender<FeedbackCounts>,
}

/// A handle on everything that is watched. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Monitors(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) queues: Queues,
    pub(super) feedback: crossbeam_queue::ArrayQueue<Labelled>,
    /// [`OBSERVED`] and [`DROPPED`].
    pub(super) counts: Sharded<2>,
    pub(super) registry: Registry,
    pub(super) events: Mutex<EventLog>,
    /// Age of the oldest observation when the thread last looked.
    pub(super) lag_ms: AtomicU64,
    /// CPU time of the thread.
    pub(super) cpu_ns: AtomicU64,
    /// Who is told of changes. Must not block.
    pub(super) outlet: Box<dyn Fn(Told) + Send + Sync>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("queues", &self.queues).finish_non_exhaustive()
    }
}

/// What whoever sends alerts is told.
#[derive(Debug)]
pub enum Told {
    /// A state changed.
    Changed(Box<Event>),
    /// Nothing more is to be said of a version's drift, of a segment or feature where they are named:
    /// it was acknowledged, or the version does not serve any more.
    Over {
        /// The model's name.
        model: String,
        /// The version's number.
        version: u64,
        /// Its segment.
        segment: Option<String>,
        /// Its feature.
        feature: Option<String>,
    },
}

/// The newest events.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    last_id: u64,
    events: VecDeque<Event>,
}

impl EventLog {
    /// Numbers a change and keeps it.
    pub(super) fn push(&mut self, mut event: Event) -> Event {
        self.last_id += 1;
        event.id = self.last_id;
        if self.events.len() == MOST_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event.clone());
        event
    }
}

impl Monitors {
    /// Offers an observation. Never blocks; where there is no room it is dropped and counted.
    pub fn offer(&self, offered: Offered<'_>) {
        let taken = self.0.queues.offer(offered);
        self.0.counts.add(if taken { OBSERVED } else { DROPPED }, 1);
    }

    /// Labels for predictions of `recorder`'s version. They are joined after everything that was
    /// answered before.
    pub async fn feedback(
        &self,
        recorder: Arc<Recorder>,
        records: Vec<FeedbackRecord>,
    ) -> Result<FeedbackCounts, CommandError> {
        let (reply, counts) = oneshot::channel();
        let labelled = Labelled { recorder, records, reply };
        self.0.feedback.push(labelled).map_err(|_| CommandError::Busy)?;
        counts.await.map_err(|_| CommandError::Busy)
    }

    /// The recorders of all versions that serve and are watched.
    pub(super) fn recorders(&self) -> Vec<Arc<Recorder>> {
        let table = self.0.registry.live();
        let recorders = table.servings().filter_map(|serving| serving.version.recorder.clone());
        recorders.collect()
    }

    fn recorder(&self, model: &str, version: u64) -> Result<Arc<Recorder>, CommandError> {
        let recorders = self.recorders();
        let is_it = |recorder: &&Arc<Recorder>| {
            recorder.subject().model == model && recorder.subject().version == version
        };
        if let Some(recorder) = recorders.iter().find(is_it) {
            return Ok(Arc::clone(recorder));
        }
        let known = recorders.iter().map(|recorder| {
            format!("{} version {}", recorder.subject().model, recorder.subject().version)
        });
        let known = known.collect::<Vec<_>>().join(", ");
        let known = match known.is_empty() {
            true => "nothing is: `tidegate baseline` makes a baseline, or monitor.baseline = { learn = 20000 }".to_owned(),
            false => format!("watched: {known}"),
        };
        Err(CommandError::NotWatched { what: format!("{model} version {version}"), known })
    }

    /// The verdicts of everything watched, segments included, by model and version.
    #[must_use]
    pub fn verdicts(&self) -> Vec<Arc<Verdict>> {
        let mut verdicts: Vec<_> = self.recorders().iter().flat_map(|r| r.verdicts()).collect();
        verdicts.sort_by(|a, b| {
            let key = |v: &Verdict| {
                (v.subject.model.clone(), v.subject.version, v.subject.segment.clone())
            };
            key(a).cmp(&key(b))
        });
        verdicts
    }

    /// A feature's statistics over time; nothing where there is no such feature or stream.
    #[must_use]
    pub fn history(
        &self,
        model: &str,
        version: u64,
        segment: Option<&str>,
        feature: &str,
    ) -> Option<History> {
        self.recorder(model, version).ok()?.history(segment, feature)
    }

    /// A feature's cells over a window; nothing where there is no such feature, stream or window.
    #[must_use]
    pub fn histogram(
        &self,
        model: &str,
        version: u64,
        segment: Option<&str>,
        feature: &str,
        window: &str,
    ) -> Option<Histogram> {
        self.recorder(model, version).ok()?.histogram(segment, feature, window)
    }

    /// Cells of all features of versions whose settings ask for them as metrics.
    #[must_use]
    pub fn cells(&self) -> Vec<CellSnapshot> {
        self.recorders().iter().flat_map(|recorder| recorder.cells()).collect()
    }

    /// What the monitor itself does.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let counts = self.0.counts.sums();
        Figures {
            lag: self.0.lag_ms.load(Ordering::Relaxed) as f64 / 1e3,
            cpu: self.0.cpu_ns.load(Ordering::Relaxed) as f64 / 1e9,
            observed: counts[OBSERVED],
            dropped: counts[DROPPED],
        }
    }

    /// The baseline that a version is watched against.
    pub fn baseline(&self, model: &str, version: u64) -> Result<Arc<Baseline>, CommandError> {
        self.recorder(model, version)?.baseline().ok_or_else(|| {
            CommandError::Refused(format!("{model} version {version} has no complete baseline yet"))
        })
    }

    /// Events after that number, oldest first.
    #[must_use]
    pub fn events(&self, after: u64) -> Vec<Event> {
        let log = self.0.events.lock().unwrap_or_else(PoisonError::into_inner);
        log.events.iter().filter(|event| event.id > after).cloned().collect()
    }

    /// Ends the alerts of a drift: of one feature, or of all. Returns how many there were.
    pub fn acknowledge(
        &self,
        model: &str,
        version: u64,
        segment: Option<&str>,
        feature: Option<&str>,
        who: &str,
    ) -> Result<usize, CommandError> {
        let n = self.recorder(model, version)?.acknowledge(segment, feature);
        tracing::info!(model, version, segment, feature, who, n, "drift acknowledged");
        (self.0.outlet)(Told::Over {
            model: model.to_owned(),
            version,
            segment: segment.map(str::to_owned),
            feature: feature.map(str::to_owned),
        });
        Ok(n)
    }

    /// Completes a baseline that is being learned with the rows so far.
    pub fn freeze(&self, model: &str, version: u64) -> Result<(), CommandError> {
        let recorder = self.recorder(model, version)?;
        recorder.freeze(now_ms()).map_err(CommandError::Refused)
    }

    /// Learns a new baseline from the coming rows.
    pub fn rebase(&self, model: &str, version: u64, rows: Option<u64>) -> Result<(), CommandError> {
        let recorder = self.recorder(model, version)?;
        recorder.rebase(rows, now_ms()).map_err(CommandError::Refused)
    }

    /// Takes an event that is not a recorder's: it is kept and told like theirs.
    pub fn tell(&self, event: Event) {
        for event in self.record(vec![event]) {
            (self.0.outlet)(Told::Changed(Box::new(event)));
        }
    }

    /// Keeps changes as events and returns these.
    pub(super) fn record(&self, changes: Vec<Event>) -> Vec<Event> {
        let mut log = self.0.events.lock().unwrap_or_else(PoisonError::into_inner);
        changes.into_iter().map(|change| log.push(change)).collect()
    }
}
