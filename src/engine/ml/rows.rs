//! Tensors as rows of values: what the operators of this domain work on.

use std::any::Any;

use std::borrow::Cow;

use tract_onnx::tract_core::internal::{
    Datum, DatumType, DimLike, IntoTensor, TDim, Tensor, TractResult, bail, ensure,
};
use tract_onnx::tract_core::prelude::tract_ndarray::{ArrayD, IxDyn};

use super::Rejected;
pub(super) use crate::engine::kernel::values;

/// The tensor's numbers as binary32, converted as C does.
#[expect(clippy::cast_precision_loss, reason = "what the specification's float outputs imply")]
#[expect(clippy::cast_possible_truncation, reason = "likewise")]
pub(super) fn floats(tensor: &Tensor) -> TractResult<Cow<'_, [f32]>> {
    Ok(match tensor.datum_type() {
        DatumType::F32 => Cow::Borrowed(values::<f32>(tensor)?),
        DatumType::F64 => values::<f64>(tensor)?.iter().map(|&x| x as f32).collect(),
        DatumType::I64 => values::<i64>(tensor)?.iter().map(|&x| x as f32).collect(),
        DatumType::I32 => values::<i32>(tensor)?.iter().map(|&x| x as f32).collect(),
        DatumType::Bool => {
            values::<bool>(tensor)?.iter().map(|&x| f32::from(u8::from(x))).collect()
        }
        other => bail!("takes numbers, not {other:?}"),
    })
}

/// A tensor of `data`, which fills `shape`.
pub(super) fn tensor<T: Datum>(shape: &[usize], data: Vec<T>) -> TractResult<Tensor> {
    // The way through an array is as long as a small operator: most outputs need not go it.
    let any: &dyn Any = &data;
    if let Some(data) = any.downcast_ref::<Vec<f32>>() {
        return Tensor::from_shape(shape, data);
    }
    if let Some(data) = any.downcast_ref::<Vec<i64>>() {
        return Tensor::from_shape(shape, data);
    }
    Ok(ArrayD::from_shape_vec(IxDyn(shape), data)?.into_tensor())
}

/// The most values that an output may have. The model's attributes and the request's rows decide
/// on it together, and an allocation that fails would end the process.
const LARGEST: usize = 1 << 28;

/// `rows` times `columns` zeros, or the request's refusal.
pub(super) fn zeros<T: Clone + Default>(rows: usize, columns: usize) -> TractResult<Vec<T>> {
    match rows.checked_mul(columns).filter(|&count| count <= LARGEST) {
        Some(count) => Ok(vec![T::default(); count]),
        None => {
            Err(Rejected(format!("{rows} rows of {columns} values are more than {LARGEST}")).into())
        }
    }
}

/// Rows and columns: a vector is one row.
pub(super) fn matrix(shape: &[usize]) -> TractResult<(usize, usize)> {
    match *shape {
        [columns] => Ok((1, columns)),
        [rows, columns] => Ok((rows, columns)),
        _ => bail!("takes rows of features, not {} dimensions", shape.len()),
    }
}

/// The number of rows in a shape whose sizes may be symbols.
pub(super) fn n_rows(shape: &[TDim]) -> TractResult<TDim> {
    match shape {
        [_] => Ok(1.into()),
        [rows, _] => Ok(rows.clone()),
        _ => bail!("takes rows of features, not {} dimensions", shape.len()),
    }
}

/// Refuses rows of another length, where it is known while compiling.
pub(super) fn expect_columns(shape: &[TDim], expected: usize) -> TractResult<()> {
    if let Some(Ok(columns)) = shape.last().map(TDim::to_usize) {
        ensure!(columns == expected, "has parameters for {expected} features, not {columns}");
    }
    Ok(())
}

/// Class labels: whole numbers or strings.
#[derive(Debug, Clone)]
pub(super) enum Labels {
    Ints(Vec<i64>),
    Strings(Vec<String>),
}

impl Labels {
    /// The labels of a classifier, of which one attribute must give some.
    pub(super) fn parse(ints: Option<&[i64]>, strings: Option<Vec<String>>) -> TractResult<Self> {
        match (ints.unwrap_or_default(), strings.unwrap_or_default()) {
            ([], strings) if !strings.is_empty() => Ok(Self::Strings(strings)),
            (ints, strings) if strings.is_empty() && !ints.is_empty() => {
                Ok(Self::Ints(ints.to_vec()))
            }
            _ => bail!("class labels are needed, either integers or strings"),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ints(labels) => labels.len(),
            Self::Strings(labels) => labels.len(),
        }
    }

    pub(super) fn datum_type(&self) -> DatumType {
        match self {
            Self::Ints(_) => DatumType::I64,
            Self::Strings(_) => DatumType::String,
        }
    }

    /// The two labels of a binary classifier that may name none: then `0` and `1`.
    pub(super) fn or_zero_and_one(self) -> Self {
        match self {
            Self::Ints(labels) if labels.len() != 2 => Self::Ints(vec![0, 1]),
            Self::Strings(labels) if labels.len() != 2 => {
                Self::Strings(vec!["0".to_owned(), "1".to_owned()])
            }
            two => two,
        }
    }

    /// The labels of the classes at `indices`, one a row.
    pub(super) fn pick(&self, indices: &[usize]) -> TractResult<Tensor> {
        let shape = [indices.len()];
        match self {
            Self::Ints(labels) => tensor(&shape, indices.iter().map(|&i| labels[i]).collect()),
            Self::Strings(labels) => {
                tensor(&shape, indices.iter().map(|&i| labels[i].clone()).collect())
            }
        }
    }
}

/// The first of the largest values; NaN is never larger.
pub(super) fn arg_max(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// A finite parameter list that is either one value for all columns or one for each.
#[derive(Debug, Clone)]
pub(super) struct PerColumn<T>(Vec<T>);

impl<T: Copy> PerColumn<T> {
    pub(super) fn new(name: &str, values: &[T]) -> TractResult<Self> {
        ensure!(!values.is_empty(), "{name} is empty");
        Ok(Self(values.to_vec()))
    }

    /// Refuses a row length that the parameters do not fit.
    pub(super) fn check(&self, shape: &[TDim]) -> TractResult<()> {
        if self.0.len() == 1 { Ok(()) } else { expect_columns(shape, self.0.len()) }
    }

    /// Checks again where the length was not known before the run.
    pub(super) fn check_run(&self, columns: usize) -> TractResult<()> {
        let n = self.0.len();
        ensure!(n == 1 || n == columns, "has parameters for {n} features, not {columns}");
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn values(&self) -> &[T] {
        &self.0
    }

    pub(super) fn get(&self, column: usize) -> T {
        if self.0.len() == 1 { self.0[0] } else { self.0[column] }
    }
}
