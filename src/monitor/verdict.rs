//! What the monitor has to say: the documents that the admin plane serves, alerts are made of and
//! commands read.
//!
//! Times are milliseconds since 1970. Evidence is a natural logarithm: of the detector's sum, to
//! be compared with the logarithm of the promised number of ticks between false alarms.

use serde::{Deserialize, Serialize};

use super::baseline::Origin;
use super::feature::{Kind, Side};

/// What is known of a watched stream or of one of its features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The baseline is being made of live rows: nothing is decided yet.
    Learning,
    /// Nothing speaks against the baseline.
    Ok,
    /// Evidence gathers, short of what was promised.
    Suspected,
    /// It drifted. Stays until it recovers or somebody acknowledges it.
    Drifted,
    /// It drifted, and the newest windows are back within the tolerance.
    Recovered,
}

impl State {
    /// All states, in the order of their gauge's values.
    pub const ALL: [Self; 5] =
        [Self::Learning, Self::Ok, Self::Suspected, Self::Drifted, Self::Recovered];

    /// The name in documents and as a metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Learning => "learning",
            Self::Ok => "ok",
            Self::Suspected => "suspected",
            Self::Drifted => "drifted",
            Self::Recovered => "recovered",
        }
    }
}

/// Whom a recorder watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Subject {
    /// The model's name.
    pub model: String,
    /// The version's number.
    pub version: u64,
    /// The digest of its file.
    pub digest: String,
    /// The part of its traffic, where it is split; nothing for all of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub segment: Option<String>,
}

/// Where a verdict's reference comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BaselineInfo {
    /// A file, or live traffic.
    pub origin: Origin,
    /// Rows that it was made of.
    pub rows: u64,
    /// Rows that it still lacks, while it is being learned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub learning: Option<u64>,
    /// When it was made.
    pub created_at: u64,
}

/// Everything that is known of one watched stream at one tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Verdict {
    /// Whom it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// When the tick was.
    pub at: u64,
    /// The worst of its features and of all together.
    pub state: State,
    /// When that state began.
    pub state_since: u64,
    /// Whether somebody has seen the drift.
    pub acknowledged: bool,
    /// The reference.
    pub baseline: BaselineInfo,
    /// The promise, as written: `1 per 30 days`.
    pub false_alarms: String,
    /// Evidence that means drift.
    pub threshold: f64,
    /// Evidence of all features together.
    pub evidence: f64,
    /// Rows counted since the version went live.
    pub rows: u64,
    /// Ticks made.
    pub ticks: u64,
    /// Rows whose outlier score was beyond the baseline's.
    #[serde(default)]
    pub outliers: u64,
    /// The features, the most evidence first.
    pub features: Vec<FeatureVerdict>,
    /// Performance by labels and without.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub performance: Option<super::performance::PerformanceVerdict>,
    /// One sentence a finding, for people.
    pub text: Vec<String>,
}

/// What is known of one feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FeatureVerdict {
    /// The feature's name.
    pub name: String,
    /// Input, output, or computed from them.
    pub side: Side,
    /// Numbers or categories.
    pub kind: Kind,
    /// Its state.
    pub state: State,
    /// Its evidence.
    pub evidence: f64,
    /// When the change is estimated to have begun, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub onset: Option<u64>,
    /// Factor by which counts vary more than those of independent rows.
    pub variance_factor: f64,
    /// Effect sizes over windows that a person understands: the last 5 minutes, hour, day, and
    /// all since the version went live.
    pub windows: Vec<WindowVerdict>,
    /// Evidence at the last ticks, oldest first, for a sparkline.
    pub recent: Vec<f64>,
}

/// One window against the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WindowVerdict {
    /// `5m`, `1h`, `24h` or `all`; `change` for the window since the estimated onset.
    pub window: String,
    /// Values counted in it.
    pub rows: u64,
    /// How far it is from the baseline.
    pub effects: crate::stats::effect::Effects,
    /// Shares of values that are missing, in no category of the baseline, outside of its range.
    pub missing: f64,
    /// See above.
    pub new: f64,
    /// See above.
    pub out_of_range: f64,
    /// The cells that moved most.
    pub moved: Vec<MovedCell>,
}

/// A cell whose share changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct MovedCell {
    /// What is in it: `(41, 57]`, `missing`, `new category`, `red`.
    pub cell: String,
    /// Its share in the baseline.
    pub expected: f64,
    /// Its share now.
    pub actual: f64,
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Counts events of the process, from 1.
    pub id: u64,
    /// When it was found.
    pub at: u64,
    /// Whom it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// The feature; nothing where it is about all of them together.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub feature: Option<String>,
    /// What was watched: `drift`, `performance`, or a classical detector's name.
    pub detector: String,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Rows of the stream that were counted by then.
    pub rows: u64,
    /// When the change is estimated to have begun.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub onset: Option<u64>,
    /// Evidence, and what was promised to mean drift.
    pub evidence: f64,
    /// See above.
    pub threshold: f64,
    /// The window since the change against the baseline.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub window: Option<WindowVerdict>,
    /// Ids of some requests of the newest window.
    pub request_ids: Vec<String>,
    /// For people, in a sentence or two.
    pub text: String,
}

/// One statistic over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct History {
    /// The feature.
    pub feature: String,
    /// Points, oldest first; later ones are closer together.
    pub points: Vec<HistoryPoint>,
}

/// One point of a history.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HistoryPoint {
    /// The end of its time.
    pub at: u64,
    /// Values counted.
    pub rows: u64,
    /// Evidence at its end, the largest within it.
    pub evidence: f64,
    /// Debiased PSI of its rows.
    pub psi: f64,
    /// Share of missing values.
    pub missing: f64,
}

/// A feature's cells in the baseline and in a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Histogram {
    /// The feature.
    pub feature: String,
    /// The window.
    pub window: String,
    /// What is in each cell.
    pub cells: Vec<String>,
    /// Counts of the baseline.
    pub baseline: Vec<u64>,
    /// Counts of the window.
    pub live: Vec<u64>,
}
