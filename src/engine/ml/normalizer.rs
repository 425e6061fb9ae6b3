//! `ai.onnx.ml.Normalizer` (1): rows divided by their largest value, L1 or L2 norm.
//!
//! A row whose norm is zero stays as it is.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{DatumType, Tensor, TractResult, bail};

use super::rows::{floats, tensor};
use super::{ByRow, DOMAIN, Form, Inputs, Kernel, NUMBERS, Operand, Outputs, expect_type, only};

#[derive(Debug)]
pub(super) struct Normalizer {
    norm: Norm,
}

#[derive(Debug)]
enum Norm {
    Max,
    L1,
    L2,
}

impl Kernel for Normalizer {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let norm = match node.get_attr_opt::<&str>("norm")? {
            None | Some("MAX") => Norm::Max,
            Some("L1") => Norm::L1,
            Some("L2") => Norm::L2,
            Some(other) => bail!("norm '{other}' is unknown"),
        };
        Ok(Self { norm })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let (datum_type, shape) = only(inputs)?;
        expect_type(*datum_type, &NUMBERS)?;
        Ok(vec![(DatumType::F32, shape.clone())])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let input = inputs[0];
        let mut output = floats(input)?.into_owned();
        let columns = input.shape().last().copied().unwrap_or(1).max(1);
        output.chunks_exact_mut(columns).for_each(|row| self.norm.divide(row));
        Ok(vec![tensor(input.shape(), output)?])
    }

    fn by_row(self: Arc<Self>, forms: &[Form], inputs: &[Operand<'_>]) -> Option<Arc<dyn ByRow>> {
        let (datum_type, shape) = only(forms).ok()?;
        let is_row = *datum_type == DatumType::F32 && shape.len() == 2;
        (is_row && matches!(inputs, [Operand::Rows(_)])).then_some(self)
    }
}

impl ByRow for Normalizer {
    fn run_rows(&self, inputs: &Inputs<'_>, outputs: Outputs<'_>) -> TractResult<()> {
        outputs.floats.copy_from_slice(inputs.values(0));
        let rows = outputs.floats.chunks_exact_mut(inputs.places[0].columns);
        rows.for_each(|row| self.norm.divide(row));
        Ok(())
    }
}

impl Norm {
    fn divide(&self, row: &mut [f32]) {
        let norm = match self {
            Self::Max => row.iter().copied().fold(f32::MIN, f32::max),
            Self::L1 => row.iter().map(|x| x.abs()).sum(),
            Self::L2 => row.iter().map(|x| x * x).sum::<f32>().sqrt(),
        };
        if norm != 0.0 {
            row.iter_mut().for_each(|x| *x /= norm);
        }
    }
}
