//! The life of a prediction, from its body to its answer.
//!
//! Everything between body and answer is plain functions but for one wait: [`start`] decodes,
//! resolves, checks and, for a small model, runs on this very thread; what is too heavy for that
//! comes back as a receiver, which is awaited. [`finish`] encodes.
//!
//! Here is also the place where the observation of an answer is offered to those who watch: in
//! [`super::beside`], after the answer is ready and never before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::account::Call;
use super::beside::{Flags, Observed, observe};
use super::reply::{JSON, Reply};
use super::route::Target;
use super::{DataPlane, body};
use crate::error::{Code, Fault};
use crate::monitor::Judgement;
use crate::protocol::v2::{
    self, Answer, AnswerOutput, Form, InferRequest, ProtocolError, RequestedOutput,
};
use crate::registry::{Protocol, ResolveError, Serving, SlotMetrics, Timings, Version};
use crate::scheduler::{ExecuteError, Execution, Job, Permit, Placement};
use crate::telemetry::Gauge;
use crate::tensor::Tensor;

/// The length of the JSON part where binary tensors follow it.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// Milliseconds that the client is willing to wait.
const CLIENT_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// Asks for `server-timing` on the answer; so does the same header on the request.
const WANTS_TIMING: HeaderName = HeaderName::from_static("x-server-timing");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Names the exact model that answered.
const DIGEST: HeaderName = HeaderName::from_static("tidegate-model-digest");
const VERSION: HeaderName = HeaderName::from_static("tidegate-model-version");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A JSON part from this size on is read on the compute pool: as JSON it takes milliseconds, in which
/// an I/O thread serves no other connection.
const READ_ASIDE_FROM: usize = 256 << 10;

/// Why a prediction has no answer.
#[derive(Debug, thiserror::Error)]
enum InferError {
    #[error(
        "the server has {limit} predictions in flight, which is its limit (limits.in_flight); try again later"
    )]
    Full { limit: usize },
    #[error("header {header}: {reason}")]
    Header { header: HeaderName, reason: String },
    #[error(transparent)]
    Body(#[from] body::BodyError),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("model '{model}' version {version}: {error}")]
    Protocol { model: Arc<str>, version: u64, error: ProtocolError },
    #[error("model '{model}' version {version}: {reason}")]
    Rule { model: Arc<str>, version: u64, reason: String },
    #[error("model '{model}' version {version}: {error}")]
    Execute { model: Arc<str>, version: u64, error: ExecuteError },
}

impl Fault for InferError {
    fn code(&self) -> Code {
        match self {
            Self::Full { .. } => Code::Overloaded,
            Self::Header { .. } | Self::Rule { .. } => Code::InvalidArgument,
            Self::Body(error) => error.code(),
            Self::Resolve(error) => error.code(),
            Self::Protocol { error, .. } => error.code(),
            Self::Execute { error, .. } => error.code(),
        }
    }
}

/// Predictions accepted and not answered, over all models.
#[derive(Debug)]
pub(super) struct Admission {
    in_flight: AtomicUsize,
    gauge: Gauge,
}

/// A place among the accepted; given back when dropped.
struct Place<'a>(&'a Admission);

impl Admission {
    pub(super) fn new(gauge: Gauge) -> Self {
        Self { in_flight: AtomicUsize::new(0), gauge }
    }

    fn admit(&self, limit: usize) -> Result<Place<'_>, InferError> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.gauge.increment(1.0);
        let place = Place(self);
        if before >= limit { Err(InferError::Full { limit }) } else { Ok(place) }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.decrement(1.0);
    }
}

/// A prediction of a model that exists: counted once, when it ends; dropped before that, it was
/// cancelled.
struct Prediction {
    metrics: Arc<SlotMetrics>,
    version: Arc<Version>,
    received: Instant,
    ended: bool,
}

impl Prediction {
    fn failed(mut self, code: Code) {
        self.ended = true;
        self.metrics.ended(Protocol::V2Http, code);
        self.version.statistics.failed(self.received.elapsed());
    }

    fn answered(mut self, rows: usize, timings: &Timings) {
        self.ended = true;
        self.metrics.ended(Protocol::V2Http, Code::Ok);
        self.metrics.answered(rows, timings);
        self.version.statistics.answered(rows, timings);
    }
}

impl Drop for Prediction {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.ended(Protocol::V2Http, Code::Cancelled);
        }
    }
}

/// A prediction under way.
struct Started {
    id: Option<Box<str>>,
    outputs: Vec<RequestedOutput>,
    rows: usize,
    decode: Duration,
    admitted: Instant,
    deadline: Instant,
    /// Held until the answer is encoded.
    _permit: Permit,
    run: Run,
    /// The inputs, where the version is watched.
    inputs: Option<Vec<Tensor>>,
}

enum Run {
    Done(Execution),
    Waiting(oneshot::Receiver<Result<Execution, ExecuteError>>),
}

/// Answers `POST /v2/models/M/infer`.
pub(super) async fn infer(plane: &DataPlane, call: Call, target: &Target<'_>) -> Reply {
    match predict(plane, call, target).await {
        Ok(reply) => reply,
        Err(error) => Reply::fault(&error),
    }
}

async fn predict(plane: &DataPlane, call: Call, target: &Target<'_>) -> Result<Reply, InferError> {
    let Call { head, body, received, id } = call;
    let (limits, in_flight) = {
        let table = plane.registry.live();
        let limits = &table.config.limits;
        ((limits.body, limits.body_time), limits.in_flight)
    };
    let _place = plane.admission.admit(in_flight)?;
    let body = body::read(&head, body, limits.0, limits.1).await?;
    let head = &head.headers;
    let prediction = {
        // The one look at what serves: everything after it is this version's.
        let table = plane.registry.live();
        let serving = table.resolve(&target.model, target.version.as_deref())?;
        let Serving { version, metrics, .. } = serving.clone();
        Prediction { metrics, version, received, ended: false }
    };
    let version = Arc::clone(&prediction.version);
    let json_length = json_length(head, body.len());
    // Binary tensors behind the JSON part are taken as they are.
    let to_read = json_length.as_ref().map_or(0, |length| length.unwrap_or(body.len()));
    let started = if to_read < READ_ASIDE_FROM {
        start(&version, head, &body, json_length, received)
    } else {
        let (own, head) = (Arc::clone(&version), head.clone());
        let read = move || start(&own, &head, &body, json_length, received);
        let read = version.executor.run_aside(read).await;
        read.unwrap_or_else(|error| Err(execute(&version, error)))
    };
    let outcome = match started {
        Ok(started) => finish(&version, started, received).await,
        Err(error) => Err(error),
    };
    let outcome = outcome.and_then(|finished| {
        let Finished { answer, rows, timings, flags, observed } = finished;
        for (when, rows) in &flags.held {
            prediction.metrics.rule_held(*when, rows.len());
        }
        // The answer is ready: now, and never before, it is observed.
        if let Some((recorder, observed)) = version.recorder.as_ref().zip(observed) {
            observe(&plane.monitors, recorder, observed, head, &id);
        }
        answer.map(|encoded| (encoded, rows, timings, flags))
    });
    let (encoded, rows, timings, flags) = match outcome {
        Ok(answer) => answer,
        Err(error) => {
            prediction.failed(error.code());
            return Err(error);
        }
    };
    let mut reply = respond(&version, encoded, head);
    flags.tell(&mut reply);
    if head.contains_key(WANTS_TIMING) {
        reply.set(SERVER_TIMING, server_timing(&timings));
    }
    prediction.answered(rows, &timings);
    Ok(reply)
}

/// From body to execution, or to its place in the queue. Plain: nothing here waits.
fn start(
    version: &Arc<Version>,
    head: &HeaderMap,
    body: &Bytes,
    json_length: Result<Option<usize>, InferError>,
    received: Instant,
) -> Result<Started, InferError> {
    let begun = Instant::now();
    let permit = version.executor.admit().map_err(|error| execute(version, error))?;
    let request = v2::decode_request(body, json_length?, version.signature());
    let InferRequest { id, inputs, outputs, timeout, priority } =
        request.map_err(|error| protocol(version, error))?;
    let client = number(head, &CLIENT_TIMEOUT)?.map(Duration::from_millis);
    let allowed = [timeout, client].into_iter().flatten().fold(version.deadline, Duration::min);
    let deadline = received.checked_add(allowed).unwrap_or(received + version.deadline);
    let rows = inputs.first().map_or(1, Tensor::rows);
    let admitted = Instant::now();
    if deadline <= admitted {
        return Err(execute(version, ExecuteError::Deadline(allowed)));
    }
    let executor = &version.executor;
    let is_watched = version.recorder.is_some();
    let (run, inputs) = match executor.place(rows) {
        Placement::Inline => {
            let run = executor.run_inline(&inputs, rows, admitted).map(Run::Done);
            (run, is_watched.then_some(inputs))
        }
        Placement::Pooled => {
            let kept = is_watched.then(|| inputs.clone());
            let job = Job { inputs, rows, priority, admitted, deadline };
            (executor.submit(job).map(Run::Waiting), kept)
        }
    };
    let run = run.map_err(|error| execute(version, error))?;
    let decode = admitted.saturating_duration_since(begun);
    Ok(Started { id, outputs, rows, decode, admitted, deadline, _permit: permit, run, inputs })
}

/// A list that needs no memory of its own for as many outputs as most models have.
type Few<T> = SmallVec<[T; 4]>;

/// An encoded answer: its bytes, and the length of the JSON part where binary tensors follow.
struct Encoded {
    body: Vec<u8>,
    /// What follows it.
    lent: Vec<Bytes>,
    json_length: Option<usize>,
}

/// A prediction that ran.
struct Finished {
    /// Refused where a rule of the monitor says so: it is observed all the same.
    answer: Result<Encoded, InferError>,
    rows: usize,
    timings: Timings,
    flags: Flags,
    observed: Option<Observed>,
}

/// From execution to encoded answer.
async fn finish(
    version: &Arc<Version>,
    started: Started,
    received: Instant,
) -> Result<Finished, InferError> {
    let Started { id, outputs, rows, decode, admitted, deadline, _permit, run, inputs } = started;
    let execution = match run {
        Run::Done(execution) => execution,
        Run::Waiting(outcome) => {
            let allowed = deadline.saturating_duration_since(received);
            let outcome = tokio::time::timeout_at(deadline.into(), outcome).await;
            let outcome = match outcome {
                Ok(Ok(outcome)) => outcome,
                // The pool answers everything that it takes, or is gone.
                Ok(Err(_)) => Err(ExecuteError::ShuttingDown),
                Err(_) => Err(ExecuteError::Deadline(allowed)),
            };
            outcome.map_err(|error| execute(version, error))?
        }
    };
    let begun = Instant::now();
    let judged = version.recorder.as_ref().zip(inputs.as_ref());
    let judged = judged.and_then(|(recorder, inputs)| recorder.judge(inputs, &execution.outputs));
    let Judgement { flags, refusal, replaced, outlier_scores } = judged.unwrap_or_default();
    let flags = Flags { held: flags, outlier_scores };
    let answer = match refusal {
        Some(reason) => Err(InferError::Rule {
            model: Arc::clone(&version.model),
            version: version.number,
            reason,
        }),
        None => {
            let told = replace(&execution.outputs, replaced);
            let told = told.as_deref().unwrap_or(&execution.outputs);
            encode(version, id.as_deref(), &outputs, told).map_err(|error| protocol(version, error))
        }
    };
    debug_assert!(admitted <= begun);
    let timings = Timings {
        total: received.elapsed(),
        queue: execution.queued,
        decode,
        compute: execution.computed,
        encode: begun.elapsed(),
    };
    let observed = inputs.map(|inputs| Observed { id, inputs, outputs: execution.outputs });
    Ok(Finished { answer, rows, timings, flags, observed })
}

/// The outputs with some of them replaced; nothing where none are, which is nearly always.
fn replace(outputs: &[Tensor], replaced: Vec<(usize, Tensor)>) -> Option<Vec<Tensor>> {
    let mut told = (!replaced.is_empty()).then(|| outputs.to_vec())?;
    for (position, tensor) in replaced {
        told[position] = tensor;
    }
    Some(told)
}

fn encode(
    version: &Version,
    id: Option<&str>,
    requested: &[RequestedOutput],
    outputs: &[Tensor],
) -> Result<Encoded, ProtocolError> {
    let specs = &version.signature().outputs;
    let mut classified: Few<Option<Tensor>> = Few::with_capacity(requested.len());
    for output in requested {
        let k = output.classification;
        classified.push(match (k, outputs.get(output.index), specs.get(output.index)) {
            (Some(k), Some(tensor), Some(spec)) => {
                let labels = version.labels.get(output.index).and_then(|labels| labels.as_deref());
                Some(v2::classify(tensor, k, labels, &spec.name)?)
            }
            _ => None,
        });
    }
    let pairs = requested.iter().zip(&classified).filter_map(|(output, classes)| {
        let tensor = classes.as_ref().or(outputs.get(output.index))?;
        let name = specs.get(output.index)?.name.as_str();
        Some(AnswerOutput { name, tensor, form: output.form })
    });
    let outputs: Few<AnswerOutput<'_>> = pairs.collect();
    let answer = Answer {
        model_name: &version.model,
        model_version: &version.number_text,
        id,
        outputs: &outputs,
    };
    let mut body = Vec::with_capacity(estimated_size(&outputs));
    let mut lent = Vec::new();
    let json_length = v2::encode_answer(&answer, &mut body, &mut lent);
    Ok(Encoded { body, lent, json_length })
}

/// Enough for most answers, so that the buffer is taken once.
fn estimated_size(outputs: &[AnswerOutput<'_>]) -> usize {
    let sizes = outputs.iter().map(|output| match output.form {
        Form::Binary => output.tensor.data().len().min(v2::LEND_FROM) + 128,
        Form::Json => output.tensor.len() * 12 + 128,
    });
    sizes.sum::<usize>() + 128
}

fn respond(version: &Version, encoded: Encoded, head: &HeaderMap) -> Reply {
    let Encoded { body, lent, json_length } = encoded;
    let mut reply = Reply::ok(if json_length.is_some() { OCTETS } else { JSON }, Bytes::new());
    if let Some(length) = json_length {
        reply.set(JSON_LENGTH, HeaderValue::from(length));
    }
    // Digests and numbers are plain text: this cannot fail.
    for (name, bytes) in [(DIGEST, &version.digest), (VERSION, &version.number_bytes)] {
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes.clone()) {
            reply.set(name, value);
        }
    }
    body::compress(head, &mut reply, body.into(), lent);
    reply
}

fn server_timing(timings: &Timings) -> HeaderValue {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let text = format!(
        "total;dur={:.3}, decode;dur={:.3}, queue;dur={:.3}, compute;dur={:.3}, encode;dur={:.3}",
        ms(timings.total),
        ms(timings.decode),
        ms(timings.queue),
        ms(timings.compute),
        ms(timings.encode)
    );
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("total"))
}

/// The length of the JSON part of a body, where the head says it.
fn json_length(head: &HeaderMap, body_length: usize) -> Result<Option<usize>, InferError> {
    let Some(length) = number(head, &JSON_LENGTH)? else { return Ok(None) };
    let fitting = usize::try_from(length).ok().filter(|&length| length <= body_length);
    fitting.map(Some).ok_or_else(|| {
        let reason = format!("says {length}, but the body has {body_length} bytes");
        InferError::Header { header: JSON_LENGTH, reason }
    })
}

/// A header's value as a number.
fn number(head: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, InferError> {
    let Some(value) = head.get(name) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    parsed.map(Some).ok_or_else(|| {
        let reason = format!("expected a whole number, got {value:?}");
        InferError::Header { header: name.clone(), reason }
    })
}

fn protocol(version: &Version, error: ProtocolError) -> InferError {
    InferError::Protocol { model: Arc::clone(&version.model), version: version.number, error }
}

fn execute(version: &Version, error: ExecuteError) -> InferError {
    InferError::Execute { model: Arc::clone(&version.model), version: version.number, error }
}
