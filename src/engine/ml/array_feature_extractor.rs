//! `ai.onnx.ml.ArrayFeatureExtractor` (1): picks columns of the last axis by position.

use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{
    Datum, DatumType, TDim, TVec, Tensor, TractResult, bail, ensure,
};

use super::rows::{tensor, values};
use super::{
    ByRow, DOMAIN, Element, Form, Inputs, Kernel, Operand, Outputs, Rejected, expect_type,
};

#[derive(Debug)]
pub(super) struct ArrayFeatureExtractor;

impl Kernel for ArrayFeatureExtractor {
    fn domain() -> &'static str {
        DOMAIN
    }

    fn parse(_: &ParsingContext<'_>, _: &NodeProto) -> TractResult<Self> {
        Ok(Self)
    }

    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let [(datum_type, shape), (index_type, indices)] = inputs else {
            bail!("takes two inputs, not {}", inputs.len());
        };
        expect_type(*index_type, &[DatumType::I64])?;
        ensure!(!shape.is_empty(), "takes a tensor of one axis or more");
        let count = indices.iter().fold(TDim::from(1), |count, size| count * size);
        // A vector comes out as one row.
        let mut picked: TVec<TDim> = match shape.len() {
            1 => std::iter::once(1.into()).collect(),
            rank => shape[..rank - 1].iter().cloned().collect(),
        };
        picked.push(count);
        Ok(vec![(*datum_type, picked)])
    }

    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>> {
        let indices = values::<i64>(inputs[1])?;
        let picked = match inputs[0].datum_type() {
            DatumType::F32 => pick::<f32>(inputs[0], indices),
            DatumType::F64 => pick::<f64>(inputs[0], indices),
            DatumType::I64 => pick::<i64>(inputs[0], indices),
            DatumType::I32 => pick::<i32>(inputs[0], indices),
            DatumType::String => pick::<String>(inputs[0], indices),
            DatumType::Bool => pick::<bool>(inputs[0], indices),
            other => bail!("cannot pick from {other:?}"),
        };
        Ok(vec![picked?])
    }

    /// From a constant row, as classifiers pick their labels.
    fn by_row(self: Arc<Self>, _: &[Form], inputs: &[Operand<'_>]) -> Option<Arc<dyn ByRow>> {
        let [Operand::Constant(from), Operand::Rows(_)] = inputs else { return None };
        if from.shape().iter().product::<usize>() != *from.shape().last()? {
            return None;
        }
        Some(match from.datum_type() {
            DatumType::F32 => Arc::new(Picks(values::<f32>(from).ok()?.to_vec())),
            DatumType::I64 => Arc::new(Picks(values::<i64>(from).ok()?.to_vec())),
            DatumType::I32 => Arc::new(Picks(values::<i32>(from).ok()?.to_vec())),
            _ => return None,
        })
    }
}

#[derive(Debug)]
struct Picks<T>(Vec<T>);

impl<T: Element> ByRow for Picks<T> {
    fn run_rows(&self, inputs: &Inputs<'_>, outputs: Outputs<'_>) -> TractResult<()> {
        for (picked, &index) in T::written(outputs).iter_mut().zip(inputs.values::<i64>(0)) {
            *picked = self.0[position(index, self.0.len())?];
        }
        Ok(())
    }
}

/// The position that `index` means among `columns`.
fn position(index: i64, columns: usize) -> Result<usize, Rejected> {
    usize::try_from(index).ok().filter(|&index| index < columns).ok_or_else(|| {
        Rejected(format!("index {index} is beyond the {columns} columns that are there"))
    })
}

fn pick<T: Datum>(from: &Tensor, indices: &[i64]) -> TractResult<Tensor> {
    let &columns = from.shape().last().unwrap_or(&0);
    let indices = indices.iter().map(|&index| position(index, columns));
    let indices = indices.collect::<Result<Vec<_>, _>>()?;
    let rows = values::<T>(from)?.chunks_exact(columns.max(1));
    let picked: Vec<T> =
        rows.flat_map(|row| indices.iter().map(|&index| row[index].clone())).collect();
    let mut shape: TVec<usize> = from.shape().into();
    match shape.len() {
        1 => shape = [1, indices.len()].into_iter().collect(),
        rank => shape[rank - 1] = indices.len(),
    }
    tensor(&shape, picked)
}
