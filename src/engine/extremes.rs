//! `ReduceMax` and `ReduceMin` of floats: tract 0.23.9 begins with the smallest number there is, and
//! so answers that where all values are negative infinity.
//!
//! Here the first value is what the others are compared with, as in ONNX Runtime, whose answer for
//! rows with what is not a number depends on where it stands among how many; here it stays where it
//! stands first. tract still reads the node, whatever its operator set says about axes; the step
//! that it makes of it is replaced.

use std::sync::{Arc, OnceLock};

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{
    Datum, DatumType, DatumTypeExt, EvalContext, EvalOp, Op, StaticName, TDim, TValue, TVec,
    Tensor, TractResult, TypedFact, TypedModel, TypedOp, as_op, bail, ensure, op_as_typed_op,
    op_out_of_plan,
};
use tract_onnx::tract_core::model::OutletId;
use tract_onnx::tract_core::ops::nn::{Reduce, Reducer};
use tract_onnx::tract_hir::infer::InferenceOp;
use tract_onnx::tract_hir::infer::rules::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};

use super::kernel::{Builder, values};

/// Puts the operators into tract's table, around its own.
pub(super) fn register(table: &mut OnnxOpRegister) {
    let theirs = ["ReduceMax", "ReduceMin"].map(|name| table.0.get(name).copied());
    if let [Some(max), Some(min)] = theirs {
        let _ = THEIRS.set([max, min]);
        table.insert("ReduceMax", build);
        table.insert("ReduceMin", build);
    }
}

/// What tract builds of the two.
static THEIRS: OnceLock<[Builder; 2]> = OnceLock::new();

fn build(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let Some([max, min]) = THEIRS.get() else { bail!("the table is not made") };
    let theirs = if node.op_type == "ReduceMax" { max } else { min };
    let (op, names) = theirs(context, node)?;
    match op.as_op().downcast_ref::<Box<dyn Expansion>>() {
        Some(inner) => Ok((expand(Around(Arc::new(inner.clone()))), names)),
        None => Ok((op, names)),
    }
}

/// tract's reading of the node.
#[derive(Debug, Clone)]
struct Around(Arc<Box<dyn Expansion>>);

impl PartialEq for Around {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Around {}

impl Expansion for Around {
    fn name(&self) -> StaticName {
        self.0.name()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.0.nboutputs()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.0.rules(solver, inputs, outputs)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let first = model.nodes().len();
        let outputs = self.0.wire(prefix, model, inputs)?;
        for id in first..model.nodes().len() {
            let node = model.node(id);
            let Some(reduce) = node.op_as::<Reduce>() else { continue };
            let is_smallest = match reduce.reducer {
                Reducer::Max => false,
                Reducer::Min => true,
                _ => continue,
            };
            let datum_type = model.outlet_fact(node.inputs[0])?.datum_type;
            if matches!(datum_type, DatumType::F16 | DatumType::F32 | DatumType::F64) {
                let axes = reduce.axes.clone();
                model.node_mut(id).op = Box::new(Extreme { axes, is_smallest });
            }
        }
        Ok(outputs)
    }
}

/// The largest or smallest values along some axes, which stay with size 1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Extreme {
    axes: TVec<usize>,
    is_smallest: bool,
}

impl Op for Extreme {
    fn name(&self) -> StaticName {
        if self.is_smallest { "Smallest" } else { "Largest" }.into()
    }

    op_as_typed_op!();
}

impl EvalOp for Extreme {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = &*inputs[0];
        let output = match input.datum_type() {
            DatumType::F16 => self.reduce::<half::f16>(input),
            DatumType::F32 => self.reduce::<f32>(input),
            DatumType::F64 => self.reduce::<f64>(input),
            other => bail!("cannot compare {other:?}"),
        };
        Ok([output?.into()].into_iter().collect())
    }
}

impl Extreme {
    /// O(size), one axis after the other, the last first.
    fn reduce<T: Datum + Copy + PartialOrd>(&self, input: &Tensor) -> TractResult<Tensor> {
        let mut shape: TVec<usize> = input.shape().into();
        let mut reduced = values::<T>(input)?.to_vec();
        let mut axes = self.axes.clone();
        axes.sort_unstable();
        for &axis in axes.iter().rev() {
            ensure!(axis < shape.len(), "axis {axis} of {} axes", shape.len());
            let (length, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
            shape[axis] = 1;
            let count = shape.iter().product::<usize>();
            ensure!(length > 0 || count == 0, "there is no largest of no values");
            let mut results = Vec::with_capacity(count);
            for block in reduced.chunks_exact((length * inner).max(1)) {
                let (first, rest) = block.split_at(inner);
                let start = results.len();
                results.extend_from_slice(first);
                for row in rest.chunks_exact(inner.max(1)) {
                    for (best, value) in results[start..].iter_mut().zip(row) {
                        let is_better = if self.is_smallest { value < best } else { value > best };
                        *best = if is_better { *value } else { *best };
                    }
                }
            }
            reduced = results;
        }
        Tensor::from_shape(&shape, &reduced)
    }
}

impl TypedOp for Extreme {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        for &axis in &self.axes {
            ensure!(axis < shape.len(), "axis {axis} of {} axes", shape.len());
            shape[axis] = TDim::from(1);
        }
        Ok([inputs[0].datum_type.fact(shape)].into_iter().collect())
    }

    as_op!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced(is_smallest: bool, axes: &[usize], rows: &[[f32; 3]]) -> Vec<f32> {
        let input = Tensor::from_shape(&[rows.len(), 3], rows.as_flattened()).unwrap();
        let op = Extreme { axes: axes.into(), is_smallest };
        values::<f32>(&op.reduce::<f32>(&input).unwrap()).unwrap().to_vec()
    }

    /// Answers of ONNX Runtime 1.32.
    #[test]
    fn infinities_and_what_is_not_a_number() {
        const NAN: f32 = f32::NAN;
        const INF: f32 = f32::INFINITY;
        let rows = [[-INF; 3], [INF; 3], [1.0, NAN, 2.0], [-1.0, -INF, -3.0]];
        assert_eq!(reduced(false, &[1], &rows), [-INF, INF, 2.0, -1.0]);
        assert_eq!(reduced(true, &[1], &rows), [-INF, INF, 1.0, -INF]);
        assert_eq!(reduced(false, &[0, 1], &rows[..1]), [-INF]);
        assert_eq!(reduced(true, &[0], &rows[..2]), [-INF; 3]);
        assert!(reduced(false, &[1], &[[NAN, 1.0, 2.0]])[0].is_nan());
    }
}
