//! A baseline on its way: made of the first rows after a version went live, or was told to learn anew.

use bytes::Bytes;

use super::baseline::{About, Baseline, BaselineBuilder, Marks, Origin};
use super::feature::FeaturePlan;
use super::rows::Rows;
use super::verdict::{BaselineInfo, State, Subject, Verdict};
use crate::config::Monitor;
use crate::tensor::Tensor;

/// Rows that a baseline takes at least.
pub(super) const FEWEST_ROWS: usize = 100;

/// Rows that a baseline is learned from, at most.
const MOST_ROWS: u64 = 1_000_000;

/// Values that are kept meanwhile, at most: half a gigabyte at eight bytes each.
const MOST_VALUES: u64 = 64 << 20;

/// Whether a baseline can be learned of so many rows.
pub(super) fn check(wanted: u64, plan: &FeaturePlan) -> Result<(), String> {
    let n_features = plan.features().len().max(1) as u64;
    let most = MOST_ROWS.min(MOST_VALUES / n_features);
    let fewest = FEWEST_ROWS as u64;
    match (fewest..=most).contains(&wanted) {
        true => Ok(()),
        false => Err(format!(
            "expected {fewest} to {most} rows, which are kept until then, of {n_features} features; got {wanted}"
        )),
    }
}

/// What is known of the rows so far beside themselves.
#[derive(Debug)]
pub(super) struct Learning {
    /// Rows that it takes.
    pub(super) wanted: u64,
    began: u64,
    /// When the rows were answered: their order says how much counts vary by themselves.
    times: Vec<i64>,
    /// The segments of the rows, where a header tells them.
    segments: Vec<String>,
}

impl Learning {
    pub(super) fn new(wanted: u64, now: u64) -> Self {
        Self { wanted, began: now, times: Vec::new(), segments: Vec::new() }
    }

    /// Takes the rows of a request, unless there are enough: what comes beyond them before the next
    /// tick is not kept.
    pub(super) fn take(
        &mut self,
        rows: &mut Rows,
        plan: &FeaturePlan,
        at: u64,
        segment: Option<Bytes>,
        (inputs, outputs): (&[Tensor], &[Tensor]),
    ) {
        if rows.len() as u64 >= self.wanted {
            return;
        }
        rows.push(plan, inputs, outputs);
        self.times.resize(rows.len(), i64::try_from(at).unwrap_or(i64::MAX));
        if let Some(segment) = segment {
            self.segments.resize(rows.len(), String::from_utf8_lossy(&segment).into_owned());
        }
    }

    /// The baseline that the rows make.
    pub(super) fn finish(
        &self,
        rows: &Rows,
        plan: &FeaturePlan,
        settings: &Monitor,
        subject: &Subject,
        now: u64,
    ) -> Result<Baseline, String> {
        let marks = Marks {
            times: Some(&self.times),
            segments: Some(self.segments.as_slice()).filter(|segments| !segments.is_empty()),
        };
        let about = About {
            model: subject.model.clone(),
            version: subject.version,
            digest: subject.digest.clone(),
            created_at: now,
            origin: Origin::Live,
        };
        BaselineBuilder::of_rows(plan, settings, rows, marks, about)
            .map_err(|error| error.to_string())
    }

    /// What is to be said before there is a baseline.
    pub(super) fn verdict(
        &self,
        subject: &Subject,
        settings: &Monitor,
        rows: u64,
        now: u64,
    ) -> Verdict {
        let wanted = self.wanted;
        Verdict {
            subject: subject.clone(),
            at: now,
            state: State::Learning,
            state_since: self.began,
            acknowledged: false,
            baseline: BaselineInfo {
                origin: Origin::Live,
                rows,
                learning: Some(wanted.saturating_sub(rows)),
                created_at: self.began,
            },
            false_alarms: settings.false_alarms.to_string(),
            threshold: super::threshold(settings),
            evidence: 0.0,
            rows,
            ticks: 0,
            outliers: 0,
            features: Vec::new(),
            performance: None,
            text: vec![format!("the baseline is being learned: {rows} of {wanted} rows so far")],
        }
    }
}
