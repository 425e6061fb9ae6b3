//! Parquet: columns of numbers, texts, booleans, times, or lists of them.

use std::fs::File;
use std::path::Path;

use arrow_array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::column::column;
use super::{Batch, DatasetError, Extra, ExtraValues, InputColumns, Place, table, times};

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
        let most = usize::MAX;
        let inputs = self.inputs.iter().map(|input| table::input(&batch, input, self.n_read, most));
        let inputs = inputs.collect::<Result<_, _>>()?;
        let extras = self.extras.iter().map(|extra| self.extra(&batch, extra));
        let extras = extras.collect::<Result<_, _>>()?;
        self.n_read += n_rows as u64;
        Ok(Some(Batch { n_rows, inputs, extras, position: self.n_read }))
    }

    fn extra(&self, batch: &RecordBatch, extra: &Extra) -> Result<ExtraValues, DatasetError> {
        let (Extra::Time(name) | Extra::Text(name)) = extra;
        let column = column(batch, name)?;
        let mut values = ExtraValues::of(extra);
        for row in 0..batch.num_rows() {
            let pushed = match (&mut values, &column) {
                (ExtraValues::Times(values), column) if !column.is_text() => {
                    let time = column.time(row);
                    time.map(|time| values.push(time)).ok_or_else(|| times::EXPECTED.to_owned())
                }
                (values, column) => values.push_text(&column.text(row)),
            };
            pushed.map_err(|expected| DatasetError::Cell {
                place: Place::Row(self.n_read + row as u64 + 1),
                column: name.clone(),
                expected,
                actual: column.show(row),
            })?;
        }
        Ok(values)
    }
}
