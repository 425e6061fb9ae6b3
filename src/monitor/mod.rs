//! Watching what a version takes and gives: baseline, cells, counters, ticks, drift, data quality,
//! outliers, performance with and without labels.
//!
//! The monitor knows tensors and numbers, never versions: whoever makes a [`Recorder`] tells it as
//! plain text whom it watches.

pub mod answers;
pub mod baseline;
pub mod cells;
pub mod compare;
pub mod feature;
pub mod labels;
pub mod performance;
pub mod reader;
pub mod rows;
pub mod verdict;

mod kernel;
mod lookup;
mod outlier;
mod reduce;
mod text;

#[cfg(test)]
mod tests;
