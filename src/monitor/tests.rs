//! A recorder from its first row to its verdict.

use std::sync::Arc;

use bytes::Bytes;

use super::verdict::{Event, State, Subject};
use super::{Recorder, Watched};
use crate::config::{FalseAlarms, Monitor, Segment};
use crate::tensor::{Datatype, Signature, Tensor, TensorSpec};

fn signature() -> Signature {
    let spec = |name: &str, columns| TensorSpec {
        name: name.to_owned(),
        datatype: Datatype::Fp32,
        shape: vec![None, Some(columns)],
    };
    Signature { inputs: vec![spec("x", 2)], outputs: vec![spec("y", 1)] }
}

fn tensor(columns: usize, values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape = [values.len() / columns, columns];
    Tensor::new(Datatype::Fp32, shape.as_slice(), data.into()).unwrap()
}

fn recorder(settings: Monitor) -> Recorder {
    let signature = signature();
    let subject =
        Subject { model: "m".to_owned(), version: 1, digest: "sha256:0".to_owned(), segment: None };
    let watched = Watched { signature: &signature, metadata: &[], labels: &[None], baseline: None };
    Recorder::new(subject, settings, watched).unwrap().unwrap()
}

fn settings() -> Monitor {
    Monitor {
        learn: Some(20_000),
        false_alarms: FalseAlarms::Rows(100_000_000),
        ..Monitor::default()
    }
}

/// Rows of two standard normal columns, the second with `shift` added; predictions are their sum.
struct Traffic {
    random: fastrand::Rng,
    at: u64,
}

impl Traffic {
    fn new() -> Self {
        Self { random: fastrand::Rng::with_seed(7), at: 1_000_000 }
    }

    fn normal(&mut self) -> f32 {
        let (a, b) = (1.0 - self.random.f64(), self.random.f64());
        ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
    }

    fn send(&mut self, recorder: &Recorder, rows: usize, shift: f32, segment: &str) -> Vec<Event> {
        let mut events = Vec::new();
        for row in 0..rows {
            let (a, b) = (self.normal(), self.normal() + shift);
            let (inputs, outputs) = ([tensor(2, &[a, b])], [tensor(1, &[a + b])]);
            let id = Bytes::from(format!("request-{row}"));
            let segment = Some(Bytes::copy_from_slice(segment.as_bytes()));
            self.at += 20;
            recorder.observe(id, segment, self.at, &inputs, &outputs);
            if row % 100 == 99 {
                events.extend(recorder.tick(self.at));
            }
        }
        events.extend(recorder.tick(self.at));
        events
    }
}

#[test]
fn a_shift_is_found_in_the_feature_that_shifted_and_explained() {
    let recorder = recorder(settings());
    let mut traffic = Traffic::new();
    let verdict = &recorder.verdicts()[0];
    assert_eq!(verdict.state, State::Learning);
    let learned = traffic.send(&recorder, 20_000, 0.0, "");
    assert_eq!(learned.len(), 1);
    assert_eq!((learned[0].from, learned[0].to), (State::Learning, State::Ok));
    assert_eq!(traffic.send(&recorder, 20_000, 0.0, ""), []);
    let began = traffic.at;
    let found = traffic.send(&recorder, 5_000, 1.0, "");
    let drifted: Vec<_> = found
        .iter()
        .filter(|event| event.to == State::Drifted)
        .map(|event| event.feature.clone().unwrap_or_default())
        .collect();
    assert!(drifted.contains(&"x_1".to_owned()), "{drifted:?}");
    assert!(drifted.contains(&"y".to_owned()), "{drifted:?}");
    assert!(!drifted.contains(&"x_0".to_owned()), "{drifted:?}");
    let of_feature = found.iter().find(|e| e.feature.as_deref() == Some("x_1"));
    let event = of_feature.filter(|e| e.to == State::Drifted).or_else(|| {
        found.iter().find(|e| e.feature.as_deref() == Some("x_1") && e.to == State::Drifted)
    });
    let event = event.unwrap();
    let onset = event.onset.unwrap();
    assert!(onset.abs_diff(began) < 20 * 1000, "{onset} {began}");
    assert!(event.rows < 20_000 + 1_000, "{}", event.rows);
    assert!(event.text.contains("x_1 drifted since about"), "{}", event.text);
    assert!(!event.request_ids.is_empty());
    let window = event.window.as_ref().unwrap();
    assert!(window.effects.psi_debiased > 0.5, "{window:?}");
}

#[test]
fn segments_are_watched_apart() {
    let settings = Monitor { segment: Some(Segment::Header("x-tenant".to_owned())), ..settings() };
    let recorder = recorder(settings);
    let mut traffic = Traffic::new();
    for _ in 0..10 {
        traffic.send(&recorder, 1_000, 0.0, "a");
        traffic.send(&recorder, 1_000, 0.0, "b");
    }
    traffic.send(&recorder, 4_000, 1.5, "b");
    traffic.send(&recorder, 4_000, 0.0, "a");
    let verdicts = recorder.verdicts();
    let state = |segment: Option<&str>| {
        let of = verdicts.iter().find(|v| v.subject.segment.as_deref() == segment).unwrap();
        (of.state, of.rows)
    };
    assert_eq!(state(Some("a")), (State::Ok, 4_000));
    assert_eq!(state(Some("b")).0, State::Drifted);
    assert_eq!(state(None).1, 8_000);
}

#[test]
fn verdicts_survive_being_written_and_read() {
    let recorder = recorder(settings());
    let mut traffic = Traffic::new();
    traffic.send(&recorder, 21_000, 0.0, "");
    let verdict = Arc::clone(&recorder.verdicts()[0]);
    let text = serde_json::to_string(&*verdict).unwrap();
    let read: super::verdict::Verdict = serde_json::from_str(&text).unwrap();
    assert_eq!(read.features.len(), verdict.features.len());
    assert_eq!(read.state, verdict.state);
}

#[test]
fn what_is_counted_does_not_depend_on_how_rows_come() {
    let counts = |per_request: usize, per_tick: usize| {
        let recorder = recorder(Monitor { learn: Some(1_000), ..settings() });
        let mut traffic = Traffic::new();
        traffic.send(&recorder, 1_000, 0.0, "");
        let values: Vec<f32> = (0..12_000).map(|_| traffic.normal()).collect();
        for (number, rows) in values.chunks(2 * per_request).enumerate() {
            let sums: Vec<f32> = rows.chunks(2).map(|row| row[0] + row[1]).collect();
            let (inputs, outputs) = ([tensor(2, rows)], [tensor(1, &sums)]);
            recorder.observe(Bytes::from_static(b"id"), None, 5, &inputs, &outputs);
            if number % per_tick == 0 {
                recorder.tick(6);
            }
        }
        recorder.tick(7);
        recorder.histogram(None, "x_1", "all").unwrap().live
    };
    let one_by_one = counts(1, 1);
    assert_eq!(one_by_one.iter().sum::<u64>(), 6_000);
    assert_eq!(one_by_one, counts(7, 3));
    assert_eq!(one_by_one, counts(500, 1));
}

#[test]
fn a_new_baseline_can_be_asked_for_and_cut_short() {
    let recorder = recorder(settings());
    let mut traffic = Traffic::new();
    traffic.send(&recorder, 50, 0.0, "");
    let error = recorder.freeze(0).unwrap_err();
    assert_eq!(error, "50 rows are too few for a baseline, which takes 100 at least");
    traffic.send(&recorder, 500, 0.0, "");
    recorder.freeze(0).unwrap();
    assert_eq!(recorder.verdicts()[0].baseline.rows, 550);
    let error = recorder.rebase(Some(5_000_000), 0).unwrap_err();
    assert!(error.starts_with("expected 100 to 1000000 rows"), "{error}");
    recorder.rebase(Some(1_000), 0).unwrap();
    let learning = recorder.verdicts()[0].baseline.learning;
    assert_eq!(learning, Some(1_000));
    traffic.send(&recorder, 1_000, 0.0, "");
    assert_eq!(recorder.verdicts()[0].state, State::Ok);
}
