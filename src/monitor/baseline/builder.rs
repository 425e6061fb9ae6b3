//! Building a baseline in bounded memory: rows go by once to choose the cells, and where they were
//! too many to be kept, once more to be counted.
//!
//! A sample of the rows (Vitter 1985, algorithm R, seeded) is kept for the edges, which are
//! quantiles; counts are exact, of all rows. Memory is that of the sample, of the dictionaries of
//! texts and of the counts, whatever the number of rows.

use super::choose;
use super::gather::Gathered;
use super::slices::{Segments, Slices};
use super::{Baseline, FeatureBaseline, Origin, OutlierBaseline, SCHEMA, Source};
use crate::config::{Monitor, Season};
use crate::monitor::cells::{BINS, Cells, edges};
use crate::monitor::feature::{FeaturePlan, Kind, Side};
use crate::monitor::reader::{self, CellReader, ReaderError, RowCells, count};
use crate::monitor::rows::Rows;

/// Rows that are kept for the edges, at most.
const SAMPLE_ROWS: usize = 200_000;

/// Values that are kept for the edges, at most: 64 MiB of binary32.
const SAMPLE_VALUES: usize = 16 << 20;

/// Rows that are counted at once.
const BLOCK: usize = 1024;

/// Quantiles of outlier scores that are kept; the last one is the threshold.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// The name of the feature of outlier scores.
const OUTLIER: &str = "outlier score";

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

/// The first pass.
#[derive(Debug)]
pub struct BaselineBuilder<'a> {
    plan: &'a FeaturePlan,
    settings: &'a Monitor,
    gathered: Vec<Gathered>,
    sample: Rows,
    most: usize,
    /// Times and segments of the sample's rows, where they are known.
    times: Vec<i64>,
    segments_of: Vec<String>,
    random: fastrand::Rng,
    n_rows: u64,
    segments: Segments,
}

/// The second pass, or what comes of the first where it saw everything.
#[derive(Debug)]
pub struct Counting<'a> {
    plan: &'a FeaturePlan,
    settings: &'a Monitor,
    draft: Baseline,
    reader: CellReader,
    counts: Vec<Vec<u64>>,
    slices: Slices,
    sample: Rows,
    sample_times: Vec<i64>,
    sample_segments: Vec<String>,
    is_sample_all: bool,
    expected: u64,
    n_rows: u64,
    cells: RowCells,
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
    pub(crate) fn with_sample(plan: &'a FeaturePlan, settings: &'a Monitor, most: usize) -> Self {
        Self {
            plan,
            settings,
            gathered: Gathered::all(plan),
            sample: Rows::new(plan),
            most,
            times: Vec::new(),
            segments_of: Vec::new(),
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
        let mut builder = Self::with_sample(plan, settings, rows.len().max(1));
        builder.push(rows, marks);
        builder.settle()?.finish(about)
    }

    /// Takes in rows of the plan. O(values), and the logarithm of the rows seen for the sample.
    pub fn push(&mut self, rows: &Rows, marks: Marks<'_>) {
        let features = self.plan.features().iter().enumerate();
        for (gathered, (index, feature)) in self.gathered.iter_mut().zip(features) {
            gathered.add(feature, index, rows);
        }
        let segments = marks.segments.unwrap_or_default();
        self.segments.add(segments.iter().map(String::as_str));
        for row in 0..rows.len() {
            let time = marks.times.and_then(|times| times.get(row)).copied();
            let segment = segments.get(row);
            if self.sample.len() < self.most {
                self.sample.push_row(rows, row);
                self.times.extend(time);
                self.segments_of.extend(segment.cloned());
            } else {
                let place = self.random.u64(..=self.n_rows);
                if let Some(place) = usize::try_from(place).ok().filter(|&p| p < self.most) {
                    self.sample.replace_row(place, rows, row);
                    if let (Some(time), Some(place)) = (time, self.times.get_mut(place)) {
                        *place = time;
                    }
                    if let (Some(segment), Some(place)) = (segment, self.segments_of.get_mut(place))
                    {
                        place.clone_from(segment);
                    }
                }
            }
            self.n_rows += 1;
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
        self.n_rows > self.sample.len() as u64
    }

    /// Ends the first pass: chooses kinds, cells and products.
    pub fn settle(self) -> Result<Counting<'a>, BuildError> {
        let needs_second_pass = self.needs_second_pass();
        if self.n_rows == 0 {
            return Err(BuildError::NoRows);
        }
        if self.plan.features().is_empty() {
            return Err(BuildError::NoFeatures);
        }
        let planned = self.plan.features().iter().zip(&self.gathered).enumerate();
        let mut features: Vec<FeatureBaseline> = planned
            .map(|(index, (feature, gathered))| {
                choose::feature(feature, index, gathered, &self.sample)
            })
            .collect();
        let products = choose::products(self.plan, &features);
        let mut draft = Baseline {
            schema: SCHEMA,
            model: String::new(),
            version: 0,
            digest: String::new(),
            created_at: 0,
            origin: Origin::File,
            rows: self.n_rows,
            features: Vec::new(),
            outlier: None,
            score: None,
            slices: Vec::new(),
        };
        features.extend(products);
        draft.features = features;
        for index in self.plan.features().len()..draft.features.len() {
            let mut values = reader::products(self.plan, &draft, index, &self.sample)?;
            choose::sort_finite(&mut values);
            let cells = Cells::Numeric { edges: edges(&values, BINS, true) };
            let feature = &mut draft.features[index];
            feature.counts = vec![0; cells.len()];
            feature.cells = cells;
        }
        let reader = CellReader::new(self.plan, &draft)?;
        let n_cells: Vec<usize> =
            draft.features.iter().map(|feature| feature.cells.len()).collect();
        let counts = n_cells.iter().map(|&n_cells| vec![0; n_cells]).collect();
        let mut counting = Counting {
            plan: self.plan,
            settings: self.settings,
            draft,
            reader,
            counts,
            slices: Slices::new(self.segments.most_frequent(), n_cells),
            sample: self.sample,
            sample_times: self.times,
            sample_segments: self.segments_of,
            is_sample_all: !needs_second_pass,
            expected: self.n_rows,
            n_rows: 0,
            cells: RowCells::default(),
        };
        if counting.is_sample_all {
            counting.count_sample();
        }
        Ok(counting)
    }
}

impl Counting<'_> {
    /// Counts the rows of the sample, which are all there are.
    fn count_sample(&mut self) {
        let sample = std::mem::replace(&mut self.sample, Rows::new(self.plan));
        let times = std::mem::take(&mut self.sample_times);
        let segments = std::mem::take(&mut self.sample_segments);
        let mut block = Rows::new(self.plan);
        for start in (0..sample.len()).step_by(BLOCK) {
            let end = (start + BLOCK).min(sample.len());
            block.clear();
            (start..end).for_each(|row| block.push_row(&sample, row));
            let marks = Marks { times: times.get(start..end), segments: segments.get(start..end) };
            self.count(&block, marks);
        }
        (self.sample, self.sample_times, self.sample_segments) = (sample, times, segments);
    }

    /// Counts rows, in the second pass.
    pub fn count(&mut self, rows: &Rows, marks: Marks<'_>) {
        self.reader.read(rows, &mut self.cells);
        self.n_rows += rows.len() as u64;
        for (feature, counts) in self.counts.iter_mut().enumerate() {
            let mut added = [0_u32; 256];
            let n_cells = counts.len().min(added.len());
            count(self.cells.column(feature), &mut added[..n_cells]);
            for (count, added) in counts.iter_mut().zip(added) {
                *count += u64::from(added);
            }
        }
        let n_features = self.reader.n_features();
        for row in 0..rows.len() {
            let row_cells = || (0..n_features).map(|feature| self.cells.column(feature)[row]);
            if let Some(segment) = marks.segments.and_then(|segments| segments.get(row)) {
                self.slices.count(self.slices.segment(segment), row_cells());
            }
            if let Some(&time) = marks.times.and_then(|times| times.get(row))
                && self.settings.season == Season::HourOfWeek
            {
                self.slices.count(self.slices.hour(time), row_cells());
            }
        }
    }

    /// Ends the second pass.
    pub fn finish(mut self, about: About) -> Result<Baseline, BuildError> {
        if self.n_rows != self.expected {
            return Err(BuildError::Changed { first: self.expected, second: self.n_rows });
        }
        for (feature, counts) in self.draft.features.iter_mut().zip(self.counts) {
            feature.counts = counts;
        }
        let About { model, version, digest, created_at, origin } = about;
        let mut baseline = Baseline { model, version, digest, created_at, origin, ..self.draft };
        baseline.slices = self.slices.finish();
        if baseline.features.iter().any(|feature| feature.side == Side::Input) {
            let reader = CellReader::new(self.plan, &baseline)?;
            reader.read(&self.sample, &mut self.cells);
            add_outliers(&mut baseline, self.cells.outlier_scores());
        }
        Ok(baseline)
    }
}

/// Adds quantiles and the feature of outlier scores, which are those of the sample's rows.
fn add_outliers(baseline: &mut Baseline, scores: &[f32]) {
    let mut sorted: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
    choose::sort_finite(&mut sorted);
    let Some(last) = sorted.len().checked_sub(1) else { return };
    let quantile = |share: f64| sorted[((share * sorted.len() as f64) as usize).min(last)];
    let quantiles: Vec<(f64, f64)> =
        QUANTILES.iter().map(|&share| (share, quantile(share))).collect();
    let threshold = quantile(QUANTILES[QUANTILES.len() - 1]);
    baseline.outlier = Some(OutlierBaseline { quantiles, threshold });
    let cells = Cells::Numeric { edges: edges(&sorted, BINS, true) };
    let Cells::Numeric { edges } = &cells else { return };
    let mut counts = vec![0; cells.len()];
    for &score in &sorted {
        counts[edges.partition_point(|&edge| edge < score)] += 1;
    }
    baseline.features.push(FeatureBaseline {
        name: OUTLIER.to_owned(),
        side: Side::Derived,
        source: Source::Outlier,
        kind: Kind::Numeric,
        counts,
        cells,
        variance_factor: None,
        summary: None,
    });
}
