//! The live table: everything that a request needs to find who answers it, in one value.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::metrics::{CopyMetrics, SlotMetrics};
use super::version::Version;
use crate::config::{Comparison, Config, RemoteShadow};
use crate::error::{Code, Fault};
use crate::traffic::{Policy, Slot};

/// What serves at one moment. Replaced as a whole, never changed.
#[derive(Debug)]
pub struct LiveTable {
    /// The configuration that it was made under.
    pub config: Arc<Config>,
    /// Models with at least one live version, by name.
    pub models: HashMap<Arc<str>, Model>,
    /// Every version known, live or not, and why not: sorted by model and version.
    pub index: Vec<IndexEntry>,
    /// Counts the tables since the start.
    pub generation: u64,
}

/// One model that serves.
#[derive(Debug)]
pub struct Model {
    /// Its name.
    pub name: Arc<str>,
    /// What it is for.
    pub description: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Which version answers.
    pub policy: Policy,
    /// The live versions by number: never empty, and the policy's primary is one of them.
    pub versions: BTreeMap<u64, Serving>,
    /// Who gets copies of what the primary answers; nothing where nobody does.
    pub copies: Option<Arc<Copies>>,
    /// Who answers requests that name no version; nothing where the primary answers all of them.
    pub split: Option<Arc<Split>>,
}

/// Who gets copies of what a model's primary answers.
#[derive(Debug)]
pub struct Copies {
    /// Versions of the same model.
    pub shadows: Vec<Shadow>,
    /// Candidates on other servers.
    pub remotes: Vec<Remote>,
    /// How answers are compared.
    pub comparison: Comparison,
    /// The output that the settings name as the scores.
    pub score: Option<String>,
    /// What becomes of copies.
    pub metrics: CopyMetrics,
}

/// A candidate on another server.
#[derive(Debug)]
pub struct Remote {
    /// Where it is.
    pub settings: Arc<RemoteShadow>,
    /// The bound of the hashes of ids that are taken; all where there is none.
    pub below: Option<u64>,
    /// Copies that there was no room for.
    pub dropped: Arc<AtomicU64>,
}

impl Remote {
    /// What the candidate is called: its address.
    #[must_use]
    pub fn name(&self, model: &str) -> String {
        let RemoteShadow { url, model: other, version, .. } = &*self.settings;
        let model = other.as_deref().unwrap_or(model);
        match version {
            Some(version) => format!("{url}/v2/models/{model}/versions/{version}"),
            None => format!("{url}/v2/models/{model}"),
        }
    }
}

/// A version that gets copies.
#[derive(Debug)]
pub struct Shadow {
    /// The version.
    pub version: Arc<Version>,
    /// The bound of the hashes of ids that are taken; all where there is none.
    pub below: Option<u64>,
    /// Where its runs are counted.
    pub metrics: Arc<SlotMetrics>,
    /// Copies that there was no room for.
    pub dropped: Arc<AtomicU64>,
}

/// Who may answer requests that name no version.
#[derive(Debug)]
pub struct Split {
    /// Who gets which key.
    pub policy: Policy,
    /// The canaries that serve.
    pub canaries: Vec<Serving>,
}

impl Split {
    /// The canary that answers a request with that key; nothing where the primary does.
    #[must_use]
    pub fn choose(&self, key: &[u8]) -> Option<&Serving> {
        let number = self.policy.split(key);
        self.canaries.iter().find(|serving| serving.version.number == number)
    }
}

/// Who answers a request, and what else its model does with it.
#[derive(Debug)]
pub struct Route<'a> {
    /// The version that was named, or the primary.
    pub serving: &'a Serving,
    /// Who may answer in its place.
    pub split: Option<&'a Arc<Split>>,
    /// Who gets copies.
    pub copies: Option<&'a Arc<Copies>>,
}

impl Model {
    /// The same model for another table.
    pub(super) fn share(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            description: self.description.clone(),
            owner: self.owner.clone(),
            policy: self.policy.clone(),
            versions: self.versions.clone(),
            copies: self.copies.clone(),
            split: self.split.clone(),
        }
    }
}

/// A live version in its slot.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The version.
    pub version: Arc<Version>,
    /// What it is to its model.
    pub slot: Slot,
    /// Where its requests are counted.
    pub metrics: Arc<SlotMetrics>,
}

/// A version's state, as the repository index tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The model's name.
    pub model: Arc<str>,
    /// The version's number; nothing where the trouble is the model's.
    pub version: Option<u64>,
    /// Whether it serves.
    pub state: State,
    /// Why it does not, or what is wrong although it does.
    pub reason: String,
}

/// Whether a version serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It serves.
    Ready,
    /// It is being written to, and is loaded when it is left alone.
    Loading,
    /// It should serve and does not.
    Unavailable,
    /// It is not asked to serve.
    Idle,
}

impl IndexEntry {
    /// True where something is not as wished: a version that should serve does not, or serves
    /// although something is wrong.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        match self.state {
            State::Unavailable => true,
            State::Ready => !self.reason.is_empty(),
            State::Loading | State::Idle => false,
        }
    }
}

impl std::fmt::Display for IndexEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.model)?;
        if let Some(version) = self.version {
            write!(f, " version {version}")?;
        }
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}

impl State {
    /// The name in the repository index.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "READY",
            Self::Loading => "LOADING",
            // The protocol knows three states.
            Self::Unavailable | Self::Idle => "UNAVAILABLE",
        }
    }
}

/// Why nobody answers a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// There is no model of that name.
    #[error("model '{model}' is not known; {}", known(.models))]
    NoModel {
        /// The name asked for.
        model: String,
        /// The names there are.
        models: Vec<String>,
    },
    /// The model is known, and no version of it is live.
    #[error("model '{model}' has no version that serves: {reason}")]
    NotServing {
        /// The name asked for.
        model: String,
        /// Why.
        reason: String,
    },
    /// The version is neither a live number nor an alias.
    #[error("model '{model}' has no version '{version}' that serves; {known}")]
    NoVersion {
        /// The name asked for.
        model: String,
        /// The version or alias asked for.
        version: String,
        /// Versions and aliases there are.
        known: String,
    },
}

impl Fault for ResolveError {
    fn code(&self) -> Code {
        match self {
            Self::NoModel { .. } | Self::NoVersion { .. } => Code::NotFound,
            Self::NotServing { .. } => Code::Unavailable,
        }
    }
}

fn known(models: &[String]) -> String {
    if models.is_empty() {
        return "no model serves".to_owned();
    }
    format!("models that serve: {}", models.join(", "))
}

impl LiveTable {
    /// The table before anything was looked at.
    #[must_use]
    pub fn empty(config: Arc<Config>) -> Self {
        Self { config, models: HashMap::new(), index: Vec::new(), generation: 0 }
    }

    /// Who answers a request for `model`, in the version or alias `wanted`.
    pub fn resolve(&self, model: &str, wanted: Option<&str>) -> Result<&Serving, ResolveError> {
        let found = self.model(model)?;
        let number = found.policy.choose(wanted);
        number.and_then(|number| found.versions.get(&number)).ok_or_else(|| {
            let wanted = wanted.unwrap_or_default().to_owned();
            let versions = found.versions.keys().map(u64::to_string);
            let aliases = found.policy.aliases.keys().cloned();
            let known = format!(
                "versions that serve: {}",
                versions.chain(aliases).collect::<Vec<_>>().join(", ")
            );
            ResolveError::NoVersion { model: model.to_owned(), version: wanted, known }
        })
    }

    /// Who answers a request for `model`, in the version or alias `wanted`: who names a version gets
    /// that one, and nobody gets a copy.
    pub fn route(&self, model: &str, wanted: Option<&str>) -> Result<Route<'_>, ResolveError> {
        let serving = self.resolve(model, wanted)?;
        let of_model = if wanted.is_some() { None } else { self.models.get(model) };
        Ok(Route {
            serving,
            split: of_model.and_then(|model| model.split.as_ref()),
            copies: of_model.and_then(|model| model.copies.as_ref()),
        })
    }

    /// The model of that name.
    pub fn model(&self, model: &str) -> Result<&Model, ResolveError> {
        self.models.get(model).ok_or_else(|| {
            let mut entries = self.index.iter().filter(|entry| &*entry.model == model).peekable();
            if entries.peek().is_some() {
                let reasons = entries.map(|entry| match entry.version {
                    Some(version) => format!("version {version}: {}", entry.reason),
                    None => entry.reason.clone(),
                });
                let reason = reasons.collect::<Vec<_>>().join("; ");
                return ResolveError::NotServing { model: model.to_owned(), reason };
            }
            let mut models: Vec<_> = self.models.keys().map(ToString::to_string).collect();
            models.sort_unstable();
            ResolveError::NoModel { model: model.to_owned(), models }
        })
    }

    /// All live versions, in no particular order.
    pub fn servings(&self) -> impl Iterator<Item = &Serving> {
        self.models.values().flat_map(|model| model.versions.values())
    }
}
