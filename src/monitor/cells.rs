//! Cells: where a value is counted.

use serde::{Deserialize, Serialize};

/// The cells of a feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cells {
    /// By quantiles: right-closed, ascending.
    Numeric {
        /// Upper bounds.
        edges: Vec<f64>,
    },
    /// One a category.
    Categorical {
        /// The most frequent categories.
        categories: Vec<String>,
    },
}
