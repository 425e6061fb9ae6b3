//! Reading a file that may hold anything.

use std::collections::{HashMap, HashSet};

use super::{Baseline, FeatureBaseline, SCHEMA, Slice, Source};
use crate::monitor::cells::{Cells, MOST_CATEGORIES, MOST_CELLS, MOST_OTHERS};
use crate::monitor::feature::Kind;
use crate::monitor::lookup;

/// Features of a baseline, at most: those of a version, and what is computed of them.
const MOST_FEATURES: usize = 4096 + 16;

/// Slices, at most: 168 hours and 17 segments, with room.
const MOST_SLICES: usize = 256;

/// Counts are added up and made floating point: below this that is exact.
const MOST_ROWS: u64 = 1 << 53;

/// Why a file is no baseline of a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaselineError {
    /// It is not the JSON of a baseline.
    #[error("it is not valid: {0}")]
    Json(String),
    /// It was written for another version of the format.
    #[error(
        "it has schema {0}, this version of tidegate reads {SCHEMA}; make it again with 'tidegate baseline'"
    )]
    Schema(u32),
    /// It was made with another model file.
    #[error(
        "it was made with {actual}, the model file is {expected}; make it again with 'tidegate baseline'"
    )]
    Digest {
        /// The model file's.
        expected: String,
        /// The baseline's.
        actual: String,
    },
    /// A feature makes no sense.
    #[error("feature '{feature}': {reason}")]
    Feature {
        /// Its name.
        feature: String,
        /// What was expected and what stands there.
        reason: String,
    },
    /// Something else makes no sense.
    #[error("{0}")]
    Content(String),
}

impl Baseline {
    /// Reads a `baseline.json`, which must be of the model file with digest `expected`. Whatever
    /// is accepted can be counted with. O(length).
    pub fn read(bytes: &[u8], expected: &str) -> Result<Self, BaselineError> {
        /// The first thing to look at, whatever else is there.
        #[derive(serde::Deserialize)]
        struct Head {
            schema: u32,
        }
        let json = |error: serde_json::Error| BaselineError::Json(error.to_string());
        let head: Head = serde_json::from_slice(bytes).map_err(json)?;
        if head.schema != SCHEMA {
            return Err(BaselineError::Schema(head.schema));
        }
        let baseline: Self = serde_json::from_slice(bytes).map_err(json)?;
        if baseline.digest != expected {
            let (expected, actual) = (expected.to_owned(), baseline.digest);
            return Err(BaselineError::Digest { expected, actual });
        }
        baseline.check()?;
        Ok(baseline)
    }

    /// The file's text.
    #[must_use]
    pub fn write(&self) -> String {
        // Every number in it is finite and every key a string: there is nothing to fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether everything fits together.
    pub(crate) fn check(&self) -> Result<(), BaselineError> {
        let content = |reason: String| Err(BaselineError::Content(reason));
        if self.features.is_empty() || self.features.len() > MOST_FEATURES {
            let n = self.features.len();
            return content(format!("features: expected 1 to {MOST_FEATURES}, got {n}"));
        }
        if self.rows > MOST_ROWS {
            return content(format!("rows: expected at most {MOST_ROWS}, got {}", self.rows));
        }
        let (mut names, mut sources) = (HashSet::new(), HashSet::new());
        let columns: HashMap<&str, &FeatureBaseline> = self
            .features
            .iter()
            .filter_map(|feature| match &feature.source {
                Source::Column(source) => Some((source.as_str(), feature)),
                _ => None,
            })
            .collect();
        for feature in &self.features {
            let failed = |reason: String| {
                Err(BaselineError::Feature { feature: feature.name.clone(), reason })
            };
            if !names.insert(&feature.name) {
                return failed("its name stands twice".to_owned());
            }
            if !sources.insert(&feature.source) {
                return failed("its source stands twice".to_owned());
            }
            if let Err(reason) = check_feature(feature, &columns) {
                return failed(reason);
            }
        }
        if let Some(outlier) = &self.outlier {
            let is_sane = |&(quantile, score): &(f64, f64)| {
                (0.0..=1.0).contains(&quantile) && score.is_finite()
            };
            let ascends = outlier.quantiles.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1);
            let n = outlier.quantiles.len();
            if !outlier.quantiles.iter().all(is_sane) || !ascends || n > 64 {
                return content("outlier.quantiles: expected up to 64 ascending pairs of a quantile from 0 to 1 and a finite score".to_owned());
            }
            if !outlier.threshold.is_finite() {
                return content("outlier.threshold: expected a finite number".to_owned());
            }
        }
        if let Some(score) = &self.score
            && let Err(error) = score.check()
        {
            return content(error.to_string());
        }
        if self.slices.len() > MOST_SLICES {
            let n = self.slices.len();
            return content(format!("slices: expected at most {MOST_SLICES}, got {n}"));
        }
        self.slices.iter().try_for_each(|slice| self.check_slice(slice))
    }

    fn check_slice(&self, slice: &Slice) -> Result<(), BaselineError> {
        let Slice { by, value, rows, counts } = slice;
        let failed =
            |reason: String| Err(BaselineError::Content(format!("slice {by} '{value}': {reason}")));
        let is_hour = value.parse::<u8>().is_ok_and(|hour| hour < 168);
        if by != "segment" && !(by == "season" && is_hour) {
            return failed(
                "expected by \"segment\", or \"season\" with an hour of the week from 0 to 167"
                    .to_owned(),
            );
        }
        if *rows > MOST_ROWS {
            return failed(format!("expected at most {MOST_ROWS} rows, got {rows}"));
        }
        if counts.len() != self.features.len() {
            let (n, actual) = (self.features.len(), counts.len());
            return failed(format!("expected counts of {n} features, got {actual}"));
        }
        for (feature, counts) in self.features.iter().zip(counts) {
            if let Err(reason) = check_counts(counts, feature.cells.len()) {
                return failed(format!("feature '{}': {reason}", feature.name));
            }
        }
        Ok(())
    }
}

fn check_counts(counts: &[u64], n_cells: usize) -> Result<(), String> {
    if counts.len() != n_cells {
        return Err(format!("expected {n_cells} counts, one a cell, got {}", counts.len()));
    }
    let total = counts.iter().try_fold(0_u64, |sum, &count| sum.checked_add(count));
    match total {
        Some(total) if total <= MOST_ROWS => Ok(()),
        _ => Err(format!("its counts add up to more than {MOST_ROWS}")),
    }
}

fn check_feature(
    feature: &FeatureBaseline,
    columns: &HashMap<&str, &FeatureBaseline>,
) -> Result<(), String> {
    let n_cells = feature.cells.len();
    if n_cells > MOST_CELLS {
        return Err(format!("expected at most {MOST_CELLS} cells, got {n_cells}"));
    }
    check_counts(&feature.counts, n_cells)?;
    match (&feature.cells, feature.kind) {
        (Cells::Numeric { edges }, Kind::Numeric) => {
            if edges.iter().any(|edge| !edge.is_finite()) {
                return Err("an edge is not finite".to_owned());
            }
            if let Some(pair) = edges.windows(2).find(|pair| pair[0] >= pair[1]) {
                return Err(format!("edges must ascend, {} comes before {}", pair[0], pair[1]));
            }
        }
        (Cells::Categorical { categories, others, .. }, Kind::Categorical) => {
            let n = categories.len();
            if n > MOST_CATEGORIES {
                return Err(format!("expected at most {MOST_CATEGORIES} categories, got {n}"));
            }
            let distinct: HashSet<&String> = categories.iter().collect();
            if distinct.len() != n {
                return Err("a category stands twice".to_owned());
            }
            let n = lookup::hashes(others)?.len();
            if n > MOST_OTHERS {
                return Err(format!("expected at most {MOST_OTHERS} other categories, got {n}"));
            }
        }
        (_, kind) => return Err(format!("its cells are not those of a {kind:?} feature")),
    }
    if let Some(factor) = feature.variance_factor
        && !(1.0..=1e9).contains(&factor)
    {
        return Err(format!("variance_factor: expected a number from 1 to 1e9, got {factor}"));
    }
    if let Some(summary) = &feature.summary {
        let figures = [summary.mean, summary.deviation, summary.min, summary.max];
        if figures.iter().any(|figure| !figure.is_finite()) || summary.deviation < 0.0 {
            return Err("summary: expected finite figures, and a deviation from 0 on".to_owned());
        }
    }
    match &feature.source {
        Source::Product(factors) => {
            for factor in factors {
                let column = columns.get(factor.as_str());
                if column.is_none_or(|column| column.summary.is_none()) {
                    return Err(format!(
                        "its factor '{factor}' is no numeric feature of the baseline with a summary"
                    ));
                }
            }
            is_numeric(feature)
        }
        Source::Outlier => is_numeric(feature),
        Source::Column(_) => Ok(()),
    }
}

fn is_numeric(feature: &FeatureBaseline) -> Result<(), String> {
    match feature.kind {
        Kind::Numeric => Ok(()),
        Kind::Categorical => Err("what is computed must be numeric".to_owned()),
    }
}
