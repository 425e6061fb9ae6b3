//! `grpc.health.v1`: whether the server, or a model, is ready.

use std::sync::Arc;
use std::time::Duration;

use super::DataPlane;
use super::status::Status;
use super::stream::{self, Cause, drains};
use crate::error::Code;
use crate::protocol::grpc::frame;
use crate::protocol::grpc::proto::health::health_check_response::ServingStatus;
use crate::protocol::grpc::proto::health::{HealthCheckRequest, HealthCheckResponse};
use crate::registry::ResolveError;
use crate::server::account::Call;
use crate::server::metadata::{self, NotReady};
use crate::server::reply::Reply;
use crate::server::route::Target;

/// How often a watch looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// The services of this listener, which are ready when the server is.
const SERVICES: [&str; 5] = [
    "",
    "inference.GRPCInferenceService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Answers `Check`.
pub(super) fn check(
    plane: &DataPlane,
    request: HealthCheckRequest,
) -> Result<HealthCheckResponse, Status> {
    match serving(plane, &request.service) {
        ServingStatus::ServiceUnknown => {
            let message = format!(
                "service '{}' is not known; expected nothing, a service, a model, or model/version",
                request.service
            );
            Err(Status::new(Code::NotFound, message))
        }
        serving => Ok(HealthCheckResponse { status: serving.into() }),
    }
}

/// Answers `Watch`: what is so, and again whenever it changes.
pub(super) async fn watch(plane: &Arc<DataPlane>, call: Call) -> Result<Reply, Status> {
    let request: HealthCheckRequest = super::only(plane, call).await?;
    let plane = Arc::clone(plane);
    Ok(stream::reply(move |frames| async move {
        let mut told = None;
        let mut drain = plane.drain.clone();
        loop {
            let now = serving(&plane, &request.service);
            if told != Some(now) {
                told = Some(now);
                let message = frame(&HealthCheckResponse { status: now.into() });
                if frames.send(message.into()).await.is_err() {
                    return Err(Cause::Gone.into());
                }
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = drains(&mut drain) => return Err(Cause::Drain.into()),
            }
        }
    }))
}

fn serving(plane: &DataPlane, service: &str) -> ServingStatus {
    let table = plane.registry.live();
    let of = |ready| if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    if SERVICES.contains(&service) {
        return of(plane.health.not_ready(&table).is_none());
    }
    let (model, version) = match service.split_once('/') {
        Some((model, version)) => (model, Some(version)),
        None => (service, None),
    };
    let target = Target { model: model.into(), version: version.map(Into::into) };
    match metadata::ready_model(&table, &target) {
        Err(NotReady::Resolve(ResolveError::NoModel { .. } | ResolveError::NoVersion { .. })) => {
            ServingStatus::ServiceUnknown
        }
        ready => of(ready.is_ok()),
    }
}
