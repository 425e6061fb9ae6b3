use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use super::proto::infer_parameter::ParameterChoice;
use super::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::proto::reflection::server_reflection_request::MessageRequest;
use super::proto::reflection::server_reflection_response::MessageResponse;
use super::proto::reflection::{ServerReflectionRequest, ServerReflectionResponse};
use super::proto::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
    ModelStreamInferResponse,
};
use super::*;
use crate::protocol::Memory;
use crate::protocol::v2::{Answer, AnswerOutput, Form, InferRequest, LEND_FROM, ProtocolError};
use crate::tensor::{Datatype, Signature, Tensor, TensorSpec};

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    let shape = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    TensorSpec { name: name.to_owned(), datatype, shape }
}

fn signature() -> Signature {
    Signature {
        inputs: vec![spec("x", Datatype::Fp32, &[-1, 2]), spec("k", Datatype::Int8, &[-1])],
        outputs: vec![spec("y", Datatype::Fp32, &[-1, 2]), spec("z", Datatype::Int64, &[-1])],
    }
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

fn floats(values: &[f32]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// One row for `signature`, as raw contents.
fn raw() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: vec![input("k", "INT8", &[1]), input("x", "FP32", &[1, 2])],
        raw_input_contents: vec![Bytes::from_static(&[7]), floats(&[1.5, -2.0])],
        ..ModelInferRequest::default()
    }
}

/// The same as typed contents.
fn typed() -> ModelInferRequest {
    let mut request = raw();
    request.raw_input_contents.clear();
    request.inputs[0].contents =
        Some(InferTensorContents { int_contents: vec![7], ..InferTensorContents::default() });
    request.inputs[1].contents = Some(InferTensorContents {
        fp32_contents: vec![1.5, -2.0],
        ..InferTensorContents::default()
    });
    request
}

fn decode(request: &ModelInferRequest) -> Result<InferRequest, ProtocolError> {
    let message = InferMessage::decode(Bytes::from(request.encode_to_vec())).unwrap();
    decode_request(message, &signature(), Memory::of(None, 0))
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

#[test]
fn raw_and_typed_contents_are_the_same_tensors_in_the_order_of_the_signature() {
    let expected = decode(&raw()).unwrap();
    assert_eq!(expected.inputs[0].data(), &floats(&[1.5, -2.0]));
    assert_eq!(expected.inputs[1].data()[..], [7]);
    assert_eq!(decode(&typed()).unwrap().inputs, expected.inputs);
    // All outputs, as nothing is asked for, and as binary.
    let outputs: Vec<_> = expected.outputs.iter().map(|o| (o.index, o.form)).collect();
    assert_eq!(outputs, [(0, Form::Binary), (1, Form::Binary)]);
}

#[test]
fn raw_contents_are_shared_with_the_message() {
    let message = Bytes::from(raw().encode_to_vec());
    let range = message.as_ptr_range();
    let decoded =
        decode_request(InferMessage::decode(message).unwrap(), &signature(), Memory::of(None, 0))
            .unwrap();
    assert!(range.contains(&decoded.inputs[0].data().as_ptr()));
}

#[test]
fn parameters_as_clients_send_them() {
    let mut request = raw();
    request.id = "one".to_owned();
    request.parameters = BTreeMap::from([
        ("priority".to_owned(), parameter(ParameterChoice::Uint64Param(2))),
        ("timeout".to_owned(), parameter(ParameterChoice::Int64Param(1500))),
        ("sequence_id".to_owned(), parameter(ParameterChoice::Int64Param(0))),
        ("whatever".to_owned(), parameter(ParameterChoice::DoubleParam(0.5))),
    ]);
    let classes = parameter(ParameterChoice::Int64Param(3));
    request.outputs = vec![InferRequestedOutputTensor {
        name: "y".to_owned(),
        parameters: BTreeMap::from([("classification".to_owned(), classes)]),
    }];
    let decoded = decode(&request).unwrap();
    assert_eq!(decoded.id.as_deref(), Some("one"));
    assert_eq!(decoded.priority, 2);
    assert_eq!(decoded.timeout, Some(std::time::Duration::from_micros(1500)));
    assert_eq!(decoded.outputs[0].classification.unwrap().get(), 3);
}

#[test]
fn what_is_wrong_is_named() {
    let check = |change: fn(&mut ModelInferRequest), expected: &str| {
        for mut request in [raw(), typed()] {
            change(&mut request);
            let error = decode(&request).unwrap_err().to_string();
            assert!(error.contains(expected), "expected '{expected}', got '{error}'");
        }
    };
    check(|r| r.inputs[1].name = "w".to_owned(), "unknown input 'w'; expected x FP32 [-1,2]");
    check(|r| r.inputs[1] = r.inputs[0].clone(), "input 'k' stands twice");
    check(|r| drop(r.inputs.drain(1..)), "");
    check(|r| r.inputs[1].datatype = "FP64".to_owned(), "tensor 'x': expected x FP32 [-1,2], got");
    check(|r| r.inputs[1].datatype = "FLOAT".to_owned(), "datatype 'FLOAT' is not one of BOOL");
    check(|r| r.inputs[1].shape = vec![-1, 2], "tensor 'x': shape [-1, 2]: expected dimensions");
    check(|r| r.inputs[1].shape = vec![2, 2], "tensor 'x': shape [2, 2] of FP32 needs 16 bytes");
    check(|r| r.inputs[1].shape = vec![i64::MAX, 2], "more elements than can be addressed");
    check(
        |r| {
            let region = parameter(ParameterChoice::StringParam("region".to_owned()));
            r.inputs[1].parameters.insert("shared_memory_region".to_owned(), region);
            r.inputs[1].contents = None;
        },
        "tensor 'x': shared memory is turned off (server.shared_memory.enabled)",
    );
    check(
        |r| {
            let id = parameter(ParameterChoice::StringParam("s".to_owned()));
            r.parameters.insert("sequence_id".to_owned(), id);
        },
        "parameter 'sequence_id': sequences are not supported",
    );
    check(
        |r| {
            let timeout = parameter(ParameterChoice::Int64Param(-1));
            r.parameters.insert("timeout".to_owned(), timeout);
        },
        "parameter 'timeout': expected a whole number from 0 on, got -1",
    );
    check(
        |r| {
            let output = InferRequestedOutputTensor { name: "w".to_owned(), ..Default::default() };
            r.outputs.push(output);
        },
        "unknown output 'w'; the model has y FP32 [-1,2], z INT64 [-1]",
    );
}

#[test]
fn contents_are_raw_for_all_inputs_or_for_none() {
    let refused = |request: &ModelInferRequest, expected: &str| {
        let error = decode(request).unwrap_err().to_string();
        assert!(error.contains(expected), "expected '{expected}', got '{error}'");
    };
    let mut both = typed();
    both.raw_input_contents = raw().raw_input_contents;
    refused(&both, "tensor 'k': has contents, and there are raw_input_contents");
    let mut short = raw();
    short.raw_input_contents.pop();
    refused(&short, "tensor 'x': has no raw_input_contents: there are 1 for 2 inputs");
    let mut long = raw();
    long.raw_input_contents.push(Bytes::new());
    refused(&long, "3 raw_input_contents for 2 inputs");
    let mut mixed = typed();
    mixed.inputs[1].contents = None;
    refused(&mixed, "tensor 'x': has no contents, and there are no raw_input_contents");
    // A tensor without elements needs no contents.
    for input in &mut mixed.inputs {
        (input.contents, input.shape[0]) = (None, 0);
    }
    assert!(decode(&mixed).unwrap().inputs.iter().all(Tensor::is_empty));
}

#[test]
fn typed_elements_stand_in_their_field_and_in_their_range() {
    let refused = |contents: InferTensorContents, expected: &str| {
        let mut request = typed();
        request.inputs[0].contents = Some(contents);
        let error = decode(&request).unwrap_err().to_string();
        assert!(error.contains(expected), "expected '{expected}', got '{error}'");
    };
    let wrong = InferTensorContents { uint_contents: vec![7], ..Default::default() };
    refused(wrong, "tensor 'k': elements of INT8 belong into int_contents, got uint_contents");
    let wide = InferTensorContents { int_contents: vec![128], ..Default::default() };
    refused(wide, "tensor 'k': element 0: 128 is out of range for INT8");
    let many = InferTensorContents { int_contents: vec![1, 2], ..Default::default() };
    refused(many, "tensor 'k': shape [1] of INT8 needs 1 bytes, got 2");
}

#[test]
fn fp16_has_no_typed_contents() {
    let signature =
        Signature { inputs: vec![spec("h", Datatype::Fp16, &[1])], outputs: Vec::new() };
    let contents = InferTensorContents { fp32_contents: vec![1.0], ..Default::default() };
    let request = ModelInferRequest {
        inputs: vec![InferInputTensor { contents: Some(contents), ..input("h", "FP16", &[1]) }],
        ..ModelInferRequest::default()
    };
    let message = InferMessage::decode(Bytes::from(request.encode_to_vec())).unwrap();
    let error = decode_request(message, &signature, Memory::of(None, 0)).unwrap_err().to_string();
    assert_eq!(error, "tensor 'h': FP16 has no typed contents; send raw_input_contents");
}

fn whole(frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.first.to_vec();
    frame.rest.iter().for_each(|piece| bytes.extend_from_slice(piece));
    assert_eq!(bytes.len(), frame.len());
    let prefix = Prefix::read(&bytes).unwrap();
    assert_eq!((prefix.is_compressed, prefix.length as usize), (false, bytes.len() - PREFIX));
    bytes.split_off(PREFIX)
}

#[test]
fn answers_are_what_a_generated_reader_reads() {
    let small = Tensor::new(Datatype::Fp32, [1, 2].as_slice(), floats(&[1.0, 2.0])).unwrap();
    let large =
        Tensor::new(Datatype::Uint8, [LEND_FROM].as_slice(), vec![9; LEND_FROM].into()).unwrap();
    let scalar = Tensor::new(Datatype::Bool, [].as_slice(), vec![1].into()).unwrap();
    let empty = Tensor::new(Datatype::Int64, [0, 300].as_slice(), Bytes::new()).unwrap();
    let tensors = [("a", &small), ("b", &large), ("c", &scalar), ("d", &empty), ("e", &large)];
    for n_outputs in 0..=tensors.len() {
        let outputs = tensors[..n_outputs].iter();
        let outputs = outputs.map(|&(name, tensor)| AnswerOutput {
            name,
            tensor,
            form: Form::Binary,
            span: None,
        });
        let outputs: Vec<_> = outputs.collect();
        let answer =
            Answer { model_name: "m", model_version: "12", id: Some("id"), outputs: &outputs };
        let response = ModelInferResponse::decode(&*whole(&answer_frame(&answer))).unwrap();
        assert_eq!(
            (response.model_name.as_str(), response.model_version.as_str(), response.id.as_str()),
            ("m", "12", "id")
        );
        assert_eq!(response.outputs.len(), n_outputs);
        let raw = response.raw_output_contents.iter();
        for (((name, tensor), output), raw) in tensors.iter().zip(&response.outputs).zip(raw) {
            assert_eq!(output.name, *name);
            assert_eq!(output.datatype, tensor.datatype().name());
            let shape: Vec<i64> = tensor.shape().iter().map(|&dim| dim as i64).collect();
            assert_eq!(output.shape, shape);
            assert_eq!(raw, tensor.data());
        }
        let parameters = [("digest", Parameter::Text("sha256:0")), ("f", Parameter::Bool(true))];
        let streamed = whole(&stream_frame(&answer, &parameters));
        let streamed = ModelStreamInferResponse::decode(&*streamed).unwrap();
        assert_eq!(streamed.error_message, "");
        let mut inner = streamed.infer_response.unwrap();
        let digest = parameter(ParameterChoice::StringParam("sha256:0".to_owned()));
        assert_eq!(inner.parameters["digest"], digest);
        assert_eq!(inner.parameters["f"], parameter(ParameterChoice::BoolParam(true)));
        inner.parameters.clear();
        assert_eq!(inner, response);
    }
    let failed = ModelStreamInferResponse::decode(&*whole(&error_frame("why", "id"))).unwrap();
    assert_eq!(
        (failed.error_message.as_str(), failed.infer_response.unwrap().id),
        ("why", "id".to_owned())
    );
    let failed = ModelStreamInferResponse::decode(&*whole(&error_frame("why", ""))).unwrap();
    assert_eq!(failed.infer_response, None);
}

#[test]
fn large_outputs_are_lent() {
    let large =
        Tensor::new(Datatype::Uint8, [LEND_FROM].as_slice(), vec![9; LEND_FROM].into()).unwrap();
    let outputs = [AnswerOutput { name: "y", tensor: &large, form: Form::Binary, span: None }];
    let answer = Answer { model_name: "m", model_version: "1", id: None, outputs: &outputs };
    let frame = answer_frame(&answer);
    assert_eq!(frame.rest[0].as_ptr(), large.data().as_ptr());
}

#[test]
fn prefixes() {
    assert_eq!(Prefix::read(&[0, 0, 0, 1]), None);
    assert_eq!(Prefix::read(&[2, 0, 0, 0, 1]), None);
    let prefix = Prefix { is_compressed: true, length: 0x0102_0304 };
    assert_eq!(prefix.write(), [1, 1, 2, 3, 4]);
    assert_eq!(Prefix::read(&prefix.write()), Some(prefix));
}

#[test]
fn timeouts() {
    use std::time::Duration;
    for (text, expected) in [
        ("1H", Some(Duration::from_secs(3600))),
        ("2M", Some(Duration::from_secs(120))),
        ("0S", Some(Duration::ZERO)),
        ("250m", Some(Duration::from_millis(250))),
        ("99999999u", Some(Duration::from_micros(99_999_999))),
        ("7n", Some(Duration::from_nanos(7))),
        ("100000000n", None),
        ("S", None),
        ("", None),
        ("-1S", None),
        ("1", None),
        ("1s", None),
    ] {
        assert_eq!(parse_timeout(text.as_bytes()), expected, "{text}");
    }
}

fn reflect(request: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { message_request: Some(request), ..Default::default() };
    let ServerReflectionResponse { message_response, .. } = Reflection::new().answer(request);
    message_response.unwrap()
}

#[test]
fn reflection_tells_services_and_their_files() {
    let MessageResponse::ListServicesResponse(list) =
        reflect(MessageRequest::ListServices(String::new()))
    else {
        panic!("no list");
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "inference.GRPCInferenceService",
        ]
    );
    for symbol in [
        "inference.GRPCInferenceService.ModelInfer",
        "inference.ModelInferRequest.InferInputTensor",
        "inference.ModelInferRequest.InferInputTensor.shape",
    ] {
        let response = reflect(MessageRequest::FileContainingSymbol(symbol.to_owned()));
        let MessageResponse::FileDescriptorResponse(files) = response else {
            panic!("no file of {symbol}");
        };
        // The file, and what it imports.
        assert_eq!(files.file_descriptor_proto.len(), 2, "{symbol}");
    }
    for request in [
        MessageRequest::FileContainingSymbol("inference.Nothing".to_owned()),
        MessageRequest::FileByFilename("nothing.proto".to_owned()),
        MessageRequest::AllExtensionNumbersOfType("inference.Nothing".to_owned()),
    ] {
        let response = reflect(request);
        let MessageResponse::ErrorResponse(error) = response else { panic!("{response:?}") };
        assert_eq!(error.error_code, 5);
    }
}
