//! The one that drives rollouts: a task that looks at evidence and obeys commands, one after the
//! other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::commands::{Command, Order};
use super::evidence::{Evidence, Quantiles, Sample};
use super::gates::{self, Gate, GateReport, Said};
use super::states;
use super::view::{self, RolloutView, StateView, SteeredView};
use super::wish::{self, Recalled};
use crate::config::{Rollout, StageKind};
use crate::monitor::times::now_ms;
use crate::monitor::verdict::Event;
use crate::registry::{LiveTable, Registry};
use crate::stats::sequential::Decision;
use crate::store::{RolloutRecord, SteeringRecord, Store};
use crate::telemetry::Telemetry;
use crate::traffic::Steering;

/// How often evidence is looked at.
const TICK: Duration = Duration::from_millis(250);

/// How often the evidence of a rollout is kept: a crash loses so much of it.
const KEEP: Duration = Duration::from_secs(5);

/// How long nothing but ways back is tried after the store has failed: what waits for it must not
/// hold up an order.
const REST: Duration = Duration::from_secs(10);

/// Commands that wait, at most.
const COMMANDS: usize = 64;

/// Where evidence comes from: asked for a model, its primary and its candidate.
pub(super) type Source = Box<dyn Fn(&LiveTable, &str, u64, u64) -> Sample + Send + Sync>;

/// What the driver is made of.
pub struct Parts {
    /// What serves.
    pub registry: Registry,
    /// Where it is kept; why it is not, where that is so.
    pub store: Result<Arc<dyn Store>, String>,
    /// Metrics.
    pub telemetry: Arc<Telemetry>,
    /// What is counted of a candidate and its primary.
    pub evidence: Source,
    /// Who is told of what happens. Must not block.
    pub outlet: Box<dyn Fn(Event) + Send + Sync>,
}

/// A handle on the driver. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rollouts {
    pub(super) orders: mpsc::Sender<Order>,
    view: Arc<ArcSwap<StateView>>,
    pub(super) store: Result<Arc<dyn Store>, String>,
}

impl Rollouts {
    /// Everything as it is.
    #[must_use]
    pub fn view(&self) -> Arc<StateView> {
        self.view.load_full()
    }
}

/// One rollout that has not ended.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) record: RolloutRecord,
    pub(super) plan: Rollout,
    pub(super) evidence: Evidence,
    /// The counts that evidence is added up from; nothing right after a start.
    before: Option<Sample>,
    pub(super) gates: Vec<GateReport>,
    /// What it waits for, in words.
    waits: String,
    kept: Instant,
}

/// What steers a model, read and as kept.
#[derive(Debug, Clone)]
pub(super) struct Steered {
    pub(super) steering: Steering,
    pub(super) record: SteeringRecord,
}

/// Drives rollouts; [`Driver::run`] does not return.
pub struct Driver {
    pub(super) parts: Parts,
    pub(super) active: BTreeMap<String, Active>,
    pub(super) steered: BTreeMap<String, Steered>,
    /// The last rollout of each model that ended since the start.
    pub(super) ended: BTreeMap<String, RolloutView>,
    /// Models whose state the store may not have: written when it answers again.
    pub(super) unwritten: BTreeMap<String, Option<RolloutRecord>>,
    orders: mpsc::Receiver<Order>,
    view: Arc<ArcSwap<StateView>>,
    /// Writes on their way that nothing waits for: of which model, and whether it went well.
    pub(super) writing: Vec<(String, Option<RolloutRecord>, oneshot::Receiver<bool>)>,
    /// When the store is tried again.
    rests_until: Option<Instant>,
    /// Candidates that did not start by themselves, not tried again: model, version, digest.
    pub(super) refused: Vec<(String, u64, String)>,
}

/// Makes the driver, which takes up what was recalled.
#[must_use]
pub fn start(parts: Parts, recalled: Recalled) -> (Rollouts, Driver) {
    let (orders, received) = mpsc::channel(COMMANDS);
    let view = Arc::new(ArcSwap::from_pointee(StateView::default()));
    let rollouts = Rollouts { orders, view: Arc::clone(&view), store: parts.store.clone() };
    let shown = Arc::downgrade(&view);
    parts.telemetry.add_collector(move |out| {
        if let Some(view) = shown.upgrade() {
            view::render(&view.load(), out);
        }
    });
    let mut driver = Driver {
        parts,
        active: BTreeMap::new(),
        steered: BTreeMap::new(),
        ended: BTreeMap::new(),
        unwritten: BTreeMap::new(),
        orders: received,
        view,
        writing: Vec::new(),
        rests_until: None,
        refused: Vec::new(),
    };
    driver.take_up(recalled);
    driver.publish();
    (rollouts, driver)
}

impl Active {
    pub(super) fn new(record: RolloutRecord, plan: Rollout, evidence: Evidence) -> Self {
        let (gates, waits) = (Vec::new(), String::new());
        Self { record, plan, evidence, before: None, gates, waits, kept: Instant::now() }
    }

    pub(super) fn kind(&self) -> StageKind {
        self.plan.stages.get(self.record.stage as usize).map_or(StageKind::Full, |s| s.kind)
    }

    /// Adds what was counted since the last look.
    fn count(&mut self, now: Sample) {
        if let Some(before) = &self.before {
            let ratios = Quantiles {
                p50: self.plan.gates.p50.unwrap_or(1.0),
                p99: self.plan.gates.p99.unwrap_or(1.0),
            };
            let is_full = self.kind() == StageKind::Full;
            self.evidence.add(before, &now, is_full, ratios);
        }
        self.before = Some(now);
    }

    /// Requests of the candidate in this stage.
    fn requests(&self) -> u64 {
        match self.kind() {
            StageKind::Shadow(_) => self.evidence.pairs.requests,
            StageKind::Canary(_) | StageKind::Full => self.evidence.candidate.requests,
        }
    }

    pub(super) fn view(&self) -> RolloutView {
        let record = &self.record;
        let stage = self.plan.stages.get(record.stage as usize);
        let least = stage.map_or(0, |stage| millis(stage.time));
        RolloutView {
            id: record.id,
            model: record.model.clone(),
            candidate: record.candidate,
            candidate_digest: record.candidate_digest.clone(),
            primary: record.primary,
            primary_digest: record.primary_digest.clone(),
            state: record.state.clone(),
            stage: record.stage,
            stage_name: self.kind().to_string(),
            stages: self.plan.stages.iter().map(|stage| stage.kind.to_string()).collect(),
            started_at: record.started_at,
            stage_at: record.stage_at,
            updated_at: record.updated_at,
            requests: self.requests(),
            requests_wanted: stage.map_or(0, |stage| stage.requests),
            wait_ms: least.saturating_sub(now_ms().saturating_sub(record.stage_at)),
            gates: self.gates.clone(),
            reason: if record.reason.is_empty() {
                self.waits.clone()
            } else {
                record.reason.clone()
            },
            plan: self.plan.clone(),
            evidence: self.evidence.clone(),
        }
    }
}

/// What is to become of a rollout.
enum Next {
    Stay,
    Advance,
    Back(String),
    Abort(String),
    Pause(String),
}

impl Driver {
    fn take_up(&mut self, recalled: Recalled) {
        for record in recalled.steering {
            if let Some(steering) = recalled.steered.get(&record.model) {
                let steered = Steered { steering: steering.clone(), record };
                tracing::info!(
                    model = steered.record.model,
                    steering = wish::words(&steered.steering),
                    "steered as the store remembers"
                );
                self.steered.insert(steered.record.model.clone(), steered);
            }
        }
        for record in recalled.rollouts {
            let plan = serde_json::from_str(&record.plan);
            let evidence = serde_json::from_str(&record.progress);
            match (plan, evidence) {
                (Ok(plan), evidence) => {
                    let evidence = evidence.unwrap_or_default();
                    tracing::info!(
                        model = record.model,
                        candidate = record.candidate,
                        stage = record.stage,
                        "a rollout is taken up again"
                    );
                    let model = record.model.clone();
                    self.active.insert(model, Active::new(record, plan, evidence));
                }
                (Err(error), _) => {
                    tracing::error!(model = record.model, %error, "a rollout's plan cannot be read");
                }
            }
        }
    }

    /// Looks and obeys until every handle is gone.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                _ = ticks.tick() => self.tick().await,
            }
            self.publish();
        }
    }

    async fn tick(&mut self) {
        self.write_what_is_unwritten();
        let rests = self.rests_until.is_some_and(|until| Instant::now() < until);
        if !rests {
            self.follow_the_file().await;
        }
        let models: Vec<String> = self.active.keys().cloned().collect();
        for model in models {
            match self.look(&model) {
                Next::Stay => self.keep(&model),
                Next::Advance | Next::Pause(_) if rests => {}
                Next::Advance => self.advance(&model).await,
                Next::Back(reason) => {
                    self.end(&model, states::ROLLED_BACK, "gates", reason).await;
                }
                Next::Abort(reason) => self.end(&model, states::ABORTED, "gates", reason).await,
                Next::Pause(reason) => self.pause(&model, "gates", reason).await,
            }
        }
        if !rests {
            self.start_new_versions().await;
        }
    }

    /// The store has failed: for a while nothing waits for it.
    pub(super) fn rest(&mut self) {
        self.rests_until = Some(Instant::now() + REST);
    }

    /// Adds up evidence and decides.
    fn look(&mut self, model: &str) -> Next {
        let table = self.parts.registry.live();
        let Some(active) = self.active.get_mut(model) else { return Next::Stay };
        let (primary, candidate) = (active.record.primary, active.record.candidate);
        let sample = (self.parts.evidence)(&table, model, primary, candidate);
        if let Some(next) = changed_files(active, &sample, &table) {
            return next;
        }
        active.count(sample);
        let stage = active.record.stage as usize;
        let looked = gates::look(&active.plan, stage, &mut active.evidence);
        active.gates = looked.gates;
        let failed = active.gates.iter().filter(|gate| gate.said == Said::Fail);
        let failed: Vec<String> = failed.map(in_words).collect();
        if looked.decision == Decision::Fail {
            return Next::Back(format!("{}: {}", active.kind(), failed.join("; ")));
        }
        let Some(settings) = active.plan.stages.get(stage) else { return Next::Advance };
        let elapsed = now_ms().saturating_sub(active.record.stage_at);
        let open: Vec<&str> = active
            .gates
            .iter()
            .filter(|gate| gate.said == Said::NotYet)
            .map(|gate| gate.gate.name())
            .collect();
        let mut waits = Vec::new();
        if active.requests() < settings.requests {
            waits.push(format!("{} of {} requests", active.requests(), settings.requests));
        }
        if elapsed < millis(settings.time) {
            let left = Duration::from_millis(millis(settings.time) - elapsed);
            waits.push(format!("{} s more", left.as_secs() + 1));
        }
        if !open.is_empty() {
            waits.push(format!("gates: {}", open.join(", ")));
        }
        let is_done = looked.decision == Decision::Pass && waits.is_empty();
        active.waits = match waits.is_empty() {
            true => "every gate has passed".to_owned(),
            false => format!("waits for {}", waits.join("; ")),
        };
        if active.record.state == states::PAUSED {
            return Next::Stay;
        }
        match settings.longest {
            _ if is_done => Next::Advance,
            Some(longest) if elapsed >= millis(longest) => Next::Pause(format!(
                "{} has not decided within {} s ({}): say promote, resume or abort",
                active.kind(),
                longest.as_secs(),
                active.waits
            )),
            _ => Next::Stay,
        }
    }

    /// Keeps the evidence now and then.
    fn keep(&mut self, model: &str) {
        let Ok(store) = self.parts.store.clone() else { return };
        let Some(active) = self.active.get_mut(model) else { return };
        let is_being_written = self.writing.iter().any(|(writing, ..)| writing == model);
        if active.kept.elapsed() < KEEP || is_being_written || self.unwritten.contains_key(model) {
            return;
        }
        active.kept = Instant::now();
        let progress = serde_json::to_string(&active.evidence).unwrap_or_default();
        let (id, name) = (active.record.id, model.to_owned());
        let (done, outcome) = oneshot::channel();
        self.writing.push((model.to_owned(), None, outcome));
        // Not waited for: a store that is slow must not hold up an order.
        drop(Handle::current().spawn(async move {
            let kept = store.progress(id, progress).await;
            if let Err(error) = &kept {
                tracing::warn!(model = name, %error, "the evidence of a rollout is not kept");
            }
            // Evidence is kept again soon: whatever came of it is well.
            let _ = done.send(true);
        }));
    }

    /// Shows what is.
    fn publish(&self) {
        let active = self.active.values().map(Active::view);
        let is_over = |view: &&RolloutView| !self.active.contains_key(&view.model);
        let ended = self.ended.values().filter(is_over).cloned();
        let steered = self.steered.values().map(|steered| SteeredView {
            model: steered.record.model.clone(),
            text: wish::words(&steered.steering),
            steering: steered.steering.clone(),
            since: steered.record.since,
            wish: steered.record.wish.clone(),
        });
        self.view.store(Arc::new(StateView {
            trouble: self.parts.store.as_ref().err().cloned(),
            rollouts: active.chain(ended).collect(),
            steered: steered.collect(),
        }));
    }

    async fn obey(&mut self, order: Order) {
        let Order { model, command, who, reason, reply } = order;
        let done = match self.parts.store.clone() {
            Err(reason) => Err(super::CommandError::NoStore(reason)),
            Ok(_) => self.command(&model, command, &who, &reason).await,
        };
        // Whoever asked may have gone; the change is made all the same.
        drop(reply.send(done));
    }

    async fn command(
        &mut self,
        model: &str,
        command: Command,
        who: &str,
        reason: &str,
    ) -> Result<super::Done, super::CommandError> {
        match command {
            Command::Start { candidate } => self.begin(model, candidate, who, reason).await,
            Command::Pause => self.ask_pause(model, who, reason).await,
            Command::Resume => self.ask_resume(model, who, reason).await,
            Command::Abort => self.ask_abort(model, who, reason).await,
            Command::Promote { version } => self.ask_promote(model, version, who, reason).await,
            Command::Rollback => self.ask_rollback(model, who, reason).await,
            Command::Release => self.ask_release(model, who, reason).await,
        }
    }
}

/// Whether the rollout cannot go on, since its versions are not what they were.
fn changed_files(active: &mut Active, sample: &Sample, table: &LiveTable) -> Option<Next> {
    let record = &mut active.record;
    for (what, number, digest, side) in [
        ("candidate", record.candidate, &mut record.candidate_digest, &sample.candidate),
        ("primary", record.primary, &mut record.primary_digest, &sample.primary),
    ] {
        let Some(side) = side else {
            let entry = table
                .index
                .iter()
                .find(|entry| *entry.model == record.model && entry.version == Some(number));
            if entry.is_some_and(|entry| entry.state == crate::registry::State::Loading) {
                return Some(Next::Stay);
            }
            let why = entry.map_or("it is not in the repository", |entry| entry.reason.as_str());
            return Some(Next::Abort(format!(
                "the {what}, version {number}, does not serve any more: {why}"
            )));
        };
        if digest.is_empty() {
            digest.clone_from(&side.digest);
        } else if *digest != side.digest {
            return Some(Next::Abort(format!(
                "the {what}, version {number}, is another file now: {} instead of {digest}",
                side.digest
            )));
        }
    }
    None
}

/// A gate's finding with its evidence.
fn in_words(gate: &GateReport) -> String {
    let GateReport { gate, text, beyond, fails_at, .. } = gate;
    match gate {
        Gate::Drift => format!("{}: {text}", gate.name()),
        _ => format!("{}: {text} (evidence {beyond:.1}, {fails_at:.1} fails)", gate.name()),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
