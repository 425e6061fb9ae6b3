//! Replay through the drift monitor: what it would have counted and said, with the recorded times.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::{Failure, Replay, Selection};
use crate::capture::read::{Recorded, Requests, Summary};
use crate::cli::predictions::Version;
use crate::cli::table::Table;
use crate::monitor::baseline::{Baseline, FILE};
use crate::monitor::verdict::{Event, Subject, Verdict};
use crate::monitor::{Recorder, Watched};
use crate::tensor::Tensor;

/// Milliseconds between two looks, as of the thread that watches.
const ROUND: u64 = 25;

/// A longer pause is passed in larger steps.
const PAUSE: u64 = 10_000;

#[derive(Serialize)]
struct Report {
    model: String,
    version: u64,
    digest: String,
    mode: &'static str,
    rows: u64,
    /// Whether every request was recorded, so that the live monitor saw no more.
    is_complete: bool,
    verdicts: Vec<Arc<Verdict>>,
    events: Vec<Event>,
    /// By feature, the counts of its cells over all rows.
    cells: BTreeMap<String, Vec<u64>>,
}

pub(super) fn run(
    replay: &Replay,
    version: &Version,
    files: Vec<PathBuf>,
    mut selection: Selection,
    summary: &Summary,
) -> Result<(), Failure> {
    let failed = |message: String| Failure { code: 1, message };
    let path = version.folder.join(FILE);
    let baseline = match std::fs::read(&path) {
        Ok(text) => {
            let baseline = Baseline::read(&text, &version.digest);
            Some(Arc::new(baseline.map_err(|e| failed(format!("{}: {e}", path.display())))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(format!("{}: {error}", path.display()))),
    };
    let subject = Subject {
        model: version.model.clone(),
        version: version.number,
        digest: version.digest.clone(),
        segment: None,
    };
    let watched = Watched {
        signature: version.plan.signature(),
        metadata: version.metadata(),
        labels: &version.classes,
        baseline,
    };
    let (first, last) = summary.times.unwrap_or_default();
    let mut settings = version.settings.monitor.clone();
    // Counted over all rows, so that they can be compared with those of the live monitor.
    settings.cell_metrics = true;
    let recorder = Recorder::starting(subject, settings, watched, first).map_err(failed)?;
    let recorder = recorder.ok_or_else(|| {
        failed(format!(
            "{} version {} is not watched: it has no {FILE} and the settings learn none",
            version.model, version.number
        ))
    })?;
    let bar = replay.progress(summary.rows);
    let mut requests = Vec::new();
    let mut is_complete = true;
    for recorded in Requests::new(files) {
        let recorded = recorded?;
        bar.inc(recorded.rows.max(1) as u64);
        if selection.takes(&recorded) && recorder.takes(recorded.id.as_bytes()) {
            is_complete &= recorded.sample >= 1.0 && &*recorded.reason != "disagreement";
            requests.push(recorded);
        }
    }
    bar.finish_and_clear();
    // Stable: what has the same time stays in the order in which it was written.
    requests.sort_by_key(|recorded| recorded.at);
    let (mut events, mut rows) = (Vec::new(), 0);
    let mut round = first;
    for recorded in &requests {
        while round + ROUND <= recorded.at {
            let pause = recorded.at - round;
            round += if pause > PAUSE { pause / 10 } else { ROUND };
            events.extend(recorder.tick(round));
        }
        rows += recorded.rows.max(1) as u64;
        observe(&recorder, version, recorded).map_err(failed)?;
    }
    // As long as the live monitor had for the last rows.
    for step in 1..=8 {
        events.extend(recorder.tick(last + step * 1000));
    }
    let cells = recorder.cells().into_iter().map(|cells| (cells.feature, cells.live)).collect();
    let report = Report {
        model: version.model.clone(),
        version: version.number,
        digest: version.digest.clone(),
        mode: "monitor",
        rows,
        is_complete,
        verdicts: recorder.verdicts(),
        events,
        cells,
    };
    print(replay, &report)
}

fn observe(recorder: &Recorder, version: &Version, recorded: &Recorded) -> Result<(), String> {
    let signature = version.plan.signature();
    let ordered = |specs: &[crate::tensor::TensorSpec], tensors: &[(Arc<str>, Tensor)]| {
        let tensor = |spec: &crate::tensor::TensorSpec| {
            let found = tensors.iter().find(|(name, _)| **name == *spec.name);
            let found = found.map(|(_, tensor)| tensor.clone());
            found.ok_or_else(|| format!("{}: tensor '{}' was not recorded", recorded.id, spec.name))
        };
        specs.iter().map(tensor).collect::<Result<Vec<_>, String>>()
    };
    let inputs = ordered(&signature.inputs, &recorded.inputs)?;
    let outputs = ordered(&signature.outputs, &recorded.outputs)?;
    let id = Bytes::copy_from_slice(recorded.id.as_bytes());
    let segment = recorded.segment.as_ref().map(|text| Bytes::copy_from_slice(text.as_bytes()));
    recorder.observe(id, segment, recorded.at, &inputs, &outputs);
    Ok(())
}

fn print(replay: &Replay, report: &Report) -> Result<(), Failure> {
    if replay.json {
        println!("{}", serde_json::to_string_pretty(report)?);
        return Ok(());
    }
    for verdict in &report.verdicts {
        let segment = verdict.subject.segment.as_deref().map(|s| format!(", {s}"));
        println!(
            "{} version {}{}: {:?}, evidence {:.1} of {:.1}, {} rows",
            report.model,
            report.version,
            segment.unwrap_or_default(),
            verdict.state,
            verdict.evidence,
            verdict.threshold,
            verdict.rows
        );
        let mut table = Table::new(["feature", "state", "evidence"]);
        for feature in &verdict.features {
            let state = format!("{:?}", feature.state).to_lowercase();
            table.push([feature.name.clone(), state, format!("{:.2}", feature.evidence)]);
        }
        println!("{table}");
        verdict.text.iter().for_each(|line| println!("{line}"));
    }
    for event in &report.events {
        println!("{}: {}", crate::monitor::times::plain(event.at), event.text);
    }
    if !report.is_complete {
        println!(
            "not every request was recorded: the live monitor saw more, and its counts are others"
        );
    }
    Ok(())
}
