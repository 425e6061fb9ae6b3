//! What a model version takes and gives: named inputs and outputs.

use std::collections::BTreeMap;
use std::fmt;

use super::{Datatype, Shape};

/// One dimension of a declared shape: fixed, or free (written -1).
pub type Dim = Option<usize>;

/// Concrete shapes of tensors by their names.
pub type NamedShapes = BTreeMap<String, Vec<usize>>;

/// The declaration of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in requests and answers.
    pub name: String,
    /// The datatype of its elements.
    pub datatype: Datatype,
    /// The dimensions; `None` is free.
    pub shape: Vec<Dim>,
}

/// The named inputs and outputs of a model version, in the model's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signature {
    /// What a request must bring.
    pub inputs: Vec<TensorSpec>,
    /// What an answer can carry.
    pub outputs: Vec<TensorSpec>,
}

impl TensorSpec {
    /// True where `shape` has the declared rank and equals every fixed dimension.
    #[must_use]
    pub fn accepts(&self, shape: &[usize]) -> bool {
        self.shape.len() == shape.len()
            && self.shape.iter().zip(shape).all(|(dim, &size)| dim.is_none_or(|dim| dim == size))
    }

    /// The shape as the protocol writes it: -1 for a free dimension.
    pub fn wire_shape(&self) -> impl Iterator<Item = i64> {
        self.shape.iter().map(|dim| dim.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX)))
    }

    /// True where the first dimension is free, so that rows can be put together.
    #[must_use]
    pub fn is_batchable(&self) -> bool {
        self.shape.first() == Some(&None)
    }

    /// A shape that the declaration accepts, with `free` in place of every free dimension.
    #[must_use]
    pub fn shape_with(&self, free: usize) -> Shape {
        self.shape.iter().map(|dim| dim.unwrap_or(free)).collect()
    }
}

impl fmt::Display for TensorSpec {
    /// One line: `image FP32 [-1,8,8]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} [", self.name, self.datatype)?;
        for (position, dim) in self.wire_shape().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{dim}")?;
        }
        f.write_str("]")
    }
}

impl Signature {
    /// The position of the input of that name. Linear: models have few inputs, and comparing
    /// short names beats hashing them.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|spec| spec.name == name)
    }

    /// The position of the output of that name.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|spec| spec.name == name)
    }

    /// True where every input has a free first dimension, whatever the outputs declare: converters of
    /// trees declare one label, and the model answers as many as there are rows.
    #[must_use]
    pub fn takes_rows(&self) -> bool {
        !self.inputs.is_empty() && self.inputs.iter().all(TensorSpec::is_batchable)
    }

    /// True where every input and every output has a free first dimension.
    #[must_use]
    pub fn is_batchable(&self) -> bool {
        !self.inputs.is_empty()
            && self.inputs.iter().chain(&self.outputs).all(TensorSpec::is_batchable)
    }
}

/// A list of declarations for an error message: `image FP32 [-1,8,8], mask BOOL [-1]`.
#[derive(Debug, Clone, Copy)]
pub struct Specs<'a>(pub &'a [TensorSpec]);

impl fmt::Display for Specs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, spec) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{spec}")?;
        }
        Ok(())
    }
}
