//! `ai.onnx.ml.FeatureVectorizer` (1): several inputs side by side, as binary32.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{DatumType, TDim, Tensor, TractResult, ensure};

use super::rows::{floats, matrix, n_rows, tensor, zeros};
use super::{DOMAIN, Form, Kernel, NUMBERS, Rejected, expect_type};

#[derive(Debug)]
pub(super) struct FeatureVectorizer {
    /// The columns that each input takes in the output: its own are cut or filled with zeros.
    columns: Vec<usize>,
}

impl Kernel for FeatureVectorizer {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self> {
        let columns: Vec<usize> = node.get_attr_vec("inputdimensions")?;
        ensure!(columns.len() == node.input.len(), "inputdimensions must name each input");
        let total = columns.iter().try_fold(0_usize, |sum, &n| sum.checked_add(n));
        ensure!(total.is_some_and(|total| total < 1 << 31), "inputdimensions are too large");
        Ok(Self { columns })
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        ensure!(inputs.len() == self.columns.len(), "inputdimensions must name each input");
        inputs.iter().try_for_each(|(datum_type, _)| expect_type(*datum_type, &NUMBERS))?;
        let total: usize = self.columns.iter().sum();
        let shape = [n_rows(&inputs[0].1)?, TDim::from(total)];
        Ok(vec![(DatumType::F32, shape.into_iter().collect())])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let total: usize = self.columns.iter().sum();
        let (n_rows, _) = matrix(inputs[0].shape())?;
        let mut output = zeros::<f32>(n_rows, total)?;
        let mut start = 0;
        for (input, &width) in inputs.iter().zip(&self.columns) {
            let (rows, columns) = matrix(input.shape())?;
            if rows != n_rows {
                return Err(Rejected(format!("inputs of {n_rows} and of {rows} rows")).into());
            }
            let n_copied = width.min(columns);
            let input = floats(input)?;
            for row in 0..rows {
                let from = &input[row * columns..][..n_copied];
                output[row * total + start..][..n_copied].copy_from_slice(from);
            }
            start += width;
        }
        Ok(vec![tensor(&[n_rows, total], output)?])
    }
}
