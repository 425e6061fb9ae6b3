//! The logistic function in binary64, which tract has in binary16 and binary32 only.
//!
//! Exports of classifiers that take doubles end in it. In other types it stays tract's.

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{
    DatumType, EvalContext, EvalOp, IntoTensor, Op, SpecialOps, StaticName, TValue, TVec,
    TractResult, TypedFact, TypedModel, TypedOp, as_op, ensure, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_core::model::OutletId;
use tract_onnx::tract_core::ops::nn;
use tract_onnx::tract_hir::infer::InferenceOp;
use tract_onnx::tract_hir::infer::rules::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};

/// 1 / (1 + e^-x), element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sigmoid;

/// Puts the operator into tract's table.
pub(super) fn register(table: &mut OnnxOpRegister) {
    fn build(
        _: &ParsingContext<'_>,
        _: &NodeProto,
    ) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
        Ok((expand(Sigmoid), Vec::new()))
    }
    table.insert("Sigmoid", build);
}

impl Expansion for Sigmoid {
    fn name(&self) -> StaticName {
        "Sigmoid".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        ensure!(inputs.len() == 1 && outputs.len() == 1, "Sigmoid has one input and one output");
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        if model.outlet_fact(inputs[0])?.datum_type == DatumType::F64 {
            return model.wire_node(prefix, *self, inputs);
        }
        model.wire_node(prefix, nn::sigmoid(), inputs)
    }
}

impl Op for Sigmoid {
    fn name(&self) -> StaticName {
        "Sigmoid64".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Sigmoid {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = inputs[0].to_plain_array_view::<f64>()?;
        let output = input.mapv(|x| 1.0 / (1.0 + (-x).exp())).into_tensor();
        Ok([output.into()].into_iter().collect())
    }
}

impl TypedOp for Sigmoid {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok([inputs[0].without_value()].into_iter().collect())
    }

    as_op!();
}
