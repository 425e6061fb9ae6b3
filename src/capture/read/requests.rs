//! Requests, one after the other.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int32Type, Int64Type, TimestampMillisecondType,
};
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow_cast::cast;
use arrow_schema::{DataType, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::ReadError;
use crate::capture::names::{self, Timing};
use crate::tensor::{Datatype, Shape, Tensor};

/// Rows that are read at once.
const READ: usize = 2048;

/// One recorded request.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The client's id of it, or ours.
    pub id: String,
    /// Milliseconds since 1970.
    pub at: u64,
    /// The protocol's metric label.
    pub protocol: Arc<str>,
    /// The model's name.
    pub model: Arc<str>,
    /// The version that answered.
    pub version: u64,
    /// The digest of its file.
    pub digest: Arc<str>,
    /// The digest of the configuration.
    pub config_digest: Arc<str>,
    /// Name and version of the engine.
    pub engine: Arc<str>,
    /// What its kernels were chosen by.
    pub cpu_features: Arc<str>,
    /// The process.
    pub run_id: Arc<str>,
    /// What the version was to its model.
    pub slot: Arc<str>,
    /// The batch that it ran in, where it ran with others.
    pub batch: Option<u64>,
    /// The place of its first row there.
    pub first_row: usize,
    /// Rows of the batch.
    pub batch_rows: usize,
    /// Rows of the request.
    pub rows: usize,
    /// The probability with which it was recorded.
    pub sample: f64,
    /// Why it was.
    pub reason: Arc<str>,
    /// How it ended.
    pub code: Arc<str>,
    /// Why it has no answer.
    pub error: Option<String>,
    /// The largest outlier score of its rows.
    pub outlier_score: Option<f32>,
    /// Its part of the traffic.
    pub segment: Option<String>,
    /// Whether features were redacted.
    pub redacted: bool,
    /// Nanoseconds, in the order of [`Timing::ALL`].
    pub timings: [u64; 5],
    /// By name; none where they could not be read.
    pub inputs: Vec<(Arc<str>, Tensor)>,
    /// By name; none where there is no answer.
    pub outputs: Vec<(Arc<str>, Tensor)>,
}

impl Recorded {
    /// Whether it was answered by a model that ran.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        &*self.code == "ok" && !self.outputs.is_empty() && !self.inputs.is_empty()
    }
}

/// The requests of some files, in their order.
#[derive(Debug)]
pub struct Requests {
    files: std::vec::IntoIter<PathBuf>,
    open: Option<OpenFile>,
    batch: Option<Batch>,
    row: usize,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    /// Side, name, positions of bytes and of datatype and shape.
    tensors: Vec<(bool, Arc<str>)>,
}

impl Requests {
    /// The requests of `files`.
    #[must_use]
    pub fn new(files: Vec<PathBuf>) -> Self {
        Self { files: files.into_iter(), open: None, batch: None, row: 0 }
    }

    fn next_request(&mut self) -> Result<Option<Recorded>, ReadError> {
        let mut begun: Option<Recorded> = None;
        loop {
            let Some(batch) = &self.batch else {
                if !self.advance()? {
                    return Ok(begun);
                }
                continue;
            };
            if self.row >= batch.n_rows {
                self.batch = None;
                continue;
            }
            let path = self.open.as_ref().map(|open| open.path.clone()).unwrap_or_default();
            let row = self.row;
            let part = batch
                .request(row)
                .map_err(|reason| ReadError::Invalid { path: path.clone(), reason })?;
            self.row += 1;
            let (position, rows) = (batch.request_row(row), part.rows);
            let whole = match begun.take() {
                None => part,
                Some(first) => append(first, part).ok_or_else(|| ReadError::Invalid {
                    path,
                    reason: "rows of a request do not fit together".to_owned(),
                })?,
            };
            match position {
                Some(position) if position + 1 < rows => begun = Some(whole),
                _ => return Ok(Some(whole)),
            }
        }
    }

    /// The next rows; false where there are no more.
    fn advance(&mut self) -> Result<bool, ReadError> {
        loop {
            if let Some(open) = &mut self.open {
                match open.reader.next() {
                    Some(batch) => {
                        let invalid =
                            |reason: String| ReadError::Invalid { path: open.path.clone(), reason };
                        let batch = batch.map_err(|error| invalid(error.to_string()))?;
                        self.batch = Some(Batch::new(&batch, &open.tensors).map_err(invalid)?);
                        self.row = 0;
                        return Ok(true);
                    }
                    None => self.open = None,
                }
            }
            let Some(path) = self.files.next() else { return Ok(false) };
            self.open = Some(OpenFile::open(&path)?);
        }
    }
}

impl Iterator for Requests {
    type Item = Result<Recorded, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_request().transpose()
    }
}

/// Opens a file for the columns that `wants`.
pub(super) fn open(
    path: &Path,
    wants: impl Fn(&str) -> bool,
) -> Result<(ParquetRecordBatchReader, Vec<String>), ReadError> {
    let file = File::open(path).map_err(|error| ReadError::Io { path: path.to_owned(), error })?;
    let invalid = |reason: String| ReadError::Invalid { path: path.to_owned(), reason };
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| invalid(error.to_string()))?;
    let names: Vec<String> =
        builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    if let Some(missing) = names::BASE.iter().find(|name| !names.iter().any(|n| n == *name)) {
        return Err(invalid(format!("it has no column '{missing}'")));
    }
    let roots = names.iter().enumerate().filter(|(_, name)| wants(name)).map(|(at, _)| at);
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.collect::<Vec<_>>());
    let reader = builder.with_projection(mask).with_batch_size(READ).build();
    Ok((reader.map_err(|error| invalid(error.to_string()))?, names))
}

impl OpenFile {
    fn open(path: &Path) -> Result<Self, ReadError> {
        let is_wanted = |name: &str| {
            names::BASE.contains(&name)
                || [names::INPUT, names::OUTPUT]
                    .iter()
                    .any(|side| name.strip_prefix(side).is_some_and(|rest| rest.starts_with('.')))
        };
        let (reader, names) = open(path, is_wanted)?;
        let mut tensors = Vec::new();
        for name in &names {
            for (is_input, side) in [(true, names::INPUT), (false, names::OUTPUT)] {
                let tensor = name.strip_prefix(side).and_then(|rest| rest.strip_prefix('.'));
                if let Some(tensor) = tensor
                    && names.contains(&names::shape(side, tensor))
                {
                    tensors.push((is_input, Arc::from(tensor)));
                }
            }
        }
        Ok(Self { path: path.to_owned(), reader, tensors })
    }
}

/// Columns of some rows.
#[derive(Debug)]
struct Batch {
    n_rows: usize,
    texts: Vec<StringArray>,
    time: ArrayRef,
    version: ArrayRef,
    batch: ArrayRef,
    batch_row: ArrayRef,
    batch_rows: ArrayRef,
    request_row: ArrayRef,
    request_rows: ArrayRef,
    sample: ArrayRef,
    outlier_score: ArrayRef,
    redacted: ArrayRef,
    timings: Vec<ArrayRef>,
    tensors: Vec<(bool, Arc<str>, BinaryArray, StringArray)>,
    /// Texts that were met, so that rows share them.
    shared: std::cell::RefCell<Vec<Arc<str>>>,
}

const TEXTS: [&str; 12] = [
    names::REQUEST_ID,
    names::PROTOCOL,
    names::MODEL_NAME,
    names::DIGEST,
    names::CONFIG_DIGEST,
    names::ENGINE,
    names::CPU_FEATURES,
    names::RUN_ID,
    names::SLOT,
    names::REASON,
    names::CODE,
    names::ERROR,
];

/// A column of `batch`, cast to `kind`.
pub(super) fn column(batch: &RecordBatch, name: &str, kind: &DataType) -> Result<ArrayRef, String> {
    let array = batch.column_by_name(name).ok_or_else(|| format!("it has no column '{name}'"))?;
    cast(array, kind).map_err(|error| format!("column '{name}': {error}"))
}

impl Batch {
    fn new(batch: &RecordBatch, tensors: &[(bool, Arc<str>)]) -> Result<Self, String> {
        let text = |name: &str| {
            column(batch, name, &DataType::Utf8).map(|array| array.as_string::<i32>().clone())
        };
        let texts = TEXTS.iter().chain([&names::SEGMENT]).map(|name| text(name));
        let integer = |name| column(batch, name, &DataType::Int64);
        let small = |name| column(batch, name, &DataType::Int32);
        let tensors = tensors.iter().map(|(is_input, name)| {
            let side = if *is_input { names::INPUT } else { names::OUTPUT };
            let data = column(batch, &names::data(side, name), &DataType::Binary)?;
            let shape = text(&names::shape(side, name))?;
            Ok((*is_input, Arc::clone(name), data.as_binary::<i32>().clone(), shape))
        });
        Ok(Self {
            n_rows: batch.num_rows(),
            texts: texts.collect::<Result<_, _>>()?,
            time: column(batch, names::TIME, &DataType::Timestamp(TimeUnit::Millisecond, None))?,
            version: integer(names::MODEL_VERSION)?,
            batch: integer(names::BATCH)?,
            batch_row: small(names::BATCH_ROW)?,
            batch_rows: small(names::BATCH_ROWS)?,
            request_row: small(names::REQUEST_ROW)?,
            request_rows: small(names::REQUEST_ROWS)?,
            sample: column(batch, names::SAMPLE, &DataType::Float64)?,
            outlier_score: column(batch, names::OUTLIER_SCORE, &DataType::Float32)?,
            redacted: column(batch, names::REDACTED, &DataType::Boolean)?,
            timings: Timing::ALL
                .map(|t| integer(t.column()))
                .into_iter()
                .collect::<Result<_, _>>()?,
            tensors: tensors.collect::<Result<_, String>>()?,
            shared: std::cell::RefCell::default(),
        })
    }

    fn request_row(&self, row: usize) -> Option<usize> {
        let column = self.request_row.as_primitive::<Int32Type>();
        (!column.is_null(row)).then(|| usize::try_from(column.value(row)).unwrap_or(0))
    }

    fn share(&self, text: &str) -> Arc<str> {
        let mut shared = self.shared.borrow_mut();
        if let Some(known) = shared.iter().find(|known| &***known == text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        if shared.len() < 64 {
            shared.push(Arc::clone(&text));
        }
        text
    }

    /// The request that a row is, or is a part of.
    fn request(&self, row: usize) -> Result<Recorded, String> {
        let text = |name: &str| {
            let at = TEXTS.iter().position(|known| *known == name).unwrap_or(0);
            self.texts[at].value(row)
        };
        let shared = |name: &str| self.share(text(name));
        let optional =
            |array: &StringArray| (!array.is_null(row)).then(|| array.value(row).to_owned());
        let size = |array: &ArrayRef| {
            usize::try_from(array.as_primitive::<Int32Type>().value(row)).unwrap_or(0)
        };
        let long = |array: &ArrayRef| {
            u64::try_from(array.as_primitive::<Int64Type>().value(row)).unwrap_or(0)
        };
        let time = self.time.as_primitive::<TimestampMillisecondType>().value(row);
        let score = self.outlier_score.as_primitive::<Float32Type>();
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for (is_input, name, data, shape) in &self.tensors {
            if data.is_null(row) {
                continue;
            }
            let tensor = tensor(shape.value(row), data.value(row))
                .map_err(|reason| format!("tensor '{name}': {reason}"))?;
            let side = if *is_input { &mut inputs } else { &mut outputs };
            side.push((Arc::clone(name), tensor));
        }
        let first_row = size(&self.batch_row);
        Ok(Recorded {
            id: text(names::REQUEST_ID).to_owned(),
            at: u64::try_from(time).unwrap_or(0),
            protocol: shared(names::PROTOCOL),
            model: shared(names::MODEL_NAME),
            version: long(&self.version),
            digest: shared(names::DIGEST),
            config_digest: shared(names::CONFIG_DIGEST),
            engine: shared(names::ENGINE),
            cpu_features: shared(names::CPU_FEATURES),
            run_id: shared(names::RUN_ID),
            slot: shared(names::SLOT),
            batch: (!self.batch.is_null(row)).then(|| long(&self.batch)),
            first_row,
            batch_rows: size(&self.batch_rows),
            rows: size(&self.request_rows),
            sample: self.sample.as_primitive::<Float64Type>().value(row),
            reason: shared(names::REASON),
            code: shared(names::CODE),
            error: optional(&self.texts[TEXTS.len() - 1]),
            outlier_score: (!score.is_null(row)).then(|| score.value(row)),
            segment: optional(&self.texts[TEXTS.len()]),
            redacted: self.redacted.as_boolean().value(row),
            timings: std::array::from_fn(|at| long(&self.timings[at])),
            inputs,
            outputs,
        })
    }
}

/// `FP32 [1, 4]` and bytes as a tensor.
fn tensor(declared: &str, data: &[u8]) -> Result<Tensor, String> {
    let (datatype, shape) = declared.split_once(' ').ok_or("it has no datatype and shape")?;
    let datatype = Datatype::from_name(datatype)
        .ok_or_else(|| format!("there is no datatype '{datatype}'"))?;
    let sizes = shape.trim_matches(['[', ']']).split(',').map(str::trim);
    let shape: Shape = sizes
        .filter(|size| !size.is_empty())
        .map(str::parse::<usize>)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("shape '{shape}': {error}"))?;
    Tensor::new(datatype, shape, Bytes::copy_from_slice(data)).map_err(|error| error.to_string())
}

/// A request with one more of its rows; nothing where it is none of it.
fn append(mut request: Recorded, part: Recorded) -> Option<Recorded> {
    if request.id != part.id || request.rows != part.rows {
        return None;
    }
    request.outlier_score =
        request.outlier_score.into_iter().chain(part.outlier_score).max_by(f32::total_cmp);
    let sides = [(&mut request.inputs, part.inputs), (&mut request.outputs, part.outputs)];
    for (tensors, parts) in sides {
        if tensors.len() != parts.len() {
            return None;
        }
        for ((_, tensor), (_, part)) in tensors.iter_mut().zip(parts) {
            let mut shape = Shape::from_slice(tensor.shape());
            *shape.first_mut()? += part.rows();
            let data = [tensor.data().as_ref(), part.data().as_ref()].concat();
            *tensor = Tensor::new(tensor.datatype(), shape, data.into()).ok()?;
        }
    }
    Some(request)
}
