//! Operators of our own, and how tract sees them.
//!
//! A [`Kernel`] is a parsed node: a pure function from tensors to tensors, with rules for types and
//! shapes. This file binds kernels to tract, and is the only one that knows how tract's operators
//! look.
//!
//! Invariants:
//! - a node is checked whole when it is parsed: no attribute can make a run read out of bounds;
//! - a kernel never panics on what its rules accepted, and keeps no state between runs.

use std::fmt;
use std::sync::Arc;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::{
    Datum, DatumType, DatumTypeExt, EvalContext, EvalOp, Op, SpecialOps, StaticName, TDim, TValue,
    TVec, Tensor, TractError, TractResult, TypedFact, TypedModel, TypedNode, TypedOp, as_op, bail,
    ensure, op_as_typed_op, op_out_of_plan,
};
use tract_onnx::tract_core::model::OutletId;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_hir::infer::rules::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::infer::{InferenceOp, ShapeFactoid};
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};

pub(super) use super::rowwise::{ByRow, Element, Inputs, Operand, Outputs};

/// A tensor's type and shape while the graph is compiled.
pub(super) type Form = (DatumType, TVec<TDim>);

/// A parsed node.
pub(super) trait Kernel: fmt::Debug + Send + Sync + 'static {
    /// The domain of the operator's name.
    fn domain() -> &'static str
    where
        Self: Sized;

    /// Reads the node's attributes.
    fn parse(context: &ParsingContext<'_>, node: &NodeProto) -> TractResult<Self>
    where
        Self: Sized;

    /// Types and shapes of the outputs for those of the inputs; refuses what it cannot take.
    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>>;

    /// Computes the outputs. The inputs fit what [`Kernel::outputs`] accepted.
    fn run(&self, inputs: &[&Tensor]) -> TractResult<Vec<Tensor>>;

    /// The same on slices, with the same bits, where each row of the outputs follows from the same
    /// row of these inputs; nothing where that is not so, or not worth it.
    fn by_row(self: Arc<Self>, _forms: &[Form], _inputs: &[Operand<'_>]) -> Option<Arc<dyn ByRow>> {
        None
    }
}

/// What tract's table of operators holds.
pub(super) type Builder =
    fn(&ParsingContext<'_>, &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Parses a node and binds it.
pub(super) fn build<K: Kernel>(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    ensure!(node.domain == K::domain(), "{} of domain '{}' is unknown", node.op_type, node.domain);
    let kernel = K::parse(context, node)?;
    let bound = Bound {
        name: node.op_type.clone(),
        n_inputs: node.input.iter().filter(|name| !name.is_empty()).count(),
        n_outputs: node.output.iter().filter(|name| !name.is_empty()).count(),
        kernel: Arc::new(kernel),
    };
    Ok((expand(bound), Vec::new()))
}

/// A kernel as tract sees it, before and after the inference of types.
#[derive(Debug, Clone)]
struct Bound {
    name: String,
    n_inputs: usize,
    n_outputs: usize,
    kernel: Arc<dyn Kernel>,
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel)
    }
}

impl Eq for Bound {}

impl Bound {
    fn outputs(&self, inputs: &[Form]) -> TractResult<Vec<Form>> {
        let mut outputs = self.kernel.outputs(inputs)?;
        let (n_given, n_named) = (outputs.len(), self.n_outputs);
        ensure!(n_named <= n_given, "{} has {n_given} outputs, not {n_named}", self.name);
        outputs.truncate(n_named);
        Ok(outputs)
    }
}

impl Expansion for Bound {
    fn name(&self) -> StaticName {
        self.name.clone().into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.n_outputs)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        ensure!(inputs.len() == self.n_inputs, "{} has a wrong number of inputs", self.name);
        ensure!(outputs.len() == self.n_outputs, "{} has a wrong number of outputs", self.name);
        solver.given_all(inputs.iter().map(|input| &input.datum_type), move |solver, types| {
            solver.given_all(inputs.iter().map(|input| &input.shape), move |solver, shapes| {
                let types = types.iter().map(|&datum_type| without_symbols(datum_type));
                let forms: Vec<Form> = types.zip(shapes).collect();
                for (output, (datum_type, shape)) in outputs.iter().zip(self.outputs(&forms)?) {
                    solver.equals(&output.datum_type, datum_type)?;
                    solver.equals(&output.shape, ShapeFactoid::from(shape))?;
                }
                Ok(())
            })
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let mut numbers = TVec::with_capacity(inputs.len());
        for (at, &input) in inputs.iter().enumerate() {
            let is_symbolic = model.outlet_fact(input)?.datum_type == DatumType::TDim;
            numbers.push(if is_symbolic {
                model.wire_node(format!("{prefix}.numbers-{at}"), cast(DatumType::I64), &[input])?
                    [0]
            } else {
                input
            });
        }
        model.wire_node(prefix, self.clone(), &numbers)
    }
}

impl Op for Bound {
    fn name(&self) -> StaticName {
        self.name.clone().into()
    }

    op_as_typed_op!();
}

impl EvalOp for Bound {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let inputs: TVec<&Tensor> = inputs.iter().map(|value| &**value).collect();
        let outputs = self.kernel.run(&inputs)?;
        Ok(outputs.into_iter().take(self.n_outputs).map(Into::into).collect())
    }
}

impl TypedOp for Bound {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let forms: Vec<Form> = inputs
            .iter()
            .map(|fact| (without_symbols(fact.datum_type), fact.shape.to_tvec()))
            .collect();
        let outputs = self.outputs(&forms)?;
        Ok(outputs.into_iter().map(|(datum_type, shape)| datum_type.fact(shape)).collect())
    }

    as_op!();
}

/// The kernel of a node as a step over rows, where it has one and the node names all its outputs.
pub(super) fn by_row(
    model: &TypedModel,
    node: &TypedNode,
    operands: &[Operand<'_>],
) -> Option<Arc<dyn ByRow>> {
    let bound = node.op_as::<Bound>()?;
    let form = |&input: &OutletId| {
        let fact = model.outlet_fact(input).ok()?;
        Some((without_symbols(fact.datum_type), fact.shape.to_tvec()))
    };
    let forms = node.inputs.iter().map(form).collect::<Option<Vec<Form>>>()?;
    let names_all = bound.kernel.outputs(&forms).ok()?.len() == bound.n_outputs;
    if names_all { Arc::clone(&bound.kernel).by_row(&forms, operands) } else { None }
}

/// An input that the node cannot take: the request's fault, not the engine's.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct Rejected(pub(super) String);

/// What a kernel rejected, where that is what `error` is about.
pub(super) fn rejection(error: &TractError) -> Option<String> {
    error.chain().find_map(|cause| cause.downcast_ref::<Rejected>()).map(ToString::to_string)
}

/// tract keeps whole numbers that may be sizes of tensors as expressions over symbols, also where
/// a model casts a feature to INT64. Kernels see numbers.
pub(super) fn without_symbols(datum_type: DatumType) -> DatumType {
    if datum_type == DatumType::TDim { DatumType::I64 } else { datum_type }
}

/// The tensor's values, in order.
pub(super) fn values<T: Datum>(tensor: &Tensor) -> TractResult<&[T]> {
    tensor.try_as_plain_ram()?.as_slice::<T>()
}

/// The only form among `inputs`.
pub(super) fn only(inputs: &[Form]) -> TractResult<&Form> {
    match inputs {
        [form] => Ok(form),
        _ => bail!("takes one input, not {}", inputs.len()),
    }
}

/// Refuses a type that is not in `allowed`.
pub(super) fn expect_type(datum_type: DatumType, allowed: &[DatumType]) -> TractResult<()> {
    ensure!(allowed.contains(&datum_type), "takes {allowed:?}, not {datum_type:?}");
    Ok(())
}

/// The types that most operators of `ai.onnx.ml` take.
pub(super) const NUMBERS: [DatumType; 4] =
    [DatumType::F32, DatumType::F64, DatumType::I64, DatumType::I32];
