//! What predictions of one version are recorded for: settings, columns, redaction.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::offered::Reason;
use super::redact::{Key, Redactor};
use crate::config::{Always, Capture, Redaction};
use crate::error::Code;
use crate::stats::hash;
use crate::tensor::{Datatype, Signature, Tensor, TensorSpec};

/// Columns that one tensor is decoded to, at most.
const WIDEST: usize = 512;

/// Outlier scores of a request's rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// One for each row.
    pub rows: Vec<f32>,
    /// The score beyond which a row is an outlier.
    pub threshold: f32,
}

/// Whoever can say how unusual rows are.
pub trait Score: Send + Sync {
    /// The scores of a request's rows; nothing while there is no baseline.
    fn score(&self, inputs: &[Tensor], outputs: &[Tensor]) -> Option<Scores>;
}

/// Which version it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The model's name.
    pub model: String,
    /// The version's number.
    pub version: u64,
    /// `sha256:` and 64 hexadecimal digits over the model's file.
    pub digest: String,
    /// Name and version of the engine.
    pub engine: String,
    /// Inputs and outputs.
    pub signature: Signature,
    /// Names of the columns of each input.
    pub inputs: Vec<Vec<String>>,
    /// Names of the columns of each output.
    pub outputs: Vec<Vec<String>>,
    /// The folder that a relative path is relative to.
    pub folder: PathBuf,
    /// The header whose value splits the traffic.
    pub segment_header: Option<String>,
}

/// Why a version's predictions are not recorded although they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// A redaction's name is no feature.
    #[error("capture.redact: there is no feature '{name}'; features: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The features there are.
        known: String,
    },
    /// Texts have no buckets.
    #[error(
        "capture.redact.{name}: a bucket needs numbers, and '{name}' is of BYTES: use \"drop\" or \"hash\""
    )]
    Bucket {
        /// The feature.
        name: String,
    },
    /// There is no key to hash with.
    #[error(
        "capture.redact.{name}: a hash needs a key: set capture.hash_key_env to the name of an environment variable that holds one of 16 bytes and more"
    )]
    NoKey {
        /// The feature.
        name: String,
    },
}

/// What is recorded of one version.
pub struct Subject {
    pub(super) about: About,
    pub(super) settings: Capture,
    /// Inputs, then outputs.
    pub(super) plans: Vec<TensorPlan>,
    pub(super) is_redacted: bool,
    sampled_below: Option<u64>,
    splits: bool,
    scorer: Option<Arc<dyn Score>>,
}

/// How one tensor is written.
#[derive(Debug)]
pub(super) struct TensorPlan {
    pub(super) spec: TensorSpec,
    pub(super) redactor: Redactor,
    /// Names of its columns, where they are columns of their own.
    pub(super) decoded: Vec<String>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Subject {
    /// What `settings` want of a version. `key` is the content of the environment variable that
    /// the settings name. O(columns).
    pub fn new(
        about: About,
        settings: Capture,
        key: Option<&[u8]>,
        scorer: Option<Arc<dyn Score>>,
    ) -> Result<Self, SubjectError> {
        let key = key.filter(|key| key.len() >= Key::SHORTEST).map(Key::new).map(Arc::new);
        let splits = about.signature.is_batchable();
        let mut known: Vec<&str> = Vec::new();
        let mut taken: Vec<String> = super::names::BASE.map(str::to_owned).into();
        let mut plans = Vec::new();
        let inputs = about.signature.inputs.iter().zip(&about.inputs);
        let outputs = about.signature.outputs.iter().zip(&about.outputs);
        let sides = inputs.map(|pair| ("input", pair)).chain(outputs.map(|pair| ("output", pair)));
        for (side, (spec, names)) in sides {
            let mut redactions = Vec::new();
            let whole = settings.redact.get(&spec.name);
            known.push(&spec.name);
            for (column, name) in names.iter().enumerate() {
                known.push(name);
                if let Some(redaction) = settings.redact.get(name).or(whole) {
                    redactions
                        .push((column, check(name, *redaction, spec.datatype, key.as_ref())?));
                }
            }
            let everything = match whole {
                Some(redaction) if names.is_empty() => {
                    Some(check(&spec.name, *redaction, spec.datatype, key.as_ref())?)
                }
                _ => None,
            };
            let is_decoded = settings.decoded && splits && names.len() <= WIDEST;
            let decoded = names.iter().filter(|_| is_decoded).map(|name| {
                let mut name = name.clone();
                if taken.contains(&name) {
                    name = format!("{side}.{}.{name}", spec.name);
                }
                taken.push(name.clone());
                name
            });
            let decoded = decoded.collect();
            let redactor = Redactor::new(redactions, everything, key.clone());
            plans.push(TensorPlan { spec: spec.clone(), redactor, decoded });
        }
        if let Some(name) = settings.redact.keys().find(|name| !known.contains(&name.as_str())) {
            let shown: Vec<&str> = known.iter().take(50).copied().collect();
            let (name, known) = (name.clone(), shown.join(", "));
            return Err(SubjectError::Unknown { name, known });
        }
        Ok(Self {
            is_redacted: plans.iter().any(|plan| !plan.redactor.is_idle()),
            sampled_below: hash::sampled_below(settings.sample),
            about,
            settings,
            plans,
            splits,
            scorer,
        })
    }

    /// Which version it is.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// What is wanted.
    #[must_use]
    pub fn settings(&self) -> &Capture {
        &self.settings
    }

    /// The header whose value splits the traffic.
    #[must_use]
    pub fn segment_header(&self) -> Option<&str> {
        self.about.segment_header.as_deref()
    }

    /// Whether a request of several rows becomes as many rows of a file.
    #[must_use]
    pub fn splits(&self) -> bool {
        self.splits
    }

    /// Whether a request of that id is in the sample. The same everywhere and always.
    #[must_use]
    pub fn takes(&self, id: &[u8]) -> bool {
        self.sampled_below.is_none_or(|below| hash::hash(id) < below)
    }

    /// Why a request of that id that ended in `code` is recorded; nothing where it is not.
    #[must_use]
    pub fn reason(&self, id: &[u8], code: Code) -> Option<Reason> {
        let always = |what| self.settings.always.contains(&what);
        if code != Code::Ok && always(Always::Errors) {
            Some(Reason::Error)
        } else if self.takes(id) {
            Some(Reason::Sample)
        } else if code == Code::Ok && self.scorer.is_some() && always(Always::Outliers) {
            Some(Reason::IfOutlier)
        } else {
            None
        }
    }

    /// Whether requests on which a shadow disagrees are recorded in any case.
    #[must_use]
    pub fn wants_disagreements(&self) -> bool {
        self.settings.always.contains(&Always::Disagreements)
    }

    /// Why a request of that id is recorded on which a shadow disagrees; nothing where it is not, or
    /// is in the sample.
    #[must_use]
    pub fn disagreement(&self, id: &[u8]) -> Option<Reason> {
        (self.wants_disagreements() && !self.takes(id)).then_some(Reason::Disagreement)
    }

    pub(super) fn scorer(&self) -> Option<&Arc<dyn Score>> {
        self.scorer.as_ref()
    }
}

fn check(
    name: &str,
    redaction: Redaction,
    datatype: Datatype,
    key: Option<&Arc<Key>>,
) -> Result<Redaction, SubjectError> {
    match redaction {
        Redaction::Bucket(_) if datatype == Datatype::Bytes => {
            Err(SubjectError::Bucket { name: name.to_owned() })
        }
        Redaction::Hash if key.is_none() => Err(SubjectError::NoKey { name: name.to_owned() }),
        redaction => Ok(redaction),
    }
}
