//! `tidegate predict`

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use half::{bf16, f16};
use indicatif::{ProgressBar, ProgressStyle};

use super::client::Client;
use super::rows;
use super::table::Table;
use super::{Failure, print_raw};
use crate::protocol::v2::documents::ModelInputs;
use crate::protocol::v2::{Form, decode_answer, encode_request};
use crate::tensor::{Datatype, Shape, Tensor};

/// Columns that one output takes in a table, at most.
const WIDEST: usize = 12;

/// Send the rows of a CSV, JSON or NPY file to a running server and print the answers.
///
/// CSV columns are matched with the model's inputs by name (`image_0`, `image_1`, ... for an
/// input `image` of several elements a row); JSON is a list of objects by input name, or a
/// request of the protocol; NPY is one array for a model with one input.
#[derive(Debug, Args)]
pub(super) struct Predict {
    /// The file: .csv, .json or .npy
    file: PathBuf,
    /// The model
    #[arg(long, short)]
    model: String,
    /// A version or an alias, instead of the primary
    #[arg(long)]
    version: Option<String>,
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Rows sent at once
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Rows predicted at most
    #[arg(long)]
    limit: Option<usize>,
    /// How the answers are printed
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Csv,
}

impl Predict {
    pub(super) fn run(self) -> Result<(), Failure> {
        let client = Client::new(&self.url)?;
        let version = self.version.as_ref().map(|v| format!("/versions/{v}")).unwrap_or_default();
        let path = format!("/v2/models/{}{version}", self.model);
        let metadata: ModelInputs = serde_json::from_slice(&client.get(&path)?.body)?;
        let specs = metadata.specs().ok_or_else(|| Failure {
            code: 1,
            message: "the model has a datatype unknown here".to_owned(),
        })?;
        let file = self.file.display();
        let inputs = rows::read(&self.file, &specs)
            .map_err(|error| Failure { code: 1, message: format!("{file}: {error}") })?;
        let batchable = specs.iter().all(crate::tensor::TensorSpec::is_batchable);
        let n_rows = inputs.first().map_or(0, Tensor::rows).min(self.limit.unwrap_or(usize::MAX));
        let step = if batchable { self.batch.max(1) } else { n_rows.max(1) };
        let progress = progress(n_rows);
        let mut printer = Printer::new(self.output);
        let mut served_by = String::new();
        for start in (0..n_rows).step_by(step) {
            let end = (start + step).min(n_rows);
            let batch: Vec<Tensor> = match batchable {
                true => inputs
                    .iter()
                    .map(|tensor| rows_of(tensor, start, end))
                    .collect::<Result<_, _>>()?,
                false => inputs.clone(),
            };
            let named: Vec<(&str, &Tensor)> =
                specs.iter().map(|spec| spec.name.as_str()).zip(&batch).collect();
            let mut body = Vec::new();
            let json_length = encode_request(None, &named, Form::Binary, &mut body);
            let answer = client.post(&format!("{path}/infer"), Bytes::from(body), json_length)?;
            let decoded = decode_answer(&answer.body, answer.json_length())?;
            let digest = answer.header("tidegate-model-digest").unwrap_or("no digest");
            served_by =
                format!("{} version {}, {digest}", decoded.model_name, decoded.model_version);
            printer.push(start, &decoded.outputs);
            progress.inc((end - start) as u64);
        }
        progress.finish_and_clear();
        printer.finish()?;
        eprintln!("{n_rows} rows by {served_by}");
        Ok(())
    }
}

/// Shown on a terminal only, on standard error.
fn progress(n_rows: usize) -> ProgressBar {
    let bar = ProgressBar::new(n_rows as u64);
    let template = "{bar:40} {human_pos}/{human_len} rows, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Rows `start` to `end` of a tensor.
fn rows_of(tensor: &Tensor, start: usize, end: usize) -> Result<Tensor, Failure> {
    let mut shape = Shape::from_slice(tensor.shape());
    let per_row: usize = shape.iter().skip(1).product();
    if let Some(first) = shape.first_mut() {
        *first = end - start;
    }
    let (skip, take) = (start * per_row, (end - start) * per_row);
    Ok(match tensor.datatype().size() {
        Some(size) => {
            let data = tensor.data().slice(skip * size..(skip + take) * size);
            Tensor::new(tensor.datatype(), shape, data)?
        }
        None => Tensor::from_elements(shape, tensor.elements().skip(skip).take(take))?,
    })
}

/// Prints answers row by row.
struct Printer {
    output: Output,
    header: Option<Vec<String>>,
    rows: Vec<Vec<String>>,
}

impl Printer {
    fn new(output: Output) -> Self {
        Self { output, header: None, rows: Vec::new() }
    }

    fn push(&mut self, start: usize, outputs: &[(String, Tensor)]) {
        let widest = if self.output == Output::Table { WIDEST } else { usize::MAX };
        let n_rows = outputs.iter().map(|(_, tensor)| tensor.rows()).max().unwrap_or(0);
        let columns: Vec<Vec<String>> = outputs.iter().map(|(_, tensor)| texts(tensor)).collect();
        let per_row = |tensor: &Tensor| tensor.shape().iter().skip(1).product::<usize>();
        self.header.get_or_insert_with(|| {
            let names = outputs.iter().flat_map(|(name, tensor)| match per_row(tensor) {
                1 => vec![name.clone()],
                n => (0..n.min(widest)).map(|index| format!("{name}_{index}")).collect(),
            });
            std::iter::once("row".to_owned()).chain(names).collect()
        });
        for row in 0..n_rows {
            let mut cells = vec![(start + row).to_string()];
            for ((_, tensor), texts) in outputs.iter().zip(&columns) {
                let n = per_row(tensor);
                cells.extend(texts.iter().skip(row * n).take(n.min(widest)).cloned());
            }
            self.rows.push(cells);
        }
    }

    fn finish(self) -> Result<(), Failure> {
        let header = self.header.unwrap_or_default();
        match self.output {
            Output::Table => {
                let mut table = Table::new(header);
                self.rows.into_iter().for_each(|row| table.push(row));
                print_raw(&format!("{table}\n"));
            }
            Output::Csv => {
                let mut writer = csv::Writer::from_writer(Vec::new());
                writer.write_record(&header)?;
                for row in &self.rows {
                    writer.write_record(row)?;
                }
                let text = writer.into_inner().map_err(|error| error.into_error())?;
                print_raw(&String::from_utf8_lossy(&text));
            }
        }
        Ok(())
    }
}

/// The elements as text.
fn texts(tensor: &Tensor) -> Vec<String> {
    let data = tensor.data();
    macro_rules! numbers {
        ($type:ty) => {{
            let chunks = data.as_chunks::<{ size_of::<$type>() }>().0.iter();
            chunks.map(|chunk| <$type>::from_le_bytes(*chunk).to_string()).collect()
        }};
    }
    match tensor.datatype() {
        Datatype::Bool => data.iter().map(|byte| (*byte == 1).to_string()).collect(),
        Datatype::Uint8 => numbers!(u8),
        Datatype::Uint16 => numbers!(u16),
        Datatype::Uint32 => numbers!(u32),
        Datatype::Uint64 => numbers!(u64),
        Datatype::Int8 => numbers!(i8),
        Datatype::Int16 => numbers!(i16),
        Datatype::Int32 => numbers!(i32),
        Datatype::Int64 => numbers!(i64),
        Datatype::Fp16 => numbers!(f16),
        Datatype::Bf16 => numbers!(bf16),
        Datatype::Fp32 => numbers!(f32),
        Datatype::Fp64 => numbers!(f64),
        Datatype::Bytes => {
            tensor.elements().map(|element| String::from_utf8_lossy(element).into_owned()).collect()
        }
    }
}
