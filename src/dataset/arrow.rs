//! Arrow IPC streams: the columns of a request, as data frames and query engines send them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use bytes::{Bytes, BytesMut};

use super::stream::{check, invalid};
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
    // The decoder asserts what it takes for granted of its streams. What is known of that was checked;
    // should a stream of strangers find something else, it is their mistake, and they are told so.
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::dataset::{AnswerColumn, write_arrow};
    use crate::tensor::Datatype;

    const LIMIT: usize = 1 << 20;

    fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
        let shape = shape.iter().map(|&dim| usize::try_from(dim).ok()).collect();
        TensorSpec { name: name.to_owned(), datatype, shape }
    }

    fn specs() -> Vec<TensorSpec> {
        vec![
            spec("x", Datatype::Fp32, &[-1, 3]),
            spec("n", Datatype::Int64, &[-1]),
            spec("flag", Datatype::Bool, &[-1, 1]),
            spec("word", Datatype::Bytes, &[-1, 1]),
        ]
    }

    /// Tensors as an answer writes them.
    fn written(n_rows: usize) -> (Vec<Tensor>, Vec<u8>) {
        let x: Vec<u8> = (0..n_rows * 3).flat_map(|index| (index as f32).to_le_bytes()).collect();
        let n: Vec<u8> = (0..n_rows).flat_map(|row| (row as i64).to_le_bytes()).collect();
        let flags: Vec<u8> = (0..n_rows).map(|row| u8::from(row % 3 == 0)).collect();
        let words = (0..n_rows).map(|row| format!("word {row}"));
        let tensors = vec![
            Tensor::new(Datatype::Fp32, [n_rows, 3].as_slice(), x.into()).unwrap(),
            Tensor::new(Datatype::Int64, [n_rows].as_slice(), n.into()).unwrap(),
            Tensor::new(Datatype::Bool, [n_rows, 1].as_slice(), flags.into()).unwrap(),
            Tensor::from_elements([n_rows, 1].as_slice(), words).unwrap(),
        ];
        let column =
            |name: &str, output, element| AnswerColumn { name: name.to_owned(), output, element };
        let columns = [
            column("x_2", 0, Some(2)),
            column("x_0", 0, Some(0)),
            column("x_1", 0, Some(1)),
            column("n", 1, Some(0)),
            column("flag", 2, Some(0)),
            column("word", 3, Some(0)),
            column("all", 0, None),
        ];
        let stream = write_arrow(&columns, &tensors, n_rows, HashMap::new()).unwrap();
        (tensors, stream)
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        for n_rows in [1, 7, 1000] {
            let (tensors, stream) = written(n_rows);
            let table = read_arrow(&stream.clone().into(), &specs(), &BTreeMap::new(), LIMIT);
            let table = table.unwrap();
            assert_eq!((table.n_rows, &table.inputs), (n_rows, &tensors));
            let all = [spec("all", Datatype::Fp32, &[-1, 3])];
            let table = read_arrow(&stream.into(), &all, &BTreeMap::new(), LIMIT).unwrap();
            assert_eq!(table.inputs[0], tensors[0]);
        }
    }

    #[test]
    fn numbers_of_the_right_type_are_shared_with_the_body() {
        let (_, stream) = written(1000);
        // Whatever stands before the body in memory, some start is aligned as the elements must be.
        let shared = (0..8).any(|shift| {
            let mut shifted = vec![0; shift];
            shifted.extend_from_slice(&stream);
            let body = Bytes::from(shifted).slice(shift..);
            let n = [spec("n", Datatype::Int64, &[-1])];
            let table = read_arrow(&body, &n, &BTreeMap::new(), LIMIT).unwrap();
            body.as_ptr_range().contains(&table.inputs[0].data().as_ptr())
        });
        assert!(shared);
    }

    #[test]
    fn a_damaged_stream_is_an_error_or_other_rows() {
        let (_, stream) = written(20);
        let specs = specs();
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let mut body = stream.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..body.len());
                match random.u8(..6) {
                    0 => body[at] ^= 1 << random.u8(..8),
                    1 => body[at] = random.u8(..),
                    2 => body[at] = 0xff,
                    3 => {
                        let end = (at + random.usize(1..9)).min(body.len());
                        body[at..end].fill(0xff);
                    }
                    4 => {
                        body.drain(at..(at + random.usize(1..64)).min(body.len()));
                    }
                    _ => body.truncate(at),
                }
                if body.is_empty() {
                    break;
                }
            }
            match read_arrow(&body.into(), &specs, &BTreeMap::new(), LIMIT) {
                Ok(table) => assert!(table.inputs.iter().all(|i| i.rows() == table.n_rows)),
                // The net below the decoder has nothing to catch.
                Err(error) => assert!(!error.to_string().contains("are broken"), "{error}"),
            }
        }
    }

    #[test]
    fn rows_are_limited() {
        let (_, stream) = written(1000);
        let error = read_arrow(&stream.into(), &specs(), &BTreeMap::new(), 10_000).unwrap_err();
        assert!(matches!(error, DatasetError::TooLarge { limit: 10_000 }), "{error}");
        let error = read_arrow(&Bytes::new(), &specs(), &BTreeMap::new(), LIMIT).unwrap_err();
        assert_eq!(error.to_string(), "it is not valid Arrow stream: it has no schema");
    }
}
