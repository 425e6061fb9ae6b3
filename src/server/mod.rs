//! HTTP and gRPC: listeners, the stack of layers, the handlers of both planes.
//!
//! A request passes, from the outside in: the connection's clock ([`connections`]), the books
//! ([`account`]: id, counters, access line, cancellation), the panic net ([`panics`]), and its
//! route's handler. Handlers return a [`reply::Reply`]; `reply` is the one place that knows HTTP
//! statuses.
//!
//! Invariants:
//! - a request is counted once when its head has come and once when it ends, however it ends;
//! - nothing on the data plane waits for room: where there is none it is refused at once;
//! - no task outlives the drain limit: what is accepted is finished within it, or cut off.

mod account;
mod admin;
mod asking;
mod beside;
mod body;
mod choice;
mod clock;
mod compare;
mod connections;
mod control;
mod cors;
mod drift;
mod feedback;
mod grpc;
mod infer;
mod memory;
mod metadata;
mod openapi;
mod order;
mod panics;
mod predict;
mod reply;
mod rollout;
mod route;
mod rows;
mod settings;
mod streamed;
mod streams;
mod tables;
mod traced;
mod v1;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tower::{Service, ServiceBuilder};

pub use admin::{AdminPlane, ConfigFault, ConfigOutcome, ConfigRequest, LastReload};

use crate::capture::Capture;
use crate::error::Code;
use crate::observe::Monitors;
use crate::observe::shadow::Shadows;
use crate::registry::{LiveTable, Registry, State};
use crate::rollout::Rollouts;
use crate::shared_memory::Regions;
use crate::telemetry::trace::Tracer;
use crate::telemetry::{Telemetry, names};
use account::{AccountLayer, Call, PlaneMetrics};
use connections::{Connections, Speech};
use cors::Visitor;
use grpc::GrpcPlane;
use panics::CatchPanicLayer;
use predict::Admission;
use reply::{Body, Reply};
use route::Route;

/// How often a drain looks whether connections are left.
const DRAIN_INTERVAL: Duration = Duration::from_millis(5);

/// Whether the server is ready for requests.
#[derive(Debug, Default)]
pub struct Health {
    draining: AtomicBool,
}

impl Health {
    /// From now on the server says that it is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Why the server is not ready. It is ready when every model that the configuration names
    /// serves and it is not shutting down; a faulty model that somebody drops into the repository
    /// does not take the others out of service.
    #[must_use]
    pub fn not_ready(&self, table: &LiveTable) -> Option<String> {
        if self.draining.load(Ordering::Acquire) {
            return Some("the server is shutting down".to_owned());
        }
        let missing =
            table.config.models.keys().filter(|name| !table.models.contains_key(name.as_str()));
        let missing: Vec<String> = missing
            .map(|name| {
                let entries = table.index.iter();
                let reasons =
                    entries.filter(|e| *e.model == **name && e.state == State::Unavailable);
                let reasons: Vec<String> = reasons.map(ToString::to_string).collect();
                if reasons.is_empty() {
                    format!("{name} does not serve")
                } else {
                    reasons.join("; ")
                }
            })
            .collect();
        (!missing.is_empty()).then(|| missing.join("; "))
    }
}

/// What the data plane's handlers share.
#[derive(Debug)]
pub struct DataPlane {
    registry: Registry,
    health: Arc<Health>,
    admission: Admission,
    monitors: Monitors,
    /// Turns true when the server drains: streams, which could go on for ever, end then.
    drain: watch::Receiver<bool>,
    capture: Capture,
    shadows: Shadows,
    tracer: Tracer,
    /// Shared memory of clients, where it is on.
    regions: Option<Arc<Regions>>,
}

/// What both planes are built from.
#[derive(Debug, Clone)]
pub struct Parts {
    /// What serves.
    pub registry: Registry,
    /// Where it is counted.
    pub telemetry: Arc<Telemetry>,
    /// Whether it is ready.
    pub health: Arc<Health>,
    /// Who watches what it answers.
    pub monitors: Monitors,
    /// What becomes of candidates.
    pub rollouts: Rollouts,
    /// Who records it.
    pub capture: Capture,
    /// Which requests are traced.
    pub tracer: Tracer,
    /// Who gets copies of what it answers.
    pub shadows: Shadows,
    /// Turns true when the server drains.
    pub drain: watch::Receiver<bool>,
}

/// A running plane.
#[derive(Debug)]
pub struct Plane {
    /// Of each of its listeners.
    connections: Vec<Arc<Connections>>,
}

impl Plane {
    /// Waits until every connection is closed, until `deadline` at most. Returns how many are
    /// left then.
    pub async fn drained(&self, deadline: Instant) -> usize {
        while self.n_open() > 0 && Instant::now() < deadline {
            tokio::time::sleep(DRAIN_INTERVAL).await;
        }
        self.n_open()
    }

    fn n_open(&self) -> usize {
        self.connections.iter().map(|connections| connections.n_open()).sum()
    }
}

/// The data plane on `http` and, where it is there, `grpc`: its accept loops, to be spawned, and a
/// handle. Connections are shared out among `runtimes`.
pub fn data_plane(
    parts: &Parts,
    http: TcpListener,
    grpc: Option<TcpListener>,
    runtimes: &[Handle],
) -> (impl Future<Output = ()> + Send + use<>, Plane) {
    let Parts { registry, telemetry, health, monitors, capture, shadows, tracer, drain, .. } =
        parts.clone();
    let plane = Arc::new(DataPlane {
        registry: registry.clone(),
        health,
        admission: Admission::new(&telemetry),
        monitors,
        capture,
        shadows,
        drain: drain.clone(),
        tracer: tracer.clone(),
        regions: memory::start(&registry.live().config.server.shared_memory),
    });
    let connections = |plane, speech| {
        let (registry, drain) = (registry.clone(), drain.clone());
        Connections::new(&telemetry, plane, speech, registry, drain, runtimes)
    };
    let over_http = {
        let plane = Arc::clone(&plane);
        let errors: Refuse = Reply::error;
        let label: Label = |path| Route::of(path).label();
        let tracer = tracer.clone();
        let handler = move |call| handle(Arc::clone(&plane), call);
        let service = stack(&telemetry, "data", registry.clone(), tracer, label, errors, handler);
        let connections = connections("data", Speech::Http);
        (Arc::clone(&connections), connections.accept(http, service))
    };
    let over_grpc = grpc.map(|listener| {
        let reflection = Arc::default();
        let plane = Arc::new(GrpcPlane { data: plane, reflection });
        let errors: Refuse = grpc::refuse;
        let label: Label = grpc::label;
        let handler = move |call| grpc::handle(Arc::clone(&plane), call);
        let service = stack(&telemetry, "grpc", registry.clone(), tracer, label, errors, handler);
        let connections = connections("grpc", Speech::Grpc);
        (Arc::clone(&connections), connections.accept(listener, service))
    });
    let (http, accepts_http) = over_http;
    let (grpc, accepts_grpc) = over_grpc.unzip();
    let accepting = async {
        let accepts_grpc = async {
            if let Some(accepts) = accepts_grpc {
                accepts.await;
            }
        };
        tokio::join!(accepts_http, accepts_grpc);
    };
    (accepting, Plane { connections: std::iter::once(http).chain(grpc).collect() })
}

/// The admin plane on `listener`: its accept loop, to be spawned, and a handle. Its connections
/// stay on the runtime that this is called on.
pub fn admin_plane(
    parts: &Parts,
    listener: TcpListener,
    config: mpsc::Sender<ConfigRequest>,
    last_reload: Arc<Mutex<LastReload>>,
    started_at: u64,
) -> (impl Future<Output = ()> + Send + use<>, Plane) {
    let Parts { registry, telemetry, health, monitors, rollouts, shadows, drain, .. } =
        parts.clone();
    let plane = Arc::new(AdminPlane {
        registry: registry.clone(),
        telemetry: Arc::clone(&telemetry),
        health,
        monitors,
        rollouts,
        shadows,
        config,
        last_reload,
        started_at,
    });
    let (label, errors): (Label, Refuse) = (admin::label, Reply::error);
    let tracer = Tracer::off();
    let service =
        stack(&telemetry, "admin", registry.clone(), tracer, label, errors, move |call| {
            let plane = Arc::clone(&plane);
            async move { Ok(admin::handle(&plane, call).await) }
        });
    let runtime = [Handle::current()];
    let connections =
        Connections::new(&telemetry, "admin", Speech::Http, registry, drain, &runtime);
    (Arc::clone(&connections).accept(listener, service), Plane { connections: vec![connections] })
}

/// The metric label of a path.
type Label = fn(&str) -> route::Label;

/// An error in the words of a plane's protocol.
type Refuse = fn(Code, &str) -> Reply;

/// The stack around a plane's handlers, outermost first.
fn stack<H, F>(
    telemetry: &Telemetry,
    plane: &'static str,
    registry: Registry,
    tracer: Tracer,
    label: Label,
    refuse: Refuse,
    handler: H,
) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ use<H, F>
where
    H: FnMut(Call) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Reply, Infallible>> + Send + 'static,
{
    let metrics = Arc::new(PlaneMetrics::new(telemetry, plane));
    let panics = telemetry.counter(names::PANICS, &[("where", "handler")]);
    ServiceBuilder::new()
        // Outermost, so that whatever ends a request below is in the books.
        .layer(AccountLayer { metrics, registry, label, tracer })
        // Directly around the handlers: a panic is a reply like any other to the books.
        .layer(CatchPanicLayer { panics, refuse })
        .service(tower::service_fn(handler))
}

/// Answers a request of the data plane.
///
/// The future is moved from layer to layer, bytes that are not used yet included. So it is to be
/// small: the call has one place in it, and routes that are seldom taken have their memory elsewhere.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would have its arguments twice: as they came and as they are used"
)]
fn handle(
    plane: Arc<DataPlane>,
    mut call: Call,
) -> impl Future<Output = Result<Reply, Infallible>> + Send {
    async move {
        let visitor = Visitor::of(&plane.registry.live().config.server.cors, &call.head);
        let mut reply = answer(&plane, &mut call).await;
        if let Some(visitor) = visitor {
            visitor.tell(&mut reply);
        }
        Ok(reply)
    }
}

/// By the request's route.
async fn answer(plane: &DataPlane, call: &mut Call) -> Reply {
    // The target borrows the path, which is cheap to share and outlives the head's other parts.
    let uri = call.head.uri.clone();
    let route = Route::of(uri.path());
    let is_options = call.head.method == http::Method::OPTIONS;
    if is_options && uri.path() == "*" {
        return Reply::options("GET, HEAD, POST, OPTIONS");
    }
    if route == Route::Unknown {
        let message = format!(
            "there is nothing at {}; the protocols' calls are below /v2 and /v1",
            uri.path()
        );
        return Reply::error(Code::NotFound, &message);
    }
    let methods = route.methods();
    if is_options {
        return Reply::options(methods.as_str());
    }
    if !methods.allow(&call.head.method) {
        return Reply::method_not_allowed(&call.head.method, uri.path(), methods);
    }
    match route {
        Route::Infer(target) => infer::infer(plane, call, &target).await,
        Route::Feedback(target) => Box::pin(feedback::feedback(plane, call, &target)).await,
        Route::Predict(target) => Box::pin(rows::predict(plane, call, &target)).await,
        Route::V1Predict(target) => Box::pin(v1::predict(plane, call, &target)).await,
        Route::V1Other(verb) => v1::refused(verb),
        Route::LogSettings => settings::log(plane, call).await,
        Route::TraceSettings(model) => settings::trace(plane, call, model.as_deref()).await,
        Route::SystemMemory(asked) => Box::pin(memory::answer(plane, call, asked)).await,
        Route::CudaMemory => memory::no_cuda(),
        Route::V1Live => v1::live(),
        Route::OpenApi => openapi::data(),
        Route::V1Models => v1::models(plane),
        Route::V1Model(target) => v1::model(plane, &target),
        Route::ServerMetadata => metadata::server(plane),
        Route::Live => metadata::live(),
        Route::Ready => metadata::ready(plane),
        Route::Models => metadata::models(plane),
        Route::Model(target) => metadata::model(plane, &target),
        Route::ModelReady(target) => metadata::model_ready(plane, &target),
        Route::ModelConfig(target) => metadata::model_config(plane, &target),
        Route::ModelStatistics(target) => metadata::model_statistics(plane, &target),
        Route::AllStatistics => metadata::all_statistics(plane),
        Route::RepositoryIndex => Box::pin(control::index(plane, call)).await,
        Route::RepositoryLoad(model) => Box::pin(control::load(plane, call, &model)).await,
        Route::RepositoryUnload(model) => Box::pin(control::unload(plane, call, &model)).await,
        Route::Unknown => Reply::error(Code::NotFound, "there is nothing here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_that_is_moved_for_each_request_is_small() {
        fn size<F>(_: impl FnOnce(Arc<DataPlane>, Call) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(handle) <= 2304, "{} bytes", size(handle));
    }
}
