//! What rollouts look like to those who ask.

use serde::{Deserialize, Serialize};

use super::evidence::Evidence;
use super::gates::GateReport;
use super::states;
use crate::config::Rollout;
use crate::telemetry::{SeriesKind, names, render_family};
use crate::traffic::Steering;

/// Everything, at one moment.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StateView {
    /// Why nothing can be rolled out, where that is so.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
    /// Rollouts that have not ended, and the last one of each model since the start that has.
    pub rollouts: Vec<RolloutView>,
    /// Models that are steered.
    pub steered: Vec<SteeredView>,
}

/// One rollout.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RolloutView {
    /// Its number.
    pub id: i64,
    /// The model.
    pub model: String,
    /// The version that is tried.
    pub candidate: u64,
    /// Its digest.
    pub candidate_digest: String,
    /// The version that answered before.
    pub primary: u64,
    /// Its digest.
    pub primary_digest: String,
    /// One of [`super::states`].
    pub state: String,
    /// Position of its stage, from 0.
    pub stage: u32,
    /// The stage in words: `canary 5 %`.
    pub stage_name: String,
    /// All stages in words.
    pub stages: Vec<String>,
    /// Times in milliseconds since 1970.
    pub started_at: u64,
    /// See above.
    pub stage_at: u64,
    /// See above.
    pub updated_at: u64,
    /// Requests of the candidate in this stage, and how many it takes at least.
    pub requests: u64,
    /// See above.
    pub requests_wanted: u64,
    /// The least time of this stage that is left, in milliseconds.
    pub wait_ms: u64,
    /// The stage's gates.
    pub gates: Vec<GateReport>,
    /// What it waits for, or why it ended.
    pub reason: String,
    /// Stages, gates and error rates that it was started with.
    pub plan: Rollout,
    /// What the stage has counted.
    pub evidence: Evidence,
}

/// One steered model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SteeredView {
    /// The model.
    pub model: String,
    /// What steers it.
    pub steering: Steering,
    /// The same in words.
    pub text: String,
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// What the configuration wished when it came into force.
    pub wish: String,
}

/// Stage and evidence of rollouts under way.
pub(super) fn render(view: &StateView, out: &mut String) {
    let running = || {
        let is_under_way =
            |r: &&RolloutView| r.state == states::RUNNING || r.state == states::PAUSED;
        view.rollouts.iter().filter(is_under_way)
    };
    let stages = running().map(|r| (vec![("model", r.model.as_str())], f64::from(r.stage)));
    render_family(out, names::ROLLOUT_STAGE, SeriesKind::Gauge, stages);
    let requests = running().map(|r| (vec![("model", r.model.as_str())], r.requests as f64));
    render_family(out, names::ROLLOUT_REQUESTS, SeriesKind::Gauge, requests);
    let sides = |r: &'static str, value: fn(&GateReport) -> f64| {
        running().flat_map(move |rollout| {
            rollout.gates.iter().map(move |gate| {
                let labels = vec![
                    ("model", rollout.model.as_str()),
                    ("gate", gate.gate.name()),
                    ("side", r),
                ];
                (labels, value(gate))
            })
        })
    };
    let evidence = sides("within", |gate| gate.within).chain(sides("beyond", |gate| gate.beyond));
    render_family(out, names::ROLLOUT_EVIDENCE, SeriesKind::Gauge, evidence);
    let needed =
        sides("within", |gate| gate.passes_at).chain(sides("beyond", |gate| gate.fails_at));
    render_family(out, names::ROLLOUT_THRESHOLD, SeriesKind::Gauge, needed);
    let steered = view.steered.iter().map(|s| (vec![("model", s.model.as_str())], 1.0));
    render_family(out, names::STEERED, SeriesKind::Gauge, steered);
    let trouble = f64::from(u8::from(view.trouble.is_none()));
    render_family(out, names::STORE_OPEN, SeriesKind::Gauge, [(Vec::new(), trouble)]);
}
