//! What `tidegate compare` prints. Colour is for terminals only: the `console` crate sees to that.

use std::collections::BTreeMap;
use std::fmt::Write;

use console::style;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::drift::bars::{ago, grouped};
use crate::cli::drift::columns::Columns;

/// Pairs of classes that differ, shown at most.
const MOST_CONFUSED: usize = 5;

/// Drifts of an output that are shown.
const MOST_DRIFTS: usize = 3;

const NOTHING: &str = "nothing is compared yet. A version is compared when it gets copies of what the primary answers:\n  \
    [models.MODEL.traffic]\n  shadows = { 2 = 1.0 }\n";

/// All pairs, in short.
#[derive(Deserialize)]
pub(super) struct Overview {
    comparisons: Vec<Summary>,
}

#[derive(Deserialize)]
struct Summary {
    model: String,
    primary: u64,
    candidate: String,
    last: u64,
    dropped: u64,
    counts: Counts,
    agreement: Option<f64>,
    beyond: Option<f64>,
    latency_ratio: Option<f64>,
}

#[derive(Deserialize)]
struct Counts {
    requests: u64,
    mismatched: u64,
    primary_errors: u64,
    candidate_errors: u64,
    timed_out: u64,
    both_errors: u64,
    rows: u64,
    agreed: u64,
    timed: u64,
    slower: u64,
}

/// The pairs of a model.
#[derive(Deserialize)]
pub(super) struct OfModel {
    model: String,
    comparisons: Vec<Report>,
}

#[derive(Deserialize)]
struct Report {
    primary: u64,
    candidate: String,
    since: u64,
    last: u64,
    dropped: u64,
    counts: Counts,
    agreement: Option<f64>,
    beyond: Option<f64>,
    outputs: Vec<Output>,
    latency: Latency,
    #[serde(default)]
    segments: BTreeMap<String, Segment>,
    worst: Vec<Disagreement>,
    #[serde(default)]
    last_error: Option<String>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    datatype: String,
    #[serde(default)]
    classes: Option<(u64, u64)>,
    #[serde(default)]
    confusion: Vec<Confused>,
    #[serde(default)]
    differences: Option<Differences>,
    #[serde(default)]
    mean_absolute: Option<f64>,
    drift: Vec<Drift>,
}

#[derive(Deserialize)]
struct Confused {
    primary: String,
    candidate: String,
    rows: u64,
}

#[derive(Deserialize)]
struct Differences {
    elements: u64,
    beyond: u64,
    non_finite: u64,
    max_absolute: f64,
    max_relative: f64,
    #[serde(default)]
    ulps: Vec<u64>,
}

#[derive(Deserialize)]
struct Drift {
    name: String,
    effects: Effects,
}

#[derive(Deserialize)]
struct Effects {
    psi: f64,
}

#[derive(Deserialize)]
struct Latency {
    measure: String,
    ratio: f64,
    primary: Times,
    candidate: Times,
    mean_ratio: Option<f64>,
}

#[derive(Deserialize)]
struct Times {
    p50: Option<f64>,
    p99: Option<f64>,
}

#[derive(Deserialize)]
struct Segment {
    requests: u64,
    rows: u64,
    agreed: u64,
}

#[derive(Deserialize)]
struct Disagreement {
    request_id: String,
    row: usize,
    primary: BTreeMap<String, Value>,
    candidate: BTreeMap<String, Value>,
}

/// All pairs, a row for each.
pub(super) fn overview(of: &Overview, now: u64) -> String {
    if of.comparisons.is_empty() {
        return NOTHING.to_owned();
    }
    let mut columns = Columns::new(
        &[
            "model",
            "primary",
            "candidate",
            "requests",
            "rows",
            "agree",
            "beyond",
            "errors",
            "time",
            "dropped",
            "last",
        ],
        &[1, 3, 4, 5, 6, 7, 8, 9],
    );
    for pair in &of.comparisons {
        columns.push(vec![
            pair.model.clone(),
            pair.primary.to_string(),
            pair.candidate.clone(),
            grouped(pair.counts.requests),
            grouped(pair.counts.rows),
            share(pair.agreement),
            share(pair.beyond),
            grouped(pair.counts.candidate_errors),
            times_of(pair.latency_ratio),
            grouped(pair.dropped),
            ago(now, pair.last),
        ]);
    }
    let mut text = String::new();
    columns.write(&mut text);
    text
}

/// A model's pairs, one below the other.
pub(super) fn model(of: &OfModel, limit: usize, now: u64) -> String {
    if of.comparisons.is_empty() {
        return NOTHING.replace("MODEL", &of.model);
    }
    let pages = of.comparisons.iter().map(|report| pair(&of.model, report, limit, now));
    pages.collect::<Vec<_>>().join("\n")
}

fn pair(model: &str, report: &Report, limit: usize, now: u64) -> String {
    let counts = &report.counts;
    let mut text = String::new();
    let head = format!("{model}: {} against version {}", candidate(report), report.primary);
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{}  {} requests since {}, the last {}, {} copies dropped",
        style(head).bold(),
        grouped(counts.requests),
        ago(now, report.since),
        ago(now, report.last),
        grouped(report.dropped),
    );
    let disagreed = counts.rows - counts.agreed;
    let agreement = share(report.agreement);
    let agreement =
        if disagreed == 0 { style(agreement).green() } else { style(agreement).yellow() };
    let _ = writeln!(
        text,
        "  rows {}  agree {agreement} ({} do not)  beyond the tolerance {}",
        grouped(counts.rows),
        grouped(disagreed),
        share(report.beyond),
    );
    let _ = writeln!(
        text,
        "  failed: candidate only {} ({} not in time), primary only {}, both {}  other shapes {}",
        grouped(counts.candidate_errors),
        grouped(counts.timed_out),
        grouped(counts.primary_errors),
        grouped(counts.both_errors),
        grouped(counts.mismatched),
    );
    let latency = &report.latency;
    let slower = (counts.timed > 0).then(|| counts.slower as f64 / counts.timed as f64);
    let _ = writeln!(
        text,
        "  time ({}): primary p50 {} p99 {}, candidate p50 {} p99 {}, ratio {}; above {} times in {}",
        latency.measure,
        time(latency.primary.p50),
        time(latency.primary.p99),
        time(latency.candidate.p50),
        time(latency.candidate.p99),
        times_of(latency.mean_ratio),
        latency.ratio,
        share(slower),
    );
    if let Some(error) = &report.last_error {
        let _ = writeln!(text, "  last error: {error}");
    }
    outputs(&report.outputs).write(&mut text);
    text.push_str(&confusion(&report.outputs));
    if !report.segments.is_empty() {
        let mut columns = Columns::new(&["segment", "requests", "rows", "agree"], &[1, 2, 3]);
        for (name, segment) in &report.segments {
            let agreed = (segment.rows > 0).then(|| segment.agreed as f64 / segment.rows as f64);
            let (requests, rows) = (grouped(segment.requests), grouped(segment.rows));
            columns.push(vec![name.clone(), requests, rows, share(agreed)]);
        }
        columns.write(&mut text);
    }
    text.push_str(&worst(&report.worst, limit));
    text
}

fn candidate(report: &Report) -> String {
    match report.candidate.parse::<u64>() {
        Ok(version) => format!("version {version}"),
        Err(_) => report.candidate.clone(),
    }
}

fn outputs(outputs: &[Output]) -> Columns {
    let mut columns = Columns::new(
        &[
            "output",
            "datatype",
            "agree",
            "mean difference",
            "largest",
            "relative",
            "beyond",
            "not finite",
            "same bits",
            "drift (PSI)",
        ],
        &[2, 3, 4, 5, 6, 7, 8],
    );
    for output in outputs {
        let agree = output.classes.filter(|(rows, _)| *rows > 0);
        let agree = agree.map(|(rows, agreed)| agreed as f64 / rows as f64);
        let of = output.differences.as_ref();
        let part = |n: Option<u64>| {
            let elements = of.map_or(0, |of| of.elements);
            share(n.filter(|_| elements > 0).map(|n| n as f64 / elements as f64))
        };
        let drifts = output.drift.iter().take(MOST_DRIFTS);
        let drifts = drifts.map(|drift| format!("{} {:.3}", drift.name, drift.effects.psi));
        columns.push(vec![
            output.name.clone(),
            output.datatype.clone(),
            share(agree),
            output.mean_absolute.map_or_else(nothing, short),
            of.map_or_else(nothing, |of| short(of.max_absolute)),
            of.map_or_else(nothing, |of| short(of.max_relative)),
            part(of.map(|of| of.beyond)),
            of.map_or_else(nothing, |of| grouped(of.non_finite)),
            part(of.and_then(|of| of.ulps.first().copied())),
            drifts.collect::<Vec<_>>().join(", "),
        ]);
    }
    columns
}

fn confusion(outputs: &[Output]) -> String {
    let mut text = String::new();
    for output in outputs {
        let wrong = output.confusion.iter().filter(|pair| pair.primary != pair.candidate);
        let wrong: Vec<String> = wrong
            .take(MOST_CONFUSED)
            .map(|pair| format!("{} -> {}: {}", pair.primary, pair.candidate, grouped(pair.rows)))
            .collect();
        if !wrong.is_empty() {
            text.push_str(&format!("{}: {}\n", output.name, wrong.join(", ")));
        }
    }
    text
}

fn worst(worst: &[Disagreement], limit: usize) -> String {
    if worst.is_empty() || limit == 0 {
        return String::new();
    }
    let mut columns = Columns::new(&["worst: request", "row", "primary", "candidate"], &[1]);
    let values = |side: &BTreeMap<String, Value>| {
        let values = side.iter().map(|(name, value)| format!("{name} {value}"));
        cut(&values.collect::<Vec<_>>().join(" "))
    };
    for kept in worst.iter().take(limit) {
        let (id, row) = (kept.request_id.clone(), kept.row.to_string());
        columns.push(vec![id, row, values(&kept.primary), values(&kept.candidate)]);
    }
    let mut text = String::new();
    columns.write(&mut text);
    text
}

/// What fits into a column.
fn cut(text: &str) -> String {
    const WIDEST: usize = 60;
    match text.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn nothing() -> String {
    "-".to_owned()
}

/// `99.82 %`: never rounded to all or to nothing.
fn share(share: Option<f64>) -> String {
    let Some(share) = share else { return nothing() };
    let percent = share * 100.0;
    match percent {
        _ if share > 0.0 && percent < 0.01 => "<0.01 %".to_owned(),
        _ if share < 1.0 && percent > 99.99 => ">99.99 %".to_owned(),
        _ => format!("{percent:.2} %"),
    }
}

fn times_of(ratio: Option<f64>) -> String {
    ratio.map_or_else(nothing, |ratio| format!("{ratio:.2}x"))
}

/// Three digits that say something.
fn short(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        size if (1e-3..1e6).contains(&size) => format!("{number:.4}"),
        _ => format!("{number:.2e}"),
    }
}

/// Seconds as people read them.
fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => nothing(),
        Some(seconds) if seconds < 1e-3 => format!("{:.0} µs", seconds * 1e6),
        Some(seconds) if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_never_rounded_to_all_or_nothing() {
        for (number, expected) in [
            (Some(1.0), "100.00 %"),
            (Some(0.999_999), ">99.99 %"),
            (Some(0.000_001), "<0.01 %"),
            (Some(0.5), "50.00 %"),
            (Some(0.0), "0.00 %"),
            (None, "-"),
        ] {
            assert_eq!(share(number), expected);
        }
    }

    #[test]
    fn a_report_becomes_a_page() {
        let document = serde_json::json!({ "model": "m", "comparisons": [{
            "primary": 1, "candidate": "2", "since": 0, "last": 60_000, "dropped": 3,
            "counts": { "requests": 10, "mismatched": 0, "primary_errors": 0, "candidate_errors": 1,
                "timed_out": 1, "both_errors": 0, "rows": 100, "agreed": 98, "timed": 9, "slower": 1 },
            "agreement": 0.98, "beyond": 0.05,
            "outputs": [{ "name": "label", "datatype": "BYTES", "classes": [100, 98],
                "confusion": [{ "primary": "no", "candidate": "yes", "rows": 2 }],
                "drift": [{ "name": "label.class", "effects": { "psi": 0.01 } }] }],
            "latency": { "measure": "engine", "ratio": 1.5, "mean_ratio": 1.25,
                "primary": { "p50": 2e-5, "p99": 1e-3 }, "candidate": { "p50": 3e-5, "p99": null } },
            "worst": [{ "request_id": "abc", "row": 4, "primary": { "label": ["no"] },
                "candidate": { "label": ["yes"] } }],
            "last_error": "no answer in time",
        }] });
        let page = model(&serde_json::from_value(document).unwrap(), 5, 120_000);
        for part in [
            "m: version 2 against version 1",
            "3 copies dropped",
            "agree 98.00 % (2 do not)",
            "candidate only 1 (1 not in time)",
            "p50 20 µs p99 1.0 ms",
            "label: no -> yes: 2",
            "label.class 0.010",
            "abc",
            "last error: no answer in time",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
    }
}
