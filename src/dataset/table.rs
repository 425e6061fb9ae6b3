//! Columns of a table in memory, to the tensor of an input.
//!
//! Columns of numbers become elements without a look at each where type and layout agree, and in
//! one pass where they are another type of number (a data frame holds binary64 where a model takes
//! binary32); a row of several columns is then put together in blocks. All else goes value by
//! value, which says of the first that does not fit where it stands.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray, RecordBatch};
use arrow_schema::DataType;
use bytes::Bytes;

use super::column::{Column, column};
use super::elements::shape;
use super::{DatasetError, InputColumns, Place};
use crate::tensor::{Datatype, ElementWriter, Tensor, Unfit};

/// The tensor of an input from the columns of `batch`, whose first row is row `first_row` of all.
/// Texts of more than `limit` bytes are refused.
pub(super) fn input(
    batch: &RecordBatch,
    input: &InputColumns,
    first_row: u64,
    limit: usize,
) -> Result<Tensor, DatasetError> {
    let n_rows = batch.num_rows();
    let reader = Reader { batch, input, first_row, limit };
    if input.is_list() {
        return reader.lists(&input.columns[0]);
    }
    let columns = input.columns.iter().map(|name| reader.column(name));
    let columns = columns.collect::<Result<Vec<Tensor>, _>>()?;
    let (datatype, shape) = (input.spec.datatype, shape(input, n_rows));
    Ok(match columns.as_slice() {
        [only] => Tensor::new(datatype, shape, only.data().clone())?,
        columns => Tensor::interleave(datatype, shape, columns)?,
    })
}

struct Reader<'a> {
    batch: &'a RecordBatch,
    input: &'a InputColumns,
    first_row: u64,
    limit: usize,
}

impl Reader<'_> {
    fn failed(&self, name: &str, row: usize, expected: Unfit, actual: String) -> DatasetError {
        let place = Place::Row(self.first_row + row as u64 + 1);
        DatasetError::Cell { place, column: name.to_owned(), expected, actual }
    }

    /// A column with one value a row.
    fn column(&self, name: &str) -> Result<Tensor, DatasetError> {
        let datatype = self.input.spec.datatype;
        let n_rows = self.batch.num_rows();
        if let Some(data) = self.batch.column_by_name(name).and_then(|a| direct(a, datatype)) {
            return Ok(Tensor::new(datatype, [n_rows].as_slice(), data)?);
        }
        let elements = self.one_by_one(name, Column::push)?;
        Ok(Tensor::new(datatype, [n_rows].as_slice(), elements)?)
    }

    /// A column with a list of all values of a row.
    fn lists(&self, name: &str) -> Result<Tensor, DatasetError> {
        let width = self.input.width;
        let datatype = self.input.spec.datatype;
        let array = self.batch.column_by_name(name);
        let direct = array.and_then(|array| direct(&even(array, width)?, datatype));
        let data = match direct {
            Some(data) => data,
            None => self
                .one_by_one(name, |column, elements, row| column.push_list(elements, row, width))?,
        };
        Ok(Tensor::new(datatype, shape(self.input, self.batch.num_rows()), data)?)
    }

    fn one_by_one(
        &self,
        name: &str,
        push: impl Fn(&Column, &mut ElementWriter, usize) -> Result<(), Unfit>,
    ) -> Result<Bytes, DatasetError> {
        let column = column(self.batch, name)?;
        let mut elements = ElementWriter::new(self.input.spec.datatype);
        for row in 0..self.batch.num_rows() {
            let pushed = push(&column, &mut elements, row);
            pushed.map_err(|expected| self.failed(name, row, expected, column.show(row)))?;
            if elements.data().len() > self.limit {
                return Err(DatasetError::TooLarge { limit: self.limit });
            }
        }
        Ok(elements.into_data())
    }
}

/// The values of lists that all have `width` of them.
fn even(array: &ArrayRef, width: usize) -> Option<ArrayRef> {
    fn values(
        offsets: &[impl Copy + TryInto<usize>],
        values: &ArrayRef,
        width: usize,
    ) -> Option<ArrayRef> {
        let mut places = offsets.iter().map(|&offset| offset.try_into().ok());
        let first: usize = places.next()??;
        let mut end = first;
        for place in places {
            end = end.checked_add(width)?;
            if place? != end {
                return None;
            }
        }
        (end <= values.len()).then(|| values.slice(first, end - first))
    }
    if array.null_count() > 0 {
        return None;
    }
    match array.data_type() {
        DataType::FixedSizeList(_, size) if usize::try_from(*size) == Ok(width) => {
            let lists = array.as_fixed_size_list();
            let first = lists.value_offset_at(0);
            let n_values = lists.len().checked_mul(width)?;
            let end = first.checked_add(n_values)?;
            (end <= lists.values().len()).then(|| lists.values().slice(first, n_values))
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            values(lists.offsets(), lists.values(), width)
        }
        DataType::LargeList(_) => {
            let lists = array.as_list::<i64>();
            values(lists.offsets(), lists.values(), width)
        }
        _ => None,
    }
}

/// A column of numbers as elements of `datatype`, where all of them fit; nothing else.
fn direct(array: &ArrayRef, datatype: Datatype) -> Option<Bytes> {
    macro_rules! numbers {
        ($type:ty, $own:ident, $wide:expr) => {
            numbers(array.as_primitive::<$type>(), Datatype::$own, datatype, $wide)
        };
    }
    match array.data_type() {
        DataType::Float32 => numbers!(Float32Type, Fp32, f64::from),
        DataType::Float64 => numbers!(Float64Type, Fp64, |value| value),
        DataType::Float16 => numbers!(Float16Type, Fp16, f64::from),
        DataType::Int8 => numbers!(Int8Type, Int8, f64::from),
        DataType::Int16 => numbers!(Int16Type, Int16, f64::from),
        DataType::Int32 => numbers!(Int32Type, Int32, f64::from),
        DataType::Int64 => numbers!(Int64Type, Int64, |value| value as f64),
        DataType::UInt8 => numbers!(UInt8Type, Uint8, f64::from),
        DataType::UInt16 => numbers!(UInt16Type, Uint16, f64::from),
        DataType::UInt32 => numbers!(UInt32Type, Uint32, f64::from),
        DataType::UInt64 => numbers!(UInt64Type, Uint64, |value| value as f64),
        _ => None,
    }
}

fn numbers<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    own: Datatype,
    datatype: Datatype,
    wide: impl Fn(T::Native) -> f64,
) -> Option<Bytes> {
    let has_all = array.null_count() == 0;
    if own == datatype && has_all {
        // Shared with the request's body: nothing is copied.
        return Some(array.values().inner().clone().into());
    }
    let values = array.values().iter().map(|&value| wide(value));
    let with_gaps = |(row, value)| if array.is_null(row) { f64::NAN } else { value };
    match (datatype, has_all) {
        (Datatype::Fp32, true) => singles(values),
        (Datatype::Fp32, false) => singles(values.enumerate().map(with_gaps)),
        (Datatype::Fp64, true) => Some(doubles(values)),
        (Datatype::Fp64, false) => Some(doubles(values.enumerate().map(with_gaps))),
        _ => None,
    }
}

/// Nothing where one is finite and binary32 has no such number.
fn singles(values: impl ExactSizeIterator<Item = f64>) -> Option<Bytes> {
    let mut data = Vec::with_capacity(values.len() * 4);
    let mut fits = true;
    for value in values {
        let single = value as f32;
        fits &= single.is_finite() || !value.is_finite();
        data.extend_from_slice(&single.to_le_bytes());
    }
    fits.then(|| data.into())
}

fn doubles(values: impl ExactSizeIterator<Item = f64>) -> Bytes {
    let mut data = Vec::with_capacity(values.len() * 8);
    values.for_each(|value| data.extend_from_slice(&value.to_le_bytes()));
    data.into()
}
