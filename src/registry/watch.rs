//! Who watches a version.

use std::sync::Arc;

use super::table::Serving;
use super::version::Loaded;
use crate::config::Monitor;
use crate::monitor::verdict::Subject;
use crate::monitor::{Recorder, Watched};

/// Who watches a version: whoever did before, where nothing about that has changed; else somebody
/// new. Nobody, and perhaps why, where it is not watched: it serves all the same.
pub(super) fn recorder(
    model: &str,
    number: u64,
    settings: &Monitor,
    loaded: &Loaded,
    labels: &[Option<Vec<String>>],
    before: Option<&Serving>,
) -> (Option<Arc<Recorder>>, Option<String>) {
    if let Some(Serving { version, .. }) = before
        && let Some(recorder) = &version.recorder
        && recorder.settings() == settings
        && version.labels == labels
    {
        return (Some(Arc::clone(recorder)), None);
    }
    let baseline = match &loaded.baseline {
        Some(Ok(baseline)) => Some(Arc::clone(baseline)),
        Some(Err(reason)) => return (None, Some(reason.clone())),
        None => None,
    };
    let subject = Subject {
        model: model.to_owned(),
        version: number,
        digest: loaded.digest.clone(),
        segment: None,
    };
    let watched = Watched {
        signature: loaded.plan.signature(),
        metadata: &loaded.metadata,
        labels,
        baseline,
    };
    match Recorder::new(subject, settings.clone(), watched) {
        Ok(recorder) => (recorder.map(Arc::new), None),
        Err(reason) => {
            tracing::warn!(model, version = number, reason, "version is not watched");
            (None, Some(reason))
        }
    }
}
