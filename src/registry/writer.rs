//! The one thread that changes what serves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::memory::Memory;
use super::metrics::MetricsCache;
use super::reaper::Retired;
use super::reconcile::{Prepared, Reconciler};
use super::table::{IndexEntry, LiveTable};
use super::words;
use crate::config::Config;
use crate::error::{Code, Fault};
use crate::scheduler::Pool;
use crate::telemetry::{Telemetry, names};
use crate::traffic::Steering;

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
    Steer { model: String, steering: Option<Steering>, reply: Reply },
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
    /// The steering makes no sense, or its versions do not go together.
    #[error("model '{model}' is not steered: {reason}")]
    NotSteered {
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
            Self::NotLoaded { .. } | Self::NotSteered { .. } | Self::Refused(_) => {
                Code::InvalidArgument
            }
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
    pub(super) fn first_look(
        &mut self,
        config: &Arc<Config>,
        steered: BTreeMap<String, Steering>,
    ) -> Result<(), String> {
        let prepared = self.settled(Memory::steered(steered), config)?;
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
            Command::Steer { model, steering, reply } => {
                drop(reply.send(self.steer(&model, steering)));
            }
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

    fn steer(&mut self, model: &str, steering: Option<Steering>) -> Result<Applied, ChangeError> {
        let refused = |reason: String| ChangeError::NotSteered { model: model.to_owned(), reason };
        steering.as_ref().map_or(Ok(()), Steering::check).map_err(refused)?;
        let current = self.live.load_full();
        if steering.is_some() && !current.index.iter().any(|entry| &*entry.model == model) {
            return Err(ChangeError::NoModel(model.to_owned()));
        }
        let mut memory = self.memory.clone();
        memory.steer(model, steering.clone());
        let config = Arc::clone(&current.config);
        let mut prepared = self.prepare(memory, &config).map_err(ChangeError::Repository)?;
        if let Some(steering) = &steering {
            // What is being written to is worth a wait only if it is what is asked for.
            if prepared.settling.is_some() && lacking(&prepared.table, model, steering).is_some() {
                prepared =
                    self.settled(prepared.memory, &config).map_err(ChangeError::Repository)?;
            }
            if let Some(reason) = lacking(&prepared.table, model, steering) {
                return Err(refused(reason));
            }
        }
        Ok(self.commit(prepared, "steering"))
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
            let mut changes = words::changes(&current, &prepared.table);
            changes.extend(words::steered(&prepared.table));
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
        let changes = words::changes(&current, &table);
        let index_changed = current.index != table.index;
        if changes.is_empty() && !index_changed && Arc::ptr_eq(&current.config, &table.config) {
            return Applied { changes, generation: current.generation };
        }
        words::log(&current, &table, &changes, trigger);
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

/// What a table lacks of what `steering` asks for; nothing where it has everything.
fn lacking(table: &LiveTable, model: &str, steering: &Steering) -> Option<String> {
    let reasons = |number: Option<u64>| {
        let entries = table.index.iter().filter(|entry| &*entry.model == model);
        let entries = entries.filter(|e| number.is_none() || e.version == number);
        entries.map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let Some(serving) = table.models.get(model) else { return Some(reasons(None)) };
    let has = |list: &[(u64, f64)], (number, share): &(u64, f64)| {
        *share <= 0.0 || list.iter().any(|(other, _)| other == number)
    };
    let policy = &serving.policy;
    let versions = steering.versions().filter(|n| !serving.versions.contains_key(n));
    let canaries = steering.canaries.iter().filter(|pair| !has(&policy.canaries, pair));
    let shadows = steering.shadows.iter().filter(|pair| !has(&policy.shadows, pair));
    let missing = versions.chain(canaries.chain(shadows).map(|(number, _)| *number)).next()?;
    Some(reasons(Some(missing)))
}
