//! What the columns and classes of a version are called, watched or not.

use super::version::Loaded;
use crate::config::Monitor;
use crate::monitor::baseline::{Baseline, Source};
use crate::monitor::feature::{Side, column_names, find_prediction, find_score};
use crate::protocol::rows::{Naming, ScoreKind, Scores};
use crate::tensor::{Datatype, Signature};

/// Names of features from the settings and the file, classes from `labels`, and which features the
/// baseline has seen missing.
pub(super) fn naming(
    loaded: &Loaded,
    settings: &Monitor,
    labels: &[Option<Vec<String>>],
) -> Naming {
    let signature = loaded.plan.signature();
    // Names that do not fit are told by whoever watches; here those of the file are left.
    let features = column_names(signature, settings, &loaded.metadata)
        .or_else(|_| column_names(signature, &Monitor::default(), &loaded.metadata))
        .unwrap_or_default();
    let baseline = loaded.baseline.as_ref().and_then(|baseline| baseline.as_ref().ok());
    Naming {
        features,
        missing: baseline.map(|baseline| missing(baseline, signature)).unwrap_or_default(),
        scores: scores(loaded, settings, labels),
        prediction: find_prediction(signature, settings),
    }
}

/// Columns that the baseline has seen missing, where their datatype can say so.
fn missing(baseline: &Baseline, signature: &Signature) -> Vec<(usize, usize)> {
    let features = baseline.features.iter();
    let columns = features.filter(|f| f.side == Side::Input && f.missing_share() > 0.0);
    let places = columns.filter_map(|feature| {
        let Source::Column(source) = &feature.source else { return None };
        let (name, column) = source.strip_suffix(']')?.rsplit_once('[')?;
        let input = signature.input(name)?;
        let datatype = signature.inputs[input].datatype;
        let has_missing = datatype.is_float() || datatype == Datatype::Bytes;
        has_missing.then_some((input, column.parse().ok()?))
    });
    places.collect()
}

/// The output of scores, where somebody says that it is one: the settings, the names of its
/// classes, or its own name. An embedding is of floating point as well.
fn scores(loaded: &Loaded, settings: &Monitor, labels: &[Option<Vec<String>>]) -> Option<Scores> {
    let signature = loaded.plan.signature();
    let score = find_score(signature, settings)?;
    let spec = signature.outputs.get(score.output).filter(|spec| spec.shape.len() <= 2)?;
    let classes = labels.get(score.output).cloned().flatten();
    let classes = classes.filter(|classes| classes.len() == score.n_columns);
    let name = spec.name.to_lowercase();
    let is_called = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let kind = match is_called(&["prob", "softmax"]) {
        true => ScoreKind::Probabilities,
        false => ScoreKind::Scores,
    };
    let is_named = classes.is_some() || settings.score.is_some();
    if !is_named && kind == ScoreKind::Scores && !is_called(&["score"]) {
        return None;
    }
    let codes = loaded.classes.iter().find(|(output, _)| *output == spec.name);
    let codes = codes.map(|(_, codes)| codes.clone());
    Some(Scores { output: score.output, n_columns: score.n_columns, classes, codes, kind })
}
