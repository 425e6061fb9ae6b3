//! What two versions say in one output.

use serde::Serialize;

use super::classes::{Classes, Confused};
use super::drift::{Drift, OutputDrift};
use super::numbers::{columns, number, ulps};
use crate::config::Tolerance;
use crate::tensor::{Datatype, Tensor, TensorSpec};

/// Columns of which drift is measured one by one, at most.
const MOST_COLUMNS: usize = 8;

/// Cells of the histogram of ULPs: 0, 1, 2 to 3, 4 to 7, ... and what is beyond.
const ULPS: usize = 26;

/// Upper bounds of the histogram of differences; before them stands 0, after them what is above.
pub const DIFFERENCES: [f64; 13] =
    [1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0];

/// What an output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A class: a text or a whole number a row.
    Class,
    /// Scores of classes: the largest one's is the class; of a single column, whether it is above a
    /// half.
    Scores,
    /// Numbers.
    Numbers,
    /// Texts, which are equal or are not.
    Texts,
}

/// What is known of an output before anything is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputPlan {
    /// Its name.
    pub name: String,
    /// What it means.
    pub kind: Kind,
    /// Names of classes, by column.
    pub labels: Option<Vec<String>>,
    /// What may differ.
    pub tolerance: Tolerance,
}

impl OutputPlan {
    /// Plans of all outputs: `labels` by output, where they are known, and `score`, the output that
    /// the settings name as scores.
    #[must_use]
    pub fn of(
        specs: &[TensorSpec],
        labels: &[Option<Vec<String>>],
        score: Option<&str>,
        tolerance: impl Fn(&str) -> Tolerance,
    ) -> Vec<Self> {
        let n_columns =
            |spec: &TensorSpec| spec.shape.iter().skip(1).copied().product::<Option<usize>>();
        let is_many = |spec: &TensorSpec| n_columns(spec).is_some_and(|n| n > 1);
        let is_named = |spec: &TensorSpec| {
            let name = spec.name.to_lowercase();
            ["prob", "score", "softmax"].iter().any(|word| name.contains(word))
        };
        let floats = || specs.iter().filter(|spec| spec.datatype.is_float());
        // Where nothing else says so, the first output of several columns.
        let found = match score {
            Some(score) => floats().find(|spec| spec.name == score),
            None => floats().find(|spec| is_named(spec)).or_else(|| floats().find(|s| is_many(s))),
        };
        let plan = |(position, spec): (usize, &TensorSpec)| {
            let labels = labels.get(position).cloned().flatten();
            let is_scores = labels.is_some() || found.is_some_and(|found| found == spec);
            let kind = match spec.datatype {
                Datatype::Bytes if is_many(spec) => Kind::Texts,
                Datatype::Bytes => Kind::Class,
                datatype if datatype.is_float() && is_scores => Kind::Scores,
                datatype if datatype.is_float() || is_many(spec) => Kind::Numbers,
                _ => Kind::Class,
            };
            let tolerance = tolerance(&spec.name);
            Self { name: spec.name.clone(), kind, labels, tolerance }
        };
        specs.iter().enumerate().map(plan).collect()
    }
}

/// Differences of numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Differences {
    /// Pairs of numbers.
    pub elements: u64,
    /// Pairs that differ by more than the tolerance.
    pub beyond: u64,
    /// Pairs of which one is NaN or infinite and the other is not the same.
    pub non_finite: u64,
    /// Sum of all absolute differences.
    pub sum_absolute: f64,
    /// The largest one.
    pub max_absolute: f64,
    /// Sum of all differences over the primary's absolute value, where that is not 0.
    pub sum_relative: f64,
    /// The largest one.
    pub max_relative: f64,
    /// Pairs by how many numbers of the datatype lie between: 0, 1, 2 to 3, 4 to 7, and so on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulps: Vec<u64>,
    /// Pairs by absolute difference: 0, up to each of [`DIFFERENCES`], above.
    pub histogram: Vec<u64>,
}

impl Differences {
    fn new(datatype: Datatype) -> Self {
        let ulps = if datatype.is_float() { vec![0; ULPS] } else { Vec::new() };
        Self { ulps, histogram: vec![0; DIFFERENCES.len() + 2], ..Self::default() }
    }

    /// The mean absolute difference; nothing of no pairs.
    #[must_use]
    pub fn mean_absolute(&self) -> Option<f64> {
        let finite = self.elements - self.non_finite;
        (finite > 0).then(|| self.sum_absolute / finite as f64)
    }

    /// Counts the pair at `index`; returns how many times the tolerance they differ by.
    fn count(&mut self, pair: (&Tensor, &Tensor), index: usize, tolerance: Tolerance) -> f64 {
        let (primary, candidate) = (number(pair.0, index), number(pair.1, index));
        self.elements += 1;
        if primary == candidate || primary.is_nan() && candidate.is_nan() {
            self.histogram[0] += 1;
            if let Some(cell) = self.ulps.first_mut() {
                *cell += 1;
            }
            return 0.0;
        }
        if !primary.is_finite() || !candidate.is_finite() {
            self.non_finite += 1;
            self.beyond += 1;
            return f64::INFINITY;
        }
        let difference = (candidate - primary).abs();
        let allowed = tolerance.absolute + tolerance.relative * primary.abs();
        self.beyond += u64::from(difference > allowed);
        self.sum_absolute += difference;
        self.max_absolute = self.max_absolute.max(difference);
        if primary != 0.0 {
            let relative = difference / primary.abs();
            self.sum_relative += relative;
            self.max_relative = self.max_relative.max(relative);
        }
        let cell = 1 + DIFFERENCES.partition_point(|&bound| bound < difference);
        self.histogram[cell] += 1;
        if !self.ulps.is_empty() {
            let ulps = ulps(pair.0, pair.1, index);
            let cell = ulps.checked_ilog2().map_or(0, |log| log as usize + 1);
            self.ulps[cell.min(ULPS - 1)] += 1;
        }
        // A tolerance of 0 allows nothing.
        difference / allowed.max(f64::MIN_POSITIVE)
    }
}

/// What is counted of one output.
#[derive(Debug)]
pub(super) struct Output {
    plan: OutputPlan,
    datatype: Datatype,
    differences: Option<Differences>,
    classes: Option<Classes>,
    drifts: Vec<Drift>,
    /// Texts that differ.
    texts: u64,
}

/// What became of a row in one output.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowVerdict {
    /// Whether both name the same class; nothing where there is none.
    pub(super) agrees: Option<bool>,
    /// By how many times the tolerance the row differs; 0 where it is the same.
    pub(super) tolerances: f64,
}

/// One output's comparison, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct OutputReport {
    /// Its name.
    pub name: String,
    /// Its datatype.
    pub datatype: &'static str,
    /// Rows whose classes were compared, and of these, rows that agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<(u64, u64)>,
    /// Which class is taken for which, the most frequent first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Confused>,
    /// Differences of numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<Differences>,
    /// The mean absolute difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_absolute: Option<f64>,
    /// Rows of texts that differ.
    pub texts_differ: u64,
    /// What may differ.
    pub tolerance: Tolerance,
    /// How far the candidate is from the primary as a whole.
    pub drift: Vec<OutputDrift>,
}

impl Output {
    pub(super) fn new(plan: OutputPlan, datatype: Datatype) -> Self {
        let is_numeric = matches!(plan.kind, Kind::Scores | Kind::Numbers);
        let has_classes = matches!(plan.kind, Kind::Class | Kind::Scores);
        Self {
            differences: is_numeric.then(|| Differences::new(datatype)),
            classes: has_classes.then(Classes::default),
            drifts: Vec::new(),
            texts: 0,
            plan,
            datatype,
        }
    }

    /// Compares two tensors of the same datatype and shape, and tells `row` of each row.
    pub(super) fn compare(
        &mut self,
        primary: &Tensor,
        candidate: &Tensor,
        rows: usize,
        mut row: impl FnMut(usize, RowVerdict),
    ) {
        match self.plan.kind {
            Kind::Class if self.datatype == Datatype::Bytes => {
                let classes = self.classes.get_or_insert_default();
                let pairs = primary.elements().zip(candidate.elements()).take(rows);
                for (at, (of, own)) in pairs.enumerate() {
                    let text = |text| String::from_utf8_lossy(text);
                    let same = classes.count(&text(of), &text(own));
                    row(at, RowVerdict { agrees: Some(same), tolerances: unequal(same) });
                }
            }
            Kind::Class => {
                let classes = self.classes.get_or_insert_default();
                for at in 0..rows {
                    let (of, own) = (number(primary, at), number(candidate, at));
                    let name = |bits| f64::from_bits(bits).to_string();
                    let same = classes.count_numbers(of.to_bits(), own.to_bits(), name);
                    row(at, RowVerdict { agrees: Some(same), tolerances: unequal(same) });
                }
            }
            Kind::Texts => {
                let n_columns = columns(primary, rows);
                let (mut of, mut own) = (primary.elements(), candidate.elements());
                for at in 0..rows {
                    let pairs = of.by_ref().take(n_columns).zip(own.by_ref().take(n_columns));
                    // All of them are to be taken, whatever the first ones say.
                    let same = pairs.fold(true, |same, (of, own)| same & (of == own));
                    self.texts += u64::from(!same);
                    row(at, RowVerdict { agrees: None, tolerances: unequal(same) });
                }
            }
            Kind::Scores | Kind::Numbers => self.compare_numbers((primary, candidate), rows, row),
        }
    }

    fn compare_numbers(
        &mut self,
        pair: (&Tensor, &Tensor),
        rows: usize,
        mut row: impl FnMut(usize, RowVerdict),
    ) {
        let n_columns = columns(pair.0, rows);
        if n_columns == 0 {
            return;
        }
        if self.drifts.is_empty() {
            self.drifts = drifts(&self.plan, n_columns);
        }
        let tolerance = self.plan.tolerance;
        let differences = self.differences.get_or_insert_with(|| Differences::new(self.datatype));
        for at in 0..rows {
            let elements = at * n_columns..(at + 1) * n_columns;
            let mut tolerances = 0.0_f64;
            for index in elements.clone() {
                tolerances = tolerances.max(differences.count(pair, index, tolerance));
            }
            let value = |tensor: &Tensor, column: usize| number(tensor, elements.start + column);
            let largest = |tensor: &Tensor| {
                (0..n_columns).map(|column| value(tensor, column)).fold(f64::NAN, f64::max)
            };
            if n_columns <= MOST_COLUMNS {
                for (column, drift) in self.drifts.iter_mut().enumerate() {
                    drift.count(value(pair.0, column), value(pair.1, column));
                }
            } else if let Some(drift) = self.drifts.first_mut() {
                drift.count(largest(pair.0), largest(pair.1));
            }
            let agrees = self.classes.as_mut().map(|classes| {
                let class =
                    |tensor: &Tensor| best(|column| value(tensor, column), n_columns) as u64;
                let labels = self.plan.labels.as_ref();
                let name = |class: u64| {
                    let label = labels.and_then(|labels| labels.get(class as usize));
                    label.cloned().unwrap_or_else(|| class.to_string())
                };
                classes.count_numbers(class(pair.0), class(pair.1), name)
            });
            row(at, RowVerdict { agrees, tolerances });
        }
    }

    pub(super) fn is_class(&self) -> bool {
        self.plan.kind == Kind::Class
    }

    pub(super) fn name(&self) -> &str {
        &self.plan.name
    }

    pub(super) fn report(&self) -> OutputReport {
        let classes = self.classes.as_ref();
        let of_classes = classes.filter(|classes| classes.rows > 0).map(|classes| OutputDrift {
            name: format!("{}.class", self.plan.name),
            effects: classes.drift(),
        });
        OutputReport {
            name: self.plan.name.clone(),
            datatype: self.datatype.name(),
            classes: classes.map(|classes| (classes.rows, classes.agreed)),
            confusion: classes.map(Classes::confusion).unwrap_or_default(),
            mean_absolute: self.differences.as_ref().and_then(Differences::mean_absolute),
            differences: self.differences.clone(),
            texts_differ: self.texts,
            tolerance: self.plan.tolerance,
            drift: of_classes.into_iter().chain(self.drifts.iter().map(Drift::report)).collect(),
        }
    }
}

/// What is not equal is beyond every tolerance.
fn unequal(same: bool) -> f64 {
    if same { 0.0 } else { f64::INFINITY }
}

/// The class of a row of scores: the first of the largest; of one column, whether it is above a half.
fn best(score: impl Fn(usize) -> f64, n_columns: usize) -> usize {
    if n_columns == 1 {
        return usize::from(score(0) > 0.5);
    }
    let mut best = (f64::NEG_INFINITY, 0);
    for column in 0..n_columns {
        let value = score(column);
        if value > best.0 {
            best = (value, column);
        }
    }
    best.1
}

fn drifts(plan: &OutputPlan, n_columns: usize) -> Vec<Drift> {
    let name = &plan.name;
    let label = |column: usize| {
        let label = plan.labels.as_ref().and_then(|labels| labels.get(column));
        label.cloned().unwrap_or_else(|| column.to_string())
    };
    match n_columns {
        1 => vec![Drift::new(name.clone())],
        n if n <= MOST_COLUMNS => {
            (0..n).map(|column| Drift::new(format!("{name}[{}]", label(column)))).collect()
        }
        _ => vec![Drift::new(format!("{name}.largest"))],
    }
}
