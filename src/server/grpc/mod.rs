//! The data plane over gRPC: the same handlers behind messages of Protocol Buffers.
//!
//! gRPC is spoken here without a framework: a call is a request of HTTP/2 whose body is framed
//! messages and whose answer ends with a status in its trailers. So calls pass the same stack as
//! requests over HTTP (books, panic net, limits that a reload changes, the clock for slow clients),
//! raw tensors are shared with the body that they came in, and large answers are lent to the socket.
//! Against a bare server of a framework, `load-tests/run grpc` compares.
//!
//! Invariants:
//! - a call ends with exactly one status, and [`status`] is the one place that knows their numbers;
//! - a message is refused by its announced length before it is read, and takes memory as it comes;
//! - a stream ends soon after the server begins to drain, with what it has accepted answered.

mod health;
mod infer;
mod memory;
mod messages;
mod models;
mod reflection;
mod repository;
mod settings;
mod status;
mod stream;

use std::convert::Infallible;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method as HttpMethod};
use prost::Message;

use super::DataPlane;
use super::account::Call;
use super::reply::Reply;
use super::route::Label;
use crate::error::Code;
use crate::protocol::grpc::Reflection;
use messages::Messages;
use status::Status;
pub(super) use status::{number, refuse};

/// What the handlers of gRPC share.
#[derive(Debug)]
pub(super) struct GrpcPlane {
    pub(super) data: Arc<DataPlane>,
    pub(super) reflection: Arc<Reflection>,
}

/// The service of the protocol and of Triton, whose names are the same.
pub(super) const SERVICE: &str = "inference.GRPCInferenceService";

/// A method of one of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    ServerLive,
    ServerReady,
    ModelReady,
    ServerMetadata,
    ModelMetadata,
    ModelInfer,
    ModelStreamInfer,
    ModelConfig,
    ModelStatistics,
    RepositoryIndex,
    RepositoryModelLoad,
    RepositoryModelUnload,
    MemoryStatus,
    MemoryRegister,
    MemoryUnregister,
    CudaMemory,
    TraceSetting,
    LogSettings,
    HealthCheck,
    HealthWatch,
    Reflection,
}

impl Method {
    fn of(path: &str) -> Option<Self> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        Some(match service {
            SERVICE => match method {
                // Nearly all calls are this one.
                "ModelInfer" => Self::ModelInfer,
                "ModelStreamInfer" => Self::ModelStreamInfer,
                "ServerLive" => Self::ServerLive,
                "ServerReady" => Self::ServerReady,
                "ModelReady" => Self::ModelReady,
                "ServerMetadata" => Self::ServerMetadata,
                "ModelMetadata" => Self::ModelMetadata,
                "ModelConfig" => Self::ModelConfig,
                "ModelStatistics" => Self::ModelStatistics,
                "RepositoryIndex" => Self::RepositoryIndex,
                "RepositoryModelLoad" => Self::RepositoryModelLoad,
                "RepositoryModelUnload" => Self::RepositoryModelUnload,
                "SystemSharedMemoryStatus" => Self::MemoryStatus,
                "SystemSharedMemoryRegister" => Self::MemoryRegister,
                "SystemSharedMemoryUnregister" => Self::MemoryUnregister,
                "CudaSharedMemoryStatus"
                | "CudaSharedMemoryRegister"
                | "CudaSharedMemoryUnregister" => Self::CudaMemory,
                "TraceSetting" => Self::TraceSetting,
                "LogSettings" => Self::LogSettings,
                _ => return None,
            },
            "grpc.health.v1.Health" => match method {
                "Check" => Self::HealthCheck,
                "Watch" => Self::HealthWatch,
                _ => return None,
            },
            "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection" => {
                (method == "ServerReflectionInfo").then_some(Self::Reflection)?
            }
            _ => return None,
        })
    }

    fn label(self) -> Label {
        match self {
            Self::ModelInfer => Label::Infer,
            Self::ModelStreamInfer => Label::InferStream,
            Self::ServerMetadata => Label::ServerMetadata,
            Self::ModelReady | Self::ModelMetadata | Self::ModelConfig => Label::Metadata,
            Self::ModelStatistics => Label::Statistics,
            Self::RepositoryIndex | Self::RepositoryModelLoad | Self::RepositoryModelUnload => {
                Label::Repository
            }
            Self::ServerLive | Self::ServerReady | Self::HealthCheck | Self::HealthWatch => {
                Label::Health
            }
            Self::MemoryStatus
            | Self::MemoryRegister
            | Self::MemoryUnregister
            | Self::CudaMemory
            | Self::TraceSetting
            | Self::LogSettings
            | Self::Reflection => Label::Other,
        }
    }
}

/// The method that a path names, where it asks for predictions: those are traced.
pub(super) fn prediction(path: &str) -> Option<&'static str> {
    match Method::of(path)? {
        Method::ModelInfer => Some("ModelInfer"),
        Method::ModelStreamInfer => Some("ModelStreamInfer"),
        _ => None,
    }
}

/// The metric label of a path.
pub(super) fn label(path: &str) -> Label {
    Method::of(path).map_or(Label::Other, Method::label)
}

/// Answers a call. The call has one place in the future, which is moved from layer to layer, and what
/// is seldom called has its memory elsewhere.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would hold the call twice: as its argument and as the variable"
)]
pub(super) fn handle(
    plane: Arc<GrpcPlane>,
    mut call: Call,
) -> impl Future<Output = Result<Reply, Infallible>> + Send {
    async move {
        if let Some(reply) = not_grpc(&call) {
            return Ok(reply);
        }
        let answer = match Method::of(call.head.uri.path()) {
            Some(Method::ModelInfer) => infer::infer(&plane.data, &mut call).await,
            Some(method) => Box::pin(answer(&plane, method, call)).await,
            None => {
                let message = format!("there is no method {}", call.head.uri.path());
                Err(Status::new(Code::Unimplemented, message))
            }
        };
        Ok(answer.unwrap_or_else(Status::reply))
    }
}

async fn answer(plane: &GrpcPlane, method: Method, mut call: Call) -> Result<Reply, Status> {
    let data = &plane.data;
    match method {
        Method::ModelInfer => infer::infer(data, &mut call).await,
        Method::ModelStreamInfer => stream::infer(data, call),
        Method::ServerLive => unary(data, call, models::live).await,
        Method::ServerReady => unary(data, call, models::ready).await,
        Method::ModelReady => unary(data, call, models::model_ready).await,
        Method::ServerMetadata => unary(data, call, models::server_metadata).await,
        Method::ModelMetadata => unary(data, call, models::model_metadata).await,
        Method::ModelConfig => unary(data, call, models::model_config).await,
        Method::ModelStatistics => unary(data, call, models::model_statistics).await,
        Method::RepositoryIndex => unary(data, call, repository::index).await,
        Method::RepositoryModelLoad => repository::load(data, call).await,
        Method::RepositoryModelUnload => repository::unload(data, call).await,
        Method::MemoryStatus => unary(data, call, memory::status).await,
        Method::MemoryRegister => unary(data, call, memory::register).await,
        Method::MemoryUnregister => unary(data, call, memory::unregister).await,
        Method::CudaMemory => Err(memory::no_cuda()),
        Method::TraceSetting => unary(data, call, settings::trace).await,
        Method::LogSettings => unary(data, call, settings::log).await,
        Method::HealthCheck => unary(data, call, health::check).await,
        Method::HealthWatch => health::watch(data, call).await,
        Method::Reflection => reflection::info(plane, call),
    }
}

/// A call of one message, answered by one that is at hand.
async fn unary<Q: Message + Default, A: Message>(
    plane: &DataPlane,
    call: Call,
    answer: impl FnOnce(&DataPlane, Q) -> Result<A, Status>,
) -> Result<Reply, Status> {
    let question = only::<Q>(plane, call).await?;
    Ok(status::message(&answer(plane, question)?))
}

/// The only message of a call.
async fn only<Q: Message + Default>(plane: &DataPlane, call: Call) -> Result<Q, Status> {
    let mut messages = Messages::of(plane, &call.head.headers, call.body, call.received)?;
    Q::decode(messages.only().await?)
        .map_err(|error| Status::new(Code::InvalidArgument, error.to_string()))
}

/// The answer, in words of HTTP, to what is no call of gRPC.
fn not_grpc(call: &Call) -> Option<Reply> {
    if call.head.method != HttpMethod::POST {
        let message = format!("a call of gRPC is a POST, not {}", call.head.method);
        return Some(Reply::error(Code::MethodNotAllowed, &message));
    }
    (!is_grpc(&call.head.headers)).then(|| {
        let message = "this listener speaks gRPC: content-type application/grpc";
        Reply::error(Code::UnsupportedMedia, message)
    })
}

fn is_grpc(head: &HeaderMap) -> bool {
    let Some(content_type) = head.get(CONTENT_TYPE) else { return false };
    let rest = content_type.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest, [] | [b';', ..]) || rest.starts_with(b"+proto"))
}
