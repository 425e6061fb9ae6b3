//! What the forms of a prediction over HTTP have in common: reading the body, asking, and telling in
//! the answer's head who answered.

use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderValue;

use super::account::Call;
use super::infer::{CLIENT_TIMEOUT, InferError, READ_ASIDE_FROM, WANTS_TIMING, number, tell};
use super::predict::{Asked, Predicted, Question, predict};
use super::reply::Reply;
use super::route::Target;
use super::{DataPlane, body};
use crate::protocol::v2::ProtocolError;
use crate::registry::{Protocol, Version};
use crate::tensor::Tensor;

/// What a form makes of a body.
pub(super) struct Decoded<F> {
    /// In the signature's order.
    pub(super) inputs: Vec<Tensor>,
    /// What is needed to write the answer.
    pub(super) form: F,
}

/// An answer's body.
pub(super) struct Written {
    pub(super) content_type: HeaderValue,
    pub(super) body: Vec<u8>,
}

/// Answers a prediction. `decode` is given the body and how many bytes its tensors may take.
pub(super) async fn ask<F: Send + 'static>(
    plane: &DataPlane,
    call: &mut Call,
    target: &Target<'_>,
    protocol: Protocol,
    decode: impl FnOnce(&Version, &Bytes, usize) -> Result<Decoded<F>, ProtocolError> + Send + 'static,
    encode: impl FnOnce(&Version, F, &[Tensor]) -> Result<Written, ProtocolError>,
) -> Reply {
    match exchange(plane, call, target, protocol, decode, encode).await {
        Ok(reply) => reply,
        Err(error) => Reply::fault(&error),
    }
}

async fn exchange<F: Send + 'static>(
    plane: &DataPlane,
    call: &mut Call,
    target: &Target<'_>,
    protocol: Protocol,
    decode: impl FnOnce(&Version, &Bytes, usize) -> Result<Decoded<F>, ProtocolError> + Send + 'static,
    encode: impl FnOnce(&Version, F, &[Tensor]) -> Result<Written, ProtocolError>,
) -> Result<Reply, InferError> {
    let Call { head, body, received, id, trace } = call;
    let (limits, in_flight, is_timed) = {
        let table = plane.registry.live();
        let limits = &table.config.limits;
        ((limits.body, limits.body_time), limits.in_flight, table.config.server.timing)
    };
    let _place = plane.admission.admit(in_flight)?;
    let body = body::read(head, body, limits.0, limits.1).await?;
    let head: &HeaderMap = &head.headers;
    let client = number(head, &CLIENT_TIMEOUT);
    let question = Question {
        protocol,
        model: &target.model,
        version: target.version.as_deref(),
        head,
        id,
        received: *received,
        trace: trace.as_deref(),
    };
    let is_long = body.len() >= READ_ASIDE_FROM;
    let limit = usize::try_from(limits.0).unwrap_or(usize::MAX);
    let decode = move |version: &Version| {
        let timeout = client?.map(std::time::Duration::from_millis);
        let Decoded { inputs, form } = decode(version, &body, limit)?;
        Ok(Asked { id: None, inputs, timeout, priority: 0, form })
    };
    let encode = |version: &Version, _: Option<&str>, form: F, outputs: &[Tensor]| {
        encode(version, form, outputs)
    };
    let predicted = predict(plane, &question, is_long, decode, encode).await?;
    let Predicted { answer: Written { content_type, body }, version, timings, flags } = predicted;
    let mut reply = Reply::ok(content_type, Bytes::new());
    let is_timed = is_timed || head.contains_key(WANTS_TIMING);
    tell(&mut reply, &version, &flags, is_timed.then_some(&timings));
    body::compress(head, &mut reply, body.into(), Vec::new());
    Ok(reply)
}
