//! A verdict as tests want it.

use super::feature::{Kind, Side};
use super::verdict::{
    BaselineInfo, FeatureVerdict, MovedCell, State, Subject, Verdict, WindowVerdict,
};
use crate::stats::effect::Effects;

fn window(name: &str, numeric: bool) -> WindowVerdict {
    let number = |value| numeric.then_some(value);
    WindowVerdict {
        window: name.to_owned(),
        rows: 1000,
        effects: Effects {
            rows: 1000,
            psi: 0.27,
            psi_debiased: 0.25,
            psi_interval: (0.2, 0.3),
            jensen_shannon: 0.2,
            hellinger: 0.18,
            total_variation: 0.22,
            ks: number(0.21),
            wasserstein: number(0.4),
        },
        missing: 0.02,
        new: if numeric { 0.0 } else { 0.01 },
        out_of_range: if numeric { 0.003 } else { 0.0 },
        moved: vec![MovedCell { cell: "(41, 57]".to_owned(), expected: 0.0625, actual: 0.12 }],
    }
}

fn feature(name: &str, kind: Kind, state: State, evidence: f64) -> FeatureVerdict {
    let numeric = kind == Kind::Numeric;
    let names = ["5m", "1h", "24h", "all"];
    FeatureVerdict {
        name: name.to_owned(),
        side: Side::Input,
        kind,
        state,
        evidence,
        onset: (state == State::Drifted).then_some(1_789_999_000_000),
        variance_factor: 1.0,
        windows: names.map(|name| window(name, numeric)).into(),
        recent: (0..30).map(|tick| evidence * f64::from(tick) / 30.0).collect(),
    }
}

/// A verdict with two numeric features, one of which drifted, and a categorical one.
pub(crate) fn verdict(model: &str, version: u64, segment: Option<&str>) -> Verdict {
    Verdict {
        subject: Subject {
            model: model.to_owned(),
            version,
            digest: "sha256:00".to_owned(),
            segment: segment.map(str::to_owned),
        },
        at: 1_790_000_000_000,
        state: State::Drifted,
        state_since: 1_789_999_500_000,
        acknowledged: false,
        baseline: BaselineInfo {
            origin: crate::monitor::baseline::Origin::File,
            rows: 20_000,
            learning: None,
            created_at: 1_780_000_000_000,
        },
        false_alarms: "1 per 30 days".to_owned(),
        threshold: 14.77,
        evidence: 40.0,
        rows: 50_000,
        ticks: 1000,
        outliers: 12,
        features: vec![
            feature("income", Kind::Numeric, State::Drifted, 41.0),
            feature("age", Kind::Numeric, State::Ok, 1.0),
            feature("region", Kind::Categorical, State::Ok, 0.5),
        ],
        performance: None,
        text: vec!["income moved: values in (41, 57] are 1.9 times as frequent".to_owned()],
    }
}

#[test]
fn documents_are_read_back_as_they_were() {
    let verdict = verdict("loan", 2, None);
    let text = serde_json::to_string(&verdict).unwrap();
    assert!(text.starts_with("{\"model\":\"loan\",\"version\":2,"), "{text}");
    assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), verdict);
}
