use super::*;
use crate::error::{Code, Fault};
use crate::protocol::rows::{Naming, RowSchema};
use crate::tensor::{Datatype, Signature, Tensor, TensorSpec};

const LIMIT: usize = 1 << 20;

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    let shape = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    TensorSpec { name: name.to_owned(), datatype, shape }
}

fn schema(inputs: Vec<TensorSpec>) -> RowSchema {
    let names = ["age", "income"].map(str::to_owned).to_vec();
    let features = std::collections::BTreeMap::from([("x".to_owned(), names)]);
    let signature = Signature { inputs, outputs: Vec::new() };
    RowSchema::new(&signature, Naming { features, ..Naming::default() })
}

fn one() -> RowSchema {
    schema(vec![spec("x", Datatype::Int32, &[-1, 2])])
}

fn two() -> RowSchema {
    schema(vec![spec("n", Datatype::Int32, &[-1, 1]), spec("word", Datatype::Bytes, &[-1])])
}

fn integers(tensor: &Tensor) -> Vec<i32> {
    tensor.data().as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()
}

fn decode(body: &str, schema: &RowSchema) -> V1Request {
    decode_instances(body.as_bytes(), schema, LIMIT)
        .unwrap_or_else(|error| panic!("{body}: {error}"))
}

#[test]
fn rows_and_columns_are_the_same_tensor() {
    for body in [
        r#"{"instances": [[1, 2], [3, 4]]}"#,
        r#"{"signature_name": "serving_default", "instances": [{"x": [1, 2]}, {"income": 4, "age": 3}]}"#,
        r#"{"instances": [[1, 2.0], {"x_0": 3, "x_1": 4}], "signature_name": null}"#,
        r#"{"inputs": [[1, 2], [3, 4]]}"#,
        r#"{"inputs": {"x": [[1, 2], [3, 4]]}}"#,
        r#"{"inputs": {"income": [2, 4], "age": [[1], [3]]}}"#,
    ] {
        let request = decode(body, &one());
        assert_eq!(request.inputs[0].shape(), [2, 2], "{body}");
        assert_eq!(integers(&request.inputs[0]), [1, 2, 3, 4], "{body}");
        let form = if body.contains("instances") { V1Form::Rows } else { V1Form::Columns };
        assert_eq!(request.form, form);
    }
    for body in [
        r#"{"instances": [{"n": 1, "word": "a"}, {"word": {"b64": "Yg=="}, "n": [2]}]}"#,
        r#"{"instances": [[1, "a"], [2, "b"]]}"#,
        r#"{"inputs": {"n": [1, 2], "word": ["a", "b"]}}"#,
        r#"{"inputs": {"word": ["a", "b"], "n": [[1], [2]]}}"#,
    ] {
        let request = decode(body, &two());
        assert_eq!(request.inputs[0].shape(), [2, 1], "{body}");
        assert_eq!(integers(&request.inputs[0]), [1, 2], "{body}");
        assert_eq!(request.inputs[1].elements().collect::<Vec<_>>(), [b"a", b"b"], "{body}");
    }
    let words = schema(vec![spec("word", Datatype::Bytes, &[-1])]);
    let request = decode(r#"{"instances": ["a", {"b64": "/w=="}, {"word": "c"}]}"#, &words);
    assert_eq!(request.inputs[0].elements().collect::<Vec<_>>(), [b"a".as_slice(), b"\xff", b"c"]);
    // Free dimensions are as long as what comes.
    let tokens = schema(vec![spec("tokens", Datatype::Int32, &[-1, -1])]);
    assert_eq!(
        decode(r#"{"instances": [[1, 2, 3], [4, 5, 6]]}"#, &tokens).inputs[0].shape(),
        [2, 3]
    );
}

#[test]
fn what_is_wrong_is_named() {
    for (schema, body, expected) in [
        (one(), "{}", "neither 'instances' (rows) nor 'inputs' (columns)"),
        (one(), "[]", "expected an object with 'instances' or 'inputs'"),
        (
            one(),
            r#"{"instance": []}"#,
            "'instance' is no member of a request; expected 'instances'",
        ),
        (one(), r#"{"instances": {}}"#, "expected a list of rows as 'instances'"),
        (one(), r#"{"instances": []}"#, "there are no rows"),
        (one(), r#"{"instances": [[1]]}"#, "row 0: expected a list of 2 values"),
        (
            one(),
            r#"{"instances": [[1, 2], {"agee": 1}]}"#,
            "row 1: 'agee' is no input and no feature; did you mean 'age'?",
        ),
        (
            one(),
            r#"{"instances": [[1, 2]], "inputs": [[1, 2]]}"#,
            "'instances' and 'inputs' are two forms",
        ),
        (one(), r#"{"signature_name": "other", "instances": []}"#, "there is no signature 'other'"),
        (one(), r#"{"inputs": {"age": [1]}}"#, "'income' is missing"),
        (one(), r#"{"inputs": {"age": [1], "income": [1, 2]}}"#, "'income' has 2 values, others 1"),
        (one(), r#"{"inputs": {"age": [1], "x": [[1, 2]]}}"#, "'x': stands twice"),
        (one(), r#"{"inputs": 7}"#, "as 'inputs'"),
        (two(), r#"{"instances": [[1]]}"#, "row 0: expected 2 values, one an input, got 1"),
        (two(), r#"{"instances": [[1, "a", 2]]}"#, "got 3"),
        (two(), r#"{"instances": [1]}"#, "row 0: the model has several inputs: expected an object"),
        (two(), r#"{"inputs": [1]}"#, "the model has several inputs"),
        (
            two(),
            r#"{"inputs": {"n": [1, 2], "word": ["a"]}}"#,
            "tensor 'word': it has 1 rows, and the inputs before it 2",
        ),
        (
            two(),
            r#"{"inputs": {"n": [[1, 2]], "word": ["a"]}}"#,
            "'n': expected n INT32 [-1,1] with all rows",
        ),
    ] {
        let error = decode_instances(body.as_bytes(), &schema, LIMIT).unwrap_err();
        assert!(error.to_string().contains(expected), "{body}: {error}");
        assert_eq!(error.code(), Code::InvalidArgument);
    }
    for body in [r#"{"instances": [[1,2],[3,4]]}"#, r#"{"inputs": [[1,2],[3,4]]}"#] {
        let error = decode_instances(body.as_bytes(), &one(), 8).unwrap_err();
        assert_eq!(error.code(), Code::TooLarge, "{body}: {error}");
    }
}

#[test]
fn answers_are_bare_for_one_output_and_named_for_several() {
    let data = [1_i32, 2, 3, 4].map(i32::to_le_bytes).concat();
    let y = Tensor::new(Datatype::Int32, [2, 2].as_slice(), data.into()).unwrap();
    let word = Tensor::from_elements([2].as_slice(), [b"a".as_slice(), b"\xff"]).unwrap();
    let specs = [spec("y", Datatype::Int32, &[-1, 2]), spec("word", Datatype::Bytes, &[-1])];
    let outputs = [y, word];
    let encoded = |form, n: usize, n_rows| {
        let mut buffer = Vec::new();
        encode_predictions(form, &specs[..n], &outputs[..n], n_rows, &mut buffer)
            .map(|()| String::from_utf8(buffer).unwrap())
    };
    for (form, n, expected) in [
        (V1Form::Rows, 1, r#"{"predictions":[[1,2],[3,4]]}"#),
        (
            V1Form::Rows,
            2,
            r#"{"predictions":[{"y":[1,2],"word":"a"},{"y":[3,4],"word":{"b64":"/w=="}}]}"#,
        ),
        (V1Form::Columns, 1, r#"{"outputs":[[1,2],[3,4]]}"#),
        (V1Form::Columns, 2, r#"{"outputs":{"y":[[1,2],[3,4]],"word":["a",{"b64":"/w=="}]}}"#),
    ] {
        assert_eq!(encoded(form, n, 2).unwrap(), expected);
    }
    let error = encoded(V1Form::Rows, 1, 3).unwrap_err();
    assert!(error.to_string().contains("the output [2, 2] has no 3 rows"), "{error}");
    // A model that takes one row a request.
    assert_eq!(encoded(V1Form::Rows, 1, 1).unwrap(), r#"{"predictions":[[[1,2],[3,4]]]}"#);
}
