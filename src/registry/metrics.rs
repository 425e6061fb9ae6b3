//! Handles of the metrics that are counted by model.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use super::version::Timings;
use crate::config::When;
use crate::error::Code;
use crate::scheduler;
use crate::telemetry::{Counter, Histogram, Sharded, Telemetry, names};
use crate::traffic::Slot;

/// The protocol that a prediction came in: the metric label `protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Open Inference Protocol V2 over HTTP.
    V2Http,
    /// The same over gRPC.
    Grpc,
    /// KServe V1 over HTTP.
    V1,
    /// Rows by name, as JSON or CSV.
    Rows,
    /// Rows by name, as an Arrow IPC stream.
    Arrow,
    /// No client's: the copy of a request, run by a shadow.
    Copy,
}

impl Protocol {
    const ALL: [Self; 6] =
        [Self::V2Http, Self::Grpc, Self::V1, Self::Rows, Self::Arrow, Self::Copy];

    /// The value of the metric label `protocol`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::V2Http => "v2_http",
            Self::Grpc => "grpc",
            Self::V1 => "v1",
            Self::Rows => "rows",
            Self::Arrow => "arrow",
            Self::Copy => "copy",
        }
    }
}

/// What is counted for one model in one slot.
#[derive(Debug)]
pub struct SlotMetrics {
    /// By protocol, then by code.
    predictions: Vec<Arc<Sharded<{ Code::ALL.len() }>>>,
    rows: Arc<Sharded<1>>,
    duration: Arc<Histogram>,
    queue: Arc<Histogram>,
    compute: Arc<Histogram>,
    rules: [Counter; When::ALL.len()],
}

impl SlotMetrics {
    fn new(telemetry: &Telemetry, model: &str, slot: Slot) -> Self {
        let labels = [("model", model), ("slot", slot.label())];
        let counters = |protocol: Protocol| {
            telemetry.sharded(Code::ALL.map(|code| {
                let [model, slot] = labels;
                let labels = [model, slot, ("protocol", protocol.label()), ("code", code.label())];
                telemetry.counter(names::PREDICTIONS, &labels)
            }))
        };
        Self {
            predictions: Protocol::ALL.map(counters).into(),
            rows: telemetry.sharded([telemetry.counter(names::ROWS, &labels)]),
            duration: telemetry.histogram(names::DURATION, &labels),
            queue: telemetry.histogram(names::QUEUE_DURATION, &labels),
            compute: telemetry.histogram(names::COMPUTE_DURATION, &labels),
            rules: When::ALL.map(|when| {
                let [model, slot] = labels;
                telemetry.counter(names::RULES_HELD, &[model, slot, ("rule", when.name())])
            }),
        }
    }

    /// Counts a prediction that ended in `code`.
    pub fn ended(&self, protocol: Protocol, code: Code) {
        self.predictions[protocol as usize].add(code.index(), 1);
    }

    /// Counts rows that a rule of the monitor held for.
    pub fn rule_held(&self, when: When, rows: usize) {
        self.rules[when as usize].increment(rows as u64);
    }

    /// Counts what an answered prediction took.
    pub fn answered(&self, rows: usize, timings: &Timings) {
        self.rows.add(0, rows as u64);
        self.duration.record_duration(timings.total);
        self.queue.record_duration(timings.queue);
        self.compute.record_duration(timings.compute);
    }
}

/// What becomes of the copies of a model's requests.
#[derive(Debug)]
pub struct CopyMetrics {
    /// Answered by the candidate and compared.
    pub compared: Counter,
    /// Failed.
    pub failed: Counter,
    /// Not answered in time.
    pub timed_out: Counter,
    /// There was no room for them.
    pub dropped: Counter,
}

type Dropped = HashMap<(Arc<str>, String), Arc<AtomicU64>>;

type Slots = HashMap<(Arc<str>, Slot), Arc<SlotMetrics>>;

/// Keeps the handles of models seen, so that a thousand swaps make no new ones.
#[derive(Debug)]
pub(super) struct MetricsCache {
    telemetry: Arc<Telemetry>,
    slots: Mutex<Slots>,
    dropped: Mutex<Dropped>,
}

impl MetricsCache {
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { telemetry, slots: Mutex::default(), dropped: Mutex::default() }
    }

    pub(super) fn slot(&self, model: &Arc<str>, slot: Slot) -> Arc<SlotMetrics> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = slots.entry((Arc::clone(model), slot));
        Arc::clone(
            entry.or_insert_with(|| Arc::new(SlotMetrics::new(&self.telemetry, model, slot))),
        )
    }

    /// Copies that there was no room for, by model and candidate.
    pub(super) fn dropped(&self, model: &Arc<str>, candidate: &str) -> Arc<AtomicU64> {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(dropped.entry((Arc::clone(model), candidate.to_owned())).or_default())
    }

    pub(super) fn copies(&self, model: &str) -> CopyMetrics {
        let of = |outcome| {
            self.telemetry.counter(names::COPIES, &[("model", model), ("outcome", outcome)])
        };
        CopyMetrics {
            compared: of("compared"),
            failed: of("failed"),
            timed_out: of("timed_out"),
            dropped: of("dropped"),
        }
    }

    pub(super) fn scheduler(&self, model: &str, executions: Arc<Sharded<1>>) -> scheduler::Metrics {
        let dropped = |reason| self.telemetry.counter(names::QUEUE_DROPPED, &[("reason", reason)]);
        let of_model = |metric| self.telemetry.counter(metric, &[("model", model)]);
        scheduler::Metrics {
            model: model.into(),
            panics: self.telemetry.counter(names::PANICS, &[("where", "engine")]),
            quarantines: of_model(names::QUARANTINES),
            demotions: of_model(names::DEMOTIONS),
            queued: self.telemetry.gauge(names::QUEUED, &[]),
            dropped_deadline: dropped("deadline"),
            dropped_cancelled: dropped("cancelled"),
            batch_rows: self.telemetry.histogram(names::BATCH_ROWS, &[("model", model)]),
            executions,
        }
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }
}
