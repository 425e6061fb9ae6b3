//! Tensors and texts, copied one after the other into memory that is kept.

use std::ops::Range;

use bytes::Bytes;

use crate::tensor::{Datatype, Shape, Tensor};

/// Copied bytes and tensors. Cleared, it keeps its memory.
#[derive(Debug, Default)]
pub struct Copies {
    bytes: Vec<u8>,
    tensors: Vec<(Datatype, Shape, Range<usize>)>,
}

/// A copied tensor.
#[derive(Debug, Clone, Copy)]
pub struct Copied<'a> {
    /// The datatype of every element.
    pub datatype: Datatype,
    /// The dimensions.
    pub shape: &'a [usize],
    /// The bytes in the protocol's binary form.
    pub data: &'a [u8],
}

impl Copies {
    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Copies `bytes`; where they are then.
    pub fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// Copies `tensors`; where they are then.
    pub fn copy_all(&mut self, tensors: &[Tensor]) -> Range<usize> {
        let start = self.tensors.len();
        for tensor in tensors {
            let data = self.copy(tensor.data());
            self.tensors.push((tensor.datatype(), tensor.shape().into(), data));
        }
        start..self.tensors.len()
    }

    /// What was copied.
    #[must_use]
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }

    /// The tensors that were copied.
    pub fn tensors(&self, range: &Range<usize>) -> impl Iterator<Item = Copied<'_>> {
        self.tensors[range.clone()].iter().map(|(datatype, shape, data)| Copied {
            datatype: *datatype,
            shape,
            data: &self.bytes[data.clone()],
        })
    }

    /// The same as tensors, whose bytes `slice` has.
    pub fn tensors_in(
        &self,
        range: &Range<usize>,
        slice: impl Fn(&Range<usize>) -> Bytes,
    ) -> impl Iterator<Item = Tensor> {
        // What was a tensor is one.
        let tensor = move |(datatype, shape, data): &(Datatype, Shape, Range<usize>)| {
            Tensor::new(*datatype, shape.clone(), slice(data)).ok()
        };
        self.tensors[range.clone()].iter().filter_map(tensor)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.tensors.clear();
    }
}

impl Copied<'_> {
    /// A tensor of its own.
    #[must_use]
    pub fn to_tensor(&self) -> Option<Tensor> {
        // What was a tensor is one.
        Tensor::new(self.datatype, self.shape, Bytes::copy_from_slice(self.data)).ok()
    }
}

impl<'a> From<&'a Tensor> for Copied<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self { datatype: tensor.datatype(), shape: tensor.shape(), data: tensor.data() }
    }
}
