//! Statistics on counts: effect sizes, the sequential detector, confidence sequences, measures of
//! performance. Pure functions and small states; nothing here knows tensors, models or clocks.
//!
//! Invariants:
//! - no input makes a function panic: empty counts, zero cells and infinite values have defined
//!   answers, which the function's documentation says;
//! - every statistic names its source and is checked against a named library's value.

pub mod calibration;
pub mod classical;
pub mod confidence;
pub mod detector;
pub mod effect;
pub mod hash;
pub mod kolmogorov;
pub mod performance;
pub mod sample;
pub mod sequential;
pub mod special;
pub mod variance;
