//! Baselines: built of rows of every sort, written, read, and counted by.

use proptest::prelude::*;
use serde_json::Value;

use super::{About, Baseline, BaselineBuilder, Marks, Origin, Source};
use crate::config::{FeatureKind, FeatureSettings, Monitor, Season};
use crate::monitor::cells::Cells;
use crate::monitor::compare::Comparer;
use crate::monitor::feature::tests::{plan, signature, singles, spec};
use crate::monitor::feature::{FeaturePlan, Kind};
use crate::monitor::reader::{CellReader, RowCells, count};
use crate::monitor::rows::Rows;
use crate::tensor::{Datatype, Shape, Signature, Tensor};

fn about() -> About {
    let (model, digest) = ("m".to_owned(), "sha256:0".to_owned());
    About { model, version: 1, digest, created_at: 0, origin: Origin::File }
}

/// Rows of every sort: numbers with atoms and gaps, codes, names, ids, classes.
fn mixed(n: usize) -> (Signature, Vec<Tensor>, Vec<Tensor>) {
    let mut random = fastrand::Rng::with_seed(7);
    let all = signature(
        vec![
            spec("x", Datatype::Fp32, &[-1, 3]),
            spec("wide", Datatype::Fp64, &[-1]),
            spec("code", Datatype::Int32, &[-1]),
            spec("colour", Datatype::Bytes, &[-1]),
            spec("id", Datatype::Bytes, &[-1]),
        ],
        vec![spec("probabilities", Datatype::Fp32, &[-1, 2])],
    );
    let mut x = Vec::new();
    let (mut wide, mut code) = (Vec::new(), Vec::new());
    let (mut colours, mut ids, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..n {
        let normal: f32 = (0..12).map(|_| random.f32()).sum::<f32>() - 6.0;
        let gap = if random.u8(..) < 5 { f32::NAN } else { random.f32().powi(3) };
        x.extend([normal, gap, f32::from(random.u8(..3))]);
        wide.extend((f64::from(normal) * 1e9 + random.f64()).to_le_bytes());
        code.extend(random.i32(0..40).min(20).to_le_bytes());
        colours.push(["red", "green", "blue", ""][random.usize(..4)].to_owned());
        ids.push(format!("id-{row:06}"));
        let p = random.f32();
        scores.extend([p, 1.0 - p]);
    }
    let inputs = vec![
        singles(&[n, 3], &x),
        Tensor::new(Datatype::Fp64, [n].as_slice(), wide.into()).unwrap(),
        Tensor::new(Datatype::Int32, [n].as_slice(), code.into()).unwrap(),
        Tensor::from_elements([n].as_slice(), colours).unwrap(),
        Tensor::from_elements([n].as_slice(), ids).unwrap(),
    ];
    (all, inputs, vec![singles(&[n, 2], &scores)])
}

/// Rows `start` to `end` of a tensor.
fn cut(tensor: &Tensor, start: usize, end: usize) -> Tensor {
    let mut shape = Shape::from_slice(tensor.shape());
    let per_row: usize = shape.iter().skip(1).product();
    shape[0] = end - start;
    match tensor.datatype().size() {
        Some(size) => {
            let bytes = start * per_row * size..end * per_row * size;
            Tensor::new(tensor.datatype(), shape, tensor.data().slice(bytes)).unwrap()
        }
        None => {
            let elements = tensor.elements().skip(start * per_row);
            Tensor::from_elements(shape, elements.take((end - start) * per_row)).unwrap()
        }
    }
}

/// A baseline of `mixed` rows, given in batches of `sizes`, keeping a sample of `most`.
fn build(n: usize, sizes: &[usize], most: usize, settings: &Monitor) -> (FeaturePlan, Baseline) {
    let (all, inputs, outputs) = mixed(n);
    let planned = plan(&all, settings);
    let times: Vec<i64> = (0..n as i64).map(|row| row * 600_000).collect();
    let segments: Vec<String> = (0..n).map(|row| format!("s{}", row % 20)).collect();
    let mut batches = Vec::new();
    let mut start = 0;
    for &size in sizes.iter().cycle() {
        let end = (start + size.max(1)).min(n);
        let part = |tensors: &[Tensor]| -> Vec<Tensor> {
            tensors.iter().map(|tensor| cut(tensor, start, end)).collect()
        };
        let mut rows = Rows::with_names(&planned);
        rows.push(&planned, &part(&inputs), &part(&outputs));
        batches.push((rows, start, end));
        start = end;
        if start == n {
            break;
        }
    }
    let marks = |start: usize, end: usize| Marks {
        times: Some(&times[start..end]),
        segments: Some(&segments[start..end]),
    };
    let mut builder = BaselineBuilder::with_sample(&planned, settings, most);
    for (rows, start, end) in &batches {
        builder.push(rows, marks(*start, *end));
    }
    let needs_second_pass = builder.needs_second_pass();
    assert_eq!(needs_second_pass, n > most);
    let mut counting = builder.settle().unwrap();
    if needs_second_pass {
        for (rows, start, end) in &batches {
            counting.count(rows, marks(*start, *end));
        }
    }
    let baseline = counting.finish(about()).unwrap();
    (planned, baseline)
}

#[test]
fn kinds_and_cells_are_what_the_columns_look_like() {
    let settings = Monitor { season: Season::HourOfWeek, ..Monitor::default() };
    let (planned, baseline) = build(4000, &[1000], 10_000, &settings);
    let feature = |name: &str| {
        let position = baseline.position(name);
        position.map(|position| &baseline.features[position]).unwrap_or_else(|| panic!("{name}"))
    };
    for (name, kind, n_cells) in [
        ("x_0", Kind::Numeric, 20),
        ("x_1", Kind::Numeric, 20),
        ("x_2", Kind::Categorical, 6),
        ("wide", Kind::Numeric, 20),
        ("code", Kind::Categorical, 24),
        ("colour", Kind::Categorical, 6),
        ("id", Kind::Numeric, 5),
        ("probabilities.class", Kind::Categorical, 5),
        ("probabilities.margin", Kind::Numeric, 20),
        ("outlier score", Kind::Numeric, 20),
    ] {
        let found = feature(name);
        assert_eq!((found.kind, found.cells.len()), (kind, n_cells), "{name}");
        assert_eq!(found.counts.iter().sum::<u64>(), 4000, "{name}");
        assert!(found.variance_factor.is_some(), "{name}");
    }
    assert_eq!(feature("id").cells.label(1), "9");
    assert!((0.01..0.03).contains(&feature("x_1").missing_share()));
    assert!((0.2..0.3).contains(&feature("colour").missing_share()));
    let products = baseline.features.iter().filter(|f| matches!(f.source, Source::Product(_)));
    assert_eq!(products.count(), 3);
    let outlier = baseline.outlier.as_ref().unwrap();
    assert!(outlier.threshold > outlier.quantiles[0].1);
    // 16 segments, the others, and 168 hours.
    assert_eq!(baseline.slices.len(), 16 + 1 + 168);
    for slice in &baseline.slices {
        assert!(slice.counts.iter().all(|counts| counts.iter().sum::<u64>() == slice.rows));
    }
    let text = baseline.write();
    let read = Baseline::read(text.as_bytes(), "sha256:0").unwrap();
    assert_eq!(read, baseline);
    CellReader::new(&planned, &read).unwrap();
}

#[test]
fn kinds_follow_the_settings() {
    let mut settings = Monitor::default();
    for (name, kind) in [
        ("x_2", FeatureKind::Numeric),
        ("code", FeatureKind::Numeric),
        ("id", FeatureKind::Categorical),
        ("x_0", FeatureKind::Categorical),
    ] {
        settings.features.insert(
            name.into(),
            FeatureSettings { kind: Some(kind), ..FeatureSettings::default() },
        );
    }
    let (_, baseline) = build(2000, &[500], 10_000, &settings);
    let cells = |name: &str| &baseline.features[baseline.position(name).unwrap()].cells;
    assert_eq!(cells("x_2").len(), 5 + 3 + 1);
    assert!(matches!(cells("code"), Cells::Numeric { .. }));
    let Cells::Categorical { categories, others, is_open } = cells("id") else { unreachable!() };
    assert_eq!((categories.len(), others.len() / 16, *is_open), (31, 2000 - 31, false));
    assert!(matches!(cells("x_0"), Cells::Categorical { .. }));
}

#[test]
fn a_second_pass_counts_all_rows_and_a_sample_chooses_the_edges() {
    let settings = Monitor::default();
    let (planned, of_sample) = build(6000, &[700], 1500, &settings);
    let (_, of_all) = build(6000, &[700], 6000, &settings);
    for (few, all) in of_sample.features.iter().zip(&of_all.features) {
        assert_eq!((&few.name, few.kind), (&all.name, all.kind));
        assert_eq!(few.summary, all.summary);
        if few.source == Source::Outlier {
            continue;
        }
        assert_eq!(few.counts.iter().sum::<u64>(), 6000, "{}", few.name);
        if few.kind == Kind::Categorical {
            assert_eq!(few, all);
        }
    }
    // A quantile of 1,500 rows is within some hundredths of that of all.
    let shares =
        &of_sample.features[planned.features().iter().position(|f| f.name == "wide").unwrap()];
    let inner = &shares.counts[1..17];
    assert!(inner.iter().all(|&count| (250..520).contains(&count)), "{inner:?}");
    assert_eq!((shares.counts[0], shares.counts[17]), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_baseline_is_the_same_however_its_rows_are_cut(
        sizes in proptest::collection::vec(1_usize..400, 1..6),
        is_sampled: bool,
    ) {
        let settings = Monitor::default();
        let most = if is_sampled { 300 } else { 2000 };
        let (_, whole) = build(900, &[900], most, &settings);
        let (_, parts) = build(900, &sizes, most, &settings);
        prop_assert_eq!(whole.write(), parts.write());
    }

    #[test]
    fn counts_are_the_same_in_any_order_and_by_any_threads(
        sizes in proptest::collection::vec(1_usize..300, 1..6),
        seed: u64,
    ) {
        let n = 1000;
        let (planned, baseline) = build(n, &[n], n, &Monitor::default());
        let reader = CellReader::new(&planned, &baseline).unwrap();
        let (_, inputs, outputs) = mixed(n);
        let mut parts = Vec::new();
        let mut start = 0;
        for &size in sizes.iter().cycle() {
            let end = (start + size).min(n);
            parts.push((start, end));
            start = end;
            if start == n {
                break;
            }
        }
        fastrand::Rng::with_seed(seed).shuffle(&mut parts);
        let n_cells: Vec<usize> = baseline.features.iter().map(|f| f.cells.len()).collect();
        let count_parts = |parts: &[(usize, usize)]| -> Vec<Vec<u32>> {
            let mut counts: Vec<Vec<u32>> = n_cells.iter().map(|&n| vec![0; n]).collect();
            let mut cells = RowCells::default();
            let mut rows = Rows::new(&planned);
            for &(start, end) in parts {
                let cut_all = |tensors: &[Tensor]| -> Vec<Tensor> {
                    tensors.iter().map(|tensor| cut(tensor, start, end)).collect()
                };
                rows.clear();
                rows.push(&planned, &cut_all(&inputs), &cut_all(&outputs));
                reader.read(&rows, &mut cells);
                for (feature, counts) in counts.iter_mut().enumerate() {
                    count(cells.column(feature), counts);
                }
            }
            counts
        };
        let (first, second) = parts.split_at(parts.len() / 2);
        let (first, second) = std::thread::scope(|scope| {
            let other = scope.spawn(|| count_parts(second));
            (count_parts(first), other.join().unwrap())
        });
        for ((feature, first), second) in baseline.features.iter().zip(first).zip(second) {
            let sum: Vec<u64> =
                first.iter().zip(second).map(|(a, b)| u64::from(*a) + u64::from(b)).collect();
            prop_assert_eq!(&sum, &feature.counts, "{}", &feature.name);
        }
    }
}

#[test]
fn other_rows_are_new_beyond_or_odd() {
    let (planned, baseline) = build(3000, &[500], 3000, &Monitor::default());
    let reader = CellReader::new(&planned, &baseline).unwrap();
    let mut rows = Rows::new(&planned);
    let double = |value: f64| {
        Tensor::new(Datatype::Fp64, [1].as_slice(), value.to_le_bytes().to_vec().into()).unwrap()
    };
    let int = |value: i32| {
        Tensor::new(Datatype::Int32, [1].as_slice(), value.to_le_bytes().to_vec().into()).unwrap()
    };
    let text = |text: &str| Tensor::from_elements([1].as_slice(), [text]).unwrap();
    for (x, wide, code, colour, id) in [
        ([0.0, 0.1, 1.0], 0.0, 3, "red", "id-000001"),
        ([9.0, f32::INFINITY, 1.5], f64::NAN, 99, "mauve", "a much longer one"),
    ] {
        let inputs = [singles(&[1, 3], &x), double(wide), int(code), text(colour), text(id)];
        rows.push(&planned, &inputs, &[singles(&[1, 2], &[0.25, 0.75])]);
    }
    let mut cells = RowCells::default();
    reader.read(&rows, &mut cells);
    let label = |name: &str, row: usize| {
        let feature = baseline.position(name).unwrap();
        let cells = usize::from(cells.column(feature)[row]);
        baseline.features[feature].cells.label(cells)
    };
    for (name, ordinary, odd) in [
        ("x_1", None, "infinite"),
        ("x_2", Some("1"), "new category"),
        ("wide", None, "missing"),
        ("code", Some("3"), "new category"),
        ("colour", Some("red"), "new category"),
        ("id", Some("9"), "above 9"),
        ("probabilities.class", Some("1"), "1"),
    ] {
        if let Some(ordinary) = ordinary {
            assert_eq!(label(name, 0), ordinary, "{name}");
        }
        assert_eq!(label(name, 1), odd, "{name}");
    }
    assert!(label("x_0", 1).starts_with("above"), "{}", label("x_0", 1));
    let scores = cells.outlier_scores();
    let threshold = baseline.outlier.as_ref().unwrap().threshold as f32;
    assert!(scores[0] < threshold && scores[1] > threshold, "{scores:?}, {threshold}");
}

/// Changes one place of `value`, which `place` chooses.
fn mutate(value: &mut Value, place: &mut usize, with: &Value) -> bool {
    if *place == 0 {
        *value = with.clone();
        return true;
    }
    *place -= 1;
    match value {
        Value::Array(values) => values.iter_mut().any(|value| mutate(value, place, with)),
        Value::Object(map) => map.values_mut().any(|value| mutate(value, place, with)),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn whatever_a_baseline_holds_it_is_refused_or_can_be_read(
        place in 1_usize..2000,
        with in prop_oneof![
            Just(Value::Null), Just(Value::from(-1)), Just(Value::from(u64::MAX)),
            Just(Value::from(1e308)), Just(Value::from(0)), Just(Value::from(300)),
            Just(Value::from("")), Just(Value::from("x[0]")), Just(Value::from("numeric")),
            Just(Value::from("categorical")), Just(serde_json::json!([])),
            Just(serde_json::json!({"numeric": {"edges": []}})),
            Just(serde_json::json!({"categorical": {"categories": ["red"]}})),
            Just(serde_json::json!({"product": ["x[0]", "colour[0]"]})),
            Just(serde_json::json!([0, 1, 2, 3, 4, 5])),
        ],
    ) {
        static BUILT: std::sync::LazyLock<(FeaturePlan, Baseline, Value)> =
            std::sync::LazyLock::new(|| {
                let (planned, mut baseline) = build(300, &[300], 300, &Monitor::default());
                baseline.slices.truncate(1);
                let value = serde_json::to_value(&baseline).unwrap();
                (planned, baseline, value)
            });
        let (planned, _, value) = &*BUILT;
        let mut value = value.clone();
        let mut left = place;
        mutate(&mut value, &mut left, &with);
        if let Ok(mut read) = Baseline::read(value.to_string().as_bytes(), "sha256:0") {
            read.restrict(planned);
            if let Ok(reader) = CellReader::new(planned, &read) {
                let (_, inputs, outputs) = mixed(40);
                let mut rows = Rows::new(planned);
                rows.push(planned, &inputs, &outputs);
                let mut cells = RowCells::default();
                reader.read(&rows, &mut cells);
                for (feature, found) in read.features.iter().enumerate() {
                    let column = cells.column(feature);
                    prop_assert_eq!(column.len(), 40);
                    prop_assert!(column.iter().all(|&cell| usize::from(cell) < found.cells.len()));
                }
            }
            let comparer = Comparer::new(planned, &read);
            if let Ok(mut comparer) = comparer {
                comparer.push(&Rows::new(planned));
                drop(comparer.finish());
            }
        }
    }
}

#[test]
fn a_baseline_of_another_model_or_format_says_what_to_do() {
    let (_, baseline) = build(300, &[300], 300, &Monitor::default());
    let text = baseline.write();
    let said =
        |text: &str, digest: &str| Baseline::read(text.as_bytes(), digest).unwrap_err().to_string();
    assert_eq!(
        said(&text, "sha256:1"),
        "it was made with sha256:0, the model file is sha256:1; make it again with 'tidegate baseline'"
    );
    let other = text.replace("\"schema\":1", "\"schema\":2");
    assert!(said(&other, "sha256:0").starts_with("it has schema 2"));
    assert!(said("{", "sha256:0").starts_with("it is not valid: EOF"));
    let other = text.replacen("\"name\":\"x_0\"", "\"name\":\"x_1\"", 1);
    assert_eq!(said(&other, "sha256:0"), "feature 'x_1': its name stands twice");
}

#[test]
fn what_is_no_longer_watched_is_dropped_with_what_is_made_of_it() {
    let (_, mut baseline) = build(2000, &[500], 2000, &Monitor::default());
    let n_features = baseline.features.len();
    let mut settings = Monitor::default();
    let ignored = FeatureSettings { ignore: true, ..FeatureSettings::default() };
    settings.features.insert("wide".into(), ignored);
    let (all, inputs, outputs) = mixed(500);
    let planned = plan(&all, &settings);
    assert!(CellReader::new(&planned, &baseline).is_err());
    baseline.restrict(&planned);
    let names: Vec<&str> = baseline.features.iter().map(|f| f.name.as_str()).collect();
    // The column, its two products, and the outlier score.
    assert_eq!(names.len(), n_features - 4, "{names:?}");
    assert!(names.iter().all(|name| !name.contains("wide") && *name != "outlier score"));
    assert!(baseline.outlier.is_none());
    assert!(baseline.slices.iter().all(|slice| slice.counts.len() == names.len()));
    baseline.check().unwrap();
    let mut comparer = Comparer::new(&planned, &baseline).unwrap();
    let mut rows = Rows::new(&planned);
    rows.push(&planned, &inputs, &outputs);
    comparer.push(&rows);
    assert_eq!(comparer.finish().rows, 500);
}

#[test]
fn a_comparison_finds_what_changed_and_nothing_else() {
    let (planned, baseline) = build(4000, &[1000], 4000, &Monitor::default());
    let (_, mut inputs, outputs) = mixed(1500);
    inputs[3] = Tensor::from_elements([1500].as_slice(), ["red"; 1500]).unwrap();
    let mut rows = Rows::new(&planned);
    rows.push(&planned, &inputs, &outputs);
    let mut comparer = Comparer::new(&planned, &baseline).unwrap();
    comparer.push(&rows);
    let comparison = comparer.finish();
    let first = &comparison.features[0];
    assert_eq!(first.name, "colour");
    assert!(first.window.effects.psi > 1.0);
    assert!(first.window.moved.iter().any(|moved| moved.cell == "red" && moved.actual == 1.0));
    for other in &comparison.features[1..] {
        // The outlier score is made of colours as well.
        let is_score = other.name == "outlier score";
        let psi = other.window.effects.psi_debiased;
        assert!(is_score || psi.abs() < 0.03, "{}: {psi}", other.name);
    }
}
