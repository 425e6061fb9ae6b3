//! Cells: where a value is counted. They are made once, of a reference, and never move.
//!
//! A number's cell is the count of the edges that are below it, so cells are right-closed: the
//! first one holds what is below the reference's least value, the last one what is above its
//! largest. A value that is frequent in the reference has a closed cell of its own: one edge just
//! below it, and one at it. Behind these ordered cells come `missing` and `infinite`.
//!
//! A name's cell is its place among the most frequent ones; then come `other` (in the reference,
//! and rare), `new category` (not in the reference) and `missing`.

mod edges;
mod label;

use serde::{Deserialize, Serialize};

pub(crate) use edges::{BINS, edges, floor_single};

/// Cells of a feature, at most: their indices are bytes.
pub const MOST_CELLS: usize = 256;

/// Categories with a cell of their own, at most.
pub(crate) const MOST_CATEGORIES: usize = 31;

/// Rare categories that are told apart from new ones, at most.
pub(crate) const MOST_OTHERS: usize = 8192;

/// The cells of a feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
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
        /// Hashes of the other categories, 16 hexadecimal digits each.
        #[serde(skip_serializing_if = "String::is_empty", default)]
        others: String,
        /// Whether the reference has more categories than are listed. What is in no list then
        /// counts as `other`, and nothing as new.
        #[serde(skip_serializing_if = "std::ops::Not::not", default)]
        is_open: bool,
    },
}

impl Cells {
    /// The number of cells.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Numeric { edges } => edges.len() + 3,
            Self::Categorical { categories, .. } => categories.len() + 3,
        }
    }

    /// Never: there are always the cells of what is strange.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Cells, from the first on, that are ordered by value. None of categories are.
    #[must_use]
    pub fn n_ordered(&self) -> usize {
        match self {
            Self::Numeric { edges } => edges.len() + 1,
            Self::Categorical { .. } => 0,
        }
    }

    /// The cell of missing values: NaN, an empty text.
    #[must_use]
    pub fn missing(&self) -> usize {
        match self {
            Self::Numeric { edges } => edges.len() + 1,
            Self::Categorical { categories, .. } => categories.len() + 2,
        }
    }

    /// The cell of infinite numbers.
    #[must_use]
    pub fn infinite(&self) -> Option<usize> {
        match self {
            Self::Numeric { edges } => Some(edges.len() + 2),
            Self::Categorical { .. } => None,
        }
    }

    /// The cell of categories that the reference has, and that have no cell of their own.
    #[must_use]
    pub fn other(&self) -> Option<usize> {
        match self {
            Self::Numeric { .. } => None,
            Self::Categorical { categories, .. } => Some(categories.len()),
        }
    }

    /// The cell of categories that the reference does not have.
    #[must_use]
    pub fn new_category(&self) -> Option<usize> {
        match self {
            Self::Numeric { .. } => None,
            Self::Categorical { categories, .. } => Some(categories.len() + 1),
        }
    }

    /// The cells of numbers that the reference does not reach: below, above, infinite.
    #[must_use]
    pub fn out_of_range(&self) -> Vec<usize> {
        match self {
            Self::Numeric { edges } => vec![0, edges.len(), edges.len() + 2],
            Self::Categorical { .. } => Vec::new(),
        }
    }

    /// A value in the middle of each ordered cell; the least and the largest value of the
    /// reference for the two outer ones. Finite and ascending.
    #[must_use]
    pub fn centres(&self) -> Vec<f64> {
        let Self::Numeric { edges } = self else { return Vec::new() };
        let (Some(first), Some(last)) = (edges.first(), edges.last()) else { return vec![0.0] };
        // Halves first: the sum of two edges may be beyond what a number can be.
        let middles = edges.windows(2).map(|pair| pair[0] / 2.0 + pair[1] / 2.0);
        [*first].into_iter().chain(middles).chain([*last]).collect()
    }
}
