//! The plan: tensors to columns.

use std::collections::{BTreeMap, BTreeSet};

use super::scores::{MEASURES, MOST_CLASSES, Score, find_prediction, find_score};
use super::{Feature, Kind, Side, Values};
use crate::config::{FeatureKind, Monitor};
use crate::monitor::reduce;
use crate::tensor::{Datatype, Dim, Signature, TensorSpec};

/// Columns of a tensor without names that are features each, at most; wider ones are reduced.
const WIDEST: usize = 64;

/// Which features there are and how they are taken out of tensors.
#[derive(Debug, Clone)]
pub struct FeaturePlan {
    features: Vec<Feature>,
    taken: Vec<Taken>,
    /// Sources of what is ignored.
    ignored: BTreeSet<String>,
    /// Sources of what there was no room for.
    left_out: BTreeSet<String>,
    is_batchable: bool,
    score: Option<Score>,
    prediction: Option<usize>,
}

/// What is taken of one tensor.
#[derive(Debug, Clone)]
pub(crate) struct Taken {
    pub(crate) side: Side,
    /// The tensor's position among the inputs or outputs.
    pub(crate) tensor: usize,
    /// Elements of a row; nothing where they are free.
    pub(crate) width: Option<usize>,
    pub(crate) take: Take,
}

/// How features are made of a row's elements. Features are positions in the plan.
#[derive(Debug, Clone)]
pub(crate) enum Take {
    /// Column and feature.
    Columns(Vec<(usize, usize)>),
    /// Figures of the whole row, see [`reduce`].
    Reduced(Box<[Option<usize>; reduce::FIGURES]>),
    /// Columns, and what is computed of them as scores.
    Scores { columns: Vec<(usize, usize)>, measures: [Option<usize>; MEASURES.len()] },
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// The settings name what the model does not have.
    #[error("monitor.{key}: the model has no {what} '{name}'; it has {known}")]
    Unknown {
        /// The setting.
        key: &'static str,
        /// `input`, `output` or `feature`.
        what: &'static str,
        /// What stands there.
        name: String,
        /// What would do.
        known: String,
    },
    /// There are more or fewer names than columns.
    #[error("monitor.names.{input}: expected {expected} names, one a column, got {actual}")]
    NameCount {
        /// The input.
        input: String,
        /// Its columns.
        expected: String,
        /// Names that are given.
        actual: usize,
    },
    /// Two features would have one name.
    #[error("monitor.names.{input}: two features are called '{name}'; names must differ")]
    DuplicateName {
        /// The input.
        input: String,
        /// The name.
        name: String,
    },
    /// The output is no score.
    #[error(
        "monitor.score: output '{0}' cannot be a score, which is of floating point with a fixed number of columns"
    )]
    Score(String),
}

impl FeaturePlan {
    /// The features of a version, inputs first, then outputs.
    ///
    /// `metadata` are the key-value pairs of the model file, of which `feature_names` (a JSON list
    /// or names with commas between them) names the columns of the one input that has as many.
    /// `labels` are the names of the classes, by output, where they are known.
    pub fn new(
        signature: &Signature,
        settings: &Monitor,
        metadata: &[(String, String)],
        labels: &[Option<Vec<String>>],
    ) -> Result<Self, FeatureError> {
        check(signature, settings)?;
        let names = column_names(signature, settings, metadata)?;
        let score = find_score(signature, settings);
        let prediction = find_prediction(signature, settings);
        let is_batchable =
            signature.inputs.iter().all(TensorSpec::is_batchable) && !signature.inputs.is_empty();
        let mut plan = Planner {
            settings,
            taken_names: BTreeSet::new(),
            known: BTreeSet::new(),
            ignored: BTreeSet::new(),
            drafts: Vec::new(),
        };
        for (tensor, spec) in signature.inputs.iter().enumerate() {
            let width = width(spec, is_batchable);
            plan.tensor(Side::Input, tensor, spec, width, names.get(&spec.name), None);
        }
        for (tensor, spec) in signature.outputs.iter().enumerate() {
            // An output without rows of its own has nothing to say about a row of a batch.
            if is_batchable && !spec.is_batchable() {
                continue;
            }
            let width = width(spec, is_batchable);
            let names = labels.get(tensor).and_then(Option::as_ref);
            let names = names.filter(|names| width == Some(names.len()));
            let scores = score.filter(|score| score.output == tensor && score.n_columns > 1);
            let scores = scores.map(|score| (score, prediction.is_none()));
            plan.tensor(Side::Output, tensor, spec, width, names, scores);
        }
        let unknown = settings.features.keys().find(|name| !plan.known.contains(*name));
        if let Some(name) = unknown {
            let known: Vec<&str> = plan.known.iter().map(String::as_str).take(100).collect();
            let known = known.join(", ");
            return Err(FeatureError::Unknown {
                key: "features",
                what: "feature",
                name: name.clone(),
                known,
            });
        }
        let ignored = plan.ignored;
        let (features, taken, left_out) = settle(plan.drafts, settings.max_features);
        Ok(Self { features, taken, ignored, left_out, is_batchable, score, prediction })
    }

    /// The features, inputs first, then outputs.
    #[must_use]
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// Features that are not watched since there are more than `max_features`.
    #[must_use]
    pub fn n_left_out(&self) -> usize {
        self.left_out.len()
    }

    /// Whether a source is one that the settings ignore, or that there was no room for.
    #[must_use]
    pub fn is_unwatched(&self, source: &str) -> bool {
        self.ignored.contains(source) || self.left_out.contains(source)
    }

    /// Whether the first dimension of the inputs counts rows; otherwise a request is one row.
    #[must_use]
    pub fn is_batchable(&self) -> bool {
        self.is_batchable
    }

    /// The output of scores.
    #[must_use]
    pub fn score(&self) -> Option<Score> {
        self.score
    }

    /// The position of the output that is the prediction.
    #[must_use]
    pub fn prediction(&self) -> Option<usize> {
        self.prediction
    }

    pub(crate) fn taken(&self) -> &[Taken] {
        &self.taken
    }
}

/// What settings name must be there.
fn check(signature: &Signature, settings: &Monitor) -> Result<(), FeatureError> {
    let list = |specs: &[TensorSpec]| {
        specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>().join(", ")
    };
    for (key, name) in [("score", &settings.score), ("prediction", &settings.prediction)] {
        if let Some(name) = name
            && signature.output(name).is_none()
        {
            let known = list(&signature.outputs);
            return Err(FeatureError::Unknown { key, what: "output", name: name.clone(), known });
        }
    }
    if let (Some(name), None) = (&settings.score, find_score(signature, settings)) {
        return Err(FeatureError::Score(name.clone()));
    }
    if let Some(name) = settings.names.keys().find(|name| signature.input(name).is_none()) {
        let known = list(&signature.inputs);
        return Err(FeatureError::Unknown {
            key: "names",
            what: "input",
            name: name.clone(),
            known,
        });
    }
    Ok(())
}

/// Elements of a row, where they are fixed.
fn width(spec: &TensorSpec, is_batchable: bool) -> Option<usize> {
    let skipped = usize::from(is_batchable);
    let width = spec.shape.iter().skip(skipped).copied().product::<Dim>()?;
    Some(width)
}

/// Names of the columns of inputs, from the settings and the model file.
pub fn column_names(
    signature: &Signature,
    settings: &Monitor,
    metadata: &[(String, String)],
) -> Result<BTreeMap<String, Vec<String>>, FeatureError> {
    let is_batchable = signature.inputs.iter().all(TensorSpec::is_batchable);
    let mut names = settings.names.clone();
    for (input, names) in &names {
        let spec = signature.inputs.iter().find(|spec| spec.name == *input);
        let width = spec.and_then(|spec| width(spec, is_batchable));
        if width != Some(names.len()) {
            let expected =
                width.map_or("no (its columns are not fixed)".to_owned(), |n| n.to_string());
            let (input, actual) = (input.clone(), names.len());
            return Err(FeatureError::NameCount { input, expected, actual });
        }
        let mut seen = BTreeSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(*name)) {
            let (input, name) = (input.clone(), name.clone());
            return Err(FeatureError::DuplicateName { input, name });
        }
    }
    let listed = metadata.iter().find(|(key, _)| key == "feature_names");
    if let Some((_, text)) = listed {
        let listed: Vec<String> = serde_json::from_str(text)
            .unwrap_or_else(|_| text.split(',').map(|name| name.trim().to_owned()).collect());
        let distinct: BTreeSet<&String> = listed.iter().collect();
        let mut fitting = signature
            .inputs
            .iter()
            .filter(|spec| listed.len() > 1 && width(spec, is_batchable) == Some(listed.len()));
        // A model file is whatever its exporter left there: names that do not fit are passed over.
        if let (Some(spec), None) = (fitting.next(), fitting.next())
            && distinct.len() == listed.len()
        {
            names.entry(spec.name.clone()).or_insert(listed);
        }
    }
    Ok(names)
}

/// A tensor's features before it is known which of them are kept.
struct Draft {
    side: Side,
    tensor: usize,
    width: Option<usize>,
    shape: DraftShape,
    /// Nothing for what is ignored.
    features: Vec<Option<Feature>>,
}

enum DraftShape {
    Columns,
    Reduced,
    /// So many columns, then the measures.
    Scores(usize),
}

struct Planner<'a> {
    settings: &'a Monitor,
    taken_names: BTreeSet<String>,
    /// Every name, of ignored features too.
    known: BTreeSet<String>,
    ignored: BTreeSet<String>,
    drafts: Vec<Draft>,
}

impl Planner<'_> {
    fn tensor(
        &mut self,
        side: Side,
        tensor: usize,
        spec: &TensorSpec,
        width: Option<usize>,
        names: Option<&Vec<String>>,
        scores: Option<(Score, bool)>,
    ) {
        let values = values(spec.datatype);
        let name = &spec.name;
        let column_name = |column: usize| match (names, width) {
            // The classes of scores go by their output's name as well.
            (Some(names), _) if side == Side::Output => format!("{name}_{}", names[column]),
            (Some(names), _) => names[column].clone(),
            (None, Some(1)) => name.clone(),
            (None, _) => format!("{name}_{column}"),
        };
        let mut features = Vec::new();
        let shape = match (scores, width) {
            (Some((_, wants_class)), Some(n_columns)) => {
                let n_shown = if n_columns <= MOST_CLASSES { n_columns } else { 0 };
                for column in 0..n_shown {
                    let source = format!("{name}[{column}]");
                    features.push(self.feature(side, column_name(column), source, values));
                }
                for measure in MEASURES {
                    let (values, wanted) = match measure {
                        "class" => (Values::Short, wants_class),
                        _ => (Values::Single, true),
                    };
                    let full = format!("{name}.{measure}");
                    let feature = wanted.then(|| self.feature(side, full.clone(), full, values));
                    let mut feature = feature.flatten();
                    if let (Some(feature), "class") = (&mut feature, measure) {
                        feature.kind.get_or_insert(Kind::Categorical);
                    }
                    features.push(feature);
                }
                DraftShape::Scores(n_shown)
            }
            (_, Some(n_columns))
                if n_columns <= WIDEST || (names.is_some() && side == Side::Input) =>
            {
                for column in 0..n_columns {
                    let source = format!("{name}[{column}]");
                    features.push(self.feature(side, column_name(column), source, values));
                }
                DraftShape::Columns
            }
            _ => {
                for figure in reduce::figures(spec.datatype) {
                    let full = format!("{name}.{figure}");
                    features.push(self.feature(side, full.clone(), full, Values::Single));
                }
                DraftShape::Reduced
            }
        };
        self.drafts.push(Draft { side, tensor, width, shape, features });
    }

    /// A feature, unless it is ignored. A name that is taken already gives way to the source.
    fn feature(
        &mut self,
        side: Side,
        name: String,
        source: String,
        values: Values,
    ) -> Option<Feature> {
        let mut name = name;
        if !self.taken_names.insert(name.clone()) {
            name = match side {
                Side::Output => format!("output {source}"),
                _ => format!("input {source}"),
            };
            self.taken_names.insert(name.clone());
        }
        self.known.insert(name.clone());
        let settings = self.settings.features.get(&name);
        if settings.is_some_and(|settings| settings.ignore) {
            self.ignored.insert(source);
            return None;
        }
        let kind = match settings.and_then(|settings| settings.kind) {
            Some(FeatureKind::Numeric) => Some(Kind::Numeric),
            Some(FeatureKind::Categorical) => Some(Kind::Categorical),
            None if values == Values::Boolean => Some(Kind::Categorical),
            None => None,
        };
        Some(Feature { name, side, source, values, kind })
    }
}

fn values(datatype: Datatype) -> Values {
    match datatype {
        Datatype::Bool => Values::Boolean,
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Int8 | Datatype::Int16 => Values::Short,
        Datatype::Uint32 | Datatype::Uint64 | Datatype::Int32 | Datatype::Int64 => Values::Long,
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 => Values::Single,
        Datatype::Fp64 => Values::Double,
        Datatype::Bytes => Values::Text,
    }
}

/// Keeps at most `most` features, of which outputs are given up to half: they are few, and what
/// is answered must not go unwatched because much is asked.
fn settle(drafts: Vec<Draft>, most: usize) -> (Vec<Feature>, Vec<Taken>, BTreeSet<String>) {
    let count = |side: Side| {
        let drafts = drafts.iter().filter(|draft| draft.side == side);
        drafts.flat_map(|draft| &draft.features).flatten().count()
    };
    let (n_inputs, n_outputs) = (count(Side::Input), count(Side::Output));
    let for_outputs = n_outputs.min((most / 2).max(most.saturating_sub(n_inputs)));
    let mut left = [most - for_outputs, for_outputs];
    let mut features = Vec::new();
    let mut taken = Vec::new();
    let mut left_out = BTreeSet::new();
    for draft in drafts {
        let left = &mut left[usize::from(draft.side == Side::Output)];
        let mut place = |feature: Option<Feature>| {
            let feature = feature?;
            if *left == 0 {
                left_out.insert(feature.source);
                return None;
            }
            *left -= 1;
            features.push(feature);
            Some(features.len() - 1)
        };
        let mut places: Vec<Option<usize>> = draft.features.into_iter().map(&mut place).collect();
        if places.iter().all(Option::is_none) {
            continue;
        }
        let columns = |places: &[Option<usize>]| {
            let placed = places.iter().enumerate();
            placed.filter_map(|(column, place)| Some((column, (*place)?))).collect()
        };
        let take = match draft.shape {
            DraftShape::Columns => Take::Columns(columns(&places)),
            DraftShape::Reduced => {
                let mut slots = [None; reduce::FIGURES];
                slots.iter_mut().zip(places).for_each(|(slot, place)| *slot = place);
                Take::Reduced(Box::new(slots))
            }
            DraftShape::Scores(n_shown) => {
                let mut measures = [None; MEASURES.len()];
                let rest = places.split_off(n_shown);
                measures.iter_mut().zip(rest).for_each(|(slot, place)| *slot = place);
                Take::Scores { columns: columns(&places), measures }
            }
        };
        taken.push(Taken { side: draft.side, tensor: draft.tensor, width: draft.width, take });
    }
    (features, taken, left_out)
}
