//! Comparisons and shares of the traffic as metrics. Series come and go with what they describe.

use std::sync::Arc;

use crate::registry::LiveTable;
use crate::telemetry::names::{self, Metric};
use crate::telemetry::{Series, SeriesKind, render_family};
use crate::traffic::Report;
use crate::traffic::comparison::Counts;

/// A pair's labels.
struct Labels<'a> {
    model: &'a str,
    primary: String,
    candidate: &'a str,
}

impl Labels<'_> {
    fn with<'a>(&'a self, more: Option<(&'a str, &'a str)>) -> Series<'a> {
        let labels = [
            ("model", self.model),
            ("primary", self.primary.as_str()),
            ("candidate", self.candidate),
        ];
        labels.into_iter().chain(more).collect()
    }
}

/// One of the counts.
type Count = fn(&Counts) -> u64;

/// Appends what is known of the pairs: 7 counters and a gauge for each, 2 gauges for each of its
/// outputs, and one for each drift that is measured.
pub(super) fn comparisons(reports: &[Arc<Report>], out: &mut String) {
    let pairs: Vec<(Labels<'_>, &Report)> = reports
        .iter()
        .map(|report| {
            let pair = &report.pair;
            let primary = pair.primary.to_string();
            (Labels { model: &pair.model, primary, candidate: &pair.candidate }, &**report)
        })
        .collect();
    let of_counts: [(Metric, Count); 5] = [
        (names::COMPARED, |counts| counts.requests),
        (names::COMPARED_ROWS, |counts| counts.rows),
        (names::COMPARED_AGREED, |counts| counts.agreed),
        (names::COMPARED_WITHIN, |counts| counts.within),
        (names::COMPARED_SLOWER, |counts| counts.slower),
    ];
    for (metric, value) in of_counts {
        let series = pairs.iter().map(|(labels, r)| (labels.with(None), value(&r.counts) as f64));
        render_family(out, metric, SeriesKind::Counter, series);
    }
    let errors = pairs.iter().flat_map(|(labels, report)| {
        let Counts { primary_errors, candidate_errors, both_errors, .. } = report.counts;
        let sides =
            [("primary", primary_errors), ("candidate", candidate_errors), ("both", both_errors)];
        sides.map(|(side, n)| (labels.with(Some(("side", side))), n as f64))
    });
    render_family(out, names::COMPARED_ERRORS, SeriesKind::Counter, errors);
    let ratios = pairs
        .iter()
        .filter_map(|(labels, report)| Some((labels.with(None), report.latency.mean_ratio?)));
    render_family(out, names::COMPARED_LATENCY, SeriesKind::Gauge, ratios);
    let outputs = || {
        pairs.iter().flat_map(|(labels, report)| report.outputs.iter().map(move |o| (labels, o)))
    };
    let largest = outputs().filter_map(|(labels, output)| {
        let differences = output.differences.as_ref()?;
        Some((labels.with(Some(("output", &output.name))), differences.max_absolute))
    });
    render_family(out, names::COMPARED_MAX, SeriesKind::Gauge, largest);
    let means = outputs().filter_map(|(labels, output)| {
        Some((labels.with(Some(("output", &output.name))), output.mean_absolute?))
    });
    render_family(out, names::COMPARED_MEAN, SeriesKind::Gauge, means);
    let drifts = outputs().flat_map(|(labels, output)| {
        let of = |drift: &crate::traffic::comparison::OutputDrift| drift.effects.psi;
        output.drift.iter().map(move |d| (labels.with(Some(("output", &d.name))), of(d)))
    });
    render_family(out, names::COMPARED_PSI, SeriesKind::Gauge, drifts);
}

/// Appends who gets which share of the traffic.
pub(super) fn shares(table: &LiveTable, out: &mut String) {
    let mut shares: Vec<(&str, String, &'static str, f64)> = Vec::new();
    for model in table.models.values() {
        let policy = &model.policy;
        let of_canaries: f64 = policy.canaries.iter().map(|(_, share)| share).sum();
        let mut push = |number: u64, slot, share| {
            shares.push((&model.name, number.to_string(), slot, share));
        };
        push(policy.primary, "primary", (1.0 - of_canaries).max(0.0));
        policy.canaries.iter().for_each(|(number, share)| push(*number, "canary", *share));
        policy.shadows.iter().for_each(|(number, share)| push(*number, "shadow", *share));
    }
    shares.sort_unstable_by(|a, b| (a.0, &a.1, a.2).cmp(&(b.0, &b.1, b.2)));
    let series = shares.iter().map(|(model, version, slot, share)| {
        (vec![("model", *model), ("version", version.as_str()), ("slot", *slot)], *share)
    });
    render_family(out, names::TRAFFIC_SHARE, SeriesKind::Gauge, series);
}
