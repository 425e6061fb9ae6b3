//! How a candidate gets to answer: `[models.NAME.rollout]` and `[defaults.rollout]`.
//!
//! Valid settings are serde's as well: a rollout keeps the plan that it was started with, whatever
//! the file says later.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Report;
use super::units::HumanDuration;

/// The most stages that make sense.
const MOST_STAGES: usize = 20;

/// How a model's new versions get to answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Whether a new version that enters the repository begins as a shadow by itself, where it
    /// would otherwise become primary at once.
    pub auto: bool,
    /// One after the other.
    pub stages: Vec<Stage>,
    /// What a candidate must be.
    pub gates: Gates,
    /// Probability that a candidate beyond the limit of a gate is promoted, at most.
    pub wrong_promotion: f64,
    /// Probability that a candidate within all limits is taken back, at most.
    pub wrong_abort: f64,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What the candidate does in it.
    pub kind: StageKind,
    /// Requests of the candidate, at least.
    pub requests: u64,
    /// How long it lasts, at least.
    pub time: Duration,
    /// When it has not decided by then, it pauses and says so.
    pub longest: Option<Duration>,
}

/// What a candidate does in a stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageKind {
    /// It gets copies of this share of the requests.
    Shadow(f64),
    /// It answers this share of the requests.
    Canary(f64),
    /// It answers all, and the version before is kept warm.
    Full,
}

impl std::fmt::Display for StageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shadow(share) => write!(f, "shadow {:.4} %", Percent(*share)),
            Self::Canary(share) => write!(f, "canary {:.4} %", Percent(*share)),
            Self::Full => f.write_str("full"),
        }
    }
}

/// A share as people read it, without zeros at the end.
struct Percent(f64);

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{:.*}", f.precision().unwrap_or(2), self.0 * 100.0);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What a candidate must be. Nothing where a gate is off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gates {
    /// Share of rows of which it says the same class, at least.
    pub agreement: Option<f64>,
    /// Share of rows whose numbers are within the comparison's tolerance, at least.
    pub tolerance: Option<f64>,
    /// Share of requests that fail on it and not on the primary, at most.
    pub errors: Option<f64>,
    /// Its median time, as a multiple of the primary's, at most.
    pub p50: Option<f64>,
    /// Its 99th percentile, as a multiple of the primary's, at most.
    pub p99: Option<f64>,
    /// Whether it must not drift while the primary does not.
    pub drift: bool,
    /// How much less accurate by labels it may be, as a difference of shares.
    pub accuracy: Option<f64>,
}

/// `[models.NAME.rollout]` as written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawRollout {
    #[serde(skip_serializing_if = "Option::is_none")]
    auto: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stages: Option<Vec<RawStage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    longest: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong_promotion: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong_abort: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gates: Option<RawGates>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawStage {
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    full: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<HumanDuration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    longest: Option<HumanDuration>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawGates {
    #[serde(skip_serializing_if = "Option::is_none")]
    agreement: Option<RawGate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tolerance: Option<RawGate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<RawGate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50: Option<RawGate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<RawGate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drift: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accuracy: Option<RawGate>,
}

/// A limit, or `"off"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, or \"off\"")]
enum RawGate {
    Limit(f64),
    Word(String),
}

impl RawRollout {
    /// These settings where they are given, else those of `base`.
    pub(super) fn over(self, base: Self) -> Self {
        let gates = match (self.gates, base.gates) {
            (Some(own), Some(base)) => Some(RawGates {
                agreement: own.agreement.or(base.agreement),
                tolerance: own.tolerance.or(base.tolerance),
                errors: own.errors.or(base.errors),
                p50: own.p50.or(base.p50),
                p99: own.p99.or(base.p99),
                drift: own.drift.or(base.drift),
                accuracy: own.accuracy.or(base.accuracy),
            }),
            (own, base) => own.or(base),
        };
        Self {
            auto: self.auto.or(base.auto),
            stages: self.stages.or(base.stages),
            requests: self.requests.or(base.requests),
            time: self.time.or(base.time),
            longest: self.longest.or(base.longest),
            wrong_promotion: self.wrong_promotion.or(base.wrong_promotion),
            wrong_abort: self.wrong_abort.or(base.wrong_abort),
            gates,
        }
    }
}

/// Makes sense of `raw`, whose keys stand below `key`.
pub(super) fn validate(raw: RawRollout, key: &str, report: &mut Report<'_>) -> Rollout {
    let at = |name: &str| format!("{key}.{name}");
    let defaults = Stage {
        kind: StageKind::Full,
        requests: raw.requests.unwrap_or(1000),
        time: raw.time.map_or(Duration::from_secs(600), |time| time.0),
        longest: raw.longest.map(|longest| longest.0),
    };
    let stages = match raw.stages {
        None => {
            let kinds = [StageKind::Shadow(1.0)].into_iter();
            let kinds = kinds.chain([0.05, 0.25, 0.5].map(StageKind::Canary));
            let kinds = kinds.chain([StageKind::Full]);
            kinds.map(|kind| Stage { kind, ..defaults.clone() }).collect()
        }
        Some(stages) => {
            let stages = stages.into_iter().map(|raw| stage(raw, &defaults, &at("stages"), report));
            let stages: Vec<Stage> = stages.collect();
            check_order(&stages, &at("stages"), report);
            stages
        }
    };
    let mut rate = |name: &str, rate: Option<f64>| {
        let rate = rate.unwrap_or(0.05);
        if !(1e-9..=0.5).contains(&rate) {
            let message = format!("expected a probability from 1e-9 to 0.5, got {rate}");
            report.add(&at(name), message);
        }
        rate
    };
    let wrong_promotion = rate("wrong_promotion", raw.wrong_promotion);
    let wrong_abort = rate("wrong_abort", raw.wrong_abort);
    let gates = gates(raw.gates.unwrap_or_default(), &at("gates"), report);
    Rollout { auto: raw.auto.unwrap_or(false), stages, gates, wrong_promotion, wrong_abort }
}

fn stage(raw: RawStage, defaults: &Stage, key: &str, report: &mut Report<'_>) -> Stage {
    let mut share = |share: f64, most: f64| {
        if !(share > 0.0 && share <= most) {
            report.add(key, format!("expected a share above 0 and up to {most}, got {share}"));
        }
        share
    };
    let kind = match (raw.shadow, raw.canary, raw.full) {
        (Some(shadow), None, None) => StageKind::Shadow(share(shadow, 1.0)),
        // With all of it there is no primary left to compare with.
        (None, Some(canary), None) => StageKind::Canary(share(canary, 0.99)),
        (None, None, Some(true)) => StageKind::Full,
        _ => {
            let message = "a stage is one of { shadow = 1.0 }, { canary = 0.05 } and { full = true }, with requests, time and longest where they differ";
            report.add(key, message);
            StageKind::Full
        }
    };
    Stage {
        kind,
        requests: raw.requests.unwrap_or(defaults.requests),
        time: raw.time.map_or(defaults.time, |time| time.0),
        longest: raw.longest.map(|longest| longest.0).or(defaults.longest),
    }
}

/// Shadows before canaries, shares that grow, and the whole at the end.
fn check_order(stages: &[Stage], key: &str, report: &mut Report<'_>) {
    let rank = |stage: &Stage| match stage.kind {
        StageKind::Shadow(share) => share,
        StageKind::Canary(share) => 1.0 + share,
        StageKind::Full => 3.0,
    };
    if stages.len() > MOST_STAGES {
        report.add(key, format!("at most {MOST_STAGES} stages, got {}", stages.len()));
    }
    let is_ordered = stages.is_sorted_by(|a, b| rank(a) < rank(b));
    if !is_ordered || stages.last().is_none_or(|last| last.kind != StageKind::Full) {
        let message =
            "expected shadows, then canaries with growing shares, and { full = true } at the end";
        report.add(key, message);
    }
}

fn gates(raw: RawGates, key: &str, report: &mut Report<'_>) -> Gates {
    let mut limit = |name: &str, raw: Option<RawGate>, default: Option<f64>, from: f64, to: f64| {
        let wrong = match raw {
            None => return default,
            Some(RawGate::Word(word)) if word == "off" => return None,
            Some(RawGate::Word(word)) => format!("\"{word}\""),
            Some(RawGate::Limit(limit)) if limit >= from && limit <= to => return Some(limit),
            Some(RawGate::Limit(limit)) => limit.to_string(),
        };
        let message = format!("expected a number from {from} to {to}, or \"off\", got {wrong}");
        report.add(&format!("{key}.{name}"), message);
        default
    };
    Gates {
        agreement: limit("agreement", raw.agreement, Some(0.95), 0.01, 0.999_999),
        tolerance: limit("tolerance", raw.tolerance, None, 0.01, 0.999_999),
        errors: limit("errors", raw.errors, Some(0.005), 1e-6, 0.5),
        p50: limit("p50", raw.p50, Some(1.5), 1.0, 1000.0),
        p99: limit("p99", raw.p99, Some(2.0), 1.0, 1000.0),
        drift: raw.drift.unwrap_or(true),
        accuracy: limit("accuracy", raw.accuracy, None, 1e-4, 0.5),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(text: &str) -> Result<Rollout, String> {
        let text = format!("[models.m.rollout]\n{text}");
        let config = Config::parse(&text, std::path::Path::new("."), []);
        config.map(|config| config.models["m"].rollout.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_a_shadow_three_canaries_and_the_whole() {
        let rollout = parse("auto = true").unwrap();
        let names: Vec<String> = rollout.stages.iter().map(|s| s.kind.to_string()).collect();
        assert_eq!(names, ["shadow 100 %", "canary 5 %", "canary 25 %", "canary 50 %", "full"]);
        assert!(rollout.auto && rollout.gates.drift && rollout.gates.accuracy.is_none());
        // What is stored is read again as it was.
        let text = serde_json::to_string(&rollout).unwrap();
        assert_eq!(serde_json::from_str::<Rollout>(&text).unwrap(), rollout);
    }

    #[test]
    fn keys_of_the_defaults_hold_for_models_that_do_not_set_them() {
        let text = "[defaults.rollout]\nrequests = 7\ngates = { p50 = \"off\", errors = 0.1 }\n[models.m.rollout]\ngates = { errors = 0.2 }\nstages = [{ canary = 0.125, time = \"3s\" }, { full = true }]";
        let config = Config::parse(text, std::path::Path::new("."), []).unwrap();
        let rollout = &config.models["m"].rollout;
        assert_eq!((rollout.gates.p50, rollout.gates.errors), (None, Some(0.2)));
        assert_eq!(rollout.stages[0].kind.to_string(), "canary 12.5 %");
        assert_eq!(rollout.stages[0].requests, 7);
        assert_eq!(rollout.stages[0].time, Duration::from_secs(3));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (text, expected) in [
            ("stages = [{ full = true }, { shadow = 1.0 }]", "growing shares"),
            ("stages = [{ canary = 0.5 }, { canary = 0.1 }, { full = true }]", "growing shares"),
            ("stages = []", "{ full = true } at the end"),
            ("stages = [{ shadow = 1.0, canary = 0.5 }]", "a stage is one of"),
            ("stages = [{ shadow = 1.5 }, { full = true }]", "up to 1, got 1.5"),
            ("stages = [{ canary = 1.0 }, { full = true }]", "up to 0.99, got 1"),
            ("wrong_abort = 0.0", "rollout.wrong_abort"),
            ("gates = { p50 = 0.5 }", "from 1 to 1000, or \"off\", got 0.5"),
            ("gates = { agreement = \"on\" }", "got \"on\""),
            ("gates = { speed = 1 }", "unknown field"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
