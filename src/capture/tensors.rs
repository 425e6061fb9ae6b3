//! One tensor's columns: its bytes, its datatype and shape, and its features where they are columns
//! of their own.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder,
    StringBuilder, UInt64Builder,
};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, Int32Array, StringArray};
use half::{bf16, f16};

use super::redact;
use super::subject::TensorPlan;
use crate::handoff::Copied;
use crate::tensor::{Datatype, Elements};

/// A column of few different texts.
#[derive(Debug, Default)]
pub(super) struct Words {
    keys: Int32Builder,
    texts: Vec<Box<str>>,
    positions: HashMap<Box<str>, i32>,
    last: i32,
}

impl Words {
    /// Appends a text.
    pub(super) fn push(&mut self, text: &str) {
        let is_last = usize::try_from(self.last)
            .is_ok_and(|at| self.texts.get(at).is_some_and(|t| **t == *text));
        if !is_last {
            self.last = match self.positions.get(text) {
                Some(position) => *position,
                None => {
                    let position = i32::try_from(self.texts.len()).unwrap_or(i32::MAX);
                    self.texts.push(text.into());
                    self.positions.insert(text.into(), position);
                    position
                }
            };
        }
        self.keys.append_value(self.last);
    }

    /// Appends nothing.
    pub(super) fn push_null(&mut self) {
        self.keys.append_null();
    }

    /// The column; empty afterwards.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let keys = self.keys.finish();
        let texts = StringArray::from_iter_values(self.texts.drain(..));
        self.positions.clear();
        self.last = 0;
        dictionary(keys, texts)
    }
}

/// A column that has the same text `n` times.
pub(super) fn same(text: &str, n: usize) -> ArrayRef {
    dictionary(Int32Array::from(vec![0; n]), StringArray::from_iter_values([text]))
}

fn dictionary(keys: Int32Array, texts: StringArray) -> ArrayRef {
    let texts: ArrayRef = Arc::new(texts);
    match DictionaryArray::<Int32Type>::try_new(keys.clone(), Arc::clone(&texts)) {
        Ok(array) => Arc::new(array),
        // Keys are positions of texts: this does not happen, and would be no reason to panic.
        Err(_) => {
            Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::new_null(keys.len()), texts))
        }
    }
}

/// The columns of one tensor.
#[derive(Debug)]
pub(super) struct TensorColumns {
    data: BinaryBuilder,
    shape: Words,
    /// The last shape, and as text.
    last: (Vec<usize>, String),
    features: Vec<Values>,
}

/// A feature's values.
#[derive(Debug)]
enum Values {
    Boolean(BooleanBuilder),
    Signed(Int64Builder),
    Unsigned(UInt64Builder),
    Single(Float32Builder),
    Double(Float64Builder),
    Text(StringBuilder),
}

/// Where one row of a tensor is.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowPart<'a> {
    pub(super) shape_tail: &'a [usize],
    pub(super) rows: usize,
    pub(super) data: &'a [u8],
}

impl TensorColumns {
    pub(super) fn new(plan: &TensorPlan) -> Self {
        let values = |_: &String| match plan.spec.datatype {
            Datatype::Bool => Values::Boolean(BooleanBuilder::new()),
            Datatype::Uint64 => Values::Unsigned(UInt64Builder::new()),
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 => {
                Values::Single(Float32Builder::new())
            }
            Datatype::Fp64 => Values::Double(Float64Builder::new()),
            Datatype::Bytes => Values::Text(StringBuilder::new()),
            _ => Values::Signed(Int64Builder::new()),
        };
        Self {
            data: BinaryBuilder::new(),
            shape: Words::default(),
            last: (Vec::new(), String::new()),
            features: plan.decoded.iter().map(values).collect(),
        }
    }

    /// Appends a row where there is no tensor.
    pub(super) fn push_null(&mut self) {
        self.data.append_null();
        self.shape.push_null();
        self.features.iter_mut().for_each(Values::push_null);
    }

    /// Appends a part of a tensor; returns the bytes that it takes.
    pub(super) fn push(&mut self, plan: &TensorPlan, part: RowPart<'_>) -> usize {
        let RowPart { shape_tail, rows, data } = part;
        let is_scalar = plan.spec.shape.is_empty();
        let is_same = |last: &[usize]| match last.split_first() {
            Some((first, tail)) => !is_scalar && *first == rows && tail == shape_tail,
            None => is_scalar,
        };
        if self.last.1.is_empty() || !is_same(&self.last.0) {
            let mut shape = vec![rows];
            shape.extend_from_slice(shape_tail);
            if is_scalar {
                shape.clear();
            }
            self.last.1 = format!("{} {shape:?}", plan.spec.datatype);
            self.last.0 = shape;
        }
        self.shape.push(&self.last.1);
        let datatype = plan.spec.datatype;
        let redacted;
        let data = match plan.redactor.is_idle() {
            true => data,
            false => {
                let width = shape_tail.iter().product();
                redacted = plan.redactor.redact(datatype, width, data);
                &redacted
            }
        };
        self.data.append_value(data);
        if !self.features.is_empty() {
            self.decode(plan, data);
        }
        data.len()
    }

    /// Appends the features of one row.
    fn decode(&mut self, plan: &TensorPlan, data: &[u8]) {
        let drops = |column: usize| plan.redactor.drops(column);
        match plan.spec.datatype.size() {
            Some(size) => {
                let mut elements = data.chunks_exact(size);
                for (column, values) in self.features.iter_mut().enumerate() {
                    match elements.next().filter(|_| !drops(column)) {
                        Some(element) => values.push(plan.spec.datatype, element),
                        None => values.push_null(),
                    }
                }
            }
            None => {
                let mut elements = Elements::of(data);
                for (column, values) in self.features.iter_mut().enumerate() {
                    match (elements.next().filter(|_| !drops(column)), values) {
                        (Some(element), Values::Text(builder)) => {
                            builder.append_value(String::from_utf8_lossy(element));
                        }
                        (_, values) => values.push_null(),
                    }
                }
            }
        }
    }

    /// The columns: bytes, datatype and shape, features; empty afterwards.
    pub(super) fn finish(&mut self, into: &mut Vec<ArrayRef>) {
        into.push(Arc::new(self.data.finish()));
        into.push(self.shape.finish());
        into.extend(self.features.iter_mut().map(Values::finish));
    }
}

impl Values {
    fn push_null(&mut self) {
        match self {
            Self::Boolean(builder) => builder.append_null(),
            Self::Signed(builder) => builder.append_null(),
            Self::Unsigned(builder) => builder.append_null(),
            Self::Single(builder) => builder.append_null(),
            Self::Double(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
        }
    }

    fn push(&mut self, datatype: Datatype, element: &[u8]) {
        macro_rules! number {
            ($type:ty) => {
                element.try_into().map(<$type>::from_le_bytes).unwrap_or_default()
            };
        }
        match self {
            Self::Boolean(builder) => builder.append_value(element == [1]),
            Self::Unsigned(builder) => builder.append_value(number!(u64)),
            Self::Double(builder) => builder.append_value(number!(f64)),
            Self::Single(builder) => builder.append_value(match datatype {
                Datatype::Fp16 => number!(f16).to_f32(),
                Datatype::Bf16 => number!(bf16).to_f32(),
                _ => number!(f32),
            }),
            Self::Signed(builder) => builder.append_value(match datatype {
                Datatype::Int64 => number!(i64),
                // Whole numbers of 32 bits and less, which binary64 holds.
                _ => redact::value(datatype, element).unwrap_or_default() as i64,
            }),
            Self::Text(_) => {}
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Signed(builder) => Arc::new(builder.finish()),
            Self::Unsigned(builder) => Arc::new(builder.finish()),
            Self::Single(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
        }
    }
}

/// A tensor's rows one by one; nothing where it does not have `n_rows` of them.
pub(super) fn rows_of<'a>(tensor: &Copied<'a>, n_rows: usize) -> Option<Vec<RowPart<'a>>> {
    let (first, tail) = tensor.shape.split_first()?;
    if *first != n_rows || n_rows == 0 {
        return None;
    }
    let mut rest = tensor.data;
    let per_row: usize = tail.iter().product();
    let mut parts = Vec::with_capacity(n_rows);
    for _ in 0..n_rows {
        let length = match tensor.datatype.size() {
            Some(size) => per_row * size,
            None => {
                Elements::of(rest).take(per_row).map(|element| 4 + element.len()).sum::<usize>()
            }
        };
        let (data, after) = rest.split_at_checked(length)?;
        parts.push(RowPart { shape_tail: tail, rows: 1, data });
        rest = after;
    }
    Some(parts)
}

/// The tensor as one part.
pub(super) fn whole<'a>(tensor: &Copied<'a>) -> RowPart<'a> {
    let (rows, tail) =
        tensor.shape.split_first().map_or((1, &[][..]), |(rows, tail)| (*rows, tail));
    RowPart { shape_tail: tail, rows, data: tensor.data }
}
