//! What is recorded of a version's predictions.

use std::path::Path;
use std::sync::Arc;

use super::table::Serving;
use super::version::Loaded;
use crate::capture::{About, Score, Scores, Subject};
use crate::config::{self, Config};
use crate::engine::ENGINE;
use crate::monitor::Recorder;
use crate::monitor::feature::column_names;
use crate::tensor::{Dim, Signature, Tensor, TensorSpec};

/// Columns of a tensor that have names, at most: of a wider one, only the whole has.
const WIDEST: usize = 4096;

struct Scorer(Arc<Recorder>);

impl Score for Scorer {
    fn score(&self, inputs: &[Tensor], outputs: &[Tensor]) -> Option<Scores> {
        let (rows, threshold) = self.0.outlier_scores(inputs, outputs)?;
        Some(Scores { rows, threshold })
    }
}

/// What is recorded of a version.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// Nothing where nothing is.
    pub subject: Option<Arc<Subject>>,
    /// Why nothing is although it should be.
    pub reason: Option<String>,
}

impl PartialEq for Recording {
    /// Whether it is the same and not only alike.
    fn eq(&self, other: &Self) -> bool {
        let subject = |recording: &Self| recording.subject.as_ref().map(Arc::as_ptr);
        subject(self) == subject(other) && self.reason == other.reason
    }
}

/// Model, version, settings, what was loaded, names of classes.
type Made<'a> = (&'a str, u64, &'a config::Model, &'a Loaded, &'a [Option<Vec<String>>]);

/// What is recorded of a version: what was before, where nothing about that has changed. Where that
/// cannot be, the version serves all the same.
pub(super) fn of(
    made: Made<'_>,
    config: &Config,
    recorder: Option<&Arc<Recorder>>,
    before: Option<&Serving>,
) -> Recording {
    let (model, version, settings, ..) = made;
    if !settings.capture.enabled {
        return Recording::default();
    }
    let old = before
        .map(|serving| &serving.version)
        .filter(|version| version.recorder.as_ref().map(Arc::as_ptr) == recorder.map(Arc::as_ptr));
    let about = about(made, &config.folder, recorder);
    if let Some(version) = old
        && let Some(subject) = &version.capture.subject
        && *subject.settings() == settings.capture
        && *subject.about() == about
    {
        return version.capture.clone();
    }
    let key = config.capture.hash_key_env.as_ref().and_then(std::env::var_os);
    let key = key.as_ref().map(|key| key.as_encoded_bytes());
    let scorer = recorder.map(|recorder| Arc::new(Scorer(Arc::clone(recorder))) as Arc<dyn Score>);
    match Subject::new(about, settings.capture.clone(), key, scorer) {
        Ok(subject) => Recording { subject: Some(Arc::new(subject)), reason: None },
        Err(error) => {
            let reason = error.to_string();
            if old.is_none_or(|old| old.capture.reason.as_ref() != Some(&reason)) {
                tracing::warn!(model, version, reason, "version is not recorded");
            }
            Recording { subject: None, reason: Some(reason) }
        }
    }
}

fn about(
    (model, version, settings, loaded, labels): Made<'_>,
    folder: &Path,
    recorder: Option<&Arc<Recorder>>,
) -> About {
    let signature = loaded.plan.signature();
    let (inputs, outputs) = columns(signature, &settings.monitor, &loaded.metadata, labels);
    About {
        model: model.to_owned(),
        version,
        digest: loaded.digest.clone(),
        engine: ENGINE.clone(),
        signature: signature.clone(),
        inputs,
        outputs,
        folder: folder.to_owned(),
        segment_header: recorder.and_then(|r| r.segment_header()).map(str::to_owned),
    }
}

/// Names of the columns of all inputs and outputs, as the monitor calls its features.
fn columns(
    signature: &Signature,
    monitor: &config::Monitor,
    metadata: &[(String, String)],
    labels: &[Option<Vec<String>>],
) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let skips = usize::from(signature.inputs.iter().all(TensorSpec::is_batchable));
    let width = |spec: &TensorSpec| {
        let width = spec.shape.iter().skip(skips).copied().product::<Dim>();
        width.filter(|width| *width <= WIDEST)
    };
    let numbered = |spec: &TensorSpec| match width(spec) {
        None => Vec::new(),
        Some(1) => vec![spec.name.clone()],
        Some(n) => (0..n).map(|column| format!("{}_{column}", spec.name)).collect(),
    };
    // Where the settings' names do not fit, the version is not watched, which says so.
    let named = column_names(signature, monitor, metadata).unwrap_or_default();
    let inputs = signature
        .inputs
        .iter()
        .map(|spec| named.get(&spec.name).cloned().unwrap_or_else(|| numbered(spec)));
    let outputs = signature.outputs.iter().enumerate().map(|(at, spec)| {
        let labels = labels.get(at).and_then(Option::as_ref);
        match labels.filter(|labels| width(spec) == Some(labels.len())) {
            Some(labels) => labels.iter().map(|label| format!("{}_{label}", spec.name)).collect(),
            None => numbered(spec),
        }
    });
    (inputs.collect(), outputs.collect())
}
