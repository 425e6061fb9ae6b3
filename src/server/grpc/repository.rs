//! The model repository: index, load, unload.

use super::DataPlane;
use super::status::{self, Status};
use crate::protocol::grpc::proto::repository_index_response::ModelIndex;
use crate::protocol::grpc::proto::{
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse,
};
use crate::server::account::Call;
use crate::server::control;
use crate::server::reply::Reply;

pub(super) fn index(
    plane: &DataPlane,
    request: RepositoryIndexRequest,
) -> Result<RepositoryIndexResponse, Status> {
    let table = plane.registry.live();
    let models = control::entries(&table, request.ready).map(|entry| ModelIndex {
        name: entry.model.to_string(),
        version: entry.version.map(|version| version.to_string()).unwrap_or_default(),
        state: entry.state.name().to_owned(),
        reason: entry.reason.clone(),
    });
    Ok(RepositoryIndexResponse { models: models.collect() })
}

pub(super) async fn load(plane: &DataPlane, call: Call) -> Result<Reply, Status> {
    let request: RepositoryModelLoadRequest = super::only(plane, call).await?;
    let parameters: Vec<&str> = request.parameters.keys().map(String::as_str).collect();
    control::load_model(plane, &request.model_name, &parameters).await?;
    Ok(status::message(&RepositoryModelLoadResponse {}))
}

pub(super) async fn unload(plane: &DataPlane, call: Call) -> Result<Reply, Status> {
    let request: RepositoryModelUnloadRequest = super::only(plane, call).await?;
    control::unload_model(plane, &request.model_name).await?;
    Ok(status::message(&RepositoryModelUnloadResponse {}))
}
