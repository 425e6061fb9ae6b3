//! Effect sizes.

use serde::{Deserialize, Serialize};

/// How far a window is from the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effects {
    /// Values in the window.
    pub rows: u64,
    /// Population stability index, in nats.
    pub psi: f64,
    /// The same less what chance alone gives.
    pub psi_debiased: f64,
    /// Its 95 % interval.
    pub psi_interval: (f64, f64),
    /// Jensen–Shannon distance, base 2.
    pub jensen_shannon: f64,
    /// Hellinger distance.
    pub hellinger: f64,
    /// Total variation.
    pub total_variation: f64,
    /// Kolmogorov–Smirnov, of numbers.
    pub ks: Option<f64>,
    /// Wasserstein over the reference's deviation, of numbers.
    pub wasserstein: Option<f64>,
}
