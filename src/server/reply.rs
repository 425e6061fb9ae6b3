//! Answers and errors as HTTP: the one place that knows its status codes. Those of gRPC are in
//! [`super::grpc`].

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Frame, SizeHint};

use super::route::Methods;
use super::streamed::Streamed;
use crate::error::{Code, Fault};

/// An answer's bytes. Nearly always they are known before the head is sent: in one piece, or in
/// several where some are lent by who made them.
#[derive(Debug, Default)]
pub(super) struct Body {
    first: Bytes,
    rest: std::vec::IntoIter<Bytes>,
    tail: Tail,
}

/// What comes after the pieces.
#[derive(Debug, Default)]
enum Tail {
    #[default]
    Nothing,
    Trailers(Box<HeaderMap>),
    /// Messages that are made while the answer is sent.
    Streamed(Box<Streamed>),
}

impl Body {
    pub(super) fn pieces(first: Bytes, rest: Vec<Bytes>) -> Self {
        Self { first, rest: rest.into_iter(), tail: Tail::Nothing }
    }

    /// The same with trailers.
    pub(super) fn with_trailers(self, trailers: HeaderMap) -> Self {
        Self { tail: Tail::Trailers(Box::new(trailers)), ..self }
    }

    /// Messages that are made while they are sent.
    pub(super) fn of_stream(streamed: Streamed) -> Self {
        Self { tail: Tail::Streamed(Box::new(streamed)), ..Self::default() }
    }

    /// What is made while it is sent, where that is so.
    pub(super) fn streamed(&mut self) -> Option<&mut Streamed> {
        match &mut self.tail {
            Tail::Streamed(streamed) => Some(streamed),
            Tail::Nothing | Tail::Trailers(_) => None,
        }
    }
}

impl From<Bytes> for Body {
    fn from(first: Bytes) -> Self {
        Self::pieces(first, Vec::new())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match std::mem::take(&mut self.first) {
            first if first.is_empty() => self.rest.next(),
            first => Some(first),
        };
        if let Some(piece) = next {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut self.tail {
            Tail::Nothing => Poll::Ready(None),
            Tail::Trailers(trailers) => {
                let trailers = std::mem::take(&mut **trailers);
                self.tail = Tail::Nothing;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Tail::Streamed(streamed) => streamed.poll_frame(context).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_last = matches!(self.tail, Tail::Nothing);
        is_last && self.first.is_empty() && self.rest.as_slice().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let rest: usize = self.rest.as_slice().iter().map(Bytes::len).sum();
        let size = (self.first.len() + rest) as u64;
        match self.tail {
            Tail::Nothing => SizeHint::with_exact(size),
            // Not exact: of what ends with trailers nobody announces a length.
            Tail::Trailers(_) | Tail::Streamed(_) => {
                let mut hint = SizeHint::new();
                hint.set_lower(size);
                hint
            }
        }
    }
}

/// The media type of everything that is JSON.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The status for a client that went away: seen in logs only.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Seconds after which a refused client may try again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An answer on its way out, with what the books need to know of it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) code: Code,
    pub(super) response: Response<Body>,
    /// The message of an error, for the log.
    pub(super) error: Option<Box<str>>,
}

/// The HTTP status of a code.
pub(super) fn status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::Conflict => StatusCode::CONFLICT,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::SlowClient => StatusCode::REQUEST_TIMEOUT,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::Overloaded | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Cancelled => {
            StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST)
        }
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Reply {
    /// A successful answer.
    pub(super) fn ok(content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self::new(Code::Ok, content_type, body.into())
    }

    /// A successful answer that is a JSON document.
    pub(super) fn document(document: &impl serde::Serialize) -> Self {
        Self::coded_document(Code::Ok, document)
    }

    /// A JSON document with the status of `code`.
    pub(super) fn coded_document(code: Code, document: &impl serde::Serialize) -> Self {
        match serde_json::to_vec(document) {
            Ok(body) => Self::new(code, JSON, body.into()),
            Err(error) => Self::error(Code::Internal, &format!("cannot write the answer: {error}")),
        }
    }

    /// An error of whatever module.
    pub(super) fn fault(fault: &(impl Fault + ?Sized)) -> Self {
        Self::error(fault.code(), &fault.to_string())
    }

    /// `{"error": message}` with the status of `code`.
    pub(super) fn error(code: Code, message: &str) -> Self {
        let body = serde_json::json!({ "error": message }).to_string();
        let mut reply = Self::new(code, JSON, body.into());
        reply.error = Some(message.into());
        if matches!(code, Code::Overloaded | Code::Unavailable | Code::RateLimited) {
            reply.set(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        reply
    }

    /// An answer to `OPTIONS`: what can be asked, and nothing else.
    pub(super) fn options(allowed: &'static str) -> Self {
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        Self { code: Code::Ok, response, error: None }
    }

    /// Leaves the head as it is and takes the body away, for `HEAD`.
    pub(super) fn without_body(&mut self) {
        let body = std::mem::take(self.response.body_mut());
        let length = http_body::Body::size_hint(&body).exact().unwrap_or(0);
        self.set(CONTENT_LENGTH, HeaderValue::from(length));
    }

    /// The route is there, the method is not.
    pub(super) fn method_not_allowed(method: &http::Method, path: &str, allowed: Methods) -> Self {
        let message = format!("{path} takes {}, not {method}", allowed.main());
        let mut reply = Self::error(Code::MethodNotAllowed, &message);
        reply.set(ALLOW, HeaderValue::from_static(allowed.as_str()));
        reply
    }

    /// An answer of gRPC, whose own status is in `head` or comes at the end: HTTP's is always 200.
    pub(super) fn of_grpc(
        code: Code,
        head: HeaderMap,
        body: Body,
        error: Option<Box<str>>,
    ) -> Self {
        let mut response = Response::new(body);
        *response.headers_mut() = head;
        Self { code, response, error }
    }

    fn new(code: Code, content_type: HeaderValue, body: Bytes) -> Self {
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status(code);
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        Self { code, response, error: None }
    }

    pub(super) fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.response.headers_mut().insert(name, value);
    }

    /// Sets a header beside what others said in it.
    pub(super) fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.response.headers_mut().append(name, value);
    }
}
