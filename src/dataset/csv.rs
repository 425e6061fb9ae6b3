//! CSV: a header line, then a row a line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use csv::{ByteRecord, Reader, ReaderBuilder};

use super::elements;
use super::{Batch, DatasetError, Extra, ExtraValues, InputColumns, Place, Table, match_columns};
use crate::tensor::{ElementWriter, TensorSpec};

/// The largest header that is looked at for the delimiter.
const LONGEST_HEADER: u64 = 1 << 20;

/// What may stand between cells, the likeliest first.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

fn invalid(error: &csv::Error) -> DatasetError {
    DatasetError::Invalid { form: "CSV", reason: error.to_string() }
}

fn reader<R: Read>(source: R, delimiter: u8) -> Reader<R> {
    ReaderBuilder::new().delimiter(delimiter).from_reader(source)
}

/// The delimiter of a header: the first of those that it has most of.
fn delimiter(header: &[u8]) -> u8 {
    let count = |delimiter: u8| header.iter().filter(|&&byte| byte == delimiter).count();
    DELIMITERS.into_iter().rev().max_by_key(|&d| count(d)).unwrap_or(b',')
}

/// The names of the columns.
fn columns<R: Read>(reader: &mut Reader<R>) -> Result<Vec<String>, DatasetError> {
    let header = reader.headers().map_err(|error| invalid(&error))?;
    let columns: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    if columns.iter().all(String::is_empty) {
        let reason = "it has no header line with the columns' names".to_owned();
        return Err(DatasetError::Invalid { form: "CSV", reason });
    }
    Ok(columns)
}

/// The rows of a CSV text with a header line as tensors of `specs`. `names` are the features' names
/// by input; columns that no input asks for are passed over. Rows that take more than `limit` bytes
/// are refused.
pub fn read_csv(
    text: &[u8],
    specs: &[TensorSpec],
    names: &BTreeMap<String, Vec<String>>,
    limit: usize,
) -> Result<Table, DatasetError> {
    // What a spreadsheet begins a file with.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let header = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut reader = reader(text, delimiter(header));
    let columns = columns(&mut reader)?;
    super::check_names(&columns)?;
    let inputs = match_columns(&columns, specs, names, &[])?;
    let mut rows = Rows::new(reader, inputs.clone(), Vec::new(), usize::MAX)?;
    rows.limit = limit;
    let Some(Batch { n_rows, inputs: tensors, .. }) = rows.batch()? else {
        return Err(DatasetError::Column("there are no rows".to_owned()));
    };
    if rows.batch()?.is_some() {
        let message = "the model takes one row a request, there are more".to_owned();
        return Err(DatasetError::Column(message));
    }
    Ok(Table { n_rows, inputs: tensors })
}

/// The delimiter, which is the one that the header has most of, and the columns.
pub(super) fn header(path: &Path) -> Result<(u8, Vec<String>), DatasetError> {
    let mut line = Vec::new();
    BufReader::new(File::open(path)?.take(LONGEST_HEADER)).read_until(b'\n', &mut line)?;
    let delimiter = delimiter(&line);
    Ok((delimiter, columns(&mut reader(File::open(path)?, delimiter))?))
}

/// The rows of a text.
pub(super) struct Rows<R> {
    reader: Reader<R>,
    record: ByteRecord,
    inputs: Vec<(InputColumns, Vec<usize>, ElementWriter)>,
    extras: Vec<(String, usize, ExtraValues)>,
    most: usize,
    /// Bytes that a batch may take.
    limit: usize,
}

impl Rows<File> {
    pub(super) fn open(
        path: &Path,
        delimiter: u8,
        inputs: Vec<InputColumns>,
        extras: Vec<Extra>,
        most: usize,
    ) -> Result<Self, DatasetError> {
        Self::new(reader(File::open(path)?, delimiter), inputs, extras, most)
    }
}

impl<R: Read> Rows<R> {
    fn new(
        mut reader: Reader<R>,
        inputs: Vec<InputColumns>,
        extras: Vec<Extra>,
        most: usize,
    ) -> Result<Self, DatasetError> {
        let header = reader.headers().map_err(|error| invalid(&error))?.clone();
        let position = |name: &String| {
            header
                .iter()
                .position(|column| column.trim() == name)
                .ok_or_else(|| DatasetError::Column(format!("column '{name}' is no longer there")))
        };
        let mut placed = Vec::new();
        for input in inputs {
            if input.is_list() {
                let (name, n) = (&input.columns[0], input.width);
                return Err(DatasetError::Column(format!(
                    "input {} needs {n} columns, '{name}_0' to '{name}_{}': a CSV cell holds one value",
                    input.spec,
                    n - 1
                )));
            }
            let columns = input.columns.iter().map(position).collect::<Result<Vec<_>, _>>()?;
            let elements = ElementWriter::new(input.spec.datatype);
            placed.push((input, columns, elements));
        }
        let mut placed_extras = Vec::new();
        for extra in extras {
            let values = ExtraValues::of(&extra);
            let (Extra::Time(name) | Extra::Text(name)) = extra;
            let position = position(&name)?;
            placed_extras.push((name, position, values));
        }
        let record = ByteRecord::new();
        let limit = usize::MAX;
        Ok(Self { reader, record, inputs: placed, extras: placed_extras, most, limit })
    }

    pub(super) fn batch(&mut self) -> Result<Option<Batch>, DatasetError> {
        let most = if self.inputs.iter().any(|(input, ..)| input.is_whole) { 1 } else { self.most };
        let mut n_rows = 0;
        while n_rows < most {
            let has_record = self.reader.read_byte_record(&mut self.record);
            if !has_record.map_err(|error| invalid(&error))? {
                break;
            }
            self.row()?;
            n_rows += 1;
            let size: usize = self.inputs.iter().map(|(_, _, e)| e.data().len()).sum();
            if size > self.limit {
                return Err(DatasetError::TooLarge { limit: self.limit });
            }
        }
        if n_rows == 0 {
            return Ok(None);
        }
        let inputs = self
            .inputs
            .iter_mut()
            .map(|(input, _, elements)| elements::take(elements, input, n_rows));
        let inputs = inputs.collect::<Result<_, _>>()?;
        let extras = self.extras.iter_mut().map(|(_, _, values)| values.take()).collect();
        let position = self.reader.position().byte();
        Ok(Some(Batch { n_rows, inputs, extras, position }))
    }

    fn row(&mut self) -> Result<(), DatasetError> {
        let record = &self.record;
        let line = record.position().map_or(0, csv::Position::line);
        let failed = |column: &str, expected: String, cell: &[u8]| DatasetError::Cell {
            place: Place::Line(line),
            column: column.to_owned(),
            expected,
            actual: quoted(cell),
        };
        for (input, columns, elements) in &mut self.inputs {
            for (&column, name) in columns.iter().zip(&input.columns) {
                let cell = record.get(column).unwrap_or_default();
                let pushed = match std::str::from_utf8(cell) {
                    Ok(text) => elements.push_text(text),
                    Err(_) => elements.push_bytes(cell),
                };
                pushed.map_err(|expected| failed(name, expected, cell))?;
            }
        }
        for (name, column, values) in &mut self.extras {
            let cell = record.get(*column).unwrap_or_default();
            values
                .push_text(&String::from_utf8_lossy(cell))
                .map_err(|expected| failed(name, expected, cell))?;
        }
        Ok(())
    }
}

/// A cell for a message.
pub(super) fn quoted(cell: &[u8]) -> String {
    const LONGEST: usize = 60;
    let text = String::from_utf8_lossy(cell);
    match text.char_indices().nth(LONGEST) {
        _ if text.trim().is_empty() => "nothing".to_owned(),
        Some((end, _)) => format!("'{}...'", &text[..end]),
        None => format!("'{text}'"),
    }
}
