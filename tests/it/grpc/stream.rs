//! Calls of many messages: predictions in a stream, watched health, reflection.

use std::time::Duration;

use tidegate::protocol::grpc::proto::health::health_check_response::ServingStatus;
use tidegate::protocol::grpc::proto::health::{HealthCheckRequest, HealthCheckResponse};
use tidegate::protocol::grpc::proto::infer_parameter::ParameterChoice;
use tidegate::protocol::grpc::proto::reflection::server_reflection_request::MessageRequest;
use tidegate::protocol::grpc::proto::reflection::server_reflection_response::MessageResponse;
use tidegate::protocol::grpc::proto::reflection::{
    ServerReflectionRequest, ServerReflectionResponse,
};
use tidegate::protocol::grpc::proto::{ModelInferRequest, ModelStreamInferResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::client::{Client, INFERENCE, SOON, path, raw};
use super::{digit, refused};
use crate::harness::{Setup, eventually};
use crate::onnx;

struct Stream {
    requests: Option<mpsc::Sender<ModelInferRequest>>,
    answers: Streaming<ModelStreamInferResponse>,
}

impl Stream {
    async fn open(client: &Client, metadata: &[(&'static str, &str)]) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(64);
        let mut request = Request::new(ReceiverStream::new(receiver));
        for (name, value) in metadata {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        let mut grpc = client.grpc();
        grpc.ready().await.unwrap();
        let path = path(INFERENCE, "ModelStreamInfer");
        let answers = grpc.streaming(request, path, ProstCodec::default()).await?.into_inner();
        Ok(Self { requests: Some(requests), answers })
    }

    async fn send(&self, request: ModelInferRequest) {
        self.requests.as_ref().unwrap().send(request).await.unwrap();
    }

    async fn next(&mut self) -> Result<Option<ModelStreamInferResponse>, Status> {
        tokio::time::timeout(SOON, self.answers.message()).await.expect("an answer in time")
    }
}

fn numbered(number: usize, request: ModelInferRequest) -> ModelInferRequest {
    ModelInferRequest { id: number.to_string(), ..request }
}

#[test]
fn answers_come_in_order_and_a_failure_ends_nothing() {
    // A heavy request among light ones: the light ones wait for their turn to be told.
    let server =
        Setup::with_models(&["digits"]).file("heavy/1/model.onnx", &onnx::heavy(256, 40)).start();
    let client = Client::connect(server.grpc);
    let data = vec![0; 64 * 256 * 4];
    let rows = tidegate::tensor::Tensor::new(
        tidegate::tensor::Datatype::Fp32,
        [64, 256].as_slice(),
        data.into(),
    )
    .unwrap();
    let request = |number: usize| match number % 10 {
        3 => numbered(number, raw("heavy", &[("x", &rows)])),
        7 => numbered(number, ModelInferRequest { model_name: "no".to_owned(), ..digit() }),
        _ => numbered(number, digit()),
    };
    client.runtime.block_on(async {
        let mut stream = Stream::open(&client, &[]).await.unwrap();
        for number in 0..50 {
            stream.send(request(number)).await;
        }
        stream.requests = None;
        for number in 0..50 {
            let answer = stream.next().await.unwrap().unwrap();
            let response = answer.infer_response.unwrap();
            assert_eq!(response.id, number.to_string());
            if number % 10 == 7 {
                assert!(answer.error_message.contains("model 'no' is not known"));
                continue;
            }
            assert_eq!(answer.error_message, "");
            let digest = &response.parameters["tidegate_model_digest"].parameter_choice;
            assert!(
                matches!(digest, Some(ParameterChoice::StringParam(d)) if d.starts_with("sha256:"))
            );
            let last = &response.parameters["triton_final_response"].parameter_choice;
            assert_eq!(*last, Some(ParameterChoice::BoolParam(true)));
        }
        assert_eq!(stream.next().await.unwrap(), None);
    });
    let ended = |code| server.metric("tidegate_predictions_total", &["protocol=\"grpc\"", code]);
    assert_eq!(ended("code=\"ok\""), 45.0);
    let labels = ["plane=\"grpc\"", "route=\"infer_stream\"", "outcome=\"answered\""];
    eventually("the stream to be in the books", || {
        (server.metric("tidegate_http_requests_total", &labels) == 1.0).then_some(())
    });
}

#[test]
fn a_failure_ends_the_stream_where_the_client_asks_for_that() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    client.runtime.block_on(async {
        let mut stream = Stream::open(&client, &[("triton_grpc_error", "true")]).await.unwrap();
        stream.send(digit()).await;
        assert_eq!(stream.next().await.unwrap().unwrap().error_message, "");
        stream.send(ModelInferRequest { model_name: "no".to_owned(), ..digit() }).await;
        refused(stream.next().await, Code::NotFound, "model 'no' is not known");
    });
}

#[test]
fn a_stream_ends_with_its_deadline() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    client.runtime.block_on(async {
        let mut stream = Stream::open(&client, &[("grpc-timeout", "300m")]).await.unwrap();
        stream.send(digit()).await;
        assert!(stream.next().await.unwrap().is_some());
        let status = stream.next().await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    });
}

#[test]
fn open_streams_do_not_hold_up_the_end() {
    let mut server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    client.runtime.block_on(async {
        let mut stream = Stream::open(&client, &[]).await.unwrap();
        stream.send(digit()).await;
        assert!(stream.next().await.unwrap().is_some());
        server.signal("TERM");
        refused(stream.next().await, Code::Unavailable, "the server is shutting down");
    });
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_client_that_leaves_its_stream_is_in_the_books() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    client.runtime.block_on(async {
        let mut stream = Stream::open(&client, &[]).await.unwrap();
        stream.send(digit()).await;
        stream.next().await.unwrap();
    });
    // Whoever only drops the stream says so when its runtime runs again, which it does not here.
    drop(client);
    let labels = ["plane=\"grpc\"", "route=\"infer_stream\"", "outcome=\"cancelled\""];
    eventually("the stream to be in the books", || {
        (server.metric("tidegate_http_requests_total", &labels) == 1.0).then_some(())
    });
}

#[test]
fn health_is_watched() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    client.runtime.block_on(async {
        let mut grpc = client.grpc();
        grpc.ready().await.unwrap();
        let request = Request::new(HealthCheckRequest { service: "digits".to_owned() });
        let watch = grpc
            .server_streaming(
                request,
                path("grpc.health.v1.Health", "Watch"),
                ProstCodec::<_, HealthCheckResponse>::default(),
            )
            .await;
        let mut watch = watch.unwrap().into_inner();
        for (change, expected) in [
            ("", ServingStatus::Serving),
            ("/v2/repository/models/digits/unload", ServingStatus::NotServing),
            ("/v2/repository/models/digits/load", ServingStatus::Serving),
        ] {
            if !change.is_empty() {
                assert_eq!(server.post(change, "").status, 200);
            }
            let now = tokio::time::timeout(SOON, watch.message()).await.unwrap().unwrap().unwrap();
            assert_eq!(now.status(), expected, "{change}");
        }
    });
}

#[test]
fn reflection_answers_under_both_names() {
    let server = Setup::with_models(&[]).start();
    let client = Client::connect(server.grpc);
    for version in ["v1", "v1alpha"] {
        client.runtime.block_on(async {
            let ask = |question| ServerReflectionRequest {
                message_request: Some(question),
                ..ServerReflectionRequest::default()
            };
            let questions = [
                ask(MessageRequest::ListServices(String::new())),
                ask(MessageRequest::FileContainingSymbol(INFERENCE.to_owned())),
                ask(MessageRequest::FileByFilename("nothing.proto".to_owned())),
            ];
            let mut grpc = client.grpc();
            grpc.ready().await.unwrap();
            let service = format!("grpc.reflection.{version}.ServerReflection");
            let answers = grpc
                .streaming(
                    Request::new(tokio_stream::iter(questions)),
                    path(&service, "ServerReflectionInfo"),
                    ProstCodec::<_, ServerReflectionResponse>::default(),
                )
                .await;
            let mut answers = answers.unwrap().into_inner();
            let mut next = async || answers.message().await.unwrap().unwrap().message_response;
            assert!(matches!(next().await, Some(MessageResponse::ListServicesResponse(_))));
            assert!(matches!(next().await, Some(MessageResponse::FileDescriptorResponse(_))));
            assert!(matches!(next().await, Some(MessageResponse::ErrorResponse(_))));
            assert!(answers.message().await.unwrap().is_none());
        });
    }
}

#[test]
fn a_slow_reader_holds_up_its_own_stream_only() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    client.runtime.block_on(async {
        let stream = Stream::open(&client, &[]).await.unwrap();
        // Far more than the pipeline and the windows hold: sending comes to a halt by itself.
        let mut sent = 0;
        while tokio::time::timeout(Duration::from_millis(300), stream.send(digit())).await.is_ok() {
            sent += 1;
            if sent > 200_000 {
                break;
            }
        }
        drop(stream);
    });
    client.infer(digit()).unwrap();
}
