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
mod explain;
mod history;
mod recorder;
mod state;
pub mod verdict;
mod watch;
mod watching;
mod windows;

pub use recorder::{Recorder, Watched};

use crate::config::Monitor;

/// Evidence that means drift: the logarithm of the ticks that are promised between false alarms.
fn threshold(settings: &Monitor) -> f64 {
    settings.false_alarms.ticks(settings.tick, settings.tick_rows).ln()
}
