use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::error::{Code, Fault};
use crate::tensor::{Datatype, Signature, Tensor, TensorSpec};

const LIMIT: usize = 1 << 20;

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    let shape = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    TensorSpec { name: name.to_owned(), datatype, shape }
}

/// Features by name, a text, and an image; scores of three classes and a class's number.
fn signature() -> Signature {
    Signature {
        inputs: vec![
            spec("x", Datatype::Fp32, &[-1, 3]),
            spec("colour", Datatype::Bytes, &[-1, 1]),
            spec("image", Datatype::Uint8, &[-1, 2, 2]),
        ],
        outputs: vec![
            spec("probabilities", Datatype::Fp32, &[-1, 3]),
            spec("label", Datatype::Int64, &[-1]),
            spec("embedding", Datatype::Fp32, &[-1, 2]),
        ],
    }
}

fn schema() -> RowSchema {
    let names = ["age", "income", "children"].map(str::to_owned).to_vec();
    let naming = Naming {
        features: BTreeMap::from([("x".to_owned(), names)]),
        missing: vec![(0, 2)],
        scores: Some(Scores {
            output: 0,
            n_columns: 3,
            classes: Some(["cat", "dog", "owl"].map(str::to_owned).to_vec()),
            codes: Some(["7", "8", "9"].map(str::to_owned).to_vec()),
            kind: ScoreKind::Probabilities,
        }),
        prediction: Some(1),
    };
    RowSchema::new(&signature(), naming)
}

fn singles(tensor: &Tensor) -> Vec<f32> {
    tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn fp32(shape: &[usize], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(Datatype::Fp32, shape, data.into()).unwrap()
}

#[test]
fn rows_fill_the_inputs_whatever_they_name() {
    let body = r#"[
        {"age": 41, "children": 2, "income": 3e3, "colour": "red", "image": [1, 2, 3, 4]},
        {"x": [1.5, null, "Infinity"], "colour": {"b64": "/w=="}, "image": [[5, 6], [7, 8]]},
        {"x_1": 1, "age": -1, "colour": ["blue"], "image": [0, 0, 0, 255]}
    ]"#;
    let schema = schema();
    let request = decode_rows(body.as_bytes(), &schema, LIMIT).unwrap();
    assert!(request.is_list && request.n_rows == 3);
    let [x, colour, image] = request.inputs.as_slice() else { panic!("three inputs") };
    assert_eq!(
        (x.shape(), colour.shape(), image.shape()),
        (&[3, 3][..], &[3, 1][..], &[3, 2, 2][..])
    );
    let x = singles(x);
    assert_eq!(x[..4], [41.0, 3000.0, 2.0, 1.5]);
    assert!(x[4].is_nan() && x[5].is_infinite());
    // The baseline has seen `children` missing.
    assert_eq!(x[6..8], [-1.0, 1.0]);
    assert!(x[8].is_nan());
    let colours: Vec<&[u8]> = colour.elements().collect();
    assert_eq!(colours, [b"red".as_slice(), b"\xff", b"blue"]);
    assert_eq!(image.data()[..], [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 255]);
    let one = br#"{"age":1,"income":2,"children":3,"colour":"","image":[1,2,3,4]}"#;
    assert!(!decode_rows(one, &schema, LIMIT).unwrap().is_list);
}

#[test]
fn what_is_wrong_is_named() {
    let schema = schema();
    for (body, expected) in [
        (
            r#"{"aeg": 1}"#,
            "row 0: 'aeg' is no input and no feature; did you mean 'age'? The model takes age (FP32), income (FP32)",
        ),
        (
            r#"[{"age": 1, "income": 2, "colour": "", "image": [1, 2, 3, 4]}, {"age": 1}]"#,
            "row 1: 'income', 'colour', 'image' are missing",
        ),
        (r#"{"age": "old"}"#, "row 0, 'age': expected a number (FP32), got string \"old\""),
        (r#"{"age": true}"#, "row 0, 'age': expected a number (FP32), got true"),
        (r#"{"age": 1e39}"#, "row 0, 'age': expected a number that the datatype can hold (FP32)"),
        (r#"{"age": [1, 2]}"#, "row 0, 'age': expected one value, got a list"),
        (r#"{"age": 1, "age": 2}"#, "row 0, 'age': stands twice"),
        (
            r#"{"age": 1, "x": [1, 2, 3], "colour": "", "image": [1, 2, 3, 4]}"#,
            "'x' is there, and so are single features of it",
        ),
        (
            r#"{"x": [1, 2]}"#,
            "row 0, 'x': expected a list of 3 values (x FP32 [-1,3]), got a list of 2",
        ),
        (r#"{"image": [[1, 2], [3]]}"#, "row 0, 'image': the lists are not nested evenly at [1]"),
        (r#"{"image": [[1, 2], 3]}"#, "not nested evenly at [1]"),
        (
            r#"{"image": [256, 0, 0, 0]}"#,
            "expected a whole number from 0 to 255 (UINT8), got 256 at [0]",
        ),
        (
            r#"{"image": null}"#,
            "expected a value; this datatype has none that says 'missing' (UINT8)",
        ),
        (r#"{"colour": 1}"#, "row 0, 'colour': expected text (BYTES), got 1"),
        (r#"{"colour": {"b64": "?"}}"#, "\"b64\" is not base64"),
        (r#"{"colour": {"c64": ""}}"#, "expected a value, a list of values"),
        ("[]", "there are no rows"),
        ("7", "expected an object by the names of inputs or features, or a list of such objects"),
        (
            "[[1]]",
            "invalid type: sequence, expected an object by the names of inputs or features as row 0",
        ),
        ("{", "EOF"),
        ("{} x", "row 0: 'age', 'income', 'colour', 'image' are missing"),
    ] {
        let error = decode_rows(body.as_bytes(), &schema, LIMIT).unwrap_err();
        assert!(error.to_string().contains(expected), "{body}: {error}");
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

#[test]
fn rows_take_no_more_than_the_limit() {
    let row = r#"{"age":1,"income":2,"colour":"0123456789","image":[1,2,3,4]}"#;
    let rows = format!("[{}]", vec![row; 100].join(","));
    let schema = schema();
    assert!(decode_rows(rows.as_bytes(), &schema, 3000).is_ok());
    let error = decode_rows(rows.as_bytes(), &schema, 2000).unwrap_err();
    assert_eq!(error.code(), Code::TooLarge);
    // And neither does one value.
    let long = format!(r#"{{"colour": "{}"}}"#, "x".repeat(3000));
    assert_eq!(decode_rows(long.as_bytes(), &schema, 2000).unwrap_err().code(), Code::TooLarge);
}

fn encoded(
    outputs: &[Tensor],
    schema: &RowSchema,
    n_rows: usize,
    is_list: bool,
) -> serde_json::Value {
    let specs = signature().outputs;
    let answer = RowsAnswer {
        model_name: "pets",
        model_version: "3",
        id: "r-1",
        specs: &specs,
        outputs,
        n_rows,
        is_list,
    };
    let mut buffer = Vec::new();
    encode_rows(&answer, schema, &mut buffer);
    serde_json::from_slice(&buffer).unwrap()
}

#[test]
fn answers_name_classes() {
    let label = Tensor::new(
        Datatype::Int64,
        [2].as_slice(),
        [8_i64, 5].map(i64::to_le_bytes).concat().into(),
    );
    let outputs = [
        fp32(&[2, 3], &[0.25, 0.5, 0.25, f32::NAN, 0.0, 1.0]),
        label.unwrap(),
        fp32(&[2, 2], &[1.0, 2.0, 3.0, 4.0]),
    ];
    let answer = encoded(&outputs, &schema(), 2, true);
    assert_eq!(
        answer,
        serde_json::json!({
            "model_name": "pets", "model_version": "3", "id": "r-1", "predictions": [
                {"prediction": "dog", "probabilities": {"cat": 0.25, "dog": 0.5, "owl": 0.25}, "outputs": {"embedding": [1.0, 2.0]}},
                // A class that the file does not know keeps its number.
                {"prediction": 5, "probabilities": {"cat": "NaN", "dog": 0.0, "owl": 1.0}, "outputs": {"embedding": [3.0, 4.0]}},
            ],
        })
    );
    // Without an output for it, the prediction is the likeliest class.
    let naming = Naming { prediction: None, ..schema().naming().clone() };
    let schema = RowSchema::new(&signature(), naming);
    let answer = encoded(&outputs, &schema, 2, true);
    assert_eq!(answer["predictions"][1]["prediction"], "owl");
    assert_eq!(answer["predictions"][1]["outputs"]["label"], 5);
}

#[test]
fn one_row_is_answered_without_a_list() {
    let label = Tensor::new(Datatype::Int64, [1].as_slice(), 9_i64.to_le_bytes().to_vec().into());
    // An output without rows of its own stands beside the others.
    let outputs = [fp32(&[1, 3], &[0.0, 0.0, 1.0]), label.unwrap(), fp32(&[2], &[1.0, 2.0])];
    let answer = encoded(&outputs, &schema(), 1, false);
    assert_eq!((&answer["prediction"], &answer["id"]), (&"owl".into(), &"r-1".into()));
    assert_eq!(answer["outputs"]["embedding"], serde_json::json!([1.0, 2.0]));
}

proptest! {
    #[test]
    fn any_bytes_are_a_request_or_an_error(
        pieces in prop::collection::vec(prop_oneof![
            Just("{"), Just("}"), Just("["), Just("]"), Just(","), Just(":"), Just("\"x\""),
            Just("\"age\""), Just("\"colour\""), Just("\"image\""), Just("\"b64\""), Just("1"),
            Just("-1e400"), Just("null"), Just("true"), Just("[1,2,3]"), Just("\u{0}"),
        ], 0..40)
    ) {
        let body = pieces.concat();
        let _ = decode_rows(body.as_bytes(), &schema(), LIMIT);
        let _ = crate::protocol::v1::decode_instances(body.as_bytes(), &schema(), LIMIT);
        let wrapped = format!("{{\"instances\":{body}}}");
        let _ = crate::protocol::v1::decode_instances(wrapped.as_bytes(), &schema(), LIMIT);
        let wrapped = format!("{{\"inputs\":{body}}}");
        let _ = crate::protocol::v1::decode_instances(wrapped.as_bytes(), &schema(), LIMIT);
    }

    #[test]
    fn rows_come_back_as_they_were_sent(
        rows in prop::collection::vec((any::<[f32; 3]>(), ".{0,8}", any::<[u8; 4]>()), 1..20)
    ) {
        let write = |value: f32| match value {
            value if value.is_nan() => serde_json::Value::from("NaN"),
            f32::INFINITY => "Infinity".into(),
            f32::NEG_INFINITY => "-Infinity".into(),
            value => f64::from(value).into(),
        };
        let sent: Vec<serde_json::Value> = rows.iter().map(|(x, colour, image)| {
            let [age, income, children] = x.map(write);
            serde_json::json!({
                "age": age, "income": income, "children": children, "colour": colour, "image": image,
            })
        }).collect();
        let body = serde_json::to_vec(&sent).unwrap();
        let request = decode_rows(&body, &schema(), LIMIT).unwrap();
        let expected: Vec<f32> = rows.iter().flat_map(|(x, ..)| *x).collect();
        for (got, expected) in singles(&request.inputs[0]).iter().zip(&expected) {
            prop_assert!(got == expected || (got.is_nan() && expected.is_nan()));
        }
        let colours: Vec<&[u8]> = request.inputs[1].elements().collect();
        prop_assert_eq!(colours, rows.iter().map(|(_, c, _)| c.as_bytes()).collect::<Vec<_>>());
        prop_assert_eq!(&request.inputs[2].data()[..], &rows.iter().flat_map(|(.., i)| *i).collect::<Vec<u8>>()[..]);
    }
}
