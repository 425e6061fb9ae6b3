//! Every datatype through a model and back, as JSON and as binary, bit for bit.

use tidegate::protocol::v2::{Form, decode_answer, encode_request};
use tidegate::tensor::{Datatype, Tensor};
use tract_onnx::pb::tensor_proto::DataType;

use super::harness::{Server, Setup};
use super::onnx;

pub(crate) const ELEMENTS: [(Datatype, DataType); 14] = [
    (Datatype::Bool, DataType::Bool),
    (Datatype::Uint8, DataType::Uint8),
    (Datatype::Uint16, DataType::Uint16),
    (Datatype::Uint32, DataType::Uint32),
    (Datatype::Uint64, DataType::Uint64),
    (Datatype::Int8, DataType::Int8),
    (Datatype::Int16, DataType::Int16),
    (Datatype::Int32, DataType::Int32),
    (Datatype::Int64, DataType::Int64),
    (Datatype::Fp16, DataType::Float16),
    (Datatype::Bf16, DataType::Bfloat16),
    (Datatype::Fp32, DataType::Float),
    (Datatype::Fp64, DataType::Double),
    (Datatype::Bytes, DataType::String),
];

/// Two rows of three, with the datatype's extremes where they matter.
pub(crate) fn sample(datatype: Datatype) -> Tensor {
    let shape = [2, 3].as_slice();
    match datatype {
        Datatype::Bytes => {
            Tensor::from_elements(shape, ["", "a", "ü€𝄞", "\"\\", "\n\t", "0"]).unwrap()
        }
        Datatype::Bool => Tensor::new(datatype, shape, vec![0, 1, 1, 0, 0, 1].into()).unwrap(),
        _ => {
            let size = datatype.size().unwrap();
            let mut data: Vec<u8> = (0..6 * size).map(|index| (index * 37 % 251) as u8).collect();
            // All bits but the highest: the largest integer, and of a float a NaN, which has one
            // form in JSON: so only the integers get it.
            if !datatype.is_float() {
                data[..size].fill(0xff);
                data[size..2 * size].fill(0);
                data[2 * size - 1] = 0x80;
            }
            Tensor::new(datatype, shape, data.into()).unwrap()
        }
    }
}

fn round_trip(server: &Server, model: &str, tensor: &Tensor, form: Form) -> Tensor {
    let mut body = Vec::new();
    let length = encode_request(None, &[("x", tensor)], form, &mut body);
    let length = length.map(|length| length.to_string());
    let headers: Vec<(&str, &str)> =
        length.iter().map(|length| ("inference-header-content-length", length.as_str())).collect();
    let answer = server.post_with(&format!("/v2/models/{model}/infer"), &headers, &body);
    assert_eq!(answer.status, 200, "{model}: {}", answer.text());
    let length = answer.header("inference-header-content-length").parse().ok();
    assert_eq!(length.is_some(), form == Form::Binary, "{model}");
    let mut outputs = decode_answer(&answer.body.into(), length).unwrap().outputs;
    outputs.remove(0).1
}

#[test]
fn every_datatype_in_json_and_binary() {
    let mut setup = Setup::with_models(&[]);
    for (datatype, element) in ELEMENTS {
        let model = onnx::identity(element, &["N", "M"]);
        setup = setup.file(&format!("{datatype}/1/model.onnx"), &model);
    }
    let server = setup.start();
    for (datatype, _) in ELEMENTS {
        let tensor = sample(datatype);
        for form in [Form::Json, Form::Binary] {
            assert_eq!(
                round_trip(&server, datatype.name(), &tensor, form),
                tensor,
                "{datatype} {form:?}"
            );
        }
    }
}
