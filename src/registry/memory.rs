//! What is wished of a model, and what is remembered of its versions from one table to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::prepare::Demands;
use super::select::{Candidate, Selection, select};
use super::steer::Wanted;
use super::table::LiveTable;
use super::version::Loaded;
use crate::config;
use crate::repository::{self, Fingerprint, FoundModel, FoundVersion, Scan};
use crate::traffic::{Policy, Steering};

/// A version of a model.
pub(super) type Key = (Arc<str>, u64);

/// What is remembered from one table to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// Files that loaded and are wanted.
    pub(super) loaded: BTreeMap<Key, Arc<Loaded>>,
    /// Files that did not load.
    failed: BTreeMap<Key, Failure>,
    /// Models unloaded by request.
    pub(super) unloaded: BTreeSet<Arc<str>>,
    /// What steers models instead of their settings.
    pub(super) steered: BTreeMap<Arc<str>, Steering>,
}

#[derive(Debug, Clone)]
struct Failure {
    fingerprint: Fingerprint,
    demands: Demands,
    reason: String,
}

impl Memory {
    /// Nothing loaded yet, and these models steered.
    pub(super) fn steered(steered: BTreeMap<String, Steering>) -> Self {
        let steered = steered.into_iter().map(|(model, steering)| (model.into(), steering));
        Self { steered: steered.collect(), ..Self::default() }
    }

    /// From now on `model` is steered so, or by its settings again.
    pub(super) fn steer(&mut self, model: &str, steering: Option<Steering>) {
        match steering {
            Some(steering) => drop(self.steered.insert(model.into(), steering)),
            None => drop(self.steered.remove(model)),
        }
    }

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

    fn candidates(&self, wish: &Wish<'_>) -> BTreeMap<u64, Candidate> {
        let Wish { name, found, settings, .. } = wish;
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

    pub(super) fn record(
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
    pub(super) fn forget_all_but(&mut self, table: &LiveTable, scan: &Scan) {
        let live = |(model, version): &Key| {
            table.models.get(model).is_some_and(|model| model.versions.contains_key(version))
        };
        self.loaded.retain(|key, _| live(key));
        self.failed.retain(|(model, version), _| {
            scan.get(&**model).is_some_and(|found| found.versions.contains_key(version))
        });
    }
}

/// One model as wished.
pub(super) struct Wish<'a> {
    pub(super) name: Arc<str>,
    pub(super) found: &'a FoundModel,
    pub(super) settings: config::Model,
    pub(super) steering: Option<Steering>,
    /// The policy of the table before.
    pub(super) before: Option<Policy>,
}

impl Wish<'_> {
    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            model: &self.name,
            settings: &self.settings,
            steering: self.steering.as_ref(),
            before: self.before.as_ref(),
        }
    }

    /// Which of its versions serve.
    pub(super) fn select(&self, memory: &Memory) -> Selection {
        select(&memory.candidates(self), &self.settings.versions, &self.wanted().named())
    }
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

/// What the settings ask of a version's files.
pub(super) fn demands(settings: &config::Model, version: u64) -> Demands {
    Demands {
        digest: settings.digests.get(&version).cloned(),
        signature: settings.signature.clone(),
        labelled_outputs: settings.labels.keys().cloned().collect(),
        shapes: settings.shapes.clone(),
    }
}
