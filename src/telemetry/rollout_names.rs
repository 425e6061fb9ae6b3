//! The metrics of rollouts: a part of [`super::names`].

use super::names::{Metric, metric};

/// Stages of rollouts under way, by `model`.
pub const ROLLOUT_STAGE: Metric = metric(
    "tidegate_rollout_stage",
    "Stage of the model's rollout, counted from 0; gone when it has ended.",
);
/// Requests of the candidate, by `model`.
pub const ROLLOUT_REQUESTS: Metric = metric(
    "tidegate_rollout_stage_requests",
    "Requests of the candidate in this stage of the model's rollout.",
);
/// Evidence of gates, by `model`, `gate` and `side`: `within` or `beyond` the limit.
pub const ROLLOUT_EVIDENCE: Metric = metric(
    "tidegate_rollout_gate_evidence",
    "Evidence that the candidate is within or beyond a gate's limit: the logarithm of an e-value.",
);
/// Evidence that decides, labels as above.
pub const ROLLOUT_THRESHOLD: Metric = metric(
    "tidegate_rollout_gate_threshold",
    "Evidence that passes (within) or fails (beyond) a gate.",
);
/// Promotions, by `model` and `by`: `gates` or `hand`.
pub const PROMOTIONS: Metric =
    metric("tidegate_promotions_total", "Versions that were made primary, by gates or by hand.");
/// Ways back, labels as above.
pub const ROLLBACKS: Metric = metric(
    "tidegate_rollbacks_total",
    "Candidates and promoted versions that were taken back, by gates or by hand.",
);
/// Always 1 for a model that is steered beside the configuration, by `model`.
pub const STEERED: Metric = metric(
    "tidegate_model_steered",
    "Always 1 for each model that a rollout, a promotion or a rollback steers, and not the configuration alone.",
);
/// Whether the store is open.
pub const STORE_OPEN: Metric =
    metric("tidegate_store_open", "1 if the store is open, so that rollouts are possible, else 0.");
