//! Predictions: from message to tensors, and from outputs to the framed answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use prost::Message;

use super::DataPlane;
use super::messages::Messages;
use super::status::{self, Status};
use crate::error::Code;
use crate::protocol::grpc::{Frame, InferMessage, answer_frame, decode_request};
use crate::protocol::v2::{Answer, InferRequest, ProtocolError, RequestedOutput};
use crate::protocol::write_regions;
use crate::registry::{Protocol, Version};
use crate::server::account::Call;
use crate::server::infer::{READ_ASIDE_FROM, WANTS_TIMING, answer_outputs, classified, tell};
use crate::server::memory::{self, COPY_ASIDE_FROM};
use crate::server::predict::{Asked, Predicted, Question, predict};
use crate::server::reply::Reply;
use crate::telemetry::trace::Trace;
use crate::tensor::Tensor;

/// What is known of a request beside its message.
pub(super) struct Asker<'a> {
    /// The call's metadata.
    pub(super) head: &'a HeaderMap,
    pub(super) id: &'a HeaderValue,
    pub(super) received: Instant,
    /// How long the client waits.
    pub(super) timeout: Option<Duration>,
    /// Where it is traced.
    pub(super) trace: Option<&'a Trace>,
}

/// Answers `ModelInfer`.
pub(super) async fn infer(plane: &DataPlane, call: &mut Call) -> Result<Reply, Status> {
    let in_flight = plane.registry.live().config.limits.in_flight;
    let _place = plane.admission.admit(in_flight)?;
    let head = &call.head.headers;
    let mut messages = Messages::of(plane, head, &mut call.body, call.received)?;
    let message = read(messages.only().await?)?;
    let asker = Asker {
        head,
        id: &call.id,
        received: call.received,
        timeout: messages.timeout,
        trace: call.trace.as_deref(),
    };
    let predicted = ask(plane, &asker, message, |_, answer| answer_frame(answer)).await?;
    let Predicted { answer, version, timings, flags } = predicted;
    let mut reply = status::frame(messages.compress(answer));
    messages.announce(&mut reply);
    let is_timed = plane.registry.live().config.server.timing || head.contains_key(WANTS_TIMING);
    tell(&mut reply, &version, &flags, is_timed.then_some(&timings));
    Ok(reply)
}

/// Reads a request's message, but for typed contents.
pub(super) fn read(message: Bytes) -> Result<InferMessage, Status> {
    InferMessage::decode(message).map_err(|error| {
        let message = format!("the message is no ModelInferRequest: {error}");
        Status::new(Code::InvalidArgument, message)
    })
}

/// Asks for a prediction; `frame` makes the framed answer.
pub(super) async fn ask(
    plane: &DataPlane,
    asker: &Asker<'_>,
    mut message: InferMessage,
    frame: impl FnOnce(&Version, &Answer<'_>) -> Frame,
) -> Result<Predicted<Frame>, Status> {
    let &Asker { head, id, received, timeout, trace } = asker;
    let memory = memory::of(plane);
    let is_long = message.unread() >= READ_ASIDE_FROM
        || (memory.is_some() && message.in_memory() >= COPY_ASIDE_FROM);
    // The rest of the message goes where it is read.
    let model = std::mem::take(&mut message.model_name);
    let version = std::mem::take(&mut message.model_version);
    let question = Question {
        protocol: Protocol::Grpc,
        model: &model,
        version: Some(version.as_str()).filter(|version| !version.is_empty()),
        head,
        id,
        received,
        trace,
    };
    let decode = move |version: &Version| {
        let memory = memory::lent(memory.as_ref());
        let request = decode_request(message, version.signature(), memory)?;
        let InferRequest { id, inputs, outputs, timeout: own, priority } = request;
        let timeout = [own, timeout].into_iter().flatten().min();
        Ok(Asked { id, inputs, timeout, priority, form: outputs })
    };
    let encode = |version: &Version,
                  id: Option<&str>,
                  requested: Vec<RequestedOutput>,
                  outputs: &[Tensor]|
     -> Result<Frame, ProtocolError> {
        let classified = classified(version, &requested, outputs)?;
        let outputs = answer_outputs(version, &requested, &classified, outputs);
        write_regions(&outputs)?;
        let answer = Answer {
            model_name: &version.model,
            model_version: &version.number_text,
            id,
            outputs: &outputs,
        };
        Ok(frame(version, &answer))
    };
    Ok(predict(plane, &question, is_long, decode, encode).await?)
}
