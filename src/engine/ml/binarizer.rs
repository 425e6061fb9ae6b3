//! `ai.onnx.ml.Binarizer` (1): 1 above the threshold, 0 otherwise, in the input's type.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{DatumType, Tensor, TractResult, bail};

use super::rows::{tensor, values};
use super::{DOMAIN, Form, Kernel, NUMBERS, expect_type, only};

#[derive(Debug)]
pub(super) struct Binarizer {
    threshold: f32,
}

impl Kernel for Binarizer {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        Ok(Self { threshold: node.get_attr_opt("threshold")?.unwrap_or(0.0) })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let form = only(inputs)?;
        expect_type(form.0, &NUMBERS)?;
        Ok(vec![form.clone()])
    }

    #[expect(clippy::cast_precision_loss, reason = "the threshold is binary32")]
    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let (input, threshold) = (inputs[0], self.threshold);
        let shape = input.shape();
        let above = |is_above: bool| f32::from(u8::from(is_above));
        let output = match input.datum_type() {
            DatumType::F32 => {
                let x = values::<f32>(input)?.iter();
                tensor(shape, x.map(|&x| above(x > threshold)).collect())
            }
            DatumType::F64 => {
                let x = values::<f64>(input)?.iter();
                tensor(shape, x.map(|&x| f64::from(above(x > f64::from(threshold)))).collect())
            }
            DatumType::I64 => {
                let x = values::<i64>(input)?.iter();
                tensor(shape, x.map(|&x| i64::from(x as f32 > threshold)).collect())
            }
            DatumType::I32 => {
                let x = values::<i32>(input)?.iter();
                tensor(shape, x.map(|&x| i32::from(x as f32 > threshold)).collect())
            }
            other => bail!("takes numbers, not {other:?}"),
        };
        Ok(vec![output?])
    }
}
