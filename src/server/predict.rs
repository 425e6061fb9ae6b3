//! The life of a prediction, whatever protocol asks for it.
//!
//! A protocol admits the request ([`Admission::admit`]), has its body, and calls [`predict`] with two
//! plain functions: one that makes tensors of the body, and one that makes the answer of the tensors.
//! Between them stands all that protocols share: resolving the version, the model's own limit, the
//! deadline, the run, the monitor's rules, the books and the observation.
//!
//! Everything is plain functions but for one wait ([`wait`]): [`start`] decodes, checks and, for a
//! small model, runs on this very thread; what is too heavy for that comes back as a receiver, which is awaited.
//!
//! Here is also the place where the observation of an answer is offered to those who watch: in
//! [`super::beside`], after the answer is ready and never before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::DataPlane;
use super::beside::{Answerer, Flags, Observed, Unrun};
use super::choice::Choice;
use crate::error::{Code, Fault};
use crate::monitor::Judgement;
use crate::protocol::v2::ProtocolError;
use crate::registry::{Protocol, ResolveError, Serving, SlotMetrics, Timings, Version};
use crate::scheduler::{ExecuteError, Execution, Job, Pending, Permit, Placement};
use crate::telemetry::trace::{Inside, Times, Trace};
use crate::telemetry::{Telemetry, names};
use crate::tensor::Tensor;

/// Why a prediction has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum PredictError {
    #[error(
        "the server has {limit} predictions in flight, which is its limit (limits.in_flight); try again later"
    )]
    Full { limit: usize },
    #[error("header {header}: {reason}")]
    Header { header: HeaderName, reason: String },
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("model '{model}' version {version}: {error}")]
    Protocol { model: Arc<str>, version: u64, error: ProtocolError },
    #[error("model '{model}' version {version}: {reason}")]
    Rule { model: Arc<str>, version: u64, reason: String },
    #[error("model '{model}' version {version}: {error}")]
    Execute { model: Arc<str>, version: u64, error: ExecuteError },
}

impl Fault for PredictError {
    fn code(&self) -> Code {
        match self {
            Self::Full { .. } => Code::Overloaded,
            Self::Header { .. } | Self::Rule { .. } => Code::InvalidArgument,
            Self::Resolve(error) => error.code(),
            Self::Protocol { error, .. } => error.code(),
            Self::Execute { error, .. } => error.code(),
        }
    }
}

/// What is wrong with a request, in the words of its protocol.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// A header, or a gRPC request's metadata.
    Header { header: HeaderName, reason: String },
    /// The body.
    Protocol(ProtocolError),
}

impl From<ProtocolError> for DecodeError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl DecodeError {
    fn of(self, version: &Version) -> PredictError {
        match self {
            Self::Header { header, reason } => PredictError::Header { header, reason },
            Self::Protocol(error) => protocol(version, error),
        }
    }
}

/// Predictions accepted and not answered, over all models.
#[derive(Debug)]
pub(super) struct Admission {
    in_flight: Arc<AtomicUsize>,
}

/// A place among the accepted; given back when dropped.
pub(super) struct Place<'a>(&'a Admission);

impl Admission {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        let in_flight = Arc::new(AtomicUsize::new(0));
        let (gauge, counted) =
            (telemetry.gauge(names::PREDICTIONS_IN_FLIGHT, &[]), Arc::clone(&in_flight));
        telemetry.add_refresher(move || gauge.set(counted.load(Ordering::Relaxed) as f64));
        Self { in_flight }
    }

    pub(super) fn admit(&self, limit: usize) -> Result<Place<'_>, PredictError> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let place = Place(self);
        if before >= limit { Err(PredictError::Full { limit }) } else { Ok(place) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is asked, before its body is read.
pub(super) struct Question<'a> {
    /// Who asks.
    pub(super) protocol: Protocol,
    /// The model's name.
    pub(super) model: &'a str,
    /// The version or alias asked for.
    pub(super) version: Option<&'a str>,
    /// The request's head; of gRPC, its metadata.
    pub(super) head: &'a HeaderMap,
    /// The `x-request-id`, the client's or our own.
    pub(super) id: &'a HeaderValue,
    /// When the head was read.
    pub(super) received: Instant,
    /// Where it is traced: is told what happens inside.
    pub(super) trace: Option<&'a Trace>,
}

/// A decoded request.
pub(super) struct Asked<F> {
    /// The id that the client gave the request in its body.
    pub(super) id: Option<Box<str>>,
    /// In the signature's order.
    pub(super) inputs: Vec<Tensor>,
    /// How long the client waits.
    pub(super) timeout: Option<Duration>,
    /// 1 is the first; 0 is none, which is the last.
    pub(super) priority: u64,
    /// What its protocol needs to make the answer.
    pub(super) form: F,
}

/// An answered prediction.
pub(super) struct Predicted<T> {
    /// What the protocol made of it.
    pub(super) answer: T,
    /// Who answered.
    pub(super) version: Arc<Version>,
    /// Where the time went.
    pub(super) timings: Timings,
    /// What the monitor's rules say of it.
    pub(super) flags: Flags,
}

/// A prediction of a model that exists: counted once, when it ends; dropped before that, it was
/// cancelled.
struct Prediction {
    protocol: Protocol,
    metrics: Arc<SlotMetrics>,
    version: Arc<Version>,
    received: Instant,
    ended: bool,
}

impl Prediction {
    fn failed(mut self, code: Code) {
        self.ended = true;
        self.metrics.ended(self.protocol, code);
        self.version.statistics.failed(self.received.elapsed(), code);
    }

    fn answered(mut self, rows: usize, timings: &Timings) {
        self.ended = true;
        self.metrics.ended(self.protocol, Code::Ok);
        self.metrics.answered(rows, timings);
        self.version.statistics.answered(rows, timings);
    }
}

impl Drop for Prediction {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.ended(self.protocol, Code::Cancelled);
        }
    }
}

/// A prediction under way.
struct Started<F> {
    id: Option<Box<str>>,
    form: F,
    rows: usize,
    decode: Duration,
    admitted: Instant,
    deadline: Instant,
    /// Held until the answer is encoded.
    _permit: Permit,
    /// The inputs, where the version is watched.
    inputs: Option<Vec<Tensor>>,
}

enum Run {
    Done(Execution),
    Waiting(Pending),
}

/// Answers a question whose body is there.
///
/// `decode` makes tensors of the body, in the signature's order and checked against it; where
/// `is_long`, it is called on the compute pool, since as long as it takes an I/O thread serves no
/// other connection. `encode` makes the answer of the outputs, and is given the request's id.
pub(super) async fn predict<F: Send + 'static, T>(
    plane: &DataPlane,
    question: &Question<'_>,
    is_long: bool,
    decode: impl FnOnce(&Version) -> Result<Asked<F>, DecodeError> + Send + 'static,
    encode: impl FnOnce(&Version, Option<&str>, F, &[Tensor]) -> Result<T, ProtocolError>,
) -> Result<Predicted<T>, PredictError> {
    let received = question.received;
    let trace = question.trace.filter(|trace| trace.is_sampled());
    let (mut prediction, mut slot, choice) = {
        // The one look at what serves: everything after it is this version's, or its canary's.
        let table = plane.registry.live();
        let route = table.route(question.model, question.version)?;
        let choice = Choice::of(&route, question);
        let Serving { version, metrics, slot } = route.serving.clone();
        let protocol = question.protocol;
        (Prediction { protocol, metrics, version, received, ended: false }, slot, choice)
    };
    let version = Arc::clone(&prediction.version);
    let started = if is_long {
        let (own, choice) = (Arc::clone(&version), choice.clone());
        let read = move || start(&own, choice.as_deref(), decode, received);
        let read = version.executor.run_aside(read).await;
        read.unwrap_or_else(|error| Err(execute(&version, error).into()))
    } else {
        start(&version, choice.as_deref(), decode, received)
    };
    if let Some(chosen) = choice.as_deref().and_then(Choice::chosen) {
        prediction.version = Arc::clone(&chosen.version);
        prediction.metrics = Arc::clone(&chosen.metrics);
        slot = chosen.slot;
    }
    let version = Arc::clone(&prediction.version);
    if let Some(trace) = trace {
        trace.resolved(inside(&version, slot.label()));
    }
    let executed = match started {
        Ok((started, Run::Done(execution))) => {
            // It began when the request was admitted: one look at the clock less. On the way back
            // from the pool some time has passed.
            let ended = match is_long {
                true => Instant::now(),
                false => started.admitted + execution.computed,
            };
            Ok((started, execution, ended))
        }
        Ok((started, Run::Waiting(outcome))) => {
            match wait(outcome, received, started.deadline).await {
                Ok(execution) => Ok((started, execution, Instant::now())),
                Err(error) => {
                    if let Some((choice, inputs)) = choice.as_deref().zip(started.inputs.as_ref()) {
                        choice.failed(started.id.as_deref(), inputs, &error);
                    }
                    let inputs = started.inputs.unwrap_or_default();
                    Err(Unanswered::new(&version, error, started.id, inputs))
                }
            }
        }
        Err(error) => Err(error),
    };
    let answerer = Answerer { version: &version, slot: slot.label(), question };
    let outcome = match executed {
        Ok((started, execution, begun)) => {
            let finished = finish(&version, started, execution, encode, (received, begun));
            let Finished { answer, rows, timings, ran, flags, observed } = finished;
            if let Some(trace) = trace {
                trace.ran(times(rows, &timings, ran));
            }
            for (when, rows) in &flags.held {
                prediction.metrics.rule_held(*when, rows.len());
            }
            // The answer is ready: now, and never before, it is copied and observed.
            if let Some((choice, observed)) = choice.as_ref().zip(observed.as_ref()) {
                choice.copy(&plane.shadows, &version, question, observed, &timings);
            }
            if let Some(observed) = observed {
                let error = answer.as_ref().err();
                answerer.observe(&plane.monitors, &plane.capture, observed, error);
            }
            answer.map(|answer| (answer, rows, timings, flags))
        }
        Err(unanswered) => {
            let Unanswered { error, unrun } = *unanswered;
            answerer.unrun(&plane.capture, &unrun, &error);
            Err(error)
        }
    };
    match outcome {
        Ok((answer, rows, timings, flags)) => {
            prediction.answered(rows, &timings);
            Ok(Predicted { answer, version, timings, flags })
        }
        Err(error) => {
            if let Some(choice) = &choice {
                choice.copy_failed(&plane.shadows, &version, question);
            }
            prediction.failed(error.code());
            Err(error)
        }
    }
}

/// From body to execution, or to its place in the queue. Plain: nothing here waits.
fn start<F>(
    version: &Arc<Version>,
    choice: Option<&Choice>,
    decode: impl FnOnce(&Version) -> Result<Asked<F>, DecodeError>,
    received: Instant,
) -> Result<(Started<F>, Run), Box<Unanswered>> {
    let begun = Instant::now();
    let mut permit = version.executor.admit().map_err(|error| execute(version, error))?;
    let asked = decode(version).map_err(|error| error.of(version))?;
    // A canary takes what the primary takes: it runs what was read for that.
    let canary = choice.and_then(|choice| choice.choose(&asked, version));
    let version = canary.map_or(version, |serving| &serving.version);
    if canary.is_some() {
        permit = version.executor.admit().map_err(|error| execute(version, error))?;
    }
    let Asked { id, inputs, timeout, priority, form } = asked;
    let allowed = timeout.map_or(version.deadline, |timeout| timeout.min(version.deadline));
    let deadline = received.checked_add(allowed).unwrap_or(received + version.deadline);
    let rows = inputs.first().map_or(1, Tensor::rows);
    let admitted = Instant::now();
    if deadline <= admitted {
        return Err(Unanswered::new(version, ExecuteError::Deadline(allowed), id, inputs));
    }
    let executor = &version.executor;
    let copies = choice.and_then(Choice::copies);
    let is_recorded = version.capture.subject.is_some();
    let is_watched = version.recorder.is_some() || copies.is_some() || is_recorded;
    let (run, inputs) = match executor.place(rows, admitted) {
        Placement::Inline => {
            let run = executor.run_inline(&inputs, rows, admitted).map(Run::Done);
            if let (Err(error), Some(choice)) = (&run, choice) {
                choice.failed(id.as_deref(), &inputs, error);
            }
            (run, is_watched.then_some(inputs))
        }
        Placement::Pooled => {
            let kept = is_watched.then(|| inputs.clone());
            let job = Job { inputs, rows, priority, admitted, deadline };
            let may_split = version.loaded.rows_keep_bits;
            (executor.submit_parts(job, may_split).map(Run::Waiting), kept)
        }
    };
    let run = match run {
        Ok(run) => run,
        Err(error) => return Err(Unanswered::new(version, error, id, inputs.unwrap_or_default())),
    };
    let decode = admitted.saturating_duration_since(begun);
    let started = Started { id, form, rows, decode, admitted, deadline, _permit: permit, inputs };
    Ok((started, run))
}

/// A prediction that did not run.
struct Unanswered {
    error: PredictError,
    unrun: Unrun,
}

impl Unanswered {
    fn new(
        version: &Version,
        error: ExecuteError,
        id: Option<Box<str>>,
        inputs: Vec<Tensor>,
    ) -> Box<Self> {
        Box::new(Self { error: execute(version, error), unrun: Unrun { id, inputs } })
    }
}

impl From<PredictError> for Box<Unanswered> {
    fn from(error: PredictError) -> Self {
        Self::new(Unanswered { error, unrun: Unrun::default() })
    }
}

/// A prediction that ran.
struct Finished<T> {
    /// Refused where a rule of the monitor says so: it is observed all the same.
    answer: Result<T, PredictError>,
    rows: usize,
    timings: Timings,
    ran: Ran,
    flags: Flags,
    observed: Option<Observed>,
}

/// What a trace is told of a run beside its timings.
#[derive(Clone, Copy)]
struct Ran {
    /// When its queueing began.
    admitted: Instant,
    batch_rows: usize,
}

/// Waits for the pool.
async fn wait(
    outcome: Pending,
    received: Instant,
    deadline: Instant,
) -> Result<Execution, ExecuteError> {
    let outcome = tokio::time::timeout_at(deadline.into(), outcome.outcome()).await;
    let allowed = deadline.saturating_duration_since(received);
    outcome.unwrap_or(Err(ExecuteError::Deadline(allowed)))
}

/// From execution, which ended when encoding `begun`, to encoded answer.
fn finish<F, T>(
    version: &Arc<Version>,
    started: Started<F>,
    execution: Execution,
    encode: impl FnOnce(&Version, Option<&str>, F, &[Tensor]) -> Result<T, ProtocolError>,
    (received, begun): (Instant, Instant),
) -> Finished<T> {
    let Started { id, form, rows, decode, admitted, _permit, inputs, .. } = started;
    let judged = version.recorder.as_ref().zip(inputs.as_ref());
    let judged = judged.and_then(|(recorder, inputs)| recorder.judge(inputs, &execution.outputs));
    let Judgement { flags, refusal, replaced, outlier_scores } = judged.unwrap_or_default();
    let flags = Flags { held: flags, outlier_scores };
    let answer = match refusal {
        Some(reason) => Err(PredictError::Rule {
            model: Arc::clone(&version.model),
            version: version.number,
            reason,
        }),
        None => {
            let told = replace(&execution.outputs, replaced);
            let told = told.as_deref().unwrap_or(&execution.outputs);
            encode(version, id.as_deref(), form, told).map_err(|error| protocol(version, error))
        }
    };
    let ended = Instant::now();
    let timings = Timings {
        total: ended.saturating_duration_since(received),
        queue: execution.queued,
        decode,
        compute: execution.computed,
        encode: ended.saturating_duration_since(begun),
    };
    let ran = Ran { admitted, batch_rows: execution.batch_rows };
    let batch = (execution.batch, execution.first_row, execution.batch_rows);
    let outputs = execution.outputs;
    let observed = inputs.map(|inputs| Observed { id, inputs, outputs, timings, batch });
    Finished { answer, rows, timings, ran, flags, observed }
}

/// The outputs with some of them replaced; nothing where none are, which is nearly always.
fn replace(outputs: &[Tensor], replaced: Vec<(usize, Tensor)>) -> Option<Vec<Tensor>> {
    let mut told = (!replaced.is_empty()).then(|| outputs.to_vec())?;
    for (position, tensor) in replaced {
        told[position] = tensor;
    }
    Some(told)
}

/// What a trace is told of who answers.
fn inside(version: &Version, slot: &'static str) -> Inside {
    Inside {
        model: Arc::clone(&version.model),
        version: version.number,
        digest: version.digest.clone(),
        slot,
    }
}

fn times(rows: usize, timings: &Timings, ran: Ran) -> Times {
    let Timings { total, queue, decode, compute, encode } = *timings;
    let Ran { admitted, batch_rows } = ran;
    Times { rows, batch_rows, admitted, total, decode, queue, compute, encode }
}

fn protocol(version: &Version, error: ProtocolError) -> PredictError {
    PredictError::Protocol { model: Arc::clone(&version.model), version: version.number, error }
}

fn execute(version: &Version, error: ExecuteError) -> PredictError {
    PredictError::Execute { model: Arc::clone(&version.model), version: version.number, error }
}
