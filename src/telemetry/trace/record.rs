//! What is kept of a traced request, and the spans that are made of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::Uri;
use http::header::HeaderValue;
use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::context::Carried;

/// Characters of a path or a reason that are kept.
const LONGEST: usize = 256;

/// Who answers a prediction.
#[derive(Debug, Clone)]
pub struct Inside {
    /// The model that was resolved.
    pub model: Arc<str>,
    /// Its version.
    pub version: u64,
    /// The digest of the version's file, as text.
    pub digest: Bytes,
    /// The version's slot: `primary`, `standby` and so on.
    pub slot: &'static str,
}

/// Where the time of a prediction that ran went.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Rows of the request.
    pub rows: usize,
    /// Rows of the batch that they ran in.
    pub batch_rows: usize,
    /// When it was decoded, and queued.
    pub admitted: Instant,
    /// From head read to answer ready.
    pub total: Duration,
    /// Reading the request, once it was there.
    pub decode: Duration,
    /// Waiting for a compute thread.
    pub queue: Duration,
    /// Inside the engine.
    pub compute: Duration,
    /// Writing the answer.
    pub encode: Duration,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub struct Ending {
    /// What it came and went as.
    pub wire: Wire,
    /// The request's id, as it is in the answer and in the log.
    pub request_id: HeaderValue,
    /// The label of the code, where there is no answer.
    pub error: Option<&'static str>,
    /// Whether that is the server's fault, and not the request's.
    pub is_fault: bool,
    /// What the client was told.
    pub reason: Option<Box<str>>,
}

/// The protocol's side of a request.
#[derive(Debug, Clone)]
pub enum Wire {
    /// HTTP.
    Http {
        /// The method.
        method: http::Method,
        /// The path's pattern.
        route: &'static str,
        /// What was asked for.
        uri: Uri,
        /// The version of the protocol.
        version: http::Version,
        /// The answer's status.
        status: u16,
    },
    /// gRPC.
    Grpc(Rpc),
}

/// A call over gRPC.
#[derive(Debug, Clone, Copy)]
pub struct Rpc {
    /// The service, with its package.
    pub service: &'static str,
    /// The method.
    pub method: &'static str,
    /// The status code, a number of gRPC's.
    pub status: i32,
}

/// A traced request that ended.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) carried: Carried,
    pub(super) parent: Option<u64>,
    /// Whether the parent is a request here, and not the client's.
    pub(super) is_part: bool,
    pub(super) received: Instant,
    pub(super) ended: Instant,
    pub(super) inside: Option<Inside>,
    /// Of a prediction that ran.
    pub(super) times: Option<Times>,
    pub(super) ending: Ending,
}

/// A pair of moments that are the same on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    system: SystemTime,
    monotonic: Instant,
}

impl Anchor {
    pub(super) fn now() -> Self {
        Self { system: SystemTime::now(), monotonic: Instant::now() }
    }

    fn at(&self, moment: Instant) -> SystemTime {
        let ago = self.monotonic.saturating_duration_since(moment);
        self.system.checked_sub(ago).unwrap_or(self.system)
    }
}

impl Record {
    /// How many spans it makes.
    pub(super) fn n_spans(&self) -> u64 {
        if self.times.is_some() { 5 } else { 1 }
    }

    /// Appends its spans, the request's own first.
    pub(super) fn spans(
        self,
        anchor: Anchor,
        scope: &InstrumentationScope,
        to: &mut Vec<SpanData>,
    ) {
        let Self { carried, parent, is_part, received, ended, inside, times, ending } = self;
        let state = carried.state.as_ref().and_then(|state| state.to_str().ok()?.parse().ok());
        let state: TraceState = state.unwrap_or_default();
        let span = |id: u64, above: SpanId, start: Instant, end: Instant| SpanData {
            span_context: SpanContext::new(
                TraceId::from(carried.trace),
                SpanId::from(id),
                TraceFlags::SAMPLED,
                false,
                state.clone(),
            ),
            parent_span_id: above,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: Cow::Borrowed(""),
            start_time: anchor.at(start),
            end_time: anchor.at(end),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: scope.clone(),
        };
        let own = SpanId::from(carried.span);
        let common = common(inside.as_ref(), &ending.request_id);
        let mut server =
            span(carried.span, parent.map_or(SpanId::INVALID, SpanId::from), received, ended);
        server.parent_span_is_remote = parent.is_some() && !is_part;
        server.span_kind = if is_part { SpanKind::Internal } else { SpanKind::Server };
        server.name = match &inside {
            Some(inside) => format!("infer {}", inside.model).into(),
            None => "infer".into(),
        };
        server.attributes.clone_from(&common);
        describe(&mut server, &ending);
        if let Some(times) = times {
            server.attributes.push(count("tidegate.request.rows", times.rows));
            server.attributes.push(count("tidegate.batch.rows", times.batch_rows));
        }
        to.push(server);
        let Some(times) = times else { return };
        for (name, start, end) in phases(received, ended, &times) {
            let mut child = span(fastrand::u64(1..), own, start, end);
            child.name = Cow::Borrowed(name);
            child.attributes.clone_from(&common);
            if name == "compute" {
                child.attributes.push(count("tidegate.batch.rows", times.batch_rows));
            }
            to.push(child);
        }
    }
}

/// When each part began and ended: one after the other, inside the request. Between the beginning
/// and the decoding the body comes; between the run and the encoding one thread wakes another.
fn phases(
    received: Instant,
    ended: Instant,
    times: &Times,
) -> [(&'static str, Instant, Instant); 4] {
    let within = |moment: Instant| moment.clamp(received, ended);
    let ready = within(received + times.total);
    let admitted = times.admitted.clamp(received, ready);
    let decoding = admitted.checked_sub(times.decode).map_or(received, within);
    let computing = (admitted + times.queue).min(ready);
    let computed = (computing + times.compute).min(ready);
    let encoding = ready.checked_sub(times.encode).unwrap_or(received).max(computed);
    [
        ("decode", decoding, admitted),
        ("queue", admitted, computing),
        ("compute", computing, computed),
        ("encode", encoding, ready),
    ]
}

/// What all spans of a request carry.
fn common(inside: Option<&Inside>, request_id: &HeaderValue) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(16);
    if let Some(Inside { model, version, digest, slot }) = inside {
        attributes.push(KeyValue::new("tidegate.model.name", Arc::clone(model)));
        attributes.push(KeyValue::new("tidegate.model.version", integer(*version)));
        attributes.push(KeyValue::new("tidegate.model.digest", text(digest)));
        attributes.push(KeyValue::new("tidegate.slot", *slot));
    }
    attributes.push(KeyValue::new("tidegate.request.id", text(request_id.as_bytes())));
    attributes
}

/// The protocol's attributes, by OpenTelemetry's semantic conventions, and how it ended. By them a
/// request that is itself wrong leaves the status of a server's span unset.
fn describe(server: &mut SpanData, ending: &Ending) {
    let to = &mut server.attributes;
    match &ending.wire {
        Wire::Http { method, route, uri, version, status } => {
            to.push(KeyValue::new("http.request.method", known_method(method)));
            to.push(KeyValue::new("http.route", *route));
            to.push(KeyValue::new("url.path", shortened(uri.path())));
            to.push(KeyValue::new("url.scheme", "http"));
            to.push(KeyValue::new("network.protocol.version", http_version(*version)));
            to.push(KeyValue::new("http.response.status_code", i64::from(*status)));
        }
        Wire::Grpc(Rpc { service, method, status }) => {
            to.push(KeyValue::new("rpc.system", "grpc"));
            to.push(KeyValue::new("rpc.service", *service));
            to.push(KeyValue::new("rpc.method", *method));
            to.push(KeyValue::new("rpc.grpc.status_code", i64::from(*status)));
        }
    }
    let Some(error) = ending.error else { return };
    to.push(KeyValue::new("error.type", error));
    let reason = ending.reason.as_deref().map(shortened);
    if let Some(reason) = &reason {
        to.push(KeyValue::new("tidegate.reason", reason.clone()));
    }
    if ending.is_fault {
        server.status = Status::error(reason.unwrap_or_else(|| error.to_owned()));
    }
}

/// A method of the client's own making is none that the convention knows.
fn known_method(method: &http::Method) -> &'static str {
    match *method {
        http::Method::GET => "GET",
        http::Method::HEAD => "HEAD",
        http::Method::POST => "POST",
        http::Method::PUT => "PUT",
        http::Method::DELETE => "DELETE",
        http::Method::OPTIONS => "OPTIONS",
        http::Method::PATCH => "PATCH",
        _ => "_OTHER",
    }
}

fn http_version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

fn count(key: &'static str, n: usize) -> KeyValue {
    KeyValue::new(key, integer(n as u64))
}

fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn text(bytes: &[u8]) -> Value {
    // By reference count: each span has it.
    Value::from(Arc::<str>::from(String::from_utf8_lossy(bytes)))
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
