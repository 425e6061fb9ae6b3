//! The books: every request gets an id, is counted once when it comes and once when it ends, and
//! leaves one line in the log where that is asked for.
//!
//! received = answered + refused + failed + cancelled (+ those in flight). A request whose future
//! is dropped before it is done, because its client went away, ends as cancelled.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::reply::{Body, Reply, status};
use super::route::Label;
use super::traced::Traced;
use crate::config::Access;
use crate::error::{Code, Outcome};
use crate::registry::Registry;
use crate::telemetry::trace::{TRACEPARENT, Trace, Tracer};
use crate::telemetry::{Sharded, Telemetry, names};

/// The request's id, as clients and proxies send it and get it back.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids are replaced: they go into headers and logs.
const LONGEST_ID: usize = 128;

/// A request on its way through the stack.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) head: http::request::Parts,
    pub(super) body: Incoming,
    pub(super) received: Instant,
    /// The client's, or a new one.
    pub(super) id: HeaderValue,
    /// Where it is traced.
    pub(super) trace: Option<Arc<Trace>>,
}

/// What one plane counts.
#[derive(Debug)]
pub(super) struct PlaneMetrics {
    totals: Arc<Sharded<3>>,
    /// By route, then by code.
    ended: Vec<Arc<Sharded<{ Code::ALL.len() }>>>,
}

/// Which of the totals is which.
const RECEIVED: usize = 0;
const REQUEST_BYTES: usize = 1;
const RESPONSE_BYTES: usize = 2;

impl PlaneMetrics {
    pub(super) fn new(telemetry: &Telemetry, plane: &'static str) -> Self {
        let ended = |label: Label| {
            telemetry.sharded(Code::ALL.map(|code| {
                let outcome = match code.outcome() {
                    Outcome::Answered => "answered",
                    Outcome::Refused => "refused",
                    Outcome::Failed => "failed",
                    Outcome::Cancelled => "cancelled",
                };
                let labels = [
                    ("plane", plane),
                    ("route", label.as_str()),
                    ("code", code.label()),
                    ("outcome", outcome),
                ];
                telemetry.counter(names::ENDED, &labels)
            }))
        };
        let plane = [("plane", plane)];
        let totals = [names::RECEIVED, names::REQUEST_BYTES, names::RESPONSE_BYTES];
        let totals = telemetry.sharded(totals.map(|metric| telemetry.counter(metric, &plane)));
        let ended: Vec<_> = Label::ALL.map(ended).into();
        let in_flight = telemetry.gauge(names::IN_FLIGHT, &plane);
        let (begun, over) = (Arc::clone(&totals), ended.clone());
        telemetry.add_refresher(move || {
            // What ended is looked at first, so that the difference is never below 0.
            let over: u64 = over.iter().flat_map(|codes| codes.sums()).sum();
            in_flight.set(begun.sums()[RECEIVED].saturating_sub(over) as f64);
        });
        Self { totals, ended }
    }
}

/// Adds the books to a service of [`Call`]s.
#[derive(Debug, Clone)]
pub(super) struct AccountLayer {
    pub(super) metrics: Arc<PlaneMetrics>,
    pub(super) registry: Registry,
    /// The metric label of a path on this plane.
    pub(super) label: fn(&str) -> Label,
    pub(super) tracer: Tracer,
}

impl<S> Layer<S> for AccountLayer {
    type Service = Accounted<S>;

    fn layer(&self, inner: S) -> Accounted<S> {
        Accounted { inner, layer: self.clone() }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Accounted<S> {
    inner: S,
    layer: AccountLayer,
}

impl<S> Service<Request<Incoming>> for Accounted<S>
where
    S: Service<Call, Response = Reply, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = AccountedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let received = Instant::now();
        let (head, body) = request.into_parts();
        let label = (self.layer.label)(head.uri.path());
        let line = match self.layer.registry.live().config.log.access {
            Access::Off => None,
            Access::Errors | Access::All => {
                let (method, uri) = (head.method.clone(), head.uri.clone());
                Some(Line { method, uri, version: head.version })
            }
        };
        let traced = Traced::begin(&self.layer.tracer, label, &head, received);
        let trace = traced.as_ref().map(|traced| Arc::clone(&traced.trace));
        let account = Account {
            metrics: Arc::clone(&self.layer.metrics),
            registry: self.layer.registry.clone(),
            id: id(head.headers.get(REQUEST_ID)),
            label,
            received,
            line,
            traced,
            is_head: head.method == Method::HEAD,
            ended: false,
        };
        let bytes = body.size_hint().exact().unwrap_or(0);
        account.metrics.totals.add_all([(RECEIVED, 1), (REQUEST_BYTES, bytes)]);
        let id = account.id.clone();
        let inner = self.inner.call(Call { head, body, received, id, trace });
        AccountedFuture { inner, account: Some(account) }
    }
}

/// The id that came, if it is one; else a new one of 128 random bits.
fn id(sent: Option<&HeaderValue>) -> HeaderValue {
    let is_id = |id: &&HeaderValue| {
        (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    sent.filter(is_id).cloned().unwrap_or_else(new_id)
}

fn new_id() -> HeaderValue {
    let random = fastrand::u128(..);
    let digit = |place: usize| b"0123456789abcdef"[(random >> (4 * place)) as usize & 15];
    // Counted by reference from the start: it is cloned in any case.
    let id = Bytes::from_owner(std::array::from_fn::<u8, 32, _>(digit));
    // Digits are a header's value.
    HeaderValue::from_maybe_shared(id).unwrap_or(HeaderValue::from_static("unknown"))
}

pin_project! {
    #[derive(Debug)]
    pub(super) struct AccountedFuture<F> {
        #[pin]
        inner: F,
        account: Option<Account>,
    }
}

impl<F: Future<Output = Result<Reply, Infallible>>> Future for AccountedFuture<F> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut reply) = ready!(this.inner.poll(cx));
        if let Some(account) = this.account.take() {
            reply.set(REQUEST_ID, account.id.clone());
            if let Some(traced) = &account.traced {
                reply.set(TRACEPARENT, traced.trace.carried().traceparent());
            }
            if account.is_head {
                reply.without_body();
            }
            let bytes = reply.response.body().size_hint().lower();
            match reply.response.body_mut().streamed() {
                // It ends when the last of it is made.
                Some(streamed) => streamed.account = Some(account),
                None => account.end(reply.code, bytes, reply.error.as_deref()),
            }
        }
        Poll::Ready(Ok(reply.response))
    }
}

/// One request's entry in the books. Dropped before its end, the request was cancelled.
#[derive(Debug)]
pub(super) struct Account {
    metrics: Arc<PlaneMetrics>,
    registry: Registry,
    id: HeaderValue,
    label: Label,
    received: Instant,
    line: Option<Line>,
    traced: Option<Box<Traced>>,
    /// Whether the body is left out of the answer.
    is_head: bool,
    ended: bool,
}

impl Account {
    /// Enters how the request ended, with the bytes of its answer.
    pub(super) fn end(mut self, code: Code, bytes: u64, error: Option<&str>) {
        self.metrics.totals.add(RESPONSE_BYTES, bytes);
        self.enter(code, bytes, error);
    }

    fn enter(&mut self, code: Code, bytes: u64, error: Option<&str>) {
        self.ended = true;
        self.metrics.ended[self.label as usize].add(code.index(), 1);
        let traced = self.traced.take();
        if let Some(traced) = &traced {
            traced.end(code, &self.id, error);
        }
        let Some(line) = &self.line else { return };
        let is_error = code.outcome() != Outcome::Answered;
        if is_error || self.registry.live().config.log.access == Access::All {
            let trace = traced.map(|traced| traced.trace.id());
            line.write(code, &self.id, trace, self.received.elapsed(), bytes, error);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.ended {
            self.enter(Code::Cancelled, 0, None);
        }
    }
}

/// What the log says of a request.
#[derive(Debug)]
struct Line {
    method: Method,
    uri: http::Uri,
    version: Version,
}

impl Line {
    fn write(
        &self,
        code: Code,
        id: &HeaderValue,
        trace: Option<String>,
        took: Duration,
        bytes: u64,
        error: Option<&str>,
    ) {
        tracing::info!(
            target: "tidegate::access",
            request_id = id.to_str().unwrap_or_default(),
            trace_id = trace,
            method = %self.method,
            path = self.uri.path(),
            protocol = ?self.version,
            status = status(code).as_u16(),
            code = code.label(),
            bytes,
            ms = took.as_secs_f64() * 1e3,
            error,
            "request"
        );
    }
}
