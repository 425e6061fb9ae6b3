//! The baseline: what a version's traffic looked like when it was well.
//!
//! `docs/baseline.md` documents the file. Invariants, which [`Baseline::read`] checks since a file
//! may hold anything:
//! - every feature has as many counts as cells, which are at most 256, and every slice as many as
//!   the feature;
//! - edges are finite and ascend strictly; no two features share a name or a source;
//! - the factors of a product are numeric features with a summary.

mod builder;
mod choose;
mod counting;
mod gather;
mod read;
mod slices;
mod truth;

use serde::{Deserialize, Serialize};

pub use builder::{About, BaselineBuilder, BuildError, Marks};
pub use counting::Counting;
pub use read::BaselineError;
pub use slices::{OTHER_SEGMENTS, hour_of_week};
pub use truth::Truth;

use super::cells::Cells;
use super::feature::{FeaturePlan, Kind, Side};
use super::performance::ScoreBaseline;

/// The version of `baseline.json` that is written; others are refused.
pub const SCHEMA: u32 = 1;

/// The baseline's file in a version's folder.
pub const FILE: &str = "baseline.json";

/// A baseline, as `baseline.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The model's name.
    pub model: String,
    /// The version's number.
    pub version: u64,
    /// The digest of the model file that made the outputs.
    pub digest: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at: u64,
    /// Whether it was made of a file or of live rows.
    pub origin: Origin,
    /// Rows that it was made of.
    pub rows: u64,
    /// Every feature watched, in the order of the feature plan.
    pub features: Vec<FeatureBaseline>,
    /// Outlier scores of its rows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outlier: Option<OutlierBaseline>,
    /// What is known of the score's truthfulness, where there were labels.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<ScoreBaseline>,
    /// Counts of parts of the rows, under the same cells: segments, hours of the week.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub slices: Vec<Slice>,
}

/// Where a baseline comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A file of reference rows.
    File,
    /// The first rows after the version went live.
    Live,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Live => "live",
        })
    }
}

/// One feature's reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureBaseline {
    /// The feature's name.
    pub name: String,
    /// Input, output or derived.
    pub side: Side,
    /// Where its values come from.
    pub source: Source,
    /// Numbers or categories. Numbers of a BYTES column are the lengths of its texts.
    pub kind: Kind,
    /// The cells.
    pub cells: Cells,
    /// Rows in each of them.
    pub counts: Vec<u64>,
    /// Factor by which counts of successive rows vary more than those of independent ones
    /// (the long-run variance); nothing where the rows' order says nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub variance_factor: Option<f64>,
    /// Figures of a numeric feature's finite values.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub summary: Option<Summary>,
}

/// Where a feature's values come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A column of a tensor, or a figure of its rows: `image[3]`, `image.mean`.
    Column(String),
    /// The product of two columns, each less its mean and over its deviation.
    Product([String; 2]),
    /// The outlier score of the row.
    Outlier,
}

/// Figures of finite values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The mean.
    pub mean: f64,
    /// The standard deviation (of the population).
    pub deviation: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// Outlier scores (HBOS) of the baseline's rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutlierBaseline {
    /// Pairs of a quantile and its score, ascending: 0.5, 0.9, 0.99, 0.999.
    pub quantiles: Vec<(f64, f64)>,
    /// The score beyond which a row is an outlier (quantile 0.999).
    pub threshold: f64,
}

/// Counts of a part of the rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// `segment` or `season`.
    pub by: String,
    /// The segment's value, or the hour of the week from 0 (Monday 00:00 UTC).
    pub value: String,
    /// Rows in it.
    pub rows: u64,
    /// Counts by feature, then by cell.
    pub counts: Vec<Vec<u64>>,
}

impl Baseline {
    /// The position of the feature of that name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.features.iter().position(|feature| feature.name == name)
    }

    /// The feature that comes from that column.
    #[must_use]
    pub fn column(&self, source: &str) -> Option<&FeatureBaseline> {
        self.features.iter().find(|f| matches!(&f.source, Source::Column(s) if s == source))
    }
}

impl Baseline {
    /// Drops the features that the settings of `plan` do not watch (any more). Where an input is
    /// among them, outlier scores are dropped too: without it, they would be others.
    pub fn restrict(&mut self, plan: &FeaturePlan) {
        let is_kept = |feature: &FeatureBaseline| match &feature.source {
            Source::Column(source) => !plan.is_unwatched(source),
            Source::Product(factors) => !factors.iter().any(|source| plan.is_unwatched(source)),
            Source::Outlier => true,
        };
        let is_input = |feature: &FeatureBaseline| feature.side == Side::Input;
        let keeps_inputs = self.features.iter().filter(|f| is_input(f)).all(is_kept);
        let keep: Vec<bool> = self
            .features
            .iter()
            .map(|f| is_kept(f) && (keeps_inputs || f.source != Source::Outlier))
            .collect();
        let kept = |position: usize| keep.get(position) == Some(&true);
        let mut position = 0;
        self.features.retain(|_| {
            position += 1;
            kept(position - 1)
        });
        for slice in &mut self.slices {
            let mut position = 0;
            slice.counts.retain(|_| {
                position += 1;
                kept(position - 1)
            });
        }
        if !keeps_inputs {
            self.outlier = None;
        }
    }
}

impl FeatureBaseline {
    /// The share of missing values.
    #[must_use]
    pub fn missing_share(&self) -> f64 {
        let total: u64 = self.counts.iter().sum();
        let missing = self.counts.get(self.cells.missing()).copied().unwrap_or(0);
        if total == 0 { 0.0 } else { missing as f64 / total as f64 }
    }
}

#[cfg(test)]
mod tests;
