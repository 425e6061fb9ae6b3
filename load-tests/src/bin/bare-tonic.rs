//! The ceiling over gRPC: what tonic serves on this machine when it reads the request and does
//! nothing else. Its service is generated as for any server of tonic's, and answers a constant.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use load_tests::grpc::proto::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use load_tests::grpc::proto::{self, ModelInferRequest, ModelInferResponse};
use prost::Message;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Serves a fixed answer to ModelInfer, as fast as tonic can.
#[derive(Parser)]
struct Options {
    /// Where to listen; only loopback addresses are accepted
    #[arg(long)]
    listen: SocketAddr,
    /// File with the message to answer with
    #[arg(long, value_name = "FILE")]
    answer: PathBuf,
}

struct Constant(ModelInferResponse);

/// The stream that no method here gives.
type Never = std::pin::Pin<
    Box<
        dyn tonic::codegen::tokio_stream::Stream<
                Item = Result<proto::ModelStreamInferResponse, Status>,
            > + Send,
    >,
>;

macro_rules! service {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl GrpcInferenceService for Constant {
            async fn model_infer(
                &self,
                request: Request<ModelInferRequest>,
            ) -> Result<Response<ModelInferResponse>, Status> {
                let request = request.into_inner();
                if request.inputs.len() != request.raw_input_contents.len() {
                    return Err(Status::invalid_argument("not a request that this server reads"));
                }
                Ok(Response::new(self.0.clone()))
            }

            async fn server_ready(
                &self,
                _: Request<proto::ServerReadyRequest>,
            ) -> Result<Response<proto::ServerReadyResponse>, Status> {
                Ok(Response::new(proto::ServerReadyResponse { ready: true }))
            }

            type ModelStreamInferStream = Never;

            async fn model_stream_infer(
                &self,
                _: Request<Streaming<ModelInferRequest>>,
            ) -> Result<Response<Never>, Status> {
                Err(Status::unimplemented("a bare server"))
            }

            $(async fn $method(
                &self,
                _: Request<proto::$request>,
            ) -> Result<Response<proto::$response>, Status> {
                Err(Status::unimplemented("a bare server"))
            })*
        }
    };
}

service! {
    server_live(ServerLiveRequest) -> ServerLiveResponse;
    model_ready(ModelReadyRequest) -> ModelReadyResponse;
    server_metadata(ServerMetadataRequest) -> ServerMetadataResponse;
    model_metadata(ModelMetadataRequest) -> ModelMetadataResponse;
    model_config(ModelConfigRequest) -> ModelConfigResponse;
    model_statistics(ModelStatisticsRequest) -> ModelStatisticsResponse;
    repository_index(RepositoryIndexRequest) -> RepositoryIndexResponse;
    repository_model_load(RepositoryModelLoadRequest) -> RepositoryModelLoadResponse;
    repository_model_unload(RepositoryModelUnloadRequest) -> RepositoryModelUnloadResponse;
    system_shared_memory_status(SystemSharedMemoryStatusRequest) -> SystemSharedMemoryStatusResponse;
    system_shared_memory_register(SystemSharedMemoryRegisterRequest) -> SystemSharedMemoryRegisterResponse;
    system_shared_memory_unregister(SystemSharedMemoryUnregisterRequest) -> SystemSharedMemoryUnregisterResponse;
    cuda_shared_memory_status(CudaSharedMemoryStatusRequest) -> CudaSharedMemoryStatusResponse;
    cuda_shared_memory_register(CudaSharedMemoryRegisterRequest) -> CudaSharedMemoryRegisterResponse;
    cuda_shared_memory_unregister(CudaSharedMemoryUnregisterRequest) -> CudaSharedMemoryUnregisterResponse;
    trace_setting(TraceSettingRequest) -> TraceSettingResponse;
    log_settings(LogSettingsRequest) -> LogSettingsResponse;
}

// One worker thread for each core, which is tokio's default.
#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if !options.listen.ip().is_loopback() {
        return Err(format!("{} is not a loopback address", options.listen.ip()).into());
    }
    let answer = ModelInferResponse::decode(&*std::fs::read(&options.answer)?)?;
    let service = GrpcInferenceServiceServer::new(Constant(answer));
    Server::builder().tcp_nodelay(true).add_service(service).serve(options.listen).await?;
    Ok(())
}
