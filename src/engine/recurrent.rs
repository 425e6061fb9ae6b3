//! Recurrences in reverse, for an engine that runs them forward only.
//!
//! tract 0.23.9 reads `direction: reverse` of `GRU`, `LSTM` and `RNN` as forward. A recurrence in
//! reverse is one that runs forward over the steps in reverse order, with its outputs by step put
//! back: two slices with step -1 around the node. The states after the last step are the same.
//! A node with lengths for each sequence of the batch is left alone, and refused by [`guards`].

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, TensorProto};

use super::graph::{attribute, subgraphs_mut};
use super::guards;

/// Rewrites the recurrences of all graphs of the model.
pub(super) fn run_forward(proto: &mut ModelProto) {
    let mut graphs: Vec<&mut GraphProto> = proto.graph.iter_mut().collect();
    while let Some(graph) = graphs.pop() {
        let nodes = std::mem::take(&mut graph.node);
        for node in nodes {
            let is_recurrent = matches!(node.op_type.as_str(), "GRU" | "LSTM" | "RNN");
            let has_lengths = node.input.get(4).is_some_and(|lengths| !lengths.is_empty());
            if is_recurrent && guards::is_reverse(&node) && !has_lengths && !node.input.is_empty() {
                rewrite(graph, node);
            } else {
                graph.node.push(node);
            }
        }
        graphs.extend(graph.node.iter_mut().flat_map(subgraphs_mut));
    }
}

fn rewrite(graph: &mut GraphProto, mut node: NodeProto) {
    let prefix = format!("{}.reverse-{}", node.name, graph.node.len());
    let layout = attribute(&node, "layout").map_or(0, |layout| layout.i);
    for attribute in &mut node.attribute {
        if attribute.name == "direction" {
            attribute.s = b"forward".to_vec();
        }
    }
    let steps_axis = i64::from(layout == 1);
    let input = std::mem::replace(&mut node.input[0], format!("{prefix}.input"));
    let reversed = reverse(graph, &prefix, &input, &node.input[0], steps_axis);
    graph.node.push(reversed);
    let by_step = node.output.first().filter(|output| !output.is_empty()).cloned();
    if let Some(output) = by_step {
        node.output[0] = format!("{prefix}.output");
        let back = reverse(graph, &format!("{prefix}.back"), &node.output[0], &output, steps_axis);
        graph.node.extend([node, back]);
    } else {
        graph.node.push(node);
    }
}

/// A slice of all steps, from the last to the first.
fn reverse(graph: &mut GraphProto, name: &str, from: &str, to: &str, axis: i64) -> NodeProto {
    let mut input = vec![from.to_owned()];
    for (what, value) in [("starts", -1), ("ends", i64::MIN + 1), ("axes", axis), ("steps", -1)] {
        let name = format!("{name}.{what}");
        graph.initializer.push(TensorProto {
            name: name.clone(),
            data_type: DataType::Int64 as i32,
            dims: vec![1],
            int64_data: vec![value],
            ..TensorProto::default()
        });
        input.push(name);
    }
    NodeProto {
        name: name.to_owned(),
        op_type: "Slice".to_owned(),
        input,
        output: vec![to.to_owned()],
        ..NodeProto::default()
    }
}
