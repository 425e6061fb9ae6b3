//! Watching what a version takes and gives: baseline, cells, counters, ticks, drift, data quality,
//! outliers, performance with and without labels.
//!
//! The monitor knows tensors and numbers, never versions: whoever makes a [`Recorder`] tells it as
//! plain text whom it watches.

pub mod answers;
pub mod baseline;
pub mod cells;
pub mod compare;
mod explain;
pub mod feature;
mod feature_watch;
mod history;
mod kernel;
pub mod labels;
mod learning;
mod lookup;
mod moments;
mod outlier;
pub mod performance;
mod predictions;
pub mod reader;
mod recorder;
mod reduce;
pub mod render;
pub mod rows;
mod rules;
#[cfg(test)]
pub(crate) mod sample;
mod state;
mod text;
pub mod times;
pub mod verdict;
mod watch;

mod watching;
mod windows;

pub use recorder::{Recorder, Watched};
pub use rules::Judgement;

use crate::config::Monitor;

/// Evidence that means drift: the logarithm of the ticks that are promised between false alarms.
fn threshold(settings: &Monitor) -> f64 {
    settings.false_alarms.ticks(settings.tick, settings.tick_rows).ln()
}

#[cfg(test)]
mod tests;
