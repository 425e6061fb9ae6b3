//! `tidegate baseline`

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use super::predictions::{Rows as Predictions, Version};
use super::table::Table;
use super::{ConfigArg, Failure};
use crate::config::Segment;
use crate::dataset::{Batch, Dataset, Extra, ExtraValues};
use crate::monitor::baseline::{
    About, Baseline, BaselineBuilder, FILE, FeatureBaseline, Marks, Origin, Truth,
};
use crate::monitor::cells::Cells;
use crate::monitor::rows::Rows;

/// Make the baseline of a version: what its traffic looks like when all is well.
///
/// Reads reference rows, such as those that the model was trained on or a week of good traffic,
/// runs the model on them, and writes baseline.json beside the version's model.onnx, where the
/// server finds it. Memory does not grow with the file: more rows than are kept (some 200,000) are
/// read twice.
///
/// Columns are matched with the model's inputs by name (image_0, image_1, ... or the features'
/// names for an input of several elements a row); others are passed over. An empty cell is a
/// missing value.
#[derive(Debug, Args)]
pub(super) struct BaselineCommand {
    #[command(flatten)]
    config: ConfigArg,
    /// The model
    #[arg(long, short)]
    model: String,
    /// Its version, or an alias; by default the highest
    #[arg(long)]
    version: Option<String>,
    /// The reference rows: .csv, .parquet or .jsonl
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The column of times, from which it is learned how much successive rows depend on each
    /// other; the rows of a large file must be in their order
    #[arg(long, value_name = "COLUMN")]
    timestamp: Option<String>,
    /// The column of the truth, by which performance is estimated later
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// The column whose values are watched apart; by default the feature that the settings name
    #[arg(long, value_name = "COLUMN")]
    segment: Option<String>,
    /// Where to write it, instead of beside the version
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Rows read, at most
    #[arg(long, value_name = "ROWS")]
    limit: Option<u64>,
    /// Rows kept in memory, at most, of which the cells' bounds are made; by default 200000, or
    /// fewer of very many features
    #[arg(long, value_name = "ROWS")]
    keep: Option<usize>,
    /// Seconds since 1970 that it is dated with, so that the file can be made again bit by bit
    #[arg(long, hide = true, env = "SOURCE_DATE_EPOCH")]
    date: Option<u64>,
}

impl BaselineCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.config.source().read().map_err(Failure::usage)?;
        let version = Version::open(&config, &self.model, self.version.as_deref())?;
        let segment = self.segment.clone().or_else(|| self.segment_of_settings(&version));
        let mut columns = Columns::default();
        let mut extras = Vec::new();
        for (column, place, extra) in [
            (&self.timestamp, &mut columns.time, Extra::Time as fn(String) -> Extra),
            (&segment, &mut columns.segment, Extra::Text),
            (&self.label, &mut columns.label, Extra::Text),
        ] {
            if let Some(column) = column {
                *place = Some(extras.len());
                extras.push(extra(column.clone()));
            }
        }
        let data = version.rows(&self.data, extras, self.limit)?;
        let output = self.output.clone().unwrap_or_else(|| version.folder.join(FILE));
        let baseline = self.build(&version, &data, &columns)?;
        write(&output, &baseline)?;
        print_table(&baseline, data.features.n_left_out());
        println!(
            "{} rows, {} version {}, {}\nwritten to {}",
            baseline.rows,
            version.model,
            version.number,
            version.digest,
            output.display()
        );
        Ok(())
    }

    /// The feature by whose values the settings split the traffic, where the file has a column of
    /// its name.
    fn segment_of_settings(&self, version: &Version) -> Option<String> {
        let Some(Segment::Feature(name)) = &version.settings.monitor.segment else { return None };
        let dataset = Dataset::open(&self.data).ok()?;
        dataset.columns().contains(name).then(|| name.clone())
    }

    fn build(
        &self,
        version: &Version,
        data: &Predictions,
        columns: &Columns,
    ) -> Result<Baseline, Failure> {
        let plan = &data.features;
        let settings = &version.settings.monitor;
        let mut builder = match self.keep {
            Some(most) => BaselineBuilder::with_sample(plan, settings, most),
            None => BaselineBuilder::new(plan, settings),
        };
        let mut rows = Rows::with_names(plan);
        let mut truth = self.label.is_some().then(|| Truth::new(plan, self.keep));
        if truth.as_ref().is_some_and(|truth| !truth.is_known()) {
            return Err(Failure::usage(format!(
                "no output of {} is a score or a prediction that '{}' could be compared with: \
                 name one as monitor.score or monitor.prediction",
                version.model,
                self.label.as_deref().unwrap_or_default()
            )));
        }
        data.predict(version, "reading", |batch, outputs| {
            rows.clear();
            rows.push(plan, &batch.inputs, outputs);
            builder.push(&rows, columns.marks(batch));
            if let (Some(truth), Some(labels)) = (&mut truth, columns.labels(batch)) {
                truth.push(outputs, labels, columns.marks(batch).times);
            }
        })?;
        let failed = |error: &dyn std::fmt::Display| Failure {
            code: 1,
            message: format!("{}: {error}", self.data.display()),
        };
        let needs_second_pass = builder.needs_second_pass();
        let mut counting = builder.settle().map_err(|error| failed(&error))?;
        if needs_second_pass {
            data.predict(version, "counting", |batch, outputs| {
                rows.clear();
                rows.push(plan, &batch.inputs, outputs);
                counting.count(&rows, columns.marks(batch));
            })?;
        }
        if counting.is_out_of_order() {
            eprintln!(
                "tidegate: the rows are not in the order of '{}': how much successive rows depend \
                 on each other stays unknown; sort the file by it",
                self.timestamp.as_deref().unwrap_or_default()
            );
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = u64::try_from(now).unwrap_or(0);
        let about = About {
            model: version.model.clone(),
            version: version.number,
            digest: version.digest.clone(),
            created_at: self.date.map_or(now, |seconds| seconds.saturating_mul(1000)),
            origin: Origin::File,
        };
        let mut baseline = counting.finish(about).map_err(|error| failed(&error))?;
        if let (Some(truth), Some(label)) = (truth, &self.label) {
            let classes =
                plan.score().and_then(|score| version.classes.get(score.output)?.as_ref());
            let score = truth.fit(classes.map_or(&[], Vec::as_slice));
            let score = score.map_err(|error| failed(&format!("column '{label}': {error}")))?;
            baseline.score = Some(score);
        }
        // What the server would refuse is not written.
        baseline.check().map_err(|error| failed(&error))?;
        Ok(baseline)
    }
}

/// Places of what stands beside the inputs.
#[derive(Debug, Default)]
struct Columns {
    time: Option<usize>,
    segment: Option<usize>,
    label: Option<usize>,
}

impl Columns {
    fn labels<'a>(&self, batch: &'a Batch) -> Option<&'a [String]> {
        match self.label.and_then(|place| batch.extras.get(place)) {
            Some(ExtraValues::Texts(texts)) => Some(texts),
            _ => None,
        }
    }

    fn marks<'a>(&self, batch: &'a Batch) -> Marks<'a> {
        let values = |place: Option<usize>| place.and_then(|place| batch.extras.get(place));
        let times = match values(self.time) {
            Some(ExtraValues::Times(times)) => Some(times.as_slice()),
            _ => None,
        };
        let segments = match values(self.segment) {
            Some(ExtraValues::Texts(texts)) => Some(texts.as_slice()),
            _ => None,
        };
        Marks { times, segments }
    }
}

/// Writes the file beside its place and renames it, so that nobody reads half of it.
fn write(path: &Path, baseline: &Baseline) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure {
        code: 1,
        message: format!("cannot write {}: {error}", path.display()),
    };
    let name = path.file_name().unwrap_or(FILE.as_ref()).to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(baseline.write().as_bytes())?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| std::fs::rename(&temporary, path));
    renamed.map_err(|error| {
        drop(std::fs::remove_file(&temporary));
        failed(error)
    })
}

fn print_table(baseline: &Baseline, n_left_out: usize) {
    let has_order = baseline.features.iter().any(|feature| feature.variance_factor.is_some());
    let mut header = vec!["feature", "side", "kind", "cells", "missing", "values"];
    if has_order {
        header.push("variance");
    }
    let mut table = Table::new(header);
    for feature in &baseline.features {
        let name = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
        let mut row = vec![
            feature.name.clone(),
            name(&feature.side),
            name(&feature.kind),
            feature.cells.len().to_string(),
            percent(feature.missing_share()),
            values(feature),
        ];
        if has_order {
            let factor = feature.variance_factor;
            row.push(factor.map(|factor| format!("× {factor:.1}")).unwrap_or_default());
        }
        table.push(row);
    }
    println!("{table}");
    if n_left_out > 0 {
        println!(
            "{n_left_out} features are not watched: more than monitor.max_features, which can be raised"
        );
    }
}

fn percent(share: f64) -> String {
    match share {
        0.0 => "0".to_owned(),
        share if share < 0.0001 => "< 0.01 %".to_owned(),
        share => format!("{:.2} %", share * 100.0),
    }
}

/// What is usual, on one line.
fn values(feature: &FeatureBaseline) -> String {
    const SHOWN: usize = 4;
    match &feature.cells {
        Cells::Numeric { edges } => match (edges.first(), edges.last()) {
            (Some(_), Some(_)) => {
                let n = edges.len();
                let low = feature.cells.label(0).replace("below ", "");
                let high = feature.cells.label(n).replace("above ", "");
                format!("{low} to {high}")
            }
            _ => "no values".to_owned(),
        },
        Cells::Categorical { categories, others, is_open } => {
            let shown = categories.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
            let n_more = categories.len().saturating_sub(SHOWN) + others.len() / 16;
            match (n_more, is_open) {
                (0, false) => shown,
                (n_more, false) => format!("{shown} and {n_more} more"),
                (_, true) => format!("{shown} and many more"),
            }
        }
    }
}
