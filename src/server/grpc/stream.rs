//! `ModelStreamInfer`: predictions one after the other on one call.
//!
//! Up to [`PIPELINE`] requests of a stream are under way at once; answers come in the order of the
//! requests. A request that fails has its reason in its answer and ends nothing, unless the client
//! asks for the opposite. A message that cannot be read ends the stream: what follows it cannot be
//! found.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::DataPlane;
use super::infer::{Asker, ask, read};
use super::messages::Messages;
use super::status::{self, Status};
use crate::error::{Code, Fault};
use crate::protocol::grpc::{Frame, Parameter, error_frame, stream_frame};
use crate::server::account::Call;
use crate::server::reply::{Body, Reply};
use crate::server::streamed::{Ended, Frames, Streamed};
use crate::server::traced::end_rpc;
use crate::telemetry::trace::Trace;

/// Requests of one stream that are under way at once; more wait to be read.
const PIPELINE: usize = 16;

/// With the value `true`, a failed request ends the stream with its status, as in Triton.
const STRICT: HeaderName = HeaderName::from_static("triton_grpc_error");

/// Names the exact model that answered: a stream's head is sent before there is one.
const DIGEST: &str = "tidegate_model_digest";

/// Says that a request has no further answer, as Triton's clients ask to know.
const FINAL: &str = "triton_final_response";

/// Why a stream ends beside its messages.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(super) enum Cause {
    #[error("the server is shutting down")]
    Drain,
    #[error("the client is gone")]
    Gone,
    #[error("the deadline of the call passed (grpc-timeout)")]
    Deadline,
}

impl Fault for Cause {
    fn code(&self) -> Code {
        match self {
            Self::Drain => Code::Unavailable,
            Self::Gone => Code::Cancelled,
            Self::Deadline => Code::DeadlineExceeded,
        }
    }
}

/// Returns when the server begins to drain.
pub(super) async fn drains(drain: &mut watch::Receiver<bool>) {
    // An error means that the server is gone.
    drop(drain.wait_for(|drains| *drains).await);
}

/// An answer of messages that `drive` sends.
pub(super) fn reply<F>(drive: impl FnOnce(Frames) -> F) -> Reply
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let streamed = Streamed::new(
        |frames| {
            let outcome = drive(frames);
            async move {
                match outcome.await {
                    Ok(()) => {
                        let trailers = status::ok_trailers();
                        Ended { code: Code::Ok, error: None, trailers }
                    }
                    Err(Status { code, message }) => {
                        let trailers = status::trailers(code, &message);
                        Ended { code, error: Some(message.into()), trailers }
                    }
                }
            }
        },
        status::trailers,
    );
    Reply::of_grpc(Code::Ok, status::head(), Body::of_stream(streamed), None)
}

/// Answers `ModelStreamInfer`.
pub(super) fn infer(plane: &Arc<DataPlane>, call: Call) -> Result<Reply, Status> {
    let Call { head, body, received, id, trace } = call;
    let messages = Messages::of(plane, &head.headers, body, received)?;
    let mut announced = Reply::of_grpc(Code::Ok, HeaderMap::new(), Body::default(), None);
    messages.announce(&mut announced);
    let deadline = messages.deadline;
    let head = Arc::new(head.headers);
    let is_strict = head.get(STRICT).is_some_and(|value| value == "true");
    let stream = Stream { plane: Arc::clone(plane), head, id, trace, deadline, is_strict };
    let mut reply = reply(move |frames| async move {
        let drive = stream.drive(messages, frames);
        match deadline {
            None => drive.await,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), drive)
                .await
                .unwrap_or_else(|_| Err(Cause::Deadline.into())),
        }
    });
    for (name, value) in announced.response.headers() {
        reply.set(name.clone(), value.clone());
    }
    Ok(reply)
}

/// The method's name, in the spans of its questions.
const METHOD: &str = "ModelStreamInfer";

struct Stream {
    plane: Arc<DataPlane>,
    head: Arc<HeaderMap>,
    id: HeaderValue,
    trace: Option<Arc<Trace>>,
    deadline: Option<Instant>,
    is_strict: bool,
}

impl Stream {
    async fn drive(self, mut messages: Messages<Incoming>, frames: Frames) -> Result<(), Status> {
        let mut drain = self.plane.drain.clone();
        let mut pipeline = Pipeline::default();
        let mut number = 0_u64;
        // How the stream ends once what was accepted is answered.
        let mut end: Option<Result<(), Status>> = None;
        loop {
            if pipeline.is_empty()
                && let Some(end) = end
            {
                return end;
            }
            tokio::select! {
                message = messages.next(), if end.is_none() && pipeline.len() < PIPELINE => {
                    match message {
                        Ok(Some(message)) => {
                            number += 1;
                            pipeline.push(self.answer(message, number));
                        }
                        Ok(None) => end = Some(Ok(())),
                        Err(error) => end = Some(Err(error.into())),
                    }
                }
                (frame, failure) = pipeline.next() => {
                    if let Some(status) = failure.filter(|_| self.is_strict) {
                        return Err(status);
                    }
                    if frames.send(messages.compress(frame)).await.is_err() {
                        return Err(Cause::Gone.into());
                    }
                }
                () = drains(&mut drain), if end.is_none() => {
                    end = Some(Err(Cause::Drain.into()));
                }
            }
        }
    }

    /// The answer to one request of the stream.
    fn answer(&self, message: Bytes, number: u64) -> Answering {
        let (plane, head) = (Arc::clone(&self.plane), Arc::clone(&self.head));
        let received = Instant::now();
        let timeout = self.deadline.map(|deadline| deadline.saturating_duration_since(received));
        let id = numbered(&self.id, number);
        let trace = self.trace.as_ref().map(|stream| stream.part(received));
        Box::pin(async move {
            let mut own = String::new();
            let asker = Asker { head: &head, id: &id, received, timeout, trace: trace.as_deref() };
            let outcome = answer_one(&plane, &asker, message, &mut own).await;
            if let Some(trace) = &trace {
                let refused = outcome.as_ref().err();
                let code = refused.map_or(Code::Ok, |status| status.code);
                let error = refused.map(|status| status.message.as_str());
                end_rpc(trace, METHOD, code, &id, error);
            }
            match outcome {
                Ok(frame) => (frame, None),
                Err(status) => (error_frame(&status.message, &own), Some(status)),
            }
        })
    }
}

async fn answer_one(
    plane: &DataPlane,
    asker: &Asker<'_>,
    message: Bytes,
    own: &mut String,
) -> Result<Frame, Status> {
    let in_flight = plane.registry.live().config.limits.in_flight;
    let message = read(message)?;
    own.clone_from(&message.id);
    let _place = plane.admission.admit(in_flight)?;
    let predicted = ask(plane, asker, message, |version, answer| {
        let digest = std::str::from_utf8(&version.digest).unwrap_or_default();
        let parameters = [(DIGEST, Parameter::Text(digest)), (FINAL, Parameter::Bool(true))];
        stream_frame(answer, &parameters)
    });
    Ok(predicted.await?.answer)
}

/// The id of one request of a stream: the stream's, and which of them it is.
fn numbered(id: &HeaderValue, number: u64) -> HeaderValue {
    let text = format!("{}-{number}", id.to_str().unwrap_or_default());
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| id.clone())
}

type Outcome = (Frame, Option<Status>);
type Answering = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Answers under way, which come out in the order in which they went in.
#[derive(Default)]
struct Pipeline {
    places: VecDeque<Place>,
}

enum Place {
    Running(Answering),
    Done(Outcome),
}

impl Pipeline {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn push(&mut self, answering: Answering) {
        self.places.push_back(Place::Running(answering));
    }

    /// The first outcome; never, where nothing is under way.
    async fn next(&mut self) -> Outcome {
        std::future::poll_fn(|context| {
            for place in &mut self.places {
                if let Place::Running(answering) = place
                    && let Poll::Ready(outcome) = answering.as_mut().poll(context)
                {
                    *place = Place::Done(outcome);
                }
            }
            match self.places.front() {
                Some(Place::Done(_)) => match self.places.pop_front() {
                    Some(Place::Done(outcome)) => Poll::Ready(outcome),
                    _ => Poll::Pending,
                },
                _ => Poll::Pending,
            }
        })
        .await
    }
}
