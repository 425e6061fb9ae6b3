//! Which columns of a version's tensors are watched, and how they are read.

use serde::{Deserialize, Serialize};

/// Which side of a prediction a feature is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// What was asked.
    Input,
    /// What was answered.
    Output,
    /// Computed from others: outlier score, products of two features.
    Derived,
}

/// What a feature's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Numbers, in cells by quantiles.
    Numeric,
    /// Names or whole numbers, in a cell each.
    Categorical,
}
