//! Parquet: columns of numbers, texts, booleans, times, or lists of them.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMillisecondType, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::elements;
use super::{Batch, DatasetError, Extra, ExtraValues, InputColumns, Place, times};
use crate::tensor::{ElementWriter, Unfit};

fn invalid(error: impl ToString) -> DatasetError {
    DatasetError::Invalid { form: "Parquet", reason: error.to_string() }
}

/// Columns and rows.
pub(super) fn header(path: &Path) -> Result<(Vec<String>, u64), DatasetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?).map_err(invalid)?;
    let columns = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let n_rows = builder.metadata().file_metadata().num_rows();
    Ok((columns, u64::try_from(n_rows).unwrap_or(0)))
}

/// The rows of a file.
pub(super) struct Rows {
    reader: ParquetRecordBatchReader,
    inputs: Vec<InputColumns>,
    extras: Vec<Extra>,
    n_read: u64,
}

impl Rows {
    pub(super) fn open(
        path: &Path,
        inputs: Vec<InputColumns>,
        extras: Vec<Extra>,
        most: usize,
    ) -> Result<Self, DatasetError> {
        let builder =
            ParquetRecordBatchReaderBuilder::try_new(File::open(path)?).map_err(invalid)?;
        let extra_names = extras.iter().map(|extra| match extra {
            Extra::Time(name) | Extra::Text(name) => name,
        });
        let wanted: Vec<&String> =
            inputs.iter().flat_map(|input| &input.columns).chain(extra_names).collect();
        let fields = builder.schema().fields().iter().enumerate();
        let roots: Vec<usize> = fields
            .filter(|(_, field)| wanted.contains(&field.name()))
            .map(|(position, _)| position)
            .collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let most = if inputs.iter().any(|input| input.is_whole) { 1 } else { most };
        let reader =
            builder.with_projection(mask).with_batch_size(most).build().map_err(invalid)?;
        Ok(Self { reader, inputs, extras, n_read: 0 })
    }

    pub(super) fn batch(&mut self) -> Result<Option<Batch>, DatasetError> {
        let Some(batch) = self.reader.next() else { return Ok(None) };
        let batch = batch.map_err(invalid)?;
        let n_rows = batch.num_rows();
        let inputs = self.inputs.iter().map(|input| self.input(&batch, input));
        let inputs = inputs.collect::<Result<_, _>>()?;
        let extras = self.extras.iter().map(|extra| self.extra(&batch, extra));
        let extras = extras.collect::<Result<_, _>>()?;
        self.n_read += n_rows as u64;
        Ok(Some(Batch { n_rows, inputs, extras, position: self.n_read }))
    }

    fn failed(&self, column: &str, row: usize, expected: Unfit, actual: String) -> DatasetError {
        let place = Place::Row(self.n_read + row as u64 + 1);
        DatasetError::Cell { place, column: column.to_owned(), expected, actual }
    }

    fn input(
        &self,
        batch: &RecordBatch,
        input: &InputColumns,
    ) -> Result<crate::tensor::Tensor, DatasetError> {
        let n_rows = batch.num_rows();
        let mut columns = Vec::with_capacity(input.columns.len());
        for name in &input.columns {
            columns.push((name, column(batch, name)?));
        }
        let mut elements = ElementWriter::new(input.spec.datatype);
        for row in 0..n_rows {
            for (name, column) in &columns {
                let pushed = match input.is_list() {
                    true => column.push_list(&mut elements, row, input.width),
                    false => column.push(&mut elements, row),
                };
                pushed.map_err(|expected| self.failed(name, row, expected, column.show(row)))?;
            }
        }
        Ok(elements::take(&mut elements, input, n_rows)?)
    }

    fn extra(&self, batch: &RecordBatch, extra: &Extra) -> Result<ExtraValues, DatasetError> {
        let (Extra::Time(name) | Extra::Text(name)) = extra;
        let column = column(batch, name)?;
        let mut values = ExtraValues::of(extra);
        for row in 0..batch.num_rows() {
            let pushed = match (&mut values, &column) {
                (ExtraValues::Times(values), column) if !matches!(column, Column::Text(_)) => {
                    let time = column.time(row);
                    time.map(|time| values.push(time)).ok_or_else(|| times::EXPECTED.to_owned())
                }
                (values, column) => values.push_text(&column.text(row)),
            };
            pushed.map_err(|expected| self.failed(name, row, expected, column.show(row)))?;
        }
        Ok(values)
    }
}

/// A column in one of a few types, to which it was cast.
enum Column {
    Number(ArrayRef),
    Signed(ArrayRef),
    Unsigned(ArrayRef),
    Bool(ArrayRef),
    Bytes(ArrayRef),
    Text(ArrayRef),
    Time(ArrayRef),
    List { ends: Vec<(usize, usize)>, values: Box<Column> },
}

fn column(batch: &RecordBatch, name: &str) -> Result<Column, DatasetError> {
    let array = batch
        .column_by_name(name)
        .ok_or_else(|| DatasetError::Column(format!("column '{name}' is no longer there")))?;
    Column::new(array)
        .map_err(|reason| DatasetError::Column(format!("column '{name}' cannot be used: {reason}")))
}

impl Column {
    fn new(array: &ArrayRef) -> Result<Self, String> {
        let to = |datatype: DataType| cast(array, &datatype).map_err(|error| error.to_string());
        let list = |array: &ArrayRef| Self::new(array).map(Box::new);
        Ok(match array.data_type() {
            DataType::Float16 | DataType::Float32 | DataType::Float64 => {
                Self::Number(to(DataType::Float64)?)
            }
            DataType::Decimal128(..) | DataType::Decimal256(..) => {
                Self::Number(to(DataType::Float64)?)
            }
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                Self::Signed(to(DataType::Int64)?)
            }
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Self::Unsigned(to(DataType::UInt64)?)
            }
            DataType::Boolean => Self::Bool(Arc::clone(array)),
            DataType::Binary
            | DataType::LargeBinary
            | DataType::FixedSizeBinary(_)
            | DataType::BinaryView => Self::Bytes(to(DataType::Binary)?),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Self::Text(to(DataType::Utf8)?)
            }
            DataType::Dictionary(_, values) => {
                return Self::new(&to((**values).clone())?);
            }
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
                Self::Time(to(DataType::Timestamp(TimeUnit::Millisecond, None))?)
            }
            DataType::List(_) | DataType::LargeList(_) => {
                let large = to(DataType::LargeList(match array.data_type() {
                    DataType::List(field) | DataType::LargeList(field) => Arc::clone(field),
                    _ => return Err("it is no list".to_owned()),
                }))?;
                let lists = large.as_list::<i64>();
                let ends = lists.offsets().windows(2).map(|pair| {
                    let place = |offset: i64| usize::try_from(offset).unwrap_or(0);
                    (place(pair[0]), place(pair[1]))
                });
                Self::List { ends: ends.collect(), values: list(lists.values())? }
            }
            DataType::FixedSizeList(_, size) => {
                let size = usize::try_from(*size).unwrap_or(0);
                let lists = array.as_fixed_size_list();
                let ends = (0..lists.len()).map(|row| {
                    let start = lists.value_offset_at(row);
                    (start, start + size)
                });
                Self::List { ends: ends.collect(), values: list(lists.values())? }
            }
            DataType::Null => Self::Text(to(DataType::Utf8)?),
            other => return Err(format!("its type is {other}")),
        })
    }

    fn array(&self) -> Option<&ArrayRef> {
        match self {
            Self::Number(array)
            | Self::Signed(array)
            | Self::Unsigned(array)
            | Self::Bool(array)
            | Self::Bytes(array)
            | Self::Text(array)
            | Self::Time(array) => Some(array),
            Self::List { .. } => None,
        }
    }

    fn is_null(&self, row: usize) -> bool {
        self.array().is_some_and(|array| array.is_null(row))
    }

    fn push(&self, elements: &mut ElementWriter, row: usize) -> Result<(), Unfit> {
        if self.is_null(row) {
            return elements.push_missing();
        }
        match self {
            Self::Number(array) => {
                elements.push_number(array.as_primitive::<Float64Type>().value(row))
            }
            Self::Signed(array) => {
                elements.push_integer(i128::from(array.as_primitive::<Int64Type>().value(row)))
            }
            Self::Unsigned(array) => {
                elements.push_integer(i128::from(array.as_primitive::<UInt64Type>().value(row)))
            }
            Self::Bool(array) => elements.push_bool(array.as_boolean().value(row)),
            Self::Bytes(array) => elements.push_bytes(array.as_binary::<i32>().value(row)),
            Self::Text(array) => elements.push_text(array.as_string::<i32>().value(row)),
            Self::Time(array) => elements.push_integer(i128::from(
                array.as_primitive::<TimestampMillisecondType>().value(row),
            )),
            Self::List { ends, values } => {
                let (start, end) = ends.get(row).copied().unwrap_or_default();
                (start..end).try_for_each(|place| values.push(elements, place))
            }
        }
    }

    /// Elements of the list in a row, in lists of any depth.
    fn n_elements(&self, row: usize) -> usize {
        match self {
            Self::List { ends, values } => {
                let (start, end) = ends.get(row).copied().unwrap_or_default();
                (start..end).map(|place| values.n_elements(place)).sum()
            }
            _ => 1,
        }
    }

    fn push_list(
        &self,
        elements: &mut ElementWriter,
        row: usize,
        width: usize,
    ) -> Result<(), Unfit> {
        let Self::List { .. } = self else { return Err(format!("a list of {width} values")) };
        if self.n_elements(row) != width {
            return Err(format!("a list of {width} values"));
        }
        self.push(elements, row)
    }

    fn time(&self, row: usize) -> Option<i64> {
        if self.is_null(row) {
            return None;
        }
        match self {
            Self::Time(array) => Some(array.as_primitive::<TimestampMillisecondType>().value(row)),
            Self::Signed(array) => {
                times::from_number(array.as_primitive::<Int64Type>().value(row) as f64)
            }
            Self::Unsigned(array) => {
                times::from_number(array.as_primitive::<UInt64Type>().value(row) as f64)
            }
            Self::Number(array) => {
                times::from_number(array.as_primitive::<Float64Type>().value(row))
            }
            _ => None,
        }
    }

    /// The value as text; empty where it is missing.
    fn text(&self, row: usize) -> String {
        if self.is_null(row) {
            return String::new();
        }
        match self {
            Self::Number(array) => array.as_primitive::<Float64Type>().value(row).to_string(),
            Self::Signed(array) => array.as_primitive::<Int64Type>().value(row).to_string(),
            Self::Unsigned(array) => array.as_primitive::<UInt64Type>().value(row).to_string(),
            Self::Bool(array) => array.as_boolean().value(row).to_string(),
            Self::Bytes(array) => {
                String::from_utf8_lossy(array.as_binary::<i32>().value(row)).into_owned()
            }
            Self::Text(array) => array.as_string::<i32>().value(row).to_owned(),
            Self::Time(array) => {
                array.as_primitive::<TimestampMillisecondType>().value(row).to_string()
            }
            Self::List { .. } => format!("a list of {} values", self.n_elements(row)),
        }
    }

    fn show(&self, row: usize) -> String {
        match self {
            Self::List { .. } => self.text(row),
            _ => super::csv::quoted(self.text(row).as_bytes()),
        }
    }
}
