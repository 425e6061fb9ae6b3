//! `ConstantOfShape`, `Expand`, `OneHot` and `Tile` with constant sizes: tract makes their tensors while it
//! reads the graph, before anything can look at the sizes, and with sizes whose product overflows
//! it fills whatever memory there is. So the sizes are looked at before tract wires the node.

use std::sync::{Arc, OnceLock};

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::{TVec, TypedModel};
use tract_onnx::tract_core::internal::{StaticName, TractResult, bail, ensure};
use tract_onnx::tract_core::model::OutletId;
use tract_onnx::tract_hir::infer::InferenceOp;
use tract_onnx::tract_hir::infer::rules::{InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};

use super::kernel::Builder;
use super::sizes::LARGEST;

/// The operators, which input says the size, and whether it is so many times the first input's.
const OPERATORS: [(&str, usize, bool); 4] =
    [("ConstantOfShape", 0, false), ("Expand", 1, false), ("OneHot", 1, true), ("Tile", 1, true)];

/// What tract builds of them.
static THEIRS: OnceLock<Vec<Builder>> = OnceLock::new();

/// Puts the operators into tract's table, around its own.
pub(super) fn register(table: &mut OnnxOpRegister) {
    let theirs = OPERATORS.iter().map(|(name, ..)| table.0.get(*name).copied());
    if let Some(theirs) = theirs.collect::<Option<Vec<Builder>>>() {
        let _ = THEIRS.set(theirs);
        OPERATORS.iter().for_each(|(name, ..)| table.insert(name, build));
    }
}

fn build(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let at = OPERATORS.iter().position(|(name, ..)| *name == node.op_type);
    let (Some(at), Some(theirs)) = (at, THEIRS.get()) else { bail!("the table is not made") };
    let (op, names) = theirs[at](context, node)?;
    match op.as_op().downcast_ref::<Box<dyn Expansion>>() {
        Some(inner) => {
            let (_, sizes, is_times) = OPERATORS[at];
            Ok((expand(Around { inner: Arc::new(inner.clone()), sizes, is_times }), names))
        }
        None => Ok((op, names)),
    }
}

/// tract's reading of the node, and the input that says the size.
#[derive(Debug, Clone)]
struct Around {
    inner: Arc<Box<dyn Expansion>>,
    sizes: usize,
    is_times: bool,
}

impl PartialEq for Around {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Around {}

impl Expansion for Around {
    fn name(&self) -> StaticName {
        self.inner.name()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.inner.nboutputs()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.inner.rules(solver, inputs, outputs)
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let sizes = inputs.get(self.sizes).map(|input| model.outlet_fact(*input)).transpose()?;
        // Sizes with symbols are not known yet: they are looked at where they are.
        if let Some(sizes) = sizes.and_then(|fact| fact.konst.as_ref())
            && let Ok(sizes) = sizes.cast_to::<i64>()
        {
            let sizes = sizes.try_as_plain_ram()?.as_slice::<i64>()?;
            // Of four bytes each, as most are.
            let first = &model.outlet_fact(inputs[0])?.shape;
            let first = first.as_concrete().map_or(1, |shape| shape.iter().product::<usize>());
            let once = if self.is_times { first.max(1).saturating_mul(4) } else { 4 };
            let bytes = sizes.iter().try_fold(once, |bytes, &size| {
                bytes.checked_mul(usize::try_from(size).unwrap_or(1).max(1))
            });
            let fits = bytes.is_some_and(|bytes| bytes <= LARGEST);
            ensure!(fits, "would make a tensor of sizes {sizes:?}, of at most {LARGEST} bytes");
        }
        self.inner.wire(prefix, model, inputs)
    }
}
