//! A live version: its plan, its way to be executed, its digest and its statistics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::latency::{Latency, LatencyCounts};
use super::recording::Recording;
use crate::engine::{Plan, WarmUp};
use crate::error::{Code, Outcome};
use crate::monitor::Recorder;
use crate::monitor::baseline::Baseline;
use crate::protocol::rows::RowSchema;
use crate::repository::Fingerprint;
use crate::scheduler::{Cost, Executor};
use crate::telemetry::Sharded;
use crate::tensor::Signature;

/// What loading a version's files gave. Shared by all [`Version`]s made of them.
#[derive(Debug)]
pub struct Loaded {
    /// What runs.
    pub plan: Arc<Plan>,
    /// `sha256:` and 64 hexadecimal digits over `model.onnx`.
    pub digest: String,
    /// What the files looked like when they were read.
    pub fingerprint: Fingerprint,
    /// The size of `model.onnx` in bytes.
    pub size: usize,
    /// Class labels that the file gives, by output.
    pub classes: Vec<(String, Vec<String>)>,
    /// The file's own metadata.
    pub metadata: Vec<(String, String)>,
    /// The baseline beside the file; why it cannot be used, where it cannot.
    pub baseline: Option<Result<Arc<Baseline>, String>>,
    /// Golden cases passed.
    pub n_golden: usize,
    /// The first run.
    pub warm_up: WarmUp,
    /// Rows and duration of a larger run, where the model takes several rows.
    pub larger: Option<(usize, Duration)>,
    /// Whether rows give the same bits together as alone, so that a request may run in parts.
    pub rows_keep_bits: bool,
    /// Whether rows put together take less time, and give the same bits.
    pub gains_by_batches: bool,
    /// Time to read, compile and warm up.
    pub took: Duration,
}

impl Loaded {
    /// A new cost model from the warm-up's runs.
    pub(super) fn cost(&self) -> Cost {
        match self.larger {
            Some((rows, took)) => Cost::fit(self.warm_up.cost, took, rows),
            None => Cost::constant(self.warm_up.cost),
        }
    }
}

/// A version that can answer. Immutable: other settings make another `Version` of the same files.
#[derive(Debug)]
pub struct Version {
    /// The model's name.
    pub model: Arc<str>,
    /// The version's number.
    pub number: u64,
    /// The number as text, for answers.
    pub number_text: String,
    /// The same as bytes that answers share.
    pub number_bytes: Bytes,
    /// The digest's bytes, for answers.
    pub digest: Bytes,
    /// What it was made of.
    pub loaded: Arc<Loaded>,
    /// How it is executed.
    pub executor: Executor,
    /// What it has done, over all `Version`s of these files.
    pub statistics: Arc<Statistics>,
    /// Names of classes by output, in the signature's order.
    pub labels: Vec<Option<Vec<String>>>,
    /// Which keys of a row fill which input, and how rows are answered.
    pub rows: RowSchema,
    /// Who watches it, where it is watched.
    pub recorder: Option<Arc<Recorder>>,
    /// What is recorded of its predictions.
    pub capture: Recording,
    /// Why it is not watched although it should be.
    pub unwatched: Option<String>,
    /// The longest a prediction may take.
    pub deadline: Duration,
    /// Rows of a batch as configured; 0 where batching is off or the cost model decides.
    pub max_batch: usize,
}

impl Version {
    /// Inputs and outputs.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        self.loaded.plan.signature()
    }
}

const SUCCESSES: usize = 0;
const SUCCESS_NANOS: usize = 1;
const FAILURES: usize = 2;
const FAILURE_NANOS: usize = 3;
const QUEUE_NANOS: usize = 4;
const INPUT_NANOS: usize = 5;
const INFER_NANOS: usize = 6;
const OUTPUT_NANOS: usize = 7;
const ROWS: usize = 8;
const FAULTS: usize = 9;

/// The figures of the protocol's statistics extension, for one version.
#[derive(Debug, Default)]
pub struct Statistics {
    counters: Sharded<10>,
    latency: Latency,
    /// Executions: a batch is one.
    pub executions: Arc<Sharded<1>>,
    /// Milliseconds since 1970; 0 before the first.
    last: AtomicU64,
}

/// Where the time of one answered prediction went.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// From head read to answer ready.
    pub total: Duration,
    /// Waiting for a compute thread.
    pub queue: Duration,
    /// Reading the request.
    pub decode: Duration,
    /// Inside the engine.
    pub compute: Duration,
    /// Writing the answer.
    pub encode: Duration,
}

/// What [`Statistics`] has counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct StatisticsView {
    /// Milliseconds since 1970 of the last answer; 0 before the first.
    pub last_ms: u64,
    /// Rows answered.
    pub rows: u64,
    /// Executions.
    pub executions: u64,
    /// Requests answered, and their whole time in nanoseconds.
    pub success: (u64, u64),
    /// Requests failed, and their whole time in nanoseconds.
    pub fail: (u64, u64),
    /// Of these, those that failed for no fault of the request's.
    pub faults: u64,
    /// Nanoseconds waiting for a compute thread.
    pub queue_ns: u64,
    /// Nanoseconds reading requests.
    pub input_ns: u64,
    /// Nanoseconds inside the engine.
    pub infer_ns: u64,
    /// Nanoseconds writing answers.
    pub output_ns: u64,
}

impl Statistics {
    /// Counts an answered prediction of `rows` rows.
    pub fn answered(&self, rows: usize, timings: &Timings) {
        self.counters.add_all([
            (SUCCESSES, 1),
            (SUCCESS_NANOS, nanos(timings.total)),
            (QUEUE_NANOS, nanos(timings.queue)),
            (INPUT_NANOS, nanos(timings.decode)),
            (INFER_NANOS, nanos(timings.compute)),
            (OUTPUT_NANOS, nanos(timings.encode)),
            (ROWS, rows as u64),
        ]);
        self.latency.record(timings.total);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Written at most once a millisecond, so that threads seldom fight over the line.
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        if self.last.load(Ordering::Relaxed) != now {
            self.last.store(now, Ordering::Relaxed);
        }
    }

    /// Counts a prediction that got no answer, and why.
    pub fn failed(&self, total: Duration, code: Code) {
        let faults = u64::from(code.outcome() == Outcome::Failed);
        let nanos = nanos(total);
        self.counters.add_all([(FAILURES, 1), (FAULTS, faults), (FAILURE_NANOS, nanos)]);
    }

    /// Answers by the time that they took.
    #[must_use]
    pub fn latency(&self) -> LatencyCounts {
        self.latency.counts()
    }

    /// The figures so far.
    #[must_use]
    pub fn view(&self) -> StatisticsView {
        let sums = self.counters.sums();
        StatisticsView {
            last_ms: self.last.load(Ordering::Relaxed),
            rows: sums[ROWS],
            executions: self.executions.sums()[0],
            success: (sums[SUCCESSES], sums[SUCCESS_NANOS]),
            fail: (sums[FAILURES], sums[FAILURE_NANOS]),
            faults: sums[FAULTS],
            queue_ns: sums[QUEUE_NANOS],
            input_ns: sums[INPUT_NANOS],
            infer_ns: sums[INFER_NANOS],
            output_ns: sums[OUTPUT_NANOS],
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
