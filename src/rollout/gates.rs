//! What a stage's counts say, gate by gate.
//!
//! Error rates. A candidate is promoted only when every gate of every stage has passed: one that is
//! beyond the limit of any gate must pass that gate wrongly, so each gate passes at the whole
//! `wrong_promotion` (an intersection–union test: nothing is to be split). It is taken back as soon
//! as one gate of one stage fails: so each fails at `wrong_abort` divided by the number of gates
//! over all stages (Bonferroni). The drift gate is decided by the monitor's own detectors, whose
//! promise is their number of false alarms, and takes no part of either.

use serde::{Deserialize, Serialize};

use super::evidence::{Drift, Evidence, Quantiles};
use crate::config::{Gates, Rollout, StageKind};
use crate::stats::sequential::{self, Count, Decision, Thresholds};

/// How much larger the candidate's share of slow answers may be than the primary's: at the median
/// a twentieth of all requests, at the 99th percentile once more as many as the primary's.
const MORE_SLOW: Quantiles<f64> = Quantiles { p50: 0.05, p99: 0.01 };

/// A gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// The same classes.
    Agreement,
    /// Numbers within the tolerance.
    Tolerance,
    /// Failed requests.
    Errors,
    /// The median time.
    P50,
    /// The 99th percentile of the time.
    P99,
    /// Drift and losses.
    Drift,
    /// Accuracy by labels.
    Accuracy,
}

impl Gate {
    /// All gates, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::Agreement,
        Self::Tolerance,
        Self::Errors,
        Self::P50,
        Self::P99,
        Self::Drift,
        Self::Accuracy,
    ];

    /// The key in the configuration, and the metric label `gate`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Agreement => "agreement",
            Self::Tolerance => "tolerance",
            Self::Errors => "errors",
            Self::P50 => "p50",
            Self::P99 => "p99",
            Self::Drift => "drift",
            Self::Accuracy => "accuracy",
        }
    }

    /// Whether it is looked at in a stage of that kind: answers are compared with the primary's
    /// only where both answer the same request, and a shadow, which runs on what the primaries
    /// leave of the machine, shows its median time and not its slowest ones.
    fn is_on(self, gates: &Gates, kind: StageKind) -> bool {
        let is_shadow = matches!(kind, StageKind::Shadow(_));
        match self {
            Self::Agreement => gates.agreement.is_some() && is_shadow,
            Self::Tolerance => gates.tolerance.is_some() && is_shadow,
            Self::Errors => gates.errors.is_some(),
            Self::P50 => gates.p50.is_some(),
            Self::P99 => gates.p99.is_some() && !is_shadow,
            Self::Drift => gates.drift,
            Self::Accuracy => gates.accuracy.is_some(),
        }
    }
}

/// What a gate says, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// Within the limit.
    Pass,
    /// Beyond it.
    Fail,
    /// The counts do not tell yet.
    NotYet,
    /// There is nothing that it could look at.
    NothingToSee,
}

/// A gate's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// Which.
    pub gate: Gate,
    /// What it says.
    pub said: Said,
    /// What the candidate shows: a share, or a difference of shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// What is permitted, in the same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// Cases counted.
    pub cases: u64,
    /// Evidence that it is within the limit (ln e-value), and what passes.
    pub within: f64,
    /// See above.
    pub passes_at: f64,
    /// Evidence that it is beyond, and what fails.
    pub beyond: f64,
    /// See above.
    pub fails_at: f64,
    /// For people, in a sentence.
    pub text: String,
}

/// What all gates of a stage say together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Looked {
    pub(super) decision: Decision,
    pub(super) gates: Vec<GateReport>,
}

/// The thresholds of a plan's gates.
pub(super) fn thresholds(plan: &Rollout) -> Thresholds {
    let of_stage = |kind: StageKind| {
        let counted = Gate::ALL.into_iter().filter(|gate| *gate != Gate::Drift);
        counted.filter(|gate| gate.is_on(&plan.gates, kind)).count()
    };
    let n: usize = plan.stages.iter().map(|stage| of_stage(stage.kind)).sum();
    Thresholds::new(plan.wrong_promotion, plan.wrong_abort / n.max(1) as f64)
}

/// Looks at the evidence of a stage, and keeps which gates have passed: evidence that was enough
/// once is enough, whenever one looked.
pub(super) fn look(plan: &Rollout, stage: usize, evidence: &mut Evidence) -> Looked {
    let Some(stage) = plan.stages.get(stage) else {
        return Looked { decision: Decision::Pass, gates: Vec::new() };
    };
    let thresholds = thresholds(plan);
    let on = Gate::ALL.into_iter().filter(|gate| gate.is_on(&plan.gates, stage.kind));
    let mut gates: Vec<GateReport> = on
        .map(|gate| report(gate, &plan.gates, stage.kind, stage.requests, evidence, thresholds))
        .collect();
    for report in &mut gates {
        match report.said {
            // What the recorders say is how it is now, not evidence that adds up.
            Said::Pass if report.gate != Gate::Drift => drop(evidence.passed.insert(report.gate)),
            Said::NotYet if evidence.passed.contains(&report.gate) => report.said = Said::Pass,
            _ => {}
        }
    }
    let decision = if gates.iter().any(|gate| gate.said == Said::Fail) {
        Decision::Fail
    } else if gates.iter().any(|gate| gate.said == Said::NotYet) {
        Decision::NotYet
    } else {
        Decision::Pass
    };
    Looked { decision, gates }
}

/// A gate before anything is said.
fn silent(gate: Gate, thresholds: Thresholds) -> GateReport {
    GateReport {
        gate,
        said: Said::NotYet,
        value: None,
        limit: None,
        cases: 0,
        within: 0.0,
        passes_at: thresholds.pass,
        beyond: 0.0,
        fails_at: thresholds.fail,
        text: String::new(),
    }
}

fn report(
    gate: Gate,
    gates: &Gates,
    kind: StageKind,
    wanted: u64,
    evidence: &Evidence,
    thresholds: Thresholds,
) -> GateReport {
    let is_shadow = matches!(kind, StageKind::Shadow(_));
    let silent = silent(gate, thresholds);
    let pairs = &evidence.pairs;
    let (candidate, primary) = (&evidence.candidate, &evidence.primary);
    match gate {
        Gate::Agreement if pairs.classed == 0 && pairs.rows >= wanted => {
            nothing(silent, "no output holds classes that could be compared")
        }
        Gate::Agreement => {
            let differ = Count::of(pairs.classed - pairs.agreed, pairs.classed);
            let limit = 1.0 - gates.agreement.unwrap_or_default();
            rate(silent, differ, limit, "rows get another class")
        }
        Gate::Tolerance if pairs.rows == 0 && pairs.classed >= wanted => {
            nothing(silent, "no output holds numbers that could be compared")
        }
        Gate::Tolerance => {
            let differ = Count::of(pairs.rows - pairs.within, pairs.rows);
            let limit = 1.0 - gates.tolerance.unwrap_or_default();
            rate(silent, differ, limit, "rows have numbers beyond the tolerance")
        }
        Gate::Errors if is_shadow => {
            let faults = Count::of(pairs.candidate_faults, pairs.requests);
            let limit = gates.errors.unwrap_or_default();
            rate(silent, faults, limit, "requests fail on the candidate alone")
        }
        Gate::Errors => {
            let limit = gates.errors.unwrap_or_default();
            difference(silent, primary.faults(), candidate.faults(), limit, "requests fail")
        }
        Gate::P50 if is_shadow => {
            let slower = Count::of(pairs.slower, pairs.timed);
            rate(
                silent,
                slower,
                0.5,
                "requests take more than the permitted multiple of the primary's time",
            )
        }
        Gate::P50 | Gate::P99 => {
            let of = |slow: &Quantiles<u64>| if gate == Gate::P50 { slow.p50 } else { slow.p99 };
            let margin = if gate == Gate::P50 { MORE_SLOW.p50 } else { MORE_SLOW.p99 };
            let Some(slow) = evidence.slow else {
                let text = "waits for 200 answers of the primary, to know what is slow".to_owned();
                return GateReport { text, ..silent };
            };
            let limits = if gate == Gate::P50 { slow.p50 } else { slow.p99 };
            let slow = |side: &super::evidence::Side| Count::of(of(&side.slow), side.timed);
            let what = format!(
                "answers are slow (beyond {} of the candidate, {} of the primary)",
                Time(limits.candidate_ns),
                Time(limits.primary_ns)
            );
            difference(silent, slow(primary), slow(candidate), margin, &what)
        }
        Gate::Drift => drift(silent, evidence, wanted),
        Gate::Accuracy => {
            let limit = gates.accuracy.unwrap_or_default();
            let mut said = difference(
                silent,
                primary.wrong(),
                candidate.wrong(),
                limit,
                "labelled predictions are wrong",
            );
            if said.cases == 0 {
                said.text = "waits for labels (tidegate feedback)".to_owned();
            }
            said
        }
    }
}

fn nothing(silent: GateReport, text: &str) -> GateReport {
    GateReport { said: Said::NothingToSee, text: text.to_owned(), ..silent }
}

/// A rate against its limit.
fn rate(silent: GateReport, count: Count, limit: f64, what: &str) -> GateReport {
    let evidence = sequential::rate(count, limit);
    let text = format!(
        "{} of {} {what}{}; {} are permitted",
        count.sum,
        count.n,
        count.mean().map_or_else(String::new, |mean| format!(" ({})", Share(mean))),
        Share(limit)
    );
    weighed(silent, evidence, count, count.mean(), limit, text)
}

/// The candidate's rate against the primary's.
fn difference(
    silent: GateReport,
    primary: Count,
    candidate: Count,
    margin: f64,
    what: &str,
) -> GateReport {
    let evidence = sequential::difference(primary, candidate, margin);
    let of = |count: Count| match count.mean() {
        Some(mean) => format!("{} of {} ({})", count.sum, count.n, Share(mean)),
        None => "none of 0".to_owned(),
    };
    let text = format!(
        "{} {what}, {} of the primary's; {} more are permitted",
        of(candidate),
        of(primary),
        Share(margin)
    );
    let value =
        candidate.mean().zip(primary.mean()).map(|(candidate, primary)| candidate - primary);
    weighed(silent, evidence, candidate, value, margin, text)
}

fn weighed(
    silent: GateReport,
    evidence: sequential::Evidence,
    count: Count,
    value: Option<f64>,
    limit: f64,
    text: String,
) -> GateReport {
    let thresholds = Thresholds { pass: silent.passes_at, fail: silent.fails_at };
    GateReport {
        said: match evidence.decide(thresholds) {
            Decision::Pass => Said::Pass,
            Decision::Fail => Said::Fail,
            Decision::NotYet => Said::NotYet,
        },
        value,
        limit: Some(limit),
        cases: count.n as u64,
        within: evidence.within,
        beyond: evidence.beyond,
        text,
        ..silent
    }
}

/// The recorders' word.
fn drift(silent: GateReport, evidence: &Evidence, wanted: u64) -> GateReport {
    // Their promises are their own: no evidence is weighed here.
    let silent = GateReport { passes_at: 0.0, fails_at: 0.0, ..silent };
    let Some(candidate) = &evidence.candidate_drift else {
        return nothing(silent, "the candidate is not watched: it has no baseline");
    };
    if !candidate.is_ready {
        return nothing(silent, "the candidate's reference is being learned from these very rows");
    }
    let primary = evidence.primary_drift.as_ref();
    let only_it = |bad: fn(&Drift) -> bool| bad(candidate) && !primary.is_some_and(bad);
    let (said, text) = if only_it(|drift| drift.has_drifted) {
        (Said::Fail, format!("the candidate drifts, the primary does not: {}", candidate.text))
    } else if only_it(|drift| drift.has_worsened) {
        (
            Said::Fail,
            format!(
                "the candidate's losses are beyond its reference, the primary's are not: {}",
                candidate.text
            ),
        )
    } else if candidate.rows < wanted {
        (Said::NotYet, format!("{} of {wanted} rows are watched", candidate.rows))
    } else if candidate.has_drifted {
        (Said::Pass, "both drift: what comes in has changed, not the candidate".to_owned())
    } else {
        (Said::Pass, format!("no drift in {} rows", candidate.rows))
    };
    GateReport { said, text, cases: candidate.rows, ..silent }
}

/// A share in percent.
struct Share(f64);

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = if self.0 != 0.0 && self.0.abs() < 0.01 { 3 } else { 2 };
        write!(f, "{:.digits$} %", self.0 * 100.0)
    }
}

/// A time in nanoseconds.
struct Time(u64);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            nanos if nanos < 1_000_000 => write!(f, "{:.0} µs", nanos as f64 / 1e3),
            nanos if nanos < 1_000_000_000 => write!(f, "{:.2} ms", nanos as f64 / 1e6),
            nanos => write!(f, "{:.2} s", nanos as f64 / 1e9),
        }
    }
}

#[cfg(test)]
mod tests;
