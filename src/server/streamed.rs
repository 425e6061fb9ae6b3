//! An answer that is made while it is sent: streams of gRPC.
//!
//! Whoever makes it is a future that hands frames over through a queue of one and ends with the
//! status. It is polled by the connection that sends the frames, so that it goes on only as fast as
//! the client takes them, and is gone with the client.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::mpsc;

use super::account::Account;
use super::connections::UnderWay;
use super::panics;
use crate::error::Code;
use crate::protocol::grpc;
use crate::telemetry::Counter;

/// How it ended.
pub(super) struct Ended {
    pub(super) code: Code,
    /// The message of an error, for the log.
    pub(super) error: Option<Box<str>>,
    pub(super) trailers: HeaderMap,
}

/// Takes frames to be sent.
pub(super) type Frames = mpsc::Sender<grpc::Frame>;

type Driver = Pin<Box<dyn Future<Output = Ended> + Send>>;

pub(super) struct Streamed {
    driver: Option<Driver>,
    /// The trailers of a code.
    failed: fn(Code, &str) -> HeaderMap,
    frames: mpsc::Receiver<grpc::Frame>,
    /// Of the frame that is being sent.
    pieces: std::vec::IntoIter<Bytes>,
    bytes: u64,
    ended: Option<Ended>,
    /// The request's entry in the books, which ends with the stream.
    pub(super) account: Option<Account>,
    /// Where panics are counted.
    pub(super) panics: Option<Counter>,
    /// Keeps the connection from being taken for an idle one.
    pub(super) under_way: Option<UnderWay>,
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streamed").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Streamed {
    /// A stream of what `drive` sends. `failed` gives the trailers of an error.
    pub(super) fn new<F>(
        drive: impl FnOnce(Frames) -> F,
        failed: fn(Code, &str) -> HeaderMap,
    ) -> Self
    where
        F: Future<Output = Ended> + Send + 'static,
    {
        let (sender, frames) = mpsc::channel(1);
        Self {
            driver: Some(Box::pin(drive(sender))),
            failed,
            frames,
            pieces: Vec::new().into_iter(),
            bytes: 0,
            ended: None,
            account: None,
            panics: None,
            under_way: None,
        }
    }

    /// The next piece, then the trailers, then nothing.
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        loop {
            if let Some(piece) = self.pieces.next() {
                self.bytes += piece.len() as u64;
                return Poll::Ready(Some(Frame::data(piece)));
            }
            self.poll_driver(context);
            match self.frames.poll_recv(context) {
                Poll::Ready(Some(grpc::Frame { first, rest })) => {
                    let pieces: Vec<Bytes> = std::iter::once(first).chain(rest).collect();
                    self.pieces = pieces.into_iter();
                }
                // The driver is gone, and so is its end of the queue.
                Poll::Ready(None) => return Poll::Ready(self.end().map(Frame::trailers)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_driver(&mut self, context: &mut Context<'_>) {
        let Some(driver) = &mut self.driver else { return };
        // It is not polled again after a panic.
        let poll = catch_unwind(AssertUnwindSafe(|| driver.as_mut().poll(context)));
        self.ended = Some(match poll {
            Ok(Poll::Pending) => return,
            Ok(Poll::Ready(ended)) => ended,
            Err(_) => {
                if let Some(panics) = &self.panics {
                    panics.increment(1);
                }
                let code = Code::Internal;
                let trailers = (self.failed)(code, panics::MESSAGE);
                Ended { code, error: Some(panics::MESSAGE.into()), trailers }
            }
        });
        self.driver = None;
    }

    /// How the stream ended, for the books and for the client.
    fn end(&mut self) -> Option<HeaderMap> {
        let Ended { code, error, trailers } = self.ended.take()?;
        if let Some(account) = self.account.take() {
            account.end(code, self.bytes, error.as_deref());
        }
        self.under_way = None;
        Some(trailers)
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        // The client went away first.
        if let Some(account) = self.account.take() {
            account.end(Code::Cancelled, self.bytes, None);
        }
    }
}
