//! From what is wished to the next live table.
//!
//! The wish is the repository's folders under the configuration. [`Reconciler::prepare`] does all
//! that can fail (read, compile, check, run) and makes a complete next table beside the one that
//! serves; committing it is somebody else's single store.
//!
//! What happens to a version that does not load: it is remembered with its reason, and not tried
//! again until its files or what is asked of them change, or a load is asked for by name. What
//! served before goes on serving, whatever went wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::metrics::MetricsCache;
use super::prepare::{self, Demands};
use super::select::{Candidate, Selection, select};
use super::table::{IndexEntry, LiveTable, Model, Serving, State};
use super::version::{Loaded, Version};
use crate::config::{self, Config};
use crate::repository::{self, Fingerprint, FoundModel, FoundVersion, Scan};
use crate::scheduler::{Executor, Limits, Pool};
use crate::telemetry::names;

/// A version of a model.
pub(super) type Key = (Arc<str>, u64);

/// Rows of a batch where the cost model decides.
const BATCH: usize = 32;

/// What is remembered from one table to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// Files that loaded and are wanted.
    loaded: BTreeMap<Key, Arc<Loaded>>,
    /// Files that did not load.
    failed: BTreeMap<Key, Failure>,
    /// Models unloaded by request.
    unloaded: BTreeSet<Arc<str>>,
}

#[derive(Debug, Clone)]
struct Failure {
    fingerprint: Fingerprint,
    demands: Demands,
    reason: String,
}

impl Memory {
    /// Forgets what keeps `model` from being loaded, and its versions in quarantine, so that they
    /// are loaded anew.
    pub(super) fn want(&mut self, model: &str, live: &LiveTable) {
        self.unloaded.remove(model);
        let serving = live.models.get(model).into_iter().flat_map(|model| &model.versions);
        let broken: BTreeSet<u64> = serving
            .filter(|(_, serving)| serving.version.executor.is_quarantined())
            .map(|(&number, _)| number)
            .collect();
        self.loaded.retain(|(name, number), _| &**name != model || !broken.contains(number));
        self.failed.retain(|(name, _), _| &**name != model);
    }

    /// Takes `model` out of service until it is wanted again.
    pub(super) fn unload(&mut self, model: &str) {
        self.unloaded.insert(model.into());
    }
}

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

/// One model as wished.
struct Wish<'a> {
    name: Arc<str>,
    found: &'a FoundModel,
    settings: config::Model,
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
                Ok(settings) => wishes.push(Wish { name, found, settings }),
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
            let selection = select(&memory.candidates(wish), &wish.settings.versions);
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
                let selection = select(&memory.candidates(wish), &wish.settings.versions);
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
        for (&version, (state, reason)) in &selection.index {
            index.push(entry(name, Some(version), *state, reason.clone()));
        }
        let (policy, problems) =
            super::select::policy(settings, &selection.live, before.map(|model| &model.policy));
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
        Some(Model {
            name: Arc::clone(name),
            description: settings.description.clone(),
            owner: settings.owner.clone(),
            policy,
            versions,
        })
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
            recorder,
            capture,
            unwatched,
            deadline,
            max_batch,
        })
    }
}

impl Memory {
    fn candidates(&self, wish: &Wish<'_>) -> BTreeMap<u64, Candidate> {
        let Wish { name, found, settings } = wish;
        let candidate = |(&version, found): (&u64, &FoundVersion)| {
            let key = (Arc::clone(name), version);
            let demands = demands(settings, version);
            let loaded = self.loaded.get(&key);
            let failure = self.failed.get(&key).map(|failure| {
                let same = failure.demands == demands;
                (failure, same)
            });
            let candidate = match (loaded, found) {
                (Some(loaded), FoundVersion::Settled(now)) if loaded.fingerprint == *now => {
                    match demands.check(&loaded.digest, loaded.plan.signature()) {
                        Ok(()) => Candidate::Loaded { note: String::new() },
                        Err(error) => Candidate::Loaded {
                            note: format!("{error}; what served before goes on"),
                        },
                    }
                }
                (loaded, FoundVersion::Settled(now)) => match (failure, loaded) {
                    (Some((failure, true)), None) if failure.fingerprint == *now => {
                        Candidate::Failed { reason: failure.reason.clone() }
                    }
                    (Some((failure, true)), Some(_)) if failure.fingerprint == *now => {
                        Candidate::Loaded {
                            note: format!(
                                "its new files do not load: {}; what served before goes on",
                                failure.reason
                            ),
                        }
                    }
                    _ => Candidate::Loadable(now.clone()),
                },
                (Some(_), other) => Candidate::Loaded { note: trouble(other) },
                (None, FoundVersion::Settling(_)) => Candidate::Settling,
                (None, other) => Candidate::Failed { reason: trouble(other) },
            };
            (version, candidate)
        };
        found.versions.iter().map(candidate).collect()
    }

    fn record(
        &mut self,
        wish: &Wish<'_>,
        version: u64,
        fingerprint: Fingerprint,
        outcome: Result<Loaded, String>,
    ) {
        let key = (Arc::clone(&wish.name), version);
        match outcome {
            Ok(loaded) => {
                self.failed.remove(&key);
                self.loaded.insert(key, Arc::new(loaded));
            }
            Err(reason) => {
                let demands = demands(&wish.settings, version);
                self.failed.insert(key, Failure { fingerprint, demands, reason });
            }
        }
    }

    /// Drops what neither serves nor stands in the repository.
    fn forget_all_but(&mut self, table: &LiveTable, scan: &Scan) {
        let live = |(model, version): &Key| {
            table.models.get(model).is_some_and(|model| model.versions.contains_key(version))
        };
        self.loaded.retain(|key, _| live(key));
        self.failed.retain(|(model, version), _| {
            scan.get(&**model).is_some_and(|found| found.versions.contains_key(version))
        });
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

fn trouble(found: &FoundVersion) -> String {
    match found {
        FoundVersion::Settled(_) => String::new(),
        FoundVersion::Settling(_) => "its files are being written to".to_owned(),
        FoundVersion::Missing => {
            format!(
                "{} is missing; remove the folder to retire the version",
                repository::MODEL_FILE
            )
        }
        FoundVersion::Unreadable(error) => error.clone(),
    }
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

fn demands(settings: &config::Model, version: u64) -> Demands {
    Demands {
        digest: settings.digests.get(&version).cloned(),
        signature: settings.signature.clone(),
        labelled_outputs: settings.labels.keys().cloned().collect(),
        shapes: settings.shapes.clone(),
    }
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
