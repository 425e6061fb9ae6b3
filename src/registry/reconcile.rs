//! From what is wished to the next live table.
//!
//! The wish is the repository's folders under the configuration. [`Reconciler::prepare`] does all
//! that can fail (read, compile, check, run) and makes a complete next table beside the one that
//! serves; committing it is somebody else's single store.
//!
//! What happens to a version that does not load: it is remembered with its reason, and not tried
//! again until its files or what is asked of them change, or a load is asked for by name. What
//! served before goes on serving, whatever went wrong.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::memory::{Memory, Wish, demands};
use super::metrics::MetricsCache;
use super::prepare;
use super::select::Selection;
use super::steer::Chosen;
use super::table::{Copies, IndexEntry, LiveTable, Model, Remote, Serving, Shadow, Split, State};
use super::version::{Loaded, Version};
use crate::config::{self, Config};
use crate::protocol::rows::RowSchema;
use crate::repository::{self, Fingerprint, FoundModel, FoundVersion, Scan};
use crate::scheduler::{Executor, Limits, Pool};
use crate::stats::hash;
use crate::telemetry::names;
use crate::traffic::{Policy, Slot};

/// Rows of a batch where the cost model decides.
const BATCH: usize = 64;

/// A table that is ready to go live.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) table: LiveTable,
    pub(super) memory: Memory,
    /// Something is being written to: look again after this long.
    pub(super) settling: Option<Duration>,
}

/// Makes tables.
#[derive(Debug)]
pub(super) struct Reconciler {
    pub(super) metrics: MetricsCache,
    pub(super) pool: Pool,
}

impl Reconciler {
    /// Prepares the table that `config` and the repository ask for. Fails only where the
    /// repository cannot be looked at; a model that fails is in the new table's index.
    pub(super) fn prepare(
        &self,
        mut memory: Memory,
        current: &LiveTable,
        config: &Arc<Config>,
    ) -> Result<Prepared, String> {
        let repository = &config.repository;
        let scan = repository::scan(&repository.path, repository.settle, config::is_model_name)
            .map_err(|error| {
                format!("cannot look at repository.path {}: {error}", repository.path.display())
            })?;
        let mut index = Vec::new();
        let mut models = Vec::new();
        let mut wishes = Vec::new();
        for (name, found) in &scan {
            let name: Arc<str> = name.as_str().into();
            if memory.unloaded.contains(&name) {
                let reason = "unloaded by request; load it to serve it again".to_owned();
                index.extend(
                    found
                        .versions
                        .keys()
                        .map(|&version| entry(&name, Some(version), State::Idle, reason.clone())),
                );
                continue;
            }
            match settings(config, &name, found) {
                Ok(settings) => {
                    let steering = memory.steered.get(&name).cloned();
                    let before = current.models.get(&name).map(|model| model.policy.clone());
                    wishes.push(Wish { name, found, settings, steering, before });
                }
                Err(reason) => {
                    let kept = current.models.get(&name);
                    index.extend(kept.into_iter().flat_map(|model| {
                        let versions = model.versions.keys();
                        versions
                            .map(|&number| entry(&name, Some(number), State::Ready, String::new()))
                    }));
                    let goes_on = if kept.is_some() { "; what served before goes on" } else { "" };
                    index.push(entry(
                        &name,
                        None,
                        State::Unavailable,
                        format!("{reason}{goes_on}"),
                    ));
                    models.extend(kept.map(Model::share));
                }
            }
        }
        index.extend(absent(config, &scan));
        self.load_wanted(&mut memory, &wishes, config);
        let mut settling: Option<Duration> = None;
        for wish in &wishes {
            let selection = wish.select(&memory);
            let rest = wish.found.versions.values().filter_map(|found| match found {
                FoundVersion::Settling(rest) => Some(*rest),
                _ => None,
            });
            settling = settling.into_iter().chain(rest).min();
            let model = self.model(wish, &selection, &memory, current, config, &mut index);
            models.extend(model);
        }
        index.sort_by(|a, b| (&a.model, a.version).cmp(&(&b.model, b.version)));
        let models = models.into_iter().map(|model| (Arc::clone(&model.name), model)).collect();
        let table = LiveTable {
            config: Arc::clone(config),
            models,
            index,
            generation: current.generation + 1,
        };
        memory.forget_all_but(&table, &scan);
        Ok(Prepared { table, memory, settling })
    }

    /// Loads what the wishes select, until every selection is either loaded or has failed. What
    /// is loaded at once is loaded in parallel: at the start, the time to the first prediction
    /// is that of the slowest model and not of their sum.
    fn load_wanted(&self, memory: &mut Memory, wishes: &[Wish<'_>], config: &Config) {
        loop {
            let mut jobs: Vec<(&Wish<'_>, u64, Fingerprint)> = Vec::new();
            for wish in wishes {
                let selection = wish.select(memory);
                jobs.extend(
                    selection
                        .to_load
                        .into_iter()
                        .map(|(version, fingerprint)| (wish, version, fingerprint)),
                );
            }
            if jobs.is_empty() {
                return;
            }
            let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
            for jobs in jobs.chunks(n_threads) {
                let outcomes = self.load_all(jobs, config);
                for ((wish, version, fingerprint), outcome) in jobs.iter().zip(outcomes) {
                    memory.record(wish, *version, fingerprint.clone(), outcome);
                }
            }
        }
    }

    /// Loads `jobs` at once. One alone is loaded on this thread: memory that a thread leaves
    /// behind when it ends comes back to the allocator late, and swaps mostly load one version.
    fn load_all(
        &self,
        jobs: &[(&Wish<'_>, u64, Fingerprint)],
        config: &Config,
    ) -> Vec<Result<Loaded, String>> {
        if let [(wish, version, fingerprint)] = jobs {
            return vec![self.load(wish, *version, fingerprint, config)];
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = jobs
                .iter()
                .map(|(wish, version, fingerprint)| {
                    scope.spawn(move || self.load(wish, *version, fingerprint, config))
                })
                .collect();
            let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined
                .map(|outcome| outcome.unwrap_or_else(|_| Err("loading panicked".to_owned())))
                .collect()
        })
    }

    fn load(
        &self,
        wish: &Wish<'_>,
        version: u64,
        fingerprint: &Fingerprint,
        config: &Config,
    ) -> Result<Loaded, String> {
        let Wish { name, settings, .. } = wish;
        let repository = &config.repository;
        let demands = demands(settings, version);
        let outcome = prepare::load(
            &repository.path,
            name,
            version,
            fingerprint.clone(),
            repository.model_size,
            &demands,
        )
        .map_err(|error| error.to_string());
        let telemetry = self.metrics.telemetry();
        let label = if outcome.is_ok() { "ok" } else { "failed" };
        telemetry.counter(names::LOADS, &[("model", name), ("outcome", label)]).increment(1);
        match &outcome {
            Ok(loaded) => {
                let histogram = telemetry.histogram(names::LOAD_DURATION, &[("model", name)]);
                histogram.record_duration(loaded.took);
            }
            Err(reason) => tracing::warn!(model = %name, version, reason, "version does not load"),
        }
        outcome
    }

    /// The next table's entry for a model; nothing where no version of it can serve.
    fn model(
        &self,
        wish: &Wish<'_>,
        selection: &Selection,
        memory: &Memory,
        current: &LiveTable,
        config: &Config,
        index: &mut Vec<IndexEntry>,
    ) -> Option<Model> {
        let Wish { name, settings, .. } = wish;
        let before = current.models.get(name);
        let signature = |number: u64| {
            let loaded = memory.loaded.get(&(Arc::clone(name), number))?;
            Some(loaded.plan.signature())
        };
        let Chosen { policy, problems, unfit } = wish.wanted().choose(&selection.live, signature);
        for (&version, (state, reason)) in &selection.index {
            let unfit = unfit.iter().filter(|(number, _)| *number == version);
            let reasons = [reason].into_iter().chain(unfit.map(|(_, reason)| reason));
            let reasons: Vec<&str> =
                reasons.map(String::as_str).filter(|r| !r.is_empty()).collect();
            index.push(entry(name, Some(version), *state, reasons.join("; ")));
        }
        index.extend(problems.into_iter().map(|p| entry(name, None, State::Unavailable, p)));
        let Some(policy) = policy else {
            return keep(wish, before, index);
        };
        let versions = selection.live.iter().filter_map(|&number| {
            let loaded = memory.loaded.get(&(Arc::clone(name), number))?;
            let before = before.and_then(|model| model.versions.get(&number));
            let version = self.version(wish, number, loaded, before, config);
            let slot = policy.slot(number);
            let metrics = self.metrics.slot(name, slot);
            Some((number, Serving { version, slot, metrics }))
        });
        let versions = versions.collect();
        let copies = self.copies(wish, &policy, &versions);
        let split = (!policy.canaries.is_empty()).then(|| {
            let canaries = policy.canaries.iter().filter_map(|(n, _)| versions.get(n).cloned());
            Arc::new(Split { policy: policy.clone(), canaries: canaries.collect() })
        });
        Some(Model {
            name: Arc::clone(name),
            description: settings.description.clone(),
            owner: settings.owner.clone(),
            policy,
            versions,
            copies,
            split,
        })
    }

    /// Who gets copies; nothing where nobody does.
    fn copies(
        &self,
        wish: &Wish<'_>,
        policy: &Policy,
        versions: &BTreeMap<u64, Serving>,
    ) -> Option<Arc<Copies>> {
        let Wish { name, settings, .. } = wish;
        let traffic = &settings.traffic;
        let shadows = policy.shadows.iter().filter_map(|(number, share)| {
            let version = Arc::clone(&versions.get(number)?.version);
            let metrics = self.metrics.slot(name, Slot::Shadow);
            let dropped = self.metrics.dropped(name, &number.to_string());
            Some(Shadow { version, below: hash::sampled_below(*share), metrics, dropped })
        });
        let remotes = traffic.remote_shadows.iter().filter(|remote| remote.share > 0.0);
        let remotes = remotes.map(|settings| {
            let below = hash::sampled_below(settings.share);
            let settings = Arc::new(settings.clone());
            let mut remote = Remote { settings, below, dropped: Arc::default() };
            remote.dropped = self.metrics.dropped(name, &remote.name(name));
            remote
        });
        let copies = Copies {
            shadows: shadows.collect(),
            remotes: remotes.collect(),
            comparison: traffic.comparison.clone(),
            score: settings.monitor.score.clone(),
            metrics: self.metrics.copies(name),
        };
        (!copies.shadows.is_empty() || !copies.remotes.is_empty()).then(|| Arc::new(copies))
    }

    /// The version that serves already, where neither its files nor its settings have changed;
    /// else a new one.
    fn version(
        &self,
        wish: &Wish<'_>,
        number: u64,
        loaded: &Arc<Loaded>,
        before: Option<&Serving>,
        config: &Config,
    ) -> Arc<Version> {
        let Wish { name, settings, .. } = wish;
        let outputs = &loaded.plan.signature().outputs;
        // Those of the settings, or of the file itself.
        let of_file = |name: &str| loaded.classes.iter().find(|(output, _)| output == name);
        let labels_of = |name: &str| {
            settings.labels.get(name).or_else(|| of_file(name).map(|(_, labels)| labels)).cloned()
        };
        let labels: Vec<_> = outputs.iter().map(|spec| labels_of(&spec.name)).collect();
        let naming = super::naming::naming(loaded, &settings.monitor, &labels);
        let deadline = settings.deadline.unwrap_or(config.limits.deadline);
        let limits = Limits {
            max_in_flight: settings.max_in_flight.unwrap_or(config.limits.in_flight),
            max_batch: settings.batching.max_batch.unwrap_or(match loaded.gains_by_batches {
                true => BATCH,
                false => 0,
            }),
            max_delay: settings.batching.max_delay,
            preferred: settings.batching.preferred.clone(),
            always_batches: settings.batching.max_batch.is_some_and(|rows| rows > 1),
        };
        let before = before.filter(|serving| Arc::ptr_eq(&serving.version.loaded, loaded));
        let (recorder, unwatched) =
            super::watch::recorder(name, number, &settings.monitor, loaded, &labels, before);
        let made = (&**name, number, settings, &**loaded, labels.as_slice());
        let capture = super::recording::of(made, config, recorder.as_ref(), before);
        if let Some(Serving { version, .. }) = before
            && version.labels == labels
            && version.rows.naming() == &naming
            && version.deadline == deadline
            && *version.executor.limits() == limits
            && version.recorder.as_ref().map(Arc::as_ptr) == recorder.as_ref().map(Arc::as_ptr)
            && version.unwatched == unwatched
            && version.capture == capture
        {
            return Arc::clone(version);
        }
        // Other files are another model: their figures start from zero.
        let statistics =
            before.map(|serving| Arc::clone(&serving.version.statistics)).unwrap_or_default();
        let metrics = self.metrics.scheduler(name, Arc::clone(&statistics.executions));
        let plan: Arc<dyn crate::scheduler::Execute> = Arc::clone(&loaded.plan) as _;
        let max_batch = if limits.always_batches { limits.max_batch } else { 0 };
        let executor = Executor::new(plan, loaded.cost(), limits, metrics, self.pool.clone());
        Arc::new(Version {
            model: Arc::clone(name),
            number,
            number_text: number.to_string(),
            number_bytes: number.to_string().into(),
            digest: loaded.digest.clone().into(),
            loaded: Arc::clone(loaded),
            executor,
            statistics,
            labels,
            rows: RowSchema::new(loaded.plan.signature(), naming),
            recorder,
            capture,
            unwatched,
            deadline,
            max_batch,
        })
    }
}

/// The model as it served before, where its settings leave no version to answer: a slip in them
/// must not take a model out of service. Whoever wants that unloads it or removes its folders.
fn keep(wish: &Wish<'_>, before: Option<&Model>, index: &mut [IndexEntry]) -> Option<Model> {
    let stands = |version: &u64| wish.found.versions.contains_key(version);
    let before = before.filter(|model| model.versions.keys().any(stands))?;
    let of_model = index.iter_mut().filter(|entry| entry.model == wish.name);
    for entry in of_model {
        if entry.version.is_some_and(|version| before.versions.contains_key(&version)) {
            entry.state = State::Ready;
            "the settings leave no version to answer: what served before goes on"
                .clone_into(&mut entry.reason);
        }
    }
    Some(before.share())
}

fn settings(config: &Config, name: &str, found: &FoundModel) -> Result<config::Model, String> {
    let file = match &found.settings {
        None => None,
        Some(Err(error)) => return Err(format!("{}: {error}", repository::SETTINGS_FILE)),
        Some(Ok(text)) => Some(text.as_str()),
    };
    config.model(name, file).map_err(|errors| {
        let problems = errors.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        format!("settings ({}, [models.{name}], [defaults]): {problems}", repository::SETTINGS_FILE)
    })
}

/// Models that the configuration names and the repository does not have.
fn absent(config: &Config, scan: &Scan) -> Vec<IndexEntry> {
    let names = config.models.keys().filter(|name| !scan.contains_key(*name));
    names
        .map(|name| {
            let reason = "configured, but the repository has no folder of that name".to_owned();
            entry(&name.as_str().into(), None, State::Unavailable, reason)
        })
        .collect()
}

fn entry(model: &Arc<str>, version: Option<u64>, state: State, reason: String) -> IndexEntry {
    IndexEntry { model: Arc::clone(model), version, state, reason }
}
