//! The one thread that changes what serves.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::metrics::MetricsCache;
use super::reaper::Retired;
use super::reconcile::{Memory, Prepared, Reconciler};
use super::table::{IndexEntry, LiveTable};
use crate::config::Config;
use crate::error::{Code, Fault};
use crate::scheduler::Pool;
use crate::telemetry::{Telemetry, names};

/// How long the first look, and a load by name, wait for files that are being written to.
const SETTLE_AT_MOST: Duration = Duration::from_secs(10);

/// Looks asked for within this time after a file event are one.
const DEBOUNCE: Duration = Duration::from_millis(20);

pub(super) type Reply = oneshot::Sender<Result<Applied, ChangeError>>;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    Look,
    Load { model: String, reply: Reply },
    Unload { model: String, reply: Reply },
    Configure { config: Arc<Config>, dry_run: bool, reply: Reply },
}

/// What a change did, or would do.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// One line for each thing that changed, such as `digits: version 2 goes live`.
    pub changes: Vec<String>,
    /// The table's generation afterwards.
    pub generation: u64,
}

/// Why a change was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChangeError {
    /// No such model in the repository.
    #[error("the repository has no model '{0}'")]
    NoModel(String),
    /// The model cannot serve as it is.
    #[error("model '{model}' does not load: {reason}")]
    NotLoaded {
        /// The model's name.
        model: String,
        /// Why.
        reason: String,
    },
    /// The configuration would break something that it asks for.
    #[error("the configuration is refused: {}", .0.join("; "))]
    Refused(Vec<String>),
    /// The repository cannot be looked at.
    #[error("{0}")]
    Repository(String),
    /// Too many changes are waiting.
    #[error("too many changes are waiting for their turn; try again later")]
    Busy,
    /// The server is going down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl Fault for ChangeError {
    fn code(&self) -> Code {
        match self {
            Self::NoModel(_) => Code::NotFound,
            Self::NotLoaded { .. } | Self::Refused(_) => Code::InvalidArgument,
            Self::Repository(_) => Code::Internal,
            Self::Busy => Code::Overloaded,
            Self::ShuttingDown => Code::Unavailable,
        }
    }
}

/// The writer's own state.
#[derive(Debug)]
pub(super) struct Writer {
    live: Arc<ArcSwap<LiveTable>>,
    reconciler: Reconciler,
    memory: Memory,
    retired: Sender<Retired>,
    /// When something that is being written to should have settled.
    settles: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        live: Arc<ArcSwap<LiveTable>>,
        telemetry: Arc<Telemetry>,
        pool: Pool,
        retired: Sender<Retired>,
    ) -> Self {
        let reconciler = Reconciler { metrics: MetricsCache::new(telemetry), pool };
        Self { live, reconciler, memory: Memory::default(), retired, settles: None }
    }

    /// Looks until nothing is being written to any more, or for a limited time.
    pub(super) fn first_look(&mut self, config: &Arc<Config>) -> Result<(), String> {
        let prepared = self.settled(self.memory.clone(), config)?;
        self.commit(prepared, "start");
        Ok(())
    }

    /// Serves commands until every sender is gone.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let mut looked = Instant::now();
        loop {
            let poll = self.live.load().config.repository.poll;
            let due = [poll.map(|poll| looked + poll), self.settles].into_iter().flatten().min();
            let command = match due {
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => commands.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            match command {
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.look(),
                Ok(Command::Look) => {
                    // One change of a file is several events; what else has come is kept for after.
                    std::thread::sleep(DEBOUNCE);
                    let mut rest = Vec::new();
                    rest.extend(commands.try_iter().filter(|c| !matches!(c, Command::Look)));
                    self.look();
                    rest.into_iter().for_each(|command| self.obey(command));
                }
                Ok(command) => self.obey(command),
            }
            looked = Instant::now();
        }
    }

    fn obey(&mut self, command: Command) {
        // Whoever asked may have gone; the change is made all the same.
        match command {
            Command::Look => self.look(),
            Command::Load { model, reply } => drop(reply.send(self.load(&model))),
            Command::Unload { model, reply } => drop(reply.send(self.unload(&model))),
            Command::Configure { config, dry_run, reply } => {
                drop(reply.send(self.configure(&config, dry_run)));
            }
        }
    }

    fn look(&mut self) {
        let config = Arc::clone(&self.live.load().config);
        match self.prepare(self.memory.clone(), &config) {
            Ok(prepared) => drop(self.commit(prepared, "repository")),
            Err(error) => {
                self.settles = None;
                tracing::error!(error, "what serves goes on as it is");
            }
        }
    }

    fn load(&mut self, model: &str) -> Result<Applied, ChangeError> {
        let config = Arc::clone(&self.live.load().config);
        let mut memory = self.memory.clone();
        memory.want(model, &self.live.load());
        let prepared = self.settled(memory, &config).map_err(ChangeError::Repository)?;
        let entries = prepared.table.index.iter().filter(|entry| &*entry.model == model);
        let entries: Vec<IndexEntry> = entries.cloned().collect();
        let serves = prepared.table.models.contains_key(model);
        let applied = self.commit(prepared, "load");
        let trouble = entries.iter().filter(|entry| entry.is_trouble());
        let trouble: Vec<_> = trouble.map(ToString::to_string).collect();
        match (entries.is_empty(), serves, trouble.is_empty()) {
            (true, false, _) => Err(ChangeError::NoModel(model.to_owned())),
            (_, true, true) => Ok(applied),
            _ => {
                Err(ChangeError::NotLoaded { model: model.to_owned(), reason: trouble.join("; ") })
            }
        }
    }

    fn unload(&mut self, model: &str) -> Result<Applied, ChangeError> {
        let config = Arc::clone(&self.live.load().config);
        if !self.live.load().index.iter().any(|entry| &*entry.model == model) {
            return Err(ChangeError::NoModel(model.to_owned()));
        }
        let mut memory = self.memory.clone();
        memory.unload(model);
        let prepared = self.prepare(memory, &config).map_err(ChangeError::Repository)?;
        Ok(self.commit(prepared, "unload"))
    }

    fn configure(&mut self, config: &Arc<Config>, dry_run: bool) -> Result<Applied, ChangeError> {
        let prepared =
            self.settled(self.memory.clone(), config).map_err(ChangeError::Repository)?;
        let current = self.live.load_full();
        // What is wrong already is not this configuration's doing.
        let trouble = prepared.table.index.iter().filter(|entry| entry.is_trouble());
        let new = trouble.filter(|entry| !current.index.contains(entry));
        let new: Vec<_> = new.map(ToString::to_string).collect();
        if !new.is_empty() {
            return Err(ChangeError::Refused(new));
        }
        if dry_run {
            let changes = changes(&current, &prepared.table);
            return Ok(Applied { changes, generation: current.generation });
        }
        Ok(self.commit(prepared, "configuration"))
    }

    fn prepare(&self, memory: Memory, config: &Arc<Config>) -> Result<Prepared, String> {
        self.reconciler.prepare(memory, &self.live.load_full(), config)
    }

    /// Prepares again until nothing is being written to, or for a limited time.
    fn settled(&self, memory: Memory, config: &Arc<Config>) -> Result<Prepared, String> {
        let start = Instant::now();
        let mut prepared = self.prepare(memory, config)?;
        while let Some(rest) = prepared.settling
            && start.elapsed() + rest < SETTLE_AT_MOST
        {
            std::thread::sleep(rest);
            prepared = self.prepare(prepared.memory, config)?;
        }
        Ok(prepared)
    }

    /// The one place that changes what serves. Cannot fail.
    fn commit(&mut self, prepared: Prepared, trigger: &'static str) -> Applied {
        let Prepared { mut table, memory, settling } = prepared;
        self.memory = memory;
        self.settles = settling.map(|rest| Instant::now() + rest);
        let current = self.live.load_full();
        let changes = changes(&current, &table);
        let index_changed = current.index != table.index;
        if changes.is_empty() && !index_changed && Arc::ptr_eq(&current.config, &table.config) {
            return Applied { changes, generation: current.generation };
        }
        log(&current, &table, &changes, trigger);
        table.generation = current.generation + 1;
        let generation = table.generation;
        let telemetry = self.reconciler.metrics.telemetry();
        telemetry.gauge(names::LIVE, &[]).set(table.servings().count() as f64);
        let stays = |version: &Arc<super::Version>| {
            table.servings().any(|serving| Arc::ptr_eq(&serving.version, version))
        };
        let gone = current.servings().map(|serving| &serving.version);
        let versions: Vec<_> = gone.filter(|version| !stays(version)).cloned().collect();
        self.live.store(Arc::new(table));
        if !changes.is_empty() {
            telemetry.counter(names::SWAPS, &[("trigger", trigger)]).increment(1);
        }
        // The reaper outlives the writer, which holds its sender.
        drop(self.retired.send(Retired { table: current, versions }));
        Applied { changes, generation }
    }
}

/// Prepares the table of `config` as a start would.
pub(super) fn prepare_once(
    config: &Arc<Config>,
    telemetry: &Arc<Telemetry>,
    pool: Pool,
) -> Result<LiveTable, String> {
    let live = Arc::new(ArcSwap::from_pointee(LiveTable::empty(Arc::clone(config))));
    let (retired, _receiver) = std::sync::mpsc::channel();
    let writer = Writer::new(live, Arc::clone(telemetry), pool, retired);
    writer.settled(Memory::default(), config).map(|prepared| prepared.table)
}

/// What serves after and not before, and the other way round, in words.
fn changes(before: &LiveTable, after: &LiveTable) -> Vec<String> {
    let mut changes = Vec::new();
    let names = before.models.keys().chain(after.models.keys());
    let names: std::collections::BTreeSet<_> = names.collect();
    for name in names {
        let (old, new) = (before.models.get(name), after.models.get(name));
        let version = |model: Option<&super::Model>, number: u64| {
            model.and_then(|model| model.versions.get(&number)).map(|s| Arc::clone(&s.version))
        };
        let numbers = old.into_iter().chain(new).flat_map(|model| model.versions.keys().copied());
        for number in numbers.collect::<std::collections::BTreeSet<_>>() {
            match (version(old, number), version(new, number)) {
                (None, Some(version)) => {
                    changes.push(format!(
                        "{name}: version {number} goes live ({})",
                        version.loaded.digest
                    ));
                }
                (Some(_), None) => changes.push(format!("{name}: version {number} is retired")),
                (Some(old), Some(new)) if !Arc::ptr_eq(&old.loaded, &new.loaded) => {
                    changes.push(format!(
                        "{name}: version {number} is replaced ({})",
                        new.loaded.digest
                    ));
                }
                (Some(old), Some(new)) if !Arc::ptr_eq(&old, &new) => {
                    changes.push(format!("{name}: version {number} gets other settings"));
                }
                _ => {}
            }
        }
        if let (Some(old), Some(new)) = (old, new)
            && old.policy != new.policy
        {
            changes.push(format!("{name}: {}", policy_change(&old.policy, &new.policy)));
        }
    }
    changes
}

fn policy_change(old: &crate::traffic::Policy, new: &crate::traffic::Policy) -> String {
    let mut parts = Vec::new();
    if old.primary != new.primary {
        parts.push(format!("primary {} -> {}", old.primary, new.primary));
    }
    let names = old.aliases.keys().chain(new.aliases.keys());
    for alias in names.collect::<std::collections::BTreeSet<_>>() {
        let text = |version: Option<&u64>| version.map_or("none".to_owned(), u64::to_string);
        let (old, new) = (old.aliases.get(alias), new.aliases.get(alias));
        if old != new {
            parts.push(format!("alias '{alias}' {} -> {}", text(old), text(new)));
        }
    }
    parts.join(", ")
}

fn log(before: &LiveTable, after: &LiveTable, changes: &[String], trigger: &'static str) {
    for change in changes {
        tracing::info!(trigger, change, "swapped");
    }
    let new =
        after.index.iter().filter(|entry| entry.is_trouble() && !before.index.contains(entry));
    for entry in new {
        let version = entry.version.map(tracing::field::display);
        tracing::warn!(trigger, model = %entry.model, version, reason = entry.reason, "not as wished");
    }
}
