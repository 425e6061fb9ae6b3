//! The comparison of two versions' answers to the same requests: streaming, and bounded whatever
//! comes.
//!
//! A [`Comparison`] takes one request after the other, with what both sides made of it, and tells at
//! any time what is known ([`Report`]): how often they name the same class and which they take for
//! which, how far their numbers are apart, in units of their own and of the last place, how far the
//! candidate's outputs as a whole have drifted from the primary's, who fails where the other does
//! not, who is slower, and the rows that differ most.
//!
//! Memory: cells of fixed size for each output, [`MOST_SEGMENTS`] segments, and as many rows as the
//! settings ask to be kept.

mod classes;
mod drift;
pub mod durations;
mod numbers;
mod output;
mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use smallvec::{SmallVec, smallvec};

pub use classes::Confused;
pub use drift::OutputDrift;
pub use output::{DIFFERENCES, Differences, Kind, OutputPlan, OutputReport};
pub use report::{Counts, Disagreement, Latency, Pair, Report, SegmentCounts};

use crate::config;
use crate::tensor::{Signature, Tensor};
use durations::Durations;
use numbers::{row_as_json, shorten};
use output::{Output, RowVerdict};

/// Segments that are told apart; the others are one.
const MOST_SEGMENTS: usize = 32;

const OTHERS: &str = "(others)";

/// Bytes of a row's inputs that are kept for whoever looks into a disagreement.
const MOST_INPUT_BYTES: usize = 64 << 10;

/// What one side made of a request.
#[derive(Debug, Clone, Copy)]
pub enum Side<'a> {
    /// Outputs, in the signature's order, and the time that they took, where it can be compared with
    /// the other side's.
    Answered(&'a [Tensor], Option<Duration>),
    /// Nothing, since it failed.
    Failed(&'a str),
    /// Nothing in time.
    TimedOut,
}

/// A request and what both made of it.
#[derive(Debug)]
pub struct Compared<'a> {
    /// Its id.
    pub id: &'a [u8],
    /// Its part of the traffic.
    pub segment: Option<&'a [u8]>,
    /// When it was answered, in milliseconds since 1970.
    pub at: u64,
    /// In the signature's order.
    pub inputs: &'a [Tensor],
    /// The version that answered.
    pub primary: Side<'a>,
    /// The version that got the copy.
    pub candidate: Side<'a>,
}

/// What a request showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether a row disagrees, or only one side answered.
    pub disagrees: bool,
    /// Whether a row is beyond the tolerance.
    pub is_beyond: bool,
}

/// The running comparison of a pair.
#[derive(Debug)]
pub struct Comparison {
    pair: Pair,
    settings: config::Comparison,
    measure: &'static str,
    inputs: Vec<String>,
    outputs: Vec<Output>,
    since: u64,
    last: u64,
    counts: Counts,
    primary: Durations,
    candidate: Durations,
    /// Sum of the logarithms of the candidate's time over the primary's.
    log_ratio: f64,
    segments: BTreeMap<String, SegmentCounts>,
    worst: Vec<(f64, Disagreement)>,
    last_error: Option<String>,
}

impl Comparison {
    /// A comparison that begins at `now`. `signature` is the primary's, `plan` of its outputs, and
    /// `measure` says what the times are.
    #[must_use]
    pub fn new(
        pair: Pair,
        settings: config::Comparison,
        measure: &'static str,
        signature: &Signature,
        plan: Vec<OutputPlan>,
        now: u64,
    ) -> Self {
        let outputs = plan.into_iter().zip(&signature.outputs);
        Self {
            pair,
            settings,
            measure,
            inputs: signature.inputs.iter().map(|spec| spec.name.clone()).collect(),
            outputs: outputs.map(|(plan, spec)| Output::new(plan, spec.datatype)).collect(),
            since: now,
            last: 0,
            counts: Counts::default(),
            primary: Durations::default(),
            candidate: Durations::default(),
            log_ratio: 0.0,
            segments: BTreeMap::new(),
            worst: Vec::new(),
            last_error: None,
        }
    }

    /// Which two are compared.
    #[must_use]
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// How they are compared.
    #[must_use]
    pub fn settings(&self) -> &config::Comparison {
        &self.settings
    }

    /// When the last request was compared, in milliseconds since 1970; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Takes a request. O(elements of the outputs).
    pub fn take(&mut self, compared: &Compared<'_>) -> Outcome {
        self.last = compared.at;
        self.counts.requests += 1;
        let before = self.counts;
        let outcome = match (compared.primary, compared.candidate) {
            (Side::Answered(of, of_took), Side::Answered(own, own_took)) => {
                if let Some((of_took, own_took)) = of_took.zip(own_took) {
                    self.time(of_took, own_took);
                }
                self.compare(compared, of, own)
            }
            (Side::Answered(..), error) => {
                self.counts.candidate_errors += 1;
                self.counts.timed_out += u64::from(matches!(error, Side::TimedOut));
                self.last_error = Some(error_of(error));
                Outcome { disagrees: true, is_beyond: false }
            }
            (_, Side::Answered(..)) => {
                self.counts.primary_errors += 1;
                Outcome { disagrees: true, is_beyond: false }
            }
            (_, error) => {
                self.counts.both_errors += 1;
                self.last_error = Some(error_of(error));
                Outcome::default()
            }
        };
        if let Some(segment) = compared.segment {
            self.count_segment(segment, &before);
        }
        outcome
    }

    fn time(&mut self, primary: Duration, candidate: Duration) {
        self.primary.record(primary);
        self.candidate.record(candidate);
        let ratio = candidate.as_secs_f64().max(1e-9) / primary.as_secs_f64().max(1e-9);
        self.log_ratio += ratio.ln();
        self.counts.timed += 1;
        self.counts.slower += u64::from(ratio > self.settings.latency_ratio);
    }

    fn compare(&mut self, compared: &Compared<'_>, of: &[Tensor], own: &[Tensor]) -> Outcome {
        let rows = rows_of(of);
        let is_same =
            |(a, b): (&Tensor, &Tensor)| a.datatype() == b.datatype() && a.shape() == b.shape();
        if of.len() != own.len() || !of.iter().zip(own).all(is_same) {
            self.counts.mismatched += 1;
            self.counts.rows += rows as u64;
            return Outcome { disagrees: true, is_beyond: true };
        }
        self.counts.compared += 1;
        let has_class = self.outputs.iter().any(Output::is_class);
        // By row: whether classes agree, and by how many times the tolerance it differs.
        let mut verdicts: SmallVec<[(Option<bool>, f64); 8]> = smallvec![(None, 0.0); rows];
        for (output, (of, own)) in self.outputs.iter_mut().zip(of.iter().zip(own)) {
            // Scores say which class where no output does.
            let counts = output.is_class() || !has_class;
            output.compare(of, own, rows, |row, verdict| {
                let RowVerdict { agrees, tolerances } = verdict;
                let (agreed, most) = &mut verdicts[row];
                *most = most.max(tolerances);
                if let Some(agrees) = agrees.filter(|_| counts) {
                    *agreed = Some(agreed.unwrap_or(true) && agrees);
                }
            });
        }
        let mut worst: Option<(f64, usize, bool)> = None;
        let mut outcome = Outcome::default();
        for (row, (agrees, tolerances)) in verdicts.into_iter().enumerate() {
            let within = tolerances <= 1.0;
            let agrees = agrees.unwrap_or(within);
            self.counts.rows += 1;
            self.counts.agreed += u64::from(agrees);
            self.counts.within += u64::from(within);
            outcome.disagrees |= !agrees;
            outcome.is_beyond |= !within;
            // Other classes are worse than other numbers.
            let severity = tolerances.min(1e12) + if agrees { 0.0 } else { 1e12 };
            if (!agrees || !within) && worst.is_none_or(|(most, ..)| severity > most) {
                worst = Some((severity, row, !agrees));
            }
        }
        if let Some((severity, row, disagrees)) = worst {
            self.keep(severity, row, disagrees, compared, (of, own), rows);
        }
        outcome
    }

    /// Keeps a row among the worst, if it is one of them.
    fn keep(
        &mut self,
        severity: f64,
        row: usize,
        disagrees: bool,
        compared: &Compared<'_>,
        (of, own): (&[Tensor], &[Tensor]),
        rows: usize,
    ) {
        let most = self.settings.worst;
        let at = self.worst.partition_point(|(other, _)| *other >= severity);
        if at >= most {
            return;
        }
        let names = self.outputs.iter().map(Output::name);
        let named = |tensors: &[Tensor]| {
            let named = names.clone().zip(tensors);
            named.map(|(name, t)| (name.to_owned(), row_as_json(t, row, rows))).collect()
        };
        let bytes: usize = compared.inputs.iter().map(|input| input.data().len()).sum();
        let has_rows = rows_of(compared.inputs) == rows && bytes / rows <= MOST_INPUT_BYTES;
        let inputs = self.inputs.iter().zip(compared.inputs).filter(|_| has_rows);
        let tolerances = if severity >= 1e12 { severity - 1e12 } else { severity };
        let kept = Disagreement {
            request_id: shorten(compared.id),
            at: compared.at,
            row,
            tolerances: Some(tolerances).filter(|tolerances| *tolerances < 1e12),
            disagrees,
            inputs: inputs.map(|(n, t)| (n.clone(), row_as_json(t, row, rows))).collect(),
            primary: named(of),
            candidate: named(own),
        };
        self.worst.insert(at, (severity, kept));
        self.worst.truncate(most);
    }

    fn count_segment(&mut self, segment: &[u8], before: &Counts) {
        let name = String::from_utf8_lossy(segment);
        let is_known = self.segments.contains_key(&*name);
        let name = match is_known || self.segments.len() < MOST_SEGMENTS {
            true => shorten(segment),
            false => OTHERS.to_owned(),
        };
        let new = self.counts.since(before);
        let counts = self.segments.entry(name).or_default();
        counts.requests += 1;
        counts.candidate_errors += new.candidate_errors;
        counts.rows += new.rows;
        counts.agreed += new.agreed;
        counts.within += new.within;
    }

    /// What is known now.
    #[must_use]
    pub fn report(&self) -> Report {
        let counts = self.counts;
        let share = |part: u64| (counts.rows > 0).then(|| part as f64 / counts.rows as f64);
        let ratio = (counts.timed > 0).then(|| (self.log_ratio / counts.timed as f64).exp());
        Report {
            pair: self.pair.clone(),
            since: self.since,
            last: self.last,
            dropped: 0,
            counts,
            agreement: share(counts.agreed),
            beyond: share(counts.rows - counts.within),
            outputs: self.outputs.iter().map(Output::report).collect(),
            latency: Latency {
                measure: self.measure,
                ratio: self.settings.latency_ratio,
                primary: (&self.primary).into(),
                candidate: (&self.candidate).into(),
                mean_ratio: ratio,
                primary_cells: self.primary.clone(),
                candidate_cells: self.candidate.clone(),
            },
            segments: self.segments.clone(),
            worst: self.worst.iter().map(|(_, kept)| kept.clone()).collect(),
            last_error: self.last_error.clone(),
        }
    }
}

/// Rows that all these tensors have; where they differ, everything is one row.
fn rows_of(tensors: &[Tensor]) -> usize {
    let mut rows = tensors.iter().map(|t| if t.shape().is_empty() { 1 } else { t.rows() });
    let first = rows.next().unwrap_or(1);
    if first > 0 && rows.all(|other| other == first) { first } else { 1 }
}

fn error_of(side: Side<'_>) -> String {
    match side {
        Side::Failed(reason) => shorten(reason.as_bytes()),
        Side::TimedOut => "no answer in time".to_owned(),
        Side::Answered(..) => String::new(),
    }
}
