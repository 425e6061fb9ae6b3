//! The data plane over gRPC: every call with success and with failure, every datatype, and the limits
//! that HTTP has too.

mod client;
mod limits;
mod stream;

use std::collections::BTreeMap;

use tidegate::protocol::grpc::proto::health::health_check_response::ServingStatus;
use tidegate::protocol::grpc::proto::health::{HealthCheckRequest, HealthCheckResponse};
use tidegate::protocol::grpc::proto::infer_parameter::ParameterChoice;
use tidegate::protocol::grpc::proto::model_infer_request::InferRequestedOutputTensor;
use tidegate::protocol::grpc::proto::model_repository_parameter::ParameterChoice as LoadChoice;
use tidegate::protocol::grpc::proto::{
    self, DataType, InferParameter, ModelInferRequest, ModelRepositoryParameter,
};
use tidegate::tensor::{Datatype, Tensor};
use tonic::{Code, Request, Status};

use super::datatypes::{ELEMENTS, sample};
use super::harness::{Setup, eventually};
use super::onnx;
use client::{Client, INFERENCE, output, raw, typed};

const HEALTH: &str = "grpc.health.v1.Health";

/// One row for `digits`.
pub(super) fn digit() -> ModelInferRequest {
    raw("digits", &[("image", &image())])
}

pub(super) fn image() -> Tensor {
    Tensor::new(Datatype::Fp32, [1, 8, 8].as_slice(), vec![0; 256].into()).unwrap()
}

#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, message: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(message), "{status:?}");
}

#[test]
fn the_calls_of_the_protocol() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    let live: proto::ServerLiveResponse =
        client.call("ServerLive", proto::ServerLiveRequest {}).unwrap();
    let ready: proto::ServerReadyResponse =
        client.call("ServerReady", proto::ServerReadyRequest {}).unwrap();
    assert!(live.live && ready.ready);
    for (name, version, expected) in
        [("digits", "", true), ("digits", "2", true), ("digits", "9", false), ("no", "", false)]
    {
        let request =
            proto::ModelReadyRequest { name: name.to_owned(), version: version.to_owned() };
        let answer: proto::ModelReadyResponse = client.call("ModelReady", request).unwrap();
        assert_eq!(answer.ready, expected, "{name} {version}");
    }
    let metadata: proto::ServerMetadataResponse =
        client.call("ServerMetadata", proto::ServerMetadataRequest {}).unwrap();
    assert_eq!(metadata.name, "tidegate");
    let over_http = server.get("/v2").json();
    assert_eq!(serde_json::to_value(&metadata.extensions).unwrap(), over_http["extensions"]);
    let of =
        |name: &str| proto::ModelMetadataRequest { name: name.to_owned(), ..Default::default() };
    let metadata: proto::ModelMetadataResponse =
        client.call("ModelMetadata", of("digits")).unwrap();
    assert_eq!(metadata.versions, ["1", "2"]);
    assert_eq!(metadata.platform, "onnx_onnxv1");
    assert_eq!(metadata.inputs[0].name, "image");
    assert_eq!(metadata.inputs[0].shape, [-1, 8, 8]);
    let unknown = client.call::<_, proto::ModelMetadataResponse>("ModelMetadata", of("no"));
    refused(unknown, Code::NotFound, "model 'no' is not known; models that serve: digits");
}

#[test]
fn a_prediction_is_the_same_as_over_http() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    let mut request = Request::new(ModelInferRequest { id: "one".to_owned(), ..digit() });
    request.metadata_mut().insert("x-request-id", "abc".parse().unwrap());
    request.metadata_mut().insert("x-server-timing", "1".parse().unwrap());
    let answer: tonic::Response<proto::ModelInferResponse> =
        client.ask(INFERENCE, "ModelInfer", request).unwrap();
    let metadata = answer.metadata().clone();
    let text = |name: &str| metadata.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(text("x-request-id"), "abc");
    assert_eq!(text("tidegate-model-version"), "1");
    assert!(text("tidegate-model-digest").starts_with("sha256:"));
    assert!(text("server-timing").starts_with("total;dur="));
    let answer = answer.into_inner();
    assert_eq!((answer.id.as_str(), answer.model_version.as_str()), ("one", "1"));
    let data = vec!["0"; 64].join(",");
    let body = format!(
        "{{\"inputs\":[{{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[1,8,8],\"data\":[{data}]}}]}}"
    );
    let over_http = server.post("/v2/models/digits/infer", &body).json();
    for (position, output) in answer.outputs.iter().enumerate() {
        let expected = &over_http["outputs"][position];
        assert_eq!(output.name, expected["name"].as_str().unwrap());
        assert_eq!(output.datatype, expected["datatype"].as_str().unwrap());
        let raw = &answer.raw_output_contents[position];
        if output.datatype == "FP32" {
            let values: Vec<f32> = raw
                .chunks_exact(4)
                .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()))
                .collect();
            let expected: Vec<f32> = serde_json::from_value(expected["data"].clone()).unwrap();
            assert_eq!(values, expected);
        }
    }
    // Both are in the books, each under its protocol.
    for protocol in ["v2_http", "grpc"] {
        let labels = [format!("protocol=\"{protocol}\""), "code=\"ok\"".to_owned()];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        assert_eq!(server.metric("tidegate_predictions_total", &labels), 1.0, "{protocol}");
    }
    let labels = ["plane=\"grpc\"", "route=\"infer\"", "outcome=\"answered\""];
    assert_eq!(server.metric("tidegate_http_requests_total", &labels), 1.0);
}

#[test]
fn predictions_that_are_wrong_say_why() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    let unknown = ModelInferRequest { model_name: "no".to_owned(), ..digit() };
    refused(client.infer(unknown), Code::NotFound, "model 'no' is not known");
    let version = ModelInferRequest { model_version: "9".to_owned(), ..digit() };
    refused(client.infer(version), Code::NotFound, "has no version '9' that serves");
    let nothing =
        ModelInferRequest { inputs: Vec::new(), raw_input_contents: Vec::new(), ..digit() };
    refused(client.infer(nothing), Code::InvalidArgument, "input 'image' is missing");
    let mut both = typed("digits", "image", &image());
    both.raw_input_contents = digit().raw_input_contents;
    refused(client.infer(both), Code::InvalidArgument, "tensor 'image': has contents, and");
    let mut sequence = digit();
    let parameter_choice = Some(ParameterChoice::Int64Param(7));
    sequence.parameters =
        BTreeMap::from([("sequence_id".to_owned(), InferParameter { parameter_choice })]);
    refused(client.infer(sequence), Code::InvalidArgument, "sequences are not supported");
    let ended =
        |code: &str| server.metric("tidegate_predictions_total", &["protocol=\"grpc\"", code]);
    assert_eq!(ended("invalid_argument"), 3.0);
}

#[test]
fn the_best_classes_where_they_are_asked_for() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    let mut request = digit();
    let parameter_choice = Some(ParameterChoice::Int64Param(2));
    request.outputs = vec![InferRequestedOutputTensor {
        name: "probabilities".to_owned(),
        parameters: BTreeMap::from([(
            "classification".to_owned(),
            InferParameter { parameter_choice },
        )]),
    }];
    let answer = output(&client.infer(request).unwrap());
    assert_eq!((answer.datatype(), answer.shape()), (Datatype::Bytes, [1, 2].as_slice()));
}

#[test]
fn every_datatype_raw_and_typed() {
    let mut setup = Setup::with_models(&[]);
    for (datatype, element) in ELEMENTS {
        let model = onnx::identity(element, &["N", "M"]);
        setup = setup.file(&format!("{datatype}/1/model.onnx"), &model);
    }
    let server = setup.start();
    let client = Client::connect(server.grpc);
    for (datatype, _) in ELEMENTS {
        let (model, tensor) = (datatype.name(), sample(datatype));
        let answer = client.infer(raw(model, &[("x", &tensor)])).unwrap();
        assert_eq!(output(&answer), tensor, "{datatype}");
        if !matches!(datatype, Datatype::Fp16 | Datatype::Bf16) {
            let answer = client.infer(typed(model, "x", &tensor)).unwrap();
            assert_eq!(output(&answer), tensor, "{datatype}");
        }
    }
}

#[test]
fn the_configuration_of_a_model_in_triton_s_form() {
    let server = Setup::with_models(&["digits"])
        .file("digits/model.toml", b"[batching]\nmax_batch = 16\nmax_delay = \"2ms\"")
        .start();
    let client = Client::connect(server.grpc);
    let of = |name: &str| proto::ModelConfigRequest { name: name.to_owned(), ..Default::default() };
    let config: proto::ModelConfigResponse = client.call("ModelConfig", of("digits")).unwrap();
    let config = config.config.unwrap();
    assert_eq!(config.max_batch_size, 16);
    assert_eq!(config.input[0].dims, [8, 8]);
    assert_eq!(config.input[0].data_type(), DataType::TypeFp32);
    assert_eq!(config.platform, "onnx_onnxv1");
    assert!(!config.model_transaction_policy.unwrap().decoupled);
    let batching =
        proto::model_config::SchedulingChoice::DynamicBatching(proto::ModelDynamicBatching {
            max_queue_delay_microseconds: 2000,
            ..Default::default()
        });
    assert_eq!(config.scheduling_choice, Some(batching));
    let unknown = client.call::<_, proto::ModelConfigResponse>("ModelConfig", of("no"));
    refused(unknown, Code::NotFound, "model 'no' is not known");
}

#[test]
fn statistics_count_what_came_over_grpc() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    for _ in 0..3 {
        client.infer(digit()).unwrap();
    }
    let of = |name: &str, version: &str| proto::ModelStatisticsRequest {
        name: name.to_owned(),
        version: version.to_owned(),
    };
    let ask =
        |request| client.call::<_, proto::ModelStatisticsResponse>("ModelStatistics", request);
    let one = ask(of("digits", "1")).unwrap().model_stats;
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].inference_count, 3);
    let success = one[0].inference_stats.unwrap().success.unwrap();
    assert!(success.count == 3 && success.ns > 0);
    assert_eq!(ask(of("", "")).unwrap().model_stats.len(), 2);
    refused(ask(of("no", "")), Code::NotFound, "model 'no' is not known");
}

#[test]
fn models_are_listed_loaded_and_unloaded() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    let index = |ready| {
        let request = proto::RepositoryIndexRequest { ready, ..Default::default() };
        client.call::<_, proto::RepositoryIndexResponse>("RepositoryIndex", request).unwrap().models
    };
    let load = |model: &str, parameter: Option<&str>| {
        let parameter_choice = Some(LoadChoice::StringParam("{}".to_owned()));
        let value = ModelRepositoryParameter { parameter_choice };
        let parameters = parameter.map(|name| (name.to_owned(), value)).into_iter().collect();
        let model_name = model.to_owned();
        let request =
            proto::RepositoryModelLoadRequest { model_name, parameters, ..Default::default() };
        client.call::<_, proto::RepositoryModelLoadResponse>("RepositoryModelLoad", request)
    };
    let unload = |model: &str| {
        let model_name = model.to_owned();
        let request = proto::RepositoryModelUnloadRequest { model_name, ..Default::default() };
        client.call::<_, proto::RepositoryModelUnloadResponse>("RepositoryModelUnload", request)
    };
    assert_eq!(index(true).len(), 2);
    unload("digits").unwrap();
    assert_eq!((index(true).len(), index(false).len()), (0, 2));
    refused(client.infer(digit()), Code::Unavailable, "model 'digits' has no version that serves");
    load("digits", None).unwrap();
    client.infer(digit()).unwrap();
    refused(load("no", None), Code::NotFound, "the repository has no model 'no'");
    refused(unload("no"), Code::NotFound, "the repository has no model 'no'");
    refused(load("digits", Some("config")), Code::Unimplemented, "parameter 'config' is not");
    server.write_config("[repository]\napi = false\npath = \"models\"");
    eventually("load to be turned off", || {
        let status = load("digits", None).err()?;
        status.message().contains("repository.api = false").then_some(())
    });
}

#[test]
fn settings_are_told_and_not_changed() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    let log = |settings: BTreeMap<String, proto::log_settings_request::SettingValue>| {
        let request = proto::LogSettingsRequest { settings };
        client.call::<_, proto::LogSettingsResponse>("LogSettings", request)
    };
    let told = log(BTreeMap::new()).unwrap().settings;
    let is = |name: &str| told[name].parameter_choice.clone().unwrap();
    use proto::log_settings_response::setting_value::ParameterChoice as Told;
    assert_eq!(
        (is("log_info"), is("log_verbose_level")),
        (Told::BoolParam(true), Told::Uint32Param(0))
    );
    use proto::log_settings_request::SettingValue;
    use proto::log_settings_request::setting_value::ParameterChoice as Wanted;
    let want = |name: &str, choice: Wanted| {
        log(BTreeMap::from([(name.to_owned(), SettingValue { parameter_choice: Some(choice) })]))
    };
    want("log_info", Wanted::BoolParam(true)).unwrap();
    refused(want("log_info", Wanted::BoolParam(false)), Code::Unimplemented, "set log.level in");
    refused(
        want("log_x", Wanted::BoolParam(true)),
        Code::InvalidArgument,
        "no log setting 'log_x'",
    );
    let trace = |name: &str, values: &[&str], model: &str| {
        let value = values.iter().map(|&value| value.to_owned()).collect();
        let value = proto::trace_setting_request::SettingValue { value };
        let settings = BTreeMap::from([(name.to_owned(), value)]);
        let request = proto::TraceSettingRequest { settings, model_name: model.to_owned() };
        client.call::<_, proto::TraceSettingResponse>("TraceSetting", request)
    };
    assert_eq!(trace("trace_level", &[], "").unwrap().settings["trace_level"].value, ["OFF"]);
    refused(trace("trace_level", &["TIMESTAMPS"], ""), Code::Unimplemented, "trace_level");
    refused(trace("trace_level", &[], "no"), Code::NotFound, "model 'no' is not known");
}

#[test]
fn shared_memory_is_refused_with_a_reason_unless_it_is_turned_on() {
    let server = Setup::with_models(&["digits"]).start();
    let client = Client::connect(server.grpc);
    let (off, no_cuda) = ("shared memory is turned off", "CUDA shared memory is not supported");
    for (method, reason) in [
        ("SystemSharedMemoryStatus", off),
        ("SystemSharedMemoryRegister", off),
        ("SystemSharedMemoryUnregister", off),
        ("CudaSharedMemoryStatus", no_cuda),
        ("CudaSharedMemoryRegister", no_cuda),
        ("CudaSharedMemoryUnregister", no_cuda),
    ] {
        let answer = client.call::<_, proto::SystemSharedMemoryStatusResponse>(
            method,
            proto::SystemSharedMemoryStatusRequest::default(),
        );
        refused(answer, Code::Unimplemented, reason);
    }
    let answer =
        client.call::<_, proto::ServerLiveResponse>("Nothing", proto::ServerLiveRequest {});
    refused(answer, Code::Unimplemented, "/inference.GRPCInferenceService/Nothing");
}

fn check(client: &Client, service: &str) -> Result<ServingStatus, Status> {
    let request = Request::new(HealthCheckRequest { service: service.to_owned() });
    let answer = client.ask::<_, HealthCheckResponse>(HEALTH, "Check", request);
    answer.map(|answer| answer.into_inner().status())
}

#[test]
fn health_of_the_server_and_of_each_model() {
    let server = Setup::with_models(&["digits"]).file("broken/1/model.onnx", b"no model").start();
    let client = Client::connect(server.grpc);
    for (service, expected) in [
        ("", ServingStatus::Serving),
        (INFERENCE, ServingStatus::Serving),
        (HEALTH, ServingStatus::Serving),
        ("digits", ServingStatus::Serving),
        ("digits/2", ServingStatus::Serving),
        ("broken", ServingStatus::NotServing),
    ] {
        assert_eq!(check(&client, service).unwrap(), expected, "{service}");
    }
    refused(check(&client, "no"), Code::NotFound, "service 'no' is not known");
    refused(check(&client, "digits/9"), Code::NotFound, "service 'digits/9' is not known");
}
