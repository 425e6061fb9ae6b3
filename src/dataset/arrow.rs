//! Arrow IPC streams: the columns of a request, as data frames and query engines send them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use bytes::{Bytes, BytesMut};

use super::stream::{check, check_types, invalid};
use super::{DatasetError, InputColumns, Table, check_names, match_columns, table};
use crate::tensor::{Shape, Tensor, TensorSpec};

/// The rows of an Arrow IPC stream as tensors of `specs`. `names` are the features' names by input;
/// columns that no input asks for are passed over. Where type and layout agree, elements are shared
/// with `body`. Rows that take more than `limit` bytes, decompressed or as tensors, are refused.
pub fn read_arrow(
    body: &Bytes,
    specs: &[TensorSpec],
    names: &BTreeMap<String, Vec<String>>,
    limit: usize,
) -> Result<Table, DatasetError> {
    let schema_end = check(body, limit)?;
    // What was checked should be read without one; but the decoder was not written for strangers,
    // and whatever a body holds, its sender is told so.
    let read = catch_unwind(AssertUnwindSafe(|| batches(body, schema_end)));
    let (columns, batches) = read.unwrap_or_else(|_| Err(invalid("its columns are broken")))?;
    let inputs = match_columns(&columns, specs, names, &[])?;
    let mut n_rows = 0_usize;
    for batch in &batches {
        n_rows = n_rows.checked_add(batch.num_rows()).ok_or(DatasetError::TooLarge { limit })?;
    }
    fits(&inputs, n_rows, limit)?;
    let tensors = inputs.iter().map(|input| {
        let mut parts = Vec::with_capacity(batches.len());
        let mut first_row = 0;
        let mut left = limit;
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            let part = table::input(batch, input, first_row, left)?;
            left = left.saturating_sub(part.data().len());
            first_row += batch.num_rows() as u64;
            parts.push(part);
        }
        join(parts, n_rows)
    });
    Ok(Table { n_rows, inputs: tensors.collect::<Result<_, _>>()? })
}

/// The columns' names and all batches.
fn batches(
    body: &Bytes,
    schema_end: usize,
) -> Result<(Vec<String>, Vec<RecordBatch>), DatasetError> {
    let mut decoder = StreamDecoder::new();
    // The decoder takes the schema in as soon as a byte follows it.
    let schema_end = body.len().min(schema_end + 1);
    let mut schema = Buffer::from(body.slice(..schema_end));
    decoder.decode(&mut schema).map_err(invalid)?;
    let schema = decoder.schema().ok_or_else(|| invalid("there are no rows"))?;
    check_types(&schema)?;
    let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    check_names(&columns)?;
    let mut batches = Vec::new();
    let mut rest = Buffer::from(body.slice(schema_end..));
    while let Some(batch) = decoder.decode(&mut rest).map_err(invalid)? {
        batches.push(batch);
    }
    decoder.finish().map_err(invalid)?;
    Ok((columns, batches))
}

/// Whether so many rows are within the limit, and there are as many as the model takes.
pub(super) fn fits(
    inputs: &[InputColumns],
    n_rows: usize,
    limit: usize,
) -> Result<(), DatasetError> {
    if n_rows == 0 {
        return Err(DatasetError::Column("there are no rows".to_owned()));
    }
    if n_rows > 1 && inputs.iter().any(|input| input.is_whole) {
        let message = format!("the model takes one row a request, there are {n_rows}");
        return Err(DatasetError::Column(message));
    }
    // A text takes its length at least.
    let row = inputs
        .iter()
        .map(|input| input.width.saturating_mul(input.spec.datatype.size().unwrap_or(4)));
    let size = row.sum::<usize>().max(1).saturating_mul(n_rows);
    if size > limit { Err(DatasetError::TooLarge { limit }) } else { Ok(()) }
}

/// The rows of all batches behind one another.
fn join(mut parts: Vec<Tensor>, n_rows: usize) -> Result<Tensor, DatasetError> {
    let Some(last) = parts.pop() else {
        return Err(DatasetError::Column("there are no rows".to_owned()));
    };
    if parts.is_empty() {
        return Ok(last);
    }
    parts.push(last);
    let mut shape = Shape::from_slice(parts[0].shape());
    if let Some(first) = shape.first_mut() {
        *first = n_rows;
    }
    let mut data = BytesMut::with_capacity(parts.iter().map(|part| part.data().len()).sum());
    parts.iter().for_each(|part| data.extend_from_slice(part.data()));
    Ok(Tensor::new(parts[0].datatype(), shape, data.freeze())?)
}
