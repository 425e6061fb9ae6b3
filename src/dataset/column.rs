//! Columns of a table in memory: numbers, texts, booleans, times, or lists of them.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMillisecondType, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_schema::{DataType, TimeUnit};

use super::{DatasetError, times};
use crate::tensor::{ElementWriter, Unfit};

/// A column in one of a few forms. Texts and dictionaries stay as they are: what is small as a
/// dictionary may be of any size without it.
#[derive(Debug)]
pub(super) enum Column {
    Number(ArrayRef),
    Signed(ArrayRef),
    Unsigned(ArrayRef),
    Bool(ArrayRef),
    Bytes(ArrayRef),
    Text(ArrayRef),
    Time(ArrayRef),
    /// Positions of another column's values.
    Dictionary {
        keys: ArrayRef,
        values: Box<Column>,
    },
    /// There are none.
    Missing,
    List {
        ends: Vec<(usize, usize)>,
        values: Box<Column>,
    },
}

/// The column of that name.
pub(super) fn column(batch: &RecordBatch, name: &str) -> Result<Column, DatasetError> {
    let array = batch
        .column_by_name(name)
        .ok_or_else(|| DatasetError::Column(format!("column '{name}' is no longer there")))?;
    Column::new(array)
        .map_err(|reason| DatasetError::Column(format!("column '{name}' cannot be used: {reason}")))
}

impl Column {
    pub(super) fn new(array: &ArrayRef) -> Result<Self, String> {
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
            | DataType::BinaryView => Self::Bytes(Arc::clone(array)),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Self::Text(Arc::clone(array))
            }
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                let keys = cast(dictionary.keys(), &DataType::Int64).map_err(|e| e.to_string())?;
                Self::Dictionary { keys, values: list(dictionary.values())? }
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
            DataType::Null => Self::Missing,
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
            Self::Dictionary { keys, .. } => Some(keys),
            Self::List { .. } | Self::Missing => None,
        }
    }

    /// The bytes of a text or a binary value.
    fn bytes(&self, row: usize) -> &[u8] {
        let Some(array) = self.array() else { return &[] };
        match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().value(row).as_bytes(),
            DataType::LargeUtf8 => array.as_string::<i64>().value(row).as_bytes(),
            DataType::Utf8View => array.as_string_view().value(row).as_bytes(),
            DataType::Binary => array.as_binary::<i32>().value(row),
            DataType::LargeBinary => array.as_binary::<i64>().value(row),
            DataType::BinaryView => array.as_binary_view().value(row),
            DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(row),
            _ => &[],
        }
    }

    fn is_null(&self, row: usize) -> bool {
        self.array().map_or(matches!(self, Self::Missing), |array| array.is_null(row))
    }

    pub(super) fn push(&self, elements: &mut ElementWriter, row: usize) -> Result<(), Unfit> {
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
            Self::Bytes(_) => elements.push_bytes(self.bytes(row)),
            Self::Text(_) => {
                elements.push_text(std::str::from_utf8(self.bytes(row)).unwrap_or_default())
            }
            Self::Dictionary { keys, values } => values.push(elements, key(keys, row)),
            Self::Missing => elements.push_missing(),
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

    pub(super) fn push_list(
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

    pub(super) fn time(&self, row: usize) -> Option<i64> {
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
            Self::Dictionary { keys, values } => values.time(key(keys, row)),
            _ => None,
        }
    }

    /// Whether values are texts.
    pub(super) fn is_text(&self) -> bool {
        match self {
            Self::Dictionary { values, .. } => values.is_text(),
            _ => matches!(self, Self::Text(_) | Self::Missing),
        }
    }

    /// The value as text; empty where it is missing.
    pub(super) fn text(&self, row: usize) -> String {
        if self.is_null(row) {
            return String::new();
        }
        match self {
            Self::Number(array) => array.as_primitive::<Float64Type>().value(row).to_string(),
            Self::Signed(array) => array.as_primitive::<Int64Type>().value(row).to_string(),
            Self::Unsigned(array) => array.as_primitive::<UInt64Type>().value(row).to_string(),
            Self::Bool(array) => array.as_boolean().value(row).to_string(),
            Self::Bytes(_) | Self::Text(_) => String::from_utf8_lossy(self.bytes(row)).into_owned(),
            Self::Dictionary { keys, values } => values.text(key(keys, row)),
            Self::Missing => String::new(),
            Self::Time(array) => {
                array.as_primitive::<TimestampMillisecondType>().value(row).to_string()
            }
            Self::List { .. } => format!("a list of {} values", self.n_elements(row)),
        }
    }

    pub(super) fn show(&self, row: usize) -> String {
        match self {
            Self::List { .. } => self.text(row),
            _ => super::csv::quoted(self.text(row).as_bytes()),
        }
    }
}

/// The position that stands in a row of a dictionary's keys.
fn key(keys: &ArrayRef, row: usize) -> usize {
    usize::try_from(keys.as_primitive::<Int64Type>().value(row)).unwrap_or(usize::MAX)
}
