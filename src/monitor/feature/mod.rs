//! Which columns of a version's tensors are watched, and how they are read.
//!
//! A [`FeaturePlan`] is made of a signature and settings alone: it says which columns there are
//! and what they are called. Whether a column of numbers is counted by quantiles or by categories
//! is decided when a baseline is built; features that are computed from others (products, the
//! outlier score) are the baseline's as well.
//!
//! Every feature has a *source*, such as `image[3]`: the tensor and the column, whatever the
//! feature is called. Baselines find their columns by it, so that names can change.

mod plan;
mod scores;

use serde::{Deserialize, Serialize};

pub use plan::{FeatureError, FeaturePlan, column_names};
pub(crate) use plan::{Take, Taken};
pub(crate) use scores::Measures;
pub use scores::{Score, find_prediction, find_score};

/// Which side of a prediction a feature is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Numbers, in cells by quantiles.
    Numeric,
    /// Names or whole numbers, in a cell each.
    Categorical,
}

/// How a column's values are kept, and what they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// FP16, BF16 and FP32, as binary32.
    Single,
    /// FP64.
    Double,
    /// Integers of at most 16 bits, as binary32, which holds them exactly.
    Short,
    /// Integers of 32 and 64 bits, as binary64; beyond 2^53 they are rounded.
    Long,
    /// BOOL, as 0 and 1.
    Boolean,
    /// BYTES, as a hash and a length.
    Text,
}

impl Values {
    /// True where only whole numbers occur.
    #[must_use]
    pub fn is_integer(self) -> bool {
        matches!(self, Self::Short | Self::Long)
    }

    /// True where a column holds binary64.
    #[must_use]
    pub fn is_double(self) -> bool {
        matches!(self, Self::Double | Self::Long)
    }
}

/// One watched column.
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// Its name, unique within the plan.
    pub name: String,
    /// Input or output.
    pub side: Side,
    /// Where it comes from: `image[3]`, `image.mean`.
    pub source: String,
    /// How its values are kept.
    pub values: Values,
    /// What it is, where the settings or its datatype say so; otherwise the data decide.
    pub kind: Option<Kind>,
}

#[cfg(test)]
pub(in crate::monitor) mod tests;
