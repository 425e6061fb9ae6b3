//! Rows of a file (CSV, Parquet, JSON lines) as tensors, in batches of bounded memory; rows of a
//! request (CSV, an Arrow stream) as tensors, all at once; and tensors as rows of an answer.
//!
//! What a column holds is decided by the model's signature, never guessed from the file: a cell
//! that does not fit is an error that names the place and what was expected. Missing values (an
//! empty cell, `NaN`, `null`, a key that is not there) are NaN in columns of floating point and
//! empty in columns of BYTES; integers and booleans have no missing value, so there they are
//! errors.

mod answer;
mod arrow;
mod column;
mod columns;
mod csv;
mod elements;
mod json;
mod parquet;
mod stream;
mod table;
mod times;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

pub use answer::{AnswerColumn, write_arrow, write_csv};
pub use arrow::read_arrow;
pub use columns::{InputColumns, match_columns};
pub use csv::read_csv;

use crate::tensor::{Shape, Tensor, TensorError, TensorSpec};

/// Why a file does not give rows.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// The operating system refuses.
    #[error("cannot read it: {0}")]
    Io(#[from] std::io::Error),
    /// Its name ends in none of the known ways.
    #[error("expected a file that ends in .csv, .parquet (.pq) or .jsonl (.ndjson), got '{0}'")]
    Form(String),
    /// It is not what its name says.
    #[error("it is not valid {form}: {reason}")]
    Invalid {
        /// `CSV`, `JSON lines` or `Parquet`.
        form: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A column is not there.
    #[error("{0}")]
    Column(String),
    /// An input has no fixed number of columns.
    #[error("input {spec} has rows of any size, which columns cannot fill")]
    AnySize {
        /// The input.
        spec: TensorSpec,
    },
    /// A cell does not hold what it must.
    #[error("{place}, column '{column}': expected {expected}, got {actual}")]
    Cell {
        /// The line of a text, the row of a table, both from 1.
        place: Place,
        /// The column.
        column: String,
        /// What must stand there.
        expected: String,
        /// What does.
        actual: String,
    },
    /// The rows are more than may be held at once.
    #[error("the rows take more than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// Elements do not make a tensor.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// All rows of a request.
#[derive(Debug, Clone)]
pub struct Table {
    /// The number of rows.
    pub n_rows: usize,
    /// A tensor for each input, in the signature's order.
    pub inputs: Vec<Tensor>,
}

/// Where a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line of a text, from 1.
    Line(u64),
    /// A row of a table, from 1.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
        }
    }
}

/// A file of rows.
#[derive(Debug, Clone)]
pub struct Dataset {
    path: PathBuf,
    form: Form,
    columns: Vec<String>,
    size: u64,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Csv { delimiter: u8 },
    JsonLines,
    Parquet { n_rows: u64 },
}

/// A column that is no input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extra {
    /// Times, as milliseconds since 1970.
    Time(String),
    /// Whatever stands there, as text; empty where it is missing.
    Text(String),
}

/// The values of such a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtraValues {
    /// Milliseconds since 1970.
    Times(Vec<i64>),
    /// Texts.
    Texts(Vec<String>),
}

/// Some rows.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The number of rows.
    pub n_rows: usize,
    /// A tensor for each input, in the order asked for.
    pub inputs: Vec<Tensor>,
    /// What stands beside them, in the order asked for.
    pub extras: Vec<ExtraValues>,
    /// Progress: of [`Dataset::size`].
    pub position: u64,
}

impl Batch {
    /// The first `n_rows` rows.
    pub fn first(self, n_rows: usize) -> Result<Self, DatasetError> {
        let cut = |tensor: Tensor| {
            let mut shape = Shape::from_slice(tensor.shape());
            let per_row: usize = shape.iter().skip(1).product();
            if let Some(first) = shape.first_mut() {
                *first = n_rows;
            }
            match tensor.datatype().size() {
                Some(size) => {
                    let bytes = n_rows * per_row * size;
                    Tensor::new(tensor.datatype(), shape, tensor.data().slice(..bytes))
                }
                None => Tensor::from_elements(shape, tensor.elements().take(n_rows * per_row)),
            }
        };
        if n_rows >= self.n_rows {
            return Ok(self);
        }
        let extras = self.extras.into_iter().map(|extra| match extra {
            ExtraValues::Times(mut times) => {
                times.truncate(n_rows);
                ExtraValues::Times(times)
            }
            ExtraValues::Texts(mut texts) => {
                texts.truncate(n_rows);
                ExtraValues::Texts(texts)
            }
        });
        let extras = extras.collect();
        let inputs = self.inputs.into_iter().map(cut).collect::<Result<_, _>>()?;
        Ok(Self { n_rows, inputs, extras, position: self.position })
    }
}

/// The batches of a file.
pub type Batches = Box<dyn Iterator<Item = Result<Batch, DatasetError>>>;

impl Dataset {
    /// Opens a file, whose form is told by its name's end, and reads which columns it has.
    pub fn open(path: &Path) -> Result<Self, DatasetError> {
        let extension = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
        let (form, columns, size) = match extension.to_lowercase().as_str() {
            "csv" | "tsv" | "txt" => {
                let (delimiter, columns) = csv::header(path)?;
                (Form::Csv { delimiter }, columns, std::fs::metadata(path)?.len())
            }
            "jsonl" | "ndjson" => {
                (Form::JsonLines, json::header(path)?, std::fs::metadata(path)?.len())
            }
            "parquet" | "pq" => {
                let (columns, n_rows) = parquet::header(path)?;
                (Form::Parquet { n_rows }, columns, n_rows)
            }
            other => return Err(DatasetError::Form(format!(".{other}"))),
        };
        check_names(&columns)?;
        Ok(Self { path: path.to_owned(), form, columns, size })
    }

    /// Names of its columns; of the first line's keys where each line has its own.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// What [`Batch::position`] grows to: bytes of a text, rows of a table.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its rows, where that is known without reading it.
    #[must_use]
    pub fn n_rows(&self) -> Option<u64> {
        match self.form {
            Form::Parquet { n_rows } => Some(n_rows),
            _ => None,
        }
    }

    /// Reads it from the start, at most `most` rows at once.
    pub fn read(
        &self,
        inputs: &[InputColumns],
        extras: &[Extra],
        most: usize,
    ) -> Result<Batches, DatasetError> {
        for extra in extras {
            let (Extra::Time(name) | Extra::Text(name)) = extra;
            if !self.columns.contains(name) {
                return Err(DatasetError::Column(format!(
                    "there is no column '{name}'; the file has {}",
                    columns::list(&self.columns)
                )));
            }
        }
        let (inputs, extras) = (inputs.to_vec(), extras.to_vec());
        let most = most.max(1);
        Ok(match self.form {
            Form::Csv { delimiter } => {
                let mut rows = csv::Rows::open(&self.path, delimiter, inputs, extras, most)?;
                until_error(move || rows.batch())
            }
            Form::JsonLines => {
                let mut rows = json::Rows::open(&self.path, inputs, extras, most)?;
                until_error(move || rows.batch())
            }
            Form::Parquet { .. } => {
                let mut rows = parquet::Rows::open(&self.path, inputs, extras, most)?;
                until_error(move || rows.batch())
            }
        })
    }
}

/// Whether columns can be told apart by their names.
fn check_names(columns: &[String]) -> Result<(), DatasetError> {
    let mut seen = HashSet::new();
    match columns.iter().find(|name| !name.is_empty() && !seen.insert(*name)) {
        Some(name) => Err(DatasetError::Column(format!("two columns are called '{name}'"))),
        None => Ok(()),
    }
}

/// Batches until there are no more, or until one fails: what follows an error is not read, since its
/// rows would be of another place.
fn until_error(mut next: impl FnMut() -> Result<Option<Batch>, DatasetError> + 'static) -> Batches {
    let mut is_done = false;
    Box::new(std::iter::from_fn(move || {
        if is_done {
            return None;
        }
        let batch = next();
        is_done = !matches!(batch, Ok(Some(_)));
        batch.transpose()
    }))
}

#[cfg(test)]
mod tests;
