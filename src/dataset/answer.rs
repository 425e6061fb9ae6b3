//! Tensors as the rows of an answer: an Arrow stream, or CSV.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, make_array};
use arrow_array::{
    BinaryArray, FixedSizeListArray, LargeBinaryArray, LargeStringArray, StringArray,
};
use arrow_buffer::Buffer;
use arrow_data::ArrayData;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use half::{bf16, f16};

use super::DatasetError;
use crate::tensor::{Datatype, Tensor};

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerColumn {
    /// What it is called.
    pub name: String,
    /// The position of the tensor that it is of, whose first dimension are the rows.
    pub output: usize,
    /// The element of each row that it holds; nothing for all of them, as a list.
    pub element: Option<usize>,
}

fn failed(error: impl ToString) -> DatasetError {
    DatasetError::Column(format!("the answer cannot be written: {}", error.to_string()))
}

/// An Arrow IPC stream with one batch of `columns`, and `metadata` in its schema. Columns that are
/// all of a tensor share its memory until they are written.
pub fn write_arrow(
    columns: &[AnswerColumn],
    outputs: &[Tensor],
    n_rows: usize,
    metadata: HashMap<String, String>,
) -> Result<Vec<u8>, DatasetError> {
    let mut fields = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    for column in columns {
        let Some(tensor) = outputs.get(column.output) else { continue };
        let array = array(tensor, n_rows, column.element)?;
        fields.push(Field::new(&column.name, array.data_type().clone(), false));
        arrays.push(array);
    }
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), arrays, &options);
    let batch = batch.map_err(failed)?;
    let size = outputs.iter().map(|output| output.data().len()).sum::<usize>();
    let mut writer =
        StreamWriter::try_new(Vec::with_capacity(size + 4096), &schema).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.into_inner().map_err(failed)
}

fn width(tensor: &Tensor, n_rows: usize) -> usize {
    tensor.len().checked_div(n_rows).unwrap_or(0)
}

fn array(tensor: &Tensor, n_rows: usize, element: Option<usize>) -> Result<ArrayRef, DatasetError> {
    let width = width(tensor, n_rows);
    match element {
        Some(element) => elements(tensor, element, width),
        None => {
            let values = elements(tensor, 0, 1)?;
            let size = i32::try_from(width).map_err(failed)?;
            let field = Arc::new(Field::new_list_field(values.data_type().clone(), false));
            let lists = FixedSizeListArray::try_new(field, size, values, None);
            Ok(Arc::new(lists.map_err(failed)?))
        }
    }
}

/// Every `step`th element from `first` on.
fn elements(tensor: &Tensor, first: usize, step: usize) -> Result<ArrayRef, DatasetError> {
    let datatype = match tensor.datatype() {
        Datatype::Bytes => return Ok(texts(tensor, first, step)),
        Datatype::Bool => {
            let flags = tensor.data().iter().skip(first).step_by(step.max(1));
            return Ok(Arc::new(BooleanArray::from_iter(flags.map(|&flag| Some(flag != 0)))));
        }
        // Arrow has no such type.
        Datatype::Bf16 => {
            let halves = tensor.data().as_chunks::<2>().0.iter().skip(first).step_by(step.max(1));
            let singles: Vec<f32> =
                halves.map(|half| bf16::from_le_bytes(*half).to_f32()).collect();
            return Ok(Arc::new(arrow_array::Float32Array::from(singles)));
        }
        Datatype::Uint8 => DataType::UInt8,
        Datatype::Uint16 => DataType::UInt16,
        Datatype::Uint32 => DataType::UInt32,
        Datatype::Uint64 => DataType::UInt64,
        Datatype::Int8 => DataType::Int8,
        Datatype::Int16 => DataType::Int16,
        Datatype::Int32 => DataType::Int32,
        Datatype::Int64 => DataType::Int64,
        Datatype::Fp16 => DataType::Float16,
        Datatype::Fp32 => DataType::Float32,
        Datatype::Fp64 => DataType::Float64,
    };
    let size = tensor.datatype().size().unwrap_or(1);
    let data: Bytes = match step {
        1 => tensor.data().slice(first * size..),
        step => {
            let picked = tensor.data().chunks_exact(size).skip(first).step_by(step.max(1));
            picked.flatten().copied().collect::<Vec<u8>>().into()
        }
    };
    let n = data.len() / size;
    let array = ArrayData::builder(datatype).len(n).add_buffer(Buffer::from(data));
    // A tensor's bytes may stand anywhere.
    Ok(make_array(array.align_buffers(true).build().map_err(failed)?))
}

/// Texts where all are, else bytes.
fn texts(tensor: &Tensor, first: usize, step: usize) -> ArrayRef {
    let elements = || tensor.elements().skip(first).step_by(step.max(1));
    let is_text = elements().all(|element| std::str::from_utf8(element).is_ok());
    let is_large = i32::try_from(tensor.data().len()).is_err();
    let text = |element| std::str::from_utf8(element).unwrap_or_default();
    match (is_text, is_large) {
        (true, false) => Arc::new(StringArray::from_iter_values(elements().map(text))),
        (true, true) => Arc::new(LargeStringArray::from_iter_values(elements().map(text))),
        (false, false) => Arc::new(BinaryArray::from_iter_values(elements())),
        (false, true) => Arc::new(LargeBinaryArray::from_iter_values(elements())),
    }
}

/// CSV with a header line. A column of lists becomes a column an element, `NAME_0`, `NAME_1`, ...
pub fn write_csv(
    columns: &[AnswerColumn],
    outputs: &[Tensor],
    n_rows: usize,
) -> Result<Vec<u8>, DatasetError> {
    let mut header = Vec::new();
    let mut placed = Vec::new();
    for column in columns {
        let Some(tensor) = outputs.get(column.output) else { continue };
        let width = width(tensor, n_rows);
        let cells = texts_of(tensor);
        let elements = match column.element {
            Some(element) => element..element + 1,
            None => 0..width,
        };
        for element in elements.clone() {
            header.push(match column.element {
                Some(_) => column.name.clone(),
                None => format!("{}_{element}", column.name),
            });
        }
        placed.push((cells, width, elements));
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(&header).map_err(failed)?;
    for row in 0..n_rows {
        for (cells, width, elements) in &placed {
            for element in elements.clone() {
                writer.write_field(cells(row * width + element)).map_err(failed)?;
            }
        }
        writer.write_record(None::<&[u8]>).map_err(failed)?;
    }
    writer.into_inner().map_err(failed)
}

type Cells<'a> = Box<dyn Fn(usize) -> Vec<u8> + 'a>;

/// A tensor's elements as texts.
fn texts_of(tensor: &Tensor) -> Cells<'_> {
    let data = tensor.data();
    macro_rules! numbers {
        ($type:ty) => {{
            let (chunks, _) = data.as_chunks::<{ size_of::<$type>() }>();
            Box::new(move |index| {
                let value = chunks.get(index).map(|bytes| <$type>::from_le_bytes(*bytes));
                value.map(|value| value.to_string()).unwrap_or_default().into_bytes()
            })
        }};
    }
    match tensor.datatype() {
        Datatype::Bytes => {
            let elements: Vec<&[u8]> = tensor.elements().collect();
            Box::new(move |index| elements.get(index).map(|e| e.to_vec()).unwrap_or_default())
        }
        Datatype::Bool => Box::new(move |index| match data.get(index) {
            Some(1) => b"true".to_vec(),
            _ => b"false".to_vec(),
        }),
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
    }
}
