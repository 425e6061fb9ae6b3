//! The task that makes spans of records and sends them to the receiver.
//!
//! The SDK's batch processor would have a thread of its own, and keep the count of what it drops to
//! itself; its exporters are used here as they are: they write OTLP, speak HTTP and gRPC, and try
//! again where that may help.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::record::Anchor;
use super::{Shared, Tracer};
use crate::telemetry::{Counter, Gauge, Telemetry, names};

/// Time between two exports, where the queue is not half full before.
const INTERVAL: Duration = Duration::from_secs(1);

/// Spans of one export, about.
const BATCH: usize = 512;

/// How long one export may take, where nobody says.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often the log says that the receiver does not take spans.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// The name of the service, where nobody says another.
const SERVICE: &str = "tidegate";

/// What a receiver speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP with protobuf.
    Http,
}

/// Where spans go. The exporters add what OpenTelemetry's environment variables say of headers,
/// compression and, where `timeout` is not given, of that.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The receiver's URL; over HTTP with the path.
    pub endpoint: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// How long one export may take.
    pub timeout: Option<Duration>,
    /// Headers of every export.
    pub headers: HashMap<String, String>,
    /// The resource attribute `service.name`, before that of the environment.
    pub service: Option<String>,
    /// More resource attributes, before those of the environment.
    pub attributes: BTreeMap<String, String>,
    /// Records that wait, at most.
    pub queue: usize,
}

/// Starts the exporter on `runtime`. Says why where the settings cannot be used; that the receiver
/// does not answer is no such reason.
pub fn start(
    settings: &Settings,
    telemetry: &Telemetry,
    runtime: &Handle,
) -> Result<(Tracer, Exporting), String> {
    let mut exporter = {
        // The gRPC client starts a task of its own.
        let _entered = runtime.enter();
        exporter(settings)?
    };
    exporter.set_resource(&resource(settings));
    let spans = |outcome| telemetry.counter(names::TRACE_SPANS, &[("outcome", outcome)]);
    let shared = Arc::new(Shared::new(settings.queue, spans("dropped")));
    let worker = Worker {
        shared: Arc::clone(&shared),
        exporter,
        scope: InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
        // An attempt and those after it; beyond it the receiver is taken for gone.
        limit: settings.timeout.unwrap_or(TIMEOUT) * 2,
        endpoint: settings.endpoint.clone(),
        said: None,
        exported: spans("exported"),
        failed: spans("failed"),
        waiting: telemetry.gauge(names::TRACES_WAITING, &[]),
    };
    let (end, ended) = oneshot::channel();
    let task = runtime.spawn(worker.run(ended));
    Ok((Tracer(Some(Arc::clone(&shared))), Exporting { end, task, shared }))
}

/// The running exporter.
#[derive(Debug)]
pub struct Exporting {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Exporting {
    /// Sends what waits, until `deadline` at most, and ends. Runs on the exporter's runtime.
    pub async fn end(self, deadline: Instant) {
        let Self { end, mut task, shared } = self;
        // A task that is gone has nothing to send.
        let _ = end.send(());
        if tokio::time::timeout_at(deadline.into(), &mut task).await.is_err() {
            task.abort();
            tracing::warn!(
                requests = shared.queue.len(),
                "the drain limit passed; traces that wait are dropped"
            );
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    exporter: SpanExporter,
    scope: InstrumentationScope,
    limit: Duration,
    endpoint: String,
    /// When the log last said that exports fail.
    said: Option<Instant>,
    exported: Counter,
    failed: Counter,
    waiting: Gauge,
}

impl Worker {
    async fn run(mut self, mut ended: oneshot::Receiver<()>) {
        let mut is_over = false;
        while !is_over {
            is_over = tokio::select! {
                _ = &mut ended => true,
                () = self.shared.filled.notified() => false,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            self.waiting.set(self.shared.queue.len() as f64);
            loop {
                let batch = self.batch();
                if batch.is_empty() {
                    break;
                }
                self.export(batch).await;
            }
        }
    }

    /// The spans of the oldest records.
    fn batch(&self) -> Vec<SpanData> {
        let mut spans = Vec::new();
        let anchor = Anchor::now();
        while spans.len() < BATCH {
            let Some(record) = self.shared.queue.pop() else { break };
            record.spans(anchor, &self.scope, &mut spans);
        }
        spans
    }

    async fn export(&mut self, spans: Vec<SpanData>) {
        let n = spans.len() as u64;
        let outcome = tokio::time::timeout(self.limit, self.exporter.export(spans)).await;
        let reason = match outcome {
            Ok(Ok(())) => {
                self.exported.increment(n);
                if self.said.take().is_some() {
                    tracing::info!(endpoint = self.endpoint, "the receiver takes spans again");
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.limit),
        };
        self.failed.increment(n);
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY) {
            self.said = Some(Instant::now());
            tracing::warn!(endpoint = self.endpoint, reason, spans = n, "spans could not be sent");
        }
    }
}

fn exporter(settings: &Settings) -> Result<SpanExporter, String> {
    let Settings { endpoint, headers, timeout, .. } = settings;
    let built = match settings.protocol {
        Protocol::Grpc => {
            let headers: http::HeaderMap = headers.try_into().map_err(|error: http::Error| {
                // Values may be secrets: which one is wrong is not shown.
                format!("a header of tracing.headers_env cannot be sent: {error}")
            })?;
            let metadata = tonic::metadata::MetadataMap::from_headers(headers);
            let builder = SpanExporter::builder().with_tonic();
            let builder = builder.with_endpoint(endpoint).with_metadata(metadata);
            match timeout {
                Some(timeout) => builder.with_timeout(*timeout).build(),
                None => builder.build(),
            }
        }
        Protocol::Http => {
            let connector = HttpsConnectorBuilder::new().with_native_roots();
            let limit = timeout.unwrap_or(TIMEOUT);
            let builder = SpanExporter::builder().with_http();
            let builder = builder
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .with_endpoint(endpoint)
                .with_headers(headers.clone());
            let builder = match timeout {
                Some(timeout) => builder.with_timeout(*timeout),
                None => builder,
            };
            // Without TLS where none is asked for: then the system's certificates need not be
            // there.
            let builder = if endpoint.starts_with("https:") {
                let connector = connector.map_err(|error| {
                    format!("no certificates of authorities are found: {error}; install the package ca-certificates")
                })?;
                let connector = connector.https_only().enable_http1().build();
                builder.with_http_client(HyperClient::new(connector, limit, None))
            } else {
                builder.with_http_client(HyperClient::with_default_connector(limit, None))
            };
            builder.build()
        }
    };
    built.map_err(|error| error.to_string())
}

/// Who sends the spans. The environment's own variables are read by the SDK; ours go first.
fn resource(settings: &Settings) -> Resource {
    let attributes = settings.attributes.iter();
    let attributes =
        attributes.map(|(key, value)| KeyValue::new(Key::from(key.clone()), value.clone()));
    let build = |service: Option<&str>| {
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let builder = Resource::builder().with_attribute(version);
        let builder = builder.with_attributes(attributes.clone());
        match service {
            Some(service) => builder.with_service_name(service.to_owned()).build(),
            None => builder.build(),
        }
    };
    let resource = build(settings.service.as_deref());
    let name = resource.get(&Key::from_static_str("service.name"));
    let is_named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if is_named { resource } else { build(Some(SERVICE)) }
}
