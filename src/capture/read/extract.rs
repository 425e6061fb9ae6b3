//! Some rows of files as files of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::Array;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_schema::DataType;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::ReadError;
use super::requests::{column, open};
use crate::capture::names;

/// Writes the rows of the request of id `request_id`, and of `batch` of the process `run_id` where one
/// is given, from `files` to `folder`, as they are. Returns the files that were written.
pub fn extract(
    files: &[PathBuf],
    request_id: &str,
    batch: Option<(&str, u64)>,
    folder: &Path,
) -> Result<Vec<PathBuf>, ReadError> {
    let mut written = Vec::new();
    for path in files {
        let invalid = |reason: String| ReadError::Invalid { path: path.clone(), reason };
        let (reader, _) = open(path, |_| true)?;
        let mut parts = Vec::new();
        for rows in reader {
            let rows = rows.map_err(|error| invalid(error.to_string()))?;
            parts.extend(matching(&rows, request_id, batch).map_err(invalid)?);
        }
        let Some(first) = parts.first() else { continue };
        let out = folder.join(path.file_name().unwrap_or_default());
        let cannot = |error| ReadError::Io { path: out.clone(), error };
        std::fs::create_dir_all(folder).map_err(cannot)?;
        let file = File::create(&out).map_err(cannot)?;
        let zstd = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(zstd).build();
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let failed =
            |error: parquet::errors::ParquetError| cannot(std::io::Error::other(error.to_string()));
        let writer =
            ArrowWriter::try_new_with_options(file, Arc::clone(first.schema_ref()), options);
        let mut writer = writer.map_err(failed)?;
        for part in &parts {
            writer.write(part).map_err(failed)?;
        }
        writer.close().map_err(failed)?;
        written.push(out);
    }
    Ok(written)
}

/// The wanted rows, in their order.
fn matching(
    rows: &RecordBatch,
    request_id: &str,
    batch: Option<(&str, u64)>,
) -> Result<Vec<RecordBatch>, String> {
    let ids = column(rows, names::REQUEST_ID, &DataType::Utf8)?;
    let runs = column(rows, names::RUN_ID, &DataType::Utf8)?;
    let batches = column(rows, names::BATCH, &DataType::Int64)?;
    let is_wanted = |row: usize| {
        let is_member = batch.is_some_and(|(run, number)| {
            let numbers = batches.as_primitive::<Int64Type>();
            !numbers.is_null(row)
                && u64::try_from(numbers.value(row)) == Ok(number)
                && runs.as_string::<i32>().value(row) == run
        });
        is_member || ids.as_string::<i32>().value(row) == request_id
    };
    Ok((0..rows.num_rows()).filter(|&row| is_wanted(row)).map(|row| rows.slice(row, 1)).collect())
}
