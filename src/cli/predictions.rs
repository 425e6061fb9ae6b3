//! A version of the repository, and what it predicts for the rows of a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use crate::config::{self, Config};
use crate::dataset::{Batch, Dataset, DatasetError, Extra, InputColumns, match_columns};
use crate::engine::{OnnxModel, Plan};
use crate::monitor;
use crate::monitor::baseline::{Baseline, FILE};
use crate::monitor::compare::{Comparer, Comparison};
use crate::monitor::feature::{FeaturePlan, column_names};
use crate::repository::{self, FoundModel, FoundVersion, MODEL_FILE};
use crate::tensor::{Shape, Tensor};

/// Rows that the model gets at once.
const BATCH: usize = 512;

/// A version as its files say.
pub(super) struct Version {
    pub(super) model: String,
    pub(super) number: u64,
    pub(super) folder: PathBuf,
    pub(super) digest: String,
    pub(super) plan: Plan,
    pub(super) settings: config::Model,
    /// Names of classes, by output.
    pub(super) classes: Vec<Option<Vec<String>>>,
    metadata: Vec<(String, String)>,
}

/// A file whose columns fit a version, and which features they are.
pub(super) struct Rows {
    path: PathBuf,
    dataset: Dataset,
    inputs: Vec<InputColumns>,
    extras: Vec<Extra>,
    limit: u64,
    /// The version's features, called as the file's header does where nothing else names them.
    pub(super) features: FeaturePlan,
}

fn failed(message: String) -> Failure {
    Failure { code: 1, message }
}

impl Version {
    /// Loads a version of `model` by its number or an alias, or the highest one.
    pub(super) fn open(
        config: &Config,
        model: &str,
        version: Option<&str>,
    ) -> Result<Self, Failure> {
        let root = &config.repository.path;
        let scan = repository::scan(root, std::time::Duration::ZERO, config::is_model_name)
            .map_err(|error| {
                failed(format!("cannot read the repository {}: {error}", root.display()))
            })?;
        let found = scan.get(model).ok_or_else(|| {
            let models = scan.iter().filter(|(_, found)| !found.versions.is_empty());
            let known = list(models.map(|(name, _)| name));
            failed(format!("there is no model '{model}' in {}; it has {known}", root.display()))
        })?;
        let text = match &found.settings {
            Some(Err(error)) => return Err(failed(format!("{model}/model.toml: {error}"))),
            Some(Ok(text)) => Some(text.as_str()),
            None => None,
        };
        let settings = config
            .model(model, text)
            .map_err(|errors| Failure::usage(format!("{model}/model.toml: {errors}")))?;
        let number = choose(found, model, version, &settings)?;
        let files = repository::read(root, model, number, config.repository.model_size)?;
        let in_file = |error: &dyn std::fmt::Display| {
            failed(format!("{model} version {number}: {MODEL_FILE}: {error}"))
        };
        let onnx = OnnxModel::parse(&files.model).map_err(|error| in_file(&error))?;
        let outputs = &onnx.signature().outputs;
        let classes = outputs.iter().map(|spec| {
            let of_file = onnx.classes().iter().find(|(output, _)| *output == spec.name);
            let named = settings.labels.get(&spec.name).or(of_file.map(|(_, classes)| classes));
            named.cloned()
        });
        let classes = classes.collect();
        let metadata =
            onnx.metadata().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let digest = onnx.digest().to_owned();
        let plan = Plan::compile(Arc::new(onnx), &settings.shapes).map_err(|e| in_file(&e))?;
        let folder = root.join(model).join(number.to_string());
        let model = model.to_owned();
        Ok(Self { model, number, folder, digest, plan, settings, classes, metadata })
    }

    /// The model file's own metadata.
    pub(super) fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The file at `path`, whose columns must fill the inputs. `extras` are read beside them;
    /// `ignored` are columns that are no inputs.
    pub(super) fn rows(
        &self,
        path: &Path,
        extras: Vec<Extra>,
        limit: Option<u64>,
    ) -> Result<Rows, Failure> {
        let signature = self.plan.signature();
        let named = |error: DatasetError| failed(format!("{}: {error}", path.display()));
        let dataset = Dataset::open(path).map_err(named)?;
        let mut settings = self.settings.monitor.clone();
        let names = column_names(signature, &settings, &self.metadata)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let reserved: Vec<String> = extras
            .iter()
            .map(|extra| match extra {
                Extra::Time(name) | Extra::Text(name) => name.clone(),
            })
            .collect();
        let inputs = match_columns(dataset.columns(), &signature.inputs, &names, &reserved)
            .map_err(|error| match error {
                DatasetError::AnySize { .. } => failed(format!(
                    "{}: {error}; let the server learn the baseline: [models.NAME.monitor] baseline = {{ learn = 20000 }}",
                    path.display()
                )),
                error => named(error),
            })?;
        for input in &inputs {
            let numbered =
                |(place, name): (usize, &String)| *name == format!("{}_{place}", input.spec.name);
            let is_numbered = input.columns.iter().enumerate().all(numbered);
            if input.width > 1 && !input.is_list() && !is_numbered {
                settings.names.insert(input.spec.name.clone(), input.columns.clone());
            }
        }
        let features = FeaturePlan::new(signature, &settings, &self.metadata, &self.classes)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let limit = limit.unwrap_or(u64::MAX);
        Ok(Rows { path: path.to_owned(), dataset, inputs, extras, limit, features })
    }
}

/// Compares the rows of a file with the baseline of a version, without a server: what
/// `tidegate drift --data` shows. At most `limit` rows are read.
pub(super) fn compare(
    config: &Config,
    model: &str,
    version: Option<&str>,
    data: &Path,
    limit: Option<u64>,
) -> Result<Comparison, Failure> {
    let version = Version::open(config, model, version)?;
    let path = version.folder.join(FILE);
    let in_file = |error: &dyn std::fmt::Display| failed(format!("{}: {error}", path.display()));
    let text = std::fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => failed(format!(
            "{model} version {} has no baseline: make one with 'tidegate baseline --model {model} \
             --version {} --data reference.csv'",
            version.number, version.number
        )),
        _ => in_file(&error),
    })?;
    let mut baseline = Baseline::read(&text, &version.digest).map_err(|error| in_file(&error))?;
    let rows = version.rows(data, Vec::new(), limit)?;
    let plan = &rows.features;
    baseline.restrict(plan);
    let mut comparer = Comparer::new(plan, &baseline).map_err(|error| in_file(&error))?;
    let mut columns = monitor::rows::Rows::new(plan);
    rows.predict(&version, "comparing", |batch, outputs| {
        columns.clear();
        columns.push(plan, &batch.inputs, outputs);
        comparer.push(&columns);
    })?;
    if comparer.n_rows() == 0 {
        return Err(failed(format!("{}: it has no rows", data.display())));
    }
    Ok(comparer.finish())
}

/// The version that is meant, if it is there.
fn choose(
    found: &FoundModel,
    model: &str,
    version: Option<&str>,
    settings: &config::Model,
) -> Result<u64, Failure> {
    let known = || {
        let numbers = found.versions.keys().map(u64::to_string);
        list(numbers.chain(settings.aliases.keys().cloned()))
    };
    let number = match version {
        Some(version) => {
            let aliased = || settings.aliases.get(version).copied();
            version.parse().ok().or_else(aliased).ok_or_else(|| {
                failed(format!("model '{model}' has no version '{version}'; it has {}", known()))
            })?
        }
        None => found.versions.keys().next_back().copied().ok_or_else(|| {
            failed(format!("model '{model}' has no version: there is no {model}/1/{MODEL_FILE}"))
        })?,
    };
    match found.versions.get(&number) {
        None => Err(failed(format!("model '{model}' has no version {number}; it has {}", known()))),
        Some(FoundVersion::Missing) => Err(failed(format!("{model}/{number} has no {MODEL_FILE}"))),
        Some(FoundVersion::Unreadable(error)) => {
            Err(failed(format!("{model}/{number}/{MODEL_FILE}: {error}")))
        }
        Some(FoundVersion::Settled(_) | FoundVersion::Settling(_)) => Ok(number),
    }
}

fn list<T: AsRef<str>>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|name| format!("'{}'", name.as_ref())).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Rows {
    /// Runs the model on all rows and hands them over, batch by batch. `what` is shown beside the
    /// progress.
    pub(super) fn predict(
        &self,
        version: &Version,
        what: &'static str,
        mut take: impl FnMut(&Batch, &[Tensor]),
    ) -> Result<u64, Failure> {
        let named =
            |error: &dyn std::fmt::Display| failed(format!("{}: {error}", self.path.display()));
        let bar = progress(self.dataset.size(), what);
        let most = usize::try_from(self.limit).unwrap_or(BATCH).clamp(1, BATCH);
        let batches =
            self.dataset.read(&self.inputs, &self.extras, most).map_err(|error| named(&error))?;
        let mut n_rows = 0_u64;
        for batch in batches {
            let mut batch = batch.map_err(|error| named(&error))?;
            let left = usize::try_from(self.limit - n_rows).unwrap_or(usize::MAX);
            if left < batch.n_rows {
                batch = batch.first(left).map_err(|error| named(&error))?;
            }
            if batch.n_rows == 0 {
                break;
            }
            let outputs = version.plan.run(&batch.inputs).map_err(|error| {
                let place = self.find_row(version, &batch, n_rows);
                named(&format!("{place}: {error}"))
            })?;
            take(&batch, &outputs);
            n_rows += batch.n_rows as u64;
            bar.set_position(batch.position);
            bar.set_message(format!("{what}, {n_rows} rows"));
            if n_rows >= self.limit {
                break;
            }
        }
        bar.finish_and_clear();
        Ok(n_rows)
    }

    /// Which row the model does not take.
    fn find_row(&self, version: &Version, batch: &Batch, n_before: u64) -> String {
        let fails = |row: usize| {
            let inputs = batch.inputs.iter().map(|tensor| row_of(tensor, row));
            let inputs: Option<Vec<Tensor>> = inputs.collect();
            inputs.is_none_or(|inputs| version.plan.run(&inputs).is_err())
        };
        let failing = match self.features.is_batchable() {
            true => (0..batch.n_rows).find(|&row| fails(row)),
            false => Some(0),
        };
        match failing {
            Some(row) => format!("row {}", n_before + row as u64 + 1),
            None => format!("rows {} to {}", n_before + 1, n_before + batch.n_rows as u64),
        }
    }
}

fn row_of(tensor: &Tensor, row: usize) -> Option<Tensor> {
    let mut shape = Shape::from_slice(tensor.shape());
    let per_row: usize = shape.iter().skip(1).product();
    *shape.first_mut()? = 1;
    match tensor.datatype().size() {
        Some(size) => {
            let bytes = row * per_row * size..(row + 1) * per_row * size;
            Tensor::new(tensor.datatype(), shape, tensor.data().slice(bytes)).ok()
        }
        None => {
            let elements = tensor.elements().skip(row * per_row).take(per_row);
            Tensor::from_elements(shape, elements).ok()
        }
    }
}

/// Shown on a terminal only, on standard error.
fn progress(size: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(size);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} % {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}
