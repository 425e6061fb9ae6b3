//! Predictions in other forms than the Open Inference Protocol's: V1, rows by name, CSV, Arrow
//! streams; and the documents that describe them all.

use std::sync::Arc;

use arrow_array::types::{Float32Type, Float64Type, Int32Type};
use arrow_array::{
    ArrayRef, DictionaryArray, FixedSizeListArray, Float64Array, LargeStringArray, RecordBatch,
    StringArray, cast::AsArray,
};
use arrow_ipc::CompressionType;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use serde_json::{Value, json};
use tract_onnx::pb::tensor_proto::DataType;

use super::harness::{Answer, Server, Setup, digit, shipped_file};
use super::onnx;

const ARROW: &str = "application/vnd.apache.arrow.stream";

/// The first two rows of the samples.
fn loans() -> [Value; 2] {
    let row = |value: f64, ratio: f64, length: u32, tenure: f64, salary: &str, share: &str| {
        json!({
            "car_value": value, "debt_to_income_ratio": ratio, "loan_length": length,
            "driver_tenure": tenure, "salary_range": salary, "repaid_loan_on_prev_car": "False",
            "size_of_downpayment": share,
        })
    };
    [
        row(12638.0, 0.487_926_3, 21, 4.224_627, "0 - 20K €", "10%"),
        row(52425.0, 0.672_183_5, 20, 4.963_103, "20K - 40K €", "40%"),
    ]
}

/// What the protocol itself answers for these rows.
fn expected(server: &Server) -> (Vec<f64>, Vec<i64>) {
    let request = String::from_utf8(shipped_file("car-loan/request.json")).unwrap();
    let answer = server.post("/v2/models/car-loan/infer", &request).json();
    let output = |at: usize| answer["outputs"][at]["data"].as_array().unwrap().clone();
    let probabilities = output(0).iter().map(|value| value.as_f64().unwrap()).collect();
    (probabilities, output(1).iter().map(|value| value.as_i64().unwrap()).collect())
}

fn stream(batches: &[RecordBatch], compression: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let schema = batches[0].schema();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn send(server: &Server, model: &str, body: &[u8]) -> Answer {
    server.post_with(&format!("/v2/models/{model}/predict"), &[("content-type", ARROW)], body)
}

fn read(answer: &Answer) -> RecordBatch {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), ARROW);
    let mut reader = StreamReader::try_new(answer.body.as_slice(), None).unwrap();
    let batch = reader.next().unwrap().unwrap();
    assert!(reader.next().is_none());
    batch
}

#[test]
fn rows_by_name_are_what_the_protocol_answers() {
    let server = Setup::with_models(&["car-loan", "digits"]).start();
    let (probabilities, labels) = expected(&server);
    let [first, second] = loans();
    let path = "/v2/models/car-loan/predict";
    let one = server.post_with(path, &[("x-request-id", "loan-1")], first.to_string().as_bytes());
    let document = one.json();
    assert_eq!(
        (&document["model_name"], &document["model_version"]),
        (&"car-loan".into(), &"1".into())
    );
    assert_eq!((&document["id"], &document["prediction"]), (&"loan-1".into(), &labels[0].into()));
    assert_eq!(document["probability"], json!(probabilities[0]));
    assert!(one.header("tidegate-model-digest").starts_with("sha256:"));
    assert_eq!(one.header("tidegate-model-version"), "1");
    let both = server.post(path, &json!([first, second]).to_string()).json();
    let rows = both["predictions"].as_array().unwrap();
    for (row, (probability, label)) in rows.iter().zip(probabilities.iter().zip(&labels)) {
        assert_eq!((&row["probability"], &row["prediction"]), (&json!(probability), &json!(label)));
    }
    // Classes by their names, an input by its own, another version by its alias.
    let image = serde_json::from_str::<Value>(&digit()).unwrap()["inputs"][0]["data"].clone();
    let digits = server.post(
        "/v2/models/digits/versions/candidate/predict",
        &json!({ "image": image }).to_string(),
    );
    let digits = digits.json();
    assert_eq!((&digits["prediction"], &digits["model_version"]), (&"five".into(), &"2".into()));
    assert!(digits["probabilities"]["five"].as_f64().unwrap() > 0.9);
    let count = |protocol: &str, code: &str| {
        server.metric("tidegate_predictions_total", &[protocol, code, "model=\"car-loan\""])
    };
    assert_eq!(count("protocol=\"rows\"", "code=\"ok\""), 2.0);
    let wrong = server.post(path, r#"{"car_valu": 1}"#);
    assert_eq!(wrong.status, 400);
    assert!(wrong.error().contains("did you mean 'car_value'?"), "{}", wrong.error());
    assert_eq!(count("protocol=\"rows\"", "code=\"invalid_argument\""), 1.0);
    let statistics = server.get("/v2/models/car-loan/versions/1/stats").json();
    assert_eq!(statistics["model_stats"][0]["inference_stats"]["success"]["count"], 3);
}

#[test]
fn feedback_finds_a_row_by_the_id_of_its_answer() {
    let server = Setup::with_models(&["car-loan"]).start();
    let answer = server.post("/v2/models/car-loan/predict", &loans()[0].to_string()).json();
    let feedback = json!({ "records": [{ "id": answer["id"], "label": 1 }] }).to_string();
    let counts = server.post("/v2/models/car-loan/feedback", &feedback).json();
    assert_eq!(
        counts["joined"].as_u64().unwrap() + counts["waiting"].as_u64().unwrap(),
        1,
        "{counts}"
    );
}

#[test]
fn v1_speaks_as_kserve_and_tensorflow_serving() {
    let server = Setup::with_models(&["car-loan", "digits"]).start();
    let (probabilities, labels) = expected(&server);
    let [first, second] = loans();
    let predict = "/v1/models/car-loan:predict";
    let body = json!({ "signature_name": "serving_default", "instances": [first, second] });
    let rows = server.post(predict, &body.to_string()).json();
    for (row, (probability, label)) in probabilities.iter().zip(&labels).enumerate() {
        assert_eq!(rows["predictions"][row]["probability"], json!([probability]));
        assert_eq!(rows["predictions"][row]["label"], json!([label]));
    }
    let columns: Vec<(String, Value)> = first
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), json!([value, second[name]])))
        .collect();
    let columns = Value::Object(columns.into_iter().collect());
    let answer = server.post(predict, &json!({ "inputs": columns }).to_string()).json();
    assert_eq!(answer["outputs"]["probability"], json!([[probabilities[0]], [probabilities[1]]]));
    let image = serde_json::from_str::<Value>(&digit()).unwrap()["inputs"][0]["data"].clone();
    for path in ["versions/2", "versions/candidate", "labels/candidate"] {
        let path = format!("/v1/models/digits/{path}:predict");
        let answer = server.post(&path, &json!({ "instances": [image] }).to_string());
        assert_eq!(answer.header("tidegate-model-version"), "2", "{}", answer.text());
        assert_eq!(answer.json()["predictions"][0]["label"], 5);
    }
    assert_eq!(server.get("/v1/models").json(), json!({ "models": ["car-loan", "digits"] }));
    let model = server.get("/v1/models/digits").json();
    assert_eq!((&model["name"], &model["ready"]), (&"digits".into(), &true.into()));
    assert_eq!(model["model_version_status"][1]["version"], "2");
    for (answer, status, expected) in [
        (server.get("/v1/models/nobody"), 404, "model 'nobody' is not known"),
        (server.post("/v1/models/nobody:predict", "{\"instances\": [1]}"), 404, "not known"),
        (server.post("/v1/models/digits:explain", "{}"), 501, "no model here has an explainer"),
        (server.post(predict, "{\"instances\": [{\"car_valu\": 1}]}"), 400, "'car_value'?"),
        (server.get(predict), 405, "takes POST"),
        (server.post("/v1/models/digits", "{}"), 405, "takes GET"),
    ] {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.error().contains(expected), "{}", answer.error());
    }
    let metric = ["protocol=\"v1\"", "model=\"car-loan\""];
    assert_eq!(server.metric("tidegate_predictions_total", &metric), 3.0);
}

#[test]
fn csv_in_and_out() {
    let server = Setup::with_models(&["car-loan"]).start();
    let samples = shipped_file("car-loan/samples.csv");
    let path = "/v2/models/car-loan/predict";
    let answer = server.post_with(path, &[("content-type", "text/csv")], &samples);
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8");
    let text = answer.text();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("probability,label"));
    assert_eq!(lines.count(), 400);
    let headers = [("content-type", "text/csv"), ("accept", "application/json")];
    let document = server.post_with(path, &headers, &samples).json();
    assert_eq!(document["predictions"].as_array().unwrap().len(), 400);
    let headers = [("accept", "text/csv")];
    let one = server.post_with(path, &headers, loans()[0].to_string().as_bytes());
    assert!(one.text().starts_with("probability,label\n0.7"), "{}", one.text());
    for (body, expected) in [
        ("", "it has no header line"),
        ("car_value\n1\n", "needs a column 'debt_to_income_ratio'"),
        ("car_value,car_value\n1,2\n", "two columns are called 'car_value'"),
    ] {
        let answer = server.post_with(path, &[("content-type", "text/csv")], body.as_bytes());
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains(expected), "{body}: {}", answer.error());
    }
}

#[test]
fn arrow_streams_are_scored_whatever_their_types() {
    let server = Setup::with_models(&["car-loan"]).start();
    let (probabilities, labels) = expected(&server);
    let rows = loans();
    let numbers = |name: &str| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row[name].as_f64().unwrap())))
    };
    let texts = |name: &str| -> Vec<String> {
        rows.iter().map(|row| row[name].as_str().unwrap().to_owned()).collect()
    };
    let salaries: DictionaryArray<Int32Type> =
        texts("salary_range").iter().map(String::as_str).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        // What no input asks for is passed over.
        ("customer", Arc::new(StringArray::from(vec!["a", "b"]))),
        ("car_value", numbers("car_value")),
        ("debt_to_income_ratio", numbers("debt_to_income_ratio")),
        ("loan_length", numbers("loan_length")),
        ("driver_tenure", numbers("driver_tenure")),
        ("salary_range", Arc::new(salaries)),
        (
            "repaid_loan_on_prev_car",
            Arc::new(StringArray::from_iter_values(texts("repaid_loan_on_prev_car"))),
        ),
        (
            "size_of_downpayment",
            Arc::new(LargeStringArray::from_iter_values(texts("size_of_downpayment"))),
        ),
    ];
    let whole = batch(columns);
    let in_parts = [whole.slice(0, 1), whole.slice(1, 1)];
    for body in [
        stream(std::slice::from_ref(&whole), None),
        stream(std::slice::from_ref(&whole), Some(CompressionType::ZSTD)),
        stream(&in_parts, Some(CompressionType::LZ4_FRAME)),
    ] {
        let answer = send(&server, "car-loan", &body);
        let told = read(&answer);
        let metadata = told.schema().metadata().clone();
        assert_eq!(metadata["tidegate.model"], "car-loan");
        assert_eq!(metadata["tidegate.version"], "1");
        assert_eq!(metadata["tidegate.digest"], answer.header("tidegate-model-digest"));
        let told_probabilities: Vec<f64> = told["probability"]
            .as_primitive::<Float32Type>()
            .values()
            .iter()
            .map(|value| value.to_string().parse().unwrap())
            .collect();
        assert_eq!(told_probabilities, probabilities);
        assert_eq!(
            told["label"].as_primitive::<arrow_array::types::Int64Type>().values(),
            &labels[..]
        );
    }
    assert_eq!(server.metric("tidegate_predictions_total", &["protocol=\"arrow\""]), 3.0);
    let json = [("content-type", ARROW), ("accept", "application/json")];
    let body = stream(&[whole], None);
    let answer = server.post_with("/v2/models/car-loan/predict", &json, &body);
    assert_eq!(answer.json()["predictions"][1]["prediction"], json!(labels[1]));
}

#[test]
fn columns_and_lists_of_numbers_are_the_same_rows() {
    let model = onnx::identity(DataType::Float, &["N", "3"]);
    let settings = b"[monitor.names]\nx = [\"a\", \"b\", \"c\"]\n";
    let server = Setup::with_models(&[])
        .file("x/1/model.onnx", &model)
        .file("x/model.toml", settings)
        .start();
    let column =
        |values: [Option<f64>; 2]| -> ArrayRef { Arc::new(Float64Array::from(values.to_vec())) };
    let named = batch(vec![
        ("c", column([Some(3.0), None])),
        ("a", column([Some(1.0), Some(4.0)])),
        ("b", column([Some(2.0), Some(f64::INFINITY)])),
    ]);
    let lists = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        [
            Some(vec![Some(1.0), Some(2.0), Some(3.0)]),
            Some(vec![Some(4.0), Some(f32::INFINITY), None]),
        ],
        3,
    );
    let list = batch(vec![("x", Arc::new(lists))]);
    for body in [stream(&[named], None), stream(&[list], None)] {
        let told = read(&send(&server, "x", &body));
        let values = |name: &str| told[name].as_primitive::<Float32Type>().values().to_vec();
        assert_eq!(values("y_0"), [1.0, 4.0]);
        assert_eq!(values("y_1"), [2.0, f32::INFINITY]);
        assert_eq!(values("y_2")[0], 3.0);
        assert!(values("y_2")[1].is_nan());
    }
    let answer = server.post("/v2/models/x/predict", r#"{"c": 3, "b": 2, "a": 1}"#);
    assert_eq!(answer.json()["outputs"]["y"], json!([1.0, 2.0, 3.0]));
    let large = batch(vec![
        ("a", column([Some(1e300), None])),
        ("b", column([None; 2])),
        ("c", column([None; 2])),
    ]);
    let answer = send(&server, "x", &stream(&[large], None));
    assert_eq!(answer.status, 400);
    let expected = "row 1, column 'a': expected a number that the datatype can hold (FP32)";
    assert!(answer.error().contains(expected), "{}", answer.error());
}

#[test]
fn what_is_decoded_is_limited_too() {
    let model = onnx::identity(DataType::Float, &["N", "100"]);
    let server = Setup::with_models(&[])
        .file("x/1/model.onnx", &model)
        .config("[limits]\nbody = \"1MiB\"")
        .start();
    // Zeros are nothing once they are compressed.
    let zeros = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
        (0..5000).map(|_| Some(vec![Some(0.0); 100])),
        100,
    );
    let zeros: ArrayRef = Arc::new(zeros);
    let bomb = stream(&[batch(vec![("x", zeros)])], Some(CompressionType::ZSTD));
    assert!(bomb.len() < 20_000);
    let answer = send(&server, "x", &bomb);
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.error().contains("limits.body"), "{}", answer.error());
    let null = arrow_array::new_null_array(&arrow_schema::DataType::Null, 1 << 20);
    let answer = send(&server, "x", &stream(&[batch(vec![("x", null)])], None));
    assert_eq!(answer.status, 413, "{}", answer.text());
}

#[test]
fn many_rows_are_what_few_are() {
    // Slow enough to be run in parts.
    let server = Setup::with_models(&[]).file("heavy/1/model.onnx", &onnx::heavy(64, 20)).start();
    let n_rows = 3000;
    let values: Vec<f64> = (0..n_rows * 64).map(|index| f64::from(index % 97) / 97.0).collect();
    let columns: Vec<(String, ArrayRef)> = (0..64)
        .map(|column| {
            let values = values.iter().copied().skip(column).step_by(64);
            (format!("x_{column}"), Arc::new(Float64Array::from_iter_values(values)) as ArrayRef)
        })
        .collect();
    let all = RecordBatch::try_from_iter(columns).unwrap();
    let told = read(&send(&server, "heavy", &stream(std::slice::from_ref(&all), None)));
    let lists = |batch: &RecordBatch| -> Vec<Vec<f32>> {
        (0..64)
            .map(|c| {
                batch[format!("y_{c}").as_str()].as_primitive::<Float32Type>().values().to_vec()
            })
            .collect()
    };
    let whole = lists(&told);
    for first in [0, 1499, 1500, 2990] {
        let part = read(&send(&server, "heavy", &stream(&[all.slice(first, 10)], None)));
        for (whole, part) in whole.iter().zip(lists(&part)) {
            for (whole, part) in whole[first..first + 10].iter().zip(part) {
                assert!((whole - part).abs() <= part.abs() * 1e-5, "{whole} {part}");
            }
        }
    }
    assert_eq!(server.metric("tidegate_prediction_rows_total", &["model=\"heavy\""]), 3040.0);
}

#[test]
fn broken_streams_are_refused_and_nothing_else_happens() {
    let model = onnx::identity(DataType::Float, &["N", "3"]);
    let server = Setup::with_models(&[]).file("x/1/model.onnx", &model).start();
    let numbers = FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(
        (0..9).map(|row| Some(vec![Some(f64::from(row)); 3])),
        3,
    );
    let words: DictionaryArray<Int32Type> = (0..9).map(|_| "word").collect();
    let good = batch(vec![("x", Arc::new(numbers)), ("words", Arc::new(words))]);
    let good = stream(&[good.slice(0, 4), good.slice(4, 5)], Some(CompressionType::LZ4_FRAME));
    assert_eq!(read(&send(&server, "x", &good)).num_rows(), 9);
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..400 {
        let mut body = good.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..body.len());
            match random.u8(..4) {
                0 => body[at] ^= 1 << random.u8(..8),
                1 => body[at] = 0xff,
                2 => body.truncate(at.max(1)),
                _ => body[at] = random.u8(..),
            }
        }
        let answer = send(&server, "x", &body);
        assert!([200, 400, 413].contains(&answer.status), "{}", answer.text());
    }
    assert_eq!(server.metric("tidegate_panics_total", &[]), 0.0);
    assert_eq!(send(&server, "x", &good).status, 200);
}

#[test]
fn both_listeners_describe_themselves() {
    let server = Setup::with_models(&["digits"]).start();
    for (document, path) in [
        (server.get("/openapi.json").json(), "/v2/models/{model}/versions/{version}/predict"),
        (server.admin_get("/openapi.json").json(), "/api/v1/drift/{model}/{version}/history"),
    ] {
        assert_eq!(document["openapi"], "3.1.0");
        assert!(document["paths"].get(path).is_some(), "{path}");
    }
    // What the admin plane lists is what its document describes.
    let listed = server.admin_get("/").json();
    let described = server.admin_get("/openapi.json").json();
    for method in ["get", "post"] {
        for path in listed[method].as_array().unwrap() {
            let path = path.as_str().unwrap().split('?').next().unwrap();
            assert!(described["paths"][path].get(method).is_some(), "{method} {path}");
        }
    }
}
