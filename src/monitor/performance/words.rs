//! Findings in sentences.

use super::loss::LossWatch;
use super::verdict::{Band, PerformanceVerdict};
use crate::monitor::verdict::State;

/// What the loss says.
pub(super) fn loss(watch: &LossWatch) -> String {
    let name = watch.name();
    let loss = watch.verdict();
    let number = |x: Option<f64>| x.map_or_else(|| "unknown".to_owned(), |x| format!("{x:.4}"));
    let limit = format!(
        "the reference's {} (limit with its error and the tolerance: {})",
        number(loss.reference),
        number(loss.limit)
    );
    match watch.state().0 {
        State::Learning => format!(
            "the {name} has no reference yet: {} more labels are wanted",
            loss.learning.unwrap_or(0)
        ),
        State::Ok if loss.rows == 0 => "no labels yet".to_owned(),
        State::Ok => format!(
            "the {name} of {} labels is {}, nothing speaks against {limit}",
            loss.rows,
            number(loss.mean)
        ),
        State::Suspected => format!(
            "the {name} is {} over the last {} labels and may be beyond {limit}",
            number(loss.mean_since),
            loss.rows_since.unwrap_or(0)
        ),
        State::Drifted => format!(
            "the {name} is {} over the last {} labels, beyond {limit}",
            number(loss.mean_since),
            loss.rows_since.unwrap_or(0)
        ),
        State::Recovered => format!("the {name} was beyond {limit} and is back"),
    }
}

/// Estimated measures of the last day that are below the baseline's by more than chance.
fn fallen(verdict: &PerformanceVerdict) -> Option<String> {
    let baseline = verdict.baseline.as_ref()?;
    let day = verdict.estimated.iter().find(|window| window.window == "24h")?;
    let is_below = |name: &str, band: Option<Band>, baseline: Option<f64>| {
        let (band, baseline) = band.zip(baseline)?;
        let below = || format!("{name} {:.4} instead of {baseline:.4}", band.value);
        (band.high < baseline).then(below)
    };
    let fallen: Vec<String> = [
        is_below("accuracy", day.measures.accuracy, baseline.accuracy),
        is_below("F1", day.measures.f1, baseline.f1),
        is_below("ROC AUC", day.measures.roc_auc, baseline.roc_auc),
    ]
    .into_iter()
    .flatten()
    .collect();
    let text = || {
        format!(
            "the scores of the last day make the estimated performance fall, by more than the sampling error: {}",
            fallen.join(", ")
        )
    };
    (!fallen.is_empty()).then(text)
}

/// What a verdict says.
pub(super) fn verdict(verdict: &PerformanceVerdict, loss: String) -> Vec<String> {
    let mut text = Vec::new();
    if verdict.labels.joined > 0 {
        text.push(loss);
    }
    text.extend(fallen(verdict));
    if let Some(window) = verdict.estimated.iter().find(|window| window.rows > 0) {
        let shown = |name: &str, band: Option<Band>| {
            band.map(|band| {
                format!("{name} {:.4} ({:.4} to {:.4})", band.value, band.low, band.high)
            })
        };
        let measures = &window.measures;
        let measures: Vec<String> = [
            shown("accuracy", measures.accuracy),
            shown("F1", measures.f1),
            shown("ROC AUC", measures.roc_auc),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !measures.is_empty() {
            text.push(format!(
                "estimated without labels ({}, {} rows): {}; this assumes that the classes' probabilities given the score have not changed (no concept drift)",
                window.window,
                window.rows,
                measures.join(", ")
            ));
        }
    }
    let labels = &verdict.labels;
    let lost = labels.late + labels.unknown;
    if lost > 0 && lost * 10 > labels.joined {
        text.push(format!(
            "{} labels came too late and {} belong to no prediction known here, {} were joined",
            labels.late, labels.unknown, labels.joined
        ));
    }
    text
}
