//! What the server and its models are, and whether they are ready.

use super::DataPlane;
use super::status::Status;
use crate::engine::PLATFORM;
use crate::protocol::grpc::documents;
use crate::protocol::grpc::proto::{
    ModelConfigRequest, ModelConfigResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
    ServerReadyRequest, ServerReadyResponse,
};
use crate::server::metadata;
use crate::server::route::Target;

pub(super) fn live(_: &DataPlane, _: ServerLiveRequest) -> Result<ServerLiveResponse, Status> {
    Ok(ServerLiveResponse { live: true })
}

pub(super) fn ready(
    plane: &DataPlane,
    _: ServerReadyRequest,
) -> Result<ServerReadyResponse, Status> {
    let ready = plane.health.not_ready(&plane.registry.live()).is_none();
    Ok(ServerReadyResponse { ready })
}

/// Of a model that is not known or does not serve, "not ready" is the answer and no error: that is
/// what clients wait for.
pub(super) fn model_ready(
    plane: &DataPlane,
    request: ModelReadyRequest,
) -> Result<ModelReadyResponse, Status> {
    let table = plane.registry.live();
    let ready = metadata::ready_model(&table, &target(request.name, request.version)).is_ok();
    Ok(ModelReadyResponse { ready })
}

pub(super) fn server_metadata(
    plane: &DataPlane,
    _: ServerMetadataRequest,
) -> Result<ServerMetadataResponse, Status> {
    Ok(ServerMetadataResponse {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: metadata::extensions(plane).iter().map(|&name| name.to_owned()).collect(),
    })
}

pub(super) fn model_metadata(
    plane: &DataPlane,
    request: ModelMetadataRequest,
) -> Result<ModelMetadataResponse, Status> {
    let table = plane.registry.live();
    let target = target(request.name, request.version);
    let (model, serving) = metadata::find(&table, &target)?;
    let versions = metadata::versions(model, serving, &target);
    let signature = serving.version.signature();
    Ok(documents::model_metadata(&model.name, &versions, PLATFORM, signature))
}

pub(super) fn model_config(
    plane: &DataPlane,
    request: ModelConfigRequest,
) -> Result<ModelConfigResponse, Status> {
    let table = plane.registry.live();
    let target = target(request.name, request.version);
    let (model, serving) = metadata::find(&table, &target)?;
    let version = &serving.version;
    let batching = metadata::batching(version);
    let config = documents::model_config(&model.name, PLATFORM, version.signature(), batching);
    Ok(ModelConfigResponse { config: Some(config) })
}

pub(super) fn model_statistics(
    plane: &DataPlane,
    request: ModelStatisticsRequest,
) -> Result<ModelStatisticsResponse, Status> {
    let table = plane.registry.live();
    let is_all = request.name.is_empty();
    let target = target(request.name, request.version);
    let servings = metadata::servings(&table, Some(&target).filter(|_| !is_all))?;
    let statistics = servings.into_iter().map(metadata::statistics);
    let model_stats = statistics.map(|of_one| documents::model_statistics(&of_one)).collect();
    Ok(ModelStatisticsResponse { model_stats })
}

/// A model, and the version or alias where one is named.
pub(super) fn target(model: String, version: String) -> Target<'static> {
    let version = Some(version).filter(|version| !version.is_empty());
    Target { model: model.into(), version: version.map(Into::into) }
}
