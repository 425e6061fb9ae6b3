//! Predictions over HTTP in the Open Inference Protocol: from body to tensors, and from outputs to
//! the answer's bytes and headers. What lies between is [`super::predict`].

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::account::Call;
use super::beside::Flags;
use super::predict::{Asked, DecodeError, PredictError, Predicted, Question, predict};
use super::reply::{JSON, Reply};
use super::route::Target;
use super::{DataPlane, body, memory};
use crate::error::{Code, Fault};
use crate::protocol::v2::{
    self, Answer, AnswerOutput, Form, InferRequest, ProtocolError, RequestedOutput,
};
use crate::protocol::write_regions;
use crate::registry::{Protocol, Timings, Version};
use crate::tensor::Tensor;

/// The length of the JSON part where binary tensors follow it.
const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
/// Milliseconds that the client is willing to wait.
pub(super) const CLIENT_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// Asks for `server-timing` on the answer; so does the same header on the request.
pub(super) const WANTS_TIMING: HeaderName = HeaderName::from_static("x-server-timing");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Names the exact model that answered.
const DIGEST: HeaderName = HeaderName::from_static("tidegate-model-digest");
const VERSION: HeaderName = HeaderName::from_static("tidegate-model-version");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What is read element by element, such as a JSON part, is read on the compute pool from this size
/// on: it takes milliseconds, in which an I/O thread serves no other connection.
pub(super) const READ_ASIDE_FROM: usize = 256 << 10;

/// Why a prediction over HTTP has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum InferError {
    #[error(transparent)]
    Body(#[from] body::BodyError),
    #[error(transparent)]
    Predict(#[from] PredictError),
}

impl Fault for InferError {
    fn code(&self) -> Code {
        match self {
            Self::Body(error) => error.code(),
            Self::Predict(error) => error.code(),
        }
    }
}

/// Answers `POST /v2/models/M/infer`.
///
/// The call is lent: futures are moved, and what they hold is copied with them.
pub(super) async fn infer(plane: &DataPlane, call: &mut Call, target: &Target<'_>) -> Reply {
    let answer = async {
        let (limits, in_flight) = {
            let table = plane.registry.live();
            let limits = &table.config.limits;
            ((limits.body, limits.body_time), limits.in_flight)
        };
        let _place = plane.admission.admit(in_flight)?;
        let body = body::read(&call.head, &mut call.body, limits.0, limits.1).await?;
        answer(plane, call, target, body).await
    };
    answer.await.unwrap_or_else(|error| Reply::fault(&error))
}

async fn answer(
    plane: &DataPlane,
    call: &Call,
    target: &Target<'_>,
    body: Bytes,
) -> Result<Reply, InferError> {
    let head = &call.head.headers;
    let json_length = json_length(head, body.len());
    // Binary tensors behind the JSON part are taken as they are.
    let to_read = json_length.as_ref().map_or(0, |length| length.unwrap_or(body.len()));
    let client = number(head, &CLIENT_TIMEOUT);
    let question = Question {
        protocol: Protocol::V2Http,
        model: &target.model,
        version: target.version.as_deref(),
        head,
        id: &call.id,
        received: call.received,
        trace: call.trace.as_deref(),
    };
    let mut is_long = to_read >= READ_ASIDE_FROM;
    let memory = memory::of(plane);
    if let Some((regions, _)) = &memory {
        is_long |= memory::is_long(regions, &body[..to_read.min(body.len())]);
    }
    let decode = move |version: &Version| {
        let memory = memory::lent(memory.as_ref());
        let signature = version.signature();
        let request = v2::decode_request_with(&body, json_length?, signature, memory)?;
        let InferRequest { id, inputs, outputs, timeout, priority } = request;
        let client = client?.map(Duration::from_millis);
        let timeout = [timeout, client].into_iter().flatten().min();
        Ok(Asked { id, inputs, timeout, priority, form: outputs })
    };
    let predicted = predict(plane, &question, is_long, decode, encode).await?;
    let Predicted { answer, version, timings, flags } = predicted;
    let Encoded { body, lent, json_length } = answer;
    let mut reply = Reply::ok(if json_length.is_some() { OCTETS } else { JSON }, Bytes::new());
    if let Some(length) = json_length {
        reply.set(JSON_LENGTH, HeaderValue::from(length));
    }
    let is_timed = plane.registry.live().config.server.timing || head.contains_key(WANTS_TIMING);
    tell(&mut reply, &version, &flags, is_timed.then_some(&timings));
    body::compress(head, &mut reply, body.into(), lent);
    Ok(reply)
}

/// A list that needs no memory of its own for as many outputs as most models have.
pub(super) type Few<T> = SmallVec<[T; 4]>;

/// An encoded answer: its bytes, and the length of the JSON part where binary tensors follow.
struct Encoded {
    body: Vec<u8>,
    /// What follows it.
    lent: Vec<Bytes>,
    json_length: Option<usize>,
}

fn encode(
    version: &Version,
    id: Option<&str>,
    requested: Vec<RequestedOutput>,
    outputs: &[Tensor],
) -> Result<Encoded, ProtocolError> {
    let classified = classified(version, &requested, outputs)?;
    let outputs = answer_outputs(version, &requested, &classified, outputs);
    write_regions(&outputs)?;
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

/// The best classes of the outputs that are asked for them.
pub(super) fn classified(
    version: &Version,
    requested: &[RequestedOutput],
    outputs: &[Tensor],
) -> Result<Few<Option<Tensor>>, ProtocolError> {
    let specs = &version.signature().outputs;
    let mut classified = Few::with_capacity(requested.len());
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
    Ok(classified)
}

/// The outputs as they are sent: those asked for, or their best classes.
pub(super) fn answer_outputs<'a>(
    version: &'a Version,
    requested: &'a [RequestedOutput],
    classified: &'a [Option<Tensor>],
    outputs: &'a [Tensor],
) -> Few<AnswerOutput<'a>> {
    let specs = &version.signature().outputs;
    let pairs = requested.iter().zip(classified).filter_map(|(output, classes)| {
        let tensor = classes.as_ref().or(outputs.get(output.index))?;
        let name = specs.get(output.index)?.name.as_str();
        Some(AnswerOutput { name, tensor, form: output.form, span: output.span.as_ref() })
    });
    pairs.collect()
}

/// Enough for most answers, so that the buffer is taken once.
fn estimated_size(outputs: &[AnswerOutput<'_>]) -> usize {
    let sizes = outputs.iter().map(|output| match output.form {
        Form::Binary => output.tensor.data().len().min(v2::LEND_FROM) + 128,
        Form::Json => output.tensor.len() * 12 + 128,
    });
    sizes.sum::<usize>() + 128
}

/// Tells in the answer's head who answered, what the monitor's rules say and, where that is asked
/// for, where the time went.
pub(super) fn tell(reply: &mut Reply, version: &Version, flags: &Flags, timings: Option<&Timings>) {
    // Digests and numbers are plain text: this cannot fail.
    for (name, bytes) in [(DIGEST, &version.digest), (VERSION, &version.number_bytes)] {
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes.clone()) {
            reply.set(name, value);
        }
    }
    flags.tell(reply);
    if let Some(timings) = timings {
        reply.set(SERVER_TIMING, server_timing(timings));
    }
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
fn json_length(head: &HeaderMap, body_length: usize) -> Result<Option<usize>, DecodeError> {
    let Some(length) = number(head, &JSON_LENGTH)? else { return Ok(None) };
    let fitting = usize::try_from(length).ok().filter(|&length| length <= body_length);
    fitting.map(Some).ok_or_else(|| {
        let reason = format!("says {length}, but the body has {body_length} bytes");
        DecodeError::Header { header: JSON_LENGTH, reason }
    })
}

/// A header's value as a number.
pub(super) fn number(head: &HeaderMap, name: &HeaderName) -> Result<Option<u64>, DecodeError> {
    let Some(value) = head.get(name) else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    parsed.map(Some).ok_or_else(|| {
        let reason = format!("expected a whole number, got {value:?}");
        DecodeError::Header { header: name.clone(), reason }
    })
}
