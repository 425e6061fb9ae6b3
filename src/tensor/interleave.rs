//! Columns to rows.

use super::{Datatype, Shape, Tensor, TensorError, push_element, volume};

/// Rows that are written at once: they stay in the fastest cache while column after column goes
/// into them.
const BLOCK: usize = 128;

impl Tensor {
    /// A tensor of this shape whose rows take an element of each of `columns`, in their order. All
    /// columns have this datatype and as many elements. O(elements).
    pub fn interleave(
        datatype: Datatype,
        shape: impl Into<Shape>,
        columns: &[Self],
    ) -> Result<Self, TensorError> {
        let shape = shape.into();
        let n_rows = columns.first().map_or(0, Self::len);
        let expected = volume(&shape)?;
        let fits = |column: &Self| column.datatype == datatype && column.len() == n_rows;
        if n_rows.checked_mul(columns.len()) != Some(expected) || !columns.iter().all(fits) {
            let actual = columns.iter().map(Self::len).sum();
            return Err(TensorError::ElementCount { shape, expected, actual });
        }
        let data = match datatype.size() {
            Some(1) => fixed::<1>(columns, n_rows),
            Some(2) => fixed::<2>(columns, n_rows),
            Some(4) => fixed::<4>(columns, n_rows),
            Some(_) => fixed::<8>(columns, n_rows),
            None => texts(columns, n_rows),
        };
        Self::new(datatype, shape, data.into())
    }
}

fn fixed<const N: usize>(columns: &[Tensor], n_rows: usize) -> Vec<u8> {
    let width = columns.len();
    let mut data = vec![0; n_rows * width * N];
    let (rows, _) = data.as_chunks_mut::<N>();
    for (block, rows) in rows.chunks_mut((BLOCK * width).max(1)).enumerate() {
        for (position, column) in columns.iter().enumerate() {
            let (elements, _) = column.data.as_chunks::<N>();
            let elements = elements.get(block * BLOCK..).unwrap_or_default();
            let places = rows.iter_mut().skip(position).step_by(width);
            places.zip(elements).for_each(|(place, element)| *place = *element);
        }
    }
    data
}

fn texts(columns: &[Tensor], n_rows: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(columns.iter().map(|column| column.data.len()).sum());
    let mut columns: Vec<_> = columns.iter().map(Tensor::elements).collect();
    for _ in 0..n_rows {
        for column in &mut columns {
            push_element(&mut data, column.next().unwrap_or_default());
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_interleaved_too() {
        let column = |texts: [&str; 2]| Tensor::from_elements([2].as_slice(), texts).unwrap();
        let columns = [column(["a", "b"]), column(["", "dd"])];
        let rows = Tensor::interleave(Datatype::Bytes, [2, 2].as_slice(), &columns).unwrap();
        let elements: Vec<&[u8]> = rows.elements().collect();
        assert_eq!(elements, [b"a".as_slice(), b"", b"b", b"dd"]);
        for wrong in [[3, 2], [2, 3]] {
            assert!(Tensor::interleave(Datatype::Bytes, wrong.as_slice(), &columns).is_err());
        }
        assert!(Tensor::interleave(Datatype::Fp32, [2, 2].as_slice(), &columns).is_err());
    }

    proptest! {
        #[test]
        fn every_element_finds_its_row(width in 1_usize..40, n_rows in 0_usize..300) {
            let columns = (0..width).map(|column| {
                let values = (0..n_rows).flat_map(|row| ((row * width + column) as u32).to_le_bytes());
                let data: Vec<u8> = values.collect();
                Tensor::new(Datatype::Uint32, [n_rows].as_slice(), data.into()).unwrap()
            });
            let columns: Vec<Tensor> = columns.collect();
            let rows = Tensor::interleave(Datatype::Uint32, [n_rows, width].as_slice(), &columns);
            let rows = rows.unwrap();
            let expected: Vec<u8> =
                (0..(n_rows * width) as u32).flat_map(u32::to_le_bytes).collect();
            prop_assert_eq!(&rows.data()[..], &expected[..]);
        }
    }
}
