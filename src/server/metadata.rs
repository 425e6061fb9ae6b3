//! The documents of the data plane: server, models, configuration, statistics.

use std::time::Duration;

use crate::engine::PLATFORM;
use crate::protocol::v2::documents::{
    Counted, InferenceStatistics, ModelConfig, ModelMetadata, ModelReady, ModelStatistics,
    ServerMetadata, StatisticsDocument,
};
use crate::registry::{LiveTable, Model, ResolveError, Serving, Version};

use super::DataPlane;
use super::reply::Reply;
use super::route::Target;
use crate::error::{Code, Fault};
use crate::scheduler::ExecuteError;

/// The extensions of the protocol that work here: exactly these, the last where it is on.
const EXTENSIONS: &[&str] = &[
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
    "system_shared_memory",
];

/// The extensions that work.
pub(super) fn extensions(plane: &DataPlane) -> &'static [&'static str] {
    let n_off = usize::from(plane.regions.is_none());
    &EXTENSIONS[..EXTENSIONS.len() - n_off]
}

pub(super) fn server(plane: &DataPlane) -> Reply {
    Reply::document(&ServerMetadata {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        extensions: extensions(plane),
    })
}

pub(super) fn live() -> Reply {
    Reply::document(&serde_json::json!({ "live": true }))
}

pub(super) fn ready(plane: &DataPlane) -> Reply {
    let not_ready = plane.health.not_ready(&plane.registry.live());
    match not_ready {
        None => Reply::document(&serde_json::json!({ "ready": true })),
        Some(reason) => {
            let document = serde_json::json!({ "ready": false, "error": reason });
            Reply::coded_document(Code::Unavailable, &document)
        }
    }
}

/// The names of the models that serve, as KServe lists them.
pub(super) fn models(plane: &DataPlane) -> Reply {
    let table = plane.registry.live();
    let mut models: Vec<&str> = table.models.keys().map(|name| &**name).collect();
    models.sort_unstable();
    Reply::document(&serde_json::json!({ "models": models }))
}

pub(super) fn model(plane: &DataPlane, target: &Target<'_>) -> Reply {
    with(plane, target, |model, serving| {
        let version = &serving.version;
        let versions = versions(model, serving, target);
        let (signature, labels) = (version.signature(), version.labels.as_slice());
        Reply::document(&ModelMetadata::new(&model.name, versions, PLATFORM, signature, labels))
    })
}

/// The versions that a model's metadata name.
pub(super) fn versions<'a>(
    model: &'a Model,
    serving: &'a Serving,
    target: &Target<'_>,
) -> Vec<&'a str> {
    match target.version {
        // Asked for one version, the document is about that one.
        Some(_) => vec![serving.version.number_text.as_str()],
        None => model.versions.values().map(|s| s.version.number_text.as_str()).collect(),
    }
}

pub(super) fn model_ready(plane: &DataPlane, target: &Target<'_>) -> Reply {
    let table = plane.registry.live();
    match ready_model(&table, target) {
        Ok(serving) => Reply::document(&ModelReady { name: &serving.version.model, ready: true }),
        Err(error) => Reply::fault(&error),
    }
}

/// Why a model is not ready for predictions.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReady {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("model '{model}' version {version} {error}")]
    Executor { model: String, version: u64, error: ExecuteError },
}

impl Fault for NotReady {
    fn code(&self) -> Code {
        match self {
            Self::Resolve(error) => error.code(),
            Self::Executor { error, .. } => error.code(),
        }
    }
}

/// The version that is asked about, where it is ready.
pub(super) fn ready_model<'a>(
    table: &'a LiveTable,
    target: &Target<'_>,
) -> Result<&'a Serving, NotReady> {
    let serving = table.resolve(&target.model, target.version.as_deref())?;
    let version = &serving.version;
    if version.executor.is_quarantined() {
        return Err(NotReady::Executor {
            model: version.model.to_string(),
            version: version.number,
            error: ExecuteError::Quarantined,
        });
    }
    Ok(serving)
}

pub(super) fn model_config(plane: &DataPlane, target: &Target<'_>) -> Reply {
    with(plane, target, |model, serving| {
        let version = &serving.version;
        let signature = version.signature();
        Reply::document(&ModelConfig::new(&model.name, PLATFORM, signature, batching(version)))
    })
}

/// The rows of a batch and its delay, where the configuration asks for batches.
pub(super) fn batching(version: &Version) -> Option<(usize, Duration)> {
    let limits = (version.max_batch > 1).then(|| version.executor.limits());
    limits.map(|limits| (limits.max_batch, limits.max_delay))
}

pub(super) fn model_statistics(plane: &DataPlane, target: &Target<'_>) -> Reply {
    let table = plane.registry.live();
    match servings(&table, Some(target)) {
        Ok(servings) => {
            let model_stats = servings.into_iter().map(statistics).collect();
            Reply::document(&StatisticsDocument { model_stats })
        }
        Err(error) => Reply::fault(&error),
    }
}

pub(super) fn all_statistics(plane: &DataPlane) -> Reply {
    let table = plane.registry.live();
    let servings = servings(&table, None).unwrap_or_default();
    let model_stats = servings.into_iter().map(statistics).collect();
    Reply::document(&StatisticsDocument { model_stats })
}

/// The versions that statistics are asked of: all of a model, one, or, without a target, all.
pub(super) fn servings<'a>(
    table: &'a LiveTable,
    target: Option<&Target<'_>>,
) -> Result<Vec<&'a Serving>, ResolveError> {
    let Some(target) = target else {
        let mut servings: Vec<&Serving> = table.servings().collect();
        servings.sort_unstable_by_key(|serving| (&serving.version.model, serving.version.number));
        return Ok(servings);
    };
    let model = table.model(&target.model)?;
    match &target.version {
        None => Ok(model.versions.values().collect()),
        Some(version) => Ok(vec![table.resolve(&target.model, Some(version))?]),
    }
}

/// What a version has done so far.
pub(super) fn statistics(serving: &Serving) -> ModelStatistics<'_> {
    let version = &serving.version;
    let view = version.statistics.view();
    let (count, _) = view.success;
    ModelStatistics {
        name: &version.model,
        version: &version.number_text,
        last_inference: view.last_ms,
        inference_count: view.rows,
        execution_count: view.executions,
        inference_stats: InferenceStatistics {
            success: Counted { count, ns: view.success.1 },
            fail: Counted { count: view.fail.0, ns: view.fail.1 },
            queue: Counted { count, ns: view.queue_ns },
            compute_input: Counted { count, ns: view.input_ns },
            compute_infer: Counted { count, ns: view.infer_ns },
            compute_output: Counted { count, ns: view.output_ns },
            ..InferenceStatistics::default()
        },
        ..ModelStatistics::default()
    }
}

fn with(
    plane: &DataPlane,
    target: &Target<'_>,
    document: impl FnOnce(&Model, &Serving) -> Reply,
) -> Reply {
    let table = plane.registry.live();
    match find(&table, target) {
        Ok((model, serving)) => document(model, serving),
        Err(error) => Reply::fault(&error),
    }
}

pub(super) fn find<'a>(
    table: &'a LiveTable,
    target: &Target<'_>,
) -> Result<(&'a Model, &'a Serving), ResolveError> {
    let model = table.model(&target.model)?;
    let serving = table.resolve(&target.model, target.version.as_deref())?;
    Ok((model, serving))
}
