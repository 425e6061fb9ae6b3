//! What a version's rows are called.

use std::collections::{BTreeMap, HashMap};

use crate::error::nearest;
use crate::tensor::{Dim, Signature, TensorSpec};

/// Keys that an error lists.
const MOST_LISTED: usize = 12;

/// Elements of an input's row that have keys of their own, at most.
const MOST_ELEMENTS: usize = 4096;

/// What is known of a version beside its signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Naming {
    /// Names of the features of an input, one an element of a row.
    pub features: BTreeMap<String, Vec<String>>,
    /// Columns that may be missing, by input and element.
    pub missing: Vec<(usize, usize)>,
    /// The output of scores, where its columns have names or it is one.
    pub scores: Option<Scores>,
    /// The position of the output that is the prediction.
    pub prediction: Option<usize>,
}

/// The output that says how likely the classes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scores {
    /// Its position.
    pub output: usize,
    /// Its columns: one where it is the score of the second of two classes.
    pub n_columns: usize,
    /// What the classes are called; their positions where nobody says.
    pub classes: Option<Vec<String>>,
    /// What the model itself calls them, where its file says: what its prediction output holds.
    pub codes: Option<Vec<String>>,
    /// What the scores are.
    pub kind: ScoreKind,
}

/// Whether scores are probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreKind {
    /// They are, by the output's name.
    Probabilities,
    /// Nothing says so.
    Scores,
}

/// Which keys fill which elements, and how an answer's rows are written.
#[derive(Debug)]
pub struct RowSchema {
    pub(in crate::protocol) inputs: Vec<InputRow>,
    /// Whether a request is one row, since the inputs' first dimension does not count rows.
    pub(in crate::protocol) is_whole: bool,
    keys: HashMap<String, Key>,
    naming: Naming,
}

/// A row of an input.
#[derive(Debug)]
pub(in crate::protocol) struct InputRow {
    pub(in crate::protocol) spec: TensorSpec,
    /// The dimensions of a row.
    pub(in crate::protocol) dims: Vec<Dim>,
    /// Elements of a row, where they are fixed.
    pub(in crate::protocol) width: Option<usize>,
    /// Names of its elements, for messages.
    pub(in crate::protocol) names: Option<Vec<String>>,
    /// Elements that may be missing; empty where elements have no keys of their own.
    pub(in crate::protocol) may_be_missing: Vec<bool>,
}

/// What a key fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) enum Key {
    /// All elements of an input's row.
    Input(usize),
    /// One of them.
    Element {
        /// The input.
        input: usize,
        /// The element.
        element: usize,
    },
}

impl RowSchema {
    /// The schema of a version. Names of features that fit no input are passed over.
    #[must_use]
    pub fn new(signature: &Signature, naming: Naming) -> Self {
        let is_whole = !signature.inputs.iter().all(TensorSpec::is_batchable);
        let mut keys = HashMap::new();
        let mut inputs = Vec::new();
        for (input, spec) in signature.inputs.iter().enumerate() {
            let dims = spec.shape.get(usize::from(!is_whole)..).unwrap_or_default().to_vec();
            let width = dims.iter().copied().product::<Dim>();
            let names = naming.features.get(&spec.name).filter(|names| width == Some(names.len()));
            let names = names.filter(|names| names.len() <= MOST_ELEMENTS);
            let mut may_be_missing =
                vec![false; width.filter(|&width| width <= MOST_ELEMENTS).unwrap_or(0)];
            for &(_, element) in naming.missing.iter().filter(|(of, _)| *of == input) {
                if let Some(may) = may_be_missing.get_mut(element) {
                    *may = true;
                }
            }
            let names = names.cloned();
            inputs.push(InputRow { spec: spec.clone(), dims, width, names, may_be_missing });
        }
        // Inputs' names come first, features' next, numbers last: whatever clashes, an input can
        // be named.
        for (input, row) in inputs.iter().enumerate() {
            keys.entry(row.spec.name.clone()).or_insert(Key::Input(input));
        }
        for (input, row) in inputs.iter().enumerate() {
            for (element, name) in row.names.iter().flatten().enumerate() {
                keys.entry(name.clone()).or_insert(Key::Element { input, element });
            }
        }
        for (input, row) in inputs.iter().enumerate() {
            // An input of one element goes by its name.
            let n_numbered = Some(row.may_be_missing.len()).filter(|&n| n > 1).unwrap_or(0);
            for element in 0..n_numbered {
                let name = format!("{}_{element}", row.spec.name);
                keys.entry(name).or_insert(Key::Element { input, element });
            }
        }
        Self { inputs, is_whole, keys, naming }
    }

    /// Whether a request is one row, since the inputs' first dimension does not count rows.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// What it was made of.
    #[must_use]
    pub fn naming(&self) -> &Naming {
        &self.naming
    }

    pub(in crate::protocol) fn key(&self, name: &str) -> Option<Key> {
        self.keys.get(name).copied()
    }

    /// `'nome' is no input and no feature; did you mean 'name'? The model takes ...`
    pub(in crate::protocol) fn unknown(&self, name: &str) -> String {
        let near = nearest(name, self.keys.keys().map(String::as_str));
        let near = near.map_or("; the".to_owned(), |near| format!("; did you mean '{near}'? The"));
        format!("'{name}' is no input and no feature{near} model takes {}", self.listed())
    }

    /// The keys that a row has, the first dozen.
    pub(in crate::protocol) fn listed(&self) -> String {
        let names: Vec<String> = self.inputs.iter().flat_map(InputRow::listed).collect();
        let mut text = names[..names.len().min(MOST_LISTED)].join(", ");
        if names.len() > MOST_LISTED {
            text.push_str(&format!(" and {} more", names.len() - MOST_LISTED));
        }
        text
    }
}

impl InputRow {
    /// What an element is called in messages.
    pub(in crate::protocol) fn element_name(&self, element: usize) -> String {
        match (&self.names, self.width) {
            (Some(names), _) if element < names.len() => names[element].clone(),
            (_, Some(1)) => self.spec.name.clone(),
            _ => format!("{}_{element}", self.spec.name),
        }
    }

    fn listed(&self) -> Vec<String> {
        let datatype = self.spec.datatype;
        match &self.names {
            Some(names) => names.iter().map(|name| format!("{name} ({datatype})")).collect(),
            None if self.width == Some(1) => vec![format!("{} ({datatype})", self.spec.name)],
            None => vec![self.spec.to_string()],
        }
    }
}
