//! Handles of the metrics that are counted by model.

use std::collections::HashMap;
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
}

impl Protocol {
    const ALL: [Self; 5] = [Self::V2Http, Self::Grpc, Self::V1, Self::Rows, Self::Arrow];

    fn label(self) -> &'static str {
        match self {
            Self::V2Http => "v2_http",
            Self::Grpc => "grpc",
            Self::V1 => "v1",
            Self::Rows => "rows",
            Self::Arrow => "arrow",
        }
    }
}

/// What is counted for one model in one slot.
#[derive(Debug)]
pub struct SlotMetrics {
    /// By protocol, then by code.
    predictions: Vec<[Counter; Code::ALL.len()]>,
    rows: Counter,
    duration: Arc<Histogram>,
    queue: Arc<Histogram>,
    compute: Arc<Histogram>,
    rules: [Counter; When::ALL.len()],
}

impl SlotMetrics {
    fn new(telemetry: &Telemetry, model: &str, slot: Slot) -> Self {
        let labels = [("model", model), ("slot", slot.label())];
        let counters = |protocol: Protocol| {
            Code::ALL.map(|code| {
                let [model, slot] = labels;
                let labels = [model, slot, ("protocol", protocol.label()), ("code", code.label())];
                telemetry.counter(names::PREDICTIONS, &labels)
            })
        };
        Self {
            predictions: Protocol::ALL.map(counters).into(),
            rows: telemetry.counter(names::ROWS, &labels),
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
        self.predictions[protocol as usize][code.index()].increment(1);
    }

    /// Counts rows that a rule of the monitor held for.
    pub fn rule_held(&self, when: When, rows: usize) {
        self.rules[when as usize].increment(rows as u64);
    }

    /// Counts what an answered prediction took.
    pub fn answered(&self, rows: usize, timings: &Timings) {
        self.rows.increment(rows as u64);
        self.duration.record_duration(timings.total);
        self.queue.record_duration(timings.queue);
        self.compute.record_duration(timings.compute);
    }
}

type Slots = HashMap<(Arc<str>, Slot), Arc<SlotMetrics>>;

/// Keeps the handles of models seen, so that a thousand swaps make no new ones.
#[derive(Debug)]
pub(super) struct MetricsCache {
    telemetry: Arc<Telemetry>,
    slots: Mutex<Slots>,
}

impl MetricsCache {
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { telemetry, slots: Mutex::default() }
    }

    pub(super) fn slot(&self, model: &Arc<str>, slot: Slot) -> Arc<SlotMetrics> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = slots.entry((Arc::clone(model), slot));
        Arc::clone(
            entry.or_insert_with(|| Arc::new(SlotMetrics::new(&self.telemetry, model, slot))),
        )
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
