//! Rows of a micro-batch, by column.

use half::{bf16, f16};

use super::feature::{FeaturePlan, Measures, Side, Take, Taken};
use super::reduce;
use super::text::{self, Dictionary};
use crate::tensor::{Datatype, Tensor};

/// Rows that are transposed at once: their bytes stay in the fastest cache.
const BLOCK: usize = 128;

/// Columns of rows, one for each feature of a plan.
#[derive(Debug, Clone)]
pub struct Rows {
    columns: Vec<Column>,
    n_rows: usize,
    row: Vec<f32>,
}

/// The values of one feature.
#[derive(Debug, Clone)]
pub(crate) enum Column {
    Single(Vec<f32>),
    Double(Vec<f64>),
    Text(Texts),
}

/// Texts as hashes and lengths.
#[derive(Debug, Clone, Default)]
pub(crate) struct Texts {
    pub(crate) hashes: Vec<u64>,
    pub(crate) lengths: Vec<f32>,
    pub(crate) names: Option<Dictionary>,
}

impl Rows {
    /// No rows yet. Texts are kept as hashes only.
    #[must_use]
    pub fn new(plan: &FeaturePlan) -> Self {
        Self::with(plan, false)
    }

    /// No rows yet. The first 16,384 texts of each column (fewer of many columns) are remembered, as
    /// it takes to build a baseline.
    #[must_use]
    pub fn with_names(plan: &FeaturePlan) -> Self {
        Self::with(plan, true)
    }

    fn with(plan: &FeaturePlan, has_names: bool) -> Self {
        let most = text::most_texts(plan.features().len());
        let columns = plan.features().iter().map(|feature| match feature.values {
            values if values.is_double() => Column::Double(Vec::new()),
            super::feature::Values::Text => {
                let names = has_names.then(|| Dictionary::new(most));
                Column::Text(Texts { names, ..Texts::default() })
            }
            _ => Column::Single(Vec::new()),
        });
        Self { columns: columns.collect(), n_rows: 0, row: Vec::new() }
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n_rows
    }

    /// True where there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n_rows == 0
    }

    /// Forgets the rows; memory and names are kept.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Appends the rows of one request: all its inputs and outputs, in the order of the signature.
    ///
    /// A tensor that is not there, or has not as many rows as the first input, counts as missing.
    /// O(elements); takes no memory once the columns are as long as they get.
    pub fn push(&mut self, plan: &FeaturePlan, inputs: &[Tensor], outputs: &[Tensor]) {
        let n_rows = match inputs.first() {
            Some(first) if plan.is_batchable() => first.rows(),
            Some(_) => 1,
            None => return,
        };
        let end = self.n_rows + n_rows;
        for taken in plan.taken() {
            let tensors = if taken.side == Side::Input { inputs } else { outputs };
            if let Some(tensor) = tensors.get(taken.tensor)
                && n_rows > 0
                && (!plan.is_batchable() || tensor.rows() == n_rows)
                && tensor.len().is_multiple_of(n_rows)
                && taken.width.is_none_or(|width| Some(tensor.len()) == width.checked_mul(n_rows))
            {
                self.take(taken, tensor, n_rows);
            }
        }
        for column in &mut self.columns {
            column.pad(end);
        }
        self.n_rows = end;
    }

    /// Appends row `row` of `other`, which has the same plan.
    pub(crate) fn push_row(&mut self, other: &Self, row: usize) {
        for (column, from) in self.columns.iter_mut().zip(&other.columns) {
            column.put(None, from, row);
        }
        self.n_rows += 1;
    }

    /// Puts row `row` of `other`, which has the same plan, in the place of row `at`.
    pub(crate) fn replace_row(&mut self, at: usize, other: &Self, row: usize) {
        for (column, from) in self.columns.iter_mut().zip(&other.columns) {
            column.put(Some(at), from, row);
        }
    }

    /// Drops all rows from `n_rows` on.
    pub(crate) fn truncate(&mut self, n_rows: usize) {
        for column in &mut self.columns {
            match column {
                Column::Single(values) => values.truncate(n_rows),
                Column::Double(values) => values.truncate(n_rows),
                Column::Text(texts) => {
                    texts.hashes.truncate(n_rows);
                    texts.lengths.truncate(n_rows);
                }
            }
        }
        self.n_rows = self.n_rows.min(n_rows);
    }

    /// The values of a feature of the plan.
    pub(crate) fn column(&self, feature: usize) -> Option<&Column> {
        self.columns.get(feature)
    }

    fn take(&mut self, taken: &Taken, tensor: &Tensor, n_rows: usize) {
        let width = tensor.len() / n_rows;
        match &taken.take {
            Take::Columns(columns) => take_columns(&mut self.columns, columns, tensor, width),
            Take::Reduced(slots) if tensor.datatype() == Datatype::Bytes => {
                let mut elements = tensor.elements();
                for _ in 0..n_rows {
                    let (mut length, mut missing) = (0_usize, 0_usize);
                    for element in elements.by_ref().take(width) {
                        length += element.len();
                        missing += usize::from(element.is_empty());
                    }
                    let figures = [length as f32, missing as f32 / width as f32];
                    push_figures(&mut self.columns, &**slots, &figures);
                }
            }
            Take::Reduced(slots) => {
                for row in 0..n_rows {
                    let figures = with_elements(tensor, Figures { first: row * width, width });
                    push_figures(&mut self.columns, &**slots, &figures);
                }
            }
            Take::Scores { columns, measures } => {
                take_columns(&mut self.columns, columns, tensor, width);
                for row in 0..n_rows {
                    let first = row * width;
                    with_elements(tensor, Fill { first, width, into: &mut self.row });
                    let Measures { top, margin, entropy, class } = Measures::of(&self.row);
                    push_figures(&mut self.columns, measures, &[top, margin, entropy, class]);
                }
            }
        }
    }
}

fn push_figures(columns: &mut [Column], slots: &[Option<usize>], figures: &[f32]) {
    for (slot, &figure) in slots.iter().zip(figures) {
        if let Some(Column::Single(values)) = slot.and_then(|slot| columns.get_mut(slot)) {
            values.push(figure);
        }
    }
}

impl Column {
    /// Makes the column `end` long with missing values.
    fn pad(&mut self, end: usize) {
        match self {
            Self::Single(values) => values.resize(end, f32::NAN),
            Self::Double(values) => values.resize(end, f64::NAN),
            Self::Text(texts) => {
                texts.hashes.resize(end, text::MISSING);
                texts.lengths.resize(end, f32::NAN);
            }
        }
    }

    fn put(&mut self, at: Option<usize>, from: &Self, row: usize) {
        fn set<T: Copy>(values: &mut Vec<T>, at: Option<usize>, from: &[T], row: usize) {
            let Some(&value) = from.get(row) else { return };
            match at {
                None => values.push(value),
                Some(at) => values[at] = value,
            }
        }
        match (self, from) {
            (Self::Single(values), Self::Single(from)) => set(values, at, from, row),
            (Self::Double(values), Self::Double(from)) => set(values, at, from, row),
            (Self::Text(texts), Self::Text(from)) => {
                set(&mut texts.hashes, at, &from.hashes, row);
                set(&mut texts.lengths, at, &from.lengths, row);
            }
            // Columns of one plan are of one kind.
            _ => {}
        }
    }
}

/// Something done with a tensor's elements, whatever their type.
trait Visit {
    type Answer;
    fn visit<const N: usize>(
        self,
        elements: &[[u8; N]],
        single: impl Fn([u8; N]) -> f32 + Copy,
        double: impl Fn([u8; N]) -> f64 + Copy,
    ) -> Self::Answer;
}

/// Hands the elements of a tensor of numbers to `visit`, with how they become numbers.
fn with_elements<V: Visit>(tensor: &Tensor, visit: V) -> V::Answer {
    let data: &[u8] = tensor.data();
    macro_rules! as_numbers {
        ($type:ty) => {{
            let (elements, _) = data.as_chunks::<{ size_of::<$type>() }>();
            visit.visit(
                elements,
                |bytes| <$type>::from_le_bytes(bytes) as f32,
                |bytes| <$type>::from_le_bytes(bytes) as f64,
            )
        }};
    }
    macro_rules! as_halves {
        ($type:ty) => {{
            let (elements, _) = data.as_chunks::<2>();
            let single = |bytes| <$type>::from_le_bytes(bytes).to_f32();
            visit.visit(elements, single, move |bytes| f64::from(single(bytes)))
        }};
    }
    match tensor.datatype() {
        Datatype::Bool | Datatype::Uint8 => as_numbers!(u8),
        Datatype::Uint16 => as_numbers!(u16),
        Datatype::Uint32 => as_numbers!(u32),
        Datatype::Uint64 => as_numbers!(u64),
        Datatype::Int8 => as_numbers!(i8),
        Datatype::Int16 => as_numbers!(i16),
        Datatype::Int32 => as_numbers!(i32),
        Datatype::Int64 => as_numbers!(i64),
        Datatype::Fp16 => as_halves!(f16),
        Datatype::Bf16 => as_halves!(bf16),
        Datatype::Fp32 => as_numbers!(f32),
        Datatype::Fp64 => as_numbers!(f64),
        // Whoever has texts reads them as such.
        Datatype::Bytes => visit.visit::<1>(&[], |_| f32::NAN, |_| f64::NAN),
    }
}

/// The figures of a row.
struct Figures {
    first: usize,
    width: usize,
}

impl Visit for Figures {
    type Answer = [f32; reduce::FIGURES];

    fn visit<const N: usize>(
        self,
        elements: &[[u8; N]],
        single: impl Fn([u8; N]) -> f32 + Copy,
        _: impl Fn([u8; N]) -> f64 + Copy,
    ) -> Self::Answer {
        let row = elements.get(self.first..self.first + self.width).unwrap_or_default();
        reduce::of_row(row.len(), |position| single(row[position]))
    }
}

/// The elements of a row as they are.
struct Fill<'a> {
    first: usize,
    width: usize,
    into: &'a mut Vec<f32>,
}

impl Visit for Fill<'_> {
    type Answer = ();

    fn visit<const N: usize>(
        self,
        elements: &[[u8; N]],
        single: impl Fn([u8; N]) -> f32 + Copy,
        _: impl Fn([u8; N]) -> f64 + Copy,
    ) {
        let row = elements.get(self.first..self.first + self.width).unwrap_or_default();
        self.into.clear();
        self.into.extend(row.iter().map(|bytes| single(*bytes)));
    }
}

/// All elements of a tensor of numbers, in place of what `into` held.
pub(super) fn elements(tensor: &Tensor, into: &mut Vec<f32>) {
    with_elements(tensor, Fill { first: 0, width: tensor.len(), into });
}

/// All elements of a tensor of numbers.
pub(super) fn doubles(tensor: &Tensor) -> Vec<f64> {
    let mut columns = [Column::Double(Vec::with_capacity(tensor.len()))];
    with_elements(tensor, Transpose { columns: &mut columns, places: &[(0, 0)], width: 1 });
    match columns {
        [Column::Double(values)] => values,
        _ => Vec::new(),
    }
}

/// Elements to columns, some rows at a time.
struct Transpose<'a> {
    columns: &'a mut [Column],
    places: &'a [(usize, usize)],
    width: usize,
}

impl Visit for Transpose<'_> {
    type Answer = ();

    fn visit<const N: usize>(
        self,
        elements: &[[u8; N]],
        single: impl Fn([u8; N]) -> f32 + Copy,
        double: impl Fn([u8; N]) -> f64 + Copy,
    ) {
        for block in elements.chunks(BLOCK * self.width) {
            for &(column, place) in self.places {
                let column = block.get(column..).unwrap_or_default().iter().step_by(self.width);
                match self.columns.get_mut(place) {
                    Some(Column::Single(values)) => values.extend(column.map(|&b| single(b))),
                    Some(Column::Double(values)) => values.extend(column.map(|&b| double(b))),
                    _ => {}
                }
            }
        }
    }
}

fn take_columns(columns: &mut [Column], places: &[(usize, usize)], tensor: &Tensor, width: usize) {
    if width == 0 || places.is_empty() {
        return;
    }
    if tensor.datatype() != Datatype::Bytes {
        return with_elements(tensor, Transpose { columns, places, width });
    }
    let mut elements = tensor.elements();
    loop {
        let mut next = 0;
        for &(column, place) in places {
            let Some(element) = elements.nth(column - next) else { return };
            next = column + 1;
            if let Some(Column::Text(texts)) = columns.get_mut(place) {
                texts.push(element);
            }
        }
        // Columns that nobody watches at a row's end.
        if next < width && elements.nth(width - next - 1).is_none() {
            return;
        }
    }
}

impl Texts {
    fn push(&mut self, text: &[u8]) {
        let hash = text::hash(text);
        self.hashes.push(hash);
        self.lengths.push(if hash == text::MISSING { f32::NAN } else { text.len() as f32 });
        if let Some(names) = &mut self.names {
            names.insert(hash, text);
        }
    }
}
