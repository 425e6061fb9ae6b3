use super::*;
use crate::config::Stage;
use crate::rollout::evidence::{Pairs, Side};
use std::time::Duration;

fn plan(gates: Gates) -> Rollout {
    let stage = |kind| Stage { kind, requests: 100, time: Duration::ZERO, longest: None };
    let kinds = [StageKind::Shadow(1.0), StageKind::Canary(0.1), StageKind::Full];
    Rollout {
        auto: false,
        stages: kinds.map(stage).to_vec(),
        gates,
        wrong_promotion: 0.05,
        wrong_abort: 0.05,
    }
}

fn none() -> Gates {
    Gates {
        agreement: None,
        tolerance: None,
        errors: None,
        p50: None,
        p99: None,
        drift: false,
        accuracy: None,
    }
}

fn said(looked: &Looked, gate: Gate) -> (Said, &str) {
    let found = looked.gates.iter().find(|report| report.gate == gate).unwrap();
    (found.said, &found.text)
}

#[test]
fn the_whole_of_one_rate_passes_and_a_share_of_the_other_fails() {
    let all = Gates { agreement: Some(0.95), errors: Some(0.01), p99: Some(2.0), ..none() };
    // Agreement and errors in the shadow stage, errors and p99 in the two others.
    let thresholds = thresholds(&plan(all));
    assert!((thresholds.pass - (1.0 / 0.05f64).ln()).abs() < 1e-9);
    assert!((thresholds.fail - (6.0 / 0.05f64).ln()).abs() < 1e-9);
}

#[test]
fn pairs_decide_in_the_shadow_stage() {
    let gates = Gates { agreement: Some(0.95), tolerance: Some(0.9), p50: Some(1.5), ..none() };
    let plan = plan(gates);
    let pairs = Pairs {
        requests: 1_000,
        classed: 1_000,
        agreed: 999,
        rows: 1_000,
        within: 600,
        timed: 1_000,
        slower: 480,
        ..Pairs::default()
    };
    let mut evidence = Evidence { pairs, ..Evidence::default() };
    let looked = look(&plan, 0, &mut evidence);
    assert_eq!(looked.decision, Decision::Fail);
    assert_eq!(said(&looked, Gate::Agreement).0, Said::Pass);
    let (tolerance, text) = said(&looked, Gate::Tolerance);
    assert_eq!(tolerance, Said::Fail);
    assert_eq!(
        text,
        "400 of 1000 rows have numbers beyond the tolerance (40.00 %); 10.00 % are permitted"
    );
    assert_eq!(said(&looked, Gate::P50).0, Said::NotYet);
    // Once is enough.
    evidence.pairs.agreed = 960;
    evidence.pairs.within = 1_000;
    let looked = look(&plan, 0, &mut evidence);
    assert_eq!(looked.decision, Decision::NotYet);
    assert_eq!(said(&looked, Gate::Agreement).0, Said::Pass);
}

#[test]
fn a_model_without_classes_has_nothing_to_agree_on() {
    let plan = plan(Gates { agreement: Some(0.95), ..none() });
    let pairs = Pairs { requests: 500, rows: 500, within: 500, ..Pairs::default() };
    let mut evidence = Evidence { pairs, ..Evidence::default() };
    let looked = look(&plan, 0, &mut evidence);
    assert_eq!(said(&looked, Gate::Agreement).0, Said::NothingToSee);
    assert_eq!(looked.decision, Decision::Pass);
}

#[test]
fn canaries_are_held_against_the_primary() {
    let plan = plan(Gates { errors: Some(0.01), accuracy: Some(0.05), ..none() });
    let side = |requests, faults, labelled, wrong| Side {
        requests,
        faults,
        labelled,
        wrong,
        ..Side::default()
    };
    let mut evidence = Evidence {
        primary: side(90_000, 90, 9_000, 900),
        candidate: side(10_000, 10, 0, 0),
        ..Evidence::default()
    };
    let looked = look(&plan, 1, &mut evidence);
    assert_eq!(said(&looked, Gate::Errors).0, Said::Pass);
    assert_eq!(
        said(&looked, Gate::Accuracy),
        (Said::NotYet, "waits for labels (tidegate feedback)")
    );
    evidence.candidate = side(10_000, 10, 1_000, 300);
    let looked = look(&plan, 1, &mut evidence);
    assert_eq!(said(&looked, Gate::Accuracy).0, Said::Fail);
    evidence.candidate = side(10_000, 400, 1_000, 100);
    let looked = look(&plan, 1, &mut evidence);
    let (errors, text) = said(&looked, Gate::Errors);
    assert_eq!(errors, Said::Fail);
    assert!(
        text.starts_with("400 of 10000 (4.00 %) requests fail, 90 of 90000 (0.100 %)"),
        "{text}"
    );
}

#[test]
fn the_recorders_have_a_say() {
    let plan = plan(Gates { drift: true, ..none() });
    let drift = |has_drifted, has_worsened, rows| {
        Some(Drift {
            has_drifted,
            has_worsened,
            is_ready: true,
            rows,
            text: "age moved".to_owned(),
        })
    };
    for (candidate, primary, expected) in [
        (None, None, Said::NothingToSee),
        (drift(false, false, 10), None, Said::NotYet),
        (drift(false, false, 100), None, Said::Pass),
        (drift(true, false, 10), drift(false, false, 10), Said::Fail),
        (drift(true, false, 100), drift(true, false, 100), Said::Pass),
        (drift(false, true, 100), None, Said::Fail),
    ] {
        let mut evidence =
            Evidence { candidate_drift: candidate, primary_drift: primary, ..Evidence::default() };
        let looked = look(&plan, 0, &mut evidence);
        assert_eq!(said(&looked, Gate::Drift).0, expected, "{evidence:?}");
    }
}
