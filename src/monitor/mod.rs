//! Watching what a version takes and gives: baseline, cells, counters, ticks, drift, data quality,
//! outliers, performance with and without labels.
//!
//! The monitor knows tensors and numbers, never versions: whoever makes a [`Recorder`] tells it as
//! plain text whom it watches.

pub mod baseline;
pub mod cells;
pub mod feature;
pub mod labels;
pub mod performance;
pub mod render;
pub mod rfc3339;
#[cfg(test)]
pub(crate) mod sample;
pub mod verdict;
