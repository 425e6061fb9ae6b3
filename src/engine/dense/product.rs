//! Rows times a constant matrix, in binary32.
//!
//! The matrix is packed when it is loaded: panels of [`WIDE`] columns, each with its rows one after
//! the other. A block of up to [`TALL`] rows is multiplied with a panel at a time, with the sums in
//! registers; for a single row several panels are in flight instead. Each sum runs over the
//! matrix's rows in their order and ends with the bias, so a row's result has the same bits alone
//! and in a block. After Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication" (ACM TOMS 34, 2008), §4, for matrices that fit into the second cache.
//!
//! The same code is compiled twice: for any machine, and for those with AVX2 and FMA, which is
//! found out when running. O(rows · matrix).

/// Columns of a panel: two vectors of eight.
const WIDE: usize = 16;

/// Rows of a block: with two vectors each, all sums stay in registers.
const TALL: usize = 6;

/// Panels in flight for a single row.
const PANELS: usize = 4;

/// A packed matrix with a bias for each column.
#[derive(Debug)]
pub(super) struct Matrix {
    /// Panel after panel; missing columns of the last are zeros.
    panels: Vec<[f32; WIDE]>,
    bias: Vec<[f32; WIDE]>,
    n_rows: usize,
    n_columns: usize,
    has_fma: bool,
}

impl Matrix {
    /// Packs `values`, which are `rows` rows of as many columns as there are biases.
    pub(super) fn new(values: &[f32], rows: usize, bias: &[f32]) -> Self {
        let columns = bias.len();
        let n_panels = columns.div_ceil(WIDE);
        let take = |from: &[f32], panel: usize| {
            let mut wide = [0.0; WIDE];
            let from = &from[panel * WIDE..(panel * WIDE + WIDE).min(columns)];
            wide[..from.len()].copy_from_slice(from);
            wide
        };
        let row = |row: usize| &values[row * columns..][..columns];
        let panels = (0..n_panels).flat_map(|panel| (0..rows).map(move |at| (panel, at)));
        let panels = panels.map(|(panel, at)| take(row(at), panel)).collect();
        let bias = (0..n_panels).map(|panel| take(bias, panel)).collect();
        Self { panels, bias, n_rows: rows, n_columns: columns, has_fma: has_fma() }
    }

    pub(super) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(super) fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// `output` becomes the product of each row of `input`, plus the bias.
    pub(super) fn multiply(&self, input: &[f32], output: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if self.has_fma {
            #[expect(unsafe_code, reason = "a function for machines that have these instructions")]
            // SAFETY: `has_fma` is set only where the running machine has AVX2 and FMA. Tested
            // against the definition in `tests`.
            unsafe {
                multiply_fma(self, input, output);
            }
            return;
        }
        multiply::<Portable>(self, input, output);
    }
}

#[cfg(target_arch = "x86_64")]
fn has_fma() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_fma() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_fma(matrix: &Matrix, input: &[f32], output: &mut [f32]) {
    multiply::<Fma>(matrix, input, output);
}

#[inline(always)]
fn multiply<L: Lanes>(matrix: &Matrix, input: &[f32], output: &mut [f32]) {
    let Matrix { n_rows, n_columns, .. } = *matrix;
    if n_rows == 0 || n_columns == 0 {
        for row in output.chunks_exact_mut(n_columns.max(1)) {
            let bias = matrix.bias.as_flattened();
            row.copy_from_slice(&bias[..n_columns]);
        }
        return;
    }
    if input.len() == n_rows {
        return one_row::<L>(matrix, input, output);
    }
    // Panel by panel, so that a panel stays in the nearest cache for all rows.
    for panel in 0..matrix.bias.len() {
        let rows = input.chunks(TALL * n_rows).zip(output.chunks_mut(TALL * n_columns));
        for (input, output) in rows {
            match input.len() / n_rows {
                6 => block::<L, 6>(matrix, panel, input, output),
                5 => block::<L, 5>(matrix, panel, input, output),
                4 => block::<L, 4>(matrix, panel, input, output),
                3 => block::<L, 3>(matrix, panel, input, output),
                2 => block::<L, 2>(matrix, panel, input, output),
                _ => block::<L, 1>(matrix, panel, input, output),
            }
        }
    }
}

/// `ROWS` rows times one panel.
#[inline(always)]
fn block<L: Lanes, const ROWS: usize>(
    matrix: &Matrix,
    panel: usize,
    input: &[f32],
    output: &mut [f32],
) {
    let (n_rows, n_columns) = (matrix.n_rows, matrix.n_columns);
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &input[row * n_rows..][..n_rows]);
    let wide = &matrix.panels[panel * n_rows..][..n_rows];
    let mut sums = [L::ZERO; ROWS];
    // Counted, since all have as many: the compiler sees that nothing reaches beyond them.
    for at in 0..n_rows {
        for row in 0..ROWS {
            sums[row] = sums[row].plus(rows[row][at], &wide[at]);
        }
    }
    for (sums, row) in sums.into_iter().zip(output.chunks_exact_mut(n_columns)) {
        store(matrix, panel, sums.values(), row);
    }
}

/// One row times all panels.
#[inline(always)]
fn one_row<L: Lanes>(matrix: &Matrix, row: &[f32], output: &mut [f32]) {
    let n_rows = matrix.n_rows;
    let n_panels = matrix.bias.len();
    let mut panel = 0;
    while panel + PANELS <= n_panels {
        let panels: [&[[f32; WIDE]]; PANELS] =
            std::array::from_fn(|at| &matrix.panels[(panel + at) * n_rows..][..n_rows]);
        let row = &row[..n_rows];
        let mut sums = [L::ZERO; PANELS];
        for at in 0..n_rows {
            for lane in 0..PANELS {
                sums[lane] = sums[lane].plus(row[at], &panels[lane][at]);
            }
        }
        for (at, sums) in sums.into_iter().enumerate() {
            store(matrix, panel + at, sums.values(), output);
        }
        panel += PANELS;
    }
    for panel in panel..n_panels {
        block::<L, 1>(matrix, panel, row, output);
    }
}

/// The sums of a panel's columns for one row.
trait Lanes: Copy {
    const ZERO: Self;
    /// Adds `value` times a row of the panel.
    fn plus(self, value: f32, wide: &[f32; WIDE]) -> Self;
    fn values(self) -> [f32; WIDE];
}

/// For any machine.
#[derive(Clone, Copy)]
struct Portable([f32; WIDE]);

impl Lanes for Portable {
    const ZERO: Self = Self([0.0; WIDE]);

    #[inline(always)]
    fn plus(mut self, value: f32, wide: &[f32; WIDE]) -> Self {
        self.0.iter_mut().zip(wide).for_each(|(sum, wide)| *sum += value * wide);
        self
    }

    #[inline(always)]
    fn values(self) -> [f32; WIDE] {
        self.0
    }
}

/// For machines with AVX2 and FMA; made only by [`multiply_fma`], which runs on no other.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Fma(std::arch::x86_64::__m256, std::arch::x86_64::__m256);

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the compiler does not keep the sums in registers by itself")]
impl Lanes for Fma {
    // SAFETY: all bits zero is a vector of zeros.
    const ZERO: Self = unsafe { std::mem::zeroed() };

    #[inline(always)]
    fn plus(self, value: f32, wide: &[f32; WIDE]) -> Self {
        use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps};
        // SAFETY: both loads are within the sixteen values; the machine has the instructions
        // (see the type). Tested against the definition in `tests`.
        unsafe {
            let value = _mm256_set1_ps(value);
            Self(
                _mm256_fmadd_ps(value, _mm256_loadu_ps(wide.as_ptr()), self.0),
                _mm256_fmadd_ps(value, _mm256_loadu_ps(wide.as_ptr().add(8)), self.1),
            )
        }
    }

    #[inline(always)]
    fn values(self) -> [f32; WIDE] {
        let mut values = [0.0; WIDE];
        // SAFETY: both stores are within the sixteen values.
        unsafe {
            std::arch::x86_64::_mm256_storeu_ps(values.as_mut_ptr(), self.0);
            std::arch::x86_64::_mm256_storeu_ps(values.as_mut_ptr().add(8), self.1);
        }
        values
    }
}

/// Adds the bias and writes the panel's columns of one row.
#[inline(always)]
fn store(matrix: &Matrix, panel: usize, sums: [f32; WIDE], row: &mut [f32]) {
    let row = &mut row[panel * WIDE..];
    let bias = &matrix.bias[panel];
    if let Some(row) = row.first_chunk_mut::<WIDE>() {
        *row = std::array::from_fn(|at| sums[at] + bias[at]);
        return;
    }
    let n = row.len();
    let columns = sums.into_iter().zip(bias);
    for (value, (sum, bias)) in row[..n].iter_mut().zip(columns) {
        *value = sum + bias;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expected(input: &[f32], values: &[f32], rows: usize, bias: &[f32]) -> Vec<f64> {
        let columns = bias.len();
        let product = |row: &[f32], column: usize| {
            let terms = row.iter().zip(0..).map(|(x, at): (&f32, usize)| {
                f64::from(*x) * f64::from(values[at * columns + column])
            });
            terms.sum::<f64>() + f64::from(bias[column])
        };
        let row = |row: &[f32]| (0..columns).map(|column| product(row, column)).collect::<Vec<_>>();
        input.chunks_exact(rows).flat_map(row).collect()
    }

    proptest! {
        /// Any sizes give the definition's product within rounding, with and without FMA, and each
        /// row the bits that it has alone.
        #[test]
        fn products_are_those_of_the_definition(
            rows in 1_usize..40, columns in 1_usize..90, n in 1_usize..15, seed in any::<u64>(),
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut numbers = |n: usize| (0..n).map(|_| random.f32() - 0.5).collect::<Vec<f32>>();
            let (values, bias, input) = (numbers(rows * columns), numbers(columns), numbers(n * rows));
            let expected = expected(&input, &values, rows, &bias);
            for has_fma in [false, has_fma()] {
                let matrix = Matrix { has_fma, ..Matrix::new(&values, rows, &bias) };
                let mut output = vec![0.0; n * columns];
                matrix.multiply(&input, &mut output);
                for (got, expected) in output.iter().zip(&expected) {
                    prop_assert!((f64::from(*got) - expected).abs() < 1e-5, "{got} {expected}");
                }
                for (row, together) in input.chunks(rows).zip(output.chunks(columns)) {
                    let mut alone = vec![0.0; columns];
                    matrix.multiply(row, &mut alone);
                    prop_assert_eq!(&alone[..], together);
                }
            }
        }
    }
}
