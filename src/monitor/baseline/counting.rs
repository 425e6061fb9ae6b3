//! The second pass: exact counts, slices, and how much counts of successive rows vary.

use super::builder::{About, BuildError, Marks, Sample};
use super::choose;
use super::slices::Slices;
use super::{Baseline, FeatureBaseline, OutlierBaseline, Source};
use crate::config::{Monitor, Season};
use crate::monitor::cells::{BINS, Cells, edges};
use crate::monitor::feature::{FeaturePlan, Kind, Side};
use crate::monitor::reader::{CellReader, RowCells, count};
use crate::monitor::rows::Rows;
use crate::stats::variance::LongRun;

/// Rows that are counted at once.
const BLOCK: usize = 1024;

/// Successive rows whose counts are one tick of the long-run variance.
const TICK_ROWS: usize = 8;

/// Quantiles of outlier scores that are kept; the last one is the threshold.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// The name of the feature of outlier scores.
const OUTLIER: &str = "outlier score";

/// The second pass, or what comes of the first where it kept all rows.
#[derive(Debug)]
pub struct Counting<'a> {
    plan: &'a FeaturePlan,
    settings: &'a Monitor,
    draft: Baseline,
    reader: CellReader,
    counts: Vec<Vec<u64>>,
    slices: Slices,
    sample: Sample,
    n_rows: u64,
    cells: RowCells,
    order: Order,
}

/// What is known of the rows' order.
#[derive(Debug)]
enum Order {
    /// Nothing.
    None,
    /// They came in the order of time so far; the last was then.
    Ascending { last: i64, ticks: Ticks },
    /// They did not.
    Broken,
}

/// Long-run variances by feature, tick by tick.
#[derive(Debug)]
struct Ticks {
    long_runs: Vec<LongRun>,
    counts: Vec<Vec<u32>>,
    n_rows: usize,
}

impl<'a> Counting<'a> {
    pub(super) fn new(
        plan: &'a FeaturePlan,
        settings: &'a Monitor,
        draft: Baseline,
        segments: Vec<Box<str>>,
        sample: Sample,
    ) -> Result<Self, BuildError> {
        let reader = CellReader::new(plan, &draft)?;
        let n_cells: Vec<usize> =
            draft.features.iter().map(|feature| feature.cells.len()).collect();
        let counts = n_cells.iter().map(|&n_cells| vec![0; n_cells]).collect();
        let mut counting = Self {
            plan,
            settings,
            draft,
            reader,
            counts,
            slices: Slices::new(segments, n_cells),
            sample,
            n_rows: 0,
            cells: RowCells::default(),
            order: Order::None,
        };
        counting.count_sample();
        Ok(counting)
    }

    /// Counts the sample: for good where it is all rows, and otherwise for a first look, which
    /// the long-run variances need.
    fn count_sample(&mut self) {
        let plan = self.plan;
        let n_rows = self.sample.rows.len();
        let mut order: Vec<usize> = (0..n_rows).collect();
        let has_times = self.sample.times.len() == n_rows;
        let is_all = self.sample.is_all;
        if is_all && has_times {
            order.sort_by_key(|&row| self.sample.times[row]);
        }
        let mut block = Rows::new(plan);
        for rows in order.chunks(BLOCK) {
            block.clear();
            rows.iter().for_each(|&row| block.push_row(&self.sample.rows, row));
            self.reader.read(&block, &mut self.cells);
            self.add_cells();
        }
        if has_times {
            let ticks = Ticks::new(&self.draft, &self.counts);
            self.order = Order::Ascending { last: i64::MIN, ticks };
        }
        if !is_all {
            self.counts.iter_mut().for_each(|counts| counts.fill(0));
            return;
        }
        // The rows once more, now that it is known what is usual.
        let sample = std::mem::replace(&mut self.sample, Sample::empty(plan));
        for rows in order.chunks(BLOCK) {
            block.clear();
            rows.iter().for_each(|&row| block.push_row(&sample.rows, row));
            self.reader.read(&block, &mut self.cells);
            let times: Vec<i64> =
                rows.iter().filter_map(|&row| sample.times.get(row)).copied().collect();
            let segments: Vec<String> =
                rows.iter().filter_map(|&row| sample.segments.get(row)).cloned().collect();
            let marks = Marks {
                times: (times.len() == rows.len()).then_some(&times),
                segments: (segments.len() == rows.len()).then_some(&segments),
            };
            self.add_slices(rows.len(), marks);
            self.add_ticks(rows.len(), marks);
        }
        self.n_rows = n_rows as u64;
        self.sample = sample;
    }

    /// Counts rows, in the second pass. O(values × cells).
    pub fn count(&mut self, rows: &Rows, marks: Marks<'_>) {
        self.reader.read(rows, &mut self.cells);
        self.n_rows += rows.len() as u64;
        self.add_cells();
        self.add_slices(rows.len(), marks);
        self.add_ticks(rows.len(), marks);
    }

    /// Rows counted.
    #[must_use]
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Whether times were given and do not ascend, so that the variances are unknown. Rows that
    /// are all kept are sorted; more than that must come in order.
    #[must_use]
    pub fn is_out_of_order(&self) -> bool {
        matches!(self.order, Order::Broken)
    }

    fn add_cells(&mut self) {
        for (feature, counts) in self.counts.iter_mut().enumerate() {
            let mut added = [0_u32; 256];
            let n_cells = counts.len().min(added.len());
            count(self.cells.column(feature), &mut added[..n_cells]);
            for (count, added) in counts.iter_mut().zip(added) {
                *count += u64::from(added);
            }
        }
    }

    fn add_slices(&mut self, n_rows: usize, marks: Marks<'_>) {
        let has_season = self.settings.season == Season::HourOfWeek;
        for row in 0..n_rows {
            if let Some(segment) = marks.segments.and_then(|segments| segments.get(row)) {
                self.slices.count(self.slices.segment(segment), &self.cells, row);
            }
            if let Some(&time) = marks.times.and_then(|times| times.get(row))
                && has_season
            {
                self.slices.count(self.slices.hour(time), &self.cells, row);
            }
        }
    }

    fn add_ticks(&mut self, n_rows: usize, marks: Marks<'_>) {
        let Order::Ascending { last, ticks } = &mut self.order else { return };
        for row in 0..n_rows {
            match marks.times.and_then(|times| times.get(row)) {
                Some(&time) if time >= *last => *last = time,
                _ => {
                    self.order = Order::Broken;
                    return;
                }
            }
            ticks.add(&self.cells, row);
        }
    }

    /// Ends the second pass.
    pub fn finish(mut self, about: About) -> Result<Baseline, BuildError> {
        let first = self.draft.rows;
        if self.n_rows != first {
            return Err(BuildError::Changed { first, second: self.n_rows });
        }
        for (feature, counts) in self.draft.features.iter_mut().zip(self.counts) {
            feature.counts = counts;
        }
        if let Order::Ascending { ticks, .. } = &self.order {
            let features = self.draft.features.iter_mut();
            for (feature, long_run) in features.zip(&ticks.long_runs) {
                feature.variance_factor = Some(long_run.factor());
            }
        }
        let About { model, version, digest, created_at, origin } = about;
        let mut baseline = Baseline { model, version, digest, created_at, origin, ..self.draft };
        if baseline.features.iter().any(|feature| feature.side == Side::Input) {
            let reader = CellReader::new(self.plan, &baseline)?;
            reader.read(&self.sample.rows, &mut self.cells);
            let scores = self.cells.outlier_scores();
            if let Some(edges) = add_outliers(&mut baseline, scores) {
                let cell = |row: usize| edges.partition_point(|&e| e < f64::from(scores[row]));
                let marks = self.sample.marks(0, scores.len());
                let n_cells = edges.len() + 3;
                self.slices.add_feature(n_cells, marks, self.settings.season, cell);
                if let Order::Ascending { .. } = self.order {
                    let factor = outlier_factor(&baseline, &self.sample, cell);
                    if let Some(feature) = baseline.features.last_mut() {
                        feature.variance_factor = Some(factor);
                    }
                }
            }
        }
        baseline.slices = self.slices.finish();
        Ok(baseline)
    }
}

impl Ticks {
    fn new(draft: &Baseline, counts: &[Vec<u64>]) -> Self {
        let features = draft.features.iter().zip(counts);
        let long_runs = features.map(|(f, counts)| LongRun::new(counts, f.cells.n_ordered()));
        let counts = counts.iter().map(|counts| vec![0; counts.len()]).collect();
        Self { long_runs: long_runs.collect(), counts, n_rows: 0 }
    }

    fn add(&mut self, cells: &RowCells, row: usize) {
        for (feature, counts) in self.counts.iter_mut().enumerate() {
            counts[usize::from(cells.column(feature)[row])] += 1;
        }
        self.n_rows += 1;
        if self.n_rows == TICK_ROWS {
            for (long_run, counts) in self.long_runs.iter_mut().zip(&mut self.counts) {
                long_run.push(counts);
                counts.fill(0);
            }
            self.n_rows = 0;
        }
    }
}

/// The variance factor of outlier scores: of the sample where that is all rows, and otherwise the
/// largest of an input's, of which scores are made.
fn outlier_factor(baseline: &Baseline, sample: &Sample, cell: impl Fn(usize) -> usize) -> f64 {
    let Some(feature) = baseline.features.last().filter(|_| sample.is_all) else {
        let inputs = baseline.features.iter().filter(|feature| feature.side == Side::Input);
        return inputs.filter_map(|feature| feature.variance_factor).fold(1.0, f64::max);
    };
    let mut order: Vec<usize> = (0..sample.times.len()).collect();
    order.sort_by_key(|&row| sample.times[row]);
    let mut long_run = LongRun::new(&feature.counts, feature.cells.n_ordered());
    let mut counts = vec![0; feature.cells.len()];
    for rows in order.chunks_exact(TICK_ROWS) {
        counts.fill(0);
        rows.iter().for_each(|&row| counts[cell(row)] += 1);
        long_run.push(&counts);
    }
    long_run.factor()
}

/// Adds quantiles and the feature of outlier scores, which are those of the sample's rows.
/// Returns its edges.
fn add_outliers(baseline: &mut Baseline, scores: &[f32]) -> Option<Vec<f64>> {
    let mut sorted: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
    choose::sort_finite(&mut sorted);
    let last = sorted.len().checked_sub(1)?;
    let quantile = |share: f64| sorted[((share * sorted.len() as f64) as usize).min(last)];
    let quantiles: Vec<(f64, f64)> =
        QUANTILES.iter().map(|&share| (share, quantile(share))).collect();
    let threshold = quantile(QUANTILES[QUANTILES.len() - 1]);
    baseline.outlier = Some(OutlierBaseline { quantiles, threshold });
    let edges = edges(&sorted, BINS, true);
    let cells = Cells::Numeric { edges: edges.clone() };
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
    Some(edges)
}
