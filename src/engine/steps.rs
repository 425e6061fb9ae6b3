//! The lean way to run a compiled graph: its nodes one after the other, and nothing else.
//!
//! tract's own runner makes a state for each run: two tables over all nodes, each constant put into
//! one of them, symbols resolved anew at each node. For a model of microseconds that costs more
//! than the model. Most graphs need none of it: their operators keep nothing between turns, and
//! the sizes of their inputs say all others. Such a graph is laid out once as [`Steps`]: each knows
//! where its inputs are and which of them it is the last to read, and so may overwrite.
//!
//! Where a graph does need it (loops that carry state, sizes known only from data), there are no
//! steps and tract's runner runs it.

use smallvec::SmallVec;
use tract_onnx::prelude::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::{SymbolValues, TDim, TValue, TVec, TractError, TypedModel};
use tract_onnx::tract_core::internal::{
    AxisOp, DimLike, EvalContext, IntoTensor, Symbol, TractResult, bail, ensure,
};
use tract_onnx::tract_core::model::OutletId;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::plan::SessionId;

use super::courtesy;
use super::sizes::Growing;

/// A graph without state, laid out.
pub(super) struct Steps {
    /// The sizes that each input must have, in the graph's order.
    sizes: Vec<Vec<Size>>,
    inputs: Vec<usize>,
    outputs: Vec<Place>,
    steps: Vec<Step>,
    n_values: usize,
    growing: Growing,
}

struct Step {
    node: usize,
    /// Where the node only puts other sizes in the place of some: the first of them, how many, and
    /// the others. tract computes the whole shape with symbols each time, which costs as much as a
    /// small layer.
    reshape: Option<(usize, usize, Vec<usize>)>,
    inputs: Vec<Place>,
    /// Its outputs' places are this one and those after it.
    first_output: usize,
}

/// Where a value is found.
enum Place {
    Constant(TValue),
    /// Read by a later step as well.
    Shared(usize),
    /// Not read again.
    Last(usize),
}

enum Size {
    Fixed(usize),
    Symbol(Symbol),
}

type Values = SmallVec<[Option<TValue>; 24]>;

impl Steps {
    /// Lays out `model`, whose nodes run in `order`; nothing where it needs tract's runner.
    pub(super) fn lay_out(model: &TypedModel, order: &[usize]) -> Option<Self> {
        let sizes = model.inputs.iter().map(|&input| sizes(model, input));
        let sizes = sizes.collect::<Option<Vec<Vec<Size>>>>()?;
        let is_bound = |symbol: &Symbol| {
            sizes
                .iter()
                .flatten()
                .any(|size| matches!(size, Size::Symbol(bound) if bound == symbol))
        };
        let mut firsts = vec![None; model.nodes().len()];
        let mut n_values = 0;
        for &id in order {
            let node = model.node(id);
            let dims = node.outputs.iter().flat_map(|output| output.fact.shape.iter());
            let has_state = !matches!(node.op().state(&EvalContext::out_of_plan()), Ok(None));
            if has_state || !dims.flat_map(TDim::symbols).all(|symbol| is_bound(&symbol)) {
                return None;
            }
            firsts[id] = Some(n_values);
            n_values += node.outputs.len();
        }
        let place = |outlet: &OutletId| match firsts[outlet.node] {
            Some(first) => Some(Place::Shared(first + outlet.slot)),
            None => {
                let constant = model.node(outlet.node).op_as::<Const>()?;
                Some(Place::Constant(TValue::from_const(constant.val().clone())))
            }
        };
        let places = |outlets: &[OutletId]| outlets.iter().map(place).collect::<Option<Vec<_>>>();
        let is_input = |id: usize| model.inputs.iter().any(|input| input.node == id);
        let steps = order.iter().filter(|&&id| !is_input(id)).map(|&node| {
            let inputs = places(&model.node(node).inputs)?;
            let reshape = model.node(node).op_as::<AxisOp>().and_then(reshape);
            Some(Step { node, reshape, inputs, first_output: firsts[node]? })
        });
        let steps = steps.collect::<Option<Vec<_>>>()?;
        let inputs = model.inputs.iter().map(|input| firsts[input.node]);
        let inputs = inputs.collect::<Option<Vec<_>>>()?;
        let outputs = places(&model.outputs)?;
        let growing = Growing::of(model, order);
        let mut laid_out = Self { sizes, inputs, outputs, steps, n_values, growing };
        laid_out.mark_last_reads();
        Some(laid_out)
    }

    /// From the end on: who reads a value first, so to say, is the last to read it.
    fn mark_last_reads(&mut self) {
        let mut is_read = vec![false; self.n_values];
        let steps = self.steps.iter_mut().rev().flat_map(|step| step.inputs.iter_mut().rev());
        for place in self.outputs.iter_mut().rev().chain(steps) {
            if let Place::Shared(at) = *place
                && !std::mem::replace(&mut is_read[at], true)
            {
                *place = Place::Last(at);
            }
        }
    }

    /// Runs the nodes of `model`, which is the one that was laid out, on `inputs`.
    pub(super) fn run(
        &self,
        model: &TypedModel,
        inputs: TVec<TValue>,
    ) -> TractResult<TVec<TValue>> {
        let mut context = EvalContext::out_of_plan();
        let symbols = self.bind(&inputs)?;
        context.symbols = &symbols;
        let largest = inputs.iter().flat_map(|input| input.shape()).copied().max();
        self.growing.check(model, &symbols, largest.unwrap_or(0))?;
        let mut values: Values = std::iter::repeat_with(|| None).take(self.n_values).collect();
        for (&at, value) in self.inputs.iter().zip(inputs) {
            values[at] = Some(value);
        }
        let _scratch = Scratch { model, steps: &self.steps };
        multithread_tract_scope(Executor::SingleThread, || {
            for step in &self.steps {
                courtesy::between_nodes();
                let node = model.node(step.node);
                context.node_id = step.node;
                if let ([place], Some(reshape)) = (&step.inputs[..], &step.reshape) {
                    let value = reshaped(take(place, &mut values)?, reshape)?;
                    values[step.first_output] = Some(value);
                    continue;
                }
                let inputs = step.inputs.iter().map(|place| take(place, &mut values));
                let outputs = node.op().eval(&context, inputs.collect::<TractResult<_>>()?);
                let outputs = outputs
                    .map_err(|error: TractError| error.context(format!("Evaluating {node}")))?;
                ensure!(
                    outputs.len() == node.outputs.len(),
                    "{node} has a wrong number of outputs"
                );
                for (at, value) in (step.first_output..).zip(outputs) {
                    values[at] = Some(value);
                }
            }
            self.outputs.iter().map(|place| take(place, &mut values)).collect()
        })
    }

    /// The sizes that the inputs' symbols stand for.
    fn bind(&self, inputs: &[TValue]) -> TractResult<SymbolValues> {
        let mut symbols = SymbolValues::default();
        ensure!(inputs.len() == self.sizes.len(), "takes {} inputs", self.sizes.len());
        for (input, sizes) in inputs.iter().zip(&self.sizes) {
            ensure!(input.rank() == sizes.len(), "takes {} axes", sizes.len());
            for (&given, size) in input.shape().iter().zip(sizes) {
                let expected = match size {
                    Size::Fixed(size) => i64::try_from(*size)?,
                    Size::Symbol(symbol) => match symbols.get(symbol) {
                        Some(size) => size,
                        None => {
                            symbols.set(symbol, i64::try_from(given)?);
                            continue;
                        }
                    },
                };
                ensure!(i64::try_from(given)? == expected, "takes {expected}, not {given}");
            }
        }
        Ok(symbols)
    }
}

/// What a change of axes puts in the place of what, where it moves no data and all is known.
fn reshape(op: &AxisOp) -> Option<(usize, usize, Vec<usize>)> {
    match op {
        AxisOp::Add(axis) => Some((*axis, 0, vec![1])),
        AxisOp::Rm(axis) => Some((*axis, 1, Vec::new())),
        AxisOp::Reshape(axis, from, to) => {
            let to = to.iter().map(|dim| dim.to_usize().ok()).collect::<Option<Vec<_>>>()?;
            let is_known = from.iter().all(|dim| dim.to_usize().is_ok());
            is_known.then_some((*axis, from.len(), to))
        }
        AxisOp::Move(..) => None,
    }
}

fn reshaped(value: TValue, reshape: &(usize, usize, Vec<usize>)) -> TractResult<TValue> {
    let (axis, n_axes, to) = reshape;
    let mut shape: TVec<usize> = value.shape().into();
    ensure!(axis + n_axes <= shape.len(), "{shape:?} has no axis {axis}");
    shape.drain(*axis..axis + n_axes);
    shape.insert_many(*axis, to.iter().copied());
    let mut tensor = value.into_tensor();
    tensor.set_shape(&shape)?;
    Ok(tensor.into())
}

/// An input's sizes, where each is a number or a symbol by itself.
fn sizes(model: &TypedModel, input: OutletId) -> Option<Vec<Size>> {
    let fact = model.outlet_fact(input).ok()?;
    let size = |dim: &TDim| match dim {
        TDim::Sym(symbol) => Some(Size::Symbol(symbol.clone())),
        dim => dim.as_i64().and_then(|size| usize::try_from(size).ok()).map(Size::Fixed),
    };
    fact.shape.iter().map(size).collect()
}

#[inline]
fn take(place: &Place, values: &mut Values) -> TractResult<TValue> {
    let value = match place {
        Place::Constant(value) => return Ok(value.clone()),
        Place::Shared(at) => values[*at].clone(),
        Place::Last(at) => values[*at].take(),
    };
    match value {
        Some(value) => Ok(value),
        None => bail!("a value is read before it is there"),
    }
}

/// Gives back what the operators kept for the run, panic or not. tract's matrix product keeps
/// scratch memory on the thread by session and node, and runs of other plans on this thread use the
/// same session.
struct Scratch<'a> {
    model: &'a TypedModel,
    steps: &'a [Step],
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        for step in self.steps {
            self.model.node(step.node).op().drop_session(SessionId::NONE, step.node);
        }
    }
}
