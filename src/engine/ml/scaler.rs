//! `ai.onnx.ml.Scaler` (1): (x - offset) · scale, column by column, as binary32.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{DatumType, Tensor, TractResult};

use super::rows::{PerColumn, floats, tensor, values};
use super::{DOMAIN, Form, Kernel, NUMBERS, expect_type, only};

#[derive(Debug)]
pub(super) struct Scaler {
    offset: PerColumn<f32>,
    scale: PerColumn<f32>,
}

impl Kernel for Scaler {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let offset = node.get_attr_opt_slice("offset")?.unwrap_or(&[0.0]);
        let scale = node.get_attr_opt_slice("scale")?.unwrap_or(&[1.0]);
        Ok(Self {
            offset: PerColumn::new("offset", offset)?,
            scale: PerColumn::new("scale", scale)?,
        })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let (datum_type, shape) = only(inputs)?;
        expect_type(*datum_type, &NUMBERS)?;
        self.offset.check(shape)?;
        self.scale.check(shape)?;
        Ok(vec![(DatumType::F32, shape.clone())])
    }

    #[expect(clippy::cast_possible_truncation, reason = "the output is binary32")]
    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let input = inputs[0];
        let columns = input.shape().last().copied().unwrap_or(1).max(1);
        self.offset.check_run(columns)?;
        self.scale.check_run(columns)?;
        let mut output = Vec::with_capacity(input.len());
        if input.datum_type() == DatumType::F64 {
            // Doubles are scaled as such and rounded once.
            for row in values::<f64>(input)?.chunks_exact(columns) {
                output.extend(row.iter().enumerate().map(|(column, x)| {
                    let (offset, scale) = (self.offset.get(column), self.scale.get(column));
                    ((x - f64::from(offset)) * f64::from(scale)) as f32
                }));
            }
        } else {
            for row in floats(input)?.chunks_exact(columns) {
                output.extend(
                    row.iter()
                        .enumerate()
                        .map(|(column, x)| (x - self.offset.get(column)) * self.scale.get(column)),
                );
            }
        }
        Ok(vec![tensor(input.shape(), output)?])
    }
}
