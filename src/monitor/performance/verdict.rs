//! What is said of performance: the part of a verdict, and changes of state.

use serde::{Deserialize, Serialize};

use super::baseline::{LossKind, Task};
use crate::monitor::labels::JoinCounts;
use crate::monitor::verdict::State;

/// Performance of one watched stream at one tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PerformanceVerdict {
    /// What the model does.
    pub task: Task,
    /// The names of its classes, where it has some.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub classes: Vec<String>,
    /// What the loss says.
    pub state: State,
    /// When that state began.
    pub state_since: u64,
    /// Whether somebody has seen it.
    pub acknowledged: bool,
    /// On the reference, where it had labels.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub baseline: Option<Measures>,
    /// By labels, over the time in which they came.
    pub realised: Vec<RealisedWindow>,
    /// Without labels, over the time of the predictions.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub estimated: Vec<EstimatedWindow>,
    /// The loss against the reference's.
    pub loss: LossVerdict,
    /// What became of labels and predictions.
    pub labels: JoinCounts,
    /// Classical detectors on the losses.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub detectors: Vec<ClassicalVerdict>,
    /// One sentence a finding, for people.
    pub text: Vec<String>,
}

/// Measures of performance; those that the task has and that the rows allow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Measures {
    /// Share of rows whose class is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Share of rows predicted positive that are; mean over classes where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// Share of positive rows that are predicted so; mean over classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// Harmonic mean of the two; mean over classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub f1: Option<f64>,
    /// Mean of −ln of the true class's probability, in nats; probabilities are clipped at 1e−7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_loss: Option<f64>,
    /// Area under the ROC curve, of binned scores; mean of one against the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roc_auc: Option<f64>,
    /// Mean absolute error, in the label's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mae: Option<f64>,
    /// Root of the mean squared error, in the label's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rmse: Option<f64>,
    /// Mean of prediction − label, in the label's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias: Option<f64>,
}

/// Measures of a window, by labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RealisedWindow {
    /// `1h`, `24h` or `all`.
    pub window: String,
    /// Labels that came in it and found their prediction.
    pub rows: u64,
    /// The measures.
    #[serde(flatten)]
    pub measures: Measures,
}

/// An estimate with its sampling error band: three standard errors on either side.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Band {
    /// The estimate.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// Measures estimated from scores alone. They hold as long as the probability of a class given
/// the score is what it was on the reference: **concept drift is not seen**.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Estimated {
    /// See [`Measures`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Band>,
    /// See [`Measures`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Band>,
    /// See [`Measures`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<Band>,
    /// See [`Measures`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub f1: Option<Band>,
    /// See [`Measures`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roc_auc: Option<Band>,
}

/// Estimated measures of a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct EstimatedWindow {
    /// `1h`, `24h` or `all`.
    pub window: String,
    /// Rows predicted in it that had a score.
    pub rows: u64,
    /// The measures.
    #[serde(flatten)]
    pub measures: Estimated,
    /// Always true: said in every document, so that nobody reads an estimate as a measurement.
    pub assumes_no_concept_drift: bool,
}

/// The loss against the reference's, by a sequential test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LossVerdict {
    /// Which loss: each is from 0 to 1.
    pub kind: LossKind,
    /// Labels since the test began.
    pub rows: u64,
    /// Labels wanted before the live reference is complete, while it is being learned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub learning: Option<u64>,
    /// Mean loss on the reference.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reference: Option<f64>,
    /// Its upper confidence bound plus the tolerance: a live mean beyond it is an alarm.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<f64>,
    /// Mean loss since the test began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean: Option<f64>,
    /// Its 95 % confidence interval, which holds at all times together.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub interval: Option<(f64, f64)>,
    /// Evidence against the limit: the logarithm of the Shiryaev–Roberts sum.
    pub evidence: f64,
    /// Evidence that means an alarm.
    pub threshold: f64,
    /// When the change is estimated to have begun, where evidence gathers.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub onset: Option<u64>,
    /// Labels since then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rows_since: Option<u64>,
    /// Mean loss since then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean_since: Option<f64>,
}

/// A classical detector on the losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ClassicalVerdict {
    /// `adwin` or `page-hinkley`.
    pub detector: String,
    /// How often it has alarmed.
    pub alarms: u64,
    /// When it did last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<u64>,
}

/// A change of state, of which an event is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// `performance`, `adwin` or `page-hinkley`.
    pub detector: String,
    /// When it was found.
    pub at: u64,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// When the change is estimated to have begun.
    pub onset: Option<u64>,
    /// Evidence, and what means an alarm.
    pub evidence: f64,
    /// See above.
    pub threshold: f64,
    /// For people, in a sentence or two.
    pub text: String,
}
