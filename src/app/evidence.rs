//! What rollouts are told of: the counts of two versions, and what their monitors say.

use crate::monitor::performance::PerformanceVerdict;
use crate::monitor::verdict::{State, Verdict};
use crate::observe::Monitors;
use crate::observe::shadow::Comparisons;
use crate::registry::{LiveTable, Serving};
use crate::rollout::{Drift, Pairs, Sample, SideSample};

/// What was counted of requests that both answered.
pub(super) fn pairs(
    comparisons: &Comparisons,
    model: &str,
    primary: u64,
    candidate: u64,
) -> Option<Pairs> {
    let counts = comparisons.report(model, primary, candidate)?.counts;
    Some(Pairs {
        requests: counts.requests,
        candidate_faults: counts.candidate_errors,
        primary_faults: counts.primary_errors,
        classed: counts.rows,
        agreed: counts.agreed,
        rows: counts.rows,
        within: counts.within,
        timed: counts.timed,
        slower: counts.slower,
    })
}

/// What is counted of a candidate and its primary, all of it since they were loaded.
pub(super) fn sample(
    monitors: &Monitors,
    pairs: Option<Pairs>,
    table: &LiveTable,
    (model, primary, candidate): (&str, u64, u64),
) -> Sample {
    let verdicts = monitors.verdicts();
    let side = |version: u64| {
        let serving = table.models.get(model)?.versions.get(&version)?;
        let is_it = |verdict: &&std::sync::Arc<Verdict>| {
            let subject = &verdict.subject;
            subject.model == model && subject.version == version && subject.segment.is_none()
        };
        Some(of_version(serving, verdicts.iter().find(is_it).map(AsRef::as_ref)))
    };
    Sample { candidate: side(candidate), primary: side(primary), pairs }
}

fn of_version(serving: &Serving, verdict: Option<&Verdict>) -> SideSample {
    let version = &serving.version;
    let view = version.statistics.view();
    let performance = verdict.and_then(|verdict| verdict.performance.as_ref());
    let (labelled, wrong) = performance.map_or((0, 0), labels);
    SideSample {
        digest: version.loaded.digest.clone(),
        requests: view.success.0 + view.faults,
        faults: view.faults,
        latency: version.statistics.latency(),
        labelled,
        wrong,
        drift: verdict.map(|verdict| drift(verdict, performance)),
    }
}

/// Predictions whose label came, and of these the wrong ones.
fn labels(performance: &PerformanceVerdict) -> (u64, u64) {
    let all = performance.realised.iter().find(|window| window.window == "all");
    let counted = all.and_then(|window| {
        let accuracy = window.measures.accuracy?;
        Some((window.rows, (window.rows as f64 * (1.0 - accuracy)).round() as u64))
    });
    counted.unwrap_or_default()
}

fn drift(verdict: &Verdict, performance: Option<&PerformanceVerdict>) -> Drift {
    Drift {
        has_drifted: verdict.state == State::Drifted && !verdict.acknowledged,
        has_worsened: performance.is_some_and(|performance| {
            performance.state == State::Drifted && !performance.acknowledged
        }),
        is_ready: verdict.baseline.learning.is_none(),
        rows: verdict.rows,
        text: verdict.text.first().cloned().unwrap_or_default(),
    }
}
