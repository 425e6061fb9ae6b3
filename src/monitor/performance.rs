//! Live performance, with labels and without.

use serde::{Deserialize, Serialize};

/// What a baseline knows of the score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreBaseline {}

/// Performance now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerformanceVerdict {}
