//! From a version's files to something that can go live: everything that can fail.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::golden;
use super::version::Loaded;
use crate::engine::{LoadError, OnnxModel, Plan};
use crate::monitor::baseline::Baseline;
use crate::repository::{self, Fingerprint, ReadError};
use crate::tensor::{NamedShapes, Signature, Specs, TensorSpec};

/// Rows of the larger warm-up run, from which the cost of a row is fitted.
const LARGER: usize = 16;

/// How many times quicker a batch must be than its rows one by one, to be made without being asked
/// for.
const WORTH_BATCHING: f64 = 1.25;

/// The trial of a batch runs each row alone as well, which a model of seconds is not worth.
const LONGEST_TRIAL: Duration = Duration::from_secs(2);

/// Why a version may not go live.
#[derive(Debug, thiserror::Error)]
pub(super) enum PrepareError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("model.onnx has digest {actual}, but {pinned} is pinned")]
    Digest { pinned: String, actual: String },
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("the declared {place} are {declared}, the model's are {actual}")]
    Signature { place: &'static str, declared: String, actual: String },
    #[error("labels are given for output '{output}', the model has {outputs}")]
    Labels { output: String, outputs: String },
    #[error("{0}")]
    Golden(String),
}

/// What the settings ask of a version's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Demands {
    pub(super) digest: Option<String>,
    pub(super) signature: Option<Signature>,
    pub(super) labelled_outputs: Vec<String>,
    pub(super) shapes: Vec<NamedShapes>,
}

/// Reads, checks, compiles and runs one version.
pub(super) fn load(
    root: &Path,
    model: &str,
    version: u64,
    fingerprint: Fingerprint,
    limit: u64,
    demands: &Demands,
) -> Result<Loaded, PrepareError> {
    let start = Instant::now();
    let files = repository::read(root, model, version, limit)?;
    let onnx = OnnxModel::parse(&files.model)?;
    // The bytes are not needed beyond the parse, and may be large.
    drop(files.model);
    let (digest, size) = (onnx.digest().to_owned(), onnx.size());
    demands.check(&digest, onnx.signature())?;
    let classes = onnx.classes().to_vec();
    let metadata = onnx.metadata().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let baseline = files.baseline.map(|file| {
        let baseline =
            file.and_then(|file| Baseline::read(&file, &digest).map_err(|error| error.to_string()));
        baseline.map(Arc::new).map_err(|error| format!("{}: {error}", repository::BASELINE_FILE))
    });
    let is_batchable = onnx.signature().is_batchable();
    let plan = Plan::compile(Arc::new(onnx), &demands.shapes)?;
    let warm_up = plan.warm_up()?;
    let larger = plan.time_rows(LARGER, warm_up.free_size);
    let one_by_one = warm_up.cost * LARGER as u32;
    let gains = larger.is_some_and(|many| many.mul_f64(WORTH_BATCHING) <= one_by_one);
    let rows_keep_bits = larger.is_some()
        && one_by_one <= LONGEST_TRIAL
        && plan.gives_rows_their_bits(LARGER, warm_up.free_size);
    let n_golden = match &files.golden {
        Some(file) => golden::check(&plan, file).map_err(PrepareError::Golden)?,
        None => 0,
    };
    Ok(Loaded {
        plan: Arc::new(plan),
        digest,
        fingerprint,
        size,
        classes,
        metadata,
        baseline,
        n_golden,
        warm_up,
        rows_keep_bits,
        gains_by_batches: gains && rows_keep_bits && is_batchable,
        larger: larger.map(|took: Duration| (LARGER, took)),
        took: start.elapsed(),
    })
}

impl Demands {
    /// Whether files with this digest and signature are what the settings ask for.
    pub(super) fn check(&self, digest: &str, actual: &Signature) -> Result<(), PrepareError> {
        if let Some(pinned) = &self.digest
            && pinned != digest
        {
            return Err(PrepareError::Digest { pinned: pinned.clone(), actual: digest.to_owned() });
        }
        if let Some(declared) = &self.signature {
            same("inputs", &declared.inputs, &actual.inputs)?;
            same("outputs", &declared.outputs, &actual.outputs)?;
        }
        for output in &self.labelled_outputs {
            if actual.output(output).is_none() {
                let outputs = Specs(&actual.outputs).to_string();
                return Err(PrepareError::Labels { output: output.clone(), outputs });
            }
        }
        Ok(())
    }
}

fn same(
    place: &'static str,
    declared: &[TensorSpec],
    actual: &[TensorSpec],
) -> Result<(), PrepareError> {
    if declared == actual {
        return Ok(());
    }
    let (declared, actual) = (Specs(declared).to_string(), Specs(actual).to_string());
    Err(PrepareError::Signature { place, declared, actual })
}
