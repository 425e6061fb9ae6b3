//! The admin plane: metrics, status, configuration. On a listener, a thread and a runtime of its
//! own, so that it answers while the data plane is saturated.

use std::sync::Arc;

use http::HeaderValue;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::account::Call;
use super::reply::Reply;
use super::route::{Label, Methods};
use super::{Health, body, compare, drift, openapi, rollout};
use crate::engine::ENGINE;
use crate::error::{Code, Fault};
use crate::observe::Monitors;
use crate::observe::shadow::Shadows;
use crate::registry::Registry;
use crate::rollout::Rollouts;
use crate::telemetry::Telemetry;

const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

const LARGEST_BODY: u64 = 16 << 20;
pub(super) const BODY_TIME: std::time::Duration = std::time::Duration::from_secs(10);

/// What the admin plane asks of whoever owns the configuration.
#[derive(Debug)]
pub enum ConfigRequest {
    /// Read the file again and apply it.
    Reload(oneshot::Sender<ConfigOutcome>),
    /// Say what applying this text, or the file where there is none, would change.
    Plan(Option<String>, oneshot::Sender<ConfigOutcome>),
}

/// What came of it: lines that say what changed, or why nothing did.
pub type ConfigOutcome = Result<Vec<String>, ConfigFault>;

/// Why a configuration was not applied.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ConfigFault {
    /// The code that it is reported under.
    pub code: Code,
    /// What is wrong, with keys and lines.
    pub message: String,
}

impl Fault for ConfigFault {
    fn code(&self) -> Code {
        self.code
    }
}

/// The last attempt to change the running configuration.
#[derive(Debug, Clone, Default, Serialize, utoipa::ToSchema)]
pub struct LastReload {
    /// When the running configuration was applied, in seconds since 1970.
    pub applied_at: u64,
    /// The outcome of the last attempt: `applied`, `unchanged` or `refused`.
    pub outcome: &'static str,
    /// When the last attempt was made, in seconds since 1970.
    pub attempted_at: u64,
    /// Why it was refused.
    pub reason: Option<String>,
    /// Keys that differ from the file and need a restart.
    pub needs_restart: Vec<String>,
}

/// What the admin plane's handlers share.
#[derive(Debug)]
pub struct AdminPlane {
    pub(super) registry: Registry,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) health: Arc<Health>,
    pub(super) monitors: Monitors,
    pub(super) rollouts: Rollouts,
    pub(super) shadows: Shadows,
    pub(super) config: mpsc::Sender<ConfigRequest>,
    pub(super) last_reload: Arc<std::sync::Mutex<LastReload>>,
    /// When the process started, in seconds since 1970.
    pub(super) started_at: u64,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Status<'a> {
    name: &'static str,
    version: &'static str,
    engine: &'a str,
    started_at: u64,
    ready: bool,
    not_ready_because: Option<String>,
    generation: u64,
    configuration: Configuration<'a>,
    models: Vec<ModelStatus<'a>>,
    troubles: Vec<String>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Configuration<'a> {
    digest: &'a str,
    #[serde(flatten)]
    last: LastReload,
}

#[derive(Serialize, utoipa::ToSchema)]
struct ModelStatus<'a> {
    name: &'a str,
    description: Option<&'a str>,
    owner: Option<&'a str>,
    primary: u64,
    aliases: &'a std::collections::BTreeMap<String, u64>,
    /// Version and share of each.
    canaries: &'a [(u64, f64)],
    /// Version and share of each.
    shadows: &'a [(u64, f64)],
    /// Addresses.
    remote_shadows: Vec<String>,
    /// Whether a rollout decides this, and not the configuration.
    steered: bool,
    versions: Vec<VersionStatus<'a>>,
}

#[derive(Serialize, utoipa::ToSchema)]
struct VersionStatus<'a> {
    version: u64,
    slot: &'static str,
    digest: &'a str,
    bytes: usize,
    plan: String,
    golden_cases: usize,
    load_ms: f64,
    expected_us: f64,
    in_flight: usize,
    /// Whether it is watched for drift.
    watched: bool,
    /// Why it is not, although it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    unwatched_because: Option<&'a str>,
}

pub(super) fn label(path: &str) -> Label {
    match path {
        "/metrics" => Label::Metrics,
        "/health/live" | "/health/ready" => Label::Health,
        "/openapi.json" => Label::ServerMetadata,
        _ if path.starts_with("/api/") => Label::Admin,
        _ => Label::Other,
    }
}

pub(super) async fn handle(plane: &AdminPlane, call: Call) -> Reply {
    // Cheap to share, and what is asked borrows from it.
    let uri = call.head.uri.clone();
    let path = uri.path();
    let is_options = call.head.method == http::Method::OPTIONS;
    if let Some(ask) = drift::Ask::of(path) {
        if is_options {
            return Reply::options(ask.methods().as_str());
        }
        return match ask.methods().allow(&call.head.method) {
            true => drift::handle(plane, call, &ask).await,
            false => Reply::method_not_allowed(&call.head.method, path, ask.methods()),
        };
    }
    if let Some(ask) = rollout::Ask::of(path) {
        return match ask.methods().allow(&call.head.method) {
            true => rollout::handle(plane, call, &ask).await,
            false => Reply::method_not_allowed(&call.head.method, path, ask.methods()),
        };
    }
    if let Some(model) = compare::model_of(path) {
        return match Methods::Get.allow(&call.head.method) {
            true => compare::handle(plane, uri.query(), model),
            false => Reply::method_not_allowed(&call.head.method, path, Methods::Get),
        };
    }
    let methods = match path {
        "/" | "/openapi.json" | "/metrics" | "/health/live" | "/health/ready"
        | "/api/v1/status" => Methods::Get,
        "/api/v1/config/reload" | "/api/v1/config/plan" => Methods::Post,
        _ => {
            let message = format!("there is nothing at {path}; GET / lists what there is");
            return Reply::error(Code::NotFound, &message);
        }
    };
    if is_options {
        return Reply::options(methods.as_str());
    }
    if !methods.allow(&call.head.method) {
        return Reply::method_not_allowed(&call.head.method, path, methods);
    }
    match path {
        "/openapi.json" => openapi::admin(),
        "/metrics" => Reply::ok(METRICS_TYPE, plane.telemetry.render()),
        "/health/live" => Reply::document(&serde_json::json!({ "live": true })),
        "/health/ready" => match plane.health.not_ready(&plane.registry.live()) {
            None => Reply::document(&serde_json::json!({ "ready": true })),
            Some(reason) => Reply::error(Code::Unavailable, &reason),
        },
        "/api/v1/status" => status(plane),
        "/api/v1/config/reload" => {
            let (sender, outcome) = oneshot::channel();
            changed(ask(plane, ConfigRequest::Reload(sender), outcome).await)
        }
        "/api/v1/config/plan" => {
            let text = body::read(&call.head, call.body, LARGEST_BODY, BODY_TIME).await;
            let text = match text {
                Ok(text) => String::from_utf8_lossy(&text).into_owned(),
                Err(error) => return Reply::fault(&error),
            };
            let (sender, outcome) = oneshot::channel();
            let text = Some(text).filter(|text| !text.is_empty());
            changed(ask(plane, ConfigRequest::Plan(text, sender), outcome).await)
        }
        _ => Reply::document(&serde_json::json!({
            "get": [
                "/openapi.json", "/metrics", "/health/live", "/health/ready", "/api/v1/status", "/api/v1/drift",
                "/api/v1/drift/{model}", "/api/v1/drift/{model}/{version}",
                "/api/v1/drift/{model}/{version}/baseline",
                "/api/v1/drift/{model}/{version}/history?feature=",
                "/api/v1/drift/{model}/{version}/histogram?feature=&window=",
                "/api/v1/events?after=", "/api/v1/rollouts", "/api/v1/rollouts/{model}",
                "/api/v1/history?model=&most=",
                "/api/v1/compare", "/api/v1/compare/{model}?primary=&candidate=",
            ],
            "post": [
                "/api/v1/config/reload", "/api/v1/config/plan",
                "/api/v1/drift/{model}/{version}/acknowledge",
                "/api/v1/drift/{model}/{version}/freeze",
                "/api/v1/drift/{model}/{version}/rebase",
                "/api/v1/rollouts/{model}/start", "/api/v1/rollouts/{model}/pause",
                "/api/v1/rollouts/{model}/resume", "/api/v1/rollouts/{model}/abort",
                "/api/v1/rollouts/{model}/promote", "/api/v1/rollouts/{model}/rollback",
                "/api/v1/rollouts/{model}/release",
            ],
        })),
    }
}

async fn ask(
    plane: &AdminPlane,
    request: ConfigRequest,
    outcome: oneshot::Receiver<ConfigOutcome>,
) -> ConfigOutcome {
    let gone = || ConfigFault {
        code: Code::Unavailable,
        message: "the server is shutting down".to_owned(),
    };
    plane.config.send(request).await.map_err(|_| gone())?;
    outcome.await.unwrap_or_else(|_| Err(gone()))
}

fn changed(outcome: ConfigOutcome) -> Reply {
    match outcome {
        Ok(changes) => Reply::document(&serde_json::json!({ "changes": changes })),
        Err(fault) => Reply::fault(&fault),
    }
}

fn status(plane: &AdminPlane) -> Reply {
    let table = plane.registry.live();
    let not_ready_because = plane.health.not_ready(&table);
    let last = plane.last_reload.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let mut models: Vec<ModelStatus<'_>> = table
        .models
        .values()
        .map(|model| ModelStatus {
            name: &model.name,
            description: model.description.as_deref(),
            owner: model.owner.as_deref(),
            primary: model.policy.primary,
            aliases: &model.policy.aliases,
            canaries: &model.policy.canaries,
            shadows: &model.policy.shadows,
            remote_shadows: {
                let remotes = model.copies.iter().flat_map(|copies| &copies.remotes);
                remotes.map(|remote| remote.name(&model.name)).collect()
            },
            steered: model.policy.is_steered,
            versions: model
                .versions
                .values()
                .map(|serving| {
                    let version = &serving.version;
                    VersionStatus {
                        version: version.number,
                        slot: serving.slot.label(),
                        digest: &version.loaded.digest,
                        bytes: version.loaded.size,
                        plan: version.loaded.plan.rung().to_string(),
                        golden_cases: version.loaded.n_golden,
                        load_ms: version.loaded.took.as_secs_f64() * 1e3,
                        expected_us: version.executor.expected_cost().as_secs_f64() * 1e6,
                        in_flight: version.executor.in_flight(),
                        watched: version.recorder.is_some(),
                        unwatched_because: version.unwatched.as_deref(),
                    }
                })
                .collect(),
        })
        .collect();
    models.sort_unstable_by_key(|model| model.name);
    Reply::document(&Status {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        engine: &ENGINE,
        started_at: plane.started_at,
        ready: not_ready_because.is_none(),
        not_ready_because,
        generation: table.generation,
        configuration: Configuration { digest: &table.config.digest, last },
        models,
        troubles: table.index.iter().filter(|e| e.is_trouble()).map(ToString::to_string).collect(),
    })
}
