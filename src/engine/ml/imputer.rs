//! `ai.onnx.ml.Imputer` (1): puts values in place of missing ones.
//!
//! The value that stands for a missing one is given by the node; where it is NaN, every NaN is
//! one.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{Datum, DatumType, Tensor, TractResult, bail};

use super::rows::{PerColumn, tensor, values};
use super::{DOMAIN, Form, Kernel, NUMBERS, expect_type, only};

#[derive(Debug)]
pub(super) struct Imputer {
    values: Values,
}

#[derive(Debug)]
enum Values {
    Floats { imputed: PerColumn<f32>, replaced: f32 },
    Ints { imputed: PerColumn<i64>, replaced: i64 },
}

impl Kernel for Imputer {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let floats = node.get_attr_opt_slice::<f32>("imputed_value_floats")?;
        let ints = node.get_attr_opt_slice::<i64>("imputed_value_int64s")?;
        let values = match (floats.unwrap_or_default(), ints.unwrap_or_default()) {
            (floats, []) => Values::Floats {
                imputed: PerColumn::new("imputed_value_floats", floats)?,
                replaced: node.get_attr_opt("replaced_value_float")?.unwrap_or(0.0),
            },
            ([], ints) => Values::Ints {
                imputed: PerColumn::new("imputed_value_int64s", ints)?,
                replaced: node.get_attr_opt("replaced_value_int64")?.unwrap_or(0),
            },
            _ => bail!("imputed values are needed, either floats or integers"),
        };
        Ok(Self { values })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let form = only(inputs)?;
        match &self.values {
            Values::Floats { imputed, .. } => {
                expect_type(form.0, &[DatumType::F32, DatumType::F64])?;
                imputed.check(&form.1)?;
            }
            Values::Ints { imputed, .. } => {
                expect_type(form.0, &NUMBERS[2..])?;
                imputed.check(&form.1)?;
            }
        }
        Ok(vec![form.clone()])
    }

    #[expect(clippy::cast_possible_truncation, reason = "an imputed value of the input's type")]
    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let input = inputs[0];
        let output = match (&self.values, input.datum_type()) {
            (Values::Floats { imputed, replaced }, DatumType::F32) => {
                let is_missing =
                    |x: f32| if replaced.is_nan() { x.is_nan() } else { x == *replaced };
                impute(input, imputed, is_missing, |x| x)
            }
            (Values::Floats { imputed, replaced }, DatumType::F64) => {
                let replaced = f64::from(*replaced);
                let is_missing =
                    |x: f64| if replaced.is_nan() { x.is_nan() } else { x == replaced };
                impute(input, imputed, is_missing, f64::from)
            }
            (Values::Ints { imputed, replaced }, DatumType::I64) => {
                impute(input, imputed, |x: i64| x == *replaced, |x| x)
            }
            (Values::Ints { imputed, replaced }, DatumType::I32) => {
                impute(input, imputed, |x: i32| i64::from(x) == *replaced, |x| x as i32)
            }
            (_, other) => bail!("cannot impute {other:?}"),
        };
        Ok(vec![output?])
    }
}

fn impute<T: Datum + Copy, P: Copy>(
    input: &Tensor,
    imputed: &PerColumn<P>,
    is_missing: impl Fn(T) -> bool,
    convert: impl Fn(P) -> T,
) -> TractResult<Tensor> {
    let columns = input.shape().last().copied().unwrap_or(1);
    imputed.check_run(columns)?;
    let mut output = values::<T>(input)?.to_vec();
    for row in output.chunks_exact_mut(columns.max(1)) {
        for (column, value) in row.iter_mut().enumerate() {
            if is_missing(*value) {
                *value = convert(imputed.get(column));
            }
        }
    }
    tensor(input.shape(), output)
}
