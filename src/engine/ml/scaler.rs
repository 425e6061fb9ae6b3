//! `ai.onnx.ml.Scaler` (1): (x - offset) · scale, column by column, as binary32.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{DatumType, Tensor, TractResult};

use super::rows::{PerColumn, floats, tensor, values};
use super::{ByRow, DOMAIN, Form, Inputs, Kernel, NUMBERS, Operand, Outputs, expect_type, only};

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
        if input.datum_type() == DatumType::F64 {
            // Doubles are scaled as such and rounded once.
            let mut output = Vec::with_capacity(input.len());
            for row in values::<f64>(input)?.chunks_exact(columns) {
                output.extend(row.iter().enumerate().map(|(column, x)| {
                    let (offset, scale) = (self.offset.get(column), self.scale.get(column));
                    ((x - f64::from(offset)) * f64::from(scale)) as f32
                }));
            }
            return Ok(vec![tensor(input.shape(), output)?]);
        }
        let mut output = vec![0.0; input.len()];
        self.scale(&floats(input)?, columns, &mut output);
        Ok(vec![tensor(input.shape(), output)?])
    }

    fn by_row(self: Arc<Self>, forms: &[Form], inputs: &[Operand<'_>]) -> Option<Arc<dyn ByRow>> {
        let (datum_type, shape) = only(forms).ok()?;
        let [Operand::Rows(place)] = inputs else { return None };
        let is_row = *datum_type == DatumType::F32 && shape.len() == 2;
        let fits = |n| n == 1 || n == place.columns;
        (is_row && fits(self.offset.len()) && fits(self.scale.len())).then_some(self)
    }
}

impl ByRow for Scaler {
    fn run_rows(&self, inputs: &Inputs<'_>, outputs: Outputs<'_>) -> TractResult<()> {
        self.scale(inputs.values(0), inputs.places[0].columns, outputs.floats);
        Ok(())
    }
}

impl Scaler {
    fn scale(&self, input: &[f32], columns: usize, output: &mut [f32]) {
        let rows = input.chunks_exact(columns).zip(output.chunks_exact_mut(columns));
        let (offsets, scales) = (self.offset.values(), self.scale.values());
        if offsets.len() == columns && scales.len() == columns {
            for (row, output) in rows {
                let parameters = offsets.iter().zip(scales);
                for ((to, x), (offset, scale)) in output.iter_mut().zip(row).zip(parameters) {
                    *to = (x - offset) * scale;
                }
            }
            return;
        }
        for (row, output) in rows {
            for (column, (to, x)) in output.iter_mut().zip(row).enumerate() {
                *to = (x - self.offset.get(column)) * self.scale.get(column);
            }
        }
    }
}
