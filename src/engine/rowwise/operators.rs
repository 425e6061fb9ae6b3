//! Nodes as steps of a program: kernels of our own that say so, the plain ones of tract's by their
//! definition, and some of tract's through tensors.

use std::sync::Arc;

use tract_onnx::prelude::{DatumType, TDim, TValue, TVec, TypedModel, TypedNode};
use tract_onnx::tract_core::internal::{
    AxisOp, EvalContext, Symbol, Tensor as TractTensor, TractResult, TypedOp, ensure,
};
use tract_onnx::tract_core::ops::array::{Gather, TypedConcat};
use tract_onnx::tract_core::ops::binary::{OptBinByScalar, OptBinUnicast, TypedBinOp};
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::identity::Identity;
use tract_onnx::tract_core::ops::nn::Softmax;

use super::{ByRow, Element, Inputs, Operand, Outputs, Place, Sizes};
use crate::engine::kernel::{self, without_symbols};

/// Whether the node's output has the values of its first input in the same order, so that both are
/// one.
pub(super) fn keeps_slots(model: &TypedModel, node: &TypedNode) -> bool {
    let Ok(input) = model.outlet_fact(node.inputs[0]) else { return false };
    if let Some(Cast { to }) = node.op_as() {
        return without_symbols(*to) == without_symbols(input.datum_type);
    }
    match node.op_as::<AxisOp>() {
        Some(AxisOp::Move(from, to)) => {
            let (first, last) = (*from.min(to), *from.max(to));
            let is_one =
                |axis: usize| input.shape.get(axis).is_some_and(|dim| *dim == TDim::from(1));
            is_one(*from) || (first..=last).all(|axis| axis == *from || is_one(axis))
        }
        Some(_) => true,
        None => node.op_is::<Identity>(),
    }
}

/// The step that computes `node`; nothing where there is none, or where rows would mix.
pub(super) fn step(
    model: &TypedModel,
    node: &TypedNode,
    operands: &[Operand<'_>],
    (rows, outputs): (&Symbol, &[Sizes]),
) -> Option<Arc<dyn ByRow>> {
    if let Some(step) = kernel::by_row(model, node, operands) {
        return Some(step);
    }
    let [output] = outputs else { return None };
    if let Some(Cast { to }) = node.op_as()
        && let [Operand::Rows(place)] = operands
    {
        return conversion(place.datum_type, without_symbols(*to));
    }
    if let Some(TypedConcat { axis }) = node.op_as()
        && operands.iter().all(|operand| matches!(operand, Operand::Rows(_)))
    {
        // The pieces of a row stand one after the other only if no axis stands between.
        let is_first = *axis > output.axis
            && output.shape[output.axis + 1..*axis].iter().all(|size| *size == Some(1));
        return match without_symbols(node.outputs[0].fact.datum_type) {
            _ if !is_first => None,
            DatumType::F32 => Some(Arc::new(Concat::<f32>(std::marker::PhantomData))),
            DatumType::F64 => Some(Arc::new(Concat::<f64>(std::marker::PhantomData))),
            DatumType::I64 => Some(Arc::new(Concat::<i64>(std::marker::PhantomData))),
            _ => None,
        };
    }
    if let Some(step) = Arithmetic::of(model, node, operands, output) {
        return Some(Arc::new(step));
    }
    let through = Through::of(model, node, operands, (rows, output))?;
    Some(Arc::new(through))
}

/// Numbers of another type, as `as` converts them, and tract.
#[derive(Debug)]
struct Conversion<T, U>(fn(T) -> U);

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "asked for")]
fn conversion(from: DatumType, to: DatumType) -> Option<Arc<dyn ByRow>> {
    use DatumType::{Bool, F32, F64, I32, I64};
    Some(match (from, to) {
        (F32, F64) => Arc::new(Conversion::<f32, f64>(f64::from)),
        (F64, F32) => Arc::new(Conversion::<f64, f32>(|x| x as f32)),
        (F32, I64) => Arc::new(Conversion::<f32, i64>(|x| x as i64)),
        (F64, I64) => Arc::new(Conversion::<f64, i64>(|x| x as i64)),
        (I64, F32) => Arc::new(Conversion::<i64, f32>(|x| x as f32)),
        (I64, F64) => Arc::new(Conversion::<i64, f64>(|x| x as f64)),
        (I32, F32) => Arc::new(Conversion::<i32, f32>(|x| x as f32)),
        (I32, F64) => Arc::new(Conversion::<i32, f64>(f64::from)),
        (I32, I64) => Arc::new(Conversion::<i32, i64>(i64::from)),
        (I64, I32) => Arc::new(Conversion::<i64, i32>(|x| x as i32)),
        (Bool, I64) => Arc::new(Conversion::<bool, i64>(i64::from)),
        (Bool, I32) => Arc::new(Conversion::<bool, i32>(i32::from)),
        (Bool, F32) => Arc::new(Conversion::<bool, f32>(|x| f32::from(u8::from(x)))),
        _ => return None,
    })
}

impl<T: Element, U: Element> ByRow for Conversion<T, U> {
    fn run_rows(&self, inputs: &Inputs<'_>, outputs: Outputs<'_>) -> TractResult<()> {
        let pairs = U::written(outputs).iter_mut().zip(inputs.values::<T>(0));
        pairs.for_each(|(to, &from)| *to = (self.0)(from));
        Ok(())
    }
}

/// Values side by side.
#[derive(Debug)]
struct Concat<T>(std::marker::PhantomData<fn() -> T>);

impl<T: Element> ByRow for Concat<T> {
    fn run_rows(&self, inputs: &Inputs<'_>, outputs: Outputs<'_>) -> TractResult<()> {
        let total: usize = inputs.places.iter().map(|place| place.columns).sum();
        let output = T::written(outputs);
        let mut start = 0;
        for (at, Place { columns, .. }) in inputs.places.iter().enumerate() {
            let values = inputs.values::<T>(at);
            if *columns == 1 {
                let rows = output.chunks_exact_mut(total).zip(values);
                rows.for_each(|(row, &value)| row[start] = value);
            } else {
                let rows = output.chunks_exact_mut(total).zip(values.chunks_exact(*columns));
                rows.for_each(|(row, values)| row[start..start + columns].copy_from_slice(values));
            }
            start += columns;
        }
        Ok(())
    }
}

/// The four operations of binary32, whose results the standard leaves no choice about.
#[derive(Debug)]
struct Arithmetic {
    operation: Operation,
    left: Side,
    right: Side,
    columns: usize,
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Debug)]
enum Side {
    /// An input of the step, of as many columns as the output or of one for all.
    Rows(usize),
    /// The same for all rows: one value for each column, or one for all.
    Constant(Vec<f32>),
}

impl Arithmetic {
    fn of(
        model: &TypedModel,
        node: &TypedNode,
        operands: &[Operand<'_>],
        output: &Sizes,
    ) -> Option<Self> {
        let op = node.op_as::<TypedBinOp>().filter(|op| op.1.is_none()).map(|op| &op.0);
        let op = op.or_else(|| node.op_as::<OptBinByScalar>().map(|op| &op.binop));
        let op = op.or_else(|| node.op_as::<OptBinUnicast>().map(|op| &op.binop))?;
        let (operation, is_swapped) = match op.name() {
            "Add" => (Operation::Add, false),
            "Sub" => (Operation::Subtract, false),
            "SubF" => (Operation::Subtract, true),
            "Mul" => (Operation::Multiply, false),
            "Div" => (Operation::Divide, false),
            _ => return None,
        };
        let mut n_rows = 0;
        let mut side = |at: usize| {
            let fact = model.outlet_fact(node.inputs[at]).ok()?;
            if fact.datum_type != DatumType::F32 || fact.rank() != output.shape.len() {
                return None;
            }
            match operands[at] {
                Operand::Rows(place) => {
                    n_rows += 1;
                    let fits = place.columns == output.columns || place.columns == 1;
                    fits.then_some(Side::Rows(n_rows - 1))
                }
                Operand::Constant(tensor) => {
                    // Its sizes are those of a row, or all 1.
                    let sizes = tensor.shape().iter().zip(&output.shape).skip(output.axis + 1);
                    let is_row = sizes.clone().all(|(size, of_row)| Some(*size) == *of_row);
                    let is_row = is_row && tensor.len() == output.columns;
                    (is_row || tensor.len() == 1)
                        .then(|| kernel::values(tensor).ok().map(|v| Side::Constant(v.to_vec())))?
                }
            }
        };
        let [left, right] = if is_swapped { [1, 0] } else { [0, 1] }.map(&mut side);
        let (left, right) = (left?, right?);
        // The step's inputs are in the node's order.
        let swap = |side| match side {
            Side::Rows(at) if n_rows == 2 => Side::Rows(1 - at),
            side => side,
        };
        let (left, right) = if is_swapped { (swap(left), swap(right)) } else { (left, right) };
        Some(Self { operation, left, right, columns: output.columns })
    }

    /// One operation on slices, of which one may be a single value.
    fn apply(&self, left: &[f32], right: &[f32], output: &mut [f32]) {
        fn each(left: &[f32], right: &[f32], output: &mut [f32], f: impl Fn(f32, f32) -> f32) {
            match (left, right) {
                (&[left], right) => {
                    output.iter_mut().zip(right).for_each(|(to, &right)| *to = f(left, right));
                }
                (left, &[right]) => {
                    output.iter_mut().zip(left).for_each(|(to, &left)| *to = f(left, right));
                }
                (left, right) => {
                    let pairs = output.iter_mut().zip(left.iter().zip(right));
                    pairs.for_each(|(to, (&left, &right))| *to = f(left, right));
                }
            }
        }
        match self.operation {
            Operation::Add => each(left, right, output, |left, right| left + right),
            Operation::Subtract => each(left, right, output, |left, right| left - right),
            Operation::Multiply => each(left, right, output, |left, right| left * right),
            Operation::Divide => each(left, right, output, |left, right| left / right),
        }
    }
}

impl ByRow for Arithmetic {
    fn run_rows(&self, inputs: &Inputs<'_>, outputs: Outputs<'_>) -> TractResult<()> {
        // Values, and how many of them a row has; none where a row has those of all others.
        let side = |side: &'_ Side| match side {
            Side::Rows(at) => (inputs.values::<f32>(*at), Some(inputs.places[*at].columns)),
            Side::Constant(values) => (&[][..], Some(values.len()).filter(|_| false)),
        };
        let (left, left_columns) = side(&self.left);
        let (right, right_columns) = side(&self.right);
        let left = if let Side::Constant(values) = &self.left { values } else { left };
        let right = if let Side::Constant(values) = &self.right { values } else { right };
        let is_plain = |columns: Option<usize>, values: &[f32]| match columns {
            Some(columns) => columns == self.columns,
            None => values.len() == 1,
        };
        if is_plain(left_columns, left) && is_plain(right_columns, right) {
            // All rows are as one.
            self.apply(left, right, outputs.floats);
            return Ok(());
        }
        fn row(values: &[f32], columns: Option<usize>, at: usize) -> &[f32] {
            columns.map_or(values, |columns| &values[at * columns..][..columns])
        }
        for (at, output) in outputs.floats.chunks_exact_mut(self.columns).enumerate() {
            self.apply(row(left, left_columns, at), row(right, right_columns, at), output);
        }
        Ok(())
    }
}

/// One of tract's own, with tensors made for the block.
#[derive(Debug)]
struct Through {
    op: Box<dyn TypedOp>,
    inputs: Vec<Source>,
    output: DatumType,
}

#[derive(Debug)]
enum Source {
    /// Nothing for the axis of rows.
    Rows(Vec<Option<usize>>),
    Constant(TValue),
}

impl Through {
    fn of(
        model: &TypedModel,
        node: &TypedNode,
        operands: &[Operand<'_>],
        (rows, output): (&Symbol, &Sizes),
    ) -> Option<Self> {
        let is_binary = node.op_is::<TypedBinOp>()
            || node.op_is::<OptBinByScalar>()
            || node.op_is::<OptBinUnicast>();
        let works_by_row = is_binary
            || node.op_is::<ElementWiseOp>()
            || node.op_as::<Softmax>().is_some_and(|op| !op.axes.contains(&output.axis))
            || (node.op_as::<Gather>().is_some_and(|op| op.axis == 0)
                && matches!(operands, [Operand::Constant(_), Operand::Rows(_)]));
        let has_symbols = node.outputs[0].fact.datum_type == DatumType::TDim
            || node.inputs.iter().any(|input| {
                model.outlet_fact(*input).is_ok_and(|fact| fact.datum_type == DatumType::TDim)
            });
        if !works_by_row || has_symbols {
            return None;
        }
        let source = |(operand, outlet): (&Operand<'_>, _)| match operand {
            Operand::Rows(_) => {
                let sizes = Sizes::of(model.outlet_fact(outlet).ok()?, rows)?;
                // Where rows meet a value of other rows, they must be the same.
                (sizes.axis == output.axis || !is_binary).then_some(Source::Rows(sizes.shape))
            }
            Operand::Constant(tensor) => {
                // A constant must not have rows of its own.
                let n = tensor.shape().get(output.axis).copied().unwrap_or(1);
                (n == 1 || !is_binary)
                    .then(|| Source::Constant(TValue::from_const((*tensor).clone())))
            }
        };
        let inputs = operands.iter().zip(node.inputs.iter().copied()).map(source);
        let inputs = inputs.collect::<Option<Vec<_>>>()?;
        let datum_type = node.outputs[0].fact.datum_type;
        Some(Self { op: node.op.clone(), inputs, output: datum_type })
    }
}

impl ByRow for Through {
    fn run_rows(&self, inputs: &Inputs<'_>, outputs: Outputs<'_>) -> TractResult<()> {
        let mut places = inputs.places.iter().enumerate();
        let mut values: TVec<TValue> = TVec::with_capacity(self.inputs.len());
        for source in &self.inputs {
            values.push(match source {
                Source::Constant(value) => value.clone(),
                Source::Rows(shape) => {
                    let shape = shape.iter().map(|size| size.unwrap_or(inputs.n_rows));
                    let shape: TVec<usize> = shape.collect();
                    let Some((at, place)) = places.next() else { continue };
                    let tensor = match place.datum_type {
                        DatumType::F32 => TractTensor::from_shape(&shape, inputs.values::<f32>(at)),
                        DatumType::F64 => TractTensor::from_shape(&shape, inputs.values::<f64>(at)),
                        DatumType::I64 => TractTensor::from_shape(&shape, inputs.values::<i64>(at)),
                        DatumType::I32 => TractTensor::from_shape(&shape, inputs.values::<i32>(at)),
                        _ => TractTensor::from_shape(&shape, inputs.values::<bool>(at)),
                    };
                    tensor?.into()
                }
            });
        }
        fn copy<T: tract_onnx::prelude::Datum + Copy>(
            to: &mut [T],
            from: &TractTensor,
        ) -> TractResult<()> {
            let from = kernel::values::<T>(from)?;
            ensure!(from.len() == to.len(), "{} values where {} are due", from.len(), to.len());
            to.copy_from_slice(from);
            Ok(())
        }
        let answers = self.op.eval(&EvalContext::out_of_plan(), values)?;
        ensure!(answers.len() == 1, "{} outputs where one is due", answers.len());
        match self.output {
            DatumType::F32 => copy(outputs.floats, &answers[0]),
            DatumType::F64 => copy(outputs.doubles, &answers[0]),
            DatumType::I64 => copy(outputs.longs, &answers[0]),
            DatumType::I32 => copy(outputs.ints, &answers[0]),
            _ => copy(outputs.flags, &answers[0]),
        }
    }

    /// A tensor's making is shared by more rows.
    fn rows_together(&self) -> usize {
        256
    }
}
