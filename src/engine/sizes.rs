//! How large the values between a graph's nodes may become.
//!
//! A small file can ask for any size: a fixed one (`ConstantOfShape`), one that grows with the
//! request's rows, or one that the request's numbers say (`Range`). An allocation that
//! fails ends the process, so the size is looked at first: when a graph is compiled, where it is
//! known then, else before the run or before the node. Each value is bounded by [`LARGEST`]; their
//! sum is not, nor what a node takes beside its outputs, nor values inside of subgraphs.

use std::sync::atomic::{AtomicUsize, Ordering};

use tract_onnx::prelude::{
    Datum, SymbolValues, TDim, TValue, TractError, TypedFact, TypedModel, TypedNode,
};
use tract_onnx::tract_core::internal::{Symbol, TractResult};
use tract_onnx::tract_core::ops::array::Range;

use super::kernel::Rejected;

/// The most bytes of one value.
pub(super) const LARGEST: usize = 1 << 31;

/// Bytes of the node's largest output, as far as `symbols` tell sizes.
fn bytes(node: &TypedNode, symbols: &SymbolValues) -> Option<usize> {
    let of_output = |fact: &TypedFact| {
        fact.shape.iter().try_fold(fact.datum_type.size_of(), |bytes, dim| {
            let size = dim.as_i64().or_else(|| dim.eval(symbols).as_i64())?;
            Some(bytes.saturating_mul(usize::try_from(size).ok()?))
        })
    };
    node.outputs.iter().filter_map(|output| of_output(&output.fact)).max()
}

fn refuse(node: &TypedNode, bytes: usize) -> TractError {
    Rejected(format!(
        "'{}' ({}) would make a tensor of {bytes} bytes, of at most {LARGEST}",
        node.name,
        node.op.name()
    ))
    .into()
}

/// Refuses a graph with a value that is too large for any request. O(nodes).
pub(super) fn check_fixed(model: &TypedModel) -> TractResult<()> {
    let none = SymbolValues::default();
    for node in model.nodes() {
        if let Some(bytes) = bytes(node, &none).filter(|&bytes| bytes > LARGEST) {
            return Err(refuse(node, bytes));
        }
    }
    Ok(())
}

/// Refuses what would make `node`'s outputs too large: for graphs that find out on the way.
pub(super) fn check_node(
    node: &TypedNode,
    inputs: &[TValue],
    symbols: &SymbolValues,
) -> TractResult<()> {
    let is_fixed = |fact: &TypedFact| fact.shape.as_concrete().is_some();
    if node.outputs.iter().all(|output| is_fixed(&output.fact)) {
        return Ok(());
    }
    let from_values = match inputs {
        [start, end, step] if node.op_is::<Range>() => {
            let numbers = [start, end, step].map(|value| number(value, symbols));
            let [Some(start), Some(end), Some(step)] = numbers else { return Ok(()) };
            // No number is wider than 8 bytes, and `as` saturates.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "see above"
            )]
            let bytes = (((end - start) / step).ceil().max(0.0) * 8.0) as usize;
            bytes
        }
        _ => 0,
    };
    let bytes = bytes(node, symbols).unwrap_or(0).max(from_values);
    if bytes > LARGEST { Err(refuse(node, bytes)) } else { Ok(()) }
}

/// The number that a tensor holds, as near as it matters here.
fn number(value: &TValue, symbols: &SymbolValues) -> Option<f64> {
    if value.datum_type() == TDim::datum_type() {
        let dim = value.try_as_plain_ram().ok()?.to_scalar::<TDim>().ok()?.eval(symbols);
        #[expect(clippy::cast_precision_loss, reason = "compared with a limit")]
        return dim.as_i64().map(|size| size as f64);
    }
    value.cast_to_scalar::<f64>().ok()
}

/// Sizes that depend on nothing but the sizes of the inputs.
///
/// Looking at all of them takes as long as a small node, so it is done only where the request's
/// largest size is above all that passed before: sizes grow with those of the inputs.
pub(super) struct Growing {
    nodes: Vec<usize>,
    symbols: Vec<Symbol>,
    /// With this for each size of the inputs nothing is too large.
    proven: AtomicUsize,
}

impl Growing {
    pub(super) fn of(model: &TypedModel, order: &[usize]) -> Self {
        let grows = |id: &usize| {
            let mut outputs = model.node(*id).outputs.iter();
            outputs.any(|output| output.fact.shape.as_concrete().is_none())
        };
        let nodes: Vec<usize> = order.iter().copied().filter(grows).collect();
        let outputs = nodes.iter().flat_map(|id| &model.node(*id).outputs);
        let mut symbols: Vec<Symbol> = Vec::new();
        for symbol in outputs.flat_map(|o| o.fact.shape.iter()).flat_map(TDim::symbols) {
            if !symbols.contains(&symbol) {
                symbols.push(symbol);
            }
        }
        Self { nodes, symbols, proven: AtomicUsize::new(0) }
    }

    /// Refuses a request whose sizes, of which `largest` is the largest, are too large.
    pub(super) fn check(
        &self,
        model: &TypedModel,
        symbols: &SymbolValues,
        largest: usize,
    ) -> TractResult<()> {
        if largest <= self.proven.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.check_exactly(model, symbols)?;
        // Of sizes that do not grow, but shrink, the first is the largest.
        let passes = |size: i64| {
            let mut all = SymbolValues::default();
            self.symbols.iter().for_each(|symbol| all.set(symbol, size));
            self.check_exactly(model, &all).is_ok()
        };
        if passes(1) && i64::try_from(largest).is_ok_and(passes) {
            self.proven.fetch_max(largest, Ordering::Relaxed);
        }
        Ok(())
    }

    fn check_exactly(&self, model: &TypedModel, symbols: &SymbolValues) -> TractResult<()> {
        for &id in &self.nodes {
            let node = model.node(id);
            if let Some(bytes) = bytes(node, symbols).filter(|&bytes| bytes > LARGEST) {
                return Err(refuse(node, bytes));
            }
        }
        Ok(())
    }
}
