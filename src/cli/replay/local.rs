//! Replay by the engine in this process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::compare::Comparison;
use super::report::{Report, Subject};
use super::{Failure, Mode, Pacer, Replay, Selection};
use crate::capture::Timing;
use crate::capture::read::{self, BatchKey, Recorded, Requests, Summary, batch_key};
use crate::cli::predictions::Version;
use crate::engine::ENGINE;
use crate::scheduler::{join, split};
use crate::tensor::Tensor;

/// Requests that wait for the others of their batch, at most: more would be another capture's.
const MOST_WAITING: usize = 1 << 20;

struct Runner<'a> {
    version: &'a Version,
    cpu_features: String,
    comparison: Comparison,
    /// Batches that were run together again, and rows of those that could not be.
    reformed: u64,
    unreformed: u64,
}

pub(super) fn run(
    replay: &Replay,
    version: &Version,
    requests: Requests,
    mut selection: Selection,
    summary: &Summary,
) -> Result<(), Failure> {
    let bar = replay.progress(summary.rows);
    let mut pacer = Pacer::new(replay.rate);
    let mut runner = Runner {
        version,
        cpu_features: read::cpu_features(),
        comparison: Comparison::new(),
        reformed: 0,
        unreformed: 0,
    };
    let mut forming: HashMap<BatchKey, Vec<Recorded>> = HashMap::new();
    let mut n_forming = 0;
    let reforms = replay.mode == Mode::Exact;
    // Members of its batch are run with it, but only it is compared.
    let only = selection.request_id.take();
    for recorded in requests {
        let recorded = recorded?;
        bar.inc(recorded.rows.max(1) as u64);
        if !selection.takes(&recorded) {
            continue;
        }
        let batch = recorded.batch.filter(|_| reforms);
        let Some(number) = batch.filter(|n| summary.is_complete(&recorded.run_id, *n)) else {
            if only.as_ref().is_none_or(|id| *id == recorded.id) {
                std::thread::sleep(pacer.wait(recorded.at));
                let is_whole = batch.is_none();
                runner.unreformed += if is_whole { 0 } else { recorded.rows.max(1) as u64 };
                // What ran with others is the same only if it does again.
                runner.alone(&recorded, reforms && is_whole && recorded.batch.is_none());
            }
            continue;
        };
        let key = batch_key(&recorded.run_id, number);
        let members = forming.entry(key).or_default();
        members.push(recorded);
        n_forming += 1;
        let rows: usize = members.iter().map(|member| member.rows).sum();
        if rows >= members[0].batch_rows || n_forming > MOST_WAITING {
            let mut members = forming.remove(&key).unwrap_or_default();
            n_forming -= members.len();
            members.sort_by_key(|member| member.first_row);
            if only.as_ref().is_some_and(|id| members.iter().all(|member| member.id != *id)) {
                continue;
            }
            std::thread::sleep(pacer.wait(members[0].at));
            runner.together(&members, only.as_deref());
        }
    }
    // A limit may leave batches open.
    for recorded in forming.into_values().flatten() {
        runner.unreformed += recorded.rows as u64;
        runner.alone(&recorded, false);
    }
    bar.finish_and_clear();
    let Runner { comparison, cpu_features, reformed, unreformed, .. } = runner;
    let subject = Subject {
        model: version.model.clone(),
        version: version.number.to_string(),
        digest: Some(version.digest.clone()),
        engine: Some(ENGINE.clone()),
        cpu_features: Some(cpu_features),
        against: None,
    };
    Report::new(replay, subject, comparison, selection.skipped, (reformed, unreformed))
        .finish(replay)
}

impl Runner<'_> {
    /// Whether the recorded run's bits are promised of this one.
    fn is_same(&self, recorded: &Recorded) -> bool {
        *recorded.digest == *self.version.digest
            && *recorded.engine == **ENGINE
            && *recorded.cpu_features == *self.cpu_features
    }

    /// A request's inputs in the signature's order.
    fn inputs(&self, recorded: &Recorded) -> Result<Vec<Tensor>, String> {
        let specs = &self.version.plan.signature().inputs;
        let input = |spec: &crate::tensor::TensorSpec| {
            let found = recorded.inputs.iter().find(|(name, _)| **name == *spec.name);
            let (_, tensor) =
                found.ok_or_else(|| format!("input '{}' was not recorded", spec.name))?;
            if tensor.datatype() != spec.datatype || !spec.accepts(tensor.shape()) {
                return Err(format!(
                    "expected input {spec}, recorded is {} {:?}",
                    tensor.datatype(),
                    tensor.shape()
                ));
            }
            Ok(tensor.clone())
        };
        specs.iter().map(input).collect()
    }

    fn alone(&mut self, recorded: &Recorded, can_promise: bool) {
        let inputs = match self.inputs(recorded) {
            Ok(inputs) => inputs,
            Err(reason) => return self.comparison.fail(&recorded.id, reason),
        };
        let started = Instant::now();
        match self.version.plan.run(&inputs) {
            Ok(outputs) => {
                let took = started.elapsed();
                self.comparison.took(recorded.timings[Timing::Compute as usize], took);
                let is_promised = can_promise && self.is_same(recorded);
                self.compare(recorded, &outputs, is_promised);
            }
            Err(error) => self.comparison.fail(&recorded.id, error),
        }
    }

    fn together(&mut self, members: &[Recorded], only: Option<&str>) {
        let inputs: Result<Vec<Vec<Tensor>>, String> =
            members.iter().map(|member| self.inputs(member)).collect();
        let rows: Vec<usize> = members.iter().map(|member| member.rows).collect();
        let started = Instant::now();
        let answers = inputs.and_then(|inputs| {
            let inputs: Vec<&[Tensor]> = inputs.iter().map(Vec::as_slice).collect();
            let joined = join(&inputs).ok_or("the requests of a batch do not fit together")?;
            let outputs = self.version.plan.run(&joined).map_err(|error| error.to_string())?;
            let split = split(&outputs, &rows);
            Ok(split.ok_or("the outputs do not have the batch's rows")?)
        });
        let took = started.elapsed();
        match answers {
            Ok(answers) => {
                self.reformed += 1;
                for (member, outputs) in members.iter().zip(answers) {
                    if only.is_some_and(|id| member.id != id) {
                        continue;
                    }
                    self.comparison.took(member.timings[Timing::Compute as usize], took);
                    let is_promised = self.is_same(member);
                    self.compare(member, &outputs, is_promised);
                }
            }
            Err(reason) => {
                members.iter().for_each(|member| self.comparison.fail(&member.id, &reason));
            }
        }
    }

    fn compare(&mut self, recorded: &Recorded, outputs: &[Tensor], is_promised: bool) {
        let signature = self.version.plan.signature();
        let replayed = |name: &str| outputs.get(signature.output(name)?).cloned();
        let recorded_outputs: &[(Arc<str>, Tensor)] = &recorded.outputs;
        let (id, rows) = (&recorded.id, recorded.rows);
        self.comparison.push(id, rows, recorded_outputs, replayed, is_promised);
    }
}
