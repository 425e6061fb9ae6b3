//! A gRPC client on the messages of the library, without generated code.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use tidegate::protocol::grpc::proto::model_infer_request::InferInputTensor;
use tidegate::protocol::grpc::proto::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use tidegate::tensor::Tensor;
use tokio::runtime::{Builder, Runtime};
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::harness::LIMIT;

pub(crate) const INFERENCE: &str = "inference.GRPCInferenceService";

pub(crate) struct Client {
    pub(crate) runtime: Runtime,
    channel: Channel,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        let channel = {
            let _entered = runtime.enter();
            endpoint.timeout(LIMIT).connect_lazy()
        };
        Self { runtime, channel }
    }

    pub(crate) fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone()).max_decoding_message_size(1 << 30)
    }

    /// One call of the inference service.
    pub(crate) fn call<Q, A>(&self, method: &str, message: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.ask(INFERENCE, method, Request::new(message)).map(Response::into_inner)
    }

    /// One call of any service.
    pub(crate) fn ask<Q, A>(
        &self,
        service: &str,
        method: &str,
        request: Request<Q>,
    ) -> Result<Response<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.runtime.block_on(unary(self.grpc(), service, method, request))
    }

    pub(crate) fn infer(&self, request: ModelInferRequest) -> Result<ModelInferResponse, Status> {
        self.call("ModelInfer", request)
    }

    /// A prediction whose messages are compressed.
    pub(crate) fn infer_zipped(
        &self,
        request: ModelInferRequest,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let gzip = CompressionEncoding::Gzip;
        let grpc = self.grpc().send_compressed(gzip).accept_compressed(gzip);
        self.runtime.block_on(unary(grpc, INFERENCE, "ModelInfer", Request::new(request)))
    }
}

pub(crate) async fn unary<Q, A>(
    mut grpc: Grpc<Channel>,
    service: &str,
    method: &str,
    request: Request<Q>,
) -> Result<Response<A>, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    grpc.unary(request, path(service, method), ProstCodec::default()).await
}

pub(crate) fn path(service: &str, method: &str) -> PathAndQuery {
    format!("/{service}/{method}").parse().unwrap()
}

/// A request for `model` with raw contents.
pub(crate) fn raw(model: &str, tensors: &[(&str, &Tensor)]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: tensors.iter().map(|(name, tensor)| input(name, tensor)).collect(),
        raw_input_contents: tensors.iter().map(|(_, tensor)| tensor.data().clone()).collect(),
        ..ModelInferRequest::default()
    }
}

/// The same with typed contents.
pub(crate) fn typed(model: &str, name: &str, tensor: &Tensor) -> ModelInferRequest {
    let contents = Some(contents(tensor));
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![InferInputTensor { contents, ..input(name, tensor) }],
        ..ModelInferRequest::default()
    }
}

fn input(name: &str, tensor: &Tensor) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: tensor.datatype().name().to_owned(),
        shape: tensor.shape().iter().map(|&dim| dim as i64).collect(),
        ..InferInputTensor::default()
    }
}

fn contents(tensor: &Tensor) -> InferTensorContents {
    use tidegate::tensor::Datatype::{
        Bool, Bytes as Strings, Fp32, Fp64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32,
        Uint64,
    };
    let data = tensor.data();
    let mut contents = InferTensorContents::default();
    macro_rules! put {
        ($field:ident, $type:ty) => {
            contents.$field = data
                .chunks_exact(size_of::<$type>())
                .map(|chunk| <$type>::from_le_bytes(chunk.try_into().unwrap()).into())
                .collect()
        };
    }
    match tensor.datatype() {
        Bool => contents.bool_contents = data.iter().map(|&byte| byte == 1).collect(),
        Int8 => put!(int_contents, i8),
        Int16 => put!(int_contents, i16),
        Int32 => put!(int_contents, i32),
        Int64 => put!(int64_contents, i64),
        Uint8 => put!(uint_contents, u8),
        Uint16 => put!(uint_contents, u16),
        Uint32 => put!(uint_contents, u32),
        Uint64 => put!(uint64_contents, u64),
        Fp32 => put!(fp32_contents, f32),
        Fp64 => put!(fp64_contents, f64),
        Strings => {
            contents.bytes_contents = tensor.elements().map(Bytes::copy_from_slice).collect();
        }
        other => panic!("{other} has no typed contents"),
    }
    contents
}

/// The answer's only output.
pub(crate) fn output(response: &ModelInferResponse) -> Tensor {
    let [output] = response.outputs.as_slice() else { panic!("{response:?}") };
    assert_eq!(output.contents, None, "answers are raw");
    let datatype = tidegate::tensor::Datatype::from_name(&output.datatype).unwrap();
    let shape: Vec<usize> = output.shape.iter().map(|&dim| dim as usize).collect();
    Tensor::new(datatype, shape.as_slice(), response.raw_output_contents[0].clone()).unwrap()
}

/// How long a call that must not last is waited for.
pub(crate) const SOON: Duration = Duration::from_secs(20);
