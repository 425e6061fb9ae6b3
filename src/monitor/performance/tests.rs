//! From rows and labels to verdicts.

use std::sync::Arc;

use super::golden::{self, Rows};
use super::windows::Sum;
use super::*;
use crate::config::Classical;
use crate::monitor::labels::FeedbackRecord;
use crate::monitor::verdict::State;

fn reference(rows: &Rows) -> Reference<'_> {
    Reference {
        predictions: rows.predictions(),
        labels: &rows.labels,
        classes: &[],
        task: None,
        loss: None,
        is_ordered: false,
    }
}

fn settings() -> Settings {
    Settings {
        wait: 3_600_000,
        most: 10_000,
        tolerance: 0.1,
        threshold: 2_592_000f64.ln(),
        by_label: false,
        learn: 1_000,
        detectors: vec![Classical::Adwin, Classical::PageHinkley],
    }
}

fn near(found: Option<f64>, expected: f64, tolerance: f64) {
    let is_near = found.is_some_and(|found| (found - expected).abs() <= tolerance);
    assert!(is_near, "{found:?} instead of {expected}");
}

fn record(id: u64, label: Label) -> FeedbackRecord {
    FeedbackRecord { id: id.to_string(), row: 0, label }
}

/// A stream of a binary model: each request is labelled at once, a tick comes every 50 rows.
struct Stream {
    live: Performance,
    rng: fastrand::Rng,
    n: u64,
}

impl Stream {
    fn new(baseline: ScoreBaseline) -> Self {
        let live = Performance::new(Arc::new(baseline), &settings(), 0);
        Self { live, rng: fastrand::Rng::with_seed(1), n: 0 }
    }

    /// Rows whose label is wrong in so many cases; returns the changes.
    fn run(&mut self, n: u64, share_wrong: f64) -> Vec<Change> {
        let mut changes = Vec::new();
        for _ in 0..n {
            self.n += 1;
            let score = self.rng.f32();
            let class = u32::from(score >= 0.5);
            let predictions = Predictions {
                scores: &[score],
                n_scores: 1,
                predicted: Predicted::Classes(&[class]),
            };
            let now = self.n * 20;
            self.live.observe(Some(self.n.to_string().as_bytes()), &predictions, now);
            let is_right = self.rng.f64() >= share_wrong;
            let truth = if is_right { class } else { 1 - class };
            let counts = self.live.feedback(&[record(self.n, Label::Number(truth.into()))], now);
            assert_eq!(counts.joined, 1);
            if self.n.is_multiple_of(50) {
                changes.extend(self.live.tick(now));
            }
        }
        changes
    }
}

#[test]
fn a_rise_of_the_loss_is_said_and_its_end_too() {
    let baseline = ScoreBaseline::fit(&reference(&golden::binary(20_000, 0.0))).unwrap();
    let loss = baseline.loss.unwrap();
    assert!((loss.mean - 0.281).abs() < 0.01 && loss.variance_factor.is_none(), "{loss:?}");
    let mut stream = Stream::new(baseline);
    assert_eq!(stream.run(20_000, loss.mean), []);
    assert_eq!(stream.live.state(), State::Ok);
    let changes = stream.run(3_000, 0.45);
    let performance: Vec<&Change> =
        changes.iter().filter(|change| change.detector == "performance").collect();
    let states: Vec<State> = performance.iter().map(|change| change.to).collect();
    assert_eq!(states, [State::Suspected, State::Drifted], "{changes:?}");
    let found = performance[1];
    assert!(found.at < (20_000 + 800) * 20, "after {} labels", found.at / 20 - 20_000);
    assert!(found.onset.unwrap().abs_diff(20_000 * 20) < 400 * 20, "{found:?}");
    assert!(found.evidence >= found.threshold && found.text.contains("beyond"), "{found:?}");
    // Both classical ones see so large a change.
    for name in ["adwin", "page-hinkley"] {
        assert!(changes.iter().any(|change| change.detector == name), "{changes:?}");
    }
    let verdict = stream.live.verdict(stream.n * 20);
    assert_eq!((verdict.state, verdict.loss.rows), (State::Drifted, 23_000));
    near(verdict.loss.mean_since, 0.45, 0.05);
    let (low, high) = verdict.loss.interval.unwrap();
    assert!(low < 0.3 && 0.3 < high && high - low < 0.1);

    assert_eq!(stream.live.acknowledge(stream.n * 20), None);
    assert!(stream.live.verdict(stream.n * 20).acknowledged);
    let changes = stream.run(3_000, 0.2);
    let states: Vec<State> = changes
        .iter()
        .filter(|change| change.detector == "performance")
        .map(|change| change.to)
        .collect();
    assert_eq!(states, [State::Ok], "it was acknowledged");
    // Not acknowledged, it stays recovered; over a restart too. It is seen soon, however long the
    // drift lasted.
    stream.run(30_000, 0.45);
    stream.run(1_000, 0.2);
    assert_eq!(stream.live.state(), State::Recovered);
    let kept = serde_json::to_string(&stream.live.kept()).unwrap();
    let before = stream.live.verdict(stream.n * 20);
    stream.live = Performance::new(Arc::new(stream.live.baseline().clone()), &settings(), 0);
    assert!(stream.live.restore(serde_json::from_str(&kept).unwrap()));
    let after = stream.live.verdict(stream.n * 20);
    assert_eq!((after.realised, after.loss), (before.realised, before.loss));
    let other = ScoreBaseline::fit(&reference(&golden::multiclass(500, 0.0))).unwrap();
    let mut other = Performance::new(Arc::new(other), &settings(), 0);
    assert!(!other.restore(serde_json::from_str(&kept).unwrap()));
    assert_eq!(stream.live.state(), State::Recovered);
    let change = stream.live.acknowledge(stream.n * 20).unwrap();
    assert_eq!((change.from, change.to), (State::Recovered, State::Ok));
}

#[test]
fn verdicts_say_what_was_counted() {
    let rows = golden::binary(4_000, -0.6);
    let baseline = ScoreBaseline::fit(&reference(&golden::binary(20_000, 0.0))).unwrap();
    let mut live = Performance::new(Arc::new(baseline.clone()), &settings(), 0);
    live.observe(Some(b"all"), &rows.predictions(), 1_000);
    let records: Vec<FeedbackRecord> = (0..)
        .zip(&rows.labels)
        .map(|(row, label)| FeedbackRecord {
            id: "all".to_owned(),
            row,
            label: label.clone().unwrap(),
        })
        .collect();
    let counts = live.feedback(&records, 2_000);
    assert_eq!(counts.joined, 4_000);
    let counts = live.feedback(
        &[records[0].clone(), record(7, Label::Bool(true)), record(8, Label::Text("cat".into()))],
        2_000,
    );
    assert_eq!((counts.duplicate, counts.waiting, counts.invalid), (1, 1, 1));
    let verdict = live.verdict(3_000);
    assert_eq!(verdict.realised.iter().map(|w| w.rows).collect::<Vec<_>>(), [4_000; 3]);
    assert_eq!(verdict.estimated.iter().map(|w| w.rows).collect::<Vec<_>>(), [4_000; 3]);
    // Nothing has changed but the scores: the estimate is what came.
    let (realised, estimated) = (verdict.realised[0].measures, verdict.estimated[0].measures);
    near(realised.accuracy, estimated.accuracy.unwrap().value, 0.01);
    near(realised.roc_auc, estimated.roc_auc.unwrap().value, 0.01);
    assert!(
        verdict.text.iter().any(|text| text.contains("no concept drift")),
        "{:?}",
        verdict.text
    );
    assert_eq!((verdict.labels.joined, verdict.labels.waiting), (4_000, 0));
    let json = serde_json::to_string(&verdict).unwrap();
    assert_eq!(serde_json::from_str::<PerformanceVerdict>(&json).unwrap(), verdict);
    // The baseline keeps in its file what it is.
    let json = serde_json::to_string(&baseline).unwrap();
    assert!(json.len() < 10_000, "{} bytes", json.len());
    let read: ScoreBaseline = serde_json::from_str(&json).unwrap();
    read.check().unwrap();
    assert_eq!(read, baseline);
}

#[test]
fn measures_by_labels_are_scikit_learns() {
    let rows = golden::binary(2_000, 0.0);
    let measures = ScoreBaseline::fit(&reference(&rows)).unwrap().measures().unwrap();
    near(measures.accuracy, 0.722, 1e-12);
    near(measures.precision, 0.7217217217217218, 1e-12);
    near(measures.f1, 0.7217217217217218, 1e-12);
    near(measures.log_loss, 0.594932750137079, 1e-6);
    near(measures.roc_auc, 0.7805067805067805, 2e-4);

    let rows = golden::multiclass(2_000, 0.0);
    let measures = ScoreBaseline::fit(&reference(&rows)).unwrap().measures().unwrap();
    near(measures.accuracy, 0.475, 1e-12);
    near(measures.precision, 0.47821921816749896, 1e-12);
    near(measures.recall, 0.4781559131379634, 1e-12);
    near(measures.f1, 0.47237944749333866, 1e-12);
    near(measures.log_loss, 1.0857146196697467, 1e-6);

    let uniform =
        |i: u64, factor: u64, modulus: u64| (i * factor % modulus) as f64 / modulus as f64;
    let (mut predicted, mut labels) = (Vec::new(), Vec::new());
    for i in 0..2_000 {
        let (u, v) = (uniform(i, 7919, 100_003), uniform(i, 104_729, 99_991));
        labels.push(Some(Label::Number(10.0 * u + (37.0 * u).sin())));
        predicted.push(10.2 * u + (37.0 * v).sin() / 3.0);
    }
    let predictions =
        Predictions { scores: &[], n_scores: 0, predicted: Predicted::Numbers(&predicted) };
    let rows = Rows::default();
    let reference = Reference { predictions, labels: &labels, ..reference(&rows) };
    let baseline = ScoreBaseline::fit(&reference).unwrap();
    assert_eq!(baseline.task, Task::Regression);
    let measures = baseline.measures().unwrap();
    near(measures.mae, 0.6706994215985919, 1e-5);
    near(measures.rmse, 0.7656301144045704, 1e-5);
    near(measures.bias, 0.09623737725338223, 1e-5);
    baseline.check().unwrap();
    let json = serde_json::to_string(&baseline).unwrap();
    assert_eq!(serde_json::from_str::<ScoreBaseline>(&json).unwrap(), baseline);
    // Errors that double are beyond it.
    let mut live = Performance::new(Arc::new(baseline), &settings(), 0);
    for (i, value) in predicted.iter().enumerate() {
        let predictions =
            Predictions { scores: &[], n_scores: 0, predicted: Predicted::Numbers(&[*value]) };
        live.observe(Some(i.to_string().as_bytes()), &predictions, i as u64);
        let Some(Label::Number(truth)) = &labels[i] else { continue };
        let label = Label::Number(value - 2.0 * (value - truth));
        assert_eq!(live.feedback(&[record(i as u64, label)], i as u64).joined, 1);
        live.tick(i as u64);
    }
    assert_eq!(live.state(), State::Drifted);
    near(live.verdict(2_000).realised[2].measures.mae, 2.0 * 0.6706994215985919, 1e-5);
}

#[test]
fn without_labels_in_the_baseline_the_loss_is_learned() {
    let classes = ["no".to_owned(), "yes".to_owned()];
    let baseline = ScoreBaseline::unlabelled(Task::Binary, &classes, true);
    baseline.check().unwrap();
    let mut stream = Stream::new(baseline);
    assert_eq!(stream.live.state(), State::Learning);
    let changes = stream.run(1_000, 0.1);
    assert_eq!(changes.iter().map(|change| change.to).collect::<Vec<_>>(), [State::Ok]);
    let verdict = stream.live.verdict(stream.n * 20);
    assert!(verdict.estimated.is_empty() && verdict.loss.learning.is_none());
    near(verdict.loss.reference, 0.1, 0.03);
    near(verdict.realised[2].measures.accuracy, 0.9, 0.03);
    stream.run(2_000, 0.3);
    assert_eq!(stream.live.state(), State::Drifted);
}

#[test]
fn counts_add_exactly_in_any_order() {
    let rows = golden::multiclass(6_000, -0.3);
    let baseline = ScoreBaseline::fit(&reference(&rows)).unwrap();
    let part = |from: usize, to: usize| {
        let predictions = Predictions {
            scores: &rows.scores[from * 3..to * 3],
            n_scores: 3,
            predicted: Predicted::Labels(&rows.predicted[from..to]),
        };
        let mut counts = ScoreCounts::new(&baseline);
        counts.count(&baseline, &predictions);
        counts
    };
    let whole = part(0, 6_000);
    let parts: Vec<ScoreCounts> = (0..60).map(|i| part(i * 100, i * 100 + 100)).collect();
    for order in [(0..60).collect::<Vec<_>>(), (0..60).rev().collect()] {
        let mut sum = ScoreCounts::new(&baseline);
        order.iter().for_each(|&i: &usize| sum.add(&parts[i]));
        assert_eq!(sum, whole);
    }
}

#[test]
fn the_task_is_found_out() {
    let number = |x: f64| Some(Label::Number(x));
    let text = |x: &str| Some(Label::Text(x.into()));
    let fit = |scores: &[f32], n_scores, predicted, labels: &[Option<Label>]| {
        let rows = Rows::default();
        let predictions = Predictions { scores, n_scores, predicted };
        ScoreBaseline::fit(&Reference { predictions, labels, ..reference(&rows) })
    };
    let found = |result: Result<ScoreBaseline, FitError>| {
        let baseline = result.unwrap();
        baseline.check().unwrap();
        (baseline.task, baseline.classes.join(" "), baseline.scores.len())
    };
    let scores = [0.1, 0.9, 0.8, 0.2];
    let bits = [number(0.0), number(1.0), None, number(0.0)];
    assert_eq!(found(fit(&scores, 1, Predicted::None, &bits)), (Task::Binary, "0 1".into(), 1));
    assert_eq!(
        found(fit(&scores, 2, Predicted::None, &bits[..2])),
        (Task::Binary, "0 1".into(), 1)
    );
    let words = [text("yes"), text("no"), text("no"), text("yes")];
    assert_eq!(found(fit(&scores, 1, Predicted::None, &words)), (Task::Binary, "no yes".into(), 1));
    let values = [number(0.5), number(1.0), number(7.25), number(3.0)];
    assert_eq!(found(fit(&scores, 1, Predicted::None, &values)), (Task::Regression, "".into(), 0));
    let numbers = Predicted::Numbers(&[2.0, 10.0, 9.0]);
    let classes = [number(2.0), number(9.0), number(10.0)];
    assert_eq!(found(fit(&[], 0, numbers, &classes)), (Task::Multiclass, "2 9 10".into(), 0));
    let names = [Label::Text("a".into()), Label::Text("b".into())];
    let named = [text("b"), text("b")];
    assert_eq!(
        found(fit(&[], 0, Predicted::Labels(&names), &named)),
        (Task::Binary, "a b".into(), 0)
    );
    // Ten scores, of whose classes some have no label here.
    let ten = vec![0.1; 30];
    let digits = (Task::Multiclass, "0 1 2 3 4 5 6 7 8 9".to_owned(), 10);
    assert_eq!(found(fit(&ten, 10, Predicted::None, &classes[..2])), digits);
    for (result, expected) in [
        (fit(&scores, 1, Predicted::None, &[None, None]), "no row has both"),
        (fit(&[], 1, Predicted::None, &bits), "no row has both"),
        (fit(&[0.2; 9], 3, Predicted::None, &words), "name the classes"),
        (fit(&[f32::NAN; 4], 1, Predicted::None, &bits), "no row has both"),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let rows = golden::binary(10, 0.0);
    let classes = ["a".to_owned(), "b".to_owned()];
    let labels = vec![text("c"); 10];
    let error =
        ScoreBaseline::fit(&Reference { classes: &classes, labels: &labels, ..reference(&rows) });
    assert_eq!(
        error.unwrap_err().to_string(),
        "the label 'c' of row 0 is none of the classes: a, b"
    );
}

#[test]
fn labels_are_known_in_every_guise() {
    let with = |classes: [&str; 2]| {
        ScoreBaseline::unlabelled(Task::Binary, &classes.map(str::to_owned), true)
    };
    let text = |x: &str| Label::Text(x.into());
    for (classes, label, expected) in [
        (["0", "1"], Label::Number(1.0), Some(1)),
        (["0", "1"], Label::Bool(true), Some(1)),
        (["0", "1"], text("1.0"), Some(1)),
        (["0", "1"], text("true"), Some(1)),
        (["0", "1"], Label::Number(2.0), None),
        (["1", "2"], Label::Number(1.0), Some(0)),
        (["1", "2"], Label::Number(0.0), None),
        (["false", "true"], Label::Number(0.0), Some(0)),
        (["false", "true"], Label::Bool(false), Some(0)),
        (["cat", "dog"], text("dog"), Some(1)),
        (["cat", "dog"], Label::Number(1.0), Some(1)),
        (["cat", "dog"], Label::Number(0.5), None),
        (["cat", "dog"], Label::Number(f64::NAN), None),
        (["cat", "dog"], text("cow"), None),
    ] {
        assert_eq!(with(classes).class_of(&label), expected, "{classes:?} {label:?}");
    }
    let values = ScoreBaseline::unlabelled(Task::Regression, &[], false);
    assert_eq!(values.truth_of(&Label::Number(-3.5)), Some(-3.5));
    assert_eq!(values.truth_of(&text("2e3")), Some(2000.0));
    assert_eq!(values.truth_of(&Label::Bool(true)), None);
    assert_eq!(values.truth_of(&Label::Number(f64::INFINITY)), None);
}

#[test]
fn baselines_that_make_no_sense_are_refused() {
    let good = ScoreBaseline::fit(&reference(&golden::multiclass(500, 0.0))).unwrap();
    good.check().unwrap();
    let breaks: [fn(&mut ScoreBaseline); 12] = [
        |b| b.task = Task::Binary,
        |b| b.classes.truncate(2),
        |b| b.scores.truncate(1),
        |b| b.scores[0].edges[3] = f32::NAN,
        |b| b.scores[0].edges.reverse(),
        |b| b.scores[1].calibrated.truncate(3),
        |b| b.scores[1].calibrated[0] = 1.5,
        |b| b.scores[2].edges = (0..1_000u16).map(f32::from).collect(),
        |b| b.reference.as_mut().unwrap().classes.truncate(1),
        |b| b.reference.as_mut().unwrap().classes[0].both = u64::MAX,
        |b| b.loss.as_mut().unwrap().mean = f64::NAN,
        |b| b.loss.as_mut().unwrap().kind = LossKind::AbsoluteError,
    ];
    for (index, change) in breaks.iter().enumerate() {
        let mut broken = good.clone();
        change(&mut broken);
        assert!(broken.check().is_err(), "change {index}");
    }
}

#[test]
fn rows_without_what_is_needed_are_passed_over() {
    let baseline = ScoreBaseline::fit(&reference(&golden::multiclass(500, 0.0))).unwrap();
    let mut live = Performance::new(Arc::new(baseline), &settings(), 0);
    for (scores, n_scores, predicted) in [
        (&[f32::NAN, 0.5, 0.5][..], 3, Predicted::Classes(&[1])),
        (&[0.5, 0.5][..], 2, Predicted::Classes(&[1])),
        (&[][..], 0, Predicted::Classes(&[1])),
        (&[0.2, 0.3, 0.5][..], 3, Predicted::Classes(&[99])),
        (&[0.2, 0.3, 0.5][..], 3, Predicted::None),
        (&[][..], 0, Predicted::None),
    ] {
        let id = format!("{scores:?}{predicted:?}");
        live.observe(Some(id.as_bytes()), &Predictions { scores, n_scores, predicted }, 0);
        live.observe(None, &Predictions { scores, n_scores, predicted }, 0);
        let records = [FeedbackRecord { id, row: 0, label: Label::Number(1.0) }];
        live.feedback(&records, 0);
    }
    let verdict = live.verdict(0);
    // With whole scores and a class; with a class.
    assert_eq!(verdict.estimated[2].rows, 2);
    assert_eq!(verdict.realised[2].rows, 4);
}

#[test]
fn scores_that_are_no_probabilities_are_calibrated() {
    let mut rows = golden::binary(20_000, 0.0);
    // Logits, and some that are infinite.
    rows.scores.iter_mut().for_each(|s| *s = (*s / (1.0 - *s)).ln());
    rows.scores[5] = f32::INFINITY;
    rows.scores[6] = f32::NEG_INFINITY;
    let baseline = ScoreBaseline::fit(&reference(&rows)).unwrap();
    baseline.check().unwrap();
    assert!(baseline.scores[0].is_calibrated);
    let measures = baseline.measures().unwrap();
    near(measures.roc_auc, 0.7755, 0.01);
    assert!(measures.log_loss.unwrap() < 0.6, "{measures:?}");
    let mut counts = ScoreCounts::new(&baseline);
    counts.count(&baseline, &rows.predictions());
    let estimated = estimate(&baseline, &counts);
    near(estimated.accuracy.map(|band| band.value), measures.accuracy.unwrap(), 0.002);
    near(estimated.roc_auc.map(|band| band.value), measures.roc_auc.unwrap(), 0.002);
}

#[test]
fn settings_are_those_of_the_model() {
    let settings = Settings::of(&crate::config::Monitor::default());
    assert_eq!((settings.wait, settings.most, settings.by_label), (86_400_000, 100_000, false));
    assert!((settings.threshold - 2_592_000f64.ln()).abs() < 1e-12);
    let false_alarms = crate::config::FalseAlarms::Rows(500_000);
    let settings = Settings::of(&crate::config::Monitor { false_alarms, ..Default::default() });
    assert!(settings.by_label && (settings.threshold - 500_000f64.ln()).abs() < 1e-12);
}

/// Whatever a baseline file holds, what passes the check does not break what works with it.
#[test]
fn mutated_baselines_are_refused_or_harmless() {
    let mut rng = fastrand::Rng::with_seed(11);
    let mut n_passed = 0;
    for rows in [golden::binary(300, 0.0), golden::multiclass(300, 0.0)] {
        let baseline = ScoreBaseline::fit(&reference(&rows)).unwrap();
        let json = serde_json::to_string(&baseline).unwrap();
        for _ in 0..400 {
            let mut bytes = json.clone().into_bytes();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..bytes.len());
                bytes[at] = *rng.choice(b"0123456789.,-e[]{}\"abc").unwrap();
            }
            let Ok(mutant) = serde_json::from_slice::<ScoreBaseline>(&bytes) else { continue };
            if mutant.check().is_err() {
                continue;
            }
            n_passed += 1;
            let mut live = Performance::new(Arc::new(mutant), &settings(), 0);
            live.observe(Some(b"all"), &rows.predictions(), 0);
            let records: Vec<FeedbackRecord> = (0..300)
                .map(|row| FeedbackRecord {
                    id: "all".to_owned(),
                    row,
                    label: rows.labels[row as usize].clone().unwrap(),
                })
                .collect();
            live.feedback(&records, 0);
            live.tick(1);
            let verdict = live.verdict(1);
            serde_json::to_string(&verdict).unwrap();
            assert!(live.restore(live.kept()));
        }
    }
    assert!(n_passed > 50, "{n_passed}");
}
