//! What people ask of rollouts.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::oneshot;

use super::change::{Said, Wanted};
use super::driver::{Active, Driver, Rollouts};
use super::evidence::Evidence;
use super::{states, wish};
use crate::config::Config;
use crate::error::{Code, Fault};
use crate::monitor::times::now_ms;
use crate::registry::{ChangeError, ResolveError};
use crate::store::{Change, HistoryRecord, RolloutRecord, StoreError};
use crate::telemetry::names;
use crate::traffic::Steering;

/// How long an answer is waited for: a candidate may have to be loaded.
const ANSWER: Duration = Duration::from_secs(120);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Begin a rollout, of the highest version where none is named.
    Start {
        /// The version.
        candidate: Option<u64>,
    },
    /// Stay in the stage.
    Pause,
    /// Go on.
    Resume,
    /// End it, back to the version before.
    Abort,
    /// Make the candidate primary now, or a version where there is no rollout.
    Promote {
        /// The version.
        version: Option<u64>,
    },
    /// Back to the version before.
    Rollback,
    /// Give the model back to the file.
    Release,
}

/// A command on its way.
#[derive(Debug)]
pub struct Order {
    pub(super) model: String,
    pub(super) command: Command,
    pub(super) who: String,
    pub(super) reason: String,
    pub(super) reply: oneshot::Sender<Result<Done, CommandError>>,
}

/// What came of a command.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// In a sentence.
    pub text: String,
    /// The version that answers now.
    pub primary: u64,
    /// From the command's arrival to the swap and its record, in milliseconds.
    pub ms: f64,
}

/// Why it was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// Rollouts need a store.
    #[error("{0}")]
    NoStore(String),
    /// The store did not take it; nothing has changed.
    #[error("{0}; nothing has changed")]
    Store(StoreError),
    /// The store took longer than a way back waits.
    #[error("the store is slow")]
    StoreSlow,
    /// The version cannot serve; nothing has changed.
    #[error("{0}; nothing has changed")]
    Change(ChangeError),
    /// There is no such model.
    #[error("{0}")]
    Model(ResolveError),
    /// It clashes with what is.
    #[error("{0}")]
    Conflict(String),
    /// Too many commands wait, or the server goes down.
    #[error("too many commands are waiting for their turn; try again later")]
    Busy,
}

impl Fault for CommandError {
    fn code(&self) -> Code {
        match self {
            Self::NoStore(_) | Self::StoreSlow => Code::Unavailable,
            Self::Store(error) => error.code(),
            Self::Change(error) => error.code(),
            Self::Model(error) => error.code(),
            Self::Conflict(_) => Code::Conflict,
            Self::Busy => Code::Overloaded,
        }
    }
}

impl Rollouts {
    /// Has a command carried out.
    pub async fn ask(
        &self,
        model: &str,
        command: Command,
        who: &str,
        reason: &str,
    ) -> Result<Done, CommandError> {
        let arrived = Instant::now();
        let (reply, answer) = oneshot::channel();
        let (model, who, reason) = (model.to_owned(), who.to_owned(), reason.to_owned());
        let order = Order { model, command, who, reason, reply };
        self.orders.try_send(order).map_err(|_| CommandError::Busy)?;
        let answer = tokio::time::timeout(ANSWER, answer).await;
        let done = answer.map_err(|_| CommandError::Busy)?.map_err(|_| CommandError::Busy)?;
        done.map(|done| Done { ms: arrived.elapsed().as_secs_f64() * 1e3, ..done })
    }

    /// The newest lines of history of a model, or of all, the newest first.
    pub async fn history(
        &self,
        model: Option<&str>,
        most: u32,
    ) -> Result<Vec<HistoryRecord>, CommandError> {
        let store = self.store.as_ref().map_err(|reason| CommandError::NoStore(reason.clone()))?;
        store.history(model.map(str::to_owned), most).await.map_err(CommandError::Store)
    }

    /// Where `config` and the store disagree, and what comes of it.
    #[must_use]
    pub fn disagreements(&self, config: &Config) -> Vec<String> {
        let view = self.view();
        let line = |steered: &super::SteeredView| {
            let wish = wish::of(&wish::settings(config, &steered.model)?);
            let (model, text) = (&steered.model, &steered.text);
            Some(match wish == steered.wish {
                true => format!(
                    "{model}: the store holds {text} (see tidegate history --model {model}); the file wishes {wish}, as it did then, so the store's word holds until the file's changes or `tidegate rollout release --model {model}`"
                ),
                false => format!(
                    "{model}: the file wishes {wish}, and wished {} when the store's {text} came into force: the file counts again, the store's word ends",
                    steered.wish
                ),
            })
        };
        view.steered.iter().filter_map(line).collect()
    }
}

impl Driver {
    /// A rollout begins.
    pub(super) async fn begin(
        &mut self,
        model: &str,
        candidate: Option<u64>,
        who: &str,
        reason: &str,
    ) -> Result<Done, CommandError> {
        self.not_under_way(model)?;
        let (primary, primary_digest, known, candidate_digest) = {
            let table = self.parts.registry.live();
            let found = table.model(model).map_err(CommandError::Model)?;
            let primary = found.policy.primary;
            let digest = |version: u64| {
                let serving = found.versions.get(&version);
                serving.map(|s| s.version.loaded.digest.clone()).unwrap_or_default()
            };
            let entries = table.index.iter().filter(|entry| &*entry.model == model);
            let known: Vec<u64> = entries.filter_map(|entry| entry.version).collect();
            let highest = known.iter().copied().filter(|&version| version != primary).max();
            let candidate = candidate.or(highest).unwrap_or(primary);
            (primary, digest(primary), known, (candidate, digest(candidate)))
        };
        let (candidate, candidate_digest) = candidate_digest;
        if candidate == primary {
            return Err(CommandError::Conflict(format!(
                "version {primary} of {model} is primary already; versions in the repository: {known:?}"
            )));
        }
        let config = std::sync::Arc::clone(&self.parts.registry.live().config);
        let Some(settings) = wish::settings(&config, model) else {
            return Err(CommandError::Conflict(format!("the settings of {model} cannot be read")));
        };
        let plan = settings.rollout;
        let now = now_ms();
        let record = RolloutRecord {
            id: 0,
            model: model.to_owned(),
            candidate,
            candidate_digest,
            primary,
            primary_digest,
            stage: 0,
            state: states::RUNNING.to_owned(),
            plan: serde_json::to_string(&plan).unwrap_or_default(),
            progress: serde_json::to_string(&Evidence::default()).unwrap_or_default(),
            started_at: now,
            stage_at: now,
            updated_at: now,
            reason: String::new(),
        };
        let Some(first) = plan.stages.first() else {
            return Err(CommandError::Conflict("the plan has no stages".to_owned()));
        };
        let kind = first.kind;
        let wanted = Wanted {
            model,
            rollout: Some(record.clone()),
            steering: Some(self.steering_of(kind, model, primary, candidate)),
            said: Said { who, what: "started", reason: reason.to_owned() },
            figures: record.plan.clone(),
            is_urgent: false,
        };
        let id = self.make(wanted).await?;
        let mut record = RolloutRecord { id, ..record };
        if record.candidate_digest.is_empty() {
            record.candidate_digest = self.digest(model, candidate);
            // It was loaded just now. Where this is not written, the next change writes it.
            if let Ok(store) = self.parts.store.clone() {
                let change = Change { rollout: Some(record.clone()), ..Change::default() };
                if let Err(error) = store.change(change).await {
                    tracing::warn!(model, %error, "the candidate's digest is not kept yet");
                }
            }
        }
        tracing::info!(model, candidate, primary, who, stage = %kind, "a rollout begins");
        self.active.insert(model.to_owned(), Active::new(record, plan, Evidence::default()));
        Ok(done(format!("rollout {id} of {model} version {candidate} begins: {kind}"), primary))
    }

    pub(super) async fn ask_pause(
        &mut self,
        model: &str,
        who: &str,
        reason: &str,
    ) -> Result<Done, CommandError> {
        let primary = self.under_way(model, states::RUNNING)?;
        self.set_state(model, states::PAUSED, who, "paused", reason.to_owned()).await?;
        Ok(done(format!("the rollout of {model} stays where it is"), primary))
    }

    pub(super) async fn ask_resume(
        &mut self,
        model: &str,
        who: &str,
        reason: &str,
    ) -> Result<Done, CommandError> {
        let primary = self.under_way(model, states::PAUSED)?;
        self.set_state(model, states::RUNNING, who, "resumed", reason.to_owned()).await?;
        Ok(done(format!("the rollout of {model} goes on"), primary))
    }

    pub(super) async fn ask_abort(
        &mut self,
        model: &str,
        who: &str,
        reason: &str,
    ) -> Result<Done, CommandError> {
        let Some(active) = self.active.get(model) else { return Err(none_under_way(model)) };
        let (primary, candidate) = (active.record.primary, active.record.candidate);
        let reason = if reason.is_empty() { format!("{who} ended it") } else { reason.to_owned() };
        self.end(model, states::ABORTED, who, reason).await;
        match self.active.contains_key(model) {
            true => Err(CommandError::Busy),
            false => Ok(done(
                format!(
                    "{model} is back at version {primary}; version {candidate} gets nothing more"
                ),
                primary,
            )),
        }
    }

    pub(super) async fn ask_promote(
        &mut self,
        model: &str,
        version: Option<u64>,
        who: &str,
        reason: &str,
    ) -> Result<Done, CommandError> {
        if let Some(active) = self.active.get(model) {
            let candidate = active.record.candidate;
            if version.is_some_and(|version| version != candidate) {
                return Err(CommandError::Conflict(format!(
                    "a rollout of {model} version {candidate} is under way: abort it first"
                )));
            }
            let reason = format!("{who} said so; {}{}", active.summary(), and(reason));
            self.finish(model, who, reason).await?;
            return Ok(done(format!("version {candidate} of {model} is primary"), candidate));
        }
        let Some(version) = version else { return Err(none_under_way(model)) };
        let primary = {
            let table = self.parts.registry.live();
            table.model(model).map_err(CommandError::Model)?.policy.primary
        };
        if version == primary {
            return Ok(done(format!("version {version} of {model} is primary already"), primary));
        }
        let wanted = Wanted {
            model,
            rollout: None,
            steering: Some(Steering { warm: vec![primary], ..Steering::primary(version) }),
            said: Said { who, what: "promoted", reason: reason.to_owned() },
            figures: String::new(),
            is_urgent: false,
        };
        self.make(wanted).await?;
        self.count(names::PROMOTIONS, model);
        tracing::warn!(model, from = primary, to = version, who, reason, "promoted");
        let text =
            format!("version {version} of {model} is primary; version {primary} is kept warm");
        Ok(done(text, version))
    }

    pub(super) async fn ask_rollback(
        &mut self,
        model: &str,
        who: &str,
        reason: &str,
    ) -> Result<Done, CommandError> {
        if let Some(active) = self.active.get(model) {
            let primary = active.record.primary;
            let reason = format!("{who} took it back{}", and(reason));
            self.end(model, states::ROLLED_BACK, who, reason).await;
            return match self.active.contains_key(model) {
                true => Err(CommandError::Busy),
                false => Ok(done(format!("version {primary} of {model} is primary"), primary)),
            };
        }
        let steered = self.steered.get(model).map(|steered| steered.steering.clone());
        let back = steered.and_then(|s| s.warm.first().map(|&to| (s.primary, to)));
        let Some((from, to)) = back else {
            return Err(CommandError::Conflict(format!(
                "{model} was not promoted since it was last taken back: there is nothing to go back to; `tidegate promote --model {model} --version N` makes any version primary"
            )));
        };
        let wanted = Wanted {
            model,
            rollout: Some(self.taken_back(model, from, to, reason)),
            steering: Some(Steering::primary(to)),
            said: Said { who, what: "rolled back", reason: reason.to_owned() },
            figures: String::new(),
            is_urgent: true,
        };
        self.make(wanted).await?;
        self.count(names::ROLLBACKS, model);
        tracing::warn!(model, from, to, who, reason, "rolled back");
        Ok(done(format!("version {to} of {model} is primary, {from} is taken back"), to))
    }

    /// The digest of a version that serves; empty where it does not.
    fn digest(&self, model: &str, version: u64) -> String {
        let table = self.parts.registry.live();
        let serving = table.models.get(model).and_then(|found| found.versions.get(&version));
        serving.map(|serving| serving.version.loaded.digest.clone()).unwrap_or_default()
    }

    /// A record that says that a version was taken back, so that it does not begin by itself again.
    fn taken_back(&self, model: &str, from: u64, to: u64, reason: &str) -> RolloutRecord {
        let digest = |version: u64| self.digest(model, version);
        let now = now_ms();
        RolloutRecord {
            id: 0,
            model: model.to_owned(),
            candidate: from,
            candidate_digest: digest(from),
            primary: to,
            primary_digest: digest(to),
            stage: 0,
            state: states::ROLLED_BACK.to_owned(),
            plan: "null".to_owned(),
            progress: "null".to_owned(),
            started_at: now,
            stage_at: now,
            updated_at: now,
            reason: reason.to_owned(),
        }
    }

    pub(super) async fn ask_release(
        &mut self,
        model: &str,
        who: &str,
        reason: &str,
    ) -> Result<Done, CommandError> {
        self.not_under_way(model)?;
        if !self.steered.contains_key(model) {
            return Err(CommandError::Conflict(format!(
                "{model} is not steered: the file says what serves"
            )));
        }
        let wanted = Wanted {
            model,
            rollout: None,
            steering: None,
            said: Said { who, what: "released", reason: reason.to_owned() },
            figures: String::new(),
            is_urgent: false,
        };
        self.make(wanted).await?;
        let table = self.parts.registry.live();
        let primary = table.models.get(model).map_or(0, |found| found.policy.primary);
        Ok(done(
            format!("the file says what serves of {model}: version {primary} is primary"),
            primary,
        ))
    }

    fn count(&self, metric: names::Metric, model: &str) {
        self.parts.telemetry.counter(metric, &[("model", model), ("by", "hand")]).increment(1);
    }

    fn not_under_way(&self, model: &str) -> Result<(), CommandError> {
        match self.active.get(model) {
            None => Ok(()),
            Some(active) => Err(CommandError::Conflict(format!(
                "a rollout of {model} version {} is {}: promote it, or abort it first",
                active.record.candidate, active.record.state
            ))),
        }
    }

    /// The version that answered before, of a rollout in that state.
    fn under_way(&self, model: &str, state: &str) -> Result<u64, CommandError> {
        let active = self.active.get(model).ok_or_else(|| none_under_way(model))?;
        match active.record.state == state {
            true => Ok(active.record.primary),
            false => Err(CommandError::Conflict(format!(
                "the rollout of {model} is {}",
                active.record.state
            ))),
        }
    }
}

fn none_under_way(model: &str) -> CommandError {
    CommandError::Conflict(format!(
        "no rollout of {model} is under way: `tidegate rollout start --model {model}` begins one"
    ))
}

fn done(text: String, primary: u64) -> Done {
    Done { text, primary, ms: 0.0 }
}

fn and(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}
