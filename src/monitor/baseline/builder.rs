//! Building a baseline in bounded memory: rows go by once to choose the cells, and where they were
//! too many to be kept, once more to be counted.
//!
//! A sample of the rows (Vitter 1985, algorithm R, seeded) is kept for the edges, which are
//! quantiles; counts are exact, of all rows. Memory is that of the sample, of the tallies of
//! categories and of the counts, whatever the number of rows.

use super::choose;
use super::counting::Counting;
use super::gather::Gathered;
use super::slices::Segments;
use super::{Baseline, Origin, SCHEMA};
use crate::config::Monitor;
use crate::monitor::cells::{BINS, Cells, edges};
use crate::monitor::feature::FeaturePlan;
use crate::monitor::reader::{self, ReaderError};
use crate::monitor::rows::Rows;

/// Rows that are kept for the edges, at most: a quantile of so many is off by a thousandth of the
/// rows.
const SAMPLE_ROWS: usize = 200_000;

/// Values that are kept for the edges, at most: 64 MiB of binary32.
const SAMPLE_VALUES: usize = 16 << 20;

/// Why a baseline cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// There are no rows.
    #[error("a baseline needs rows, got none")]
    NoRows,
    /// There is nothing to watch.
    #[error("no feature is watched: all are ignored, or the model has none")]
    NoFeatures,
    /// The second pass saw other rows than the first.
    #[error("the rows changed between the first and the second pass: {first}, then {second}")]
    Changed {
        /// Rows of the first pass.
        first: u64,
        /// Rows of the second.
        second: u64,
    },
    /// The cells cannot be read.
    #[error(transparent)]
    Reader(#[from] ReaderError),
}

/// What a baseline is made of.
#[derive(Debug, Clone)]
pub struct About {
    /// The model's name.
    pub model: String,
    /// The version's number.
    pub version: u64,
    /// The digest of its file.
    pub digest: String,
    /// Now, in milliseconds since 1970.
    pub created_at: u64,
    /// Where the rows come from.
    pub origin: Origin,
}

/// What stands beside rows, each as long as they are or not there at all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks<'a> {
    /// When they were, in milliseconds since 1970.
    pub times: Option<&'a [i64]>,
    /// Which segment they belong to.
    pub segments: Option<&'a [String]>,
}

/// A sample of rows and what stands beside them.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) rows: Rows,
    pub(super) times: Vec<i64>,
    pub(super) segments: Vec<String>,
    /// Whether it holds all rows, in their order.
    pub(super) is_all: bool,
}

/// The first pass.
#[derive(Debug)]
pub struct BaselineBuilder<'a> {
    plan: &'a FeaturePlan,
    settings: &'a Monitor,
    gathered: Vec<Gathered>,
    sample: Sample,
    most: usize,
    random: fastrand::Rng,
    n_rows: u64,
    segments: Segments,
}

impl<'a> BaselineBuilder<'a> {
    /// Ready for rows.
    #[must_use]
    pub fn new(plan: &'a FeaturePlan, settings: &'a Monitor) -> Self {
        let n_features = plan.features().len().max(1);
        let most = (SAMPLE_VALUES / n_features).clamp(1000, SAMPLE_ROWS);
        Self::with_sample(plan, settings, most)
    }

    /// With another number of rows that are kept.
    #[must_use]
    pub fn with_sample(plan: &'a FeaturePlan, settings: &'a Monitor, most: usize) -> Self {
        Self {
            plan,
            settings,
            gathered: Gathered::all(plan),
            sample: Sample::empty(plan),
            most: most.max(1),
            random: fastrand::Rng::with_seed(0),
            n_rows: 0,
            segments: Segments::default(),
        }
    }

    /// A baseline of rows that are all there, such as the first ones of live traffic.
    ///
    /// `rows` are made by [`Rows::with_names`], or categories of text have no names and count as
    /// `other`.
    pub fn of_rows(
        plan: &'a FeaturePlan,
        settings: &'a Monitor,
        rows: &Rows,
        marks: Marks<'_>,
        about: About,
    ) -> Result<Baseline, BuildError> {
        let mut builder = Self::with_sample(plan, settings, rows.len());
        builder.push(rows, marks);
        builder.settle()?.finish(about)
    }

    /// Takes in rows of the plan. O(values).
    pub fn push(&mut self, rows: &Rows, marks: Marks<'_>) {
        let features = self.plan.features().iter().enumerate();
        for (gathered, (index, feature)) in self.gathered.iter_mut().zip(features) {
            gathered.add(feature, index, rows);
        }
        let segments = marks.segments.unwrap_or_default();
        self.segments.add(segments.iter().map(String::as_str));
        for row in 0..rows.len() {
            let time = marks.times.and_then(|times| times.get(row)).copied();
            self.n_rows += 1;
            if self.sample.rows.len() < self.most {
                self.sample.push(rows, row, time, segments.get(row));
                continue;
            }
            self.sample.is_all = false;
            let place = usize::try_from(self.random.u64(..self.n_rows)).unwrap_or(usize::MAX);
            if place < self.most {
                self.sample.replace(place, rows, row, time, segments.get(row));
            }
        }
    }

    /// Rows taken in.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Whether all rows must go by again, through [`Counting::count`].
    #[must_use]
    pub fn needs_second_pass(&self) -> bool {
        !self.sample.is_all
    }

    /// Ends the first pass: chooses kinds, cells and products.
    pub fn settle(self) -> Result<Counting<'a>, BuildError> {
        if self.n_rows == 0 {
            return Err(BuildError::NoRows);
        }
        if self.plan.features().is_empty() {
            return Err(BuildError::NoFeatures);
        }
        let planned = self.plan.features().iter().zip(&self.gathered).enumerate();
        let features = planned.map(|(index, (feature, gathered))| {
            choose::feature(feature, index, gathered, &self.sample.rows)
        });
        let mut draft = Baseline {
            schema: SCHEMA,
            model: String::new(),
            version: 0,
            digest: String::new(),
            created_at: 0,
            origin: Origin::File,
            rows: self.n_rows,
            features: features.collect(),
            outlier: None,
            score: None,
            slices: Vec::new(),
        };
        let n_columns = draft.features.len();
        draft.features.extend(choose::products(self.plan, &draft.features));
        for index in n_columns..draft.features.len() {
            let mut values = reader::products(self.plan, &draft, index, &self.sample.rows)?;
            choose::sort_finite(&mut values);
            let cells = Cells::Numeric { edges: edges(&values, BINS, true) };
            let feature = &mut draft.features[index];
            feature.counts = vec![0; cells.len()];
            feature.cells = cells;
        }
        let segments = self.segments.most_frequent();
        Counting::new(self.plan, self.settings, draft, segments, self.sample)
    }
}

impl Sample {
    pub(super) fn empty(plan: &FeaturePlan) -> Self {
        Self { rows: Rows::new(plan), times: Vec::new(), segments: Vec::new(), is_all: true }
    }

    fn push(&mut self, rows: &Rows, row: usize, time: Option<i64>, segment: Option<&String>) {
        self.rows.push_row(rows, row);
        self.times.extend(time);
        self.segments.extend(segment.cloned());
    }

    fn replace(
        &mut self,
        place: usize,
        rows: &Rows,
        row: usize,
        time: Option<i64>,
        segment: Option<&String>,
    ) {
        self.rows.replace_row(place, rows, row);
        if let (Some(time), Some(place)) = (time, self.times.get_mut(place)) {
            *place = time;
        }
        if let (Some(segment), Some(place)) = (segment, self.segments.get_mut(place)) {
            place.clone_from(segment);
        }
    }

    /// The marks of rows `start` to `end`.
    pub(super) fn marks(&self, start: usize, end: usize) -> Marks<'_> {
        Marks { times: self.times.get(start..end), segments: self.segments.get(start..end) }
    }
}
