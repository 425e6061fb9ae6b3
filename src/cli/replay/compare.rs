//! Recorded answers against replayed ones.

use std::sync::Arc;
use std::time::Duration;

use half::{bf16, f16};
use serde::Serialize;

use crate::tensor::{Datatype, Tensor};

/// Differences that are shown.
const WORST: usize = 10;

/// Upper ends of the histogram's cells, in units in the last place.
const CELLS: [u64; 9] = [0, 1, 2, 4, 8, 16, 256, 65_536, u64::MAX];

/// What replaying showed.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Comparison {
    /// Rows that were compared.
    pub(super) rows: u64,
    /// Rows with the same bits in all outputs.
    pub(super) bit_equal: u64,
    /// Rows of which the same bits are promised.
    pub(super) promised: u64,
    /// Those of them whose bits differ.
    pub(super) broken: u64,
    /// Rows whose class is another.
    pub(super) class_flips: u64,
    /// Elements of floating point by the distance of the two.
    pub(super) ulps: Vec<Cell>,
    /// The largest absolute difference.
    pub(super) largest_difference: f64,
    /// The largest difference over the larger of the two.
    pub(super) largest_relative_difference: f64,
    /// The largest differences, the largest first.
    pub(super) worst: Vec<Difference>,
    /// Requests that got no answer, or one of another form.
    pub(super) failed: u64,
    /// The first of them.
    pub(super) failures: Vec<Failed>,
    /// Nanoseconds.
    #[serde(skip)]
    recorded: Vec<u64>,
    #[serde(skip)]
    replayed: Vec<u64>,
}

/// Elements whose distance is at most that.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Cell {
    /// Units in the last place; nothing where one of the two is no number.
    pub(super) at_most: Option<u64>,
    /// How many.
    pub(super) elements: u64,
}

/// One element that differs.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Difference {
    pub(super) request_id: String,
    pub(super) row: usize,
    pub(super) output: String,
    pub(super) element: usize,
    pub(super) recorded: f64,
    pub(super) replayed: f64,
    pub(super) difference: f64,
}

/// A request that got no answer.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Failed {
    pub(super) request_id: String,
    pub(super) reason: String,
}

/// Quantiles in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Latency {
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) max_us: f64,
}

impl Comparison {
    pub(super) fn new() -> Self {
        let cells = CELLS.iter().map(|&most| Cell { at_most: Some(most), elements: 0 });
        let none = Cell { at_most: None, elements: 0 };
        Self { ulps: cells.chain([none]).collect(), ..Self::default() }
    }

    /// Takes what both runs of a request took.
    pub(super) fn took(&mut self, recorded: u64, replayed: Duration) {
        self.recorded.push(recorded);
        self.replayed.push(u64::try_from(replayed.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The recorded and the replayed latency.
    pub(super) fn latencies(&mut self) -> (Latency, Latency) {
        (quantiles(&mut self.recorded), quantiles(&mut self.replayed))
    }

    /// Takes a request that got no answer.
    pub(super) fn fail(&mut self, request_id: &str, reason: impl ToString) {
        self.failed += 1;
        if self.failures.len() < WORST {
            let (request_id, reason) = (request_id.to_owned(), reason.to_string());
            self.failures.push(Failed { request_id, reason });
        }
    }

    /// Compares the answers to a request of `rows` rows; `is_promised` says whether they must have the
    /// same bits.
    pub(super) fn push(
        &mut self,
        request_id: &str,
        rows: usize,
        recorded: &[(Arc<str>, Tensor)],
        replayed: impl Fn(&str) -> Option<Tensor>,
        is_promised: bool,
    ) {
        let mut pairs = Vec::with_capacity(recorded.len());
        for (name, old) in recorded {
            let Some(new) = replayed(name) else {
                return self.fail(request_id, format!("there is no output '{name}' any more"));
            };
            if old.datatype() != new.datatype() || old.shape() != new.shape() {
                let form = |tensor: &Tensor| format!("{} {:?}", tensor.datatype(), tensor.shape());
                let (old, new) = (form(old), form(&new));
                return self.fail(request_id, format!("output '{name}' was {old} and is {new}"));
            }
            pairs.push((name, old, new));
        }
        let rows = rows.max(1);
        let mut is_equal = vec![true; rows];
        let mut is_flipped = vec![false; rows];
        for (name, old, new) in &pairs {
            let per_row = if old.rows() == rows { old.len() / rows } else { old.len() };
            if old.data() == new.data() {
                if old.datatype().is_float() {
                    self.ulps[0].elements += old.len() as u64;
                }
                continue;
            }
            match old.datatype().is_float() {
                true => {
                    let context = (request_id, &***name, per_row.max(1));
                    self.floats(context, (old, new), &mut is_equal, &mut is_flipped);
                }
                false => {
                    for at in differing(old, new) {
                        let row = (at / per_row.max(1)).min(rows - 1);
                        (is_equal[row], is_flipped[row]) = (false, true);
                    }
                }
            }
        }
        let count = |flags: &[bool], wanted: bool| {
            flags.iter().filter(|flag| **flag == wanted).count() as u64
        };
        self.rows += rows as u64;
        self.bit_equal += count(&is_equal, true);
        self.class_flips += count(&is_flipped, true);
        if is_promised {
            self.promised += rows as u64;
            self.broken += count(&is_equal, false);
        }
    }

    fn floats(
        &mut self,
        (request_id, output, per_row): (&str, &str, usize),
        (old, new): (&Tensor, &Tensor),
        is_equal: &mut [bool],
        is_flipped: &mut [bool],
    ) {
        let (old, new) = (numbers(old), numbers(new));
        for (at, (old, new)) in old.iter().zip(&new).enumerate() {
            let row = (at / per_row).min(is_equal.len() - 1);
            is_equal[row] &= old.bits == new.bits;
            let Some(distance) = distance(old, new) else {
                if let Some(none) = self.ulps.last_mut() {
                    none.elements += 1;
                }
                continue;
            };
            let cell = CELLS.iter().position(|&most| distance <= most).unwrap_or(0);
            self.ulps[cell].elements += 1;
            let difference = (old.value - new.value).abs();
            if distance > 0 && difference.is_finite() {
                let larger = old.value.abs().max(new.value.abs());
                self.largest_difference = self.largest_difference.max(difference);
                self.largest_relative_difference =
                    self.largest_relative_difference.max(difference / larger);
                self.keep(
                    || Difference {
                        request_id: request_id.to_owned(),
                        row,
                        output: output.to_owned(),
                        element: at % per_row,
                        recorded: old.value,
                        replayed: new.value,
                        difference,
                    },
                    difference,
                );
            }
        }
        if per_row > 1 {
            let highest = |row: &[Number]| {
                let values = row.iter().enumerate();
                values.max_by(|a, b| a.1.value.total_cmp(&b.1.value)).map(|(at, _)| at)
            };
            let rows = old.chunks(per_row).zip(new.chunks(per_row));
            for (row, (old, new)) in rows.enumerate() {
                if highest(old) != highest(new)
                    && let Some(flag) = is_flipped.get_mut(row)
                {
                    *flag = true;
                }
            }
        }
    }

    fn keep(&mut self, make: impl FnOnce() -> Difference, difference: f64) {
        let after = self.worst.partition_point(|other| other.difference >= difference);
        if after < WORST {
            self.worst.insert(after, make());
            self.worst.truncate(WORST);
        }
    }
}

/// Positions of elements that differ.
fn differing(old: &Tensor, new: &Tensor) -> Vec<usize> {
    let differ = |(at, is_same): (usize, bool)| (!is_same).then_some(at);
    match old.datatype().size() {
        Some(size) => {
            let pairs = old.data().chunks(size).zip(new.data().chunks(size));
            pairs.map(|(old, new)| old == new).enumerate().filter_map(differ).collect()
        }
        None => {
            let pairs = old.elements().zip(new.elements());
            pairs.map(|(old, new)| old == new).enumerate().filter_map(differ).collect()
        }
    }
}

struct Number {
    value: f64,
    bits: u64,
    /// Numbers in their order, one apart where nothing lies between them.
    place: i64,
}

fn numbers(tensor: &Tensor) -> Vec<Number> {
    macro_rules! read {
        ($type:ty, $bits:ty, $signed:ty, $value:expr) => {{
            let chunks = tensor.data().as_chunks::<{ size_of::<$type>() }>().0;
            let read = |chunk: &[u8; size_of::<$type>()]| {
                let bits = <$bits>::from_le_bytes(*chunk);
                let signed = bits as $signed;
                let place = if signed < 0 { <$signed>::MIN.wrapping_sub(signed) } else { signed };
                let value: f64 = $value(<$type>::from_le_bytes(*chunk));
                Number { value, bits: u64::from(bits), place: i64::from(place) }
            };
            chunks.iter().map(read).collect()
        }};
    }
    match tensor.datatype() {
        Datatype::Fp16 => read!(f16, u16, i16, f64::from),
        Datatype::Bf16 => read!(bf16, u16, i16, f64::from),
        Datatype::Fp64 => read!(f64, u64, i64, |value| value),
        _ => read!(f32, u32, i32, f64::from),
    }
}

/// Numbers between the two, and one; nothing where one is no number and the other is.
fn distance(old: &Number, new: &Number) -> Option<u64> {
    match (old.value.is_nan(), new.value.is_nan()) {
        (true, true) => Some(0),
        (false, false) => Some(old.place.abs_diff(new.place)),
        _ => None,
    }
}

fn quantiles(nanos: &mut [u64]) -> Latency {
    nanos.sort_unstable();
    let at = |share: f64| {
        let last = nanos.len().saturating_sub(1);
        nanos.get((last as f64 * share).round() as usize).map_or(0.0, |ns| *ns as f64 / 1e3)
    };
    Latency { p50_us: at(0.5), p99_us: at(0.99), max_us: at(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(shape: &[usize], values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(Datatype::Fp32, shape, data.into()).unwrap()
    }

    fn compare(old: &Tensor, new: &Tensor, rows: usize) -> Comparison {
        let mut comparison = Comparison::new();
        let recorded = [(Arc::from("y"), old.clone())];
        comparison.push("r", rows, &recorded, |_| Some(new.clone()), true);
        comparison
    }

    #[test]
    fn distances_are_counted_over_zero_and_flips_by_row() {
        let next = f32::from_bits(0.75_f32.to_bits() + 1);
        let old = floats(&[3, 2], &[0.75, 0.25, 0.0, -0.0, 0.6, 0.4]);
        let new = floats(&[3, 2], &[next, 0.25, -0.0, 0.0, 0.4, 0.6]);
        let comparison = compare(&old, &new, 3);
        assert_eq!((comparison.rows, comparison.bit_equal), (3, 0));
        assert_eq!((comparison.promised, comparison.broken), (3, 3));
        // The first of two that are equal is no more the highest: a zero's sign is in the order.
        assert!(comparison.class_flips >= 1);
        assert_eq!(comparison.ulps[0].elements, 3);
        assert_eq!(comparison.ulps[1].elements, 1);
        assert_eq!(comparison.worst[0].request_id, "r");
        assert!((comparison.largest_difference - 0.2).abs() < 1e-6);
    }

    #[test]
    fn what_is_no_number_is_told_apart() {
        let comparison = compare(&floats(&[2], &[f32::NAN, 1.0]), &floats(&[2], &[1.0, 1.0]), 2);
        assert_eq!(comparison.ulps.last().unwrap().elements, 1);
        assert_eq!(comparison.bit_equal, 1);
        let other = Tensor::from_elements([1].as_slice(), ["a"]).unwrap();
        let comparison = compare(&other, &Tensor::from_elements([1].as_slice(), ["b"]).unwrap(), 1);
        assert_eq!((comparison.class_flips, comparison.bit_equal), (1, 0));
        assert_eq!(compare(&other, &floats(&[1], &[1.0]), 1).failed, 1);
    }
}
