//! Server reflection: what tools such as grpcurl ask before they call.

use std::sync::Arc;

use prost::Message;

use super::GrpcPlane;
use super::messages::Messages;
use super::status::Status;
use super::stream::{self, Cause, drains};
use crate::error::Code;
use crate::protocol::grpc::frame;
use crate::protocol::grpc::proto::reflection::ServerReflectionRequest;
use crate::server::account::Call;
use crate::server::reply::Reply;

/// Answers `ServerReflectionInfo`.
pub(super) fn info(plane: &GrpcPlane, call: Call) -> Result<Reply, Status> {
    let mut messages = Messages::of(&plane.data, &call.head.headers, call.body, call.received)?;
    let (reflection, mut drain) = (Arc::clone(&plane.reflection), plane.data.drain.clone());
    Ok(stream::reply(move |frames| async move {
        loop {
            let message = tokio::select! {
                message = messages.next() => message?,
                () = drains(&mut drain) => return Err(Cause::Drain.into()),
            };
            let Some(message) = message else { return Ok(()) };
            let request = ServerReflectionRequest::decode(message)
                .map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))?;
            let answer = frame(&reflection.answer(request));
            if frames.send(answer.into()).await.is_err() {
                return Err(Cause::Gone.into());
            }
        }
    }))
}
