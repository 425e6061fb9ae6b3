//! The elements of tensors as numbers, classes and JSON, row by row.

use half::{bf16, f16};
use serde_json::Value;

use crate::tensor::{Datatype, Tensor};

/// Elements of a row that are shown.
const MOST_SHOWN: usize = 64;

/// Bytes of a text that are shown.
const LONGEST_SHOWN: usize = 256;

/// The number at `index`; BYTES have none. The caller keeps within the tensor.
pub(super) fn number(tensor: &Tensor, index: usize) -> f64 {
    let data = tensor.data();
    macro_rules! at {
        ($type:ty) => {{
            const SIZE: usize = size_of::<$type>();
            let bytes = data.get(index * SIZE..).and_then(|rest| rest.first_chunk::<SIZE>());
            bytes.map_or(f64::NAN, |bytes| <$type>::from_le_bytes(*bytes) as f64)
        }};
    }
    match tensor.datatype() {
        Datatype::Bool | Datatype::Uint8 => at!(u8),
        Datatype::Uint16 => at!(u16),
        Datatype::Uint32 => at!(u32),
        Datatype::Uint64 => at!(u64),
        Datatype::Int8 => at!(i8),
        Datatype::Int16 => at!(i16),
        Datatype::Int32 => at!(i32),
        Datatype::Int64 => at!(i64),
        Datatype::Fp16 => f16::from_bits(bits(tensor, index) as u16).to_f64(),
        Datatype::Bf16 => bf16::from_bits(bits(tensor, index) as u16).to_f64(),
        Datatype::Fp32 => at!(f32),
        Datatype::Fp64 => at!(f64),
        Datatype::Bytes => f64::NAN,
    }
}

/// The bits of the element at `index`.
fn bits(tensor: &Tensor, index: usize) -> u64 {
    let size = tensor.datatype().size().unwrap_or_default();
    let bytes = tensor.data().get(index * size..(index + 1) * size).unwrap_or_default();
    bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

/// How many numbers of the datatype lie between the two elements at `index`, of tensors of floating
/// point of the same datatype: 0 where they are equal, also where one is +0 and the other -0.
pub(super) fn ulps(a: &Tensor, b: &Tensor, index: usize) -> u64 {
    let width = 8 * a.datatype().size().unwrap_or_default() as u32;
    // Ordered like the numbers: both zeros are the same.
    let place = |bits: u64| -> i128 {
        let sign = 1_u64.checked_shl(width.saturating_sub(1)).unwrap_or_default();
        let magnitude = i128::from(bits & !sign);
        if bits & sign == 0 { magnitude } else { -magnitude }
    };
    let distance = (place(bits(a, index)) - place(bits(b, index))).unsigned_abs();
    u64::try_from(distance).unwrap_or(u64::MAX)
}

/// Elements of a row, where a tensor has `rows` of them.
pub(super) fn columns(tensor: &Tensor, rows: usize) -> usize {
    tensor.len().checked_div(rows).unwrap_or_default()
}

/// A row as JSON: its elements, cut off where there are many. `texts` are the elements of BYTES.
pub(super) fn row_as_json(tensor: &Tensor, row: usize, rows: usize) -> Value {
    let n_columns = columns(tensor, rows);
    let shown = n_columns.min(MOST_SHOWN);
    let start = row * n_columns;
    let mut values: Vec<Value> = match tensor.datatype() {
        Datatype::Bytes => tensor
            .elements()
            .skip(start)
            .take(shown)
            .map(|text| Value::from(shorten(text)))
            .collect(),
        Datatype::Bool => {
            (start..start + shown).map(|at| Value::from(number(tensor, at) != 0.0)).collect()
        }
        Datatype::Uint64 => (start..start + shown).map(|at| bits(tensor, at).into()).collect(),
        Datatype::Int64 => {
            (start..start + shown).map(|at| bits(tensor, at).cast_signed().into()).collect()
        }
        Datatype::Fp32 => (start..start + shown)
            .map(|at| short(f64::from(f32::from_bits(bits(tensor, at) as u32)), true))
            .collect(),
        datatype => (start..start + shown)
            .map(|at| match datatype.is_float() {
                true => short(number(tensor, at), false),
                false => Value::from(number(tensor, at) as i64),
            })
            .collect(),
    };
    if n_columns > shown {
        values.push(Value::from(format!("... {} more", n_columns - shown)));
    }
    Value::from(values)
}

/// A number as JSON, as short as its datatype allows; what JSON cannot hold is a text.
fn short(number: f64, is_single: bool) -> Value {
    if !number.is_finite() {
        return Value::from(number.to_string());
    }
    let text = if is_single { (number as f32).to_string() } else { number.to_string() };
    text.parse::<f64>().map_or(Value::Null, Value::from)
}

/// A text as it can be shown.
pub(super) fn shorten(text: &[u8]) -> String {
    let cut = &text[..text.len().min(LONGEST_SHOWN)];
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{}{more}", String::from_utf8_lossy(cut))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A tensor of one column, or of so many.
    pub(in super::super) fn floats(values: &[f32], n_columns: usize) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = [values.len() / n_columns, n_columns];
        Tensor::new(Datatype::Fp32, shape.as_slice(), data.into()).unwrap()
    }

    #[test]
    fn ulps_count_the_numbers_between() {
        let of = |a: f32, b: f32| ulps(&floats(&[a], 1), &floats(&[b], 1), 0);
        assert_eq!(of(1.0, 1.0), 0);
        assert_eq!(of(1.0, f32::from_bits(1.0_f32.to_bits() + 3)), 3);
        assert_eq!(of(0.0, -0.0), 0);
        assert_eq!(of(f32::from_bits(1), -f32::from_bits(1)), 2);
        assert!(of(f32::NEG_INFINITY, f32::INFINITY) > 1 << 31);
    }

    #[test]
    fn rows_are_shown_as_their_datatype_writes_them() {
        let tensor = floats(&[0.1, f32::NAN, 2.0, 3.0], 2);
        assert_eq!(row_as_json(&tensor, 0, 2).to_string(), r#"[0.1,"NaN"]"#);
        assert_eq!(row_as_json(&tensor, 1, 2).to_string(), "[2.0,3.0]");
        let texts = Tensor::from_elements([2].as_slice(), ["a", "b"]).unwrap();
        assert_eq!(row_as_json(&texts, 1, 2).to_string(), r#"["b"]"#);
        let long = floats(&[1.0; 100], 100);
        assert!(row_as_json(&long, 0, 1).to_string().ends_with(r#""... 36 more"]"#));
    }
}
