//! How a change is made: the store first, then the swap.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::commands::CommandError;
use super::driver::{Active, Driver, Steered};
use super::{states, wish};
use crate::config::StageKind;
use crate::monitor::times::now_ms;
use crate::monitor::verdict::{Event, State, Subject};
use crate::store::{Change, HistoryRecord, RolloutRecord, SteeringChange, SteeringRecord};
use crate::telemetry::names;
use crate::traffic::Steering;

/// How long a way back waits for the store. Then it is made, and written later.
const IMPATIENCE: Duration = Duration::from_millis(50);

/// What is said of a change.
#[derive(Debug, Clone, Default)]
pub(super) struct Said<'a> {
    pub(super) who: &'a str,
    pub(super) what: &'a str,
    pub(super) reason: String,
}

/// A change that is to be made.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) model: &'a str,
    /// The rollout afterwards, where there is one.
    pub(super) rollout: Option<RolloutRecord>,
    /// What steers it afterwards; `None` where the file alone does.
    pub(super) steering: Option<Steering>,
    pub(super) said: Said<'a>,
    /// The evidence at that moment.
    pub(super) figures: String,
    /// A way back: not held up by a store that fails or is slow.
    pub(super) is_urgent: bool,
}

impl Driver {
    /// Makes a change: written, then visible. Where the swap cannot be made, what was written is
    /// taken back. Returns the rollout's number.
    pub(super) async fn make(&mut self, wanted: Wanted<'_>) -> Result<i64, CommandError> {
        let store = self.parts.store.clone().map_err(CommandError::NoStore)?;
        let Wanted { model, rollout, steering, said, figures, is_urgent } = wanted;
        let now = now_ms();
        let before = self.steered.get(model).cloned();
        let record = steering.as_ref().map(|steering| self.steering_record(model, steering, now));
        let history = self.line(model, before.as_ref(), steering.as_ref(), &said, figures, now);
        let change = Change {
            rollout: rollout.clone(),
            steering: Some(as_change(model, record.clone())),
            history: Some(history),
        };
        let written = match is_urgent {
            false => store.change(change).await.map_err(CommandError::Store),
            true => match tokio::time::timeout(IMPATIENCE, store.change(change)).await {
                Ok(written) => written.map_err(CommandError::Store),
                Err(_) => Err(CommandError::StoreSlow),
            },
        };
        let id = match (&written, &rollout) {
            (Ok(id), _) => id.unwrap_or_default(),
            (Err(error), rollout) if is_urgent => {
                tracing::error!(model, %error, "a way back is made before it is kept");
                self.rest();
                self.unwritten.insert(model.to_owned(), rollout.clone());
                rollout.as_ref().map_or(0, |rollout| rollout.id)
            }
            (Err(error), _) => {
                // It may be written after all: what is true is written over it.
                let is_true = self.active.get(model).map(|active| active.record.clone());
                self.unwritten.insert(model.to_owned(), is_true);
                self.rest();
                return Err(error.clone());
            }
        };
        tracing::debug!(model, what = said.what, "written");
        if let Err(error) = self.parts.registry.steer(model, steering.clone()).await {
            if !is_urgent {
                let undone = Said { who: said.who, what: "not done", reason: error.to_string() };
                let rollout = match self.active.get(model) {
                    Some(active) => Some(active.record.clone()),
                    None => rollout.map(|rollout| RolloutRecord {
                        id,
                        state: states::ABORTED.to_owned(),
                        reason: error.to_string(),
                        ..rollout
                    }),
                };
                let after = before.as_ref().map(|before| &before.steering);
                let line = self.line(model, before.as_ref(), after, &undone, String::new(), now);
                let change = Change {
                    rollout,
                    steering: Some(as_change(model, before.map(|before| before.record))),
                    history: Some(line),
                };
                if let Err(error) = store.change(change.clone()).await {
                    tracing::error!(model, %error, "what was not done could not be taken back");
                    self.unwritten.insert(model.to_owned(), change.rollout);
                }
                return Err(CommandError::Change(error));
            }
            // Too many changes wait for the registry, or it goes down: it is tried again, and the
            // store is told what is.
            let is_true = self.active.get(model).map(|active| active.record.clone());
            self.unwritten.insert(model.to_owned(), is_true);
            return Err(CommandError::Change(error));
        }
        match steering.zip(record) {
            Some((steering, record)) => {
                self.steered.insert(model.to_owned(), Steered { steering, record });
            }
            None => drop(self.steered.remove(model)),
        }
        Ok(id)
    }

    /// Writes what is true where the store may have something else.
    /// Nothing waits for it.
    pub(super) fn write_what_is_unwritten(&mut self) {
        let Ok(store) = self.parts.store.clone() else { return };
        let mut going_on = Vec::new();
        for (model, rollout, mut outcome) in std::mem::take(&mut self.writing) {
            match outcome.try_recv() {
                Ok(true) => {}
                Err(TryRecvError::Empty) => going_on.push((model, rollout, outcome)),
                // Nothing newer may be overwritten by it.
                Ok(false) | Err(TryRecvError::Closed) => {
                    self.unwritten.entry(model).or_insert(rollout);
                }
            }
        }
        self.writing = going_on;
        let is_being_written =
            |model: &String| self.writing.iter().any(|(writing, ..)| writing == model);
        let models = self.unwritten.keys().filter(|model| !is_being_written(model));
        let models: Vec<String> = models.cloned().collect();
        for model in models {
            let unwritten = self.unwritten.remove(&model).flatten();
            let rollout = match self.active.get(&model) {
                Some(active) => Some(active.record.clone()),
                None => unwritten,
            };
            let steered = self.steered.get(&model);
            let said = Said {
                who: "tidegate",
                what: "kept later",
                reason: "the store did not answer when it was done".to_owned(),
            };
            let steering = steered.map(|steered| &steered.steering);
            let line = self.line(&model, steered, steering, &said, String::new(), now_ms());
            let change = Change {
                rollout: rollout.clone().filter(|rollout| rollout.id != 0),
                steering: Some(as_change(&model, steered.map(|steered| steered.record.clone()))),
                history: Some(line),
            };
            let (done, outcome) = oneshot::channel();
            self.writing.push((model.clone(), rollout, outcome));
            let store = Arc::clone(&store);
            drop(Handle::current().spawn(async move {
                let written = store.change(change).await;
                if let Err(error) = &written {
                    tracing::warn!(model, %error, "the store still does not answer");
                }
                // Without the driver nobody waits.
                let _ = done.send(written.is_ok());
            }));
        }
    }

    fn steering_record(&self, model: &str, steering: &Steering, now: u64) -> SteeringRecord {
        let config = Arc::clone(&self.parts.registry.live().config);
        let wish = wish::settings(&config, model).map(|settings| wish::of(&settings));
        let before = self.steered.get(model).map(|steered| steered.record.wish.clone());
        SteeringRecord {
            model: model.to_owned(),
            steering: serde_json::to_string(steering).unwrap_or_default(),
            // Settings that cannot be read wish what they did.
            wish: wish.or(before).unwrap_or_default(),
            since: now,
        }
    }

    fn line(
        &self,
        model: &str,
        before: Option<&Steered>,
        after: Option<&Steering>,
        said: &Said<'_>,
        figures: String,
        now: u64,
    ) -> HistoryRecord {
        let table = self.parts.registry.live();
        let found = table.models.get(model);
        let digest = |version: u64| {
            let serving = found.and_then(|found| found.versions.get(&version));
            serving.map(|serving| serving.version.loaded.digest.clone()).unwrap_or_default()
        };
        let primary = found.map(|found| found.policy.primary);
        let file = || {
            primary
                .map_or("nothing".to_owned(), |primary| format!("primary {primary}, by the file"))
        };
        let from = before.map(|before| &before.steering);
        HistoryRecord {
            id: 0,
            at: now,
            model: model.to_owned(),
            who: said.who.to_owned(),
            what: said.what.to_owned(),
            from: from.map_or_else(file, wish::words),
            to: after.map_or_else(|| "by the file".to_owned(), wish::words),
            reason: said.reason.clone(),
            digest_from: from.map(|s| s.primary).or(primary).map(digest).unwrap_or_default(),
            digest_to: after.map(|steering| digest(steering.primary)).unwrap_or_default(),
            figures,
        }
    }

    /// What a stage does to the traffic.
    pub(super) fn steering_of(
        &self,
        stage: StageKind,
        model: &str,
        primary: u64,
        candidate: u64,
    ) -> Steering {
        let warm = self.kept_warm(model, primary, candidate);
        match stage {
            StageKind::Shadow(share) => {
                Steering { shadows: vec![(candidate, share)], warm, ..Steering::primary(primary) }
            }
            StageKind::Canary(share) => {
                Steering { canaries: vec![(candidate, share)], warm, ..Steering::primary(primary) }
            }
            StageKind::Full => Steering { warm: vec![primary], ..Steering::primary(candidate) },
        }
    }

    /// What an earlier promotion of the primary keeps warm: the way back from it stays open while
    /// another version is tried.
    fn kept_warm(&self, model: &str, primary: u64, candidate: u64) -> Vec<u64> {
        let steered = self.steered.get(model).filter(|s| s.steering.primary == primary);
        let warm = steered.map(|steered| steered.steering.warm.iter().copied());
        let table = self.parts.registry.live();
        // One that is gone would have the whole refused.
        let serves = |version: &u64| {
            let found = table.models.get(model);
            *version != candidate && found.is_some_and(|found| found.versions.contains_key(version))
        };
        warm.into_iter().flatten().filter(serves).collect()
    }

    /// The next stage, or the end where there is none.
    pub(super) async fn advance(&mut self, model: &str) {
        let Some(active) = self.active.get(model) else { return };
        let next = active.record.stage as usize + 1;
        let figures = serde_json::to_string(&active.gates).unwrap_or_default();
        let passed = format!("{}: every gate passed, {}", active.kind(), active.summary());
        let Some(stage) = active.plan.stages.get(next).map(|stage| stage.kind) else {
            if let Err(error) = self.finish(model, "gates", passed).await {
                tracing::error!(model, %error, "a promotion cannot be kept; it is tried again");
            }
            return;
        };
        let now = now_ms();
        let evidence = active.evidence.next_stage(stage == StageKind::Full);
        let record = RolloutRecord {
            stage: active.record.stage + 1,
            progress: serde_json::to_string(&evidence).unwrap_or_default(),
            stage_at: now,
            updated_at: now,
            reason: String::new(),
            ..active.record.clone()
        };
        let what = format!("stage: {stage}");
        let steering = self.steering_of(stage, model, record.primary, record.candidate);
        let wanted = Wanted {
            model,
            rollout: Some(record.clone()),
            steering: Some(steering),
            said: Said { who: "gates", what: &what, reason: passed.clone() },
            figures,
            is_urgent: false,
        };
        match self.make(wanted).await {
            Ok(_) => {
                tracing::info!(model, candidate = record.candidate, stage = %stage, "a rollout goes on");
                self.tell(&record, State::Ok, State::Ok, &format!("goes on to {stage}: {passed}"));
                if let Some(active) = self.active.remove(model) {
                    let active = Active::new(record, active.plan, evidence);
                    self.active.insert(model.to_owned(), active);
                }
            }
            Err(error) => {
                tracing::error!(model, %error, "a rollout cannot go on; it is tried again")
            }
        }
    }

    /// The candidate is primary for good, and the version before stays warm.
    pub(super) async fn finish(
        &mut self,
        model: &str,
        who: &str,
        reason: String,
    ) -> Result<(), CommandError> {
        let Some(active) = self.active.get(model) else { return Ok(()) };
        let record = ended(&active.record, states::PROMOTED, &reason);
        let steering = self.steering_of(StageKind::Full, model, record.primary, record.candidate);
        let wanted = Wanted {
            model,
            rollout: Some(record.clone()),
            steering: Some(steering),
            said: Said { who, what: "promoted", reason: reason.clone() },
            figures: serde_json::to_string(&active.gates).unwrap_or_default(),
            is_urgent: false,
        };
        self.make(wanted).await?;
        self.ended(record, names::PROMOTIONS, who, State::Recovered);
        Ok(())
    }

    /// Back to the version before, at once.
    pub(super) async fn end(
        &mut self,
        model: &str,
        state: &'static str,
        who: &str,
        reason: String,
    ) {
        let Some(active) = self.active.get(model) else { return };
        let record = ended(&active.record, state, &reason);
        let what = if state == states::ABORTED { "aborted" } else { "rolled back" };
        let is_there = |table: &crate::registry::LiveTable| {
            let found = table.models.get(model);
            found.is_some_and(|found| found.versions.contains_key(&record.primary))
        };
        let is_there = is_there(&self.parts.registry.live());
        let wanted = Wanted {
            model,
            rollout: Some(record.clone()),
            // Without the version before, the file says what serves.
            steering: is_there.then(|| Steering {
                warm: self.kept_warm(model, record.primary, record.candidate),
                ..Steering::primary(record.primary)
            }),
            said: Said { who, what, reason: reason.clone() },
            figures: serde_json::to_string(&active.gates).unwrap_or_default(),
            is_urgent: true,
        };
        match self.make(wanted).await {
            Ok(_) => self.ended(record, names::ROLLBACKS, who, State::Drifted),
            Err(error) => {
                tracing::error!(model, %error, "a way back cannot be made; it is tried again")
            }
        }
    }

    /// Stays where it is.
    pub(super) async fn pause(&mut self, model: &str, who: &str, reason: String) {
        if let Err(error) = self.set_state(model, states::PAUSED, who, "paused", reason).await {
            tracing::error!(model, %error, "a rollout cannot be paused");
        }
    }

    /// Another state with the same steering.
    pub(super) async fn set_state(
        &mut self,
        model: &str,
        state: &'static str,
        who: &str,
        what: &str,
        reason: String,
    ) -> Result<(), CommandError> {
        let Some(active) = self.active.get(model) else { return Ok(()) };
        let is_pause = state == states::PAUSED;
        let now = now_ms();
        let record = RolloutRecord {
            state: state.to_owned(),
            reason: if is_pause { reason.clone() } else { String::new() },
            // A stage that is resumed has its longest time anew.
            stage_at: if is_pause { active.record.stage_at } else { now },
            progress: serde_json::to_string(&active.evidence).unwrap_or_default(),
            updated_at: now,
            ..active.record.clone()
        };
        let store = self.parts.store.clone().map_err(CommandError::NoStore)?;
        let steered = self.steered.get(model);
        let said = Said { who, what, reason: reason.clone() };
        let steering = steered.map(|steered| &steered.steering);
        let line = self.line(model, steered, steering, &said, String::new(), now);
        let change = Change { rollout: Some(record.clone()), steering: None, history: Some(line) };
        store.change(change).await.map_err(CommandError::Store)?;
        tracing::info!(model, what, who, reason, "a rollout");
        if is_pause {
            self.tell(&record, State::Ok, State::Suspected, &format!("pauses: {reason}"));
        }
        if let Some(active) = self.active.get_mut(model) {
            active.record = record;
        }
        Ok(())
    }

    /// A rollout is over: counted, told, shown.
    pub(super) fn ended(
        &mut self,
        record: RolloutRecord,
        metric: crate::telemetry::names::Metric,
        who: &str,
        to: State,
    ) {
        let by = if who == "gates" { "gates" } else { "hand" };
        let labels = [("model", record.model.as_str()), ("by", by)];
        self.parts.telemetry.counter(metric, &labels).increment(1);
        tracing::warn!(
            model = record.model,
            candidate = record.candidate,
            state = record.state,
            reason = record.reason,
            "a rollout has ended"
        );
        let text = match to {
            State::Recovered => format!("is promoted: {}", record.reason),
            _ => format!("is taken back: {}", record.reason),
        };
        let from = if to == State::Recovered { State::Drifted } else { State::Ok };
        self.tell(&record, from, to, &text);
        if let Some(mut active) = self.active.remove(&record.model) {
            active.record = record;
            let view = active.view();
            self.ended.insert(view.model.clone(), view);
        }
    }

    /// An event, through the outlet that drift's go through.
    fn tell(&self, record: &RolloutRecord, from: State, to: State, text: &str) {
        let evidence = self
            .active
            .get(&record.model)
            .map_or(0.0, |active| active.gates.iter().map(|gate| gate.beyond).fold(0.0, f64::max));
        (self.parts.outlet)(Event {
            id: 0,
            at: now_ms(),
            subject: Subject {
                model: record.model.clone(),
                version: record.candidate,
                digest: record.candidate_digest.clone(),
                segment: None,
            },
            feature: None,
            detector: "rollout".to_owned(),
            from,
            to,
            rows: self.active.get(&record.model).map_or(0, |active| active.view().requests),
            onset: None,
            evidence,
            threshold: 0.0,
            window: None,
            request_ids: Vec::new(),
            text: format!("{} version {} {text}", record.model, record.candidate),
        });
    }
}

impl Active {
    /// The figures in a line.
    pub(super) fn summary(&self) -> String {
        let texts = self.gates.iter().map(|gate| format!("{}: {}", gate.gate.name(), gate.text));
        texts.collect::<Vec<_>>().join("; ")
    }
}

fn ended(record: &RolloutRecord, state: &'static str, reason: &str) -> RolloutRecord {
    RolloutRecord {
        state: state.to_owned(),
        reason: reason.to_owned(),
        updated_at: now_ms(),
        ..record.clone()
    }
}

fn as_change(model: &str, record: Option<SteeringRecord>) -> SteeringChange {
    match record {
        Some(record) => SteeringChange::Set(record),
        None => SteeringChange::Withdraw { model: model.to_owned() },
    }
}
