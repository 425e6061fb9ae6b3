//! Golden requests: what a version must answer before it may go live.
//!
//! `<version>/golden.json` holds cases of inputs and expected outputs, as tensors in the
//! protocol's JSON form, each case with a tolerance:
//!
//! ```json
//! {"cases": [{
//!   "name": "one row",
//!   "inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}],
//!   "outputs": [{"name": "y", "shape": [1, 1], "datatype": "FP32", "data": [2]}],
//!   "tolerance": {"absolute": 1e-6, "relative": 1e-5}
//! }]}
//! ```
//!
//! A number passes where `|got - expected| <= absolute + relative * |expected|`; NaN passes for
//! NaN, and infinities and everything that is not a floating-point number must be equal.

use half::{bf16, f16};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::engine::Plan;
use crate::protocol::v2::decode_tensors;
use crate::tensor::{Datatype, Tensor};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    #[serde(borrow)]
    cases: Vec<Case<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case<'a> {
    #[serde(default)]
    name: String,
    #[serde(borrow)]
    inputs: &'a RawValue,
    #[serde(borrow)]
    outputs: &'a RawValue,
    #[serde(default)]
    tolerance: Tolerance,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields, default)]
struct Tolerance {
    absolute: f64,
    relative: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { absolute: 1e-6, relative: 1e-4 }
    }
}

/// Runs all cases of `file` on `plan`. Returns how many there were, or what the first that failed
/// expected and got.
pub(super) fn check(plan: &Plan, file: &[u8]) -> Result<usize, String> {
    let file: File<'_> =
        serde_json::from_slice(file).map_err(|error| format!("golden.json: {error}"))?;
    for (index, case) in file.cases.iter().enumerate() {
        check_case(plan, case)
            .map_err(|error| format!("golden.json: case {index} '{}': {error}", case.name))?;
    }
    Ok(file.cases.len())
}

fn check_case(plan: &Plan, case: &Case<'_>) -> Result<(), String> {
    let signature = plan.signature();
    let inputs = decode_tensors(case.inputs.get().as_bytes(), &signature.inputs)
        .map_err(|error| error.to_string())?;
    let expected = decode_tensors(case.outputs.get().as_bytes(), &signature.outputs)
        .map_err(|error| error.to_string())?;
    let outputs = plan.run(&inputs).map_err(|error| error.to_string())?;
    for ((got, expected), spec) in outputs.iter().zip(&expected).zip(&signature.outputs) {
        compare(got, expected, case.tolerance)
            .map_err(|error| format!("output '{}': {error}", spec.name))?;
    }
    Ok(())
}

fn compare(got: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Result<(), String> {
    if got.shape() != expected.shape() {
        return Err(format!("expected shape {:?}, got {:?}", expected.shape(), got.shape()));
    }
    let (Some(numbers), Some(expectations)) = (floats(got), floats(expected)) else {
        return match got.data() == expected.data() {
            true => Ok(()),
            false => Err(format!("expected {}, got {}", first_bytes(expected), first_bytes(got))),
        };
    };
    for (index, (got, expected)) in numbers.into_iter().zip(expectations).enumerate() {
        let allowed = tolerance.absolute + tolerance.relative * expected.abs();
        let passes = got == expected
            || (got.is_nan() && expected.is_nan())
            || (expected.is_finite() && (got - expected).abs() <= allowed);
        if !passes {
            return Err(format!("element {index}: expected {expected} ± {allowed:e}, got {got}"));
        }
    }
    Ok(())
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    let data = tensor.data();
    let halves = || data.chunks_exact(2).map(|b| [b[0], b[1]]);
    Some(match tensor.datatype() {
        Datatype::Fp16 => halves().map(|b| f16::from_le_bytes(b).to_f64()).collect(),
        Datatype::Bf16 => halves().map(|b| bf16::from_le_bytes(b).to_f64()).collect(),
        Datatype::Fp32 => data
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect(),
        Datatype::Fp64 => data
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
            .collect(),
        _ => return None,
    })
}

/// The beginning of a tensor's bytes, for a message.
fn first_bytes(tensor: &Tensor) -> String {
    let data = tensor.data();
    let shown = data.iter().take(32).map(|byte| format!("{byte:02x}")).collect::<String>();
    let more = if data.len() > 32 { "..." } else { "" };
    format!("bytes {shown}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fp32(values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(Datatype::Fp32, [values.len()].as_slice(), data.into()).unwrap()
    }

    #[test]
    fn numbers_pass_within_the_tolerance_and_fail_beyond() {
        let tolerance = Tolerance { absolute: 0.5, relative: 0.1 };
        let expected = fp32(&[10.0, f32::NAN, f32::INFINITY]);
        assert!(compare(&fp32(&[11.4, f32::NAN, f32::INFINITY]), &expected, tolerance).is_ok());
        let error = compare(&fp32(&[11.6, f32::NAN, f32::INFINITY]), &expected, tolerance);
        assert_eq!(error.unwrap_err(), "element 0: expected 10 ± 1.5e0, got 11.600000381469727");
        assert!(compare(&fp32(&[10.0, 0.0, f32::INFINITY]), &expected, tolerance).is_err());
        assert!(compare(&fp32(&[10.0, f32::NAN, 1e30]), &expected, tolerance).is_err());
    }
}
