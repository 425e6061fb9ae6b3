//! Comparisons of small tensors, counted by hand.

use std::time::Duration;

use super::numbers::tests::floats;
use super::*;
use crate::config::{Config, Tolerance};
use crate::tensor::{Datatype, TensorSpec};

const MICRO: Duration = Duration::from_micros(1);

fn settings() -> config::Comparison {
    let config = Config::parse("", std::path::Path::new("."), []).unwrap();
    let mut settings = config.model("m", None).unwrap().traffic.comparison;
    settings.tolerance = Tolerance { absolute: 0.1, relative: 0.0 };
    settings.worst = 2;
    settings
}

fn spec(name: &str, datatype: Datatype, shape: &[Option<usize>]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), datatype, shape: shape.to_vec() }
}

fn comparison(outputs: Vec<TensorSpec>) -> Comparison {
    let inputs = vec![spec("x", Datatype::Fp32, &[None, Some(1)])];
    let signature = Signature { inputs, outputs };
    let pair = Pair {
        model: "m".to_owned(),
        primary: 1,
        primary_digest: String::new(),
        candidate: "2".to_owned(),
        candidate_digest: String::new(),
    };
    let settings = settings();
    let plan =
        OutputPlan::of(&signature.outputs, &[], None, |output| settings.tolerance_of(output));
    Comparison::new(pair, settings, "engine", &signature, plan, 5)
}

fn texts(values: &[&str]) -> Tensor {
    Tensor::from_elements([values.len()].as_slice(), values).unwrap()
}

fn take(comparison: &mut Comparison, id: &str, of: &[Tensor], own: &[Tensor]) -> Outcome {
    let inputs = [floats(&[1.5, 2.5], 1)];
    comparison.take(&Compared {
        id: id.as_bytes(),
        segment: Some(b"north"),
        at: 9,
        inputs: &inputs,
        primary: Side::Answered(of, Some(10 * MICRO)),
        candidate: Side::Answered(own, Some(20 * MICRO)),
    })
}

fn label_and_scores() -> Comparison {
    comparison(vec![
        spec("label", Datatype::Bytes, &[None]),
        spec("probabilities", Datatype::Fp32, &[None, Some(2)]),
    ])
}

#[test]
fn classes_numbers_times_and_segments_are_counted() {
    let mut both = label_and_scores();
    let scores = floats(&[0.9, 0.1, 0.2, 0.8], 2);
    let of = [texts(&["no", "yes"]), scores.clone()];
    assert_eq!(take(&mut both, "a", &of, &of), Outcome::default());
    let own = [texts(&["no", "no"]), floats(&[0.85, 0.15, 0.6, 0.4], 2)];
    let outcome = take(&mut both, "b", &of, &own);
    assert_eq!(outcome, Outcome { disagrees: true, is_beyond: true });
    let report = both.report();
    let counts = report.counts;
    assert_eq!((counts.requests, counts.compared, counts.rows), (2, 2, 4));
    assert_eq!((counts.agreed, counts.within), (3, 3));
    // Twice the primary's time is more than 1.5 times.
    assert_eq!((counts.timed, counts.slower), (2, 2));
    assert!((report.latency.mean_ratio.unwrap() - 2.0).abs() < 1e-9);
    assert_eq!(report.agreement, Some(0.75));
    let [label, probabilities] = report.outputs.as_slice() else { panic!("{report:?}") };
    assert_eq!(label.classes, Some((4, 3)));
    assert!(
        label.confusion.iter().any(|c| (&*c.primary, &*c.candidate, c.rows) == ("yes", "no", 1))
    );
    let differences = probabilities.differences.as_ref().unwrap();
    assert_eq!((differences.elements, differences.beyond), (8, 2));
    assert!((differences.max_absolute - 0.4).abs() < 1e-6, "{differences:?}");
    assert_eq!(differences.histogram.iter().sum::<u64>(), 8);
    assert_eq!(differences.ulps.iter().sum::<u64>(), 8);
    assert_eq!(report.segments["north"].agreed, 3);
    let [worst] = report.worst.as_slice() else { panic!("{:?}", report.worst) };
    assert_eq!((worst.request_id.as_str(), worst.row, worst.disagrees), ("b", 1, true));
    assert_eq!(worst.inputs["x"].to_string(), "[2.5]");
    assert_eq!(worst.primary["label"].to_string(), r#"["yes"]"#);
    assert_eq!(worst.candidate["probabilities"].to_string(), "[0.6,0.4]");
    let earlier = report.counts;
    take(&mut both, "c", &of, &of);
    assert_eq!(both.report().counts.since(&earlier).rows, 2);
}

#[test]
fn a_regression_agrees_where_it_is_within_the_tolerance() {
    let mut numbers = comparison(vec![spec("price", Datatype::Fp32, &[None, Some(1)])]);
    take(&mut numbers, "a", &[floats(&[1.0, f32::NAN], 1)], &[floats(&[1.05, f32::NAN], 1)]);
    take(&mut numbers, "b", &[floats(&[1.0, 2.0], 1)], &[floats(&[1.5, f32::INFINITY], 1)]);
    let report = numbers.report();
    assert_eq!((report.counts.rows, report.counts.agreed, report.counts.within), (4, 2, 2));
    let differences = report.outputs[0].differences.as_ref().unwrap();
    assert_eq!((differences.non_finite, differences.beyond), (1, 2));
    assert!(report.outputs[0].classes.is_none());
    // The infinite one is the worst of its request.
    assert_eq!(report.worst[0].row, 1);
    assert_eq!(report.worst[0].tolerances, None);
}

#[test]
fn other_shapes_disagree_in_all_rows_and_errors_are_told_by_side() {
    let mut numbers = comparison(vec![spec("price", Datatype::Fp32, &[None, None])]);
    take(&mut numbers, "a", &[floats(&[1.0, 2.0], 1)], &[floats(&[1.0, 2.0], 2)]);
    let answered = [floats(&[1.0], 1)];
    let answered = Side::Answered(&answered, None);
    for (primary, candidate) in [
        (answered, Side::Failed("broken")),
        (answered, Side::TimedOut),
        (Side::Failed("full"), answered),
        (Side::Failed("both"), Side::Failed("of them")),
    ] {
        let compared = Compared { id: b"x", segment: None, at: 1, inputs: &[], primary, candidate };
        numbers.take(&compared);
    }
    let Report { counts, last_error, .. } = numbers.report();
    assert_eq!((counts.mismatched, counts.rows, counts.agreed), (1, 2, 0));
    assert_eq!((counts.candidate_errors, counts.timed_out), (2, 1));
    assert_eq!((counts.primary_errors, counts.both_errors, counts.requests), (1, 1, 5));
    assert_eq!(last_error.as_deref(), Some("of them"));
}

#[test]
fn what_is_kept_is_bounded_and_the_worst() {
    let mut numbers = comparison(vec![spec("price", Datatype::Fp64, &[None, Some(1)])]);
    for (id, off) in [("a", 0.2_f32), ("b", 5.0), ("c", 1.0), ("d", 9.0)] {
        take(&mut numbers, id, &[floats(&[0.0, 0.0], 1)], &[floats(&[0.0, off], 1)]);
    }
    for segment in 0..100 {
        let segment = segment.to_string();
        numbers.take(&Compared {
            id: b"s",
            segment: Some(segment.as_bytes()),
            at: 1,
            inputs: &[],
            primary: Side::TimedOut,
            candidate: Side::TimedOut,
        });
    }
    let report = numbers.report();
    let ids: Vec<_> = report.worst.iter().map(|kept| kept.request_id.as_str()).collect();
    assert_eq!(ids, ["d", "b"]);
    assert_eq!(report.segments.len(), MOST_SEGMENTS + 1);
    assert!(serde_json::to_string(&report).unwrap().contains("\"agreement\":0.5"));
}

#[test]
fn outputs_are_what_their_names_and_datatypes_say() {
    let (any, two) = (&[None][..], &[None, Some(2)][..]);
    let specs = [
        spec("label", Datatype::Int64, any),
        spec("embedding", Datatype::Fp32, &[None, Some(8)]),
        spec("probability", Datatype::Fp32, &[None, Some(1)]),
        spec("tags", Datatype::Bytes, two),
        spec("counts", Datatype::Int32, two),
    ];
    let plan = |score| OutputPlan::of(&specs, &[], score, |_| Tolerance::default());
    let kinds = |plan: Vec<OutputPlan>| plan.into_iter().map(|plan| plan.kind).collect::<Vec<_>>();
    let by_name = [Kind::Class, Kind::Numbers, Kind::Scores, Kind::Texts, Kind::Numbers];
    assert_eq!(kinds(plan(None)), by_name);
    let named = [Kind::Class, Kind::Scores, Kind::Numbers, Kind::Texts, Kind::Numbers];
    assert_eq!(kinds(plan(Some("embedding"))), named);
}
