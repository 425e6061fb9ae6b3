//! Graphs whose rows have nothing to do with each other, run without tensors.
//!
//! tract gives each value between two nodes a tensor of its own, with shape, strides and memory:
//! for a small model that takes longer than the model. Most tabular models need none of it: each
//! row of a value follows from the same row of the request, and its length is fixed. Such a graph
//! is laid out as a [`Program`]: its values get places in a memory that the thread keeps, and its
//! steps go over slices, for a block of rows at a time, so that the values of a block stay in the
//! nearest caches. Answers have the same bits as those of tract's nodes, which a test compares.
//!
//! A graph with any node that is not known here ([`operators`]) has no program, and a request that
//! a program does not take (no rows, inputs of different lengths) goes the way of the others.
//!
//! O(steps · blocks) beside what the steps themselves take; memory of at most [`LARGEST`] a thread.

mod memory;
mod operators;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tract_onnx::prelude::{DatumType, TDim, TypedModel};
use tract_onnx::tract_core::internal::{Symbol, Tensor as TractTensor, TractResult, TypedFact};
use tract_onnx::tract_core::model::OutletId;
use tract_onnx::tract_core::ops::konst::Const;

use self::memory::{Counts, Memory};
pub(super) use self::memory::{Element, Inputs, Outputs, Place};
use super::{convert, courtesy, kernel};
use crate::tensor::{Datatype, Shape, Signature, Tensor};

/// Bytes of a block's values: half of the nearest cache, whose other half is for parameters.
const BLOCK: usize = 1 << 15;

/// Rows of a block, at least where there are as many: what a step costs beside its rows is shared
/// by them. A multiple of the rows that a product takes at once.
const FEWEST: usize = 48;

/// The most bytes that a block's values may take.
const LARGEST: usize = 1 << 20;

/// Computes the outputs' rows, each from the same row of the inputs.
pub(super) trait ByRow: fmt::Debug + Send + Sync {
    fn run_rows(&self, inputs: &Inputs<'_>, outputs: Outputs<'_>) -> TractResult<()>;

    /// Rows that it should get at once, where there are as many.
    fn rows_together(&self) -> usize {
        FEWEST
    }
}

/// What a node reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operand<'a> {
    /// A value of the row.
    Rows(Place),
    Constant(&'a Arc<TractTensor>),
}

/// A graph laid out.
pub(super) struct Program {
    inputs: Vec<Place>,
    steps: Vec<Step>,
    outputs: Vec<Output>,
    counts: Counts,
    /// Rows of a block, at most.
    block: usize,
}

struct Step {
    run: Arc<dyn ByRow>,
    inputs: Vec<Place>,
    /// The columns before the step's outputs, and those after them.
    columns: (Counts, Counts),
}

struct Output {
    place: Place,
    datatype: Datatype,
    /// Nothing for the axis of rows.
    shape: Vec<Option<usize>>,
}

/// A value's sizes, of which one is the number of rows.
struct Sizes {
    shape: Vec<Option<usize>>,
    /// The axis of rows. Those before it have size 1.
    axis: usize,
    /// The product of the others.
    columns: usize,
}

impl Sizes {
    /// Of a value whose rows stand one after the other; nothing for any other.
    fn of(fact: &TypedFact, rows: &Symbol) -> Option<Self> {
        let is_rows = |dim: &TDim| matches!(dim, TDim::Sym(symbol) if symbol == rows);
        let axis = fact.shape.iter().position(is_rows)?;
        let size = |(at, dim): (usize, &TDim)| {
            if at == axis { Some(None) } else { Some(Some(usize::try_from(dim.as_i64()?).ok()?)) }
        };
        let shape = fact.shape.iter().enumerate().map(size).collect::<Option<Vec<_>>>()?;
        let columns = shape.iter().flatten().try_fold(1_usize, |n, &size| n.checked_mul(size))?;
        let stand_in_order = shape[..axis].iter().all(|size| *size == Some(1));
        (stand_in_order && columns > 0).then_some(Self { shape, axis, columns })
    }
}

/// Whether a tensor's bytes are the slots' as they are, which BF16's are not.
fn is_same(datatype: Datatype, datum_type: DatumType) -> bool {
    convert::datum_type(datatype) == datum_type && datatype.size() == Some(datum_type.size_of())
}

impl Program {
    /// Lays out `model`, whose nodes run in `order`; nothing where a node is not known, or is none
    /// that works row by row.
    pub(super) fn lay_out(
        model: &TypedModel,
        order: &[usize],
        signature: &Signature,
    ) -> Option<Self> {
        let first = model.outlet_fact(*model.inputs.first()?).ok()?;
        let Some(TDim::Sym(rows)) = first.shape.first() else { return None };
        let mut counts = Counts::default();
        let mut places: Vec<Vec<Place>> = vec![Vec::new(); model.nodes().len()];
        let mut inputs = Vec::new();
        for (input, spec) in model.inputs.iter().zip(&signature.inputs) {
            let fact = model.outlet_fact(*input).ok()?;
            let sizes = Sizes::of(fact, rows).filter(|sizes| sizes.axis == 0)?;
            // Only what needs no conversion: BF16 is another type inside.
            let is_same = is_same(spec.datatype, fact.datum_type);
            let place = counts.add(fact.datum_type, sizes.columns).filter(|_| is_same)?;
            places[input.node] = vec![place];
            inputs.push(place);
        }
        let mut steps = Vec::new();
        for &id in order.iter().filter(|id| !model.inputs.iter().any(|input| input.node == **id)) {
            let node = model.node(id);
            let operand = |outlet: &OutletId| match places[outlet.node].get(outlet.slot) {
                Some(place) => Some(Operand::Rows(*place)),
                None => {
                    let constant = model.node(outlet.node).op_as::<Const>()?;
                    Some(Operand::Constant(constant.val()))
                }
            };
            let operands = node.inputs.iter().map(operand).collect::<Option<Vec<_>>>()?;
            let facts = node.outputs.iter().map(|output| Sizes::of(&output.fact, rows));
            let facts = facts.collect::<Option<Vec<Sizes>>>()?;
            if let ([Operand::Rows(place), ..], [sizes]) = (&operands[..], &facts[..])
                && operators::keeps_slots(model, node)
                && place.columns == sizes.columns
            {
                places[id] = vec![*place];
                continue;
            }
            let run = operators::step(model, node, &operands, (rows, &facts))?;
            let before = counts;
            let outputs = node.outputs.iter().zip(&facts);
            let outputs = outputs.map(|(output, sizes)| {
                counts.add(kernel::without_symbols(output.fact.datum_type), sizes.columns)
            });
            places[id] = outputs.collect::<Option<Vec<_>>>()?;
            let inputs = operands.iter().filter_map(|operand| match operand {
                Operand::Rows(place) => Some(*place),
                Operand::Constant(_) => None,
            });
            steps.push(Step { run, inputs: inputs.collect(), columns: (before, counts) });
        }
        let outputs = model.outputs.iter().zip(&signature.outputs).map(|(outlet, spec)| {
            let fact = model.outlet_fact(*outlet).ok()?;
            let place = *places[outlet.node].get(outlet.slot)?;
            let shape = Sizes::of(fact, rows)?.shape;
            is_same(spec.datatype, place.datum_type).then_some(Output {
                place,
                datatype: spec.datatype,
                shape,
            })
        });
        let outputs = outputs.collect::<Option<Vec<_>>>()?;
        let is_whole = inputs.len() == signature.inputs.len()
            && outputs.len() == signature.outputs.len()
            && model.inputs.len() == inputs.len()
            && model.outputs.len() == outputs.len();
        let together = steps.iter().map(|step| step.run.rows_together()).max().unwrap_or(FEWEST);
        let row = counts.bytes().max(1);
        let block = (BLOCK / row).max(together).min(LARGEST / row);
        (is_whole && block > 0).then_some(Self { inputs, steps, outputs, counts, block })
    }

    /// Runs the program on `inputs`, which fit the signature; nothing for a request that only the
    /// general way can answer.
    pub(super) fn run(&self, inputs: &[Tensor]) -> Option<TractResult<Vec<Tensor>>> {
        let n_rows = inputs.first()?.rows();
        let fits = |(input, place): (&Tensor, &Place)| {
            let size = place.datum_type.size_of() * place.columns;
            input.rows() == n_rows && size.checked_mul(n_rows) == Some(input.data().len())
        };
        if n_rows == 0
            || inputs.len() != self.inputs.len()
            || !inputs.iter().zip(&self.inputs).all(fits)
        {
            return None;
        }
        thread_local! {
            static MEMORY: RefCell<Memory> = const { RefCell::new(Memory::new()) };
        }
        MEMORY.with(|memory| {
            let mut memory = memory.try_borrow_mut().ok()?;
            Some(self.run_in(&mut memory, n_rows, inputs))
        })
    }

    fn run_in(
        &self,
        memory: &mut Memory,
        n_rows: usize,
        inputs: &[Tensor],
    ) -> TractResult<Vec<Tensor>> {
        memory.reserve(n_rows.min(self.block), self.counts);
        let size = |place: &Place| place.datum_type.size_of() * place.columns;
        let mut answers: Vec<Vec<u8>> = Vec::with_capacity(self.outputs.len());
        answers.extend(
            self.outputs.iter().map(|output| Vec::with_capacity(size(&output.place) * n_rows)),
        );
        let mut row = 0;
        while row < n_rows {
            let n = (n_rows - row).min(self.block);
            for (input, place) in inputs.iter().zip(&self.inputs) {
                let size = size(place);
                memory.put(*place, n, &input.data()[row * size..(row + n) * size])?;
            }
            for step in &self.steps {
                courtesy::between_nodes();
                let (inputs, outputs) = memory.cut(n, &step.inputs, step.columns);
                step.run.run_rows(&inputs, outputs)?;
            }
            for (output, answer) in self.outputs.iter().zip(&mut answers) {
                memory.take(output.place, n, answer)?;
            }
            row += n;
        }
        let answers = answers.into_iter().zip(&self.outputs).map(|(answer, output)| {
            let shape: Shape = output.shape.iter().map(|size| size.unwrap_or(n_rows)).collect();
            Ok(Tensor::new(output.datatype, shape, Bytes::from(answer))?)
        });
        answers.collect()
    }
}
