//! How calls end: the one place that knows the status numbers of gRPC.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;

use crate::error::{Code, Fault};
use crate::protocol::grpc::{self, Frame};
use crate::server::reply::{Body, Reply};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const OK: HeaderValue = HeaderValue::from_static("0");

/// What `grpc-message` cannot carry as it is, beside what is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// A longer message is cut: clients refuse trailers of more than a few KiB.
const LONGEST_MESSAGE: usize = 2048;

/// Why a call has no answer.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) code: Code,
    pub(super) message: String,
}

impl<E: Fault> From<E> for Status {
    fn from(error: E) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl Status {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// An answer that is this status and nothing else.
    pub(super) fn reply(self) -> Reply {
        refuse(self.code, &self.message)
    }
}

/// The status number of a code.
pub(in crate::server) fn number(code: Code) -> i32 {
    // One or two digits.
    digits(code).parse().unwrap_or_default()
}

fn digits(code: Code) -> &'static str {
    match code {
        Code::Ok => "0",
        Code::Cancelled => "1",
        Code::InvalidArgument => "3",
        Code::DeadlineExceeded | Code::SlowClient => "4",
        Code::NotFound => "5",
        Code::TooLarge | Code::RateLimited => "8",
        Code::Conflict => "9",
        Code::Unimplemented | Code::UnsupportedMedia | Code::MethodNotAllowed => "12",
        Code::Internal => "13",
        // What gRPC's own retries take for a reason to try again, after a pause.
        Code::Overloaded | Code::Unavailable => "14",
    }
}

/// An answer that is a status and nothing else.
pub(in crate::server) fn refuse(code: Code, message: &str) -> Reply {
    let mut head = trailers(code, message);
    head.insert(CONTENT_TYPE, GRPC);
    Reply::of_grpc(code, head, Body::default(), Some(message.into()))
}

/// The trailers of a status.
pub(super) fn trailers(code: Code, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(4);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static(digits(code)));
    let cut = message.char_indices().map(|(at, _)| at).take_while(|&at| at <= LONGEST_MESSAGE);
    let cut = if message.len() > LONGEST_MESSAGE { cut.last().unwrap_or(0) } else { message.len() };
    let encoded = utf8_percent_encode(&message[..cut], ENCODED).to_string();
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(encoded)) {
        trailers.insert(GRPC_MESSAGE, value);
    }
    trailers
}

/// The trailers of a success.
pub(super) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, OK);
    trailers
}

/// An answer of one message.
pub(super) fn message(message: &impl Message) -> Reply {
    frame(grpc::frame(message).into())
}

/// An answer of one framed message.
pub(super) fn frame(frame: Frame) -> Reply {
    let Frame { first, rest } = frame;
    Reply::of_grpc(Code::Ok, head(), Body::pieces(first, rest).with_trailers(ok_trailers()), None)
}

/// The head of an answer that has messages.
pub(super) fn head() -> HeaderMap {
    // Room for what else is set: the request's id, the version, its digest, flags.
    let mut head = HeaderMap::with_capacity(8);
    head.insert(CONTENT_TYPE, GRPC);
    head
}
