//! The values of a block of rows: a run of slots for each type, in the order of the steps.
//!
//! A step's outputs stand behind all that was computed before them, so that one cut through the
//! slots of a type parts what the step reads from what it writes.

use tract_onnx::tract_core::internal::{DatumType, TractResult, bail};

/// Where a value stands, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Place {
    pub(in crate::engine) datum_type: DatumType,
    /// Values a row.
    pub(in crate::engine) columns: usize,
    /// Columns of the same type before it.
    before: usize,
}

/// Columns of each type.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    floats: usize,
    doubles: usize,
    longs: usize,
    ints: usize,
    flags: usize,
}

impl Counts {
    /// The place of `columns` more; nothing for a type that has no slots.
    pub(super) fn add(&mut self, datum_type: DatumType, columns: usize) -> Option<Place> {
        let count = match datum_type {
            DatumType::F32 => &mut self.floats,
            DatumType::F64 => &mut self.doubles,
            DatumType::I64 => &mut self.longs,
            DatumType::I32 => &mut self.ints,
            DatumType::Bool => &mut self.flags,
            _ => return None,
        };
        let before = *count;
        *count = before.checked_add(columns)?;
        Some(Place { datum_type, columns, before })
    }

    /// Bytes of a row.
    pub(super) fn bytes(&self) -> usize {
        let Self { floats, doubles, longs, ints, flags } = *self;
        let wide = doubles.saturating_add(longs).saturating_mul(8);
        wide.saturating_add(floats.saturating_add(ints).saturating_mul(4)).saturating_add(flags)
    }
}

/// The slots of a thread, for a block of rows of whatever runs there.
#[derive(Debug, Default)]
pub(super) struct Memory {
    floats: Vec<f32>,
    doubles: Vec<f64>,
    longs: Vec<i64>,
    ints: Vec<i32>,
    flags: Vec<bool>,
}

impl Memory {
    pub(super) const fn new() -> Self {
        Self {
            floats: Vec::new(),
            doubles: Vec::new(),
            longs: Vec::new(),
            ints: Vec::new(),
            flags: Vec::new(),
        }
    }

    /// Makes room for `n_rows` rows of `counts`.
    pub(super) fn reserve(&mut self, n_rows: usize, counts: Counts) {
        fn grow<T: Clone + Default>(slots: &mut Vec<T>, count: usize) {
            if slots.len() < count {
                slots.resize(count, T::default());
            }
        }
        grow(&mut self.floats, n_rows * counts.floats);
        grow(&mut self.doubles, n_rows * counts.doubles);
        grow(&mut self.longs, n_rows * counts.longs);
        grow(&mut self.ints, n_rows * counts.ints);
        grow(&mut self.flags, n_rows * counts.flags);
    }

    /// What a step reads, and what it writes: the columns from `start` to `end`.
    pub(super) fn cut<'a>(
        &'a mut self,
        n_rows: usize,
        places: &'a [Place],
        (start, end): (Counts, Counts),
    ) -> (Inputs<'a>, Outputs<'a>) {
        fn cut<T>(slots: &mut [T], start: usize, end: usize) -> (&[T], &mut [T]) {
            let (before, after) = slots.split_at_mut(start);
            (before, &mut after[..end - start])
        }
        let n = n_rows;
        let (floats, new_floats) = cut(&mut self.floats, n * start.floats, n * end.floats);
        let (doubles, new_doubles) = cut(&mut self.doubles, n * start.doubles, n * end.doubles);
        let (longs, new_longs) = cut(&mut self.longs, n * start.longs, n * end.longs);
        let (ints, new_ints) = cut(&mut self.ints, n * start.ints, n * end.ints);
        let (flags, new_flags) = cut(&mut self.flags, n * start.flags, n * end.flags);
        (
            Inputs { n_rows, places, floats, doubles, longs, ints, flags },
            Outputs {
                floats: new_floats,
                doubles: new_doubles,
                longs: new_longs,
                ints: new_ints,
                flags: new_flags,
            },
        )
    }

    /// Copies rows of a tensor's little-endian bytes into a place.
    pub(super) fn put(&mut self, place: Place, n_rows: usize, bytes: &[u8]) -> TractResult<()> {
        fn copy<T, const N: usize>(to: &mut [T], from: &[u8], read: fn([u8; N]) -> T) {
            for (slot, &bytes) in to.iter_mut().zip(from.as_chunks::<N>().0) {
                *slot = read(bytes);
            }
        }
        let slots = place.before * n_rows..(place.before + place.columns) * n_rows;
        match place.datum_type {
            DatumType::F32 => copy(&mut self.floats[slots], bytes, f32::from_le_bytes),
            DatumType::F64 => copy(&mut self.doubles[slots], bytes, f64::from_le_bytes),
            DatumType::I64 => copy(&mut self.longs[slots], bytes, i64::from_le_bytes),
            DatumType::I32 => copy(&mut self.ints[slots], bytes, i32::from_le_bytes),
            DatumType::Bool => copy(&mut self.flags[slots], bytes, |[byte]: [u8; 1]| byte != 0),
            other => bail!("there are no slots for {other:?}"),
        }
        Ok(())
    }

    /// Appends a place's rows to a tensor's bytes.
    pub(super) fn take(&self, place: Place, n_rows: usize, bytes: &mut Vec<u8>) -> TractResult<()> {
        fn copy<T: Copy, const N: usize>(from: &[T], bytes: &mut Vec<u8>, write: fn(T) -> [u8; N]) {
            let start = bytes.len();
            bytes.resize(start + from.len() * N, 0);
            for (to, &value) in bytes[start..].as_chunks_mut::<N>().0.iter_mut().zip(from) {
                *to = write(value);
            }
        }
        let slots = place.before * n_rows..(place.before + place.columns) * n_rows;
        match place.datum_type {
            DatumType::F32 => copy(&self.floats[slots], bytes, f32::to_le_bytes),
            DatumType::F64 => copy(&self.doubles[slots], bytes, f64::to_le_bytes),
            DatumType::I64 => copy(&self.longs[slots], bytes, i64::to_le_bytes),
            DatumType::I32 => copy(&self.ints[slots], bytes, i32::to_le_bytes),
            DatumType::Bool => copy(&self.flags[slots], bytes, |flag| [u8::from(flag)]),
            other => bail!("there are no slots for {other:?}"),
        }
        Ok(())
    }
}

/// What a step reads.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct Inputs<'a> {
    /// Rows of the block.
    pub(in crate::engine) n_rows: usize,
    /// Its inputs, in the node's order, without constants.
    pub(in crate::engine) places: &'a [Place],
    floats: &'a [f32],
    doubles: &'a [f64],
    longs: &'a [i64],
    ints: &'a [i32],
    flags: &'a [bool],
}

impl<'a> Inputs<'a> {
    /// The values of input `at`, row after row. It must be of the type that its place tells: the
    /// slots of another are another value's, or are not there.
    pub(in crate::engine) fn values<T: Element>(&self, at: usize) -> &'a [T] {
        let Place { columns, before, datum_type } = self.places[at];
        debug_assert_eq!(datum_type, T::DATUM_TYPE);
        &T::of(self)[before * self.n_rows..][..columns * self.n_rows]
    }
}

/// What a step writes: the slots of its outputs of each type.
#[derive(Debug)]
pub(in crate::engine) struct Outputs<'a> {
    pub(in crate::engine) floats: &'a mut [f32],
    pub(in crate::engine) doubles: &'a mut [f64],
    pub(in crate::engine) longs: &'a mut [i64],
    pub(in crate::engine) ints: &'a mut [i32],
    pub(in crate::engine) flags: &'a mut [bool],
}

/// A type that has slots.
pub(in crate::engine) trait Element:
    Copy + PartialOrd + std::fmt::Debug + Send + Sync + 'static
{
    const DATUM_TYPE: DatumType;
    fn of<'a>(inputs: &Inputs<'a>) -> &'a [Self];
    fn written<'a>(outputs: Outputs<'a>) -> &'a mut [Self];
}

macro_rules! element {
    ($t:ty, $datum_type:ident, $field:ident) => {
        impl Element for $t {
            const DATUM_TYPE: DatumType = DatumType::$datum_type;
            fn of<'a>(inputs: &Inputs<'a>) -> &'a [Self] {
                inputs.$field
            }
            fn written<'a>(outputs: Outputs<'a>) -> &'a mut [Self] {
                outputs.$field
            }
        }
    };
}
element!(f32, F32, floats);
element!(f64, F64, doubles);
element!(i64, I64, longs);
element!(i32, I32, ints);
element!(bool, Bool, flags);
