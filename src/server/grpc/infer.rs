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
use crate::registry::{Protocol, Version};
use crate::server::account::Call;
use crate::server::infer::{
    DIGEST, READ_ASIDE_FROM, SERVER_TIMING, VERSION, WANTS_TIMING, answer_outputs, classified,
    server_timing,
};
use crate::server::predict::{Asked, Predicted, Question, predict};
use crate::server::reply::Reply;
use crate::tensor::Tensor;

/// What is known of a request beside its message.
pub(super) struct Asker<'a> {
    /// The call's metadata.
    pub(super) head: &'a HeaderMap,
    pub(super) id: &'a HeaderValue,
    pub(super) received: Instant,
    /// How long the client waits.
    pub(super) timeout: Option<Duration>,
}

/// Answers `ModelInfer`.
pub(super) async fn infer(plane: &DataPlane, call: Call) -> Result<Reply, Status> {
    let Call { head, body, received, id } = call;
    let in_flight = plane.registry.live().config.limits.in_flight;
    let _place = plane.admission.admit(in_flight)?;
    let mut messages = Messages::of(plane, head.headers, body, received)?;
    let message = read(messages.only().await?)?;
    let head = &messages.head;
    let asker = Asker { head, id: &id, received, timeout: messages.timeout() };
    let predicted = ask(plane, &asker, message, |_, answer| answer_frame(answer)).await?;
    let Predicted { answer, version, timings, flags } = predicted;
    let mut reply = status::frame(messages.compress(answer));
    messages.announce(&mut reply);
    name(&version, &mut reply);
    flags.tell(&mut reply);
    if head.contains_key(WANTS_TIMING) {
        reply.set(SERVER_TIMING, server_timing(&timings));
    }
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
    let &Asker { head, id, received, timeout } = asker;
    let is_long = message.unread() >= READ_ASIDE_FROM;
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
    };
    let decode = move |version: &Version| {
        let request = decode_request(message, version.signature())?;
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

/// Names the exact model that answered.
fn name(version: &Version, reply: &mut Reply) {
    // Digests and numbers are plain text: this cannot fail.
    for (name, bytes) in [(DIGEST, &version.digest), (VERSION, &version.number_bytes)] {
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes.clone()) {
            reply.set(name, value);
        }
    }
}
