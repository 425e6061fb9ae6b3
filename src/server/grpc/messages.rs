//! The messages of a call, one after the other: limits, time, compression.

use std::borrow::BorrowMut;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::DataPlane;
use crate::error::{Code, Fault};
use crate::protocol::grpc::{Frame, PREFIX, Prefix, parse_timeout};
use crate::server::body::{self, BodyError, Coding};
use crate::server::reply::Reply;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Memory taken at once for an announced message; more is taken as it comes.
const RESERVE_AT_MOST: usize = 1 << 20;

/// Why a message could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum MessageError {
    #[error("the message has {length} bytes, more than the limit of {limit} (limits.body)")]
    TooLarge { length: u32, limit: u64 },
    #[error("the deadline passed before the message was there (grpc-timeout)")]
    Deadline,
    #[error("a message begins with 0 or 1 and its length; this one does not")]
    Prefix,
    #[error("the call ended within a message")]
    Cut,
    #[error("the call has no message; expected one")]
    None,
    #[error("the call has more than one message; expected one")]
    Several,
    #[error("the message is compressed, but the header grpc-encoding does not say how")]
    Unannounced,
    #[error("grpc-encoding '{0}' is not supported; send gzip, deflate or identity")]
    Encoding(String),
    #[error("header grpc-timeout: expected digits and one of H, M, S, m, u and n, got {0:?}")]
    Timeout(HeaderValue),
    #[error(transparent)]
    Body(#[from] BodyError),
}

impl Fault for MessageError {
    fn code(&self) -> Code {
        match self {
            Self::TooLarge { .. } => Code::TooLarge,
            Self::Deadline => Code::DeadlineExceeded,
            Self::Encoding(_) => Code::UnsupportedMedia,
            Self::Body(error) => error.code(),
            Self::Prefix
            | Self::Cut
            | Self::None
            | Self::Several
            | Self::Unannounced
            | Self::Timeout(_) => Code::InvalidArgument,
        }
    }
}

/// The messages of a call, whose body is lent or given.
pub(super) struct Messages<B> {
    body: B,
    coding: Option<Coding>,
    /// How answers are compressed: as requests are, where the client takes it.
    answers: Option<Coding>,
    limit: u64,
    /// Time for a message, from its first byte.
    time: Duration,
    /// How long the client waits altogether.
    pub(super) timeout: Option<Duration>,
    /// The client's own deadline.
    pub(super) deadline: Option<Instant>,
    /// Until when the message that is being read must be there.
    due: Option<Instant>,
    have: Have,
}

/// Bytes that came and are not taken yet.
enum Have {
    /// As they came: nearly every message comes in one piece.
    Shared(Bytes),
    /// Put together.
    Own(BytesMut),
}

impl Have {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }

    fn take(&mut self, length: usize) -> Bytes {
        match self {
            Self::Shared(bytes) => bytes.split_to(length),
            Self::Own(bytes) => bytes.split_to(length).freeze(),
        }
    }

    /// Adds bytes to those of a message of `expected` bytes.
    fn add(&mut self, data: Bytes, expected: usize) {
        match self {
            Self::Shared(bytes) if bytes.is_empty() => *bytes = data,
            Self::Own(bytes) if bytes.is_empty() => *self = Self::Shared(data),
            Self::Shared(bytes) => {
                let so_far = bytes.len() + data.len();
                let mut own = BytesMut::with_capacity(expected.min(RESERVE_AT_MOST).max(so_far));
                own.extend_from_slice(bytes);
                own.extend_from_slice(&data);
                *self = Self::Own(own);
            }
            Self::Own(bytes) => {
                if bytes.capacity() - bytes.len() < data.len() {
                    // Twice as much as came, but no more than is to come.
                    let to_come = expected.saturating_sub(bytes.len());
                    bytes.reserve(to_come.min(bytes.len()).max(data.len()));
                }
                bytes.extend_from_slice(&data);
            }
        }
    }
}

impl<B: BorrowMut<Incoming>> Messages<B> {
    /// The messages of a call that was received then.
    pub(super) fn of(
        plane: &DataPlane,
        head: &HeaderMap,
        body: B,
        received: Instant,
    ) -> Result<Self, MessageError> {
        let (limit, time) = {
            let table = plane.registry.live();
            (table.config.limits.body, table.config.limits.body_time)
        };
        let coding = coding(head)?;
        let accepts = |name: &str| {
            let accepts = head.get(GRPC_ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
            accepts.is_some_and(|list| list.split(',').any(|item| item.trim() == name))
        };
        let answers = coding.filter(|coding| accepts(coding.name()));
        let timeout = timeout(head)?;
        let deadline = timeout.and_then(|timeout| received.checked_add(timeout));
        let have = Have::Shared(Bytes::new());
        Ok(Self { body, coding, answers, limit, time, timeout, deadline, due: None, have })
    }

    /// Compresses an answer where requests are compressed: clients list what they could read
    /// whether or not they want it, and a tensor compresses badly and slowly.
    pub(super) fn compress(&self, frame: Frame) -> Frame {
        let Some(coding) = self.answers else { return frame };
        let Frame { first, rest } = &frame;
        let message = first.slice(PREFIX.min(first.len())..);
        let size = frame.len().saturating_sub(PREFIX);
        let pieces = std::iter::once(&message).chain(rest);
        let Ok(compressed) = body::deflate(coding, size, pieces) else { return frame };
        let Ok(length) = u32::try_from(compressed.len()) else { return frame };
        let prefix = Prefix { is_compressed: true, length }.write();
        let rest = vec![Bytes::from(compressed)];
        Frame { first: Bytes::copy_from_slice(&prefix), rest }
    }

    /// Names the compression of answers in their head.
    pub(super) fn announce(&self, reply: &mut Reply) {
        if let Some(coding) = self.answers {
            reply.set(GRPC_ENCODING, HeaderValue::from_static(coding.name()));
        }
    }

    /// The only message of the call, whose end is waited for.
    pub(super) async fn only(&mut self) -> Result<Bytes, MessageError> {
        self.due = Some(Instant::now() + self.time);
        let message = self.next().await?.ok_or(MessageError::None)?;
        if !self.have.bytes().is_empty() {
            return Err(MessageError::Several);
        }
        if !self.body.borrow().is_end_stream() {
            self.due = Some(Instant::now() + self.time);
            if self.next().await?.is_some() {
                return Err(MessageError::Several);
            }
        }
        Ok(message)
    }

    /// The next message; nothing where the client has sent its last. Dropped before it is done, it
    /// loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, MessageError> {
        loop {
            let mut expected = PREFIX;
            let have = self.have.bytes();
            if have.len() >= PREFIX {
                let prefix = Prefix::read(have).ok_or(MessageError::Prefix)?;
                let Prefix { is_compressed, length } = prefix;
                if u64::from(length) > self.limit {
                    return Err(MessageError::TooLarge { length, limit: self.limit });
                }
                expected += length as usize;
                if have.len() >= expected {
                    self.due = None;
                    let message = self.have.take(expected).slice(PREFIX..);
                    return self.plain(message, is_compressed).map(Some);
                }
            }
            if !have.is_empty() && self.due.is_none() {
                self.due = Some(Instant::now() + self.time);
            }
            match self.data().await? {
                Some(data) => self.have.add(data, expected),
                None if self.have.bytes().is_empty() => return Ok(None),
                None => return Err(MessageError::Cut),
            }
        }
    }

    fn plain(&self, message: Bytes, is_compressed: bool) -> Result<Bytes, MessageError> {
        if !is_compressed {
            return Ok(message);
        }
        let coding = self.coding.ok_or(MessageError::Unannounced)?;
        Ok(body::inflate(coding, &message, self.limit)?)
    }

    /// The next bytes.
    async fn data(&mut self) -> Result<Option<Bytes>, MessageError> {
        let broken = |error: hyper::Error| BodyError::Broken(error.to_string());
        loop {
            // A timer is made only where something is waited for.
            let frame = match poll_once(self.body.borrow_mut()).await {
                Some(frame) => frame,
                None => match self.due.into_iter().chain(self.deadline).min() {
                    None => self.body.borrow_mut().frame().await,
                    Some(end) => {
                        let frame = self.body.borrow_mut().frame();
                        let frame = tokio::time::timeout_at(end.into(), frame).await;
                        frame.map_err(|_| match self.deadline {
                            Some(deadline) if deadline <= end => MessageError::Deadline,
                            _ => BodyError::Slow(self.time).into(),
                        })?
                    }
                },
            };
            let Some(frame) = frame else { return Ok(None) };
            // What is no data is trailers, which clients do not send.
            let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
            if !data.is_empty() {
                return Ok(Some(data));
            }
        }
    }
}

type Polled = Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>;

/// The next frame, where it is there.
async fn poll_once(body: &mut Incoming) -> Option<Polled> {
    std::future::poll_fn(|context| {
        let poll = http_body::Body::poll_frame(std::pin::Pin::new(&mut *body), context);
        std::task::Poll::Ready(match poll {
            std::task::Poll::Ready(frame) => Some(frame),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

fn coding(head: &HeaderMap) -> Result<Option<Coding>, MessageError> {
    match head.get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(Coding::Gzip)),
        Some(b"deflate") => Ok(Some(Coding::Deflate)),
        Some(other) => Err(MessageError::Encoding(String::from_utf8_lossy(other).into_owned())),
    }
}

fn timeout(head: &HeaderMap) -> Result<Option<Duration>, MessageError> {
    let Some(value) = head.get(GRPC_TIMEOUT) else { return Ok(None) };
    let timeout = parse_timeout(value.as_bytes());
    timeout.map(Some).ok_or_else(|| MessageError::Timeout(value.clone()))
}
