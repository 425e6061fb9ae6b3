//! Requests and answers as bytes: what is read, what is refused and with which words.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::tensor::{Datatype, Signature, Tensor, TensorSpec, push_element};

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    let shape = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    TensorSpec { name: name.to_owned(), datatype, shape }
}

/// `x FP32 [-1,2]` and `n INT8 [-1]` to `y FP32 [-1,2]` and `z BYTES [-1]`.
fn signature() -> Signature {
    Signature {
        inputs: vec![spec("x", Datatype::Fp32, &[-1, 2]), spec("n", Datatype::Int8, &[-1])],
        outputs: vec![spec("y", Datatype::Fp32, &[-1, 2]), spec("z", Datatype::Bytes, &[-1])],
    }
}

fn single(datatype: Datatype, shape: &[i64]) -> Signature {
    Signature {
        inputs: vec![spec("x", datatype, shape)],
        outputs: vec![spec("y", datatype, shape)],
    }
}

fn decode(body: &str, signature: &Signature) -> Result<InferRequest, ProtocolError> {
    decode_request(&Bytes::copy_from_slice(body.as_bytes()), None, signature)
}

/// A request whose input `x` has these members beside its name.
fn x(members: &str) -> String {
    format!("{{\"inputs\":[{{\"name\":\"x\",{members}}}]}}")
}

fn check_error(body: &str, signature: &Signature, expected: &str) {
    let error = decode(body, signature).expect_err(body).to_string();
    assert!(error.contains(expected), "{body}\n   gave: {error}\nexpected: {expected}");
}

/// An answer with what it lends.
fn whole_answer(answer: &Answer<'_>, buffer: &mut Vec<u8>) -> Option<usize> {
    let mut lent = Vec::new();
    let json_length = encode_answer(answer, buffer, &mut lent);
    lent.iter().for_each(|piece| buffer.extend_from_slice(piece));
    json_length
}

#[test]
fn errors_name_the_tensor_what_was_expected_and_what_came() {
    let n = "{\"name\":\"n\",\"datatype\":\"INT8\",\"shape\":[1],\"data\":[1]}";
    let both = |x: &str| format!("{{\"inputs\":[{x},{n}]}}");
    let tensor = |datatype: &str, shape: &str, data: &str| {
        both(&format!(
            "{{\"name\":\"x\",\"datatype\":\"{datatype}\",\"shape\":{shape},\"data\":{data}}}"
        ))
    };
    for (body, expected) in [
        (String::new(), "EOF while parsing a value at line 1 column 0"),
        ("[]".to_owned(), "expected an object with the members of the protocol"),
        ("{\"inputs\":7}".to_owned(), "expected a list of tensors"),
        ("{}".to_owned(), "the request has no `inputs`; expected x FP32 [-1,2], n INT8 [-1]"),
        ("{\"inputs\":[]}".to_owned(), "input 'x' is missing; expected x FP32 [-1,2]"),
        ("{\"inputs\":[],\"inputs\":[]}".to_owned(), "member `inputs` stands twice"),
        ("{\"id\":7,\"inputs\":[]}".to_owned(), "invalid type: integer `7`, expected a string"),
        (both(n), "input 'n' stands twice"),
        (
            both("{\"name\":\"u\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1]}"),
            "unknown input 'u'; expected x FP32 [-1,2], n INT8 [-1]",
        ),
        (tensor("FP64", "[1,2]", "[1,2]"), "tensor 'x': expected x FP32 [-1,2], got FP64 [1, 2]"),
        (tensor("FP32", "[2]", "[1,2]"), "tensor 'x': expected x FP32 [-1,2], got FP32 [2]"),
        (tensor("FP32", "[1,3]", "[1,2,3]"), "tensor 'x': expected x FP32 [-1,2], got FP32 [1, 3]"),
        (
            tensor("FLOAT", "[1,2]", "[1,2]"),
            "tensor 'x': datatype 'FLOAT' is not one of BOOL, UINT8",
        ),
        (
            tensor("FP32", "[-1,2]", "[1,2]"),
            "tensor 'x': invalid value: integer `-1`, expected usize",
        ),
        (
            tensor("FP32", "[4294967296,4294967296]", "[1]"),
            "tensor 'x': shape [4294967296, 4294967296] has more elements than can be addressed",
        ),
        (
            tensor("FP32", "[2,2]", "[1,2,3]"),
            "tensor 'x': shape [2, 2] needs 4 elements, data has 3",
        ),
        (
            tensor("FP32", "[1,2]", "[1,2,3]"),
            "tensor 'x': shape [1, 2] needs 2 elements, data has more",
        ),
        (
            tensor("FP32", "[2,2]", "[[1,2],[3]]"),
            "tensor 'x': data[1] has 1 elements, shape [2, 2] needs 2",
        ),
        (tensor("FP32", "[2,2]", "[[1,2],[3,4],[5,6]]"), "data has more"),
        (tensor("FP32", "[3,2]", "[[1,2],[3,4]]"), "data has 2 elements, shape [3, 2] needs 3"),
        (
            tensor("FP32", "[2,2]", "[[1,2],3]"),
            "tensor 'x': data[1] is a scalar; data of shape [2, 2] is either one flat list or nested 2 deep",
        ),
        (tensor("FP32", "[2,2]", "[1,[2]]"), "tensor 'x': data[1] is a list"),
        (tensor("FP32", "[1,2]", "[[[1,2]]]"), "tensor 'x': data[0][0] is a list"),
        (
            tensor("FP32", "[1,2]", "[1,\"2\"]"),
            "tensor 'x': data[1]: expected a value of FP32, got string \"2\"",
        ),
        (
            tensor("FP32", "[1,2]", "[1,null]"),
            "tensor 'x': data[1]: expected a value of FP32, got null",
        ),
        (
            tensor("FP32", "[1,2]", "[1,{}]"),
            "tensor 'x': data[1]: expected a value of FP32, got map",
        ),
        (
            tensor("FP32", "[1,2]", "[1,true]"),
            "tensor 'x': data[1]: expected a value of FP32, got boolean `true`",
        ),
        (
            tensor("FP32", "[1,2]", "[1,1e39]"),
            "tensor 'x': data[1]: 1000000000000000000000000000000000000000 is out of range for FP32",
        ),
        (
            tensor("FP32", "[1,2]", "[1,NaN]"),
            "send the strings \"NaN\", \"Infinity\" and \"-Infinity\"",
        ),
        (
            tensor("FP32", "[1,2]", "7"),
            "tensor 'x': invalid type: integer `7`, expected a list of elements",
        ),
        (
            both("{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2]}"),
            "tensor 'x': has neither `data` nor the parameter `binary_data_size`",
        ),
        (
            both(
                "{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[1,2],\"parameters\":{\"binary_data_size\":8}}",
            ),
            "tensor 'x': has both `data` and `binary_data_size`",
        ),
        (
            both(
                "{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[1,2],\"data\":[1,2]}",
            ),
            "tensor 'x': member `data` stands twice",
        ),
        (
            both("{\"name\":\"x\",\"datatype\":\"FP32\",\"data\":[1,2]}"),
            "tensor 'x': the tensor has no `shape`",
        ),
        (
            both(
                "{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2],\"parameters\":{\"binary_data_size\":8}}",
            ),
            "tensor 'x': has binary_data_size, but the header Inference-Header-Content-Length is missing",
        ),
    ] {
        check_error(&body, &signature(), expected);
    }
    for (element, expected) in [
        ("128", "128 is out of range for INT8 (-128 to 127)"),
        ("-129", "-129 is out of range for INT8 (-128 to 127)"),
        ("1.5", "expected an integer of INT8, got floating point `1.5`"),
        ("1e300", "out of range for INT8"),
        ("\"1\"", "expected a value of INT8, got string \"1\""),
        ("\"NaN\"", "expected a value of INT8, got string \"NaN\""),
        ("false", "expected a value of INT8, got boolean `false`"),
    ] {
        let body = x(&format!("\"datatype\":\"INT8\",\"shape\":[1],\"data\":[{element}]"));
        check_error(&body, &single(Datatype::Int8, &[-1]), expected);
    }
}

#[test]
fn outputs_and_parameters_are_checked() {
    let request = |rest: &str| {
        format!(
            "{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[1,2]}},\
             {{\"name\":\"n\",\"datatype\":\"INT8\",\"shape\":[1],\"data\":[1]}}],{rest}}}"
        )
    };
    for (rest, expected) in [
        (
            "\"outputs\":[{\"name\":\"u\"}]",
            "unknown output 'u'; the model has y FP32 [-1,2], z BYTES [-1]",
        ),
        ("\"outputs\":[{\"name\":\"y\"},{\"name\":\"y\"}]", "output 'y' is asked for twice"),
        (
            "\"outputs\":[{\"name\":\"y\",\"parameters\":{\"classification\":0}}]",
            "expected at least 1, got 0",
        ),
        (
            "\"outputs\":[{\"name\":\"y\",\"parameters\":{\"classification\":-1}}]",
            "expected a whole number from 0 on, got -1",
        ),
        (
            "\"outputs\":[{\"name\":\"y\",\"parameters\":{\"binary_data\":1}}]",
            "parameter 'binary_data': expected true or false, got 1",
        ),
        (
            "\"parameters\":{\"timeout\":\"soon\"}",
            "parameter 'timeout': expected a whole number from 0 on, got \"soon\"",
        ),
        ("\"parameters\":7", "expected an object of parameters"),
    ] {
        check_error(&request(rest), &signature(), expected);
    }
    let decoded = decode(
        &request(
            "\"id\":\"a \\\"b\\\"\",\"unknown\":[[{}]],\"outputs\":[{\"name\":\"z\"},{\"name\":\"y\",\"parameters\":\
             {\"binary_data\":false,\"classification\":2,\"other\":{\"deep\":[1]}}}],\
             \"parameters\":{\"binary_data_output\":true,\"timeout\":1500,\"priority\":3,\"custom\":\"x\"}",
        ),
        &signature(),
    )
    .unwrap();
    assert_eq!(decoded.id.as_deref(), Some("a \"b\""));
    assert_eq!(decoded.timeout, Some(std::time::Duration::from_micros(1500)));
    assert_eq!(decoded.priority, 3);
    let k = std::num::NonZeroUsize::new(2);
    assert_eq!(
        decoded.outputs,
        [
            RequestedOutput::of(1, Form::Binary),
            RequestedOutput { classification: k, ..RequestedOutput::of(0, Form::Json) },
        ]
    );
    let all = decode(&request("\"outputs\":[]"), &signature()).unwrap().outputs;
    assert_eq!(all.iter().map(|output| output.index).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn data_may_stand_before_datatype_and_shape_and_inputs_in_any_order() {
    let body = "{\"inputs\":[{\"name\":\"n\",\"data\":[[-1]],\"shape\":[1],\"datatype\":\"INT8\"},\
                {\"data\":[[1,-0.0]],\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2]}]}";
    check_error(body, &signature(), "tensor 'n': data[0] is a list");
    let decoded = decode(&body.replace("[[-1]]", "[-1]"), &signature()).unwrap();
    let bytes = [1_f32.to_le_bytes(), (-0.0_f32).to_le_bytes()].concat();
    assert_eq!(&decoded.inputs[0].data()[..], bytes);
    assert_eq!(&decoded.inputs[1].data()[..], [255]);
}

#[test]
fn integers_are_exact_to_their_ends() {
    for (datatype, element, expected) in [
        (Datatype::Int64, "-9223372036854775808", i64::MIN.to_le_bytes()),
        (Datatype::Int64, "9007199254740993", 9_007_199_254_740_993_i64.to_le_bytes()),
        (Datatype::Uint64, "18446744073709551615", u64::MAX.to_le_bytes()),
        (Datatype::Int64, "3.0", 3_i64.to_le_bytes()),
        (Datatype::Int64, "-0.0", 0_i64.to_le_bytes()),
        (Datatype::Int64, "-0", 0_i64.to_le_bytes()),
        (Datatype::Fp64, "0.1", 0.1_f64.to_le_bytes()),
        (Datatype::Fp64, "-0.0", (-0.0_f64).to_le_bytes()),
        (Datatype::Fp64, "-0", (-0.0_f64).to_le_bytes()),
        (Datatype::Fp64, "123456789.12345679", 123_456_789.123_456_79_f64.to_le_bytes()),
    ] {
        let body = x(&format!("\"datatype\":\"{datatype}\",\"shape\":[1],\"data\":[{element}]"));
        let decoded = decode(&body, &single(datatype, &[-1])).unwrap();
        assert_eq!(&decoded.inputs[0].data()[..], expected, "{element}");
    }
    check_error(
        &x("\"datatype\":\"UINT64\",\"shape\":[1],\"data\":[18446744073709551616]"),
        &single(Datatype::Uint64, &[-1]),
        "18446744073709552000 is out of range for UINT64 (0 to 18446744073709551615)",
    );
}

#[test]
fn binary_parts_are_taken_in_the_order_of_the_list_and_shared_with_the_body() {
    let json = "{\"inputs\":[{\"name\":\"n\",\"datatype\":\"INT8\",\"shape\":[2],\"parameters\":{\"binary_data_size\":2}},\
                {\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,2],\"parameters\":{\"binary_data_size\":8}}]}";
    let with = |tail: &[u8]| Bytes::from([json.as_bytes(), tail].concat());
    let body = with(&[5, 6, 1, 2, 3, 4, 5, 6, 7, 8]);
    let decoded = decode_request(&body, Some(json.len()), &signature()).unwrap();
    assert_eq!(&decoded.inputs[1].data()[..], [5, 6]);
    let range = body.as_ptr_range();
    assert!(range.contains(&decoded.inputs[0].data().as_ptr()), "the tensor is a copy");
    for (tail, expected) in [
        (&[5, 6, 1][..], "tensor 'x': binary_data_size is 8, but 1 bytes of the body are left"),
        (&[5, 6, 1, 2, 3, 4, 5, 6, 7, 8, 9], "1 bytes are left behind the last tensor"),
    ] {
        let error = decode_request(&with(tail), Some(json.len()), &signature()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let error = decode_request(&body, Some(body.len() + 1), &signature()).unwrap_err();
    assert!(error.to_string().contains("the JSON part is said to have"), "{error}");
    let json = json.replace("\"binary_data_size\":8", "\"binary_data_size\":18446744073709551615");
    let error = decode_request(&Bytes::from(json.clone()), Some(json.len()), &signature());
    assert!(error.unwrap_err().to_string().contains("binary_data_size is 2,"));
}

#[test]
fn raw_requests() {
    let raw = |signature: &Signature, body: &[u8]| {
        decode_request(&Bytes::copy_from_slice(body), Some(0), signature)
    };
    let shape = |signature: &Signature, n_bytes: usize| {
        raw(signature, &vec![0; n_bytes]).map(|r| r.inputs[0].shape().to_vec())
    };
    assert_eq!(shape(&single(Datatype::Fp32, &[-1, 8, 8]), 256).unwrap(), [1, 8, 8]);
    assert_eq!(shape(&single(Datatype::Fp32, &[-1]), 12).unwrap(), [3]);
    assert_eq!(shape(&single(Datatype::Fp32, &[-1, -1]), 12).unwrap(), [1, 3]);
    assert_eq!(shape(&single(Datatype::Fp32, &[2, 3]), 24).unwrap(), [2, 3]);
    for (signature, n_bytes, expected) in [
        (single(Datatype::Fp32, &[-1, 8, 8]), 255, "needs 256 bytes, got 255"),
        (single(Datatype::Fp32, &[-1, -1]), 13, "13 bytes fit no size of the free dimension"),
        (single(Datatype::Fp32, &[-1, -1, -1]), 12, "at most one free dimension beyond the rows"),
        (
            self::signature(),
            12,
            "needs a model with one input, this one has x FP32 [-1,2], n INT8 [-1]",
        ),
    ] {
        let error = shape(&signature, n_bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let words = raw(&single(Datatype::Bytes, &[-1, 1]), b"whole body").unwrap();
    assert_eq!(words.inputs[0].elements().collect::<Vec<_>>(), [b"whole body"]);
    assert_eq!(words.outputs[0].form, Form::Binary);
}

#[test]
fn absurd_nesting_is_an_error_and_not_a_full_stack() {
    let deep = "[".repeat(200_000);
    for body in [
        deep.clone(),
        format!("{{\"unknown\":{deep}"),
        x(&format!("\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":{deep}")),
        x(&format!("\"data\":{deep}")),
        format!("{{\"parameters\":{{\"timeout\":{deep}"),
        "{\"a\":".repeat(100_000),
    ] {
        assert!(decode(&body, &signature()).is_err());
    }
}

#[test]
fn answers_are_written_in_order_and_numbers_as_short_as_they_can_be() {
    let data: Vec<u8> = [0.1_f32, -0.0, 1e30, f32::NAN, f32::INFINITY, 3.0]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let y = Tensor::new(Datatype::Fp32, [3, 2].as_slice(), data.into()).unwrap();
    let z = Tensor::from_elements([2].as_slice(), ["a\"b", "ü\n"]).unwrap();
    let outputs = [
        AnswerOutput { name: "y", tensor: &y, form: Form::Json, span: None },
        AnswerOutput { name: "z", tensor: &z, form: Form::Json, span: None },
    ];
    let answer = Answer { model_name: "m", model_version: "3", id: Some("i\t"), outputs: &outputs };
    let mut buffer = Vec::new();
    assert_eq!(whole_answer(&answer, &mut buffer), None);
    assert_eq!(
        String::from_utf8(buffer).unwrap(),
        "{\"model_name\":\"m\",\"model_version\":\"3\",\"id\":\"i\\t\",\"outputs\":[\
         {\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[3,2],\"data\":[0.1,-0.0,1e+30,\"NaN\",\"Infinity\",3.0]},\
         {\"name\":\"z\",\"datatype\":\"BYTES\",\"shape\":[2],\"data\":[\"a\\\"b\",\"ü\\n\"]}]}"
    );
}

#[test]
fn bytes_that_are_no_text_go_as_binary_and_empty_binary_needs_no_header() {
    let z = Tensor::from_elements([1].as_slice(), [[0xff_u8]]).unwrap();
    let empty = Tensor::new(Datatype::Fp32, [0, 2].as_slice(), Bytes::new()).unwrap();
    let encode = |tensor: &Tensor, form: Form| {
        let outputs = [AnswerOutput { name: "z", tensor, form, span: None }];
        let answer = Answer { model_name: "m", model_version: "1", id: None, outputs: &outputs };
        let mut buffer = Vec::new();
        let length = whole_answer(&answer, &mut buffer);
        (length, buffer)
    };
    let (length, buffer) = encode(&z, Form::Json);
    assert_eq!(&buffer[length.unwrap()..], [1, 0, 0, 0, 0xff]);
    let (length, buffer) = encode(&empty, Form::Binary);
    assert_eq!(length, None);
    assert!(String::from_utf8(buffer).unwrap().contains("{\"binary_data_size\":0}"));
}

/// Any tensor of any datatype whose elements JSON can carry.
fn any_tensor() -> impl Strategy<Value = Tensor> {
    let datatype = prop::sample::select(Datatype::ALL.as_slice());
    let shape = prop::collection::vec(0_usize..4, 0..4);
    (datatype, shape, any::<u64>()).prop_map(|(datatype, shape, seed)| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let count: usize = shape.iter().product();
        let mut data = Vec::new();
        for _ in 0..count {
            match datatype {
                Datatype::Bool => data.push(rng.u8(0..2)),
                Datatype::Bytes => {
                    let text: String = (0..rng.usize(0..6)).map(|_| rng.char(..)).collect();
                    push_element(&mut data, text.as_bytes());
                }
                other => data.extend((0..other.size().unwrap()).map(|_| rng.u8(..))),
            }
        }
        Tensor::new(datatype, shape.as_slice(), data.into()).unwrap()
    })
}

/// NaNs have many bit patterns and JSON has one.
fn canonical(tensor: &Tensor) -> Vec<u8> {
    let data = tensor.data();
    match tensor.datatype() {
        Datatype::Fp16 => data
            .chunks(2)
            .flat_map(|c| {
                let value = half::f16::from_le_bytes([c[0], c[1]]);
                if value.is_nan() { half::f16::NAN } else { value }.to_le_bytes()
            })
            .collect(),
        Datatype::Bf16 => data
            .chunks(2)
            .flat_map(|c| {
                let value = half::bf16::from_le_bytes([c[0], c[1]]);
                if value.is_nan() { half::bf16::NAN } else { value }.to_le_bytes()
            })
            .collect(),
        Datatype::Fp32 => data
            .chunks(4)
            .flat_map(|c| {
                let value = f32::from_le_bytes(c.try_into().unwrap());
                if value.is_nan() { f32::NAN } else { value }.to_le_bytes()
            })
            .collect(),
        Datatype::Fp64 => data
            .chunks(8)
            .flat_map(|c| {
                let value = f64::from_le_bytes(c.try_into().unwrap());
                if value.is_nan() { f64::NAN } else { value }.to_le_bytes()
            })
            .collect(),
        _ => data.to_vec(),
    }
}

proptest! {
    #[test]
    fn tensors_survive_the_way_through_requests_and_answers(
        tensors in prop::collection::vec(any_tensor(), 1..4),
        binary in any::<bool>(),
    ) {
        let form = if binary { Form::Binary } else { Form::Json };
        let names: Vec<String> = (0..tensors.len()).map(|index| format!("t{index}")).collect();
        let specs = names.iter().zip(&tensors).map(|(name, tensor)| TensorSpec {
            name: name.clone(),
            datatype: tensor.datatype(),
            shape: tensor.shape().iter().map(|_| None).collect(),
        });
        let signature = Signature { inputs: specs.collect(), outputs: Vec::new() };
        let named: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&tensors).collect();
        let mut body = Vec::new();
        let length = encode_request(Some("id"), &named, form, &mut body);
        let request = decode_request(&body.into(), length, &signature).unwrap();
        let outputs: Vec<AnswerOutput<'_>> = named
            .iter()
            .map(|&(name, tensor)| AnswerOutput { name, tensor, form, span: None })
            .collect();
        let answer = Answer { model_name: "m", model_version: "1", id: Some("id"), outputs: &outputs };
        let mut body = Vec::new();
        let length = whole_answer(&answer, &mut body);
        let answer = decode_answer(&body.into(), length).unwrap();
        prop_assert_eq!(answer.id.as_deref(), Some("id"));
        for ((sent, got), (_, back)) in tensors.iter().zip(&request.inputs).zip(&answer.outputs) {
            prop_assert_eq!(canonical(sent), canonical(got));
            prop_assert_eq!(canonical(sent), canonical(back));
            prop_assert_eq!(sent.shape(), got.shape());
            prop_assert_eq!(sent.shape(), back.shape());
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        length in prop::option::of(0_usize..250),
    ) {
        drop(decode_request(&bytes.clone().into(), length, &signature()));
        drop(decode_answer(&bytes.into(), length));
    }

    #[test]
    fn no_change_of_a_request_makes_the_decoder_panic(
        position in 0_usize..190, byte in any::<u8>(), cut in 0_usize..200, length in prop::option::of(0_usize..250),
    ) {
        let body = "{\"id\":\"1\",\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[[1.5,-2]]},\
                    {\"name\":\"n\",\"shape\":[1],\"datatype\":\"INT8\",\"data\":[7]}],\"outputs\":[{\"name\":\"y\"}]}";
        let mut bytes = body.as_bytes().to_vec();
        if let Some(place) = bytes.get_mut(position) {
            *place = byte;
        }
        bytes.truncate(cut.max(1));
        drop(decode_request(&bytes.into(), length, &signature()));
    }
}
