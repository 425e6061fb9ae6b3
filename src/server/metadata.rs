//! The documents of the data plane: server, models, configuration, statistics.

use crate::engine::PLATFORM;
use crate::protocol::v2::documents::{
    Counted, InferenceStatistics, ModelConfig, ModelMetadata, ModelReady, ModelStatistics,
    ServerMetadata, StatisticsDocument,
};
use crate::registry::{LiveTable, Model, ResolveError, Serving};

use super::DataPlane;
use super::reply::Reply;
use super::route::Target;
use crate::error::{Code, Fault};
use crate::scheduler::ExecuteError;

/// The extensions of the protocol that work here: exactly these.
const EXTENSIONS: &[&str] = &[
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
];

pub(super) fn server() -> Reply {
    Reply::document(&ServerMetadata {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        extensions: EXTENSIONS,
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
        let versions = match target.version {
            // Asked for one version, the document is about that one.
            Some(_) => vec![version.number_text.as_str()],
            None => model.versions.values().map(|s| s.version.number_text.as_str()).collect(),
        };
        let (signature, labels) = (version.signature(), version.labels.as_slice());
        Reply::document(&ModelMetadata::new(&model.name, versions, PLATFORM, signature, labels))
    })
}

pub(super) fn model_ready(plane: &DataPlane, target: &Target<'_>) -> Reply {
    let table = plane.registry.live();
    match table.resolve(&target.model, target.version.as_deref()) {
        Ok(Serving { version, .. }) if version.executor.is_quarantined() => {
            let error = ExecuteError::Quarantined;
            let message = format!("model '{}' version {} {error}", version.model, version.number);
            Reply::error(error.code(), &message)
        }
        Ok(serving) => Reply::document(&ModelReady { name: &serving.version.model, ready: true }),
        Err(error) => Reply::fault(&error),
    }
}

pub(super) fn model_config(plane: &DataPlane, target: &Target<'_>) -> Reply {
    with(plane, target, |model, serving| {
        let version = &serving.version;
        let batching = (version.max_batch > 1).then(|| version.executor.limits());
        Reply::document(&ModelConfig::new(
            &model.name,
            PLATFORM,
            version.signature(),
            batching.map(|limits| (limits.max_batch, limits.max_delay)),
        ))
    })
}

pub(super) fn model_statistics(plane: &DataPlane, target: &Target<'_>) -> Reply {
    let table = plane.registry.live();
    let model = match table.model(&target.model) {
        Ok(model) => model,
        Err(error) => return Reply::fault(&error),
    };
    let servings = match &target.version {
        None => model.versions.values().collect(),
        Some(version) => match table.resolve(&target.model, Some(version)) {
            Ok(serving) => vec![serving],
            Err(error) => return Reply::fault(&error),
        },
    };
    statistics(servings)
}

pub(super) fn all_statistics(plane: &DataPlane) -> Reply {
    let table = plane.registry.live();
    let mut servings: Vec<&Serving> = table.servings().collect();
    servings.sort_unstable_by_key(|serving| (&serving.version.model, serving.version.number));
    statistics(servings)
}

fn statistics(servings: Vec<&Serving>) -> Reply {
    let models = servings.into_iter().map(|serving| {
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
    });
    Reply::document(&StatisticsDocument { model_stats: models.collect() })
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

fn find<'a>(
    table: &'a LiveTable,
    target: &Target<'_>,
) -> Result<(&'a Model, &'a Serving), ResolveError> {
    let model = table.model(&target.model)?;
    let serving = table.resolve(&target.model, target.version.as_deref())?;
    Ok((model, serving))
}
