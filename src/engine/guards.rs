//! What tract takes and then answers wrongly: refused before it is compiled, with the reason.
//!
//! Each entry was found by the node tests of the `onnx` package (`docs/operators.md`) and holds for
//! tract 0.23.9. A wrong answer that is known is worse than none.

use tract_onnx::pb::NodeProto;

use super::graph::attribute;

/// Why the engine must not run `node`, of a model that imports the default domain's operators in
/// version `opset`; nothing where it may.
pub(super) fn refusal(node: &NodeProto, opset: i64) -> Option<&'static str> {
    if !matches!(node.domain.as_str(), "" | "ai.onnx") {
        return None;
    }
    let has = |name: &str| attribute(node, name).is_some();
    let is_one = |name: &str| attribute(node, name).is_none_or(|attribute| attribute.f == 1.0);
    match node.op_type.as_str() {
        "Attention" if has("left_window_size") || has("right_window_size") => {
            Some("the engine ignores the window of Attention")
        }
        "Attention"
            if attribute(node, "is_causal").is_some_and(|attribute| attribute.i != 0)
                && node.input.get(4).is_some_and(|past| !past.is_empty()) =>
        {
            Some("the engine masks causal Attention wrongly where there are past keys")
        }
        "BitShift" if opset >= 28 => Some("the engine shifts signed numbers as BitShift did not"),
        "Celu" if !is_one("alpha") => Some("the engine computes Celu for alpha 1 only"),
        "Swish" if !is_one("alpha") => Some("the engine computes Swish for alpha 1 only"),
        "SpaceToDepth" if attribute(node, "mode").is_some_and(|a| a.s != b"DCR") => {
            Some("the engine computes SpaceToDepth in mode DCR only")
        }
        "GRU" | "LSTM" | "RNN" if is_reverse(node) => {
            Some("the engine runs a recurrence forward where it is to run in reverse")
        }
        _ => None,
    }
}

/// Whether a recurrent node runs from the last step to the first.
pub(super) fn is_reverse(node: &NodeProto) -> bool {
    attribute(node, "direction").is_some_and(|direction| direction.s == b"reverse")
}
