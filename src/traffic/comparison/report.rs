//! What is told of a comparison.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::durations::{DurationSummary, Durations};
use super::output::OutputReport;

/// What was counted since a pair of versions began to be compared. All of it only grows, so what
/// happened in between is the difference of two readings ([`Counts::since`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Counts {
    /// Requests that were copied to the candidate and came to an end on both sides.
    pub requests: u64,
    /// Requests that both answered, with outputs of the same datatypes and shapes.
    pub compared: u64,
    /// Requests that both answered with outputs of other datatypes or shapes: all their rows count
    /// as disagreeing.
    pub mismatched: u64,
    /// Requests that only the primary failed on.
    pub primary_errors: u64,
    /// Requests that only the candidate failed on, those that it did not answer in time included.
    pub candidate_errors: u64,
    /// Of these, requests that it did not answer in time.
    pub timed_out: u64,
    /// Requests that both failed on.
    pub both_errors: u64,
    /// Rows compared.
    pub rows: u64,
    /// Rows on which both name the same class; where no output is a class or scores, rows within the
    /// tolerance.
    pub agreed: u64,
    /// Rows of which everything is within the tolerance.
    pub within: u64,
    /// Requests whose times were compared: a part of them where timing costs a run.
    pub timed: u64,
    /// Of these, requests that took the candidate more than `latency_ratio` times the primary's time.
    pub slower: u64,
}

impl Counts {
    /// What was counted since `before`, an earlier reading of the same pair.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let of = |field: fn(&Self) -> u64| field(self).saturating_sub(field(before));
        Self {
            requests: of(|c| c.requests),
            compared: of(|c| c.compared),
            mismatched: of(|c| c.mismatched),
            primary_errors: of(|c| c.primary_errors),
            candidate_errors: of(|c| c.candidate_errors),
            timed_out: of(|c| c.timed_out),
            both_errors: of(|c| c.both_errors),
            rows: of(|c| c.rows),
            agreed: of(|c| c.agreed),
            within: of(|c| c.within),
            timed: of(|c| c.timed),
            slower: of(|c| c.slower),
        }
    }
}

/// Which two are compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
pub struct Pair {
    /// The model.
    pub model: String,
    /// The version that answers.
    pub primary: u64,
    /// Its digest.
    pub primary_digest: String,
    /// The version that gets copies, by number; of a remote one, its address.
    pub candidate: String,
    /// Its digest, where it is known.
    pub candidate_digest: String,
}

/// The times of both.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Latency {
    /// What is compared: time in the engine, or from request to answer.
    pub measure: &'static str,
    /// A candidate that takes more than this many times the primary's time is slower.
    pub ratio: f64,
    /// The primary's.
    pub primary: DurationSummary,
    /// The candidate's.
    pub candidate: DurationSummary,
    /// The geometric mean of the candidate's time over the primary's, request by request.
    pub mean_ratio: Option<f64>,
    /// The primary's, as counted.
    #[serde(skip)]
    pub primary_cells: Durations,
    /// The candidate's, as counted.
    #[serde(skip)]
    pub candidate_cells: Durations,
}

/// A part of the traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct SegmentCounts {
    /// Requests.
    pub requests: u64,
    /// Requests that only the candidate failed on.
    pub candidate_errors: u64,
    /// Rows compared.
    pub rows: u64,
    /// Rows that agree.
    pub agreed: u64,
    /// Rows within the tolerance.
    pub within: u64,
}

/// A row on which the two differ, and what they were asked.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Disagreement {
    /// The request's id.
    pub request_id: String,
    /// When it was answered, in milliseconds since 1970.
    pub at: u64,
    /// The row, from 0.
    pub row: usize,
    /// By how many times the tolerance they differ; nothing where no number says it.
    pub tolerances: Option<f64>,
    /// Whether they name different classes.
    pub disagrees: bool,
    /// The row's inputs, by name.
    pub inputs: BTreeMap<String, Value>,
    /// What the primary answered, by output.
    pub primary: BTreeMap<String, Value>,
    /// What the candidate answered, by output.
    pub candidate: BTreeMap<String, Value>,
}

/// Everything that is known of a pair.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Report {
    /// Which two.
    #[serde(flatten)]
    pub pair: Pair,
    /// When they began to be compared, in milliseconds since 1970.
    pub since: u64,
    /// When the last request was compared, in milliseconds since 1970; 0 before the first.
    pub last: u64,
    /// Copies that there was no room for, which whoever makes copies knows.
    pub dropped: u64,
    /// What was counted.
    pub counts: Counts,
    /// The share of rows that agree.
    pub agreement: Option<f64>,
    /// The share of rows that are not within the tolerance.
    pub beyond: Option<f64>,
    /// By output.
    pub outputs: Vec<OutputReport>,
    /// How long both take.
    pub latency: Latency,
    /// By segment, where the model's monitor has segments.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub segments: BTreeMap<String, SegmentCounts>,
    /// Where they differ most, worst first.
    pub worst: Vec<Disagreement>,
    /// The last error of the candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
