//! Tensors to features to columns.

use half::{bf16, f16};

use super::{FeaturePlan, Side};
use crate::config::{FeatureSettings, Monitor};
use crate::monitor::rows::{Column, Rows};
use crate::tensor::{Datatype, Signature, Tensor, TensorSpec};

pub(in crate::monitor) fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    let shape = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    TensorSpec { name: name.to_owned(), datatype, shape }
}

pub(in crate::monitor) fn signature(
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
) -> Signature {
    Signature { inputs, outputs }
}

pub(in crate::monitor) fn plan(signature: &Signature, settings: &Monitor) -> FeaturePlan {
    FeaturePlan::new(signature, settings, &[], &[]).unwrap()
}

fn names(plan: &FeaturePlan) -> Vec<&str> {
    plan.features().iter().map(|feature| feature.name.as_str()).collect()
}

pub(in crate::monitor) fn singles(shape: &[usize], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(Datatype::Fp32, shape, data.into()).unwrap()
}

#[test]
fn columns_become_features_by_name() {
    let inputs = vec![
        spec("image", Datatype::Fp32, &[-1, 2]),
        spec("age", Datatype::Int64, &[-1]),
        spec("photo", Datatype::Uint8, &[-1, 100, 100]),
        spec("words", Datatype::Bytes, &[-1, -1]),
    ];
    let outputs =
        vec![spec("probabilities", Datatype::Fp32, &[-1, 3]), spec("mask", Datatype::Fp32, &[5])];
    let all = signature(inputs, outputs);
    let labels = [Some(["cat", "dog", "eel"].map(str::to_owned).to_vec()), None];
    let metadata = [("feature_names".to_owned(), "[\"left\", \"right\"]".to_owned())];
    let planned = FeaturePlan::new(&all, &Monitor::default(), &metadata, &labels).unwrap();
    let found = names(&planned);
    assert_eq!(found[..5], ["left", "right", "age", "photo.mean", "photo.deviation"]);
    assert_eq!(found[26..28], ["words.length", "words.missing"]);
    let scores = ["cat", "dog", "eel"].map(|class| format!("probabilities_{class}"));
    assert_eq!(found[28..31], scores);
    let measures = ["top", "margin", "entropy", "class"].map(|m| format!("probabilities.{m}"));
    // The output without rows of its own is none of a row's.
    assert_eq!(found[31..], measures);
    assert_eq!(planned.features()[0].source, "image[0]");
    assert_eq!(planned.score().unwrap().n_columns, 3);
    let settings = Monitor { max_features: 8, ..Monitor::default() };
    let few = plan(&all, &settings);
    assert_eq!((few.features().len(), few.n_left_out()), (8, 27));
    assert!(few.features().iter().filter(|feature| feature.side == Side::Output).count() == 4);
}

#[test]
fn settings_that_fit_no_tensor_are_errors() {
    let all = signature(
        vec![spec("x", Datatype::Fp32, &[-1, 2])],
        vec![spec("y", Datatype::Fp32, &[-1, 1]), spec("label", Datatype::Bytes, &[-1])],
    );
    let said = |change: fn(&mut Monitor)| {
        let mut settings = Monitor::default();
        change(&mut settings);
        FeaturePlan::new(&all, &settings, &[], &[]).unwrap_err().to_string()
    };
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (error, expected) in [
        (
            said(|s| s.score = Some("z".into())),
            "monitor.score: the model has no output 'z'; it has y, label",
        ),
        (
            said(|s| s.score = Some("label".into())),
            "monitor.score: output 'label' cannot be a score",
        ),
        (
            said(|s| s.prediction = Some("z".into())),
            "monitor.prediction: the model has no output 'z'",
        ),
        (
            said(|s| drop(s.names.insert("y".into(), vec![]))),
            "monitor.names: the model has no input 'y'; it has x",
        ),
        (
            said(|s| drop(s.names.insert("x".into(), vec!["a".into()]))),
            "monitor.names.x: expected 2 names, one a column, got 1",
        ),
        (
            said(|s| drop(s.names.insert("x".into(), vec!["a".into(), "a".into()]))),
            "monitor.names.x: two features are called 'a'",
        ),
        (
            said(|s| drop(s.features.insert("q".into(), FeatureSettings::default()))),
            "monitor.features: the model has no feature 'q'; it has label, x_0, x_1, y",
        ),
    ] {
        assert!(error.starts_with(expected), "{error}");
    }
    let mut settings = Monitor::default();
    settings.names.insert("x".into(), owned(&["a", "label"]));
    settings
        .features
        .insert("a".into(), FeatureSettings { ignore: true, ..FeatureSettings::default() });
    let planned = plan(&all, &settings);
    assert_eq!(names(&planned), ["label", "y", "output label[0]"]);
    assert!(planned.is_unwatched("x[0]"));
}

/// What a column of the plan holds after one push of `tensor`, an input of `datatype`.
fn read_back(datatype: Datatype, bytes: Vec<u8>) -> Vec<f64> {
    let all = signature(vec![spec("x", datatype, &[-1])], Vec::new());
    let planned = plan(&all, &Monitor::default());
    let mut rows = Rows::new(&planned);
    // Of no particular alignment.
    let padded = bytes::Bytes::from([vec![0], bytes].concat()).slice(1..);
    let n = padded.len() / datatype.size().unwrap();
    rows.push(&planned, &[Tensor::new(datatype, [n].as_slice(), padded).unwrap()], &[]);
    match rows.column(0).unwrap() {
        Column::Single(values) => values.iter().map(|&value| f64::from(value)).collect(),
        Column::Double(values) => values.clone(),
        Column::Text(_) => Vec::new(),
    }
}

#[test]
fn every_datatype_is_read() {
    macro_rules! check {
        ($datatype:ident, $($value:expr => $number:expr),+) => {
            let bytes = [$($value.to_le_bytes().to_vec()),+].concat();
            assert_eq!(read_back(Datatype::$datatype, bytes), [$($number),+]);
        };
    }
    check!(Bool, 0_u8 => 0.0, 1_u8 => 1.0);
    check!(Uint8, 255_u8 => 255.0);
    check!(Uint16, u16::MAX => 65535.0);
    check!(Uint32, u32::MAX => 4_294_967_295.0);
    check!(Uint64, 1_u64 << 53 => 9_007_199_254_740_992.0);
    check!(Int8, -128_i8 => -128.0);
    check!(Int16, i16::MIN => -32768.0);
    check!(Int32, i32::MIN => -2_147_483_648.0);
    check!(Int64, -1_i64 => -1.0);
    check!(Fp16, f16::from_f32(0.1) => f16::from_f32(0.1).to_f64());
    check!(Bf16, bf16::from_f32(0.1) => bf16::from_f32(0.1).to_f64());
    check!(Fp32, 0.1_f32 => f64::from(0.1_f32), f32::INFINITY => f64::INFINITY);
    check!(Fp64, 0.1_f64 => 0.1);
}

#[test]
fn what_is_not_there_is_missing_and_texts_are_hashed() {
    let all = signature(
        vec![spec("x", Datatype::Fp32, &[-1, 2]), spec("t", Datatype::Bytes, &[-1, 2])],
        vec![spec("label", Datatype::Int64, &[-1])],
    );
    let planned = plan(&all, &Monitor::default());
    let mut rows = Rows::with_names(&planned);
    let texts = ["a", "b", "", "a"];
    let texts = Tensor::from_elements([2, 2].as_slice(), texts).unwrap();
    // The output has another number of rows; the second request has no text.
    let label = Tensor::new(Datatype::Int64, [1].as_slice(), vec![0; 8].into()).unwrap();
    rows.push(&planned, &[singles(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), texts], &[label]);
    rows.push(&planned, &[singles(&[1, 2], &[5.0, 6.0])], &[]);
    assert_eq!(rows.len(), 3);
    let Some(Column::Single(second)) = rows.column(1) else { unreachable!() };
    assert_eq!(*second, [2.0, 4.0, 6.0]);
    let Some(Column::Text(first)) = rows.column(2) else { unreachable!() };
    assert_eq!(first.hashes[1..], [0, 0]);
    assert_eq!(first.names.as_ref().unwrap().name(first.hashes[0]), Some("a"));
    assert!(first.lengths[1].is_nan());
    let Some(Column::Double(labels)) = rows.column(4) else { unreachable!() };
    assert!(labels.iter().all(|label| label.is_nan()) && labels.len() == 3);
    rows.clear();
    assert!(rows.is_empty());
}

#[test]
fn a_model_without_a_batch_has_a_row_a_request() {
    let all =
        signature(vec![spec("x", Datatype::Fp32, &[2, 1])], vec![spec("y", Datatype::Fp32, &[])]);
    let planned = plan(&all, &Monitor::default());
    assert_eq!(names(&planned), ["x_0", "x_1", "y"]);
    let mut rows = Rows::new(&planned);
    for value in [1.0, 2.0] {
        rows.push(&planned, &[singles(&[2, 1], &[value, -value])], &[singles(&[], &[value])]);
    }
    assert_eq!(rows.len(), 2);
    let Some(Column::Single(second)) = rows.column(1) else { unreachable!() };
    assert_eq!(*second, [-1.0, -2.0]);
}
