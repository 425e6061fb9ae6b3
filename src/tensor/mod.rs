//! Tensors as they travel: a datatype, a shape and little-endian bytes.
//!
//! The bytes are those of the Open Inference Protocol's binary form, whatever way a tensor came
//! in: fixed-size elements row by row, and BYTES elements each behind a 32-bit length. So a
//! tensor can borrow the request's body, be counted by reference by whoever observes it, be
//! captured byte for byte, and be written to the socket again without a conversion.
//!
//! Invariants, held by the constructors:
//! - `data` has exactly as many elements as the product of `shape`;
//! - that product, and the byte length, do not overflow;
//! - the bytes of a BOOL are 0 or 1;
//! - nothing is assumed of the alignment of `data`.

mod datatype;
mod interleave;
mod signature;
mod writer;

pub use datatype::Datatype;
pub use signature::{Dim, NamedShapes, Signature, Specs, TensorSpec};
pub use writer::{ElementWriter, Unfit, is_missing};

use bytes::Bytes;
use smallvec::SmallVec;

/// The dimensions of a tensor. Up to four stay on the stack.
pub type Shape = SmallVec<[usize; 4]>;

/// One tensor. Cloning copies no elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    datatype: Datatype,
    shape: Shape,
    data: Bytes,
}

/// Why bytes and shape do not make a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The product of the dimensions does not fit into memory.
    #[error("shape {0:?} has more elements than can be addressed")]
    ShapeOverflow(Shape),
    /// The byte length does not fit the shape.
    #[error("shape {shape:?} of {datatype} needs {expected} bytes, got {actual}")]
    ByteLength {
        /// The tensor's shape.
        shape: Shape,
        /// The tensor's datatype.
        datatype: Datatype,
        /// Bytes that the shape asks for.
        expected: usize,
        /// Bytes that came.
        actual: usize,
    },
    /// A BYTES tensor does not have the number of elements that its shape says.
    #[error("shape {shape:?} needs {expected} BYTES elements, got {actual}")]
    ElementCount {
        /// The tensor's shape.
        shape: Shape,
        /// Elements that the shape asks for.
        expected: usize,
        /// Elements that came.
        actual: usize,
    },
    /// A BYTES element's length reaches beyond the end of the data.
    #[error("BYTES element {index} declares {declared} bytes, but {available} are left")]
    TruncatedElement {
        /// The element's position, from 0.
        index: usize,
        /// The length that stands before it.
        declared: usize,
        /// The bytes that follow.
        available: usize,
    },
    /// A BOOL byte is neither 0 nor 1.
    #[error("BOOL element {index} is {value}, expected 0 or 1")]
    NotBool {
        /// The element's position, from 0.
        index: usize,
        /// What stands there.
        value: u8,
    },
}

/// The number of elements of a shape, or an error where it overflows.
pub fn volume(shape: &[usize]) -> Result<usize, TensorError> {
    shape
        .iter()
        .try_fold(1_usize, |product, &dim| product.checked_mul(dim))
        // A tensor larger than isize::MAX bytes cannot exist.
        .filter(|&count| count <= isize::MAX as usize / 8)
        .ok_or_else(|| TensorError::ShapeOverflow(shape.into()))
}

impl Tensor {
    /// A tensor over `data`, which is checked against datatype and shape. O(1) for fixed-size
    /// datatypes but BOOL, O(elements) for BOOL and BYTES.
    pub fn new(
        datatype: Datatype,
        shape: impl Into<Shape>,
        data: Bytes,
    ) -> Result<Self, TensorError> {
        let shape = shape.into();
        let count = volume(&shape)?;
        match datatype.size() {
            Some(size) => {
                // `volume` leaves room for the largest element size, so this cannot overflow.
                let expected = count * size;
                if data.len() != expected {
                    let actual = data.len();
                    return Err(TensorError::ByteLength { shape, datatype, expected, actual });
                }
            }
            None => check_elements(&data, count, &shape)?,
        }
        if datatype == Datatype::Bool
            && let Some(index) = data.iter().position(|&byte| byte > 1)
        {
            return Err(TensorError::NotBool { index, value: data[index] });
        }
        Ok(Self { datatype, shape, data })
    }

    /// A BYTES tensor of these elements.
    pub fn from_elements<E: AsRef<[u8]>>(
        shape: impl Into<Shape>,
        elements: impl IntoIterator<Item = E>,
    ) -> Result<Self, TensorError> {
        let mut data = Vec::new();
        for element in elements {
            push_element(&mut data, element.as_ref());
        }
        Self::new(Datatype::Bytes, shape, data.into())
    }

    /// The datatype of every element.
    #[must_use]
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// The dimensions.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The first dimension: the rows of a batch; 1 for a scalar.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True where there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// The bytes in the protocol's binary form.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The elements of a BYTES tensor; nothing for any other datatype.
    pub fn elements(&self) -> Elements<'_> {
        let is_bytes = self.datatype == Datatype::Bytes;
        Elements { rest: if is_bytes { &self.data } else { &[] } }
    }
}

/// Appends one BYTES element: its length, then its bytes. Elements of 4 GiB and more cannot be
/// written in the format; no body limit lets one in.
pub fn push_element(data: &mut Vec<u8>, element: &[u8]) {
    let length = u32::try_from(element.len()).unwrap_or(u32::MAX);
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(&element[..length as usize]);
}

fn check_elements(data: &[u8], expected: usize, shape: &Shape) -> Result<(), TensorError> {
    let mut actual = 0;
    let mut rest = data;
    while !rest.is_empty() {
        let Some((length, tail)) = rest.split_first_chunk::<4>() else {
            return Err(TensorError::TruncatedElement {
                index: actual,
                declared: 4,
                available: rest.len(),
            });
        };
        let declared = u32::from_le_bytes(*length) as usize;
        let Some(next) = tail.get(declared..) else {
            return Err(TensorError::TruncatedElement {
                index: actual,
                declared,
                available: tail.len(),
            });
        };
        rest = next;
        actual += 1;
    }
    if actual != expected {
        return Err(TensorError::ElementCount { shape: shape.clone(), expected, actual });
    }
    Ok(())
}

/// Iterates over the elements of a BYTES tensor.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// The elements of a BYTES tensor's data.
    #[must_use]
    pub fn of(data: &'a [u8]) -> Self {
        Self { rest: data }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, tail) = self.rest.split_first_chunk::<4>()?;
        let (element, rest) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        Some(element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_length_must_fit_the_shape() {
        let error = Tensor::new(Datatype::Fp32, [2, 3].as_slice(), Bytes::from_static(&[0; 20]));
        assert_eq!(error.unwrap_err().to_string(), "shape [2, 3] of FP32 needs 24 bytes, got 20");
    }

    #[test]
    fn a_shape_that_overflows_is_an_error() {
        for shape in [[usize::MAX, 2], [1 << 40, 1 << 40]] {
            let error = Tensor::new(Datatype::Fp64, shape.as_slice(), Bytes::new()).unwrap_err();
            assert!(matches!(error, TensorError::ShapeOverflow(_)), "{error}");
        }
        // A zero dimension makes the product zero whatever stands after it, unless the part
        // before it overflows.
        assert!(Tensor::new(Datatype::Fp32, [0, 5].as_slice(), Bytes::new()).is_ok());
    }

    #[test]
    fn bytes_elements_are_walked_and_counted() {
        let tensor = Tensor::from_elements([3].as_slice(), ["a", "", "ccc"]).unwrap();
        let elements: Vec<_> = tensor.elements().collect();
        assert_eq!(elements, [b"a".as_slice(), b"", b"ccc"]);
        let error = Tensor::from_elements([2].as_slice(), ["a"]).unwrap_err();
        assert_eq!(error.to_string(), "shape [2] needs 2 BYTES elements, got 1");
    }

    #[test]
    fn truncated_bytes_elements_are_refused() {
        for data in [&[1_u8, 0][..], &[9, 0, 0, 0, b'x'], &[255, 255, 255, 255]] {
            let data = Bytes::copy_from_slice(data);
            let error = Tensor::new(Datatype::Bytes, [1].as_slice(), data).unwrap_err();
            assert!(matches!(error, TensorError::TruncatedElement { index: 0, .. }), "{error}");
        }
    }

    #[test]
    fn bool_bytes_are_zero_or_one() {
        let error = Tensor::new(Datatype::Bool, [3].as_slice(), Bytes::from_static(&[0, 1, 2]));
        assert_eq!(error.unwrap_err(), TensorError::NotBool { index: 2, value: 2 });
    }
}
