//! The two loops that run over every value: values to cells, and cells to counts.
//!
//! Both are written so that the compiler makes vector code of them for any x86-64 and any other
//! processor: `benches/monitor.rs` has the times.

/// Values whose cells are found side by side.
const LANES: usize = 16;

/// A number that has a cell.
pub(super) trait Number: Copy + PartialOrd {
    /// Whether it is above `edge`, as 0 or 1.
    fn above(self, edge: Self) -> u32;
    /// `u32::MAX` where it is no number.
    fn nan(self) -> u32;
    /// `u32::MAX` where it is infinite.
    fn infinite(self) -> u32;
}

macro_rules! number {
    ($type:ty) => {
        impl Number for $type {
            #[inline(always)]
            fn above(self, edge: Self) -> u32 {
                u32::from(self > edge)
            }

            #[inline(always)]
            fn nan(self) -> u32 {
                u32::from(self != self).wrapping_neg()
            }

            #[inline(always)]
            fn infinite(self) -> u32 {
                u32::from(self.abs() == <$type>::INFINITY).wrapping_neg()
            }
        }
    };
}

number!(f32);
number!(f64);

/// Writes the cell of every value: the number of edges below it; `missing` where it is NaN, the
/// cell after that where it is infinite. `out` is as long as `values`. O(values × edges), by
/// comparing and adding without a branch.
pub(super) fn cells_of_numbers<T: Number>(values: &[T], edges: &[T], missing: u8, out: &mut [u8]) {
    let (blocks, rest) = values.as_chunks::<LANES>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<LANES>();
    for (block, out) in blocks.iter().zip(out_blocks) {
        cells_of_block(block, edges, missing, out);
    }
    // One row is all there is where a request is judged before it is answered.
    for (out, &value) in out_rest.iter_mut().zip(rest) {
        let below = edges.iter().map(|&edge| value.above(edge)).sum();
        *out = cell(value, below, missing);
    }
}

#[inline(always)]
fn cells_of_block<T: Number>(block: &[T; LANES], edges: &[T], missing: u8, out: &mut [u8; LANES]) {
    let mut below = [0_u32; LANES];
    for &edge in edges {
        for (below, &value) in below.iter_mut().zip(block) {
            *below += value.above(edge);
        }
    }
    for ((out, below), &value) in out.iter_mut().zip(below).zip(block) {
        *out = cell(value, below, missing);
    }
}

/// The cell of a value that is above `below` edges.
#[inline(always)]
fn cell<T: Number>(value: T, below: u32, missing: u8) -> u8 {
    let (missing, infinite) = (u32::from(missing), u32::from(missing) + 1);
    let (is_nan, is_infinite) = (value.nan(), value.infinite());
    (below & !is_nan & !is_infinite | missing & is_nan | infinite & is_infinite) as u8
}

/// Adds the number of each cell in `cells` to `counts`. Cells beyond `counts` are passed over.
///
/// Four partial counts side by side: one alone waits for itself where a cell follows itself.
/// O(cells + counts).
pub fn count(cells: &[u8], counts: &mut [u32]) {
    const SIDE_BY_SIDE: usize = 4;
    if cells.len() < 64 {
        for &cell in cells {
            if let Some(count) = counts.get_mut(usize::from(cell)) {
                *count += 1;
            }
        }
        return;
    }
    let mut partial = [[0_u32; 256]; SIDE_BY_SIDE];
    let (groups, rest) = cells.as_chunks::<SIDE_BY_SIDE>();
    for group in groups {
        for (partial, &cell) in partial.iter_mut().zip(group) {
            partial[usize::from(cell)] += 1;
        }
    }
    for &cell in rest {
        partial[0][usize::from(cell)] += 1;
    }
    for (cell, count) in counts.iter_mut().enumerate().take(256) {
        *count += partial.iter().map(|partial| partial[cell]).sum::<u32>();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whatever number there is, the strange ones often.
    fn numbers() -> impl Strategy<Value = Vec<f32>> {
        let number = prop_oneof![
            4 => -3.0_f32..3.0,
            2 => (-3_i8..3).prop_map(f32::from),
            1 => any::<f32>(),
            1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
        ];
        proptest::collection::vec(number, 0..200)
    }

    proptest! {
        #[test]
        fn cells_are_the_edges_below(values in numbers(), mut edges in numbers()) {
            edges.retain(|edge| edge.is_finite());
            edges.sort_by(f32::total_cmp);
            edges.truncate(250);
            let missing = u8::try_from(edges.len() + 1).unwrap();
            let cell = |value: f32| match value {
                value if value.is_nan() => missing,
                value if value.is_infinite() => missing + 1,
                value => edges.iter().filter(|&&edge| edge < value).count() as u8,
            };
            let expected: Vec<u8> = values.iter().map(|&value| cell(value)).collect();
            let mut cells = vec![0; values.len()];
            cells_of_numbers(&values, &edges, missing, &mut cells);
            prop_assert_eq!(&cells, &expected);
            let wide: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
            let wide_edges: Vec<f64> = edges.iter().map(|&edge| f64::from(edge)).collect();
            cells_of_numbers(&wide, &wide_edges, missing, &mut cells);
            prop_assert_eq!(&cells, &expected);
        }

        #[test]
        fn counts_are_the_same_however_cells_are_cut(
            cells in proptest::collection::vec(any::<u8>(), 0..700),
            cut in 0_usize..700,
            n_counts in 0_usize..300,
        ) {
            let mut expected = vec![0_u32; n_counts];
            for &cell in &cells {
                if let Some(count) = expected.get_mut(usize::from(cell)) {
                    *count += 1;
                }
            }
            let mut counts = vec![0; n_counts];
            let (first, rest) = cells.split_at(cut.min(cells.len()));
            count(rest, &mut counts);
            count(first, &mut counts);
            prop_assert_eq!(counts, expected);
        }
    }
}
