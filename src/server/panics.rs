//! A panic in a handler is that request's 500, and nothing else's trouble.
//!
//! Panics inside the engine are caught where they happen; this catches what is left.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::reply::Reply;
use crate::error::Code;
use crate::telemetry::Counter;

/// What a client reads of a panic.
pub(super) const MESSAGE: &str = "the server failed at this request; its log says where";

/// Catches panics of the service below.
#[derive(Clone)]
pub(super) struct CatchPanicLayer {
    pub(super) panics: Counter,
    /// An error in the protocol of the plane.
    pub(super) refuse: fn(Code, &str) -> Reply,
}

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic { inner, layer: self.clone() }
    }
}

#[derive(Clone)]
pub(super) struct CatchPanic<S> {
    inner: S,
    layer: CatchPanicLayer,
}

impl<C, S: Service<C, Response = Reply, Error = Infallible>> Service<C> for CatchPanic<S> {
    type Response = Reply;
    type Error = Infallible;
    type Future = CatchPanicFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: C) -> Self::Future {
        CatchPanicFuture { inner: self.inner.call(call), layer: self.layer.clone() }
    }
}

pin_project! {
    pub(super) struct CatchPanicFuture<F> {
        #[pin]
        inner: F,
        layer: CatchPanicLayer,
    }
}

impl<F: Future<Output = Result<Reply, Infallible>>> Future for CatchPanicFuture<F> {
    type Output = Result<Reply, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let inner = this.inner;
        // The future is not polled again after a panic: it is dropped with this one.
        match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
            Ok(poll) => poll.map_ok(|mut reply| {
                if let Some(streamed) = reply.response.body_mut().streamed() {
                    streamed.panics = Some(this.layer.panics.clone());
                }
                reply
            }),
            Err(_) => {
                this.layer.panics.increment(1);
                Poll::Ready(Ok((this.layer.refuse)(Code::Internal, MESSAGE)))
            }
        }
    }
}
