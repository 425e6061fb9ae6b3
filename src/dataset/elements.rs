//! Values to a tensor's elements, and to what stands beside them.

use super::{Extra, ExtraValues, InputColumns, times};
use crate::tensor::{ElementWriter, Shape, Tensor, TensorError, Unfit};

/// The tensor of the rows that were written since the last call.
pub(super) fn take(
    elements: &mut ElementWriter,
    input: &InputColumns,
    n_rows: usize,
) -> Result<Tensor, TensorError> {
    elements.take(shape(input, n_rows))
}

/// The shape of so many rows.
pub(super) fn shape(input: &InputColumns, n_rows: usize) -> Shape {
    let mut shape: Shape = input.spec.shape_with(1);
    if let (Some(first), false) = (shape.first_mut(), input.is_whole) {
        *first = n_rows;
    }
    shape
}

impl ExtraValues {
    pub(super) fn of(extra: &Extra) -> Self {
        match extra {
            Extra::Time(_) => Self::Times(Vec::new()),
            Extra::Text(_) => Self::Texts(Vec::new()),
        }
    }

    /// The values so far; none are left.
    pub(super) fn take(&mut self) -> Self {
        match self {
            Self::Times(times) => Self::Times(std::mem::take(times)),
            Self::Texts(texts) => Self::Texts(std::mem::take(texts)),
        }
    }

    pub(super) fn push_text(&mut self, text: &str) -> Result<(), Unfit> {
        match self {
            Self::Times(values) => values.push(times::parse(text).ok_or(times::EXPECTED)?),
            Self::Texts(values) => values.push(text.to_owned()),
        }
        Ok(())
    }
}
